//! [`OutboundService`]: adds a token to each request and sends the request.

use std::fmt;
use std::future::{poll_fn, ready};
use std::task::{Context, Poll};

use futures_util::TryFutureExt;
use futures_util::future::{Either, ErrInto};
use http::header::{AUTHORIZATION, HeaderMap};
use http::{Request, Response, StatusCode};
use tower_service::Service;

use super::layer::{OutboundLayer, Resend, ResendEmpty};
use super::send::{Client, TokenAction, decide, send};
use crate::error::BoxError;
use crate::gate::{BoxFuture, take_ready};

/// An HTTP client behind an [`OutboundLayer`]. Like the client itself, it is a tower service.
///
/// `S` is the client. `R` copies bodies for a retry after a 401: [`ResendEmpty`], or the type given to
/// [`resend`](super::OutboundBuilder::resend). A handler of an axum router takes the service from its
/// state:
///
/// ```
/// use axum::{body::Body, extract::State};
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use scaikey_auth::outbound::OutboundService;
///
/// async fn handler(State(http): State<OutboundService<Client<HttpConnector, Body>>>) {}
/// ```
#[derive(Clone)]
pub struct OutboundService<S, R = ResendEmpty> {
    pub(super) inner: S,
    pub(super) layer: OutboundLayer<R>,
}

impl<S: fmt::Debug, R> fmt::Debug for OutboundService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, R, Q, B> Service<Request<Q>> for OutboundService<S, R>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: Resend<Q>,
    Q: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Either<ErrInto<S::Future, BoxError>, BoxFuture<Result<Response<B>, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        let (uri, headers) = (request.uri(), request.headers());
        match decide(&self.layer.rules, uri, headers, request.extensions()) {
            Ok(TokenAction::Pass) => Either::Left(self.inner.call(request).err_into()),
            Ok(TokenAction::Forward(header)) => {
                request.headers_mut().insert(AUTHORIZATION, header);
                Either::Left(self.inner.call(request).err_into())
            }
            Ok(TokenAction::Fetch(token_request)) => {
                let OutboundLayer { rules, resend } = self.layer.clone();
                let client = take_ready(&mut self.inner);
                let client = Ready { client, resend, is_ready: true };
                Either::Right(Box::pin(send(client, rules, token_request, request)))
            }
            Err(error) => {
                drop(take_ready(&mut self.inner));
                Either::Right(Box::pin(ready(Err(error.into()))))
            }
        }
    }
}

/// A client that is ready for the first request.
struct Ready<S, R> {
    client: S,
    resend: R,
    is_ready: bool,
}

impl<S, R, Q, B> Client<Request<Q>> for Ready<S, R>
where
    S: Service<Request<Q>, Response = Response<B>> + Send,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: Resend<Q>,
    Q: Send,
{
    type Response = Response<B>;
    type Error = BoxError;

    fn copy(&self, request: &Request<Q>) -> Option<Request<Q>> {
        let mut copy = Request::new(self.resend.copy(request.body())?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }

    fn headers(request: &mut Request<Q>) -> &mut HeaderMap {
        request.headers_mut()
    }

    fn head(response: &Response<B>) -> (StatusCode, &HeaderMap) {
        (response.status(), response.headers())
    }

    async fn send(&mut self, request: Request<Q>) -> Result<Response<B>, BoxError> {
        if !std::mem::take(&mut self.is_ready) {
            poll_fn(|context| self.client.poll_ready(context)).await.map_err(Into::into)?;
        }
        self.client.call(request).await.map_err(Into::into)
    }
}
