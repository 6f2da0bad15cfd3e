//! Connections that are closed because nobody used them.

use std::time::Duration;

use scaikey_auth::exchange::CacheStatus;
use scaikey_auth::testing::ManualClock;

use super::fixture::{client, fresh, provider, redis};
use super::server::Redis;
use crate::support::Log;

#[tokio::test]
async fn a_connection_closed_after_a_while_is_replaced_and_nobody_notices() {
    let (log, provider, server) = (Log::start(), provider().await, Redis::start());
    let clock = ManualClock::new();
    let cache = redis(&server.url()).clock(clock.clone());
    let client = client(&provider, cache);
    let request = fresh(&provider);
    client.exchange(&request).await.unwrap();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(600));
        let _: () = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let found = client.exchange(&request).await.unwrap();
        assert_eq!(found.cache_status(), CacheStatus::Hit);
    }
    assert!(!log.text().contains("token cache"), "{}", log.text());
}

#[tokio::test]
async fn a_connection_closed_at_once_is_a_failure_and_the_server_left_alone_for_a_while() {
    let (log, provider, server) = (Log::start(), provider().await, Redis::start());
    let clock = ManualClock::new();
    let cache = redis(&server.url()).clock(clock.clone());
    let client = client(&provider, cache);
    let request = fresh(&provider);
    client.exchange(&request).await.unwrap();
    let _: () = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    for _ in 0..2 {
        // The clock stands still, so it stays left alone.
        client.exchange(&request).await.unwrap();
    }
    let asked = provider.token_requests();
    assert_eq!(asked, 3);
    assert_eq!(log.text().matches("token cache fails").count(), 1);
    clock.advance(Duration::from_secs(6));
    crate::support::eventually(async || {
        client.exchange(&request).await.unwrap().cache_status() == CacheStatus::Hit
    })
    .await;
    assert_eq!(log.text().matches("token cache answers again").count(), 1);
}
