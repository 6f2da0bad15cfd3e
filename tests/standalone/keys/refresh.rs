//! Refreshes: in the background, once for all requests, and after the provider's TTL.

use std::time::Duration;

use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ProviderEndpoint};

use super::fixture::{PAST_BACKOFF, PAST_TTL, World, status};

#[tokio::test]
async fn cache_control_sets_ttl_within_limits() {
    let table = [
        (None, 300),
        (Some("max-age=1"), 60),
        (Some("max-age=0"), 60),
        (Some("no-store"), 60),
        (Some("no-cache"), 60),
        (Some("public, max-age=600, must-revalidate"), 600),
        (Some("max-age=86400"), 3600),
        (Some("max-age=99999999999999999999999"), 300),
        (Some("private"), 300),
    ];
    for (cache_control, seconds) in table {
        let world = World::new().await;
        world.provider.set_cache_control(cache_control);
        world.auth.ready().await.unwrap();
        let ttl = Duration::from_secs(seconds);
        let pause = world.pause();
        assert!(pause >= ttl.mul_f64(0.899), "{cache_control:?}: {pause:?}");
        assert!(pause <= ttl.mul_f64(1.101), "{cache_control:?}: {pause:?}");
        world.clock.advance(ttl.mul_f64(0.89));
        assert_eq!(world.state(), KeyState::Fresh, "{cache_control:?}");
        world.clock.advance(ttl.mul_f64(0.22));
        assert_eq!(world.state(), KeyState::Due, "{cache_control:?}");
    }
}

#[tokio::test]
async fn refreshes_are_jittered() {
    let world = World::warm().await;
    let mut pauses = Vec::new();
    for nth in 2..22 {
        world.clock.advance(PAST_TTL);
        drop(world.health());
        world.provider.wait_for_jwks_requests(nth).await;
        world.until_state(KeyState::Fresh).await;
        pauses.push(world.pause());
    }
    pauses.sort();
    pauses.dedup();
    assert!(pauses.len() > 10, "{pauses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn due_refresh_runs_once_without_delay() {
    let world = World::warm().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    world.clock.advance(PAST_TTL);
    let token = world.token();
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let (auth, token) = (world.auth.clone(), token.clone());
            tokio::spawn(async move { status(&auth, &token).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    world.provider.wait_for_jwks_requests(2).await;
    assert_eq!(world.state(), KeyState::Due);
    world.provider.heal(ProviderEndpoint::Jwks);
    world.until_state(KeyState::Fresh).await;
    assert_eq!(world.provider.jwks_requests(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn first_requests_share_one_fetch() {
    let world = World::new().await;
    let token = world.token();
    let requests: Vec<_> = (0..1000)
        .map(|_| {
            let (auth, token) = (world.auth.clone(), token.clone());
            tokio::spawn(async move { status(&auth, &token).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!((world.provider.discovery_requests(), world.provider.jwks_requests()), (1, 1));
}

#[tokio::test]
async fn failed_refresh_is_retried_with_backoff() {
    let world = World::warm().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    world.clock.advance(PAST_TTL);
    world.until_state(KeyState::Stale).await;
    assert!(world.pause() <= Duration::from_secs(1), "{:?}", world.pause());
    let mut longest = Duration::ZERO;
    for nth in 3..20 {
        assert_eq!(world.provider.jwks_requests(), nth - 1);
        assert!(world.pause() >= Duration::from_millis(499));
        world.clock.advance(Duration::from_millis(499));
        assert_eq!((world.good().await, world.provider.jwks_requests()), (200, nth - 1));
        world.clock.advance(PAST_BACKOFF);
        let before = world.health().last_attempt;
        assert_eq!(world.good().await, 200);
        world.provider.wait_for_jwks_requests(nth).await;
        // While a fetch is running, the next one is planned after its timeouts.
        crate::support::until(|| world.health().last_attempt != before).await;
        crate::support::until(|| world.provider.jwks_requests() == nth && !is_fetching(&world))
            .await;
        longest = longest.max(world.pause());
    }
    assert!(longest > Duration::from_secs(2), "{longest:?}");
    assert!(longest <= Duration::from_secs(60), "{longest:?}");
}

/// Returns whether a fetch is running: only that sets the next attempt to four times the timeout.
fn is_fetching(world: &World) -> bool {
    world.pause() == Duration::from_secs(20)
}

#[tokio::test]
async fn key_published_ahead_is_known_in_time() {
    let world = World::warm().await;
    world.provider.publish_next();
    world.clock.advance(PAST_TTL);
    world.until_state(KeyState::Due).await;
    world.until_state(KeyState::Fresh).await;
    let fetches = world.provider.jwks_requests();
    world.provider.rotate();
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, fetches));
}
