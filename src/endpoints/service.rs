//! [`EndpointsService`]: which requests are for the endpoints, and which go on.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{Asked, Endpoint, Endpoints, Inner, body};
use crate::auth::AuthContext;
use crate::middleware::PROVENANCE_HEADER;

impl<S> Layer<S> for Endpoints {
    type Service = EndpointsService<S>;

    fn layer(&self, inner: S) -> EndpointsService<S> {
        EndpointsService::new(inner, self.clone())
    }
}

/// A service behind [`Endpoints`].
#[derive(Clone)]
pub struct EndpointsService<S> {
    inner: S,
    endpoints: Endpoints,
}

impl<S> EndpointsService<S> {
    pub(super) fn new(inner: S, endpoints: Endpoints) -> Self {
        Self { inner, endpoints }
    }
}

type Own = Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;

pin_project! {
    /// The response of an [`EndpointsService`].
    pub struct EndpointsFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Own { future: Own },
        Inner {
            #[pin]
            future: F,
        },
    }
}

impl<F, B, E> Future for EndpointsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<Bytes>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Own { future } => {
                future.as_mut().poll(context).map(|response| Ok(response.map(B::from)))
            }
            StateProjection::Inner { future } => future.poll(context),
        }
    }
}

impl<S, Q, B> Service<Request<Q>> for EndpointsService<S>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone,
    Q: Body + Send + 'static,
    Q::Data: Send,
    B: From<Bytes>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = EndpointsFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let Some(endpoint) = self.endpoints.find(request.uri().path()) else {
            return EndpointsFuture { state: State::Inner { future: self.inner.call(request) } };
        };
        // What `poll_ready` reserved is not needed: others must get it.
        self.inner = self.inner.clone();
        let own = Box::pin(answer(self.endpoints.0.clone(), endpoint, request));
        EndpointsFuture { state: State::Own { future: own } }
    }
}

async fn answer<Q: Body>(
    endpoints: Arc<Inner>,
    endpoint: Endpoint,
    request: Request<Q>,
) -> Response<Bytes> {
    let (mut head, body) = request.into_parts();
    // What an outer layer believed is not what is verified here.
    head.extensions.remove::<AuthContext>();
    if !endpoint.allows(&head.method) {
        return endpoints.method_not_allowed(endpoint);
    }
    if !endpoint.reads_body(&head.method) {
        return endpoints.answer(endpoint, Asked { head, body: Bytes::new() }).await;
    }
    // Before the body: a caller that comes too often must not cost more than a head.
    if let Err(failure) = endpoints.admit(endpoint, &head, None) {
        return endpoints.finish(endpoint, Err(failure));
    }
    let version = head.version;
    match body::read(body, endpoints.body_timeout).await {
        Ok(body) => endpoints.answer(endpoint, Asked { head, body }).await,
        Err(failure) => {
            let mut response = endpoints.finish(endpoint, Err(failure));
            // What is left of the body would be taken for the next request. HTTP/2 has no such header.
            if version <= Version::HTTP_11 {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        }
    }
}

/// Marks what was told about a mock identity, as the layer does.
pub(super) fn mark_mock(context: &AuthContext, response: &mut Response<Bytes>) {
    if context.identity().is_mock() {
        response.headers_mut().insert(PROVENANCE_HEADER, HeaderValue::from_static("mock"));
    }
}

/// Has nothing: answers 404. What is behind [`Endpoints::service`].
pub struct NotFound<B>(PhantomData<fn() -> B>);

impl<B> NotFound<B> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<B> Clone for NotFound<B> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<B> fmt::Debug for NotFound<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotFound")
    }
}

impl<Q, B: From<Bytes>> Service<Request<Q>> for NotFound<B> {
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Ready<Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Q>) -> Self::Future {
        let mut response = Response::new(B::from(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}

impl<S: fmt::Debug> fmt::Debug for EndpointsService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointsService")
            .field("inner", &self.inner)
            .field("endpoints", &self.endpoints)
            .finish()
    }
}

impl<F> fmt::Debug for EndpointsFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointsFuture").finish_non_exhaustive()
    }
}
