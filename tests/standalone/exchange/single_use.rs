//! Refresh tokens are spent once, even with a faulty cache, and callers wait only for a limited time.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{
    AccessToken, CacheKey, Fence, MemoryCache, PasswordRequest, RefreshRequest, SealingKeys,
    TokenExchangeBuilder,
};
use scaikey_auth::testing::Provider;
use scaikey_auth::{ExchangeRequest, TokenCache, TokenExchangeClient};

use super::answers::builder_from_env;
use super::{builder, provider};
use crate::support::Log;

/// The behaviour of a faulty shared cache.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behaviour {
    Fails,
    Hangs,
    /// Grants locks, and never answers `unlock`.
    HangsAtUnlock,
    /// Never answers the first `get`.
    HangsAtFirstLookup,
}

#[derive(Debug)]
struct FaultyCache {
    behaviour: Behaviour,
    lookups: Arc<AtomicUsize>,
}

impl FaultyCache {
    async fn answer<T>(&self, value: T) -> Result<T, BoxError> {
        match self.behaviour {
            Behaviour::Fails => Err("unavailable".into()),
            Behaviour::Hangs => pending().await,
            Behaviour::HangsAtUnlock | Behaviour::HangsAtFirstLookup => Ok(value),
        }
    }
}

#[async_trait]
impl TokenCache for FaultyCache {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, _: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let earlier = self.lookups.fetch_add(1, Ordering::Relaxed);
        if self.behaviour == Behaviour::HangsAtFirstLookup && earlier == 0 {
            pending::<()>().await;
        }
        self.answer(None).await
    }

    async fn put(
        &self,
        _: &CacheKey<'_>,
        _: &AccessToken,
        _: Duration,
        _: Option<&Fence>,
    ) -> Result<(), BoxError> {
        self.answer(()).await
    }

    async fn remove(&self, _: &CacheKey<'_>) -> Result<(), BoxError> {
        self.answer(()).await
    }

    async fn lock(&self, _: &CacheKey<'_>, _: &Fence, _: Duration) -> Result<bool, BoxError> {
        self.answer(true).await
    }

    async fn unlock(&self, _: &CacheKey<'_>, _: &Fence) -> Result<(), BoxError> {
        match self.behaviour {
            Behaviour::HangsAtUnlock => pending().await,
            _ => self.answer(()).await,
        }
    }
}

fn with(builder: TokenExchangeBuilder, behaviour: Behaviour) -> TokenExchangeBuilder {
    with_counted(builder, behaviour, Arc::default())
}

fn with_counted(
    builder: TokenExchangeBuilder,
    behaviour: Behaviour,
    lookups: Arc<AtomicUsize>,
) -> TokenExchangeBuilder {
    let keys = SealingKeys::parse(&"QUFB".repeat(12).into()).unwrap();
    builder
        .cache(Arc::new(FaultyCache { behaviour, lookups }))
        .cache_keys(keys)
        .enable_password_grant()
}

async fn signed_in(client: &TokenExchangeClient) -> RefreshRequest {
    let session = client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap();
    RefreshRequest::new(session.refresh_token().unwrap().clone())
}

fn grants_and_reuses(provider: &Provider) -> (u64, u64) {
    (provider.granted("refresh_token"), provider.refresh_reuses())
}

#[tokio::test]
async fn process_without_lock_uses_refresh_token_once() {
    let (log, provider) = (Log::start(), provider().await);
    let by_variable = builder_from_env(&provider, &[("INSECURE_SPEND_WITHOUT_LOCK", "true")]);
    for (builder, count) in
        [(builder(&provider).insecure_spend_without_lock(), 1), (by_variable, 2)]
    {
        let client = with(builder, Behaviour::Fails).build().unwrap();
        let request = signed_in(&client).await;
        let first = client.refresh(&request).await.unwrap();
        let second = client.refresh(&request).await.unwrap();
        assert_eq!(first.secret(), second.secret());
        assert_eq!(grants_and_reuses(&provider), (count, 0));
    }
    assert!(log.text().contains("insecure_spend_without_lock"), "{}", log.text());
}

#[tokio::test]
async fn full_cache_does_not_lose_refreshed_tokens() {
    let provider = provider().await;
    // The cache holds about forty tokens, and all of them are used.
    let client = builder(&provider).cache(MemoryCache::new(60_000)).enable_password_grant();
    let client = client.build().unwrap();
    let exchange = async |subject: &str| {
        client.exchange(&ExchangeRequest::new(subject, "scaivault")).await.unwrap();
    };
    let hot: Vec<_> = (0..40).map(|nth| subject(&provider, nth)).collect();
    for _ in 0..4 {
        for subject in &hot {
            exchange(subject).await;
        }
    }
    let request = signed_in(&client).await;
    let first = client.refresh(&request).await.unwrap();
    // The successor is stored beside the cache.
    for nth in 100..1500 {
        exchange(&subject(&provider, nth)).await;
    }
    let second = client.refresh(&request).await.unwrap();
    assert_eq!(first.secret(), second.secret());
    assert_eq!(grants_and_reuses(&provider), (1, 0));
}

fn subject(provider: &Provider, nth: usize) -> String {
    provider.token().subject(&format!("user-{nth}")).sign()
}

#[tokio::test]
async fn hanging_cache_delays_refresh_by_one_timeout() {
    let limit = Duration::from_secs(2);
    let builder = TokenExchangeClient::builder("https://scaikey.example");
    let client = with(builder.client_auth(super::drive()), Behaviour::Hangs).cache_timeout(limit);
    let client = client.build().unwrap();
    for _ in 0..2 {
        // Both timers belong to one runtime, so on a busy machine they are late together.
        let request = RefreshRequest::new("secret");
        let error = tokio::select! {
            biased;
            outcome = client.refresh(&request) => outcome.unwrap_err().to_string(),
            () = tokio::time::sleep(limit * 3 / 2) => panic!("the call took longer than the timeout"),
        };
        assert!(error.contains("cache did not answer"), "{error}");
        assert!(!error.contains("provider"), "{error}");
    }
}

#[tokio::test]
async fn hanging_unlock_does_not_delay_callers() {
    let provider = provider().await;
    let client = with(builder(&provider), Behaviour::HangsAtUnlock);
    let client = client.cache_timeout(Duration::from_secs(24 * 3600)).build().unwrap();
    let request = signed_in(&client).await;
    client.refresh(&request).await.unwrap();
    assert_eq!(grants_and_reuses(&provider), (1, 0));
}

#[tokio::test]
async fn hanging_lookup_delays_only_one_call() {
    let (provider, lookups) = (provider().await, Arc::<AtomicUsize>::default());
    let client = with_counted(builder(&provider), Behaviour::HangsAtFirstLookup, lookups.clone());
    let client = client.cache_timeout(Duration::from_secs(2)).build().unwrap();
    let request = ExchangeRequest::new(subject(&provider, 0), "scaivault");
    client.exchange(&request).await.unwrap();
    let before = lookups.load(Ordering::Relaxed);
    client.exchange(&request).await.unwrap();
    // One lookup before the lock, and one with it.
    assert_eq!(lookups.load(Ordering::Relaxed) - before, 2);
}
