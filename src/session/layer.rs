//! [`SessionLayer`]: turns session cookies into the header that the inner layer verifies.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use tower_layer::Layer;

use super::origin::{is_from_trusted_page, is_unsafe};
use super::response_cookies::{Change, ResponseCookies, SessionUnavailable};
use super::sign_in_redirect::Redirect;
use super::step_up::StepUpRedirect;
use super::stored::Loaded;
use super::{RenewalResult, Session, Sessions};
use crate::clock::with_timeout;
use crate::error::{AuthError, ErrorResponse, ProblemJson};
use crate::exchange::{ExchangeError, Freshness};
use crate::gate::{BoxFuture, Decision, Gate, Gated, ResponseBody};
use crate::layer::{RequestHead, bearer, refuse};
use crate::validator::SessionIdToken;

/// A [`tower_layer::Layer`] for [`Sessions`], made by [`Sessions::layer`]. Place it outside
/// [`AuthLayer`](crate::AuthLayer) and [`Endpoints`](crate::endpoints::Endpoints), and inside CORS
/// and tracing layers.
///
/// - A request without session cookies passes unchanged.
/// - A request with a session passes with the session's token in `Authorization`, and without the
///   session's cookies.
/// - A request with a session *and* another bearer token gets 400.
/// - A state-changing request with a session, from a page of another site, gets 403: see
///   [`Sessions`]. Only the answer to a sign-in that the provider posts
///   ([`SignIn::form_post`](crate::endpoints::SignIn::form_post)) passes, without the session.
/// - If a session has ended, its cookies are cleared, and the request passes without it.
///
/// With [`SignIn::redirect_navigation`](crate::endpoints::SignIn::redirect_navigation), a browser that
/// loads a page without a session is led to the sign-in instead of a 401, and one whose session a guard refuses
/// with [`StepUpRequired`](AuthError::StepUpRequired) to another sign-in.
///
/// If the access token has expired and the provider is unavailable, the request passes without the
/// session, which is kept. Public routes answer as usual, `logout` ends the session, and a 401 from
/// the inner service becomes 503.
///
/// A response sets cookies only if the session changed or old cookies must be cleared. The response
/// to a request with session cookies has `Vary: cookie`, and `Cache-Control: private` unless the
/// inner service sets another value. If a response sets cookies, its `Cache-Control` is always
/// `private` or `no-store`, so that no shared cache stores the cookies.
///
/// ```
/// use axum::Router;
/// use scaikey_auth::Auth;
/// use scaikey_auth::endpoints::Endpoints;
/// use scaikey_auth::session::Sessions;
///
/// /// The session layer is the outermost: it gives the token of the session to the layers inside.
/// fn app(auth: &Auth, endpoints: Endpoints, sessions: &Sessions, api: Router) -> Router {
///     api.layer(auth.layer()).layer(endpoints).layer(sessions.layer())
/// }
/// ```
#[derive(Clone)]
pub struct SessionLayer(pub(super) Arc<Inner>);

/// Behind an `Arc`, so that cloning the service per request is cheap.
#[derive(Clone)]
pub(super) struct Inner {
    pub(super) sessions: Sessions,
    pub(super) respond: Arc<dyn ErrorResponse>,
}

/// The service that [`SessionLayer`] wraps around an inner service.
pub type SessionService<S> = Gated<S, SessionLayer>;

impl SessionLayer {
    pub(super) fn new(sessions: Sessions) -> Self {
        Self(Arc::new(Inner { sessions, respond: Arc::new(ProblemJson) }))
    }

