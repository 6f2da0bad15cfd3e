//! [`SessionLayer`]: from a cookie to the header that the layer behind it judges.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use tower_layer::Layer;

use super::after_response::{AfterResponse, Change, SessionUnavailable};
use super::origin::{is_from_trusted_page, is_unsafe};
use super::{RenewalResult, Session, Sessions};
use crate::clock::within;
use crate::error::{AuthError, ErrorResponse, ProblemJson};
use crate::exchange::{ExchangeError, Freshness};
use crate::gate::{Decision, Gate, Gated, Pending, ResponseBody};
use crate::layer::{bearer, refuse};

/// A [`tower_layer::Layer`] for [`Sessions`], made by [`Sessions::layer`]. It belongs outside of
/// [`AuthLayer`](crate::AuthLayer) and of [`Endpoints`](crate::endpoints::Endpoints), and inside of CORS and
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
pub struct SessionLayer(Arc<Inner>);

/// Shared, so that a clone for each request counts one reference.
#[derive(Clone)]
struct Inner {
    sessions: Sessions,
    respond: Arc<dyn ErrorResponse>,
}

/// A service behind a [`SessionLayer`].
pub type SessionService<S> = Gated<S, SessionLayer>;

impl SessionLayer {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self(Arc::new(Inner { sessions, respond: Arc::new(ProblemJson) }))
    }

    /// Sets how refusals are answered. Default [`ProblemJson`].
    #[must_use]
    pub fn respond_with(mut self, respond: impl ErrorResponse) -> Self {
        Arc::make_mut(&mut self.0).respond = Arc::new(respond);
        self
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

/// Left in the extensions, so that a session can be ended from within.
#[derive(Clone)]
pub(crate) struct CurrentSession(pub(crate) Arc<Session>);

impl<Q> Gate<Q> for SessionLayer {
    type After = (Option<Box<AfterResponse>>, Option<Box<SessionUnavailable>>);
    /// The renewal, or `None` where it takes too long; and the session as it was.
    type Awaited = (Option<RenewalResult>, Session, Box<AfterResponse>);

    fn decide(
        &self,
        request: &mut Request<Q>,
    ) -> Result<Decision<Self::After, Self::Awaited>, Response<Bytes>> {
        let sessions = &self.0.sessions;
        request.extensions_mut().remove::<CurrentSession>();
        let (session, names) = sessions.read(request.headers());
        if session.is_none() && names.stale.is_empty() {
            return Ok(Decision::Pass(Default::default()));
        }
        if let Some(session) = &session {
            let refuse = |error| refuse(&sessions.0.auth, &*self.0.respond, &error, false);
            self.check(request, session).map_err(refuse)?;
        }
        sessions.0.name.strip(request.headers_mut());
        let mut after = Box::new(AfterResponse::new(sessions, names));
        let Some(session) = session else {
            after.change = Change::Ended;
            return Ok(Decision::Pass((Some(after), None)));
        };
        let freshness = sessions.freshness(&session);
        let renewal = match freshness {
            Freshness::Fresh => None,
            _ => sessions.renew(&session),
        };
        let is_expired = freshness == Freshness::Expired;
        match renewal {
            None if is_expired => after.change = Change::Ended,
            Some(renewal) if is_expired || sessions.is_about_to_expire(&session) => {
                let renewal = within(sessions.max_renewal_wait(&session), renewal);
                let awaited = Box::pin(async move { (renewal.await, session, after) });
                return Ok(Decision::Wait(awaited));
            }
            renewal => {
                attach_session(request, session);
                after.renewal = renewal;
            }
        }
        Ok(Decision::Pass((Some(after), None)))
    }

    fn resume(
        &self,
        (renewed, before, mut after): Self::Awaited,
        request: &mut Request<Q>,
    ) -> Result<Self::After, Response<Bytes>> {
        let error = apply_renewal(renewed, before, &mut after, request);
        let unavailable = error
            .map(|error| Box::new(SessionUnavailable { error, respond: self.0.respond.clone() }));
        Ok((Some(after), unavailable))
    }

    fn finish<B>(
        (after, unavailable): Self::After,
        response: &mut Response<ResponseBody<B>>,
    ) -> Option<Pending<Self::After>> {
        let mut after = after?;
        if let Some(unavailable) = unavailable {
            unavailable.replace(response, &after.sessions.0.auth);
        }
        let headers = response.headers_mut();
        let Some(renewal) = after.pending(headers) else {
            after.finish(headers);
            return None;
        };
        Some(Box::pin(async move {
            match renewal.await {
                Some(Ok(Some(session))) => after.change = Change::Renewed(session),
                Some(Ok(None)) => after.change = Change::Ended,
                // This token is good for a while: the next request tries again.
                Some(Err(_)) | None => {}
            }
            (Some(after), None)
        }))
    }
}

impl SessionLayer {
    /// Whether a request may use its session.
    fn check<Q>(&self, request: &Request<Q>, session: &Session) -> Result<(), AuthError> {
        let headers = request.headers();
        if is_unsafe(request.method(), headers)
            && !is_from_trusted_page(request.uri(), headers, self.0.sessions.origins())
        {
            return Err(AuthError::ForeignOrigin);
        }
        if carries_another_token(headers, session) {
            return Err(AuthError::MalformedCredentials(
                "The request carries a session and another token.",
            ));
        }
        Ok(())
    }
}

/// Of another scheme, such as a proxy's Basic, the layer behind would make nothing.
fn carries_another_token(headers: &HeaderMap, session: &Session) -> bool {
    let is_bearer = |value: &&HeaderValue| {
        value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter().filter(is_bearer);
    values.any(|value| bearer(session.token.secret().expose()).is_none_or(|own| own != value))
}

/// Makes the session the request's credentials.
fn attach_session<Q>(request: &mut Request<Q>, session: Session) {
    if let Some(value) = bearer(session.token.secret().expose()) {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request.extensions_mut().insert(CurrentSession(Arc::new(session)));
}

/// Goes on with a request whose session had to be renewed first. Returns why it has no identity if it
/// should have one. The session as it was serves if the provider is away, or slow, and its token is good.
fn apply_renewal<Q>(
    renewed: Option<RenewalResult>,
    before: Session,
    after: &mut AfterResponse,
    request: &mut Request<Q>,
) -> Option<AuthError> {
    let error = match renewed {
        Some(Ok(Some(session))) => {
            attach_session(request, session.clone());
            after.change = Change::Renewed(session);
            return None;
        }
        // It is over; whether the request needs one, the layer behind knows.
        Some(Ok(None)) => {
            after.change = Change::Ended;
            return None;
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    if after.sessions.freshness(&before) != Freshness::Expired {
        if error.is_none() {
            after.renewal = after.sessions.renew(&before);
        }
        attach_session(request, before);
        return None;
    }
    // Its user may still sign out.
    request.extensions_mut().insert(CurrentSession(Arc::new(before)));
    let late = || ExchangeError::unavailable(None, "the renewal takes longer than the token lasts");
    let error = error.unwrap_or_else(late);
    Some(AuthError::unavailable(error.unavailable_component(), error.retry_after(), error))
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").field("sessions", &self.0.sessions).finish_non_exhaustive()
    }
}
