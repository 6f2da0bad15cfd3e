//! A provider, clients with a cache in Redis, and what they count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{
    AccessToken, BoxError, CacheKey, CacheKeys, ClientAuth, ExchangeRequest, Fence, Layered,
    MemoryCache, RedisCache, Secret, TokenCache, TokenExchangeBuilder, TokenExchangeClient,
};

pub(crate) const OLD: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
pub(crate) const NEW: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";

pub(crate) async fn provider() -> Provider {
    let provider = Provider::start().await;
    register(&provider);
    provider
}

fn register(provider: &Provider) {
    let drive = Client::new("drive", "client-secret-canary").scopes("read write");
    provider.register_client(drive.may_exchange("vault", "vault:read"));
    provider.register_user(User::new("bob", "hunter2"));
}

pub(crate) fn keys(text: &str) -> CacheKeys {
    CacheKeys::parse(&text.into()).unwrap()
}

pub(crate) fn builder(issuer: &str) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(issuer)
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("drive", "client-secret-canary"))
        .enable_password_grant()
        .tenant_parameter("tenant_id")
        .cache_keys(keys(OLD))
}

/// As a process of its own would have it: nothing but Redis is shared.
pub(crate) fn client(provider: &Provider, cache: impl TokenCache) -> TokenExchangeClient {
    builder(&provider.issuer()).cache(cache).build().unwrap()
}

/// With time enough on a machine that is busy: what is tested is seldom speed.
pub(crate) fn redis(url: &Secret) -> RedisCache {
    RedisCache::open(url).unwrap().budget(PATIENT).write_timeout(PATIENT)
}

const PATIENT: Duration = Duration::from_secs(20);

pub(crate) fn layered(url: &Secret) -> Layered<MemoryCache, RedisCache> {
    Layered::new(MemoryCache::default(), redis(url))
}

/// A request that nobody has made before.
pub(crate) fn fresh(provider: &Provider) -> ExchangeRequest {
    ExchangeRequest::new(provider.token().sign(), "vault")
}

/// The same as a cache that tells what its calls came to.
pub(crate) fn told(cache: RedisCache) -> (Told, Arc<Mutex<Vec<String>>>) {
    let told = Arc::<Mutex<Vec<String>>>::default();
    (Told(cache, told.clone()), told)
}

/// Notes what each call to the cache came to: `ok`, or why it failed.
#[derive(Debug)]
pub(crate) struct Told(RedisCache, Arc<Mutex<Vec<String>>>);

impl Told {
    async fn told<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let answer = call.await;
        let text = answer.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
        self.1.lock().unwrap().push(text);
        answer
    }
}

#[async_trait]
impl TokenCache for Told {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        self.told(self.0.get(key)).await
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        keep_for: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        self.told(self.0.put(key, token, keep_for, fence)).await
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        self.told(self.0.remove(key)).await
    }

    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        life: Duration,
    ) -> Result<bool, BoxError> {
        self.told(self.0.lock(key, fence, life)).await
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        self.told(self.0.unlock(key, fence)).await
    }
}

/// Waits for what comes to pass by itself.
pub(crate) async fn eventually(mut what: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !what().await {
        assert!(since.elapsed() < Duration::from_secs(120), "it did not come to pass");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What the thread of one test counted, by name and labels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<String, u64>>>);

struct Entry(Counts, String);

impl CounterFn for Entry {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }

    fn absolute(&self, _: u64) {}
}

impl Counts {
    /// Failures of the cache for this reason.
    pub(crate) fn failures(&self, reason: &str) -> u64 {
        let counts = self.0.lock().unwrap();
        let of = |name: &str| name.contains("token_cache_failures") && name.contains(reason);
        counts.iter().filter(|(name, _)| of(name)).map(|(_, count)| count).sum()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Entry(self.clone(), key.to_string())))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
