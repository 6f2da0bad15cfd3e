//! [`OutboundService`]: adds a token to each request and sends the request.

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
use super::destination::{TokenKind, find};
use super::layer::{OutboundLayer, Resend, Rules};
use crate::auth::AuthContext;
use crate::error::BoxError;
use crate::exchange::{AccessToken, ExchangeError, TokenExchangeClient, TokenRequest};
use crate::gate::{BoxFuture, take_ready};
use crate::layer;

/// The error of a request that the layer did not send. To get it, use `downcast_ref` on the error of an
/// [`OutboundService`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// No destination matches the URL of the request.
    #[error(
        "no destination of the outbound layer matches this URL on `{0}`: add one to send requests there"
    )]
    UnknownDestination(String),
    /// The `Host` header differs from the request's URI.
    #[error("the Host header differs from the URI")]
    HostMismatch,
    /// The path is ambiguous: it has dot segments, empty segments or encoded slashes, or a lenient server
    /// reads it as the path of another destination. Checked only for an origin with path prefixes.
    #[error("the path is ambiguous: remove dot segments, empty segments and encoded characters")]
    AmbiguousPath,
    /// The request already has an `Authorization` header, and the layer does not replace it.
    #[error("the request already has an Authorization header")]
    HasAuthorization,
    /// The destination needs the caller's token, and there is no caller.
    #[error(
        "there is no caller: put the AuthContext into the request's extensions, or use CallerLayer"
    )]
    NoCaller,
    /// The destination needs the caller's token, and the caller is a mock identity without one.
    #[error("the caller is a mock identity, which has no token for other services")]
    MockCaller,
    /// The destination needs the caller's tenant, and the caller has none.
    #[error("the caller has no tenant")]
    NoTenant,
    /// The token could not be obtained.
    #[error(transparent)]
    Token(#[from] ExchangeError),
}

/// An HTTP client behind an [`OutboundLayer`]. Like the client itself, it is a tower service.
///
/// `S` is the client. `R` copies bodies for a retry after a 401: [`ResendEmpty`](super::ResendEmpty),
/// or the type given to [`resend`](super::OutboundBuilder::resend). Define a type alias for it, for
/// example to use it in the state of an axum router:
///
/// ```
/// use axum::{body::Body, extract::State};
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use scaikey_auth::outbound::{ResendEmpty, OutboundService};
///
/// type Http = OutboundService<Client<HttpConnector, Body>, ResendEmpty>;
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
        match token_action(&self.layer.rules, &request) {
            Ok(TokenAction::Pass) => Either::Left(self.inner.call(request).err_into()),
            Ok(TokenAction::Forward(header)) => {
                request.headers_mut().insert(AUTHORIZATION, header);
                Either::Left(self.inner.call(request).err_into())
            }
            Ok(TokenAction::Fetch(token_request)) => {
                let ready = take_ready(&mut self.inner);
                Either::Right(Box::pin(send(ready, self.layer.clone(), token_request, request)))
            }
            Err(error) => {
                drop(take_ready(&mut self.inner));
                Either::Right(Box::pin(ready(Err(error.into()))))
            }
        }
    }
}

/// The decision about a request, made synchronously.
enum TokenAction {
    Pass,
    Forward(HeaderValue),
    Fetch(TokenRequest<'static>),
}

fn token_action<Q>(rules: &Rules, request: &Request<Q>) -> Result<TokenAction, OutboundError> {
    let destination = find(&rules.destinations, request.uri(), request.headers())?;
    let action = TokenAction::of(&destination.token.kind, request.extensions())?;
    if !matches!(action, TokenAction::Pass) && request.headers().contains_key(AUTHORIZATION) {
        return Err(OutboundError::HasAuthorization);
    }
    Ok(action)
}

impl TokenAction {
    fn of(kind: &TokenKind, extensions: &Extensions) -> Result<Self, OutboundError> {
        let caller = || {
            let context = extensions.get().map(Cow::Borrowed);
            context.or_else(|| caller::current().map(Cow::Owned)).ok_or(OutboundError::NoCaller)
        };
        Ok(match kind {
            TokenKind::None => Self::Pass,
            TokenKind::Forwarded => Self::Forward(bearer(caller_token(&*caller()?)?)?),
            TokenKind::OnBehalf(request) => {
                let (caller, mut request) = (caller()?, request.clone());
                request.subject = caller_token(&caller)?.into();
                request.tenant_of_subject = caller.identity().tenant_id().cloned();
                Self::Fetch(TokenRequest::Exchange(Cow::Owned(request)))
            }
            TokenKind::Service { request, in_callers_tenant } => {
                let mut request = request.clone();
                if *in_callers_tenant {
                    let tenant = caller()?.tenant().ok_or(OutboundError::NoTenant)?.id().clone();
                    request.tenant = Some(tenant);
                }
                Self::Fetch(TokenRequest::Service(Cow::Owned(request)))
            }
        })
    }
}

fn caller_token(caller: &AuthContext) -> Result<&str, OutboundError> {
    caller.token().ok_or(OutboundError::MockCaller)
}

async fn send<S, R, Q, B>(
    mut client: S,
    OutboundLayer { rules, resend }: OutboundLayer<R>,
    token_request: TokenRequest<'static>,
    mut request: Request<Q>,
) -> Result<Response<B>, BoxError>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    R: Resend<Q>,
{
    let token = fetch_token(&rules.client, &token_request, None).await?;
    let retry = copy_request(&request, &resend);
    request.headers_mut().insert(AUTHORIZATION, bearer(token.secret().expose())?);
    let response = client.call(request).await.map_err(Into::into)?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(response);
    }
    // The token is replaced even if the request cannot be repeated, because later requests need the new
    // token.
    let replacement = match fetch_token(&rules.client, &token_request, Some(&token)).await {
        Ok(replacement) if replacement.secret() != token.secret() => replacement,
        // There is no replacement, so return the 401.
        _ => return Ok(response),
    };
    let Some(mut retry) = retry else { return Ok(response) };
    drop(response);
    retry.headers_mut().insert(AUTHORIZATION, bearer(replacement.secret().expose())?);
    poll_fn(|context| client.poll_ready(context)).await.map_err(Into::into)?;
    client.call(retry).await.map_err(Into::into)
}

/// Obtains a bearer token. If a service rejected the token `rejected`, obtains another one.
async fn fetch_token(
    client: &TokenExchangeClient,
    request: &TokenRequest<'_>,
    rejected: Option<&AccessToken>,
) -> Result<AccessToken, OutboundError> {
    let token = client.token(request, rejected).await?;
    if !token.is_bearer() {
        return Err(ExchangeError::InvalidAnswer("has a token_type other than Bearer").into());
    }
    Ok(token)
}

/// Copies the request, if its body can be copied.
fn copy_request<Q>(request: &Request<Q>, resend: &impl Resend<Q>) -> Option<Request<Q>> {
    let mut copy = Request::new(resend.copy(request.body())?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

fn bearer(token: &str) -> Result<HeaderValue, ExchangeError> {
    layer::bearer(token).ok_or(ExchangeError::InvalidAnswer(
        "contains a token with characters that are not allowed in a header",
    ))
}