    /// Sets the format of refusals. Default [`ProblemJson`]. For a page in browsers, use a format that
    /// looks at [`Refusal::navigation`](crate::error::Refusal::navigation): see [`ErrorResponse`].
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

/// What replaces a 401 of the inner service. Public because a public layer type names it, but not exported.
pub enum On401 {
    /// The session is unavailable for now, so the user is not signed out.
    Unavailable(Box<SessionUnavailable>),
    /// A browser loads a page without a session.
    SignIn(Redirect),
    /// A browser loads a page with a session. A guard may ask for another sign-in.
    StepUp(Box<StepUpRedirect>),
}

/// The request extension that lets `logout` end the session.
#[derive(Clone)]
pub(crate) struct CurrentSession(pub(super) AttachedSession);

/// The request extension with a session that just ended, for a sign-out at the provider.
#[derive(Clone)]
pub(crate) struct EndedSession(pub(super) AttachedSession);

/// A session, and the settings that it was read with. Another layer, of other sessions, may be in between.
#[derive(Clone)]
pub(super) struct AttachedSession {
    sessions: Sessions,
    session: Arc<Session>,
}

impl AttachedSession {
    pub(super) fn new(sessions: &Sessions, session: impl Into<Arc<Session>>) -> Self {
        Self { sessions: sessions.clone(), session: session.into() }
    }

    fn of(&self, sessions: &Sessions) -> Option<&Session> {
        sessions.are_same_as(&self.sessions).then_some(&*self.session)
    }
}

impl CurrentSession {
    /// Returns the session, if it is one of `sessions`.
    pub(crate) fn of(&self, sessions: &Sessions) -> Option<&Session> {
        self.0.of(sessions)
    }
}

impl EndedSession {
    /// Returns the session, if it was one of `sessions`.
    pub(crate) fn of(&self, sessions: &Sessions) -> Option<&Session> {
        self.0.of(sessions)
    }
}

/// The cookies that a response sets and clears, and what replaces a 401.
pub(super) type After = (Option<Box<ResponseCookies>>, Option<On401>);

/// What a request waits for. Public because a public layer type names it, but not exported.
pub enum Awaited {
    /// The result of the renewal (`None` if there is none yet; an error if the session cannot be judged), the session
    /// before the renewal, and the cookies to set.
    Renewed(Result<Option<RenewalResult>, AuthError>, Session, Box<ResponseCookies>),
    /// The session in the store.
    Loaded(Loaded, Box<ResponseCookies>),
}

impl<Q> Gate<Q> for SessionLayer {
    type After = After;
    type Awaited = Awaited;

    fn decide(
        &self,
        request: &mut Request<Q>,
    ) -> Result<Decision<Self::After, Self::Awaited>, Response<Bytes>> {
        let sessions = &self.0.sessions;
        if sessions.has_store() {
            return Ok(self.decide_stored(request));
        }
        let (session, names) = sessions.read(request.headers());
        if session.is_none() && names.stale.is_empty() {
            let sign_in = sessions.redirect_to_sign_in(request, None);
            return Ok(Decision::Pass((None, sign_in.map(On401::SignIn))));
        }
        let outcome = session.as_ref().map_or(Ok(()), |session| self.check(request, session));
        // The provider's page posts the answer to a sign-in. It passes without the session, as if the
        // browser had not sent the cookies, which it sends only if both are of one site.
        let is_form_post =
            matches!(outcome, Err(AuthError::ForeignOrigin)) && sessions.is_form_post(request);
        if let (Err(error), false) = (outcome, is_form_post) {
            let client = RequestHead::of(request).client_kind();
            return Err(refuse(&sessions.0.auth, &*self.0.respond, &error, client));
        }
        sessions.0.cookies.strip(request.headers_mut());
        let mut after = Box::new(ResponseCookies::new(sessions, names));
        if is_form_post {
            return Ok(Decision::Pass((Some(after), None)));
        }
        let Some(session) = session else {
            let sign_in = after.end(request, None);
            return Ok(Decision::Pass((Some(after), sign_in)));
        };
        match sessions.try_is_revoked(&session) {
            Ok(Some(false)) => {}
            Ok(Some(true)) => {
                sessions.count_revoked(&session);
                let sign_in = end_session(&mut after, request, session);
                return Ok(Decision::Pass((Some(after), sign_in)));
            }
            Ok(None) => return Ok(Decision::Wait(Box::pin(judge(session, after)))),
            Err(error) => {
                attach_unavailable(sessions, request, session);
                let unavailable = On401::Unavailable(Box::new(self.unavailable(error, request)));
                return Ok(Decision::Pass((Some(after), Some(unavailable))));
            }
        }
        let freshness = sessions.freshness(&session);
        let renewal = match freshness {
            Freshness::Fresh => None,
            _ => sessions.renew(&session),
        };
        let is_expired = freshness == Freshness::Expired;
        match renewal {
            None if is_expired => {
                let sign_in = end_session(&mut after, request, session);
                Ok(Decision::Pass((Some(after), sign_in)))
            }
            Some(renewal) if is_expired || sessions.is_about_to_expire(&session) => {
                let renewal = with_timeout(sessions.max_renewal_wait(&session), renewal);
                let awaited =
                    Box::pin(async move { Awaited::Renewed(Ok(renewal.await), session, after) });
                Ok(Decision::Wait(awaited))
            }
            renewal => {
                let step_up = attach_session(&mut after, request, session);
                after.renewal = renewal;
                Ok(Decision::Pass((Some(after), step_up)))
            }
        }
    }

