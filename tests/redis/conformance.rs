//! The conformance suite for token caches: correct caches pass, and each broken one fails its rule.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use scaikey_auth::TokenCache;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{AccessToken, CacheKey, Fence, MemoryCache};
use scaikey_auth::testing::conformance::{CacheSuite, token_cache};

use super::fixture::{layered, redis};
use super::server::Redis;

struct Memory(MemoryCache);

#[async_trait]
impl CacheSuite for Memory {
    fn cache(&self) -> Arc<dyn TokenCache> {
        Arc::new(self.0.clone())
    }
}

#[tokio::test]
async fn memory_cache_passes_conformance_suite() {
    token_cache(&Memory(MemoryCache::default())).await;
}

/// A server, and a function that returns a cache on it.
struct CacheOnServer<M>(Redis, M);

#[async_trait]
impl<M: Fn(&Redis) -> Arc<dyn TokenCache> + Sync> CacheSuite for CacheOnServer<M> {
    fn cache(&self) -> Arc<dyn TokenCache> {
        (self.1)(&self.0)
    }

    async fn stored(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let stored = self.0.stored().into_iter();
        stored.map(|(name, value)| (name.into_bytes(), value)).collect()
    }

    async fn overwrite(&self, name: &[u8], value: &[u8]) {
        self.0.overwrite(std::str::from_utf8(name).unwrap(), value);
    }
}

#[tokio::test]
async fn redis_cache_passes_conformance_suite() {
    let cache = |server: &Redis| Arc::new(redis(&server.url())) as Arc<dyn TokenCache>;
    token_cache(&CacheOnServer(Redis::start(), cache)).await;
}

#[tokio::test]
async fn redis_cache_behind_memory_passes_conformance_suite() {
    let cache = |server: &Redis| {
        let far = redis(&server.url()).prefix("sw{x}");
        Arc::new(scaikey_auth::exchange::TieredCache::new(MemoryCache::default(), far))
            as Arc<dyn TokenCache>
    };
    token_cache(&CacheOnServer(Redis::start(), cache)).await;
}

#[tokio::test]
async fn cache_behind_arcs_passes() {
    let cache = |server: &Redis| {
        let inner: Arc<dyn TokenCache> = Arc::new(redis(&server.url()));
        Arc::new(Arc::new(inner)) as Arc<dyn TokenCache>
    };
    token_cache(&CacheOnServer(Redis::with_password("hunter2"), cache)).await;
}

#[tokio::test]
async fn cluster_cache_passes_conformance_suite() {
    let cache = |server: &Redis| {
        let url = server.url();
        let urls = format!("{0},{0}", url.expose());
        Arc::new(redis(&urls.as_str().into())) as Arc<dyn TokenCache>
    };
    token_cache(&CacheOnServer(Redis::cluster(), cache)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_requires_a_trusted_certificate() {
    let (server, certificate) = Redis::with_tls();
    let url = server.tls_url();
    assert!(redis(&server.url()).root_certificates(&certificate).is_err(), "not rediss://");
    assert!(redis(&url).root_certificates(b"no certificate").is_err());
    // The system does not trust this certificate.
    let untrusting: Arc<dyn TokenCache> = Arc::new(redis(&url));
    let why = failure(token_cache(&AnyCache(untrusting))).await;
    assert!(why.contains("certificate"), "{why}");
    let cache = move |_: &Redis| {
        let cache = redis(&url).root_certificates(&certificate).unwrap();
        Arc::new(cache) as Arc<dyn TokenCache>
    };
    token_cache(&CacheOnServer(server, cache)).await;
}

struct AnyCache(Arc<dyn TokenCache>);

#[async_trait]
impl CacheSuite for AnyCache {
    fn cache(&self) -> Arc<dyn TokenCache> {
        self.0.clone()
    }
}

/// Runs a suite that must fail, and returns its message.
async fn failure(suite: impl Future<Output = ()>) -> String {
    let task = std::panic::catch_unwind(AssertUnwindSafe(|| {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(suite));
    }));
    panic_message(task.expect_err("the suite should fail"))
}

/// Returns the message of a panic.
fn panic_message(why: Box<dyn Any + Send>) -> String {
    let text = why.downcast_ref::<&str>().map(|text| (*text).to_owned());
    why.downcast_ref::<String>().cloned().or(text).unwrap_or_default()
}

type Store = HashMap<String, (Vec<u8>, Instant)>;

/// A custom shared cache over a store in memory, correct or with one flaw.
#[derive(Debug, Clone)]
struct CustomCache {
    flaw: &'static str,
    store: Arc<Mutex<Store>>,
    plain: Arc<Mutex<HashMap<String, AccessToken>>>,
}

impl CustomCache {
    fn new(flaw: &'static str) -> Self {
        Self { flaw, store: Arc::default(), plain: Arc::default() }
    }

    fn has(&self, flaw: &str) -> bool {
        self.flaw == flaw
    }

    fn name(&self, key: &CacheKey<'_>) -> String {
        match self.flaw {
            "mixes keys" => "token".to_owned(),
            "mixes a tenant's keys" => format!("{:?}", key.tenant()),
            _ => key.digest().to_owned(),
        }
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let store = self.store.lock().unwrap();
        let (value, until) = store.get(name)?;
        let for_ever = match name.ends_with("lock") {
            true => self.has("never expires locks"),
            false => self.has("never expires tokens"),
        };
        (for_ever || Instant::now() < *until).then(|| value.clone())
    }

    fn write(&self, name: &str, value: &[u8], ttl: Duration) {
        let until = Instant::now() + ttl.min(Duration::from_secs(3600));
        self.store.lock().unwrap().insert(name.to_owned(), (value.to_owned(), until));
    }

    fn holds(&self, name: &str, fence: &Fence) -> bool {
        self.read(&format!("{name}lock")).is_some_and(|held| held == fence.as_str().as_bytes())
    }
}

#[async_trait]
impl TokenCache for CustomCache {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let name = self.name(key);
        if self.has("forgets") {
            return Ok(None);
        }
        if self.has("fails") {
            return Err("no".into());
        }
        if ["trusts its store", "mixes keys", "mixes a tenant's keys"].contains(&self.flaw) {
            return Ok(self
                .read(&name)
                .and_then(|_| self.plain.lock().unwrap().get(&name).cloned()));
        }
        Ok(self.read(&name).and_then(|sealed| key.open(&sealed)))
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        let name = self.name(key);
        let is_there = self.read(&name).is_some();
        let is_locked = self.read(&format!("{name}lock")).is_some() || self.has("needs a lock");
        let fenced_off =
            fence.is_some_and(|fence| !self.holds(&name, fence) && (is_locked || is_there));
        if (fenced_off && !self.has("ignores fences")) || (is_there && self.has("keeps the first"))
        {
            return Ok(());
        }
        let sealed = key.seal(token, ttl).ok_or("no random numbers")?;
        self.plain.lock().unwrap().insert(name.clone(), token.clone());
        if self.has("leaks") {
            self.write("leak", token.secret().expose().as_bytes(), ttl);
        }
        self.write(&name, &sealed, ttl);
        Ok(())
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        if !self.has("removes nothing") {
            self.store.lock().unwrap().remove(&self.name(key));
        }
        Ok(())
    }

    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        life: Duration,
    ) -> Result<bool, BoxError> {
        let name = self.name(key);
        let is_ours = self.holds(&name, fence) && !self.has("takes no lock again");
        let lock = format!("{name}lock");
        if self.read(&lock).is_some() && !is_ours && !self.has("grants every lock") {
            return Ok(false);
        }
        self.write(&lock, fence.as_str().as_bytes(), life);
        Ok(true)
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        let name = self.name(key);
        if self.holds(&name, fence) || self.has("unlocks without the fence") {
            self.store.lock().unwrap().remove(&format!("{name}lock"));
        }
        Ok(())
    }
}

