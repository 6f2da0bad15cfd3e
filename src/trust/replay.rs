//! [`ReplayLog`]: remembers which tokens were used, so that each is used once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;
use crate::support::crypto;

/// Stands for one token of one trust: a SHA-256 over trust, issuer and `jti`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplayKey([u8; 32]);

impl ReplayKey {
    pub(crate) fn of(trust: &str, issuer: &str, jti: &str) -> Self {
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

/// Where the use of tokens is noted.
///
/// [`MemoryReplayLog`] is for one process. Several processes behind one name need a log in common,
/// or each would accept a token once: `RedisCache` is one (feature `redis`).
///
/// Harmless mistakes: to say "used before" of a token that was not; to remember for longer than
/// asked; to fail, which denies. Attacks: to ask and to note in two steps, between which a second
/// caller asks; to forget before `until`; to answer "first use" when the store could not be asked.
#[async_trait]
pub trait ReplayLog: fmt::Debug + Send + Sync + 'static {
    /// Notes the use of `key`, to be remembered until `until`, and tells whether it is the first.
    /// Of callers at the same moment exactly one is told `true`.
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

/// The log that all processes share (feature `redis`): `SET … NX PX` under a digest, beside the
/// tokens, or in another server.
///
/// A server that is away, or does not answer within
/// [`RedisCache::write_timeout`](crate::exchange::RedisCache::write_timeout), denies. One that loses what it was
/// told lets tokens be used again: because it restarts empty, evicts, or hands over to a replica
/// that had not heard yet. Give it persistence and a `maxmemory-policy` of `noeviction`, and tokens
/// a short life.
#[cfg(feature = "redis")]
#[async_trait]
impl ReplayLog for crate::exchange::RedisCache {
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError> {
        match until.duration_since(self.now()) {
            Ok(left) if left > LONGEST => Err("the token is to be remembered for too long".into()),
            Ok(left) if !left.is_zero() => self.note(&key.to_string(), left + LEEWAY).await,
            // It is over: nobody may use it.
            _ => Ok(false),
        }
    }
}

/// Clocks of servers differ; what is remembered a little longer does no harm.
#[cfg(feature = "redis")]
const LEEWAY: Duration = Duration::from_secs(60);

/// What is kept in Redis is kept for a year at most. Policies do with a week.
#[cfg(feature = "redis")]
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

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
