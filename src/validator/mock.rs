//! The mock: a fixed user for everybody, or in hybrid mode for whoever asks for it by name.

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

/// `iss` of mock identities: no provider can have it.
const ISSUER: &str = "urn:scaikey-auth:mock";

/// How long a mock identity holds, from each request on.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Accepts tokens without looking into them.
#[derive(Debug)]
pub(crate) struct MockValidator {
    claims: Map<String, Value>,
    /// What a token must begin with; `None` takes every token.
    prefix: Option<String>,
    clock: Arc<dyn Clock>,
}

impl MockValidator {
    /// Mock mode: every token.
    pub(crate) fn for_everybody(user: &MockUser, clock: Arc<dyn Clock>) -> Self {
        Self { claims: user.claims.clone(), prefix: None, clock }
    }

    /// Hybrid mode: tokens that cannot be real and ask for the mock user.
    pub(crate) fn by_name(user: &MockUser, clock: Arc<dyn Clock>) -> Self {
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
        let document = document.map_err(|_| InvalidToken::Malformed("mock claims"))?;
        let mapping = ClaimsMapping::default();
        let reading = Reading {
            issuer: ISSUER.into(),
            mapping: &mapping,
            provenance: Provenance::Mock,
            legacy_service_tokens: false,
        };
        reading.identity(document)
    }
}

#[async_trait]
impl TokenValidator for MockValidator {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        match &self.prefix {
            None => true,
            // Whatever has a dot may be a real token, however broken: never the mock's.
            Some(prefix) => {
                let token = presented.token_octets();
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
