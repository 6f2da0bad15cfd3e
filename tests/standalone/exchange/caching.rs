//! The cache of exchanged tokens: keys, lifetimes, and requests that callers share.

use std::collections::HashSet;
use std::future::{Future as _, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{
    AccessToken, CacheKey, CacheStatus, ExchangeError, Fence, MemoryCache, OAuthError, SealingKeys,
    ServiceTokenRequest, TokenType,
};
use scaikey_auth::identity::ClaimsMapping;
use scaikey_auth::testing::{Client, Fault, ManualClock, Provider, ProviderEndpoint};
use scaikey_auth::{ExchangeRequest, TenantId, TokenCache, TokenExchangeClient};
use tokio::task::JoinSet;

use crate::support::until;

use super::answers::builder_from_env;
use super::{SECRET, builder, provider, timed};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn token_is_cached_until_thirty_seconds_left() {
    let (provider, client, clock) = timed().await;
    let request =
        ExchangeRequest::new(provider.token().expires_in(secs(90_000)).sign(), "scaivault");
    let first = client.exchange(&request).await.unwrap();
    assert_eq!(first.cache_status(), CacheStatus::Miss);
    clock.advance(secs(2700));
    let second = client.exchange(&request).await.unwrap();
    assert_eq!(second.cache_status(), CacheStatus::Hit);
    assert_eq!((second.secret(), provider.token_requests()), (first.secret(), 1));
    // The token is due now. While the provider hangs, it is returned until it expires.
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    clock.advance(secs(869));
    assert_eq!(client.exchange(&request).await.unwrap().secret(), first.secret());
    provider.heal(ProviderEndpoint::Token);
    clock.advance(secs(1));
    assert_ne!(client.exchange(&request).await.unwrap().secret(), first.secret());
}

#[tokio::test]
async fn different_exchanges_never_share_tokens() {
    let provider = provider().await;
    let drive =
        Client::new("drive:1 %", SECRET).may_exchange("scaivault", "vault:read vault:write");
    provider.register_client(drive.may_exchange("scaigrid", "vault:read"));
    let strict = client_without_type(&provider);
    let (alice, bob) = (provider.token().sign(), provider.token().subject("bob-id").sign());
    let another_session = provider.token().sign();
    let actor = provider.service_token("robot").sign();
    let other_actor = provider.service_token("crawler").sign();
    let request = |subject: &str| ExchangeRequest::new(subject, "scaivault");
    let scoped = |scopes: &str| request(&alice).scopes(scopes.parse().unwrap());
    let mut both = request(&alice);
    both.audiences.push("scaigrid".to_owned());
    let mut typed = request(&alice);
    typed.subject_type = TokenType::Jwt;
    let requests = [
        request(&alice),
        request(&bob),
        request(&another_session),
        ExchangeRequest::new(alice.as_str(), "scaigrid"),
        both,
        typed,
        scoped("vault:read"),
        scoped("vault:write"),
        scoped("vault:read vault:write"),
        request(&alice).actor(actor.as_str(), TokenType::Jwt),
        request(&alice).actor(actor.as_str(), TokenType::AccessToken),
        request(&alice).actor(other_actor.as_str(), TokenType::Jwt),
    ];
    let mut tokens = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let token = strict.exchange(request).await.unwrap_or_else(|e| panic!("{index}: {e}"));
        assert_eq!(token.cache_status(), CacheStatus::Miss, "{index}");
        tokens.push(token);
    }
    for (request, token) in requests.iter().zip(&tokens) {
        let again = strict.exchange(request).await.unwrap();
        assert_eq!((again.cache_status(), again.secret()), (CacheStatus::Hit, token.secret()));
    }
    // The tenant of the subject token need not be named.
    let named = request(&alice).in_tenant(TenantId::new("tenant-1").unwrap());
    assert_eq!(strict.exchange(&named).await.unwrap().secret(), tokens[0].secret());
    // The order of scopes does not matter.
    let reordered = strict.exchange(&scoped("vault:write vault:read")).await.unwrap();
    assert_eq!(reordered.cache_status(), CacheStatus::Hit);
}

