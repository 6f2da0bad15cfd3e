//! [`SessionTokens`]: a user's tokens, renewed before they expire.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{AccessToken, ExchangeError, Freshness, RefreshRequest, TokenExchangeClient};
use crate::identity::TenantId;
use crate::support::retry::{Backoff, Failures};
use crate::support::secret::Secret;
use crate::support::single_flight::SingleFlight;

/// The tokens of one session, renewed on use. Cheap to clone; clones share the session.
///
/// After 80 % of its lifetime the access token is still returned while a background task renews it.
/// Callers wait only after it has expired. A token of unknown lifetime is never renewed. An unused
/// session is not renewed. Several processes with a shared cache may hold the same refresh token: if
/// they renew within a minute of each other, they get the same new tokens.
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::exchange::{CodeRequest, ExchangeError, SessionTokens};
///
/// /// Signs a user in. The session lives as long as the provider renews its tokens.
/// async fn sign_in(
///     client: &TokenExchangeClient,
///     code: &CodeRequest,
/// ) -> Result<SessionTokens, ExchangeError> {
///     let first = client.authorization_code(code).await?;
///     Ok(SessionTokens::new(client.clone(), first))
/// }
///
/// /// Returns the value of the header `Authorization` for a request in this session.
/// async fn header(session: &SessionTokens) -> Result<String, ExchangeError> {
///     Ok(format!("Bearer {}", session.access_token().await?.secret().expose()))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct SessionTokens(Arc<Session>);

#[derive(Debug)]
struct Session {
    client: TokenExchangeClient,
    tenant: Option<TenantId>,
    tokens: ArcSwap<Tokens>,
    renewals: SingleFlight<(), Result<AccessToken, ExchangeError>>,
}

#[derive(Debug)]
struct Tokens {
    access: AccessToken,
    refresh: Option<Secret>,
    /// The number of failed renewals, and the time of the next attempt.
    failures: Failures,
}

impl SessionTokens {
    /// Returns a session that starts with `first`, the token from
    /// [`TokenExchangeClient::authorization_code`] or another grant. Without a refresh token the
    /// session ends when the access token expires.
    pub fn new(client: TokenExchangeClient, first: AccessToken) -> Self {
        Self::of(client, first, None)
    }

    /// Returns a session in a tenant, for a client whose token endpoint depends on the tenant.
    pub fn in_tenant(client: TokenExchangeClient, first: AccessToken, tenant: TenantId) -> Self {
        Self::of(client, first, Some(tenant))
    }

    fn of(client: TokenExchangeClient, access: AccessToken, tenant: Option<TenantId>) -> Self {
        let refresh = access.refresh_token().cloned();
        let first = Tokens { access, refresh, failures: Failures::default() };
        let (tokens, renewals) = (ArcSwap::from_pointee(first), SingleFlight::default());
        Self(Arc::new(Session { client, tenant, tokens, renewals }))
    }

    /// Returns a valid access token.
    ///
    /// # Errors
    /// The token has expired, and the renewal failed or there is no refresh token. `invalid_grant`
    /// means that the user has to sign in again, and so does [`Revoked`](ExchangeError::Revoked): the access token is
    /// [revoked](super::TokenExchangeBuilder::revocations), and the refresh token is not used.
    pub async fn access_token(&self) -> Result<AccessToken, ExchangeError> {
        let session = &self.0;
        let tokens = session.tokens.load_full();
        session.client.refuse_revoked_token(tokens.access.secret()).await?;
        let clock = session.client.cached.clock();
        match tokens.access.freshness_until_expiry(clock) {
            Freshness::Fresh => Ok(tokens.access.clone()),
            Freshness::Due => {
                if tokens.refresh.is_some() && clock.elapsed() >= tokens.failures.retry_at {
                    drop(session.renewals.run((), || renew(session.clone())));
                }
                Ok(tokens.access.clone())
            }
            Freshness::Expired => {
                let renewed = session.renewals.run((), || renew(session.clone())).wait().await;
                let aborted = || {
                    ExchangeError::unavailable(
                        None,
                        "the task that renewed the session was aborted",
                    )
                };
                renewed.unwrap_or_else(|| Err(aborted()))
            }
        }
    }

    /// Returns the current refresh token, for example to store it or to
    /// [revoke](TokenExchangeClient::revoke) it. Every renewal may change it.
    pub fn refresh_token(&self) -> Option<Secret> {
        self.0.tokens.load().refresh.clone()
    }
}

/// Renews the session and stores the new tokens.
async fn renew(session: Arc<Session>) -> Result<AccessToken, ExchangeError> {
    let tokens = session.tokens.load_full();
    let clock = session.client.cached.clock();
    if tokens.access.freshness_until_expiry(clock) == Freshness::Fresh {
        // Another renewal finished just before this one started.
        return Ok(tokens.access.clone());
    }
    let Some(refresh) = tokens.refresh.clone() else {
        return Err(ExchangeError::NotConfigured("the session has no refresh token"));
    };
    let outcome = refresh_until_valid(&session, &refresh).await;
    let tokens = match &outcome {
        Ok(access) => Tokens {
            access: access.clone(),
            refresh: access.refresh_token().cloned().or(Some(refresh)),
            failures: Failures::default(),
        },
        Err(_) => {
            let mut failures = tokens.failures;
            failures.add(Backoff::SESSION, None, clock.elapsed());
            Tokens { access: tokens.access.clone(), refresh: Some(refresh), failures }
        }
    };
    session.tokens.store(Arc::new(tokens));
    outcome
}

/// Uses the refresh token and returns the new token. If another process has already used it and that
/// token has expired in the meantime, also uses the next refresh token.
async fn refresh_until_valid(
    session: &Session,
    refresh: &Secret,
) -> Result<AccessToken, ExchangeError> {
    let request = |refresh: &Secret| {
        let mut request = RefreshRequest::new(refresh.clone());
        request.tenant = session.tenant.clone();
        request
    };
    let first = session.client.refresh(&request(refresh)).await?;
    let clock = session.client.cached.clock();
    match first.refresh_token().filter(|next| *next != refresh) {
        Some(next) if first.freshness_until_expiry(clock) == Freshness::Expired => {
            session.client.refresh(&request(next)).await
        }
        _ => Ok(first),
    }
}
