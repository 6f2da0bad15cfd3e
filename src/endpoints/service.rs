//! [`EndpointsService`]: answers requests for endpoints, and passes all others to the inner
//! service.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::TryFutureExt;
use futures_util::future::{Either, MapOk};
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{Endpoint, EndpointRequest, Endpoints, Inner, body};
use crate::auth::AuthContext;
use crate::gate::{BoxFuture, ResponseBody, take_ready};

impl<S> Layer<S> for Endpoints {
    type Service = EndpointsService<S>;

    fn layer(&self, inner: S) -> EndpointsService<S> {
        EndpointsService { inner, endpoints: self.clone() }
    }
}

/// The service that [`Endpoints`] wraps around an inner service.
#[derive(Debug, Clone)]
pub struct EndpointsService<S> {
    pub(super) inner: S,
    pub(super) endpoints: Endpoints,
}

/// The future of the inner service.
type InnerFuture<F, B> = MapOk<F, fn(Response<B>) -> Response<ResponseBody<B>>>;

impl<S, Q, B> Service<Request<Q>> for EndpointsService<S>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone,
    Q: Body + Send + 'static,
    Q::Data: Send,
{
    type Response = Response<ResponseBody<B>>;
    type Error = S::Error;
    type Future = Either<InnerFuture<S::Future, B>, BoxFuture<Result<Self::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        self.endpoints.start_polling();
        let Some(endpoint) = self.endpoints.find(request.uri().path()) else {
            let wrap: fn(Response<B>) -> _ = |response| response.map(ResponseBody::inner);
            return Either::Left(self.inner.call(request).map_ok(wrap));
        };
        drop(take_ready(&mut self.inner));
        let endpoints = self.endpoints.0.clone();
        Either::Right(Box::pin(async move {
            Ok(respond(endpoints, endpoint, request).await.map(ResponseBody::from))
        }))
    }
}

async fn respond<Q: Body>(
    endpoints: Arc<Inner>,
    endpoint: Endpoint,
    request: Request<Q>,
) -> Response<Bytes> {
    #[cfg(feature = "trust")]
    if endpoint == Endpoint::Trusts {
        return endpoints.trusts(request).await;
    }
    let (mut head, body) = request.into_parts();
    // Endpoints verify the token themselves, so an identity from an outer layer is removed.
    head.extensions.remove::<AuthContext>();
    if !endpoints.allows(endpoint, &head) {
        return endpoints.method_not_allowed(endpoint, &head);
    }
    if !endpoint.reads_body(&head.method) {
        return endpoints.dispatch(endpoint, EndpointRequest { head, body: Bytes::new() }).await;
    }
    // Before reading the body, so that only the head of a throttled request is processed.
    if let Err(failure) = endpoints.admit_head(endpoint, &head).await {
        return endpoints.finish(endpoint, &head, Err(failure));
    }
    let version = head.version;
    match body::read(body, body::MAX_BYTES, endpoints.body_timeout).await {
        Ok(body) => endpoints.dispatch(endpoint, EndpointRequest { head, body }).await,
        Err(failure) => {
            let mut response = endpoints.finish(endpoint, &head, Err(failure));
            close_connection(version, &mut response);
            response
        }
    }
}

/// Closes the connection after the response to a request whose body was not read. If the connection stayed open,
/// the rest of the body would be parsed as the next request. HTTP/2 has no such header.
pub(super) fn close_connection<B>(version: Version, response: &mut Response<B>) {
    if version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// An inner service that answers 404 to every request. Used by [`Endpoints::service`].
#[derive(Debug, Clone, Copy)]
pub struct NotFound;

impl<Q> Service<Request<Q>> for NotFound {
    // `String` is the simplest body type.
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Q>) -> Self::Future {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}
