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

async fn quick() {}

/// Returns the measured routes without protection.
pub(super) fn bare() -> Router {
    Router::new().route("/", get(quick)).route(SUBJECT_PATH, get(quick))
}

/// Pairs a protected router with the bare one.
pub(super) fn pair(protected: Router) -> Pair {
    Pair::new::<Body, _, _, _, _>(protected, bare())
}

#[cfg(any(feature = "axum-keycloak-auth", feature = "huskarl"))]
pub(super) use open::open;

#[cfg(any(feature = "axum-keycloak-auth", feature = "huskarl"))]
mod open {
    use super::{Router, SUBJECT_PATH, get, quick};

    /// Returns the same routes with a peer-specific handler for the subject, for the layer of the
    /// peer.
    pub(in super::super) fn open<H, T>(subject: H) -> Router
    where
        H: axum::handler::Handler<T, ()>,
        T: 'static,
    {
        Router::new().route("/", get(quick)).route(SUBJECT_PATH, get(subject))
    }
}
