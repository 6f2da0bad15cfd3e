//! A cluster one of whose nodes is away.

use scaikey_auth::TokenExchangeClient;
use scaikey_auth::exchange::RedisCache;
use scaikey_auth::testing::Provider;
use std::time::Duration;

use super::fixture::{client, fresh, provider, redis};
use super::server::Redis;
use crate::support::eventually;

fn cache(nodes: &[Redis]) -> RedisCache {
    let urls: Vec<_> = nodes.iter().map(|node| node.url().expose().to_owned()).collect();
    redis(&urls.join(",").as_str().into())
}

/// How many of so many tokens another process finds.
async fn shared_of(
    count: usize,
    one: &TokenExchangeClient,
    other: &TokenExchangeClient,
    from: &Provider,
) -> usize {
    let mut found = 0;
    for _ in 0..count {
        let request = fresh(from);
        let got = one.exchange(&request).await.unwrap();
        found += usize::from(other.exchange(&request).await.unwrap().secret() == got.secret());
    }
    found
}

async fn shared(one: &TokenExchangeClient, other: &TokenExchangeClient, from: &Provider) -> usize {
    shared_of(30, one, other, from).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_shard_costs_its_own_keys_only() {
    let (mut nodes, provider) = (Redis::three(true), provider().await);
    let [one, other] = [(); 2].map(|()| client(&provider, cache(&nodes)));
    assert_eq!(shared(&one, &other, &provider).await, 30);
    nodes[2].kill();
    // Each notices by itself that it is away; two thirds of all keys are elsewhere.
    for _ in 0..3 {
        let found = shared(&one, &other, &provider).await;
        assert!((8..30).contains(&found), "{found} of 30 were shared");
    }
    // So it is for a process that begins now.
    let late = client(&provider, cache(&nodes));
    let found = shared(&one, &late, &provider).await;
    assert!((8..30).contains(&found), "{found} of 30 were shared");
    nodes[2].restart();
    nodes[0].until_cluster_is_ready();
    eventually(async || shared(&one, &other, &provider).await == 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_shard_costs_its_own_keys_only() {
    let (nodes, provider) = (Redis::three(true), provider().await);
    let short = || cache(&nodes).budget(Duration::from_secs(1));
    let [one, other] = [(); 2].map(|()| client(&provider, short()));
    assert_eq!(shared(&one, &other, &provider).await, 30);
    nodes[2].pause();
    for _ in 0..2 {
        let found = shared(&one, &other, &provider).await;
        assert!((8..30).contains(&found), "{found} of 30 were shared");
    }
    nodes[2].resume();
    eventually(async || shared(&one, &other, &provider).await == 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_without_full_coverage_is_gone_on_without() {
    let (mut nodes, provider) = (Redis::three(false), provider().await);
    let [one, other] = [(); 2].map(|()| client(&provider, cache(&nodes)));
    assert_eq!(shared(&one, &other, &provider).await, 30);
    nodes[2].kill();
    // The others refuse all keys as soon as they notice.
    eventually(async || shared_of(5, &one, &other, &provider).await == 0).await;
    nodes[2].restart();
    eventually(async || shared_of(5, &one, &other, &provider).await == 5).await;
}
