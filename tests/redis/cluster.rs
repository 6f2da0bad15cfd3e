//! A cluster with an unavailable node.

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

/// Returns how many of `count` tokens another process finds.
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
async fn dead_node_affects_only_its_keys() {
    let (mut nodes, provider) = (Redis::three(true), provider().await);
    let [one, other] = [(); 2].map(|()| client(&provider, cache(&nodes)));
    assert_eq!(shared(&one, &other, &provider).await, 30);
    nodes[2].kill();
    // Two thirds of all keys belong to the other nodes.
    for _ in 0..3 {
        let found = shared(&one, &other, &provider).await;
        assert!((8..30).contains(&found), "{found} of 30 were shared");
    }
    // The same holds for a process that starts now.
    let late = client(&provider, cache(&nodes));
    let found = shared(&one, &late, &provider).await;
    assert!((8..30).contains(&found), "{found} of 30 were shared");
    nodes[2].restart();
    nodes[0].until_cluster_is_ready();
    eventually(async || shared(&one, &other, &provider).await == 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_node_affects_only_its_keys() {
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
async fn exchange_works_when_cluster_lacks_coverage() {
    let (mut nodes, provider) = (Redis::three(false), provider().await);
    let [one, other] = [(); 2].map(|()| client(&provider, cache(&nodes)));
    assert_eq!(shared(&one, &other, &provider).await, 30);
    nodes[2].kill();
    // The other nodes refuse all keys when they detect the failure.
    eventually(async || shared_of(5, &one, &other, &provider).await == 0).await;
    nodes[2].restart();
    eventually(async || shared_of(5, &one, &other, &provider).await == 5).await;
}
