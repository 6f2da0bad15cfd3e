//! [`ResponseCookies`]: the session cookies that a response sets and clears.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use super::cookie::{clear_cookies, name_of};
use super::layer::On401;
use super::{CookieNames, RenewalResult, Session, Sessions};
use crate::auth::Auth;
use crate::clock::with_timeout;
use crate::error::{AuthError, ErrorResponse};
use crate::gate::{BoxFuture, ResponseBody};
use crate::layer::{ClientKind, HadRevokedToken, is_private, refuse};

/// The gRPC status for a missing identity, sent with HTTP status 200.
const GRPC_STATUS: &str = "grpc-status";
const GRPC_UNAUTHENTICATED: &str = "16";

/// The change of a session while its request was served.
pub(super) enum Change {
    None,
    Renewed(Session),
    Ended,
}

/// The session cookies that a response sets and clears, and the renewal that it waits for.
pub struct ResponseCookies {
    pub(super) sessions: Sessions,
    pub(super) names: CookieNames,
    pub(super) change: Change,
    /// The session whose token the inner service gets.
    pub(super) attached: Option<Arc<Session>>,
    /// The renewal to wait for when the response is ready.
    pub(super) renewal: Option<BoxFuture<RenewalResult>>,
}

impl ResponseCookies {
    pub(super) fn new(sessions: &Sessions, names: CookieNames) -> Self {
        let (sessions, change) = (sessions.clone(), Change::None);
        Self { sessions, names, change, attached: None, renewal: None }
    }

    /// Ends the session. Returns the redirect to the sign-in. `started_at`: when the session began, if its
    /// cookies could be opened.
    pub(super) fn end<Q>(
        &mut self,
        request: &Request<Q>,
        started_at: Option<SystemTime>,
    ) -> Option<On401> {
        self.change = Change::Ended;
        let started_at = started_at.or_else(|| self.names.newest_start(&self.sessions.0.cookies));
        self.sessions.redirect_to_sign_in(request, started_at).map(On401::SignIn)
    }

    /// Returns the session of the request, if the inner service refused its token because it is revoked. The session
    /// has then ended for the browser, unless it soon gets another token.
    pub(super) fn take_refused<B>(
        &mut self,
        response: &Response<ResponseBody<B>>,
    ) -> Option<Arc<Session>> {
        let session = self.attached.take()?;
        response.extensions().get::<HadRevokedToken>()?;
        if self.sessions.new_token_from(&session).is_some() {
            return None;
        }
        (self.change, self.renewal) = (Change::Ended, None);
        Some(session)
    }

    /// Returns the renewal to wait for before [`finish`](Self::finish). Returns `None` if the
    /// response itself starts or ends a session.
    pub(super) fn pending(
        &mut self,
        headers: &HeaderMap,
    ) -> Option<BoxFuture<Option<RenewalResult>>> {
        let renewal = self.renewal.take().filter(|_| !self.sets_session_cookie(headers))?;
        Some(Box::pin(with_timeout(self.sessions.0.renewal_wait, renewal)))
    }

    fn sets_session_cookie(&self, headers: &HeaderMap) -> bool {
        let prefix = &self.sessions.0.cookies;
        headers.get_all(header::SET_COOKIE).iter().any(|cookie| prefix.is_session_cookie(cookie))
    }

    /// Sets and clears cookies. If the inner service started or ended a session, its cookies are
    /// kept, and the browser's other session cookies are cleared.
    pub(super) fn finish(self, headers: &mut HeaderMap) {
        let CookieNames { marker, data, stale } = &self.names;
        let change = if self.sets_session_cookie(headers) { Change::Ended } else { self.change };
        let mut cookies: Vec<_> = clear_cookies(stale).collect();
        match change {
            Change::None => {}
            Change::Ended => cookies.extend(clear_cookies(marker.iter().chain(data))),
            Change::Renewed(session) => {
                cookies.extend(clear_cookies(data));
                cookies.extend(self.sessions.cookies(&session).unwrap_or_default());
            }
        }
        add_cookies(headers, cookies);
    }
}

/// The reason why a session is unavailable for now. The request continues without it. If the inner
/// service answers 401, the response is replaced, because 401 would mean that the user is signed
/// out.
pub struct SessionUnavailable {
    pub(super) auth: Auth,
    pub(super) error: AuthError,
    pub(super) respond: Arc<dyn ErrorResponse>,
    pub(super) client: ClientKind,
}

impl SessionUnavailable {
    /// Replaces a response that reports a missing identity: 401, or the gRPC status
    /// `UNAUTHENTICATED`.
    pub(super) fn replace<B>(&self, answer: &mut Response<ResponseBody<B>>) {
        let status = answer.headers().get(GRPC_STATUS);
        let is_grpc = status.is_some_and(|status| status == GRPC_UNAUTHENTICATED);
        if is_grpc || answer.status() == StatusCode::UNAUTHORIZED {
            let client = if is_grpc { ClientKind::Grpc } else { self.client };
            let refusal = refuse(&self.auth, &*self.respond, &self.error, client);
            *answer = refusal.map(ResponseBody::from);
        }
    }
}

/// Adds cookies that the inner service does not set itself, and `Vary: cookie`. Adds
/// `Cache-Control: private` if the inner service sets no `Cache-Control` (as for `Authorization`,
/// RFC 9111 §3.5), or if the response sets cookies and shared caches may store it (RFC 9111 §7.3).
fn add_cookies(headers: &mut HeaderMap, cookies: Vec<HeaderValue>) {
    let sets = !cookies.is_empty();
    let is_set = |cookie: &HeaderValue| {
        let mut set = headers.get_all(header::SET_COOKIE).iter();
        set.any(|set| name_of(set.as_bytes()) == name_of(cookie.as_bytes()))
    };
    let cookies: Vec<_> = cookies.into_iter().filter(|cookie| !is_set(cookie)).collect();
    headers.extend(cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
    if !headers.contains_key(header::CACHE_CONTROL) || (sets && !is_private(headers)) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    let cookie = HeaderValue::from_static("cookie");
    if !headers.get_all(header::VARY).iter().any(|value| *value == cookie) {
        headers.append(header::VARY, cookie);
    }
}