    fn resume(
        &self,
        awaited: Self::Awaited,
        request: &mut Request<Q>,
    ) -> Result<Self::After, Response<Bytes>> {
        let (renewed, before, mut after) = match awaited {
            Awaited::Renewed(renewed, before, after) => (renewed, before, after),
            Awaited::Loaded(loaded, after) => return self.resume_loaded(loaded, after, request),
        };
        let on_401 = match renewed {
            Ok(renewed) => apply_renewal(renewed, before, &mut after, request),
            Err(error) => {
                attach_unavailable(&after.sessions, request, before);
                Err(error)
            }
        };
        let on_401 =
            on_401.map_err(|error| On401::Unavailable(Box::new(self.unavailable(error, request))));
        Ok((Some(after), on_401.unwrap_or_else(Some)))
    }

    fn finish<B>(
        (mut after, on_401): Self::After,
        response: &mut Response<ResponseBody<B>>,
    ) -> Option<BoxFuture<Self::After>> {
        if let Some(refused) = after.as_mut().and_then(|after| after.take_refused(response)) {
            if let Some(On401::StepUp(redirect)) = on_401 {
                redirect.sign_in_again(refused.started_at, response);
            }
            return after.map(|after| -> BoxFuture<Self::After> {
                Box::pin(async move {
                    after.sessions.remove_revoked(&refused).await;
                    (Some(after), None)
                })
            });
        }
        match on_401 {
            None => {}
            Some(On401::SignIn(redirect)) => redirect.replace(response),
            Some(On401::StepUp(redirect)) => redirect.replace(response),
            Some(On401::Unavailable(unavailable)) => unavailable.replace(response),
        }
        let mut after = after?;
        let headers = response.headers_mut();
        let Some(renewal) = after.pending(headers) else {
            after.finish(headers);
            return None;
        };
        Some(Box::pin(async move {
            match renewal.await {
                Some(Ok(Some(session))) if !after.sessions.is_revoked(&session) => {
                    after.change = Change::Renewed(session);
                }
                Some(Ok(_)) => after.change = Change::Ended,
                // The current token is still valid, so the next request tries again.
                Some(Err(_)) | None => {}
            }
            (Some(after), None)
        }))
    }
}

impl SessionLayer {
    /// Checks whether a request may use its session.
    fn check<Q>(&self, request: &Request<Q>, session: &Session) -> Result<(), AuthError> {
        let headers = request.headers();
        if is_unsafe(request.method(), headers)
            && !is_from_trusted_page(request.uri(), headers, self.0.sessions.origins())
        {
            return Err(AuthError::ForeignOrigin);
        }
        check_other_token(headers.get_all(header::AUTHORIZATION), session)
    }
}

/// Refuses a request with a bearer token other than the session's in its `Authorization` headers. Other schemes, such
/// as `Basic` credentials for a proxy, are ignored: the inner layer does not accept them.
pub(super) fn check_other_token<'v>(
    authorization: impl IntoIterator<Item = &'v HeaderValue>,
    session: &Session,
) -> Result<(), AuthError> {
    let is_bearer = |value: &&HeaderValue| {
        value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    };
    let mut values = authorization.into_iter().filter(is_bearer);
    match values.any(|value| bearer(session.token.secret().expose()).is_none_or(|own| own != value))
    {
        true => Err(AuthError::MalformedCredentials(
            "The request has a session cookie and another bearer token: send only one.",
        )),
        false => Ok(()),
    }
}