struct CustomCacheSuite(CustomCache);

#[async_trait]
impl CacheSuite for CustomCacheSuite {
    fn cache(&self) -> Arc<dyn TokenCache> {
        match self.0.flaw {
            "is not shared" => Arc::new(CustomCache::new("is not shared")),
            _ => Arc::new(self.0.clone()),
        }
    }

    async fn stored(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let store = self.0.store.lock().unwrap();
        store.iter().map(|(name, (value, _))| (name.clone().into(), value.clone())).collect()
    }

    async fn overwrite(&self, name: &[u8], value: &[u8]) {
        let name = std::str::from_utf8(name).unwrap();
        self.0.write(name, value, Duration::from_secs(600));
    }

    /// Waits less for a flaw.
    fn timeout(&self) -> Duration {
        match self.0.flaw {
            "" => Duration::from_secs(60),
            _ => Duration::from_secs(10),
        }
    }
}

#[tokio::test]
async fn custom_shared_cache_passes() {
    token_cache(&CustomCacheSuite(CustomCache::new(""))).await;
}

#[test]
fn each_flaw_violates_its_conformance_rule() {
    // Run concurrently, because the suites mostly wait.
    let suites = [
        ("forgets", "get returns the token put last"),
        ("fails", "an available store answers"),
        ("keeps the first", "get returns the token put last"),
        ("mixes keys", "each key has its own token"),
        ("mixes a tenant's keys", "each key has its own token"),
        ("removes nothing", "a removed token is gone"),
        ("never expires tokens", "a token expires after its TTL"),
        ("is not shared", "expires after its TTL|instance of a shared cache sees"),
        ("grants every lock", "a lock has one holder"),
        ("unlocks without the fence", "only the holder releases a lock"),
        ("never expires locks", "a lock expires"),
        ("takes no lock again", "the same fence acquires a lock again"),
        ("needs a lock", "any fence may put if there is neither a lock nor a token"),
        ("ignores fences", "a put by a former lock holder is ignored"),
        ("leaks", "values in the store are sealed"),
        ("trusts its store", "is a miss"),
    ]
    .map(|(flaw, rule)| (flaw, rule, std::thread::spawn(move || run_suite(flaw))));
    for (flaw, rule, suite) in suites {
        let why = panic_message(suite.join().expect_err("the suite should fail"));
        assert!(rule.split('|').any(|rule| why.contains(rule)), "a cache that {flaw}: {why}");
    }
}

fn run_suite(flaw: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(token_cache(&CustomCacheSuite(CustomCache::new(flaw))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_far_cache_fails_the_suite() {
    // The near cache must not hide that the far cache is unavailable.
    let server = Redis::later();
    let why = failure(token_cache(&AnyCache(Arc::new(layered(&server.url()))))).await;
    assert!(why.contains("an available store answers"), "{why}");
}
