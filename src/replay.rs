//! What may be used once: [`ReplayLog`] remembers uses, and tells the first from all others.
//!
//! A token, proof or code that must work only once (RFC 7519 §4.1.7, RFC 9449 §11.1) is remembered
//! from its first use until it expires. [`MemoryReplayLog`] is for one process;
//! [`RedisCache`](crate::exchange::RedisCache) (feature `redis`) is for several.
//! [`TrustEvaluator`](crate::trust::TrustEvaluator) asks a log about foreign tokens with `single_use_jti` (feature `trust`). A check of your own makes its keys with [`ReplayKey::of`]:
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use scaikey_auth::replay::{MemoryReplayLog, ReplayKey, ReplayLog};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), scaikey_auth::error::BoxError> {
//! let log = MemoryReplayLog::new(10_000);
//! let expires_at = SystemTime::now() + Duration::from_secs(300);
//! // An invitation is of one tenant: both make the key.
//! let key = ReplayKey::of("invitation", ["acme", "7f3a"]);
//! assert!(log.first_use(key, expires_at).await?);
//! assert!(!log.first_use(key, expires_at).await?, "used before");
//! # Ok(()) }
//! ```
//!
//! How it fits together: [workloads in manual::endpoints](crate::manual::endpoints#workloads).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;
use crate::support::crypto;

/// Stands for one thing that may be used once: a SHA-256 over its purpose and its parts, which
/// cannot be read from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplayKey([u8; 32]);

impl ReplayKey {
    /// Makes the key of `parts` for one `purpose`, such as `"invitation"`. Two keys are equal only
    /// if their purposes and all their parts are; where one part ends and the next begins counts.
    ///
    /// The parts must name one thing only: a `jti` belongs to its issuer, and two issuers may choose
    /// the same one, so the issuer is a part, too (RFC 7519 §4.1.7).
    pub fn of<'a>(purpose: &'a str, parts: impl IntoIterator<Item = &'a str>) -> Self {
        // The empty part keeps these keys apart from those of trusts, which begin with an id.
        Self(crypto::sha256_of_parts(["", purpose].into_iter().chain(parts)))
    }

    /// Makes the key of a foreign token. Its value stays as it is: processes of two versions may share
    /// a log.
    #[cfg(feature = "trust")]
    pub(crate) fn of_foreign_token(trust: &str, issuer: &str, jti: &str) -> Self {
        Self(crypto::sha256_of_parts([trust, issuer, jti]))
    }

    /// The digest, as a key for a shared store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// In hexadecimal.
impl fmt::Display for ReplayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crypto::hex(&self.0))
    }
}

impl fmt::Debug for ReplayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplayKey({self})")
    }
}

/// A record of what was used, for things that may be used once.
///
/// [`MemoryReplayLog`] is for one process. Several processes behind one name need a log in common,
/// or each would accept a token once: [`RedisCache`](crate::exchange::RedisCache) is one (feature
/// `redis`). The conformance suite is
/// [`testing::conformance::replay_log`](crate::testing::conformance::replay_log) (feature `testing`).
///
/// Harmless mistakes: to say "used before" of a token that was not; to remember for longer than
/// asked; to fail, which denies. Attacks: to ask and to note in two steps, between which a second
/// caller asks; to forget before `until`; to answer "first use" when the store could not be asked.
#[async_trait]
pub trait ReplayLog: fmt::Debug + Send + Sync + 'static {
    /// Notes the use of `key`, to be remembered until `until`, and returns whether it is the first.
    /// Of callers at the same moment exactly one gets `true`. Where `until` has passed already, the
    /// answer is `false`.
    ///
    /// # Errors
    /// When that cannot be told. The token is then denied.
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError>;
}

/// A log in memory: bounded, and never forgetful before its time.
///
/// When it is full of tokens that have not expired, it fails, so that tokens are denied: to forget
/// one would let it be used again. 100 000 entries take about 15 MB.
#[derive(Debug)]
pub struct MemoryReplayLog {
    clock: Arc<dyn Clock>,
    capacity: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    until: HashMap<ReplayKey, SystemTime>,
    /// When the clocks must have come how far: what is soonest on top.
    order: BinaryHeap<Reverse<(Duration, ReplayKey)>>,
}

/// The log is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the replay log is full: raise its capacity, or ask for shorter-lived tokens")]
pub struct ReplayLogFull;

impl MemoryReplayLog {
    /// A log for `capacity` tokens at a time, on the system's clock.
    pub fn new(capacity: usize) -> Self {
        Self::with_clock(capacity, Arc::new(SystemClock::default()))
    }

    /// [`new`](Self::new) with a clock of your own.
    pub fn with_clock(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self { clock, capacity, used: Mutex::default() }
    }

    /// How many tokens are remembered; those that have expired may still be counted.
    pub fn len(&self) -> usize {
        self.used().until.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Used> {
        // A panic between the two collections would need an allocation to fail, which aborts.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: ReplayKey, until: SystemTime) -> Result<bool, ReplayLogFull> {
        let mut used = self.used();
        // Within the lock: whoever comes later must not bring an earlier time.
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let Ok(left) = until.duration_since(now) else { return Ok(false) };
        if left.is_zero() || used.until.contains_key(&key) {
            return Ok(false);
        }
        used.forget_expired(now, elapsed);
        if used.until.len() >= self.capacity {
            return Err(ReplayLogFull);
        }
        used.until.insert(key, until);
        used.order.push(Reverse((elapsed.saturating_add(left), key)));
        Ok(true)
    }
}

impl Default for MemoryReplayLog {
    /// For 100 000 tokens.
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl Used {
    /// Forgets what has expired by both clocks: set the wall clock forth and back, and nothing that
    /// is valid again was forgotten.
    fn forget_expired(&mut self, now: SystemTime, elapsed: Duration) {
        while let Some(Reverse((due, key))) = self.order.peek().copied() {
            let is_over = self.until.get(&key).is_none_or(|until| *until <= now);
            if due > elapsed || !is_over {
                break;
            }
            self.order.pop();
            self.until.remove(&key);
        }
    }
}

#[async_trait]
impl ReplayLog for MemoryReplayLog {
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError> {
        Ok(self.note(key, until)?)
    }
}

#[async_trait]
impl<L: ReplayLog + ?Sized> ReplayLog for Arc<L> {
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError> {
        (**self).first_use(key, until).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_purpose_and_parts() {
        let keys = [
            ReplayKey::of("logout", ["https://a", "7"]),
            ReplayKey::of("proof", ["https://a", "7"]),
            ReplayKey::of("logout", ["https://a7", ""]),
            ReplayKey::of("logout", ["https://a", "", "7"]),
            ReplayKey::of("logout", ["https://a"]),
            ReplayKey::of("", ["logout", "https://a", "7"]),
            #[cfg(feature = "trust")]
            ReplayKey::of_foreign_token("logout", "https://a", "7"),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], ReplayKey::of("logout", ["https://a", "7"]));
    }

    /// Processes of two versions share a store, so no key may change its value.
    #[test]
    fn key_values_are_fixed() {
        let key = ReplayKey::of("logout", ["https://a", "7"]);
        assert_eq!(
            key.to_string(),
            "2732d1500d0457ad54e3abf402f4ce5db79071d6b5df6fd90b84f58d47df6c2b"
        );
        #[cfg(feature = "trust")]
        {
            let key = ReplayKey::of_foreign_token("k8s", "https://a", "7");
            assert_eq!(
                key.to_string(),
                "1b7014d150e5d0ba35d570e3adf1e603cf668281680362b3492f27bf739de76e"
            );
        }
    }
}
