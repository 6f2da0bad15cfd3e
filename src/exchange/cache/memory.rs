//! [`MemoryCache`]: a token cache in the memory of this process.

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
use crate::support::bounded::weighed;
use crate::support::mac::{BuildMacHasher, Mac};

/// The default size in bytes.
const DEFAULT_BYTES: u64 = 32 << 20;

/// The approximate size of an entry without its tokens, in bytes.
const ENTRY_OVERHEAD: usize = 400;

/// The approximate size of a typical entry, in bytes.
const TYPICAL_ENTRY: u64 = 1600;

/// The minimum size of a shard, in bytes. A shard rejects an entry larger than half of it, and the
/// largest answer of a provider is 1 MiB.
const MIN_SHARD_BYTES: u64 = 4 << 20;

/// The time between two sweeps, which remove expired tokens, in seconds.
const SWEEP_INTERVAL: u64 = 60;

/// A token cache in the memory of this process: the default cache of a client. Clones share the entries.
///
/// The default size is 32 MiB, about 20,000 tokens of typical size. A new token is always inserted,
/// unless the cache is smaller than 4 MiB and the token larger than half of it. A full cache first
/// evicts tokens that were never read, the oldest first. Expired tokens are never returned. Their
/// memory is freed by the first insertion in each minute.
///
/// The cache does not store subject tokens; it stores a keyed hash of each request. The obtained tokens
/// are *not* encrypted: a reader of the process's memory can read them.
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::exchange::MemoryCache;
///
/// let cache = MemoryCache::new(8 << 20);
/// let builder = TokenExchangeClient::builder("https://scaikey.example").cache(cache.clone());
/// // Later, for example after the service lost a right: the next requests get new tokens.
/// cache.clear();
/// ```
#[derive(Clone)]
pub struct MemoryCache(Arc<Memory>);

struct Memory {
    tokens: Cache<Mac, Entry, BytesWeighter, BuildMacHasher>,
    /// The time of the next sweep, in seconds of the monotonic clock.
    sweep_at: AtomicU64,
}

#[derive(Clone)]
struct Entry {
    token: AccessToken,
    /// On the monotonic clock of the client.
    expires: Duration,
}

#[derive(Clone)]
struct BytesWeighter;

impl Weighter<Mac, Entry> for BytesWeighter {
    fn weight(&self, _: &Mac, entry: &Entry) -> u64 {
        (entry.token.size() + ENTRY_OVERHEAD) as u64
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(DEFAULT_BYTES)
    }
}

impl MemoryCache {
    /// Returns a cache of about `max_bytes`. If that is less than 4 MiB, a token larger than half of
    /// `max_bytes` is not cached.
    pub fn new(max_bytes: u64) -> Self {
        let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let (shards, entries) =
            (number(max_bytes / MIN_SHARD_BYTES), number(max_bytes / TYPICAL_ENTRY));
        let tokens = weighed(shards, entries, max_bytes, BytesWeighter);
        Self(Arc::new(Memory { tokens, sweep_at: AtomicU64::new(0) }))
    }

    /// Removes all tokens.
    pub fn clear(&self) {
        self.0.tokens.clear();
    }
}

impl Memory {
    /// Removes expired tokens, once a minute.
    fn sweep(&self, now: Duration) {
        let (due, seconds) = (self.sweep_at.load(Ordering::Relaxed), now.as_secs());
        let next = seconds.saturating_add(SWEEP_INTERVAL);
        let is_due = seconds >= due;
        if is_due
            && self
                .sweep_at
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.tokens.retain(|_, entry| now < entry.expires);
        }
    }
}

#[async_trait]
impl TokenCache for MemoryCache {
    fn is_shared(&self) -> bool {
        false
    }

