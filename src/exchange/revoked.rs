//! Revoked tokens, which are not exchanged, and for which no cached token is returned.

use std::sync::Arc;

use super::request::TokenRequest;
use super::token::claimed_identity;
use super::{ExchangeError, TokenExchangeClient};
use crate::error::AuthError;
use crate::revocation::Revocations;
use crate::support::secret::Secret;

impl TokenExchangeClient {
    /// Refuses a request with a revoked subject or actor token.
    pub(super) async fn refuse_revoked(
        &self,
        request: &TokenRequest<'_>,
    ) -> Result<(), ExchangeError> {
        // Boxed, so that the futures of callers stay small while nothing is revoked.
        match self.revocations_in_force() {
            Some(revocations) => {
                Box::pin(async {
                    for token in request.subject().into_iter().chain(request.actor()) {
                        self.check(revocations, token).await?;
                    }
                    Ok(())
                })
                .await
            }
            None => Ok(()),
        }
    }

    /// Refuses a revoked token of the user.
    pub(super) async fn refuse_revoked_token(&self, token: &Secret) -> Result<(), ExchangeError> {
        match self.revocations_in_force() {
            Some(revocations) => Box::pin(self.check(revocations, token)).await,
            None => Ok(()),
        }
    }

    fn revocations_in_force(&self) -> Option<&Revocations> {
        let revocations = self.cached.endpoint.revocations.get();
        revocations.filter(|revocations| !revocations.is_idle())
    }

    /// Judges a token by its claims, *not verified*: a revoked token that is changed is not exchanged by the provider.
    /// A token whose claims cannot be read is left to the provider.
    async fn check(&self, revocations: &Revocations, token: &Secret) -> Result<(), ExchangeError> {
        let Some(identity) = claimed_identity(token, self.claims_mapping()) else { return Ok(()) };
        revocations.check(&identity).await.map_err(|error| match error {
            AuthError::InvalidToken(_) => ExchangeError::Revoked,
            error => ExchangeError::Unavailable {
                retry_after: error.retry_after(),
                source: Arc::new(error),
            },
        })
    }
}
