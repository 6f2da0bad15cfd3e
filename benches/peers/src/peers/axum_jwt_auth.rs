//! axum-jwt-auth with remote keys, as in its README. A validation covers one family of algorithms.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use axum_jwt_auth::{Claims as Token, Decoder, RemoteJwksDecoder};
use jsonwebtoken_10::{Algorithm, Validation};

use super::Built;
use super::claims::Claims;
use super::router::{SubjectAnswer, pair, subject_answer};
use crate::protocol::Provider;
use crate::service::SUBJECT_PATH;

pub(super) async fn build(provider: &Provider, algorithm: &str) -> Built {
    let mut rules = Validation::new(algorithm.parse::<Algorithm>()?);
    rules.set_issuer(&[&provider.issuer]);
    rules.set_audience(&[&provider.audience]);
    rules.validate_nbf = true;
    let decoder = RemoteJwksDecoder::builder()
        .jwks_url(provider.jwks_uri.clone())
        .validation(rules)
        .build()?;
    decoder.initialize().await?;
    let state: Decoder<Claims> = Arc::new(decoder);
    let router = Router::new().route("/", get(quick)).route(SUBJECT_PATH, get(subject));
    Ok(Some(pair(router.with_state(state))))
}

async fn quick(_token: Token<Claims>) {}

async fn subject(token: Token<Claims>) -> SubjectAnswer {
    subject_answer(&token.claims.sub)
}