fn client_without_type(provider: &Provider) -> TokenExchangeClient {
    builder(provider).requested_token_type(None).build().unwrap()
}

/// A token that a client accepted under weaker rules is not in the cache of a stricter one.
#[tokio::test]
async fn other_rules_never_share_tokens() {
    let provider = provider().await;
    let new = || builder(&provider).requested_token_type(None);
    let mapped = |mapping| new().claims(mapping);
    let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
    let all = [
        new(),
        new().accept_extra_scopes("profile"),
        new().accept_extra_scopes("profile email"),
        new().accept_non_bearer_tokens(),
        new().accept_untyped_tokens(),
        new().insecure_any_audience(),
        new().insecure_any_subject(),
        new().insecure_any_service_tenant(),
        new().insecure_unreadable_claims(),
        new().insecure_outlive_subject(),
        new().audience_claims(["aud", "azp"]),
        mapped(ClaimsMapping::default().subject(["sub", "oid"])),
        mapped(ClaimsMapping::default().tenant_id(["tenant_id", "tid"])),
        mapped(ClaimsMapping::default().scopes(["scope"])),
    ];
    let cache = MemoryCache::default();
    for (nth, builder) in all.into_iter().enumerate() {
        let client = builder.cache(cache.clone()).build().unwrap();
        for expected in [CacheStatus::Miss, CacheStatus::Hit] {
            let token = client.exchange(&request).await.unwrap();
            assert_eq!(token.cache_status(), expected, "{nth}");
        }
    }
}

#[tokio::test]
async fn tenants_never_share_tokens() {
    let provider = provider().await;
    let drive = || Client::new("drive:1 %", SECRET);
    let tenants = ["acme", "umbrella"].map(|id| {
        provider.tenant(id, id).register_client(drive());
        TenantId::new(id).unwrap()
    });
    let template = format!("{}/api/v1/auth/tenants/{{tenant_id}}/oauth/token", provider.url());
    let client = builder(&provider).token_url(template).build().unwrap();
    for (round, status) in [CacheStatus::Miss, CacheStatus::Hit].into_iter().enumerate() {
        for tenant in &tenants {
            let token = client.service_token(tenant).await.unwrap();
            let claims: serde_json::Value =
                scaikey_auth::validator::insecure_decode_claims(token.secret().expose()).unwrap();
            assert_eq!(claims["tenant_id"], tenant.as_str(), "{round}");
            assert_eq!(token.cache_status(), status);
        }
    }
}

/// Calls `exchange` concurrently and returns all results.
async fn exchange_concurrently(
    client: &TokenExchangeClient,
    request: &ExchangeRequest,
    count: usize,
) -> Vec<Result<AccessToken, ExchangeError>> {
    let mut callers = JoinSet::new();
    for _ in 0..count {
        let (client, request) = (client.clone(), request.clone());
        callers.spawn(async move { client.exchange(&request).await });
    }
    callers.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_share_one_request() {
    let (provider, client, clock) = timed().await;
    let subject = provider.token().expires_in(secs(90_000)).sign();
    let request = ExchangeRequest::new(subject, "scaivault");
    let old = client.exchange(&request).await.unwrap();
    clock.advance(secs(3600));
    provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(50)));
    let got = exchange_concurrently(&client, &request, 1000).await;
    let first = got[0].as_ref().unwrap();
    assert!(got.iter().all(|token| token.as_ref().unwrap().secret() == first.secret()));
    assert_ne!(first.secret(), old.secret());
    let misses = got.iter().flatten().filter(|it| it.cache_status() == CacheStatus::Miss).count();
    assert_eq!((misses, provider.token_requests()), (1, 2));
}

#[tokio::test]
async fn cancelled_caller_does_not_cancel_other_callers() {
    let provider = provider().await;
    let client = super::client(&provider);
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
    let task = |client: &TokenExchangeClient| {
        let (client, request) = (client.clone(), request.clone());
        tokio::spawn(async move { client.exchange(&request).await })
    };
    let leader = task(&client);
    until(|| provider.token_requests() == 1).await;
    let follower = task(&client);
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    provider.heal(ProviderEndpoint::Token);
    follower.await.unwrap().unwrap();
    assert_eq!(provider.token_requests(), 1);
}

