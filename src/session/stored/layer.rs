//! The session layer with a store: a request waits until its session is loaded.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};

use super::renewal::Renewal;
use super::{SessionSecret, StoredSessions};
use crate::clock::with_timeout;
use crate::error::AuthError;
use crate::exchange::{ExchangeError, Freshness};
use crate::gate::Decision;
use crate::layer::{RequestHead, refuse};
use crate::session::cookie::CookieId;
use crate::session::layer::{
    After, Awaited, On401, SessionLayer, attach_session, attach_unavailable, check_other_token,
    end_session,
};
use crate::session::origin::{is_from_trusted_page, is_unsafe};
use crate::session::response_cookies::{ResponseCookies, SessionUnavailable};
use crate::session::{Session, Sessions};

/// The request extension that says that the store did not answer, so it is unknown whether there is a session.
#[derive(Clone)]
pub(crate) struct UnavailableSession(Sessions, AuthError);

impl UnavailableSession {
    /// Returns why the session is unavailable, if it would be one of `sessions`.
    pub(crate) fn of(&self, sessions: &Sessions) -> Option<&AuthError> {
        sessions.are_same_as(&self.0).then_some(&self.1)
    }
}

/// The request extension with the other cookies of a browser that may open a session, older than the one in use. Only a
/// late answer, or a sign-in in two tabs, leaves such cookies.
#[derive(Clone)]
pub(crate) struct OlderSessions(Sessions, Vec<(CookieId, SessionSecret)>);

impl OlderSessions {
    /// Returns the cookies, if they are of `sessions`.
    pub(super) fn of(&self, sessions: &Sessions) -> Option<&[(CookieId, SessionSecret)]> {
        sessions.are_same_as(&self.0).then_some(&self.1)
    }
}

/// The session of a request, as the store has it. Public because a public layer type names it, but not exported.
pub struct Loaded {
    outcome: Outcome,
    /// The name of the session's cookie.
    marker: Option<String>,
    /// The names of cookies that open no session.
    stale: Vec<String>,
    /// The cookies after the one of the session.
    older: Vec<(CookieId, SessionSecret)>,
}

impl Loaded {
    fn without_session(outcome: Outcome, stale: Vec<String>) -> Self {
        Self { outcome, marker: None, stale, older: Vec::new() }
    }
}

enum Outcome {
    /// No cookie opens a session.
    None,
    /// The request must not use its session.
    Refused(AuthError),
    /// The store or the provider does not answer.
    Unavailable(Option<Session>, AuthError),
    /// The session ended, because it could not be renewed, or was revoked.
    Ended(Session),
    Active(Session),
}

/// The cookies of a request, newest first, and what decides whether the request may use a session.
struct Candidates {
    cookies: Vec<(CookieId, SessionSecret)>,
    is_trusted: bool,
    authorization: Vec<HeaderValue>,
}

impl SessionLayer {
    /// Decides about a request if the sessions have a store.
    pub(in crate::session) fn decide_stored<Q>(
        &self,
        request: &mut Request<Q>,
    ) -> Decision<After, Awaited> {
        let sessions = &self.0.sessions;
        let prefix = &sessions.0.cookies;
        let (cookies, names) = prefix.read_markers(request.headers(), SessionSecret::parse);
        if cookies.is_empty() && names.stale.is_empty() {
            let sign_in = sessions.redirect_to_sign_in(request, None);
            return Decision::Pass((None, sign_in.map(On401::SignIn)));
        }
        let headers = request.headers();
        let candidates = Candidates {
            cookies,
            is_trusted: !is_unsafe(request.method(), headers)
                || is_from_trusted_page(request.uri(), headers, sessions.origins()),
            authorization: headers.get_all(header::AUTHORIZATION).iter().cloned().collect(),
        };
        prefix.strip(request.headers_mut());
        let mut after = Box::new(ResponseCookies::new(sessions, names));
        if candidates.cookies.is_empty() {
            let sign_in = after.end(request, None);
            return Decision::Pass((Some(after), sign_in));
        }
        // The provider's page posts the answer to a sign-in: see `decide`.
        if !candidates.is_trusted && sessions.is_form_post(request) {
            return Decision::Pass((Some(after), None));
        }
        let sessions = sessions.clone();
        Decision::Wait(Box::pin(async move {
            let loaded = match sessions.stored() {
                Some(stored) => sessions.find(stored, candidates).await,
                None => Loaded::without_session(Outcome::None, Vec::new()),
            };
            Awaited::Loaded(loaded, after)
        }))
    }

