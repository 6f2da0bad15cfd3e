//! [`IssuerHealth`]: the state of an issuer's keys, for readiness probes.

use std::fmt;
use std::time::SystemTime;

use super::jwk::{MAX_KID, Unusable};
use crate::clock;

/// The state of an issuer's key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyState {
    /// The key set was never fetched. Requests with tokens get 503.
    Never,
    /// The key set was fetched within the TTL.
    Fresh,
    /// The TTL has passed. The next fetch has not begun, or is running.
    Due,
    /// The last fetch failed. The previous key set is still used.
    Stale,
    /// No fetch succeeded for `max_stale`. Requests with tokens get 503.
    Dead,
}

/// The health of one issuer's keys, for readiness probes.
///
/// ```
/// use axum::Json;
/// use axum::extract::State;
/// use http::StatusCode;
/// use scaikey_auth::Auth;
/// use scaikey_auth::issuer::IssuerHealth;
///
/// /// `GET /healthz`: 200 while the tokens of every issuer can be verified.
/// async fn health(State(auth): State<Auth>) -> (StatusCode, Json<Vec<IssuerHealth>>) {
///     let health = auth.issuers().health();
///     let is_ready = health.iter().all(IssuerHealth::can_verify);
///     let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
///     (status, Json(health))
/// }
/// ```
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct IssuerHealth {
    /// `iss` of the issuer's tokens.
    pub issuer: String,
    /// The state of the issuer's key set.
    pub state: KeyState,
    /// The number of usable keys.
    pub keys: usize,
    /// The number of published keys that cannot be used, and are ignored: the length of `unusable`.
    pub unusable_keys: usize,
    /// The unusable keys with their reasons, in the order of the key set.
    pub unusable: Vec<UnusableKey>,
    /// The start of the last fetch; `None` before the first. Serialised in seconds since 1970, as in tokens.
    #[serde(serialize_with = "seconds")]
    pub last_attempt: Option<SystemTime>,
    /// The error of the last fetch, if it failed.
    pub last_error: Option<String>,
    /// The time of the next fetch. The first request or health report from then on starts it.
    #[serde(serialize_with = "seconds")]
    pub next_attempt: SystemTime,
}

/// A published key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct UnusableKey {
    /// The key's `kid`, if it has one of at most 256 bytes.
    pub kid: Option<String>,
    /// The reason, one of a fixed set of texts.
    pub reason: &'static str,
    /// Whether the provider should fix the key. `false` for a key that is correct, but not for this service:
    /// one of another type or algorithm, one for encryption, or a revoked one.
    pub is_fault: bool,
}

impl UnusableKey {
    pub(super) fn new(kid: Option<&str>, why: Unusable) -> Self {
        let kid = kid.filter(|kid| kid.len() <= MAX_KID).map(str::to_owned);
        Self { kid, reason: why.reason(), is_fault: why.is_fault() }
    }
}

/// The key id is quoted and escaped, because the provider chose it.
impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kid {
            Some(kid) => write!(f, "{kid:?}: {}", self.reason),
            None => write!(f, "a key without kid: {}", self.reason),
        }
    }
}

/// The maximum number of keys in one log line.
const MAX_LISTED: usize = 10;

/// Lists keys with their reasons in one line, after a colon. Returns an empty text if there are none.
pub(super) fn list(keys: &[UnusableKey]) -> String {
    let listed: Vec<_> = keys.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    match keys.len() {
        0 => String::new(),
        1..=MAX_LISTED => format!(": {}", listed.join("; ")),
        all => format!(": {}; and {} more", listed.join("; "), all - MAX_LISTED),
    }
}

impl IssuerHealth {
    /// Returns whether tokens of this issuer can be verified.
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
