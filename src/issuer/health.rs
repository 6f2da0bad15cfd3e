//! What an issuer's keys are doing, for readiness probes: [`IssuerHealth`].

use std::time::SystemTime;

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
    /// When the key set was last asked for. Serialized in seconds since 1970, as in tokens.
    #[serde(serialize_with = "seconds")]
    pub last_attempt: Option<SystemTime>,
    /// Why that failed, if it did.
    pub last_error: Option<String>,
    /// When it will be asked for next, by the first request or health report from then on.
    #[serde(serialize_with = "seconds")]
    pub next_attempt: SystemTime,
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
