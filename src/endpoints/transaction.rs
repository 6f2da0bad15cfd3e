//! [`Transaction`]: what ties a browser that left to sign in to the one that comes back.
//!
//! It travels in a cookie of the browser, sealed, so that no process keeps it. Each sign-in has a
//! cookie of its own: two tabs may sign in at once.

use std::time::Duration;

use aws_lc_rs::rand;
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::answer::Failure;
use crate::base64url;
use crate::clock::Clock;
use crate::session::{SessionKeys, clear_cookie, read_cookie, set_cookie};

/// How long a user may take.
const LIFE: Duration = Duration::from_secs(600);

const NAME: &str = "__Host-sign-in-";

/// So many sign-ins of one browser may be under way.
const MANY: usize = 6;

/// How much of the state names the cookie: enough to tell tabs apart.
const TAG: usize = 8;

/// The state has more: 32 octets in base64url.
const STATE: usize = 43;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transaction {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    pub(super) return_to: String,
}

impl Transaction {
    pub(super) fn new(verifier: &str, return_to: &str) -> Result<Self, Failure> {
        Ok(Self {
            state: random()?,
            nonce: random()?,
            verifier: verifier.to_owned(),
            return_to: return_to.to_owned(),
        })
    }

    /// The cookie that goes with the browser.
    pub(super) fn cookie(&self, keys: &SessionKeys, clock: &dyn Clock) -> Option<HeaderValue> {
        let name = cookie_name(&self.state)?;
        let plain = Zeroizing::new(serde_json::to_vec(self).ok()?);
        set_cookie(&name, &keys.seal(&name, &plain, clock.now() + LIFE)?, LIFE)
    }

    /// What this browser began with this state, if it did, less than ten minutes ago. The cookie is
    /// opened under its own name, and what is in it says the whole state: a cookie of another
    /// sign-in, or of another browser, is none.
    pub(super) fn find(
        state: &str,
        headers: &HeaderMap,
        keys: &SessionKeys,
        clock: &dyn Clock,
    ) -> Option<Self> {
        let name = cookie_name(state)?;
        let sealed = read_cookie(headers, &name)?;
        let plain = keys.open_until(&name, sealed, clock.now())?;
        let found: Self = serde_json::from_slice(&plain).ok()?;
        same(&found.state, state).then_some(found)
    }

    /// Takes away what a browser began and left lying about, once it is more than a few: their cookies
    /// go with every request.
    pub(super) fn clear_many(headers: &HeaderMap) -> Vec<HeaderValue> {
        let values = headers.get_all(header::COOKIE).iter();
        let pairs = values.filter_map(|text| text.to_str().ok()).flat_map(|text| text.split(';'));
        let names = pairs.filter_map(|pair| Some(pair.trim().split_once('=')?.0));
        let begun: Vec<_> = names.filter(|name| name.starts_with(NAME)).collect();
        if begun.len() < MANY {
            return Vec::new();
        }
        begun.into_iter().filter_map(clear_cookie).collect()
    }

    /// Takes the cookie of a sign-in away: it is good once.
    pub(super) fn clear(state: &str) -> Option<HeaderValue> {
        clear_cookie(&cookie_name(state)?)
    }
}

/// `None` for what cannot be a state of ours.
fn cookie_name(state: &str) -> Option<String> {
    let ours = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let tag = state.get(..TAG).filter(|_| state.len() == STATE && state.bytes().all(ours))?;
    Some(format!("{NAME}{tag}"))
}

/// In a time that does not tell where they differ.
fn same(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

fn random() -> Result<String, Failure> {
    let mut octets = [0; 32];
    rand::fill(&mut octets).map_err(|_| Failure::NotConfigured("there are no random numbers"))?;
    Ok(base64url::encode(octets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn sent(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, pair.parse().unwrap())])
    }

    #[test]
    fn only_the_browser_that_left_comes_back() {
        let (keys, clock) = (SessionKeys::random().unwrap(), SystemClock::default());
        let [mine, yours] = [1, 2].map(|_| Transaction::new("v", "/home").unwrap());
        let [my_cookie, your_cookie] =
            [&mine, &yours].map(|begun| sent(&begun.cookie(&keys, &clock).unwrap()));
        let find = |state: &str, headers: &HeaderMap| {
            Transaction::find(state, headers, &keys, &clock).map(|found| found.return_to)
        };
        assert_eq!(find(&mine.state, &my_cookie).as_deref(), Some("/home"));
        assert_eq!(find(&mine.state, &your_cookie), None);
        assert_eq!(find(&yours.state, &my_cookie), None);
        assert_eq!(find(&mine.state, &HeaderMap::new()), None);
        // The tag alone, and states that differ behind it.
        let near = format!("{}{}", &mine.state[..TAG], &yours.state[TAG..]);
        for state in [&mine.state[..TAG], &near, "", "é", &"a".repeat(STATE)] {
            assert_eq!(find(state, &my_cookie), None, "{state}");
        }
        let other_keys = SessionKeys::random().unwrap();
        assert!(Transaction::find(&mine.state, &my_cookie, &other_keys, &clock).is_none());
    }
}
