//! [`RequireLayer`]: the layer that applies a guard.

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tower_layer::Layer;

use super::guards::{Guard, GuardRequest};
use crate::auth::{Auth, AuthContext};
use crate::error::{AuthError, ErrorResponse, ProblemJson};
use crate::gate::{Decision, Gate, Gated};
use crate::layer::{RequestHead, Unauthenticated, refuse};

/// A layer that refuses the requests that its guard refuses. Created by [`Auth::require`], and with a
/// guard for each path by [`Auth::require_by_path`].
///
/// It must stand inside an [`AuthLayer`](crate::AuthLayer). Otherwise each request gets 500, and the log
/// names the missing layer.
///
/// ```
/// use axum::{Router, routing::delete};
/// use scaikey_auth::error::EmptyBody;
/// use scaikey_auth::{Auth, role};
///
/// fn app(auth: &Auth) -> Router {
///     let editors = auth.require(role("editor")).respond_with(EmptyBody);
///     let routes = Router::new().route("/docs/{id}", delete(|| async {})).route_layer(editors);
///     routes.layer(auth.layer())
/// }
/// ```
#[derive(Clone)]
pub struct RequireLayer {
    auth: Auth,
    options: Arc<Options>,
}

/// The options, shared because the layer is cloned for each request.
#[derive(Clone)]
struct Options {
    guard: Arc<dyn Guard>,
    /// The paths that need no identity.
    public: HashSet<String>,
    respond: Arc<dyn ErrorResponse>,
}

impl RequireLayer {
    pub(super) fn new(auth: Auth, guard: impl Guard) -> Self {
        Self::with_public_paths(auth, guard, HashSet::new())
    }

    /// Creates a layer that lets requests to the `public` paths pass without an identity.
    pub(super) fn with_public_paths(
        auth: Auth,
        guard: impl Guard,
        public: HashSet<String>,
    ) -> Self {
        let options = Options { guard: Arc::new(guard), public, respond: Arc::new(ProblemJson) };
        Self { auth, options: Arc::new(options) }
    }

    /// Sets the format of refusals. Default: [`ProblemJson`].
    #[must_use]
    pub fn respond_with(mut self, respond: impl ErrorResponse) -> Self {
        Arc::make_mut(&mut self.options).respond = Arc::new(respond);
        self
    }

    fn check<Q>(&self, request: &Request<Q>) -> Result<(), AuthError> {
        let extensions = request.extensions();
        if let Some(context) = extensions.get::<AuthContext>() {
            let request = GuardRequest::new(request, context, self.auth.now());
            return self.options.guard.check(&request);
        }
        match extensions.get::<Unauthenticated>() {
            Some(Unauthenticated::Anonymous(_)) => match self.is_public(request) {
                true => Ok(()),
                false => Err(AuthError::MissingCredentials),
            },
            Some(Unauthenticated::Preflight(_)) => Ok(()),
            None => Err(AuthError::MissingLayer),
        }
    }

    fn is_public<Q>(&self, request: &Request<Q>) -> bool {
        self.options.public.contains(request.uri().path())
    }
}

impl fmt::Debug for RequireLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RequireLayer {
    type Service = GuardService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

/// A service behind a [`RequireLayer`].
pub type GuardService<S> = Gated<S, RequireLayer>;

impl<Q> Gate<Q> for RequireLayer {
    type After = ();
    type Awaited = Infallible;

    fn decide(
        &self,
        request: &mut Request<Q>,
    ) -> Result<Decision<(), Infallible>, Response<Bytes>> {
        self.check(request).map(Decision::Pass).map_err(|error| {
            let client = RequestHead::of(request).client_kind();
            refuse(&self.auth, &*self.options.respond, &error, client)
        })
    }

    fn resume(&self, awaited: Infallible, _: &mut Request<Q>) -> Result<(), Response<Bytes>> {
        match awaited {}
    }
}
