//! What an issuer's keys are doing, for readiness probes: [`IssuerHealth`].

use std::fmt;
use std::time::SystemTime;

use super::jwk::{MAX_KID, Unusable};
use crate::clock;

/// What is known of an issuer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyState {
    /// No key set was ever fetched: tokens are answered with 503.
    Never,
    /// Fetched within the TTL.
    Fresh,
    /// The TTL has passed and nobody has asked yet, or the fetch is under way.
    Due,
    /// The last fetch failed; the set held is used.
    Stale,
    /// No fetch succeeded for `max_stale`: tokens are answered with 503.
    Dead,
}

/// The keys of one issuer, for readiness probes.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct IssuerHealth {
    /// What `iss` says.
    pub issuer: String,
    /// What is known of its keys.
    pub state: KeyState,
    /// How many keys can be used.
    pub keys: usize,
    /// How many published keys cannot be used, and were left out.
    pub unusable_keys: usize,
    /// Which these are, and why, in the order in which they are published.
    pub unusable: Vec<UnusableKey>,
    /// When the key set was last asked for. Serialized in seconds since 1970, as in tokens.
    #[serde(serialize_with = "seconds")]
    pub last_attempt: Option<SystemTime>,
    /// Why that failed, if it did.
    pub last_error: Option<String>,
    /// When it will be asked for next, by the first request or health report from then on.
    #[serde(serialize_with = "seconds")]
    pub next_attempt: SystemTime,
}

/// A published key that was left out of its set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct UnusableKey {
    /// Its `kid`, unless it has none that can be read.
    pub kid: Option<String>,
    /// Why, as one of some fixed texts.
    pub reason: &'static str,
    /// Whether the provider should mend it. False for a good key that is not for this service: of
    /// another type or algorithm, for encryption, or revoked.
    pub is_fault: bool,
}

impl UnusableKey {
    pub(super) fn new(kid: Option<&str>, why: Unusable) -> Self {
        let kid = kid.filter(|kid| kid.len() <= MAX_KID).map(str::to_owned);
        Self { kid, reason: why.reason(), is_fault: why.is_fault() }
    }
}

/// The name is quoted, because the provider chose it.
impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "{kid:?}: {}", self.reason),
            None => write!(f, "a key without kid: {}", self.reason),
        }
    }
}

/// The most keys that one line of the log tells about.
const MAX_TOLD: usize = 10;

/// Left-out keys with their reasons, in one line behind a colon; nothing if there are none.
pub(super) fn list(keys: &[UnusableKey]) -> String {
    let told: Vec<_> = keys.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    match keys.len() {
        0 => String::new(),
        1..=MAX_TOLD => format!(": {}", told.join("; ")),
        all => format!(": {}; and {} more", told.join("; "), all - MAX_TOLD),
    }
}

impl IssuerHealth {
    /// Whether tokens of this issuer can be verified.
    pub fn can_verify(&self) -> bool {
        !matches!(self.state, KeyState::Never | KeyState::Dead)
    }
}

fn seconds<T, S>(time: &T, to: S) -> Result<S::Ok, S::Error>
where
    T: Copy + Into<Option<SystemTime>>,
    S: serde::Serializer,
{
    serde::Serialize::serialize(&(*time).into().map(clock::unix_seconds), to)
}
