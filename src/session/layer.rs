//! [`SessionLayer`]: from a cookie to the header that the layer behind it judges.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Request, Response, header};
use tower_layer::Layer;
use tower_service::Service;

use super::future::{Aftermath, Change, Held, Renewed, SessionFuture};
use super::origin::{is_same_site, is_unsafe};
use super::{Session, Sessions};
use crate::clock::within;
use crate::error::{AuthError, ErrorResponse, ProblemJson};
use crate::exchange::{ExchangeError, Freshness};
use crate::middleware::refuse;

/// A [`tower_layer::Layer`] for [`Sessions`], made by [`Sessions::layer`]. It belongs outside of
/// [`AuthLayer`](crate::AuthLayer) and of [`Endpoints`](crate::Endpoints), and inside of CORS and
/// tracing layers.
///
/// A request without a session passes as it is, one with a session as if its `Authorization` header
/// held the session's token; the session's cookies do not go on. A request with a session *and* another
/// bearer token is 400. A session that ended is taken from the browser, and the request passes
/// without it.
///
/// A session whose access token expired while the provider is away stays, and the request passes
/// without it: what anonymous callers get is answered, `logout` ends the session, and where the service
/// behind answers 401 the browser gets 503.
///
/// An answer sets cookies only where something changes. Then its `Cache-Control` is
/// `private`, or stays `no-store`, whatever else the service behind said, so that no shared cache gives
/// them to others.
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
    /// No session, or one that is over.
    Pass,
    Serve(Session, Freshness),
    Refuse(AuthError),
}

impl<S, R> SessionService<S, R> {
    fn decide<Q>(&self, request: &Request<Q>, session: Option<Session>) -> Decision {
        let headers = request.headers();
        let Some(session) = session else { return Decision::Pass };
        if is_unsafe(request.method(), headers)
            && !is_same_site(request.uri(), headers, self.sessions.origins())
        {
            return Decision::Refuse(AuthError::ForeignOrigin);
        }
        if carries_another_token(headers, &session) {
            return Decision::Refuse(AuthError::MalformedCredentials(
                "The request carries a session and another token.",
            ));
        }
        let freshness = self.sessions.freshness(&session);
        match freshness {
            Freshness::Expired if session.token.refresh_token().is_none() => Decision::Pass,
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
fn enter<Q>(request: &mut Request<Q>, session: Session) {
    if let Some(value) = bearer(&session.token) {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request.extensions_mut().insert(CurrentSession(Arc::new(session)));
}

/// What becomes of a request whose session had to be renewed first, and why it has no identity if it
/// should have one. The session as it was serves if the provider is away, or slow, and its token is good.
pub(super) fn after_renewal<Q>(
    renewed: Option<Renewed>,
    before: Session,
    after: Aftermath,
    request: &mut Request<Q>,
) -> (Aftermath, Option<AuthError>) {
    let sessions = after.sessions();
    let is_good = sessions.freshness(&before) != Freshness::Expired;
    let error = match renewed {
        Some(Ok(Some(session))) => {
            enter(request, session.clone());
            return (after.with(Change::Renewed(session)), None);
        }
        // It is over; whether the request needs one, the layer behind knows.
        Some(Ok(None)) => return (after.with(Change::Over), None),
        None if is_good => {
            let under_way = sessions.renew(&before);
            enter(request, before);
            let after = match under_way {
                Some(renewal) => after.renewing(Box::pin(renewal)),
                None => after,
            };
            return (after, None);
        }
        Some(Err(_)) if is_good => {
            enter(request, before);
            return (after, None);
        }
        Some(Err(error)) => error,
        None => ExchangeError::unavailable(None, "the renewal takes longer than the token lasts"),
    };
    // Its user may still sign out.
    request.extensions_mut().insert(CurrentSession(Arc::new(before)));
    (after, Some(AuthError::unavailable(error.who_is_away(), error.retry_after(), error)))
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
        let (session, names) = self.sessions.read(request.headers());
        if session.is_none() && names.others.is_empty() {
            return SessionFuture::passing(self.inner.call(request));
        }
        let after = Aftermath::new(&self.sessions, names);
        let decision = self.decide(&request, session);
        if !matches!(decision, Decision::Refuse(_)) {
            self.sessions.0.name.strip(request.headers_mut());
        }
        let (session, freshness) = match decision {
            Decision::Pass => {
                let after = after.with(Change::Over);
                return SessionFuture::serving(self.inner.call(request), after);
            }
            Decision::Refuse(error) => {
                // What `poll_ready` reserved is not needed: others must get it.
                self.inner = self.inner.clone();
                let auth = &self.sessions.0.auth;
                return SessionFuture::refused(refuse(auth, &self.respond, &error, false));
            }
            Decision::Serve(session, freshness) => (session, freshness),
        };
        let renewal = match freshness {
            Freshness::Fresh => None,
            _ => self.sessions.renew(&session),
        };
        let is_urgent =
            freshness == Freshness::Expired || self.sessions.is_in_last_seconds(&session);
        match renewal {
            Some(renewal) if is_urgent => {
                // `poll_ready` was for `self.inner`: that one must be called, not a clone of it.
                let spare = self.inner.clone();
                let ready = mem::replace(&mut self.inner, spare);
                let patience = self.sessions.patience(&session);
                let held = Held { ready, request, session, after, respond: self.respond.clone() };
                SessionFuture::waiting(Box::pin(within(patience, renewal)), held)
            }
            Some(renewal) => {
                enter(&mut request, session);
                let after = after.renewing(Box::pin(renewal));
                SessionFuture::serving(self.inner.call(request), after)
            }
            None => {
                enter(&mut request, session);
                SessionFuture::serving(self.inner.call(request), after)
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
