//! [`Transaction`]: what ties a browser that left to sign in to the one that comes back.
//!
//! It travels in a cookie of the browser, sealed, so that no process keeps it. Each sign-in has a
//! cookie of its own: several tabs may sign in together.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::response::Failure;
use crate::clock::Clock;
use crate::session::{clear_cookie, cookies_named, set_cookie};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::seal::{Purpose, SealingKeys};

/// How long a user may take.
const LIFETIME: Duration = Duration::from_secs(600);

/// So many sign-ins of one browser may be under way. Their cookies go with every request.
const MAX_PENDING: usize = 6;

/// So many bytes all of them may have, but for the newest: a long `return_to` makes large ones, and
/// servers refuse requests whose head is too large.
const MAX_PENDING_BYTES: usize = 4096;

/// An answer clears no more than this; the next one clears the rest.
const MAX_CLEARED: usize = 24;

/// How much of the state names the cookie: the time, and enough random bits to tell tabs apart.
const TAG_LEN: usize = 16;

/// The state has more: 32 bytes in base64url.
const STATE_LEN: usize = 43;

/// A state begins with the time in milliseconds, so that the oldest cookie is known by its name:
/// browsers send them in no order that can be relied upon. The other 26 bytes are random.
const TIME_LEN: usize = 6;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transaction {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    pub(super) return_to: String,
}

impl Transaction {
    pub(super) fn new(verifier: &str, return_to: &str, now: SystemTime) -> Result<Self, Failure> {
        Ok(Self {
            state: new_state(now)?,
            nonce: base64url::encode(random()?),
            verifier: verifier.to_owned(),
            return_to: return_to.to_owned(),
        })
    }

