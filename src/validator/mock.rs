//! The mock validator: one fixed user for every token, or in hybrid mode for tokens with a prefix.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Credentials, TokenValidator};
use crate::clock::{Clock, unix_seconds};
use crate::config::MockUser;
use crate::error::{AuthError, InvalidToken};
use crate::identity::{ClaimsMapping, Identity, Provenance, Reading};
use crate::support::json::Document;

/// `iss` of mock identities. It differs from the `iss` of every OpenID provider, which is an https URL.
const ISSUER: &str = "urn:scaikey-auth:mock";

/// The lifetime of a mock identity. It begins anew with each request.
const LIFETIME: Duration = Duration::from_secs(3600);

/// A validator that accepts tokens without verifying them.
#[derive(Debug)]
pub(crate) struct MockValidator {
    claims: Map<String, Value>,
    /// The required start of a token; `None` accepts every token.
    prefix: Option<String>,
    clock: Arc<dyn Clock>,
}

impl MockValidator {
    /// Creates the validator of mock mode, which accepts every token.
    pub(crate) fn for_every_token(user: &MockUser, clock: Arc<dyn Clock>) -> Self {
        Self { claims: user.claims.clone(), prefix: None, clock }
    }

    /// Creates the validator of hybrid mode, which accepts tokens that begin with the prefix and cannot be
    /// JWTs.
    pub(crate) fn for_prefixed_tokens(user: &MockUser, clock: Arc<dyn Clock>) -> Self {
        Self { claims: user.claims.clone(), prefix: Some(user.token_prefix.clone()), clock }
    }

    fn identity(&self) -> Result<Identity, InvalidToken> {
        let now = self.clock.now();
        let mut claims = self.claims.clone();
        claims.insert("iss".to_owned(), ISSUER.into());
        claims.insert("iat".to_owned(), unix_seconds(now).into());
        claims.insert("exp".to_owned(), unix_seconds(now + LIFETIME).into());
        let payload = Value::Object(claims).to_string();
        let document = Document::parse(payload);
        let document =
            document.map_err(|_| InvalidToken::Malformed("the mock claims are invalid"))?;
        let mapping = ClaimsMapping::default();
        let reading = Reading {
            issuer: ISSUER.into(),
            mapping: &mapping,
            provenance: Provenance::Mock,
            legacy_service_tokens: false,
            logged: None,
        };
        reading.identity(document)
    }
}

#[async_trait]
impl TokenValidator for MockValidator {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        match &self.prefix {
            None => true,
            // A token with a dot may be a JWT, even a broken one. The mock never accepts it.
            Some(prefix) => {
                let token = presented.token_bytes();
                !token.contains(&b'.') && token.starts_with(prefix.as_bytes())
            }
        }
    }

    fn try_validate(&self, _presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        Some(self.identity().map_err(AuthError::from))
    }

    async fn validate(&self, _presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        self.identity().map_err(AuthError::from)
    }
}
