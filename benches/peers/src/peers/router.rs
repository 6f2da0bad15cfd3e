//! The small service as an axum router, for peers that work only in routers.

use axum::Router;
use axum::body::Body;
use axum::response::AppendHeaders;
use axum::routing::get;

use crate::service::{Pair, SUBJECT_HEADER, SUBJECT_PATH};

/// The answer of a handler with the subject that it received.
pub(super) type SubjectAnswer = AppendHeaders<[(&'static str, String); 1]>;

pub(super) fn subject_answer(subject: &str) -> SubjectAnswer {
    AppendHeaders([(SUBJECT_HEADER, subject.to_owned())])
}

async fn empty() {}

/// Returns the measured routes without protection.
pub(super) fn bare() -> Router {
    Router::new().route("/", get(empty)).route(SUBJECT_PATH, get(empty))
}

/// Pairs a protected router with the bare one.
pub(super) fn pair(protected: Router) -> Pair {
    Pair::new::<Body, _, _, _, _>(protected, bare())
}

#[cfg(any(feature = "axum-keycloak-auth", feature = "huskarl"))]
pub(super) use unprotected::unprotected;

#[cfg(any(feature = "axum-keycloak-auth", feature = "huskarl"))]
mod unprotected {
    use super::{Router, SUBJECT_PATH, empty, get};

    /// Returns the same routes with the handler of a peer for the subject, to be wrapped in the
    /// layer of that peer.
    pub(in super::super) fn unprotected<H, T>(subject: H) -> Router
    where
        H: axum::handler::Handler<T, ()>,
        T: 'static,
    {
        Router::new().route("/", get(empty)).route(SUBJECT_PATH, get(subject))
    }
}
