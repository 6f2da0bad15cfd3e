//! [`OutboundService`]: one request, from its destination's rule to its answer.

use std::borrow::Cow;
use std::fmt;
use std::future::{poll_fn, ready};
use std::task::{Context, Poll};

use futures_util::TryFutureExt;
use futures_util::future::{Either, ErrInto};
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderValue, Request, Response, StatusCode};
use tower_service::Service;

use super::caller;
use super::destination::{Kind, find};
use super::layer::{OutboundLayer, Replay, Rules};
use crate::auth::AuthContext;
use crate::error::BoxError;
use crate::exchange::{AccessToken, ExchangeError, TokenExchangeClient, TokenRequest};
use crate::gate::{Pending, take_ready};
use crate::layer;

/// Why a request was not sent. Found in the error of an [`OutboundService`] by `downcast_ref`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// No rule says which token this host (or path of it) gets.
    #[error("`{0}` is no destination: name it in the outbound layer to send requests there")]
    Destination(String),
    /// The `Host` header names something else than the request's URI.
    #[error("the Host header is not that of the URI")]
    Host,
    /// The path has dot segments, empty ones or encoded slashes, or is spelt so that a lenient server
    /// reads it as the path of another rule. Looked at only where an origin has rules for paths.
    #[error("the path can be read in two ways")]
    Path,
    /// The request already has an `Authorization`: which of the two is meant is not for this layer
    /// to guess.
    #[error("the request has an Authorization of its own")]
    Authorization,
    /// A token of the caller is wanted, and there is no caller.
    #[error(
        "there is no caller: pass the AuthContext on in the request's extensions, or use CallerLayer"
    )]
    Caller,
    /// A token of the caller is wanted, and the caller came without one that is real: in mock mode.
    #[error("the caller has no real token: a mock identity cannot call other services")]
    Mock,
    /// A token in the caller's tenant is wanted, and the caller has none.
    #[error("the caller has no tenant")]
    Tenant,
    /// The token was not to be had.
    #[error(transparent)]
    Token(#[from] ExchangeError),
}

/// An HTTP client behind an [`OutboundLayer`]: a tower service like the client itself.
///
/// `S` is the client, and `R` says which bodies are sent again after a 401:
/// [`ReplayEmpty`](super::ReplayEmpty) unless [`replay`](super::OutboundBuilder::replay) was given another.
/// Where its type must be written, as in a state, an alias helps:
///
/// ```
/// use axum::{body::Body, extract::State};
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use scaikey_auth::outbound::{ReplayEmpty, OutboundService};
///
/// type Http = OutboundService<Client<HttpConnector, Body>, ReplayEmpty>;
///
/// async fn handler(State(http): State<Http>) {}
/// ```
#[derive(Clone)]
pub struct OutboundService<S, R> {
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
    R: Replay<Q>,
    Q: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Either<ErrInto<S::Future, BoxError>, Pending<Result<Response<B>, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        match decide(&self.layer.rules, &request) {
            Ok(Decision::Pass) => Either::Left(self.inner.call(request).err_into()),
            Ok(Decision::Forward(header)) => {
                request.headers_mut().insert(AUTHORIZATION, header);
                Either::Left(self.inner.call(request).err_into())
            }
            Ok(Decision::Ask(asked)) => {
                let ready = take_ready(&mut self.inner);
                Either::Right(Box::pin(send(ready, self.layer.clone(), asked, request)))
            }
            Err(error) => {
                drop(take_ready(&mut self.inner));
                Either::Right(Box::pin(ready(Err(error.into()))))
            }
        }
    }
}

/// What a request is told before anything is waited for.
enum Decision {
    Pass,
    Forward(HeaderValue),
    Ask(TokenRequest<'static>),
}

fn decide<Q>(rules: &Rules, request: &Request<Q>) -> Result<Decision, OutboundError> {
    let destination = find(&rules.destinations, request.uri(), request.headers())?;
    let decision = Decision::of(&destination.token.kind, request.extensions())?;
    if !matches!(decision, Decision::Pass) && request.headers().contains_key(AUTHORIZATION) {
        return Err(OutboundError::Authorization);
    }
    Ok(decision)
}

impl Decision {
    fn of(kind: &Kind, extensions: &Extensions) -> Result<Self, OutboundError> {
        let caller = || {
            let given = extensions.get().map(Cow::Borrowed);
            given.or_else(|| caller::current().map(Cow::Owned)).ok_or(OutboundError::Caller)
        };
        Ok(match kind {
            Kind::None => Self::Pass,
            Kind::Forwarded => Self::Forward(bearer(token_of(&*caller()?)?)?),
            Kind::OnBehalf(request) => {
                let (caller, mut request) = (caller()?, request.clone());
                request.subject = token_of(&caller)?.into();
                request.tenant = caller.identity().tenant_id().cloned();
                Self::Ask(TokenRequest::Exchange(Cow::Owned(request)))
            }
            Kind::Service { request, in_callers_tenant } => {
                let mut request = request.clone();
                if *in_callers_tenant {
                    let tenant = caller()?.tenant().ok_or(OutboundError::Tenant)?.id().clone();
                    request.tenant = Some(tenant);
                }
                Self::Ask(TokenRequest::Service(Cow::Owned(request)))
            }
        })
    }
}

fn token_of(caller: &AuthContext) -> Result<&str, OutboundError> {
    caller.token().ok_or(OutboundError::Mock)
}

async fn send<S, R, Q, B>(
    mut client: S,
    OutboundLayer { rules, replay }: OutboundLayer<R>,
    asked: TokenRequest<'static>,
    mut request: Request<Q>,
) -> Result<Response<B>, BoxError>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    R: Replay<Q>,
{
    let token = token(&rules.client, &asked, None).await?;
    let again = copy(&request, &replay);
    request.headers_mut().insert(AUTHORIZATION, bearer(token.secret().expose())?);
    let response = client.call(request).await.map_err(Into::into)?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(response);
    }
    // Also for a request that cannot be sent again: the next ones need a better token, too.
    let other = match self::token(&rules.client, &asked, Some(&token)).await {
        Ok(other) if other.secret() != token.secret() => other,
        // There is no better one: the answer stands.
        _ => return Ok(response),
    };
    let Some(mut again) = again else { return Ok(response) };
    drop(response);
    again.headers_mut().insert(AUTHORIZATION, bearer(other.secret().expose())?);
    poll_fn(|context| client.poll_ready(context)).await.map_err(Into::into)?;
    client.call(again).await.map_err(Into::into)
}

/// A token to send; not the one that was `refused`.
async fn token(
    client: &TokenExchangeClient,
    request: &TokenRequest<'_>,
    refused: Option<&AccessToken>,
) -> Result<AccessToken, OutboundError> {
    let token = client.token(request, refused).await?;
    if !token.is_bearer() {
        return Err(ExchangeError::Answer("is no token to be sent as a bearer's").into());
    }
    Ok(token)
}

/// A second request like this one, if its body can be had twice.
fn copy<Q>(request: &Request<Q>, replay: &impl Replay<Q>) -> Option<Request<Q>> {
    let mut again = Request::new(replay.copy(request.body())?);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
}

fn bearer(token: &str) -> Result<HeaderValue, ExchangeError> {
    layer::bearer(token).ok_or(ExchangeError::Answer("is no token that fits into a header"))
}
