//! [`PendingSignIn`]: the state of a sign-in between the redirect to the provider and the callback.
//!
//! It is stored in a sealed cookie, so that no process keeps state. Each sign-in has its own
//! cookie, so that several tabs can sign in at the same time.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::response::Failure;
use crate::clock::Clock;
use crate::session::{
    SameSite, SessionId, SignInNeeds, clear_cookie, cookies_named, set_cookie_for,
};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::seal::{Purpose, SealingKeys};

/// Maximum duration of a sign-in.
const LIFETIME: Duration = Duration::from_secs(600);

/// Maximum number of pending sign-ins per browser. Each request carries all their cookies.
const MAX_PENDING: usize = 6;

/// Maximum size of all cookies except the newest. A long `return_to` makes a large cookie, and
/// servers reject requests with a large head.
const MAX_PENDING_BYTES: usize = 4096;

/// Maximum number of cookies that one response clears. The next response clears the rest.
const MAX_CLEARED: usize = 24;

/// Number of characters of the state that are in the cookie's name. They encode the start time (6
/// bytes) and 6 random bytes, which distinguish tabs.
const TAG_LEN: usize = 16;

/// Length of the state: 32 bytes in base64url.
const STATE_LEN: usize = 43;

/// Number of bytes at the start of a state that hold the start time (Unix time in milliseconds).
/// They order cookies by age, because browsers send cookies in no reliable order. The other 26
/// bytes are random.
const TIME_LEN: usize = 6;

/// A sign-in that a browser started and has not completed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PendingSignIn {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    pub(super) return_to: String,
    /// What a guard asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) step_up: Option<PendingStepUp>,
    /// The key of the session in the store that the sign-in replaces, in base64url. Only for an answer that the
    /// provider posts: it comes without the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

/// The sign-in that a guard asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PendingStepUp {
    pub(super) needs: SignInNeeds,
    /// What guards asked this browser for in the last minute before.
    pub(super) recent: Vec<SignInNeeds>,
    /// The digest of the user who is signed in, if the session says who that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
}

impl PendingSignIn {
    pub(super) fn new(verifier: &str, return_to: &str, now: SystemTime) -> Result<Self, Failure> {
        Ok(Self {
            state: new_state(now)?,
            nonce: base64url::encode(random()?),
            verifier: verifier.to_owned(),
            return_to: return_to.to_owned(),
            step_up: None,
            replaces: None,
        })
    }

    /// Sets what a guard asked for.
    pub(super) fn stepping_up(self, step_up: Option<PendingStepUp>) -> Self {
        Self { step_up, ..self }
    }

    /// Names the session in the store that the sign-in replaces.
    pub(super) fn replacing(self, id: Option<SessionId>) -> Self {
        Self { replaces: id.map(|id| base64url::encode(id.as_bytes())), ..self }
    }

    /// Returns the session in the store that the sign-in replaces, if the answer comes without it.
    pub(super) fn replaced(&self) -> Option<SessionId> {
        let id = base64url::decode(self.replaces.as_deref()?)?;
        Some(SessionId::from_bytes(id.try_into().ok()?))
    }

