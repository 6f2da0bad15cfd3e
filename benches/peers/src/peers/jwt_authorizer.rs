//! jwt-authorizer with its key set in memory. It answers with axum 0.7 types but needs no router.

use axum_07::body::Body;
use jwt_authorizer::{IntoLayer, JwtAuthorizer, Validation};
use tower::Layer;

use super::Built;
use super::claims::Claims;
use super::tower_service::small_service;
use crate::protocol::Provider;
use crate::service::Pair;

pub(super) async fn build(provider: &Provider) -> Built {
    let rules = Validation::new().iss(&[&provider.issuer]).aud(&[&provider.audience]).nbf(true);
    let authorizer =
        JwtAuthorizer::<Claims>::from_jwks_text(&provider.jwks).validation(rules).build().await?;
    let service = small_service::<(), Body>(|extensions| {
        let token = extensions.get::<jsonwebtoken_09::TokenData<Claims>>()?;
        Some(token.claims.sub.clone())
    });
    Ok(Some(Pair::new::<(), _, _, _, _>(authorizer.into_layer().layer(service.clone()), service)))
}
