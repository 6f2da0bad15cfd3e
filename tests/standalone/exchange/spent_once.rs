//! Refresh tokens are spent once also where no cache helps, and nobody waits for one for long.

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

use super::{builder, provider};
use crate::support::Log;

/// What a shared cache does when it is asked something.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Fails,
    Hangs,
    /// It grants locks, and never answers when they are given back.
    HangsAtUnlock,
    /// It never answers the first look.
    HangsAtFirstLook,
}

#[derive(Debug)]
struct Bad {
    does: Does,
    looks: Arc<AtomicUsize>,
}

impl Bad {
    async fn answer<T>(&self, well: T) -> Result<T, BoxError> {
        match self.does {
            Does::Fails => Err("away".into()),
            Does::Hangs => pending().await,
            Does::HangsAtUnlock | Does::HangsAtFirstLook => Ok(well),
        }
    }
}

#[async_trait]
impl TokenCache for Bad {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, _: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let earlier = self.looks.fetch_add(1, Ordering::Relaxed);
        if self.does == Does::HangsAtFirstLook && earlier == 0 {
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
        match self.does {
            Does::HangsAtUnlock => pending().await,
            _ => self.answer(()).await,
        }
    }
}

fn with(builder: TokenExchangeBuilder, does: Does) -> TokenExchangeBuilder {
    with_counted(builder, does, Arc::default())
}

fn with_counted(
    builder: TokenExchangeBuilder,
    does: Does,
    looks: Arc<AtomicUsize>,
) -> TokenExchangeBuilder {
    let keys = SealingKeys::parse(&"QUFB".repeat(12).into()).unwrap();
    builder.cache(Arc::new(Bad { does, looks })).cache_keys(keys).enable_password_grant()
}

async fn signed_in(client: &TokenExchangeClient) -> RefreshRequest {
    let session = client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap();
    RefreshRequest::new(session.refresh_token().unwrap().clone())
}

fn spent(provider: &Provider) -> (u64, u64) {
    (provider.granted("refresh_token"), provider.refresh_reuses())
}

#[tokio::test]
async fn process_without_lock_spends_once() {
    let (log, provider) = (Log::start(), provider().await);
    let client = with(builder(&provider), Does::Fails).insecure_spend_without_lock();
    let client = client.build().unwrap();
    let request = signed_in(&client).await;
    let first = client.refresh(&request).await.unwrap();
    let second = client.refresh(&request).await.unwrap();
    assert_eq!(first.secret(), second.secret());
    assert_eq!(spent(&provider), (1, 0));
    assert!(log.text().contains("insecure_spend_without_lock"), "{}", log.text());
}

#[tokio::test]
async fn full_memory_keeps_successors() {
    let provider = provider().await;
    // It takes some forty tokens, and all that is in it is asked for all the time.
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
    // The latest thousand are kept beside it.
    for nth in 100..1500 {
        exchange(&subject(&provider, nth)).await;
    }
    let second = client.refresh(&request).await.unwrap();
    assert_eq!(first.secret(), second.secret());
    assert_eq!(spent(&provider), (1, 0));
}

fn subject(provider: &Provider, nth: usize) -> String {
    provider.token().subject(&format!("user-{nth}")).sign()
}

#[tokio::test]
async fn silent_cache_costs_its_timeout_once() {
    let limit = Duration::from_secs(2);
    let builder = TokenExchangeClient::builder("https://scaikey.example");
    let client = with(builder.client_auth(super::drive()), Does::Hangs).cache_timeout(limit);
    let client = client.build().unwrap();
    for _ in 0..2 {
        // Both timers are of one runtime: on a busy machine they are late together.
        let request = RefreshRequest::new("secret");
        let error = tokio::select! {
            biased;
            outcome = client.refresh(&request) => outcome.unwrap_err().to_string(),
            () = tokio::time::sleep(limit * 3 / 2) => panic!("it took longer than was said"),
        };
        assert!(error.contains("cache did not answer"), "{error}");
        assert!(!error.contains("provider"), "{error}");
    }
}

#[tokio::test]
async fn hanging_unlock_keeps_nobody_waiting() {
    let provider = provider().await;
    let client = with(builder(&provider), Does::HangsAtUnlock);
    let client = client.cache_timeout(Duration::from_secs(24 * 3600)).build().unwrap();
    let request = signed_in(&client).await;
    client.refresh(&request).await.unwrap();
    assert_eq!(spent(&provider), (1, 0));
}

#[tokio::test]
async fn look_without_answer_holds_up_nobody_else() {
    let (provider, looks) = (provider().await, Arc::<AtomicUsize>::default());
    let client = with_counted(builder(&provider), Does::HangsAtFirstLook, looks.clone());
    let client = client.cache_timeout(Duration::from_secs(2)).build().unwrap();
    let request = ExchangeRequest::new(subject(&provider, 0), "scaivault");
    client.exchange(&request).await.unwrap();
    let before = looks.load(Ordering::Relaxed);
    client.exchange(&request).await.unwrap();
    // It looks itself, and once more when it has the lock.
    assert_eq!(looks.load(Ordering::Relaxed) - before, 2);
}