    /// Decides about a request whose session was loaded.
    #[expect(clippy::result_large_err, reason = "as in `Gate`")]
    pub(in crate::session) fn resume_loaded<Q>(
        &self,
        loaded: Loaded,
        mut after: Box<ResponseCookies>,
        request: &mut Request<Q>,
    ) -> Result<After, Response<Bytes>> {
        let sessions = &self.0.sessions;
        let Loaded { outcome, marker, stale, older } = loaded;
        if !older.is_empty() {
            request.extensions_mut().insert(OlderSessions(sessions.clone(), older));
        }
        after.names.marker = marker;
        after.names.stale.extend(stale);
        let on_401 = match outcome {
            Outcome::None => after.end(request, None),
            Outcome::Refused(error) => {
                let client = RequestHead::of(request).client_kind();
                return Err(refuse(&sessions.0.auth, &*self.0.respond, &error, client));
            }
            Outcome::Unavailable(session, error) => {
                match session {
                    // `logout` must work without a valid token.
                    Some(session) => attach_unavailable(sessions, request, session),
                    None => drop(
                        request
                            .extensions_mut()
                            .insert(UnavailableSession(sessions.clone(), error.clone())),
                    ),
                }
                Some(On401::Unavailable(Box::new(self.unavailable(error, request))))
            }
            Outcome::Ended(session) => end_session(&mut after, request, session),
            Outcome::Active(session) => attach_session(&mut after, request, session),
        };
        Ok((Some(after), on_401))
    }

    pub(in crate::session) fn unavailable<Q>(
        &self,
        error: AuthError,
        request: &Request<Q>,
    ) -> SessionUnavailable {
        let (auth, respond) = (self.0.sessions.0.auth.clone(), self.0.respond.clone());
        let client = RequestHead::of(request).client_kind();
        SessionUnavailable { auth, error, respond, client }
    }
}

impl Sessions {
    /// Loads the newest session that one of the cookies opens, and renews it if that is due.
    async fn find(&self, stored: &StoredSessions, candidates: Candidates) -> Loaded {
        let mut stale = Vec::new();
        for (nth, (id, secret)) in candidates.cookies.iter().enumerate() {
            let marker = self.0.cookies.marker(id);
            match self.load_stored(stored, secret, id).await {
                Ok(None) => stale.push(marker),
                Ok(Some(session)) => {
                    let outcome = match candidates.check(&session) {
                        Err(error) => Outcome::Refused(error),
                        Ok(()) => self.ready(stored, session).await,
                    };
                    let older = candidates.cookies.iter().skip(nth + 1).cloned().collect();
                    return Loaded { outcome, marker: Some(marker), stale, older };
                }
                // It is unknown whether this cookie or an older one opens a session, so none is cleared.
                Err(error) => {
                    let outcome = Outcome::Unavailable(None, error);
                    return Loaded::without_session(outcome, Vec::new());
                }
            }
        }
        Loaded::without_session(Outcome::None, stale)
    }

    /// Makes a session ready for its request: judges it, writes that it is in use, and renews its token. Waits for the
    /// renewal only if the token is about to expire.
    async fn ready(&self, stored: &StoredSessions, session: Session) -> Outcome {
        let Some(part) = session.stored.clone() else { return Outcome::Active(session) };
        match self.until_judged(&session).await {
            Ok(false) => {}
            Ok(true) => {
                self.remove_revoked_part(stored, &part).await;
                return Outcome::Ended(session);
            }
            Err(error) => return Outcome::Unavailable(Some(session), error),
        }
        self.touch(stored, &part).await;
        let freshness = self.freshness(&session);
        match (freshness, session.token.refresh_token()) {
            (Freshness::Fresh, _) | (Freshness::Due, None) => return Outcome::Active(session),
            (Freshness::Expired, None) => {
                // If this fails, it ends unused.
                let _ = stored.store.remove(&part.id()).await;
                return Outcome::Ended(session);
            }
            (Freshness::Due | Freshness::Expired, Some(_)) => {}
        }
        let renewal = self.renew_stored(stored, &session, &part);
        if freshness != Freshness::Expired && !self.is_about_to_expire(&session) {
            return Outcome::Active(session);
        }
        self.wait_for_renewal(session, renewal).await
    }

    async fn wait_for_renewal(&self, session: Session, renewal: Renewal) -> Outcome {
        let limit = self.max_renewal_wait(&session);
        let error = match with_timeout(limit, renewal.wait()).await {
            Some(Some(Ok(Some(renewed)))) if self.freshness(&renewed) != Freshness::Expired => {
                if self.is_revoked(&renewed) {
                    self.remove_revoked(&renewed).await;
                    return Outcome::Ended(renewed);
                }
                return Outcome::Active(renewed);
            }
            Some(Some(Ok(_))) => return Outcome::Ended(session),
            Some(Some(Err(error))) => Some(error),
            Some(None) | None => None,
        };
        if self.freshness(&session) != Freshness::Expired {
            return Outcome::Active(session);
        }
        let late = || {
            let late = "the token expired before it was renewed";
            let error = ExchangeError::unavailable(None, late);
            AuthError::unavailable(error.unavailable_component(), None, error)
        };
        Outcome::Unavailable(Some(session), error.unwrap_or_else(late))
    }
}

impl Candidates {
    /// Checks whether the request may use this session.
    fn check(&self, session: &Session) -> Result<(), AuthError> {
        if !self.is_trusted {
            return Err(AuthError::ForeignOrigin);
        }
        check_other_token(&self.authorization, session)
    }
}
