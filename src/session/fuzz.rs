//! The fuzz target for session cookies. It uses private items of this module, so it is not in
//! `testing`.

use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::cookie::{CookieId, MAX_CLEARED, clear_cookies};
use super::{Purpose, Sessions, SessionsBuilder};
use crate::auth::Auth;
use crate::exchange::TokenExchangeClient;
use crate::issuer::ClientAuth;
use crate::support::seal::SealingKeys;

pub use super::stored::fuzz::stored_session;

/// Fuzzes session cookies. `bytes` are used as `Cookie` headers, one per line, and as the content
/// of a sealed cookie.
pub fn cookie(bytes: &[u8]) {
    // One value for all runs: an HTTP client takes milliseconds to make.
    static SESSIONS: OnceLock<Option<Sessions>> = OnceLock::new();
    let sessions = SESSIONS.get_or_init(|| sessions()?.build().ok());
    assert!(sessions.is_some(), "the sessions for this fuzz target could not be built");
    if let Some(sessions) = sessions {
        read_headers(sessions, bytes);
        let _ = open_content(sessions, bytes);
    }
}

/// Returns the builder of sessions for a fuzz target.
pub(super) fn sessions() -> Option<SessionsBuilder> {
    let issuer = "https://scaikey.example";
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build().ok()?;
    let client_auth = ClientAuth::basic("scaiwave", "secret");
    let client = TokenExchangeClient::builder(issuer).client_auth(client_auth).build().ok()?;
    Some(Sessions::builder(&auth, client, SealingKeys::random().ok()?))
}

/// Checks that forged cookies open no session, can be cleared, and do not reach the inner service.
fn read_headers(sessions: &Sessions, bytes: &[u8]) {
    let prefix = &sessions.0.cookies;
    let values =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let mut headers: HeaderMap = values.map(|value| (header::COOKIE, value)).collect();
    let (session, names) = prefix.read(&headers, |id, sealed| sessions.open(id, sealed));
    assert!(session.is_none(), "a forged cookie opened a session");
    assert_eq!(clear_cookies(&names.stale).count(), names.stale.len().min(MAX_CLEARED));
    prefix.strip(&mut headers);
    let (_, names) = prefix.read(&headers, |_, _| None::<()>);
    assert!(names.stale.is_empty(), "the service sees {:?}", names.stale);
}

/// Checks that a valid session can be read back from its own cookies.
fn open_content(sessions: &Sessions, bytes: &[u8]) -> Option<()> {
    let (prefix, now) = (&sessions.0.cookies, sessions.0.auth.clock().now());
    let id = CookieId::new(now)?;
    let ends = now + sessions.0.lifetime;
    let keys = &sessions.0.keys;
    let sealed =
        keys.seal(Purpose::Session, &prefix.data(&id), bytes, ends, &**sessions.0.auth.clock())?;
    let session = sessions.open(&id, &sealed)?;
    let mut cookies = sessions.cookies(&session)?; // none if it is too large
    cookies.push(prefix.marker_cookie(&id, Duration::from_secs(60))?);
    let headers = cookies.into_iter().map(|cookie| (header::COOKIE, pair(&cookie))).collect();
    let (found, names) = prefix.read(&headers, |id, sealed| sessions.open(id, sealed));
    assert!(found.is_some_and(|found| found.id == id), "the session is lost");
    assert!(names.stale.is_empty(), "{:?}", names.stale);
    Some(())
}

/// Returns the part of a `Set-Cookie` header that browsers send back.
fn pair(cookie: &HeaderValue) -> HeaderValue {
    let pair = cookie.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    HeaderValue::from_bytes(pair).unwrap_or(HeaderValue::from_static(""))
}
