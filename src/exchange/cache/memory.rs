//! [`MemoryCache`]: tokens in the memory of this process.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{CacheKey, Fence, TokenCache};
use crate::error::BoxError;
use crate::exchange::AccessToken;
use crate::mark::{Mark, MarkHasher};

/// How many bytes of tokens are kept by default.
const BUDGET: u64 = 32 << 20;

/// What an entry takes besides its texts, about.
const ENTRY: usize = 400;

/// Tokens in the memory of this process: what a client uses unless it is given another cache.
///
/// Bounded to 32 MiB by default, some 20,000 tokens of usual size; those used least go first. A subject
/// token is not kept, only a keyed hash of the whole request. The tokens obtained lie in memory as they
/// are, as they do while they are used: a reader of the process's memory has them. Clones share everything.
#[derive(Clone)]
pub struct MemoryCache {
    tokens: Cache<Mark, Entry, MarkHasher>,
}

#[derive(Clone)]
struct Entry {
    token: AccessToken,
    keep_for: Duration,
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(BUDGET)
    }
}

impl MemoryCache {
    /// A cache of at most so many bytes, about.
    pub fn new(max_bytes: u64) -> Self {
        Self::evicting(max_bytes, EvictionPolicy::tiny_lfu())
    }

    /// One that always takes what is put: what was used longest ago goes first. By default a cache that is
    /// full turns away what is not asked for often.
    pub(in crate::exchange) fn of_the_latest(max_bytes: u64) -> Self {
        Self::evicting(max_bytes, EvictionPolicy::lru())
    }

    fn evicting(max_bytes: u64, policy: EvictionPolicy) -> Self {
        let weigh = |_: &Mark, entry: &Entry| {
            u32::try_from(entry.token.octets() + ENTRY).unwrap_or(u32::MAX)
        };
        let tokens = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(weigh)
            .eviction_policy(policy)
            .expire_after(KeepFor)
            .build_with_hasher(MarkHasher::default());
        Self { tokens }
    }

    /// Forgets every token.
    pub fn clear(&self) {
        self.tokens.invalidate_all();
    }
}

/// Frees the memory of what nobody will be given any more. Whether a token may still be used is
/// judged by whoever takes it.
struct KeepFor;

impl Expiry<Mark, Entry> for KeepFor {
    fn expire_after_create(&self, _: &Mark, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.keep_for)
    }

    fn expire_after_update(
        &self,
        _: &Mark,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.keep_for)
    }
}

#[async_trait]
impl TokenCache for MemoryCache {
    fn is_shared(&self) -> bool {
        false
    }

    fn at_once(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        self.tokens.get(&key.mark()).map(|entry| entry.token)
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
        self.tokens.insert(key.mark(), Entry { token: token.clone(), keep_for });
        Ok(())
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        self.tokens.invalidate(&key.mark());
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
        f.debug_struct("MemoryCache").field("tokens", &self.tokens.entry_count()).finish()
    }
}
