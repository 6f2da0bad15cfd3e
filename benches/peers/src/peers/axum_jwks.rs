//! axum-jwks, which supports only RSA keys and rejects a key set with any other key.

use axum::Router;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_jwks::{Claims as Token, Jwks, ParseTokenClaims, TokenError};
use jsonwebtoken_09::jwk::{AlgorithmParameters, JwkSet};

use super::Built;
use super::claims::Claims;
use super::router::{SubjectAnswer, pair, subject_answer};
use crate::protocol::Provider;
use crate::service::SUBJECT_PATH;

pub(super) fn build(provider: &Provider, algorithm: &str) -> Built {
    if algorithm != "RS256" {
        return Ok(None);
    }
    let mut set: JwkSet = serde_json::from_str(&provider.jwks)?;
    set.keys.retain(|key| matches!(key.algorithm, AlgorithmParameters::RSA(_)));
    let jwks = Jwks::from_jwk_set(set, Some(&provider.audience), None)?;
    let router = Router::new().route("/", get(quick)).route(SUBJECT_PATH, get(subject));
    Ok(Some(pair(router.with_state(State { jwks }))))
}

#[derive(Clone)]
struct State {
    jwks: Jwks,
}

impl FromRef<State> for Jwks {
    fn from_ref(state: &State) -> Self {
        state.jwks.clone()
    }
}

pub(crate) struct Refused;

impl From<TokenError> for Refused {
    fn from(_error: TokenError) -> Self {
        Self
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

impl ParseTokenClaims for Claims {
    type Rejection = Refused;
}

async fn quick(_token: Token<Claims>) {}

async fn subject(Token(claims): Token<Claims>) -> SubjectAnswer {
    subject_answer(&claims.sub)
}
