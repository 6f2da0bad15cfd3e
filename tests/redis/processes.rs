//! Several processes that share one Redis server.

use std::time::Duration;

use scaikey_auth::exchange::{ExchangeError, PasswordRequest, RefreshRequest};
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint};
use scaikey_auth::{ExchangeRequest, TokenExchangeClient};
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::process::{Program, job, ready};

use super::fixture::{builder, client, fresh, layered, provider};
use super::server::Redis;

/// Starts a process with the same provider and Redis. It calls `operation` (`exchange` or `refresh`) with
/// this token, concurrently for `callers` callers, each with this timeout.
async fn process(
    provider: &Provider,
    server: &Redis,
    operation: &str,
    token: &str,
    callers: usize,
    timeout: Duration,
) -> Program {
    let (issuer, url, timeout) = (provider.issuer(), server.url(), timeout.as_millis());
    let job = format!("{operation} {token} {callers} {timeout} {issuer} {}", url.expose());
    Program::child("processes::child", job).await
}

/// Lets all processes start, and asserts that they get the same token.
async fn all_agree(mut processes: Vec<Program>) -> String {
    for process in &mut processes {
        process.go().await;
    }
    let mut results = Vec::new();
    for process in &mut processes {
        results.push(process.next_message().await);
    }
    assert!(results.iter().all(|it| it == &results[0] && it.starts_with("all ")), "{results:#?}");
    results.remove(0)
}

#[test]
#[ignore = "started by the tests below, as a process of its own"]
fn child() {
    let Some(job) = job() else { return };
    let job: Vec<_> = job.split(' ').collect();
    let [operation, token, callers, timeout, issuer, url] = job[..] else { panic!("{job:?}") };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let timeout = Duration::from_millis(timeout.parse().unwrap());
        let builder = builder(issuer).cache(layered(&url.into())).timeout(timeout);
        // The lifetime of a lock includes the timeout of the cache.
        let client = builder.cache_timeout(timeout.min(NORMAL_TIMEOUT / 2)).build().unwrap();
        // Connects first, because the test is not about the time to connect.
        let warm_up = ExchangeRequest::new(format!("of-{}", std::process::id()), "vault");
        client.exchange(&warm_up).await.unwrap_err();
        ready().await;
        let mut calls = JoinSet::new();
        for _ in 0..callers.parse().unwrap() {
            let (client, operation, token) =
                (client.clone(), operation.to_owned(), token.to_owned());
            calls.spawn(async move { called(&client, &operation, &token).await });
        }
        let mut got = calls.join_all().await;
        got.sort();
        got.dedup();
        println!("child: all {got:?}");
    });
}

async fn called(
    client: &TokenExchangeClient,
    operation: &str,
    token: &str,
) -> Result<String, String> {
    let got = match operation {
        "exchange" => client.exchange(&ExchangeRequest::new(token, "vault")).await,
        _ => client.refresh(&RefreshRequest::new(token)).await,
    };
    got.map(|token| token.secret().expose().to_owned()).map_err(|why| why.to_string())
}

const NORMAL_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_send_one_request() {
    let (server, provider) = (Redis::start(), provider().await);
    let request = fresh(&provider);
    provider.set_token_lifetime(Some(Duration::from_secs(31)));
    let one = client(&provider, layered(&server.url()));
    let old = one.exchange(&request).await.unwrap();
    assert_eq!(server.tokens().len(), 1);
    provider.set_token_lifetime(None);
    let subject = request.subject.expose();
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(process(&provider, &server, "exchange", subject, 250, NORMAL_TIMEOUT).await);
    }
    eventually(async || server.tokens().is_empty()).await;
    provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(100)));
    let before = provider.token_requests();
    let results = all_agree(processes).await;
    assert!(results.starts_with("all [Ok(") && !results.contains("Err"), "{results}");
    assert!(!results.contains(old.secret().expose()));
    assert_eq!(provider.token_requests() - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_spend_refresh_token_once() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server).await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(process(&provider, &server, "refresh", &token, 50, NORMAL_TIMEOUT).await);
    }
    provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(100)));
    let results = all_agree(processes).await;
    assert!(results.starts_with("all [Ok(") && !results.contains("Err"), "{results}");
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}

async fn signed_in(provider: &Provider, server: &Redis) -> String {
    let client = client(provider, layered(&server.url()));
    let session = client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap();
    session.refresh_token().unwrap().expose().to_owned()
}

/// Starts a process that takes the lock and sends a request, and kills it before the answer.
async fn kill_process_with_lock(provider: &Provider, server: &Redis, operation: &str, token: &str) {
    let mut killed = process(provider, server, operation, token, 1, SHORT_TIMEOUT).await;
    let before = provider.token_requests();
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    killed.go().await;
    provider.wait_for_requests(ProviderEndpoint::Token, before + 1).await;
    killed.kill().await;
    let is_lock = |(name, _): &(String, Vec<u8>)| name.ends_with(":lock");
    assert!(server.stored().iter().any(is_lock), "the process held the lock");
    provider.heal(ProviderEndpoint::Token);
}

/// A timeout with which a lock lives for ten seconds, and callers wait for it for two or six seconds.
const SHORT_TIMEOUT: Duration = Duration::from_secs(2);

fn short(provider: &Provider, server: &Redis) -> TokenExchangeClient {
    let builder = builder(&provider.issuer()).cache(layered(&server.url()));
    builder.timeout(SHORT_TIMEOUT).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_of_dead_process_delays_exchange_only() {
    let (server, provider) = (Redis::start(), provider().await);
    let request = fresh(&provider);
    kill_process_with_lock(&provider, &server, "exchange", request.subject.expose()).await;
    short(&provider, &server).exchange(&request).await.unwrap();
    let is_lock = |(name, _): &(String, Vec<u8>)| name.ends_with(":lock");
    assert!(server.stored().iter().any(is_lock), "the lock has not expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_of_dead_process_prevents_refresh_reuse() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server).await;
    kill_process_with_lock(&provider, &server, "refresh", &token).await;
    let (client, request) = (short(&provider, &server), RefreshRequest::new(token.as_str()));
    let error = client.refresh(&request).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
    assert_eq!(provider.granted("refresh_token"), 0, "no request was sent without the lock");
    // When the lock has expired, the next call sends the request.
    eventually(async || client.refresh(&request).await.is_ok()).await;
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}