    /// The cookie that goes with the browser. Names begin with `prefix`.
    pub(super) fn cookie(
        &self,
        prefix: &str,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Option<HeaderValue> {
        let name = cookie_name(prefix, &self.state)?;
        let plain = Zeroizing::new(serde_json::to_vec(self).ok()?);
        let sealed = keys.seal(Purpose::SignIn, &name, &plain, clock.now() + LIFETIME)?;
        set_cookie(&name, &sealed, LIFETIME)
    }

    /// What this browser began with this state, if it did, less than ten minutes ago. The cookie is
    /// opened under its own name, and what is in it says the whole state: a cookie of another
    /// sign-in, or of another browser, is none.
    pub(super) fn find(
        prefix: &str,
        state: &str,
        headers: &HeaderMap,
        keys: &SealingKeys,
        clock: &dyn Clock,
    ) -> Option<Self> {
        let name = cookie_name(prefix, state)?;
        let (_, sealed) = cookies_named(headers, &name).find(|(rest, _)| rest.is_empty())?;
        let plain = keys.open_until(Purpose::SignIn, &name, sealed, clock.now())?;
        let found: Self = serde_json::from_slice(&plain).ok()?;
        crypto::equal(found.state.as_bytes(), state.as_bytes()).then_some(found)
    }

    /// Makes room for one more: clears the oldest of what this browser began, until few and small ones
    /// are left. What is not named as ours are is another service's, whose prefix begins with this one.
    pub(super) fn clear_oldest(prefix: &str, headers: &HeaderMap) -> Vec<HeaderValue> {
        let mut begun: Vec<_> = cookies_named(headers, prefix)
            .filter_map(|(tag, sealed)| {
                Some((begun_at(tag)?, tag, prefix.len() + tag.len() + sealed.len()))
            })
            .collect();
        begun.sort_unstable_by(|one, other| other.cmp(one));
        let (mut kept, mut bytes) = (0, 0);
        let too_many = begun.into_iter().filter(|(_, _, size)| {
            (kept, bytes) = (kept + 1, bytes + size);
            kept >= MAX_PENDING || bytes > MAX_PENDING_BYTES
        });
        let cleared = too_many.take(MAX_CLEARED);
        cleared.filter_map(|(_, tag, _)| clear_cookie(&format!("{prefix}{tag}"))).collect()
    }

    /// Takes the cookie of a sign-in away: it is good once.
    pub(super) fn clear(prefix: &str, state: &str) -> Option<HeaderValue> {
        clear_cookie(&cookie_name(prefix, state)?)
    }
}

/// `None` for what cannot be a state of ours.
fn cookie_name(prefix: &str, state: &str) -> Option<String> {
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let tag = state
        .get(..TAG_LEN)
        .filter(|_| state.len() == STATE_LEN && state.bytes().all(is_base64url))?;
    Some(format!("{prefix}{tag}"))
}

/// When a sign-in was begun, by the name of its cookie; `None` for what is none of ours.
fn begun_at(tag: &str) -> Option<Vec<u8>> {
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

fn random() -> Result<[u8; 32], Failure> {
    crypto::random().map_err(|_| Failure::NotConfigured("there are no random numbers"))
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
    fn only_the_browser_that_left_comes_back() {
        let (keys, clock) = (SealingKeys::random().unwrap(), SystemClock::default());
        let [mine, yours] = [1, 2].map(|_| Transaction::new("v", "/home", clock.now()).unwrap());
        let [my_cookie, your_cookie] = [&mine, &yours]
            .map(|transaction| sent(&transaction.cookie(PREFIX, &keys, &clock).unwrap()));
        let find = |state: &str, headers: &HeaderMap| {
            Transaction::find(PREFIX, state, headers, &keys, &clock).map(|found| found.return_to)
        };
        assert_eq!(find(&mine.state, &my_cookie).as_deref(), Some("/home"));
        assert_eq!(find(&mine.state, &your_cookie), None);
        assert_eq!(find(&yours.state, &my_cookie), None);
        assert_eq!(find(&mine.state, &HeaderMap::new()), None);
        // The tag alone, and states that differ behind it.
        let near = format!("{}{}", &mine.state[..TAG_LEN], &yours.state[TAG_LEN..]);
        for state in [&mine.state[..TAG_LEN], &near, "", "é", &"a".repeat(STATE_LEN)] {
            assert_eq!(find(state, &my_cookie), None, "{state}");
        }
        let other_keys = SealingKeys::random().unwrap();
        assert!(Transaction::find(PREFIX, &mine.state, &my_cookie, &other_keys, &clock).is_none());
    }
    #[test]
    fn oldest_sign_ins_are_cleared() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let name = |seconds| {
            let transaction = Transaction::new("v", "/", at(seconds)).unwrap();
            cookie_name(PREFIX, &transaction.state).unwrap()
        };
        let cleared = |pairs: &[String]| {
            let headers =
                HeaderMap::from_iter([(header::COOKIE, pairs.join("; ").parse().unwrap())]);
            let cleared = Transaction::clear_oldest(PREFIX, &headers);
            let names = cleared.iter().map(|it| it.to_str().unwrap().split('=').next().unwrap());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        // In whatever order they come; what is none of ours stays.
        let names: Vec<_> = [1003, 1, 1005, 2, 1004, 1001, 1002].into_iter().map(name).collect();
        let nested = format!("{PREFIX}drive-{}", &names[0][PREFIX.len()..]);
        let others = [&nested, &format!("{PREFIX}odd"), &format!("{PREFIX}0123456789abcdefghij")];
        let mut pairs: Vec<_> = names.iter().chain(others).map(|it| format!("{it}=x")).collect();
        assert_eq!(cleared(&pairs), [names[3].as_str(), names[1].as_str()]);
        assert!(cleared(&[]).is_empty());
        let very_many: Vec<_> = (0..100).map(|seconds| name(seconds) + "=x").collect();
        assert_eq!(cleared(&very_many).len(), MAX_CLEARED);
        // One that is large leaves less room.
        pairs.truncate(1);
        pairs.push(format!("{}={}", names[2], "x".repeat(3000)));
        assert!(cleared(&pairs).is_empty());
        pairs.push(format!("{}={}", names[1], "x".repeat(3000)));
        assert_eq!(cleared(&pairs), [names[1].as_str()]);
        assert!(cleared(&[format!("{nested}={}", "x".repeat(5000))]).is_empty());
    }
}
