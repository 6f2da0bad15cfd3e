//! Refresh tokens and codes are spent once, even while Redis is slow or unavailable.

use std::time::Duration;

use scaikey_auth::exchange::{
    AccessToken, CodeRequest, ExchangeError, MemoryCache, OAuthError, PasswordRequest,
    PkceVerifier, RedisCache, RefreshRequest, TieredCache,
};
use scaikey_auth::testing::{Fault, ManualClock, Provider, ProviderEndpoint};
use scaikey_auth::{Secret, TokenExchangeClient};
use tokio::task::JoinHandle;

use super::fixture::{OLD, builder, client, fresh, keys, provider};
use super::proxy::Proxy;
use super::server::Redis;
use crate::support::Log;
use crate::support::eventually;

type Call = JoinHandle<Result<AccessToken, ExchangeError>>;

/// Returns a cache with the default time limits.
fn default_cache(url: &Secret) -> TieredCache<MemoryCache, RedisCache> {
    TieredCache::new(MemoryCache::default(), RedisCache::open(url).unwrap())
}

async fn signed_in(provider: &Provider, url: &Secret) -> String {
    let client = client(provider, default_cache(url));
    let session = client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap();
    session.refresh_token().unwrap().expose().to_owned()
}

/// Returns a client that is connected to Redis.
async fn connected(provider: &Provider, url: &Secret) -> TokenExchangeClient {
    let client = client(provider, default_cache(url));
    connected_with(&client, provider, url).await;
    client
}

async fn connected_with(client: &TokenExchangeClient, provider: &Provider, url: &Secret) {
    let other = super::fixture::client(provider, super::fixture::redis(url));
    eventually(async || {
        let request = fresh(provider);
        let got = client.exchange(&request).await.unwrap();
        other.exchange(&request).await.unwrap().secret() == got.secret()
    })
    .await;
}

fn refresh(client: &TokenExchangeClient, token: &str) -> Call {
    let (client, request) = (client.clone(), RefreshRequest::new(token));
    tokio::spawn(async move { client.refresh(&request).await })
}

/// Asserts that all calls return the same token, with one grant.
async fn assert_spent_once(provider: &Provider, calls: Vec<Call>) {
    let mut got = Vec::new();
    for call in calls {
        got.push(call.await.unwrap().unwrap());
    }
    assert!(got.iter().all(|token| token.secret() == got[0].secret()));
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}

