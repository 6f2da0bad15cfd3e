//! A provider, and clients with a cache in Redis.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{
    AccessToken, CacheKey, Fence, MemoryCache, RedisCache, SealingKeys, TieredCache,
    TokenExchangeBuilder,
};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{ExchangeRequest, Secret, TokenCache, TokenExchangeClient};

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

pub(crate) fn keys(text: &str) -> SealingKeys {
    SealingKeys::parse(&text.into()).unwrap()
}

pub(crate) fn builder(issuer: &str) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(issuer)
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("drive", "client-secret-canary"))
        .enable_password_grant()
        .tenant_parameter("tenant_id")
        .cache_keys(keys(OLD))
}

/// Returns a client as in a separate process: clients share only Redis.
pub(crate) fn client(provider: &Provider, cache: impl TokenCache) -> TokenExchangeClient {
    builder(&provider.issuer()).cache(cache).build().unwrap()
}

/// Returns a cache with long time limits, because most tests do not test speed.
pub(crate) fn redis(url: &Secret) -> RedisCache {
    RedisCache::open(url).unwrap().budget(LONG).write_timeout(LONG)
}

const LONG: Duration = Duration::from_secs(20);

pub(crate) fn layered(url: &Secret) -> TieredCache<MemoryCache, RedisCache> {
    TieredCache::new(MemoryCache::default(), redis(url))
}

/// Returns a request that no cache has an entry for.
pub(crate) fn fresh(provider: &Provider) -> ExchangeRequest {
    ExchangeRequest::new(provider.token().sign(), "vault")
}

/// Wraps the cache, and returns the list of its results.
pub(crate) fn record_results(cache: RedisCache) -> (RecordingCache, Arc<Mutex<Vec<String>>>) {
    let results = Arc::<Mutex<Vec<String>>>::default();
    (RecordingCache(cache, results.clone()), results)
}

/// Records the result of each call to the cache: `ok`, or the error.
#[derive(Debug)]
pub(crate) struct RecordingCache(RedisCache, Arc<Mutex<Vec<String>>>);

impl RecordingCache {
    async fn record<T>(
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
impl TokenCache for RecordingCache {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        self.record(self.0.get(key)).await
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        self.record(self.0.put(key, token, ttl, fence)).await
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        self.record(self.0.remove(key)).await
    }

    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        lifetime: Duration,
    ) -> Result<bool, BoxError> {
        self.record(self.0.lock(key, fence, lifetime)).await
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        self.record(self.0.unlock(key, fence)).await
    }
}