#[tokio::test]
async fn concurrent_callers_share_one_failure() {
    let (provider, client, clock) = timed().await;
    let request = ExchangeRequest::new(provider.token().sign(), "elsewhere");
    for error in exchange_concurrently(&client, &request, 100).await {
        assert_eq!(error.unwrap_err().oauth_error(), Some(&OAuthError::InvalidTarget));
    }
    clock.advance(secs(9));
    client.exchange(&request).await.unwrap_err();
    assert_eq!(provider.token_requests(), 1);
    clock.advance(secs(1));
    client.exchange(&request).await.unwrap_err();
    assert_eq!(provider.token_requests(), 2);
}

#[tokio::test]
async fn uncacheable_token_is_shared_by_concurrent_callers() {
    let provider = provider().await;
    provider.set_token_lifetime(Some(secs(30)));
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    let client = super::client(&provider);
    let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
    let mut callers: Vec<_> = (0..50).map(|_| Box::pin(client.exchange(&request))).collect();
    for caller in &mut callers {
        let polled = poll_fn(|context| Poll::Ready(caller.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "every caller waits for the answer");
    }
    provider.heal(ProviderEndpoint::Token);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(provider.token_requests(), 1);
    client.exchange(&request).await.unwrap();
    assert_eq!(provider.token_requests(), 2);
}

#[tokio::test]
async fn outliving_the_subject_token_needs_opt_in() {
    let (provider, client, clock) = timed().await;
    let outliving = [
        builder(&provider).insecure_outlive_subject(),
        builder_from_env(&provider, &[("INSECURE_OUTLIVE_SUBJECT", "true")]),
    ];
    let outliving = outliving.map(|it| it.clock(clock.clone()).build().unwrap());
    let request = ExchangeRequest::new(provider.token().expires_in(secs(100)).sign(), "scaivault");
    let token = client.exchange(&request).await.unwrap();
    assert!(token.cacheable_for().unwrap() <= secs(100), "{:?}", token.cacheable_for());
    for client in &outliving {
        client.exchange(&request).await.unwrap();
    }
    clock.advance(secs(101));
    let refused = client.exchange(&request).await.unwrap_err();
    assert_eq!(refused.oauth_error(), Some(&OAuthError::InvalidRequest));
    for client in &outliving {
        client.exchange(&request).await.unwrap();
    }
}

#[tokio::test]
async fn due_token_is_renewed_in_background() {
    let (provider, client, clock) = timed().await;
    let service = || client.service_token(ServiceTokenRequest::default());
    let first = service().await.unwrap();
    clock.advance(secs(3600 * 74 / 100));
    service().await.unwrap();
    assert_eq!(provider.token_requests(), 1, "not due yet");
    clock.advance(secs(3600 * 11 / 100));
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    for _ in 0..10 {
        let token = service().await.unwrap();
        assert_eq!((token.secret(), token.cache_status()), (first.secret(), CacheStatus::Hit));
    }
    until(|| provider.token_requests() == 2).await;
    provider.heal(ProviderEndpoint::Token);
    let mut renewed = service().await.unwrap();
    for _ in 0..1000 {
        if renewed.secret() != first.secret() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        renewed = service().await.unwrap();
    }
    assert_ne!(renewed.secret(), first.secret());
    assert_eq!((renewed.cache_status(), provider.token_requests()), (CacheStatus::Hit, 2));
}

#[tokio::test]
async fn ten_minute_outage_keeps_cached_tokens_usable() {
    let (provider, client, clock) = timed().await;
    let service = || client.service_token(ServiceTokenRequest::default());
    service().await.unwrap();
    clock.advance(secs(48 * 60));
    provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    for _ in 0..60 {
        clock.advance(secs(10));
        service().await.unwrap();
        tokio::task::yield_now().await;
    }
    let requests = provider.token_requests();
    assert!((2..=60).contains(&requests), "{requests} requests in ten minutes");
    provider.heal(ProviderEndpoint::Token);
    clock.advance(secs(61));
    service().await.unwrap();
    until(|| provider.granted("client_credentials") == 2).await;
}

#[tokio::test]
async fn rejected_token_is_replaced_once() {
    let (provider, client, clock) = timed().await;
    let subject = provider.token().expires_in(secs(90_000)).sign();
    let request = ExchangeRequest::new(subject, "scaivault");
    let refused = client.exchange(&request).await.unwrap();
    let young = client.exchange_replacing(&refused, &request).await.unwrap();
    assert_eq!((young.secret(), provider.token_requests()), (refused.secret(), 1));
    clock.advance(secs(10));
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let (client, request, refused) = (client.clone(), request.clone(), refused.clone());
        callers.spawn(async move { client.exchange_replacing(&refused, &request).await });
    }
    let got = callers.join_all().await;
    assert!(got.iter().all(|token| token.as_ref().unwrap().secret() != refused.secret()));
    assert_eq!(provider.token_requests(), 2);
    let now = client.exchange(&request).await.unwrap();
    assert_eq!(now.secret(), got[0].as_ref().unwrap().secret());
}

