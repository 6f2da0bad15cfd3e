//! Several processes that share a Redis, as a service on several machines does.

use std::time::Duration;

use scaikey_auth::exchange::{ExchangeError, PasswordRequest, RefreshRequest};
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint};
use scaikey_auth::{ExchangeRequest, TokenExchangeClient};
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::process::{Program, job, ready};

use super::fixture::{builder, client, fresh, layered, provider};
use super::server::Redis;

/// A process of its own, at the same provider and Redis. `what` it does is `exchange` or `refresh`, with
/// this token and so many callers at once, each call taking `timeout` at most.
async fn process(
    provider: &Provider,
    server: &Redis,
    what: &str,
    token: &str,
    callers: usize,
    timeout: Duration,
) -> Program {
    let (issuer, url, timeout) = (provider.issuer(), server.url(), timeout.as_millis());
    let job = format!("{what} {token} {callers} {timeout} {issuer} {}", url.expose());
    Program::child("processes::child", job).await
}

/// All get the same token.
async fn all_agree(mut processes: Vec<Program>) -> String {
    for process in &mut processes {
        process.go().await;
    }
    let mut said = Vec::new();
    for process in &mut processes {
        said.push(process.next_message().await);
    }
    assert!(said.iter().all(|it| it == &said[0] && it.starts_with("all ")), "{said:#?}");
    said.remove(0)
}

#[test]
#[ignore = "started by the tests below, as a process of its own"]
fn child() {
    let Some(job) = job() else { return };
    let job: Vec<_> = job.split(' ').collect();
    let [what, token, callers, timeout, issuer, url] = job[..] else { panic!("{job:?}") };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let timeout = Duration::from_millis(timeout.parse().unwrap());
        let builder = builder(issuer).cache(layered(&url.into())).timeout(timeout);
        // A lock lives as long as calls to the cache may take, too.
        let client = builder.cache_timeout(timeout.min(USUAL / 2)).build().unwrap();
        // A process that serves has its connections: what is examined is not how long they take.
        let nobodys = ExchangeRequest::new(format!("of-{}", std::process::id()), "vault");
        client.exchange(&nobodys).await.unwrap_err();
        ready().await;
        let mut calls = JoinSet::new();
        for _ in 0..callers.parse().unwrap() {
            let (client, what, token) = (client.clone(), what.to_owned(), token.to_owned());
            calls.spawn(async move { called(&client, &what, &token).await });
        }
        let mut got = calls.join_all().await;
        got.sort();
        got.dedup();
        println!("child: all {got:?}");
    });
}

async fn called(client: &TokenExchangeClient, what: &str, token: &str) -> Result<String, String> {
    let got = match what {
        "exchange" => client.exchange(&ExchangeRequest::new(token, "vault")).await,
        _ => client.refresh(&RefreshRequest::new(token)).await,
    };
    got.map(|token| token.secret().expose().to_owned()).map_err(|why| why.to_string())
}

const USUAL: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_in_four_processes_make_one_request_for_an_expired_token() {
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
        processes.push(process(&provider, &server, "exchange", subject, 250, USUAL).await);
    }
    eventually(async || server.tokens().is_empty()).await;
    provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(100)));
    let before = provider.token_requests();
    let said = all_agree(processes).await;
    assert!(said.starts_with("all [Ok(") && !said.contains("Err"), "{said}");
    assert!(!said.contains(old.secret().expose()));
    assert_eq!(provider.token_requests() - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_is_spent_once_by_150_callers_in_three_processes() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server).await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        processes.push(process(&provider, &server, "refresh", &token, 50, USUAL).await);
    }
    provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(100)));
    let said = all_agree(processes).await;
    assert!(said.starts_with("all [Ok(") && !said.contains("Err"), "{said}");
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}

async fn signed_in(provider: &Provider, server: &Redis) -> String {
    let client = client(provider, layered(&server.url()));
    let session = client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap();
    session.refresh_token().unwrap().expose().to_owned()
}

/// A process that asks, holds the lock, and is killed before there is an answer.
async fn killed_in_the_middle(provider: &Provider, server: &Redis, what: &str, token: &str) {
    let mut killed = process(provider, server, what, token, 1, SHORT).await;
    let before = provider.token_requests();
    provider.fail(ProviderEndpoint::Token, Fault::Hang);
    killed.go().await;
    provider.wait_for_requests(ProviderEndpoint::Token, before + 1).await;
    killed.kill().await;
    let is_lock = |(name, _): &(String, Vec<u8>)| name.ends_with(":lock");
    assert!(server.stored().iter().any(is_lock), "it held the lock");
    provider.heal(ProviderEndpoint::Token);
}

/// A timeout under which a lock lives for ten seconds, and is waited for two or six.
const SHORT: Duration = Duration::from_secs(2);

fn short(provider: &Provider, server: &Redis) -> TokenExchangeClient {
    let builder = builder(&provider.issuer()).cache(layered(&server.url()));
    builder.timeout(SHORT).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_with_the_lock_keeps_nobody_from_a_token() {
    let (server, provider) = (Redis::start(), provider().await);
    let request = fresh(&provider);
    killed_in_the_middle(&provider, &server, "exchange", request.subject.expose()).await;
    short(&provider, &server).exchange(&request).await.unwrap();
    let is_lock = |(name, _): &(String, Vec<u8>)| name.ends_with(":lock");
    assert!(server.stored().iter().any(is_lock), "it waited until the lock ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_with_the_lock_makes_nobody_replay_a_refresh_token() {
    let (server, provider) = (Redis::start(), provider().await);
    let token = signed_in(&provider, &server).await;
    killed_in_the_middle(&provider, &server, "refresh", &token).await;
    let (client, request) = (short(&provider, &server), RefreshRequest::new(token.as_str()));
    let error = client.refresh(&request).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unavailable { .. }), "{error}");
    assert_eq!(provider.granted("refresh_token"), 0, "nobody asked beside the lock");
    // Once the lock has ended, whoever comes next tries again.
    eventually(async || client.refresh(&request).await.is_ok()).await;
    assert_eq!((provider.granted("refresh_token"), provider.refresh_reuses()), (1, 0));
}
