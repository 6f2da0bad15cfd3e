//! Replay protection: a [`ReplayLog`] reports whether a token is used for the first time.
//!
//! Some tokens, proofs and codes must work only once (RFC 7519 §4.1.7, RFC 9449 §11.1). A log keeps each from
//! its first use until it expires. [`MemoryReplayLog`] serves one process;
//! [`RedisCache`](crate::exchange::RedisCache) (feature `redis`) serves several.
//! [`TrustEvaluator`](crate::trust::TrustEvaluator) uses a log for foreign tokens with `single_use_jti`
//! (feature `trust`). For your own checks, create keys with [`ReplayKey::new`]:
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use scaikey_auth::replay::{MemoryReplayLog, ReplayKey, ReplayLog};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), scaikey_auth::error::BoxError> {
//! let log = MemoryReplayLog::new(10_000);
//! let expires_at = SystemTime::now() + Duration::from_secs(300);
//! // Invitation ids are unique within a tenant, so the tenant is part of the key.
//! let key = ReplayKey::new("invitation", ["acme", "7f3a"]);
//! assert!(log.first_use(key, expires_at).await?);
//! assert!(!log.first_use(key, expires_at).await?, "used before");
//! # Ok(()) }
//! ```
//!
//! See also: [manual::trust](crate::manual::trust).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;
use crate::support::crypto;

/// The key of a single-use token in a [`ReplayLog`]: the SHA-256 digest of its purpose and its parts.
///
/// ```
/// use scaikey_auth::replay::ReplayKey;
///
/// let key = ReplayKey::new("invitation", ["acme", "7f3a"]);
/// assert_ne!(key, ReplayKey::new("invitation", ["umbrella", "7f3a"]));
/// assert_ne!(key, ReplayKey::new("download", ["acme", "7f3a"]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplayKey([u8; 32]);

impl ReplayKey {
    /// Creates the key of `parts` for one `purpose`, such as `"invitation"`. Two keys are equal only if the
    /// purposes and all parts are equal: `["ab", "c"]` and `["a", "bc"]` give different keys.
    ///
    /// The parts must identify exactly one token. Two issuers may choose the same `jti`, so a key with a
    /// `jti` also needs the issuer (RFC 7519 §4.1.7).
    pub fn new<'a>(purpose: &'a str, parts: impl IntoIterator<Item = &'a str>) -> Self {
        // The empty part separates these keys from the keys of foreign tokens, which begin with the id of a
        // trust.
        Self(crypto::sha256_of_parts(["", purpose].into_iter().chain(parts)))
    }

    /// Creates the key of a foreign token. The result must be the same in all versions of this crate, because
    /// processes of two versions may share a log.
    #[cfg(feature = "trust")]
    pub(crate) fn of_foreign_token(trust: &str, issuer: &str, jti: &str) -> Self {
        Self(crypto::sha256_of_parts([trust, issuer, jti]))
    }

    /// Returns the digest, for use as a key in a shared store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Writes the digest in hexadecimal.
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

/// A log of used tokens.
///
/// [`MemoryReplayLog`] serves one process. If a service runs in several processes, they need a shared log;
/// otherwise each process would accept a token once. [`RedisCache`](crate::exchange::RedisCache) (feature
/// `redis`) is a shared log.
/// The conformance suite is [`testing::conformance::replay_log`](crate::testing::conformance::replay_log)
/// (feature `testing`).
///
/// Harmless mistakes: reporting an unused token as used; keeping a key for longer than `until`; failing, which
/// denies the token. Security holes: looking up and inserting in two steps, so that two callers can pass at
/// the same moment; removing a key before `until`; reporting a first use when the store is unavailable.
///
/// ```
/// # #[cfg(feature = "sqlite")] mod example {
/// use std::time::SystemTime;
///
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::replay::{ReplayKey, ReplayLog};
///
/// /// A table with the columns `key` (primary key) and `until` (seconds since 1970).
/// #[derive(Debug)]
/// struct UsedTokens(sqlx::SqlitePool);
///
/// #[async_trait]
/// impl ReplayLog for UsedTokens {
///     async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError> {
///         if until <= SystemTime::now() {
///             return Ok(false);
///         }
///         let until = until.duration_since(SystemTime::UNIX_EPOCH)?.as_secs() + 1;
///         // One statement: of several callers, exactly one inserts the row. A job deletes rows after `until`.
///         let insert = "INSERT INTO used_tokens (key, until) VALUES ($1, $2) ON CONFLICT DO NOTHING";
///         let insert = sqlx::query(insert).bind(&key.as_bytes()[..]).bind(i64::try_from(until)?);
///         Ok(insert.execute(&self.0).await?.rows_affected() == 1)
///     }
/// }
/// # }
/// ```
#[async_trait]
pub trait ReplayLog: fmt::Debug + Send + Sync + 'static {
    /// Records the use of `key`, and keeps the record until the time `until`. Returns whether this is the
    /// first use. If several callers ask at the same moment, exactly one gets `true`. If `until` has passed,
    /// it returns `false`.
    ///
    /// # Errors
    /// If the log is unavailable. The token is then denied.
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError>;
}