    /// Returns the cookie that holds the sign-in. Its name begins with `prefix`.
    pub(super) fn cookie(
        &self,
        prefix: &str,
        same_site: SameSite,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Option<HeaderValue> {
        let name = cookie_name(prefix, &self.state)?;
        let plain = Zeroizing::new(serde_json::to_vec(self).ok()?);
        let expires = clock.now() + LIFETIME;
        let sealed = keys.seal(Purpose::SignIn, &name, &plain, expires, clock)?;
        set_cookie_for(same_site, &name, &sealed, LIFETIME)
    }

    /// Returns the sign-in with this state that this browser started in the last ten minutes. The
    /// name of the cookie is authenticated, and the content holds the whole state, so cookies of
    /// other sign-ins and other browsers are rejected.
    pub(super) fn find(
        prefix: &str,
        state: &str,
        headers: &HeaderMap,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Option<Self> {
        let name = cookie_name(prefix, state)?;
        let found: Self = open_cookie(Purpose::SignIn, &name, headers, keys, clock)?;
        crypto::equal(found.state.as_bytes(), state.as_bytes()).then_some(found)
    }

    /// Clears the oldest sign-ins of this browser to make room for a new one. Ignores cookies whose
    /// names continue differently: they belong to a service with a longer prefix.
    pub(super) fn clear_oldest(prefix: &str, headers: &HeaderMap) -> Vec<HeaderValue> {
        let mut pending: Vec<_> = cookies_named(headers, prefix)
            .filter_map(|(tag, sealed)| {
                Some((start_order(tag)?, tag, prefix.len() + tag.len() + sealed.len()))
            })
            .collect();
        pending.sort_unstable_by(|one, other| other.cmp(one));
        let (mut kept, mut bytes) = (0, 0);
        let too_many = pending.into_iter().filter(|(_, _, size)| {
            (kept, bytes) = (kept + 1, bytes + size);
            kept >= MAX_PENDING || bytes > MAX_PENDING_BYTES
        });
        let cleared = too_many.take(MAX_CLEARED);
        cleared.filter_map(|(_, tag, _)| clear_cookie(&format!("{prefix}{tag}"))).collect()
    }

    /// Clears the cookie of a sign-in, which can be used once.
    pub(super) fn clear(prefix: &str, state: &str) -> Option<HeaderValue> {
        clear_cookie(&cookie_name(prefix, state)?)
    }
}

/// Returns the name of the cookie, or `None` if the state is malformed.
fn cookie_name(prefix: &str, state: &str) -> Option<String> {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let tag = state
        .get(..TAG_LEN)
        .filter(|_| state.len() == STATE_LEN && state.bytes().all(is_base64url))?;
    Some(format!("{prefix}{tag}"))
}

/// Returns a value that orders sign-ins by start time, from the name of the cookie, or `None` if
/// the name is malformed.
fn start_order(tag: &str) -> Option<Vec<u8>> {
    base64url::decode(tag).filter(|_| tag.len() == TAG_LEN)
}

fn new_state(now: SystemTime) -> Result<String, Failure> {
    let mut state = random()?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
    let time = milliseconds.iter().skip(milliseconds.len() - TIME_LEN);
    state.iter_mut().zip(time).for_each(|(byte, time)| *byte = *time);
    Ok(base64url::encode(state))
}

/// Reads a sealed cookie that has not expired. The name of the cookie is authenticated.
pub(super) fn open_cookie<T: DeserializeOwned>(
    purpose: Purpose<'_>,
    name: &str,
    headers: &HeaderMap,
    keys: &SealingKeys,
    clock: &dyn Clock,
) -> Option<T> {
    let (_, sealed) = cookies_named(headers, name).find(|(rest, _)| rest.is_empty())?;
    let plain = keys.open_unexpired(purpose, name, sealed, clock)?;
    serde_json::from_slice(&plain).ok()
}

pub(super) fn random() -> Result<[u8; 32], Failure> {
    crypto::random()
        .map_err(|_| Failure::NotConfigured("the operating system cannot supply random bytes"))
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::clock::SystemClock;

    const PREFIX: &str = "__Host-sign-in-";

    fn sent(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, pair.parse().unwrap())])
    }

    #[test]
    fn only_the_starting_browser_can_return() {
        let (keys, clock) = (SealingKeys::random().unwrap(), SystemClock::default());
        let [mine, yours] = [1, 2].map(|_| PendingSignIn::new("v", "/home", clock.now()).unwrap());
        let [my_cookie, your_cookie] = [&mine, &yours]
            .map(|sign_in| sent(&sign_in.cookie(PREFIX, SameSite::Lax, &keys, &clock).unwrap()));
        let find = |state: &str, headers: &HeaderMap| {
            PendingSignIn::find(PREFIX, state, headers, &keys, &clock).map(|found| found.return_to)
        };
        assert_eq!(find(&mine.state, &my_cookie).as_deref(), Some("/home"));
        assert_eq!(find(&mine.state, &your_cookie), None);
        assert_eq!(find(&yours.state, &my_cookie), None);
        assert_eq!(find(&mine.state, &HeaderMap::new()), None);
        // The tag alone, and states that differ after it.
        let near = format!("{}{}", &mine.state[..TAG_LEN], &yours.state[TAG_LEN..]);
        for state in [&mine.state[..TAG_LEN], &near, "", "é", &"a".repeat(STATE_LEN)] {
            assert_eq!(find(state, &my_cookie), None, "{state}");
        }
        let other_keys = SealingKeys::random().unwrap();
        assert!(
            PendingSignIn::find(PREFIX, &mine.state, &my_cookie, &other_keys, &clock).is_none()
        );
    }

    #[test]
    fn oldest_sign_ins_are_cleared() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let name = |seconds| {
            let sign_in = PendingSignIn::new("v", "/", at(seconds)).unwrap();
            cookie_name(PREFIX, &sign_in.state).unwrap()
        };
        let cleared = |pairs: &[String]| {
            let headers =
                HeaderMap::from_iter([(header::COOKIE, pairs.join("; ").parse().unwrap())]);
            let cleared = PendingSignIn::clear_oldest(PREFIX, &headers);
            let names = cleared.iter().map(|it| it.to_str().unwrap().split('=').next().unwrap());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        // Cookies come in any order; cookies of other services are kept.
        let names: Vec<_> = [1003, 1, 1005, 2, 1004, 1001, 1002].into_iter().map(name).collect();
        let nested = format!("{PREFIX}drive-{}", &names[0][PREFIX.len()..]);
        let others = [&nested, &format!("{PREFIX}odd"), &format!("{PREFIX}0123456789abcdefghij")];
        let mut pairs: Vec<_> = names.iter().chain(others).map(|it| format!("{it}=x")).collect();
        assert_eq!(cleared(&pairs), [names[3].as_str(), names[1].as_str()]);
        assert!(cleared(&[]).is_empty());
        let very_many: Vec<_> = (0..100).map(|seconds| name(seconds) + "=x").collect();
        assert_eq!(cleared(&very_many).len(), MAX_CLEARED);
        // A large cookie leaves room for fewer.
        pairs.truncate(1);
        pairs.push(format!("{}={}", names[2], "x".repeat(3000)));
        assert!(cleared(&pairs).is_empty());
        pairs.push(format!("{}={}", names[1], "x".repeat(3000)));
        assert_eq!(cleared(&pairs), [names[1].as_str()]);
        assert!(cleared(&[format!("{nested}={}", "x".repeat(5000))]).is_empty());
    }
}