#[tokio::test]
async fn default_lifetime_applies_to_opaque_tokens() {
    let clock = ManualClock::new();
    let provider = provider().await;
    let body = r#"{"access_token":"opaque","token_type":"Bearer"}"#.to_owned();
    provider.fail(ProviderEndpoint::Token, Fault::Body("application/json", body));
    let by_variable = builder_from_env(&provider, &[("DEFAULT_LIFETIME_SECONDS", "3600")]);
    for (builder, requests) in [
        (builder(&provider), 2),
        (builder(&provider).default_lifetime(secs(3600)), 3),
        (by_variable, 4),
    ] {
        let client = builder.clock(clock.clone()).build().unwrap();
        for _ in 0..2 {
            client.service_token(ServiceTokenRequest::default()).await.unwrap();
        }
        assert_eq!(provider.token_requests(), requests);
    }
}

#[tokio::test]
async fn cleared_cache_is_empty() {
    let provider = provider().await;
    let cache = MemoryCache::default();
    let client = builder(&provider).cache(cache.clone()).build().unwrap();
    let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
    for expected in [1, 1, 2] {
        if expected == 2 {
            cache.clear();
        }
        client.exchange(&request).await.unwrap();
        assert_eq!(provider.token_requests(), expected);
    }
}

/// A shared cache without entries that grants one lock and then fails.
#[derive(Debug, Default)]
struct OneLock {
    held: Mutex<HashSet<String>>,
    lock_calls: AtomicUsize,
}

#[async_trait]
impl TokenCache for OneLock {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, _: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        Ok(None)
    }

    async fn put(
        &self,
        _: &CacheKey<'_>,
        _: &AccessToken,
        _: Duration,
        _: Option<&Fence>,
    ) -> Result<(), BoxError> {
        Ok(())
    }

    async fn remove(&self, _: &CacheKey<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    async fn lock(&self, key: &CacheKey<'_>, _: &Fence, _: Duration) -> Result<bool, BoxError> {
        if self.lock_calls.fetch_add(1, Ordering::SeqCst) > 0 {
            return Err("unavailable".into());
        }
        self.held.lock().unwrap().insert(key.digest().to_owned());
        Ok(true)
    }

    async fn unlock(&self, key: &CacheKey<'_>, _: &Fence) -> Result<(), BoxError> {
        self.held.lock().unwrap().remove(key.digest());
        Ok(())
    }
}

#[tokio::test]
async fn first_lock_is_released_if_second_fails() {
    let provider = provider().await;
    let cache = Arc::new(OneLock::default());
    // Two sealing keys mean two locks for each token.
    let keys = format!("{},{}", "QUFB".repeat(12), "QkJC".repeat(12));
    let client = builder(&provider).cache(cache.clone());
    let client = client.cache_keys(SealingKeys::parse(&keys.into()).unwrap()).build().unwrap();
    let request = ExchangeRequest::new(provider.token().sign(), "scaivault");
    client.exchange(&request).await.unwrap();
    assert_eq!(cache.lock_calls.load(Ordering::SeqCst), 2);
    assert!(cache.held.lock().unwrap().is_empty());
}
