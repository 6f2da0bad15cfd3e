//! [`CallerLayer`]: makes the caller of an incoming request known to the outgoing requests of its
//! handler.

use std::future::Future;
use std::task::{Context, Poll};

use http::Request;
use tokio::task::futures::TaskLocalFuture;
use tower_layer::Layer;
use tower_service::Service;

use crate::auth::AuthContext;

tokio::task_local! {
    static CALLER: Option<AuthContext>;
}

/// Runs `work` on behalf of a caller: an [`OutboundLayer`](super::OutboundLayer) that `work` uses takes
/// its tokens for this caller.
///
/// Tasks that `work` spawns do not inherit the caller. Wrap their future again:
/// `tokio::spawn(with_caller(context, work))`.
///
/// ```
/// use scaikey_auth::outbound::with_caller;
/// use scaikey_auth::{Auth, AuthError};
///
/// /// Handles a message of a queue, which carries the token of the user who sent it.
/// async fn handle(auth: &Auth, token: &str, work: impl Future<Output = ()>) -> Result<(), AuthError> {
///     let context = auth.authenticate(token).await?;
///     with_caller(context, work).await;
///     Ok(())
/// }
/// ```
pub fn with_caller<F: Future>(
    context: AuthContext,
    work: F,
) -> TaskLocalFuture<Option<AuthContext>, F> {
    CALLER.scope(Some(context), work)
}

/// Returns the caller of the current task.
pub(super) fn current() -> Option<AuthContext> {
    CALLER.try_with(Clone::clone).ok().flatten()
}

/// A layer that runs each request in [`with_caller`], so that handlers need not pass the caller to
/// outgoing requests.
///
/// Add it inside [`Auth::layer`](crate::Auth::layer), that is, nearer to the handlers. A request
/// without an identity has no caller, even if the surrounding task has a caller.
///
/// ```
/// use axum::{Router, routing::get};
/// use scaikey_auth::Auth;
/// use scaikey_auth::outbound::CallerLayer;
/// use tower::ServiceBuilder;
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaidrive").build()?;
/// let layers = ServiceBuilder::new().layer(auth.layer()).layer(CallerLayer);
/// let app: Router = Router::new().route("/", get(async || "calls other services")).layer(layers);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CallerLayer;

impl<S> Layer<S> for CallerLayer {
    type Service = CallerService<S>;

    fn layer(&self, inner: S) -> CallerService<S> {
        CallerService { inner }
    }
}

/// A service behind a [`CallerLayer`].
#[derive(Debug, Clone)]
pub struct CallerService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for CallerService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Option<AuthContext>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let caller = request.extensions().get::<AuthContext>().cloned();
        let work = CALLER.sync_scope(caller.clone(), || self.inner.call(request));
        CALLER.scope(caller, work)
    }
}
