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
use crate::support::bounded::weighed;
use crate::support::mac::{BuildMacHasher, Mac};

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
    tokens: Cache<Mac, Entry, Bytes, BuildMacHasher>,
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

impl Weighter<Mac, Entry> for Bytes {
    fn weight(&self, _: &Mac, entry: &Entry) -> u64 {
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

    fn peek(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        let (mac, now) = (key.mac(), key.elapsed());
        let entry = self.0.tokens.get(&mac)?;
        if now < entry.until {
            return Some(entry.token);
        }
        self.0.tokens.remove_if(&mac, |held| held.until <= now);
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
        let entry = Entry { token: token.clone(), until: now.saturating_add(ttl) };
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
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    /// A cache, and the time of the client that uses it.
    struct Desk {
        cache: MemoryCache,
        clock: Seconds,
        keys: SealingKeys,
        client: ClientFingerprint,
    }

    impl Desk {
        fn new(max_bytes: u64) -> Self {
            let (keys, settings) = (SealingKeys::random().unwrap(), ["test"].into_iter());
            let client = ClientFingerprint::new(settings, true);
            Self { cache: MemoryCache::new(max_bytes), clock: Seconds::default(), keys, client }
        }

        fn with<T>(&self, name: &str, run: impl AsyncFnOnce(&CacheKey<'_>) -> T) -> T {
            let request = TokenRequest::Refresh(Cow::Owned(RefreshRequest::new(name)));
            let server_key = self.keys.iter().next().unwrap();
            let key = CacheKey::new(&self.client, &request, server_key, &self.clock);
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

        fn at(&self, seconds: u64) {
            self.clock.0.store(seconds, Ordering::SeqCst);
        }

        fn tokens(&self) -> usize {
            self.cache.0.tokens.len()
        }
    }

    #[test]
    fn token_ends_by_the_clock_of_its_client() {
        let desk = Desk::new(BUDGET);
        desk.put("a", 10, 60);
        desk.at(59);
        assert!(desk.has("a"));
        desk.at(60);
        assert!(!desk.has("a"));
        assert_eq!(desk.tokens(), 0, "its memory is freed as it is found");
        desk.put("a", 10, u64::MAX);
        assert!(desk.has("a"));
    }

    #[test]
    fn dead_tokens_are_swept_once_a_minute() {
        let desk = Desk::new(BUDGET);
        (0..50).for_each(|nth| desk.put(&format!("short {nth}"), 10, 30));
        desk.put("long", 10, 600);
        desk.at(40);
        desk.put("next", 10, 600);
        assert_eq!(desk.tokens(), 52);
        desk.at(60);
        desk.put("last", 10, 600);
        assert_eq!(desk.tokens(), 3);
        assert!(desk.has("long") && desk.has("next") && desk.has("last"));
    }

    #[test]
    fn full_cache_takes_the_latest_in() {
        let desk = Desk::new(60_000);
        for nth in 0..400 {
            let name = nth.to_string();
            desk.put(&name, 600, 600);
            assert!(desk.has(&name));
            assert!(desk.cache.0.tokens.weight() <= 60_000);
        }
        assert!(desk.tokens() > 50);
    }

    #[test]
    fn full_cache_keeps_tokens_of_new_users() {
        // All that the cache holds are 200 tokens.
        let desk = Desk::new(200 * (600 + ENTRY as u64));
        let requests = |users: std::ops::Range<u32>, each: u32| {
            let mut asked = 0;
            for user in (0..each).flat_map(|_| users.clone()) {
                let name = user.to_string();
                if !desk.has(&name) {
                    desk.put(&name, 600, 600);
                    asked += 1;
                }
            }
            asked
        };
        assert_eq!(requests(0..200, 12), 200);
        assert_eq!(requests(1000..1020, 10), 20);
    }

    /// The largest answer that a provider may give.
    #[test]
    fn one_mebibyte_is_kept_by_each_shard() {
        for budget in [BUDGET, 8 << 20, 4 << 20] {
            let desk = Desk::new(budget);
            (0..20).for_each(|nth| desk.put(&nth.to_string(), 10, 600));
            for nth in 0..20 {
                let name = format!("large {nth}");
                desk.put(&name, 1 << 20, 600);
                assert!(desk.has(&name), "{name} of {budget}");
            }
        }
    }

    /// Nobody asks again for most of what refresh tokens gave. Keys do not spread evenly over the shards, so of
    /// half the memory, 8 MiB, some 6.5 MiB are certain.
    #[test]
    fn latest_successors_are_all_there() {
        let desk = Desk::new(crate::exchange::cached::SUCCESSOR_BYTES);
        let latest = 6000..8000;
        (0..latest.end).for_each(|nth| desk.put(&nth.to_string(), 3000, 60));
        let lost = latest.filter(|nth| !desk.has(&nth.to_string())).count();
        assert_eq!(lost, 0);
    }
}
