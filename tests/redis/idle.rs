//! Connections that the server closes.

use std::time::Duration;

use scaikey_auth::exchange::CacheStatus;
use scaikey_auth::testing::ManualClock;

use super::fixture::{client, fresh, provider, redis};
use super::server::Redis;
use crate::support::Log;

#[tokio::test]
async fn idle_connection_is_replaced_silently() {
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
async fn early_disconnect_starts_a_backoff() {
    let (log, provider, server) = (Log::start(), provider().await, Redis::start());
    let clock = ManualClock::new();
    let cache = redis(&server.url()).clock(clock.clone());
    let client = client(&provider, cache);
    let request = fresh(&provider);
    client.exchange(&request).await.unwrap();
    let _: () = server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    for _ in 0..2 {
        // The clock stands still, so the backoff does not end.
        client.exchange(&request).await.unwrap();
    }
    assert_eq!(provider.token_requests(), 3);
    assert_eq!(log.text().matches("token cache failed").count(), 1);
    clock.advance(Duration::from_secs(6));
    crate::support::eventually(async || {
        client.exchange(&request).await.unwrap().cache_status() == CacheStatus::Hit
    })
    .await;
    assert_eq!(log.text().matches("token cache answers again").count(), 1);
}
