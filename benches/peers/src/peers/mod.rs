//! The peers, each with its fastest documented settings. A build contains one of them.

#[cfg(feature = "aliri")]
mod aliri;
#[cfg(feature = "axum-jwks")]
mod axum_jwks;
#[cfg(feature = "axum-jwt-auth")]
mod axum_jwt_auth;
#[cfg(feature = "axum-keycloak-auth")]
mod axum_keycloak_auth;
mod claims;
#[cfg(feature = "hand-written")]
mod hand_written;
#[cfg(feature = "huskarl")]
mod huskarl;
#[cfg(feature = "jwt-authorizer")]
mod jwt_authorizer;
#[cfg(feature = "oauth-resource-server")]
mod oauth_resource_server;
#[cfg(feature = "router")]
mod router;
#[cfg(feature = "scaikey")]
mod scaikey;
#[cfg(feature = "tower-oauth2")]
mod tower_oauth2;
#[cfg(feature = "tower-service")]
mod tower_service;

use std::error::Error;

use crate::protocol::Provider;
use crate::service::Pair;

/// The services of a peer, or `None` if it does not support the algorithm.
type Built = Result<Option<Pair>, Box<dyn Error>>;

#[allow(unused_variables, reason = "each build has one peer, which may not need every argument")]
pub(crate) async fn build(peer: &str, provider: &Provider, algorithm: &str) -> Built {
    match peer {
        #[cfg(feature = "scaikey")]
        "scaikey-cached" => scaikey::cached(provider).await,
        #[cfg(feature = "scaikey")]
        "scaikey-uncached" => scaikey::uncached(provider).await,
        #[cfg(feature = "hand-written")]
        "hand-written" => hand_written::build(provider),
        #[cfg(feature = "jwt-authorizer")]
        "jwt-authorizer" => jwt_authorizer::build(provider).await,
        #[cfg(feature = "tower-oauth2")]
        "tower-oauth2-aws-lc" | "tower-oauth2-rust-crypto" => tower_oauth2::build(provider).await,
        #[cfg(feature = "axum-jwt-auth")]
        "axum-jwt-auth" => axum_jwt_auth::build(provider, algorithm).await,
        #[cfg(feature = "axum-keycloak-auth")]
        "axum-keycloak-auth" => axum_keycloak_auth::build(provider).await,
        #[cfg(feature = "axum-jwks")]
        "axum-jwks" => axum_jwks::build(provider, algorithm),
        #[cfg(feature = "aliri")]
        "aliri" => aliri::build(provider, algorithm),
        #[cfg(feature = "oauth-resource-server")]
        "oauth-resource-server" => oauth_resource_server::build(provider),
        #[cfg(feature = "huskarl")]
        "huskarl" => huskarl::build(provider).await,
        _ => Err(format!("{peer} is not part of this build").into()),
    }
}
