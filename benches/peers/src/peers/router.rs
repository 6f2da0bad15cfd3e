//! The little service as an axum router, for peers that work in routers alone.

use axum::Router;
use axum::body::Body;
use axum::response::AppendHeaders;
use axum::routing::get;

use crate::service::{Pair, SUBJECT_HEADER, SUBJECT_PATH};

/// How a handler tells whom it saw.
pub(super) type Seen = AppendHeaders<[(&'static str, String); 1]>;

pub(super) fn seen(subject: &str) -> Seen {
    AppendHeaders([(SUBJECT_HEADER, subject.to_owned())])
}

async fn quick() {}

/// The route that is measured, without protection.
pub(super) fn bare() -> Router {
    Router::new().route("/", get(quick)).route(SUBJECT_PATH, get(quick))
}

/// A protected router beside the bare one.
pub(super) fn pair(protected: Router) -> Pair {
    Pair::new::<Body, _, _, _, _>(protected, bare())
}

#[cfg(any(feature = "axum-keycloak-auth", feature = "huskarl"))]
pub(super) use open::open;

#[cfg(any(feature = "axum-keycloak-auth", feature = "huskarl"))]
mod open {
    use super::{Router, SUBJECT_PATH, get, quick};

    /// The same routes, the second with a handler of the peer's own; to be wrapped by its layer.
    pub(in super::super) fn open<H, T>(subject: H) -> Router
    where
        H: axum::handler::Handler<T, ()>,
        T: 'static,
    {
        Router::new().route("/", get(quick)).route(SUBJECT_PATH, get(subject))
    }
}
