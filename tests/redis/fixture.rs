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

/// As a process of its own would have it: nothing but Redis is shared.
pub(crate) fn client(provider: &Provider, cache: impl TokenCache) -> TokenExchangeClient {
    builder(&provider.issuer()).cache(cache).build().unwrap()
}

/// With time enough on a machine that is busy: what is tested is seldom speed.
pub(crate) fn redis(url: &Secret) -> RedisCache {
    RedisCache::open(url).unwrap().budget(PATIENT).write_timeout(PATIENT)
}

const PATIENT: Duration = Duration::from_secs(20);

pub(crate) fn layered(url: &Secret) -> TieredCache<MemoryCache, RedisCache> {
    TieredCache::new(MemoryCache::default(), redis(url))
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
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        self.told(self.0.put(key, token, ttl, fence)).await
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
