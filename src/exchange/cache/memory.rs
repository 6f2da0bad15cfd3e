//! [`MemoryCache`]: tokens in the memory of this process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{CacheKey, Fence, TokenCache};
use crate::error::BoxError;
use crate::exchange::AccessToken;
use crate::mark::{Mark, MarkHasher};
use crate::support::bounded::weighed;

/// How many bytes of tokens are kept by default.
const BUDGET: u64 = 32 << 20;

/// What an entry takes besides its texts, about.
const ENTRY: usize = 400;

/// What a token of usual size takes, about.
const USUAL: u64 = 1600;

/// Bytes under one lock, at least. A token takes half of them at most, and an answer of the provider has
/// no more than 1 MiB.
const LEAST_PER_SHARD: u64 = 4 << 20;

/// How often tokens are looked for whose time is over, in seconds.
const SWEEP: u64 = 60;

/// Tokens in the memory of this process: what a client uses unless it is given another cache.
///
/// Bounded to 32 MiB by default, some 20,000 tokens of usual size. A new token is always taken in. In a full
/// cache those make room first that were not asked for again, the oldest first. A
/// token whose time is over is not given out; a minute later, as the next one is put, its memory is freed.
///
/// A subject token is not kept, only a keyed hash of the whole request. The tokens obtained lie in memory as
/// they are, as they do while they are used: a reader of the process's memory has them. Clones share
/// everything.
#[derive(Clone)]
pub struct MemoryCache(Arc<Memory>);

struct Memory {
    tokens: Cache<Mark, Entry, Bytes, MarkHasher>,
    /// When the next look for dead tokens is due, in seconds of the monotonic clock.
    sweep_at: AtomicU64,
}

#[derive(Clone)]
struct Entry {
    token: AccessToken,
    /// By the clock of the client, from which it does not count any more.
    until: Duration,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Mark, Entry> for Bytes {
    fn weight(&self, _: &Mark, entry: &Entry) -> u64 {
        (entry.token.octets() + ENTRY) as u64
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(BUDGET)
    }
}

impl MemoryCache {
    /// A cache of at most so many bytes, about. With less than 4 MiB, a token that takes more than half of
    /// them is not kept.
    pub fn new(max_bytes: u64) -> Self {
        let number = |of: u64| usize::try_from(of).unwrap_or(usize::MAX);
        let (shards, entries) = (number(max_bytes / LEAST_PER_SHARD), number(max_bytes / USUAL));
        let tokens = weighed(shards, entries, max_bytes, Bytes);
        Self(Arc::new(Memory { tokens, sweep_at: AtomicU64::new(0) }))
    }

    /// Forgets every token.
    pub fn clear(&self) {
        self.0.tokens.clear();
    }
}

impl Memory {
    /// Frees the memory of tokens whose time is over, once a minute.
    fn sweep(&self, now: Duration) {
        let (due, seconds) = (self.sweep_at.load(Ordering::Relaxed), now.as_secs());
        let next = seconds.saturating_add(SWEEP);
        let is_due = seconds >= due;
        if is_due
            && self
                .sweep_at
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.tokens.retain(|_, entry| now < entry.until);
        }
    }
}

#[async_trait]
impl TokenCache for MemoryCache {
    fn is_shared(&self) -> bool {
        false
    }

    fn at_once(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        let (mark, now) = (key.mark(), key.elapsed());
        let entry = self.0.tokens.get(&mark)?;
        if now < entry.until {
            return Some(entry.token);
        }
        self.0.tokens.remove_if(&mark, |held| held.until <= now);
        None
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        Ok(self.at_once(key))
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        keep_for: Duration,
        _: Option<&Fence>,
    ) -> Result<(), BoxError> {
        let now = key.elapsed();
        self.0.sweep(now);
        let entry = Entry { token: token.clone(), until: now.saturating_add(keep_for) };
        self.0.tokens.insert(key.mark(), entry);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        self.0.tokens.remove(&key.mark());
        Ok(())
    }

    async fn lock(&self, _: &CacheKey<'_>, _: &Fence, _: Duration) -> Result<bool, BoxError> {
        Ok(true)
    }

    async fn unlock(&self, _: &CacheKey<'_>, _: &Fence) -> Result<(), BoxError> {
        Ok(())
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache").field("tokens", &self.0.tokens.len()).finish()
    }
}
