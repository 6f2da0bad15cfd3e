//! [`SessionLayer`]: from a cookie to the header that the layer behind it judges.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, Response, header};
use tower_layer::Layer;
use tower_service::Service;

use super::future::{Aftermath, SessionFuture};
use super::origin::{is_same_site, is_unsafe};
use super::{Session, Sessions, Told};
use crate::error::{AuthError, ErrorResponse, ProblemJson};
use crate::exchange::{ExchangeError, Freshness};
use crate::middleware::refuse;

/// A [`tower_layer::Layer`] for [`Sessions`], made by [`Sessions::layer`]. It belongs outside of
/// [`AuthLayer`](crate::AuthLayer) and of [`Endpoints`](crate::Endpoints), and inside of CORS and
/// tracing layers.
///
/// A request without the cookie passes as it is, one with it as if its `Authorization` header held
/// the session's token; the cookie does not go on. A request with the cookie *and* another bearer
/// token is 400. A session that ended is taken from the browser, and the request passes without it.
#[derive(Clone)]
pub struct SessionLayer<R = ProblemJson> {
    sessions: Sessions,
    respond: R,
}

/// A service behind a [`SessionLayer`].
#[derive(Clone)]
pub struct SessionService<S, R = ProblemJson> {
    inner: S,
    sessions: Sessions,
    respond: R,
}

impl SessionLayer {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self { sessions, respond: ProblemJson }
    }
}

impl<R> SessionLayer<R> {
    /// Sets how refusals are answered. Default [`ProblemJson`].
    #[must_use]
    pub fn respond_with<R2>(self, respond: R2) -> SessionLayer<R2> {
        SessionLayer { sessions: self.sessions, respond }
    }
}

impl<S, R: Clone> Layer<S> for SessionLayer<R> {
    type Service = SessionService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        let (sessions, respond) = (self.sessions.clone(), self.respond.clone());
        SessionService { inner, sessions, respond }
    }
}

/// Left in the extensions, so that a session can be ended from within.
#[derive(Clone)]
pub(crate) struct CurrentSession(pub(crate) Arc<Session>);

/// What a request's cookies lead to.
enum Decision {
    Pass,
    /// The session is over.
    PassCleared,
    Serve(Session, Freshness),
    Refuse(AuthError),
}

impl<S, R> SessionService<S, R> {
    fn decide<Q>(&self, request: &Request<Q>) -> Decision {
        let headers = request.headers();
        let session = match self.sessions.read(headers) {
            Told::Nothing => return Decision::Pass,
            Told::Ended => return Decision::PassCleared,
            Told::Session(session) => *session,
        };
        if is_unsafe(request.method(), headers)
            && !is_same_site(request.uri(), headers, self.sessions.origins())
        {
            let required = "a request from the service's own pages".into();
            return Decision::Refuse(AuthError::Forbidden { required });
        }
        if carries_another_token(headers, &session) {
            return Decision::Refuse(AuthError::MalformedCredentials(
                "The request carries a session and another token.",
            ));
        }
        let freshness = self.sessions.freshness(&session);
        match freshness {
            Freshness::Expired if session.token.refresh_token().is_none() => Decision::PassCleared,
            freshness => Decision::Serve(session, freshness),
        }
    }
}

/// Of another scheme, such as a proxy's Basic, the layer behind would make nothing.
fn carries_another_token(headers: &HeaderMap, session: &Session) -> bool {
    let is_bearer = |value: &&HeaderValue| {
        value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter().filter(is_bearer);
    values.any(|value| bearer(&session.token).is_none_or(|own| own != value))
}

fn bearer(token: &crate::exchange::AccessToken) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.secret().expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Makes the session the request's credentials.
pub(super) fn enter<Q>(request: &mut Request<Q>, session: Session) {
    if let Some(value) = bearer(&session.token) {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request.extensions_mut().insert(CurrentSession(Arc::new(session)));
}

/// What becomes of a request whose session had to be renewed first.
pub(super) fn after_renewal<Q>(
    sessions: &Sessions,
    renewed: Result<Option<Session>, ExchangeError>,
    request: &mut Request<Q>,
) -> Result<Aftermath, AuthError> {
    match renewed {
        Ok(Some(session)) => {
            let cookies = sessions.cookies(&session);
            enter(request, session);
            Ok(Aftermath::setting(cookies.unwrap_or_default()))
        }
        // It is over; whether the request needs one, the layer behind knows.
        Ok(None) => Ok(Aftermath::setting(sessions.clear())),
        Err(error) => {
            let retry_after = error.retry_after();
            Err(AuthError::unavailable("identity provider", retry_after, error))
        }
    }
}

impl<S, R, Q, B> Service<Request<Q>> for SessionService<S, R>
where
    S: Service<Request<Q>, Response = Response<B>> + Clone,
    R: ErrorResponse<B>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = SessionFuture<S, R, Q>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Q>) -> Self::Future {
        request.extensions_mut().remove::<CurrentSession>();
        let decision = self.decide(&request);
        if let Decision::Serve(..) | Decision::PassCleared = decision {
            self.sessions.0.name.strip(request.headers_mut());
        }
        match decision {
            Decision::Pass => SessionFuture::passing(self.inner.call(request)),
            Decision::PassCleared => {
                let after = Aftermath::setting(self.sessions.clear());
                SessionFuture::serving(self.inner.call(request), after, &self.sessions)
            }
            Decision::Refuse(error) => {
                // What `poll_ready` reserved is not needed: others must get it.
                self.inner = self.inner.clone();
                let auth = &self.sessions.0.auth;
                SessionFuture::refused(refuse(auth, &self.respond, &error, false))
            }
            Decision::Serve(session, Freshness::Expired) => {
                let Some(pending) = self.sessions.renew(&session) else {
                    return SessionFuture::passing(self.inner.call(request));
                };
                // `poll_ready` was for `self.inner`: that one must be called, not a clone of it.
                let spare = self.inner.clone();
                let ready = mem::replace(&mut self.inner, spare);
                let (sessions, respond) = (self.sessions.clone(), self.respond.clone());
                SessionFuture::waiting(Box::pin(pending), ready, request, sessions, respond)
            }
            Decision::Serve(session, freshness) => {
                let renewal = match freshness {
                    Freshness::Due => self.sessions.renew(&session),
                    _ => None,
                };
                let after = match renewal {
                    Some(renewal) => Aftermath::renewing(Box::pin(renewal)),
                    None => Aftermath::setting(Vec::new()),
                };
                enter(&mut request, session);
                SessionFuture::serving(self.inner.call(request), after, &self.sessions)
            }
        }
    }
}

impl<R> fmt::Debug for SessionLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, R> fmt::Debug for SessionService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService").field("inner", &self.inner).finish_non_exhaustive()
    }
}
