//! [`AuthService`]: one request, from its token to the inner service or to a refusal.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Extensions, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use tower_service::Service;

use super::future::ResponseFuture;
use super::layer::Options;
use super::source::{Presented, RequestHead, TenantSource, TokenSource};
use crate::auth::{Auth, AuthContext, Progress};
use crate::error::{AuthError, ErrorResponse, NO_STORE, Refusal};
use crate::telemetry;

/// A service behind an [`AuthLayer`](super::AuthLayer).
#[derive(Clone)]
pub struct AuthService<S, R> {
    inner: S,
    auth: Auth,
    options: Arc<Options>,
    respond: R,
}

/// Left in the extensions of requests that pass without an identity, so that guards and extractors
/// can tell "nobody" from "no layer".
#[derive(Clone)]
pub(crate) enum Passed {
    /// No token was sent, and none was needed. Carries what a challenge is made from.
    Anonymous(
        #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "the extractors read it"))]
        Auth,
    ),
    /// A CORS preflight.
    Preflight,
}

pub(super) type Pending = Pin<Box<dyn Future<Output = Result<AuthContext, AuthError>> + Send>>;

/// What a request is told before anything is waited for.
enum Decision {
    /// It goes on, and says by whom in its extensions.
    Pass {
        mock: bool,
    },
    Refuse(AuthError),
    Wait(Pending),
}

impl<S, R> AuthService<S, R> {
    pub(super) fn new(inner: S, auth: Auth, options: Arc<Options>, respond: R) -> Self {
        Self { inner, auth, options, respond }
    }

    fn decide(
        &self,
        head: RequestHead<'_>,
        body: &impl Body,
        extensions: &mut Extensions,
    ) -> Decision {
        // What an outer layer believed is not what this one verified.
        extensions.remove::<AuthContext>();
        if self.options.preflights_pass && head.is_preflight() && is_empty(body) {
            extensions.insert(Passed::Preflight);
            return Decision::Pass { mock: false };
        }
        match self.judge(head, extensions) {
            Ok(decision) => decision,
            Err(AuthError::MissingCredentials) if self.options.optional => {
                extensions.insert(Passed::Anonymous(self.auth.clone()));
                Decision::Pass { mock: false }
            }
            Err(error) => Decision::Refuse(error),
        }
    }

    fn judge(
        &self,
        head: RequestHead<'_>,
        extensions: &mut Extensions,
    ) -> Result<Decision, AuthError> {
        let presented = Presented::read(head, &self.options.tokens)?;
        let presented = presented.ok_or(AuthError::MissingCredentials)?;
        let requested = TenantSource::requested(&self.options.tenants, head);
        match self.auth.at_once(&presented.credentials(), requested.as_ref()) {
            Progress::Decided(verdict) => {
                let context = verdict?;
                let mock = context.identity().is_mock();
                extensions.insert(context.with_token(presented.token()));
                Ok(Decision::Pass { mock })
            }
            progress => {
                let (auth, token) = (self.auth.clone(), presented.token());
                Ok(Decision::Wait(Box::pin(async move {
                    let credentials = token.credentials();
                    let context = auth.finish(progress, &credentials, requested.as_ref()).await?;
                    Ok(context.with_token(token))
                })))
            }
        }
    }
}

/// Whether there is nothing to read. HTTP/2 announces no length, so the headers alone do not tell.
fn is_empty(body: &impl Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// Judges the one bearer token in the `Authorization` header, for endpoints of this crate.
pub(crate) async fn authenticate(
    auth: &Auth,
    head: RequestHead<'_>,
) -> Result<AuthContext, AuthError> {
    let presented = Presented::read(head, &[TokenSource::Authorization])?;
    let presented = presented.ok_or(AuthError::MissingCredentials)?;
    let progress = auth.at_once(&presented.credentials(), None);
    let context = auth.finish(progress, &presented.credentials(), None).await?;
    Ok(context.with_token(presented.token()))
}

impl<S, R, Q, B> Service<Request<Q>> for AuthService<S, R>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone,
    R: ErrorResponse<B>,
    Q: Body,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S, R, Q>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        // Taken out while the head is looked at, so that the context, which is large, is put there where
        // it is made.
        let mut extensions = mem::take(request.extensions_mut());
        let decision = self.decide(RequestHead::of(&request), request.body(), &mut extensions);
        *request.extensions_mut() = extensions;
        match decision {
            Decision::Pass { mock } => ResponseFuture::admitted(self.inner.call(request), mock),
            Decision::Refuse(error) => {
                // What `poll_ready` reserved (a place under a limit, say) is not needed: an instance
                // that is kept must not keep it from others.
                self.inner = self.inner.clone();
                let grpc = RequestHead::of(&request).is_grpc();
                ResponseFuture::refused(refuse(&self.auth, &self.respond, &error, grpc))
            }
            Decision::Wait(pending) => {
                // `poll_ready` was for `self.inner`: that one must be called, not a clone of it.
                let spare = self.inner.clone();
                let ready = mem::replace(&mut self.inner, spare);
                ResponseFuture::waiting(
                    pending,
                    ready,
                    request,
                    self.auth.clone(),
                    self.respond.clone(),
                )
            }
        }
    }
}

/// Builds the answer and adds the headers that no implementation may forget.
pub(crate) fn refuse<B, R: ErrorResponse<B>>(
    auth: &Auth,
    respond: &R,
    error: &AuthError,
    grpc: bool,
) -> Response<B> {
    telemetry::refused(error.reason(), error);
    if let AuthError::MissingLayer = error {
        telemetry::layer_missing(error);
    }
    let mut refusal = Refusal::new(error, grpc);
    if matches!(error, AuthError::UnknownTenant) && auth.unknown_tenant_is_not_found() {
        refusal.status = StatusCode::NOT_FOUND;
    }
    let mut response = respond.respond(&refusal);
    // A shared cache would hand the refusal of one caller to all others.
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    if matches!(response.status().as_u16(), 429 | 503)
        && let Some(wait) = error.retry_after()
    {
        response.headers_mut().insert(header::RETRY_AFTER, in_seconds(wait));
    }
    if matches!(response.status().as_u16(), 400 | 401 | 403)
        && let Some(challenge) = auth.challenger().challenge(error)
    {
        response.headers_mut().entry(header::WWW_AUTHENTICATE).or_insert(challenge);
    }
    response
}

/// A `Retry-After`: whole seconds, rounded up, one at least.
pub(crate) fn in_seconds(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

impl<S: fmt::Debug, R> fmt::Debug for AuthService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthService")
            .field("inner", &self.inner)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
