//! aliri_tower with its key set in memory. It knows no EdDSA.

use aliri::jwa::Algorithm;
use aliri::jwt::{self, CoreValidator};
use aliri_oauth2::Authority;
use aliri_oauth2::scope::BasicClaimsWithScope;
use aliri_tower::Oauth2Authorizer;
use bytes::Bytes;
use http_body_util::Full;
use tower::Layer;

use super::Built;
use super::little::little;
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
    let layer =
        Oauth2Authorizer::new().with_terse_error_handler::<Full<Bytes>>().jwt_layer(authority);
    let service = little::<(), Full<Bytes>>(|extensions| {
        let claims = extensions.get::<BasicClaimsWithScope>()?;
        Some(jwt::CoreClaims::sub(claims)?.as_str().to_owned())
    });
    Ok(Some(Pair::new::<(), _, _, _>(layer.layer(service.clone()), service)))
}