/// A bounded log in memory. It keeps every token until the token expires.
///
/// When it is full of unexpired tokens, it fails, and further tokens are denied. Evicting an entry instead
/// would allow its token to be used again. 100,000 entries take about 15 MB.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use scaikey_auth::replay::{MemoryReplayLog, ReplayKey, ReplayLog};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let log = MemoryReplayLog::new(1);
/// let expires_at = SystemTime::now() + Duration::from_secs(300);
/// let first_use = async |id| log.first_use(ReplayKey::new("invitation", [id]), expires_at).await;
/// assert!(first_use("7f3a").await.unwrap());
/// assert!(first_use("90b1").await.is_err(), "full: denied, rather than forgetting 7f3a");
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryReplayLog {
    clock: Arc<dyn Clock>,
    capacity: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    expiry: HashMap<ReplayKey, SystemTime>,
    /// The expiry by the monotonic clock, soonest first.
    queue: BinaryHeap<Reverse<(Duration, ReplayKey)>>,
}

/// The error of a log that is full of unexpired tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the replay log is full: raise its capacity, or have the issuer shorten the lifetime of its tokens"
)]
pub struct ReplayLogFull;

impl MemoryReplayLog {
    /// Creates a log for up to `capacity` unexpired tokens, with the [`SystemClock`].
    pub fn new(capacity: usize) -> Self {
        Self::with_clock(capacity, Arc::new(SystemClock::default()))
    }

    /// Creates a log as [`new`](Self::new) does, but with the given clock.
    pub fn with_clock(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self { clock, capacity, entries: Mutex::default() }
    }

    /// Returns the number of entries. Expired entries may still be counted.
    pub fn len(&self) -> usize {
        self.entries().expiry.len()
    }

    /// Returns whether the log has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Poisoning is harmless: no panic is possible between the changes of the two collections, because only
        // an allocation could fail there, and that aborts the process.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, key: ReplayKey, until: SystemTime) -> Result<bool, ReplayLogFull> {
        let mut entries = self.entries();
        // Read the clock under the lock, so that times never go back from one caller to the next.
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let Ok(left) = until.duration_since(now) else { return Ok(false) };
        if left.is_zero() || entries.expiry.contains_key(&key) {
            return Ok(false);
        }
        entries.remove_expired(now, elapsed);
        if entries.expiry.len() >= self.capacity {
            return Err(ReplayLogFull);
        }
        entries.expiry.insert(key, until);
        entries.queue.push(Reverse((elapsed.saturating_add(left), key)));
        Ok(true)
    }
}

impl Default for MemoryReplayLog {
    /// Creates a log for 100,000 tokens.
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl Entries {
    /// Removes the entries that have expired by both clocks. The wall clock alone is not enough: if it is set
    /// forward and then back, a removed token would be accepted again.
    fn remove_expired(&mut self, now: SystemTime, elapsed: Duration) {
        while let Some(Reverse((due, key))) = self.queue.peek().copied() {
            let is_expired = self.expiry.get(&key).is_none_or(|until| *until <= now);
            if due > elapsed || !is_expired {
                break;
            }
            self.queue.pop();
            self.expiry.remove(&key);
        }
    }
}

#[async_trait]
impl ReplayLog for MemoryReplayLog {
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError> {
        Ok(self.insert(key, until)?)
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
            ReplayKey::new("logout", ["https://a", "7"]),
            ReplayKey::new("proof", ["https://a", "7"]),
            ReplayKey::new("logout", ["https://a7", ""]),
            ReplayKey::new("logout", ["https://a", "", "7"]),
            ReplayKey::new("logout", ["https://a"]),
            ReplayKey::new("", ["logout", "https://a", "7"]),
            #[cfg(feature = "trust")]
            ReplayKey::of_foreign_token("logout", "https://a", "7"),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], ReplayKey::new("logout", ["https://a", "7"]));
    }

    /// Processes of two versions may share a log, so no key may change its value.
    #[test]
    fn key_values_are_fixed() {
        let key = ReplayKey::new("logout", ["https://a", "7"]);
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