/// Judges a session when the revocations are known, and waits for its renewal as `decide` does.
async fn judge(session: Session, after: Box<ResponseCookies>) -> Awaited {
    let sessions = &after.sessions;
    let renewed = match sessions.until_judged(&session).await {
        Err(error) => Err(error),
        Ok(true) => {
            sessions.count_revoked(&session);
            Ok(Some(Ok(None)))
        }
        Ok(false) => {
            let (freshness, limit) =
                (sessions.freshness(&session), sessions.max_renewal_wait(&session));
            let must_renew =
                freshness == Freshness::Expired || sessions.is_about_to_expire(&session);
            let renewal = if must_renew { sessions.renew(&session) } else { None };
            match renewal {
                Some(renewal) => Ok(with_timeout(limit, renewal).await),
                None if freshness == Freshness::Expired => Ok(Some(Ok(None))),
                None => Ok(None),
            }
        }
    };
    Awaited::Renewed(renewed, session, after)
}

/// Ends the session of a request. The inner layer decides whether the request needs an identity.
pub(super) fn end_session<Q>(
    after: &mut ResponseCookies,
    request: &mut Request<Q>,
    session: Session,
) -> Option<On401> {
    let sign_in = after.end(request, Some(session.started_at));
    let ended = EndedSession(AttachedSession::new(&after.sessions, session));
    request.extensions_mut().insert(ended);
    sign_in
}

/// Lets `logout` end a session that the request cannot use.
pub(super) fn attach_unavailable<Q>(
    sessions: &Sessions,
    request: &mut Request<Q>,
    session: Session,
) {
    request.extensions_mut().insert(CurrentSession(AttachedSession::new(sessions, session)));
}

/// Uses the session as the credentials of the request. Returns what replaces a refusal that asks for another sign-in.
pub(super) fn attach_session<Q>(
    after: &mut ResponseCookies,
    request: &mut Request<Q>,
    session: Session,
) -> Option<On401> {
    let (sessions, session) = (&after.sessions, Arc::new(session));
    let step_up = sessions.step_up_redirect(request, &session);
    if let (Some(validator), Some(id_token)) = (sessions.id_tokens(), session.token.id_token()) {
        request.extensions_mut().insert(SessionIdToken {
            access_token: session.token.secret().clone(),
            id_token: id_token.clone(),
            validator: validator.clone(),
        });
    }
    if let Some(value) = bearer(session.token.secret().expose()) {
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let current = CurrentSession(AttachedSession::new(sessions, session.clone()));
    request.extensions_mut().insert(current);
    after.attached = Some(session);
    step_up
}

/// Applies the result of a renewal to the request. If the renewal failed or is slow, uses the
/// current session while its token is valid. Returns an error if the session is unavailable, and the
/// redirect to the sign-in if it ended, or if a guard may ask for another.
fn apply_renewal<Q>(
    renewed: Option<RenewalResult>,
    before: Session,
    after: &mut ResponseCookies,
    request: &mut Request<Q>,
) -> Result<Option<On401>, AuthError> {
    let error = match renewed {
        Some(Ok(Some(session))) if !after.sessions.is_revoked(&session) => {
            let step_up = attach_session(after, request, session.clone());
            after.change = Change::Renewed(session);
            return Ok(step_up);
        }
        Some(Ok(_)) => return Ok(end_session(after, request, before)),
        Some(Err(error)) => Some(error),
        None => None,
    };
    let freshness = after.sessions.freshness(&before);
    if freshness != Freshness::Expired {
        if error.is_none() && freshness != Freshness::Fresh {
            after.renewal = after.sessions.renew(&before);
        }
        return Ok(attach_session(after, request, before));
    }
    attach_unavailable(&after.sessions, request, before);
    let late = || ExchangeError::unavailable(None, "the token expired before it was renewed");
    let error = error.unwrap_or_else(late);
    Err(AuthError::unavailable(error.unavailable_component(), error.retry_after(), error))
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").field("sessions", &self.0.sessions).finish_non_exhaustive()
    }
}