/// Starts a refresh that the provider has received and answers slowly.
async fn start_slow_refresh(
    provider: &Provider,
    client: &TokenExchangeClient,
    token: &str,
) -> Call {
    provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(600)));
    let before = provider.token_requests();
    let call = refresh(client, token);
    provider.wait_for_requests(ProviderEndpoint::Token, before + 1).await;
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_server_does_not_cause_second_refresh() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server.url()).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connected(&provider, &server.url()).await);
    }
    let mut calls = vec![start_slow_refresh(&provider, &clients[0], &token).await];
    calls.extend(clients[1..].iter().map(|client| refresh(client, &token)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.pause();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.resume();
    assert_spent_once(&provider, calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_lock_answer_causes_no_second_grant() {
    let (server, provider) = (Redis::start(), provider().await);
    let proxy = Proxy::before(&server).await;
    let token = signed_in(&provider, &server.url()).await;
    let (one, two) =
        (connected(&provider, &server.url()).await, connected(&provider, &proxy.url()).await);
    let first = start_slow_refresh(&provider, &one, &token).await;
    proxy.catch("EVALSHA", 1);
    let second = refresh(&two, &token);
    proxy.caught(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.release();
    assert_spent_once(&provider, vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_lookup_causes_no_second_grant() {
    let (server, provider) = (Redis::start(), provider().await);
    let proxy = Proxy::before(&server).await;
    let token = signed_in(&provider, &server.url()).await;
    let (one, two) =
        (connected(&provider, &server.url()).await, connected(&provider, &proxy.url()).await);
    let first = refresh(&one, &token).await.unwrap();
    // Both lookups: before and after taking the lock.
    proxy.catch("GETRANGE", 2);
    let second = refresh(&two, &token);
    proxy.caught(1).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    proxy.release();
    let calls = vec![tokio::spawn(async { first }), second];
    assert_spent_once(&provider, calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connection_loses_no_refreshed_token() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server.url()).await;
    let (one, two) =
        (connected(&provider, &server.url()).await, connected(&provider, &server.url()).await);
    let first = start_slow_refresh(&provider, &one, &token).await;
    let _: () = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let first = first.await.unwrap();
    // A later call finds the new token, even without the lock.
    let is_lock = |(name, _): &(String, Vec<u8>)| name.ends_with(":lock");
    let calls = vec![tokio::spawn(async { first }), refresh(&two, &token)];
    assert_spent_once(&provider, calls).await;
    eventually(async || !server.stored().iter().any(is_lock)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_lost_in_failover_loses_no_successor() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server.url()).await;
    let (one, two) =
        (connected(&provider, &server.url()).await, connected(&provider, &server.url()).await);
    let first = start_slow_refresh(&provider, &one, &token).await;
    let _: () = server.ask(&["FLUSHALL"]);
    let first = first.await.unwrap();
    let calls = vec![tokio::spawn(async { first }), refresh(&two, &token)];
    assert_spent_once(&provider, calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_without_connection_use_a_token_once() {
    let (server, provider) = (Redis::start(), provider().await);
    let proxy = Proxy::before(&server).await;
    let token = signed_in(&provider, &server.url()).await;
    proxy.delay(Duration::from_millis(15));
    let clients = [(); 3].map(|()| client(&provider, default_cache(&proxy.url())));
    let first = start_slow_refresh(&provider, &clients[0], &token).await;
    let mut calls = vec![first];
    calls.extend(clients[1..].iter().map(|client| refresh(client, &token)));
    assert_spent_once(&provider, calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unavailable_cache_prevents_use_of_refresh_token() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server.url()).await;
    let build = |server: &Redis| {
        let builder = builder(&provider.issuer()).cache(default_cache(&server.url()));
        builder.cache_timeout(Duration::from_secs(1))
    };
    let strict = build(&server).build().unwrap();
    server.pause();
    for _ in 0..2 {
        let error = strict.refresh(&RefreshRequest::new(token.as_str())).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
        assert!(error.retry_after().is_some() && error.to_string().contains("cache"), "{error}");
    }
    assert_eq!(provider.granted("refresh_token"), 0);
    server.resume();
    let first = strict.refresh(&RefreshRequest::new(token.as_str())).await.unwrap();
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));

    // A service with one process may spend without the lock.
    let next = first.refresh_token().unwrap().clone();
    server.pause();
    let lenient = build(&server).insecure_spend_without_lock().build().unwrap();
    lenient.refresh(&RefreshRequest::new(next)).await.unwrap();
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (2, 0));
    server.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_without_answer_is_released() {
    let (server, provider) = (Redis::start(), provider().await);
    let proxy = Proxy::before(&server).await;
    let token = signed_in(&provider, &server.url()).await;
    let builder = builder(&provider.issuer()).cache(default_cache(&proxy.url()));
    // The lock would live for half an hour, because it outlives the longest request.
    let builder = builder.timeout(Duration::from_secs(600));
    let slow = builder.cache_timeout(Duration::from_millis(300)).build().unwrap();
    connected_with(&slow, &provider, &server.url()).await;
    // The lock is taken, but the caller never gets the answer.
    proxy.catch("EVALSHA", usize::MAX);
    let error = refresh(&slow, &token).await.unwrap().unwrap_err();
    assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
    proxy.release();
    eventually(async || server.stored().iter().all(|(name, _)| !name.ends_with(":lock"))).await;
    let call = refresh(&client(&provider, default_cache(&server.url())), &token);
    assert_spent_once(&provider, vec![call]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_write_is_retried() {
    let (server, provider) = (Redis::start(), provider().await);
    let proxy = Proxy::before(&server).await;
    let token = signed_in(&provider, &server.url()).await;
    let (one, two) =
        (connected(&provider, &proxy.url()).await, connected(&provider, &server.url()).await);
    let first = start_slow_refresh(&provider, &one, &token).await;
    // The server rejects the write, for longer than one call.
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let first = first.await.unwrap();
    let second = refresh(&two, &token);
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    let calls = vec![tokio::spawn(async { first }), second];
    assert_spent_once(&provider, calls).await;
}

const HERE: &str = "https://app.example/cb";

fn redeem(client: &TokenExchangeClient, request: &CodeRequest) -> Call {
    let (client, request) = (client.clone(), request.clone());
    tokio::spawn(async move { client.authorization_code(&request).await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_is_redeemed_once_in_all_processes() {
    let (server, provider) = (Redis::start(), provider().await);
    let clients = [(); 2].map(|()| client(&provider, default_cache(&server.url())));
    let code = || {
        let verifier = PkceVerifier::generate().unwrap();
        let challenge = verifier.challenge();
        let code = provider.authorize_with("bob", "drive", HERE, &challenge, "openid", Some("n"));
        CodeRequest::new(code, HERE, verifier)
    };
    provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(200)));
    let request = code().allow_repeats();
    let calls: Vec<_> = (0..8).map(|nth| redeem(&clients[nth % 2], &request)).collect();
    let mut got = Vec::new();
    for call in calls {
        got.push(call.await.unwrap().unwrap());
    }
    assert!(got.iter().all(|token| token.secret() == got[0].secret()));
    assert!(
        got.iter().all(|token| token.id_token() == got[0].id_token()),
        "every caller can verify it"
    );
    assert!(got[0].id_token().is_some());
    assert_eq!(provider.granted("authorization_code"), 1);

    // Without `allow_repeats`, only the first call gets tokens.
    let request = code();
    let calls: Vec<_> = (0..8).map(|nth| redeem(&clients[nth % 2], &request)).collect();
    let mut refused = 0;
    for call in calls {
        if let Err(error) = call.await.unwrap() {
            assert_eq!(error.oauth_error(), Some(&OAuthError::InvalidGrant), "{error}");
            refused += 1;
        }
    }
    assert_eq!((refused, provider.granted("authorization_code")), (7, 2));
    // The provider received no code twice, so the session is valid.
    let session = refresh(&clients[0], got[0].refresh_token().unwrap().expose());
    session.await.unwrap().unwrap();
    let stored = server.stored();
    let id_token = got[0].id_token().unwrap().expose();
    assert!(stored.iter().all(|(_, value)| !String::from_utf8_lossy(value).contains(id_token)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_during_key_rotation_spend_once() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server.url()).await;
    let with = |secrets: &str| {
        let builder = builder(&provider.issuer()).cache(default_cache(&server.url()));
        builder.cache_keys(keys(secrets)).build().unwrap()
    };
    let both = format!("{OLD},{}", super::fixture::NEW);
    let clients = [with(&both), with(OLD), with(&both)];
    let mut calls = vec![start_slow_refresh(&provider, &clients[0], &token).await];
    calls.extend(clients[1..].iter().map(|client| refresh(client, &token)));
    assert_spent_once(&provider, calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_successor_is_shared() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server.url()).await;
    let (one, two) =
        (connected(&provider, &server.url()).await, connected(&provider, &server.url()).await);
    let large = Fault::replace_member("access_token", "x".repeat(900_000));
    provider.fail(ProviderEndpoint::Token, large);
    let first = refresh(&one, &token).await.unwrap();
    let calls = vec![tokio::spawn(async { first }), refresh(&two, &token)];
    assert_spent_once(&provider, calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_skew_keeps_successors_shared() {
    // One process has a clock that is ahead.
    for is_first_ahead in [true, false] {
        let (server, provider) = (Redis::start(), provider().await);
        let token = signed_in(&provider, &server.url()).await;
        let (right, ahead) = (ManualClock::new(), ManualClock::new());
        ahead.advance(Duration::from_secs(500));
        let build = |clock: &ManualClock| {
            let cache = super::fixture::layered(&server.url());
            builder(&provider.issuer()).cache(cache).clock(clock.clone()).build().unwrap()
        };
        let (first, second) = match is_first_ahead {
            true => (build(&ahead), build(&right)),
            false => (build(&right), build(&ahead)),
        };
        let got = refresh(&first, &token).await.unwrap();
        let calls = vec![tokio::spawn(async { got }), refresh(&second, &token)];
        assert_spent_once(&provider, calls).await;
    }
}

#[tokio::test]
async fn failed_connect_warning_names_the_cause() {
    let (log, provider) = (Log::start(), provider().await);
    let clock = ManualClock::new();
    let cache = RedisCache::open(&"redis://127.0.0.1:1".into()).unwrap().clock(clock);
    let cache = cache.write_timeout(Duration::from_millis(50));
    cache.connect().await.unwrap_err();
    client(&provider, cache).exchange(&fresh(&provider)).await.unwrap();
    let text = log.text();
    assert!(text.contains("token cache failed") && text.contains("refused"), "{text}");
}
