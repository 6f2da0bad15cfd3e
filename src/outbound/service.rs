//! [`OutboundService`]: one request, from its destination's rule to its answer.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use tower_service::Service;

use super::caller;
use super::destination::{Kind, ServiceTenant, find};
use super::layer::{Replay, Rules};
use crate::auth::AuthContext;
use crate::error::BoxError;
use crate::exchange::{AccessToken, ExchangeError, ExchangeRequest, ServiceTokenRequest};

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

/// An HTTP client behind an [`OutboundLayer`](super::OutboundLayer).
#[derive(Clone)]
pub struct OutboundService<S, R> {
    inner: S,
    rules: Arc<Rules>,
    replay: R,
}

impl<S, R> OutboundService<S, R> {
    pub(super) fn new(inner: S, rules: Arc<Rules>, replay: R) -> Self {
        Self { inner, rules, replay }
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
    type Future = OutboundFuture<B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        // `poll_ready` was for `self.inner`: that one must be called, not a clone of it.
        let spare = self.inner.clone();
        let ready = mem::replace(&mut self.inner, spare);
        let caller = request.extensions().get::<AuthContext>().cloned().or_else(caller::current);
        let work = send(ready, self.rules.clone(), self.replay.clone(), caller, request);
        OutboundFuture(Box::pin(work))
    }
}

async fn send<S, R, Q, B>(
    mut client: S,
    rules: Arc<Rules>,
    replay: R,
    caller: Option<AuthContext>,
    mut request: Request<Q>,
) -> Result<Response<B>, BoxError>
where
    S: Service<Request<Q>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    R: Replay<Q>,
{
    let destination = find(&rules.destinations, request.uri(), request.headers())?;
    let Some(asked) = Asked::of(&destination.token.0, caller.as_ref())? else {
        return client.call(request).await.map_err(Into::into);
    };
    if request.headers().contains_key(AUTHORIZATION) {
        return Err(OutboundError::Authorization.into());
    }
    let token = match asked.token(&rules, None).await? {
        Had::Forwarded(header) => {
            request.headers_mut().insert(AUTHORIZATION, header);
            return client.call(request).await.map_err(Into::into);
        }
        Had::Got(token) => token,
    };
    let again = copy(&request, &replay);
    request.headers_mut().insert(AUTHORIZATION, bearer(token.secret().expose())?);
    let response = client.call(request).await.map_err(Into::into)?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return Ok(response);
    }
    // Also for a request that cannot be sent again: the next ones need a better token, too.
    let other = match asked.token(&rules, Some(&token)).await {
        Ok(Had::Got(other)) if other.secret() != token.secret() => other,
        // There is no better one: the answer stands.
        _ => return Ok(response),
    };
    let Some(mut again) = again else { return Ok(response) };
    drop(response);
    again.headers_mut().insert(AUTHORIZATION, bearer(other.secret().expose())?);
    poll_fn(|context| client.poll_ready(context)).await.map_err(Into::into)?;
    client.call(again).await.map_err(Into::into)
}

/// What a request needs, with the caller's part in it.
enum Asked<'r> {
    Exchange(ExchangeRequest),
    Service(ServiceTokenRequest),
    Forward(&'r str),
}

enum Had {
    Got(AccessToken),
    Forwarded(HeaderValue),
}

impl<'r> Asked<'r> {
    fn of(kind: &Kind, caller: Option<&'r AuthContext>) -> Result<Option<Self>, OutboundError> {
        let tokened = || {
            let caller = caller.ok_or(OutboundError::Caller)?;
            Ok::<_, OutboundError>((caller, caller.token().ok_or(OutboundError::Mock)?))
        };
        Ok(Some(match kind {
            Kind::None => return Ok(None),
            Kind::Forwarded => Self::Forward(tokened()?.1),
            Kind::OnBehalf { audience, scopes } => {
                let (caller, token) = tokened()?;
                let mut request =
                    ExchangeRequest::new(token, audience.clone()).scopes(scopes.clone());
                request.tenant = caller.identity().tenant_id().cloned();
                Self::Exchange(request)
            }
            Kind::Service { tenant, scopes } => {
                let mut request = ServiceTokenRequest::default().scopes(scopes.clone());
                request.tenant = match tenant {
                    ServiceTenant::None => None,
                    ServiceTenant::Fixed(tenant) => Some(tenant.clone()),
                    ServiceTenant::Callers => {
                        let caller = caller.ok_or(OutboundError::Caller)?;
                        Some(caller.tenant().ok_or(OutboundError::Tenant)?.id().clone())
                    }
                };
                Self::Service(request)
            }
        }))
    }

    async fn token(
        &self,
        rules: &Rules,
        refused: Option<&AccessToken>,
    ) -> Result<Had, OutboundError> {
        let client = &rules.client;
        let token = match (self, refused) {
            (Self::Forward(token), _) => return Ok(Had::Forwarded(bearer(token)?)),
            (Self::Exchange(request), None) => client.exchange(request).await?,
            (Self::Exchange(request), Some(refused)) => {
                client.exchange_instead_of(refused, request).await?
            }
            (Self::Service(request), None) => client.service_token(request.clone()).await?,
            (Self::Service(request), Some(refused)) => {
                client.service_token_instead_of(refused, request.clone()).await?
            }
        };
        if !token.is_bearer() {
            return Err(ExchangeError::Answer("is no token to be sent as a bearer's").into());
        }
        Ok(Had::Got(token))
    }
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

fn bearer(token: &str) -> Result<HeaderValue, OutboundError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| ExchangeError::Answer("is no token that fits into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A response under way.
pub struct OutboundFuture<B>(Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>);

impl<B> Future for OutboundFuture<B> {
    type Output = Result<Response<B>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<B> fmt::Debug for OutboundFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundFuture").finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, R> fmt::Debug for OutboundService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundService")
            .field("inner", &self.inner)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