    fn peek(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        let (mac, now) = (key.mac(), key.elapsed());
        let entry = self.0.tokens.get(&mac)?;
        if now < entry.expires {
            return Some(entry.token);
        }
        self.0.tokens.remove_if(&mac, |entry| entry.expires <= now);
        None
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        Ok(self.peek(key))
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        _: Option<&Fence>,
    ) -> Result<(), BoxError> {
        let now = key.elapsed();
        self.0.sweep(now);
        let entry = Entry { token: token.clone(), expires: now.saturating_add(ttl) };
        self.0.tokens.insert(key.mac(), entry);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        self.0.tokens.remove(&key.mac());
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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;
    use crate::exchange::cache::ClientFingerprint;
    use crate::exchange::{RefreshRequest, TokenRequest};
    use crate::support::seal::SealingKeys;

    #[derive(Debug, Default)]
    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    /// A cache with the clock and keys of a client.
    struct TestCache {
        cache: MemoryCache,
        clock: TestClock,
        keys: SealingKeys,
        client: ClientFingerprint,
    }

    impl TestCache {
        fn new(max_bytes: u64) -> Self {
            let (keys, settings) = (SealingKeys::random().unwrap(), ["test"].into_iter());
            let client = ClientFingerprint::new(settings, true);
            Self { cache: MemoryCache::new(max_bytes), clock: TestClock::default(), keys, client }
        }

        fn with<T>(&self, name: &str, run: impl AsyncFnOnce(&CacheKey<'_>) -> T) -> T {
            let request = TokenRequest::Refresh(Cow::Owned(RefreshRequest::new(name)));
            let sealing_key = self.keys.current(&self.clock)[0].clone();
            let key = CacheKey::new(&self.client, &request, sealing_key, &self.clock);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(run(&key))
        }

        fn put(&self, name: &str, bytes: usize, seconds: u64) {
            let text = "t".repeat(bytes);
            let body = format!(r#"{{"access_token":"{text}","token_type":"Bearer"}}"#);
            let token = AccessToken::parse(body.as_bytes(), &self.clock).unwrap();
            let ttl = Duration::from_secs(seconds);
            self.with(name, async |key| self.cache.put(key, &token, ttl, None).await).unwrap();
        }

        fn has(&self, name: &str) -> bool {
            self.with(name, async |key| self.cache.peek(key).is_some())
        }

        fn set_time(&self, seconds: u64) {
            self.clock.0.store(seconds, Ordering::SeqCst);
        }

        fn tokens(&self) -> usize {
            self.cache.0.tokens.len()
        }
    }

    #[test]
    fn token_expires_on_the_clients_clock() {
        let cache = TestCache::new(DEFAULT_BYTES);
        cache.put("a", 10, 60);
        cache.set_time(59);
        assert!(cache.has("a"));
        cache.set_time(60);
        assert!(!cache.has("a"));
        assert_eq!(cache.tokens(), 0, "the lookup removed the expired token");
        cache.put("a", 10, u64::MAX);
        assert!(cache.has("a"));
    }

    #[test]
    fn expired_tokens_are_swept_once_a_minute() {
        let cache = TestCache::new(DEFAULT_BYTES);
        (0..50).for_each(|nth| cache.put(&format!("short {nth}"), 10, 30));
        cache.put("long", 10, 600);
        cache.set_time(40);
        cache.put("next", 10, 600);
        assert_eq!(cache.tokens(), 52);
        cache.set_time(60);
        cache.put("last", 10, 600);
        assert_eq!(cache.tokens(), 3);
        assert!(cache.has("long") && cache.has("next") && cache.has("last"));
    }

    #[test]
    fn full_cache_inserts_the_latest_token() {
        let cache = TestCache::new(60_000);
        for nth in 0..400 {
            let name = nth.to_string();
            cache.put(&name, 600, 600);
            assert!(cache.has(&name));
            assert!(cache.cache.0.tokens.weight() <= 60_000);
        }
        assert!(cache.tokens() > 50);
    }

    #[test]
    fn full_cache_admits_tokens_of_new_users() {
        // The cache has room for 200 tokens.
        let cache = TestCache::new(200 * (600 + ENTRY_OVERHEAD as u64));
        let requests = |users: std::ops::Range<u32>, each: u32| {
            let mut misses = 0;
            for user in (0..each).flat_map(|_| users.clone()) {
                let name = user.to_string();
                if !cache.has(&name) {
                    cache.put(&name, 600, 600);
                    misses += 1;
                }
            }
            misses
        };
        assert_eq!(requests(0..200, 12), 200);
        assert_eq!(requests(1000..1020, 10), 20);
    }

    /// The largest answer of a provider is 1 MiB.
    #[test]
    fn every_shard_caches_one_mebibyte() {
        for max_bytes in [DEFAULT_BYTES, 8 << 20, 4 << 20] {
            let cache = TestCache::new(max_bytes);
            (0..20).for_each(|nth| cache.put(&nth.to_string(), 10, 600));
            for nth in 0..20 {
                let name = format!("large {nth}");
                cache.put(&name, 1 << 20, 600);
                assert!(cache.has(&name), "{name} of {max_bytes}");
            }
        }
    }

    /// Most tokens obtained with refresh tokens and codes are never read. The cache reserves half of
    /// its 16 MiB for new entries. Keys are not spread evenly over the shards, so only about 6.5 MiB of
    /// that half are guaranteed.
    #[test]
    fn latest_successors_are_not_evicted() {
        let cache = TestCache::new(crate::exchange::cached::SUCCESSOR_BYTES);
        let latest = 6000..8000;
        (0..latest.end).for_each(|nth| cache.put(&nth.to_string(), 3000, 60));
        let lost = latest.filter(|nth| !cache.has(&nth.to_string())).count();
        assert_eq!(lost, 0);
    }
}
