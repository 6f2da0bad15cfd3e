//! aliri_tower with its key set in memory. It does not support EdDSA.

use aliri::jwa::Algorithm;
use aliri::jwt::{self, CoreClaims, CoreValidator};
use aliri_clock::UnixTime;
use aliri_oauth2::{Authority, HasScope, Scope};
use aliri_tower::Oauth2Authorizer;
use bytes::Bytes;
use http_body_util::Full;
use serde::Deserialize;
use tower::Layer;

use super::Built;
use super::tower_service::small_service;
use crate::protocol::Provider;
use crate::service::Pair;

pub(super) fn build(provider: &Provider, algorithm: &str) -> Built {
    if algorithm == "EdDSA" {
        return Ok(None);
    }
    let rules = CoreValidator::default()
        .add_approved_algorithm(Algorithm::RS256)
        .add_approved_algorithm(Algorithm::ES256)
        .add_allowed_audience(jwt::Audience::from(provider.audience.clone()))
        .require_issuer(jwt::Issuer::from(provider.issuer.clone()))
        .check_expiration()
        .check_not_before();
    let authority = Authority::new(serde_json::from_str(&provider.jwks)?, rules);
    let layer = Oauth2Authorizer::new()
        .with_claims::<Token>()
        .with_terse_error_handler::<Full<Bytes>>()
        .jwt_layer(authority);
    let service = small_service::<(), Full<Bytes>>(|extensions| {
        Some(extensions.get::<Token>()?.sub.as_str().to_owned())
    });
    Ok(Some(Pair::new::<(), _, _, _, _>(layer.layer(service.clone()), service)))
}

/// The common claims in the types that it checks.
#[derive(Debug, Clone, Deserialize)]
#[allow(dead_code, reason = "a service would read them")]
struct Token {
    iss: jwt::Issuer,
    sub: jwt::Subject,
    aud: jwt::Audiences,
    exp: UnixTime,
    nbf: UnixTime,
    scope: Scope,
    tenant_id: String,
    preferred_username: String,
    email: String,
    roles: Vec<String>,
    groups: Vec<String>,
}

impl CoreClaims for Token {
    fn nbf(&self) -> Option<UnixTime> {
        Some(self.nbf)
    }

    fn exp(&self) -> Option<UnixTime> {
        Some(self.exp)
    }

    fn aud(&self) -> &jwt::Audiences {
        &self.aud
    }

    fn iss(&self) -> Option<&jwt::IssuerRef> {
        Some(&self.iss)
    }

    fn sub(&self) -> Option<&jwt::SubjectRef> {
        Some(&self.sub)
    }
}

impl HasScope for Token {
    fn scope(&self) -> &Scope {
        &self.scope
    }
}
