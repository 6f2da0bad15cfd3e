//! The fuzz target for stored sessions.

use std::sync::OnceLock;

use super::{
    CookieId, Purpose, SessionSecret, StoredSession, StoredSessions, join_value, split_value,
    to_milliseconds,
};
use crate::session::store::MemorySessions;
use crate::session::{Session, Sessions, fuzz};

/// Fuzzes stored sessions. `bytes` are used as an entry in Redis, as a cookie, as the value of a session, and as the
/// owner and the content that are sealed in such a value.
pub fn stored_session(bytes: &[u8]) {
    #[cfg(feature = "redis")]
    crate::session::store::check_redis_entry(bytes);
    read_cookie(bytes);
    static SESSIONS: OnceLock<Option<Sessions>> = OnceLock::new();
    let sessions = SESSIONS
        .get_or_init(|| fuzz::sessions()?.store(MemorySessions::new()).build().ok())
        .as_ref();
    assert!(sessions.is_some(), "the sessions for this fuzz target could not be built");
    let stored = sessions.and_then(|sessions| Some((sessions, sessions.stored()?)));
    let checked = stored.and_then(|(sessions, stored)| read_value(sessions, stored, bytes));
    assert!(checked.is_some(), "a session could not be sealed");
}

/// Checks that the value of a cookie that is accepted is written as it was read.
fn read_cookie(bytes: &[u8]) {
    for text in std::str::from_utf8(bytes).into_iter().flat_map(str::lines) {
        if let Some(secret) = SessionSecret::parse(text) {
            assert_eq!(*secret.to_text(), text);
        }
    }
}

/// Checks that a value opens only if it was sealed for this session, and that a session that was opened can be stored
/// again.
fn read_value(sessions: &Sessions, stored: &StoredSessions, bytes: &[u8]) -> Option<()> {
    let clock = &**sessions.0.auth.clock();
    let (now, ends_at) = (clock.now(), clock.now() + sessions.0.lifetime);
    let (secret, other) = (SessionSecret::random().ok()?, SessionSecret::random().ok()?);
    let cookie = CookieId::new(now)?;
    let record = |value| StoredSession::new(secret.session_id(), value, now, ends_at);
    let open = |value, secret| sessions.open_record(stored, record(value), secret, &cookie);

    let forged = bytes.to_vec();
    assert!(
        sessions.owner_of_record(&record(forged.clone())).is_none(),
        "a forged owner was opened"
    );
    assert!(open(forged, &secret).is_none(), "a forged session was opened");

    let (name, end) = (secret.session_id().to_string(), to_milliseconds(ends_at));
    let seal = |purpose| sessions.0.keys.seal_bytes(purpose, &name, bytes, end, clock);
    let owner = seal(Purpose::SessionOwner)?;
    let content = seal(Purpose::StoredSession(secret.key()))?;
    let value = join_value(&owner, &content)?;
    assert_eq!(split_value(&value), Some((&owner[..], &content[..])));
    let _ = sessions.owner_of_record(&record(value.clone()));
    assert!(open(value.clone(), &other).is_none(), "another cookie opened the session");
    let Some(opened) = open(value, &secret) else { return Some(()) };
    // None for a session that starts at the end of time.
    if let Some(again) = sessions.seal_value(&secret, &owner, &opened) {
        let token = |session: &Session| session.token.secret().expose().to_owned();
        assert_eq!(open(again, &secret).as_ref().map(token), Some(token(&opened)));
    }
    Some(())
}
