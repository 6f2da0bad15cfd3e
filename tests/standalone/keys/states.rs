//! The states of a key set in `health()`.

use std::time::Duration;

use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ProviderEndpoint};

use super::fixture::{PAST_BACKOFF, PAST_TTL, World, service, status, trust};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn key_set_passes_through_all_states() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    let health = world.health();
    assert_eq!((health.state, health.keys, health.last_attempt), (KeyState::Never, 0, None));
    assert!(!health.can_verify());
    assert_eq!(world.good().await, 503);
    let health = world.health();
    assert_eq!(health.state, KeyState::Never);
    assert!(health.last_attempt.is_some() && health.last_error.is_some());

    world.provider.heal(ProviderEndpoint::Jwks);
    world.clock.advance(PAST_BACKOFF);
    assert_eq!(world.good().await, 200);
    let health = world.health();
    assert_eq!((health.state, health.keys, health.last_error), (KeyState::Fresh, 1, None));

    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    world.clock.advance(PAST_TTL);
    assert_eq!(world.state(), KeyState::Due);
    assert_eq!(world.good().await, 200);
    world.provider.wait_for_jwks_requests(3).await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    world.until_state(KeyState::Stale).await;
    assert_eq!(world.good().await, 200);
    assert!(world.health().can_verify());

    world.clock.advance(DAY);
    let health = world.health();
    assert_eq!((health.state, health.keys), (KeyState::Dead, 0), "no key can be used");
    assert!(!health.can_verify());
    let error = world.auth.authenticate(&world.token()).await.unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(error.retry_after().is_some());

    world.provider.heal(ProviderEndpoint::Jwks);
    world.clock.advance(PAST_BACKOFF);
    assert_eq!(world.good().await, 200);
    assert_eq!(world.state(), KeyState::Fresh);
}

#[tokio::test]
async fn readiness_probe_keeps_idle_service_ready() {
    let world = World::new().await;
    world.until_state(KeyState::Fresh).await;
    for nth in 2..5 {
        world.clock.advance(PAST_TTL);
        assert_eq!(world.state(), KeyState::Due);
        world.until_state(KeyState::Fresh).await;
        assert_eq!(world.provider.jwks_requests(), nth);
    }
}

#[tokio::test]
async fn dead_keys_are_fetched_on_next_request() {
    let world = World::warm().await;
    world.clock.advance(2 * DAY);
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, 2));
}

#[tokio::test]
async fn set_is_due_before_it_dies() {
    // The provider's TTL is one hour, or the operator sets equal limits. Jitter must not leave a gap
    // between the end of the set and the next attempt.
    for (cache_control, ttl) in [(Some("max-age=3600"), 60), (None, 600)] {
        for _ in 0..10 {
            let world = World::with(|mut settings| {
                settings.ttl = Duration::from_secs(ttl);
                settings.max_stale = Duration::from_secs(600);
                settings
            })
            .await;
            world.provider.set_cache_control(cache_control);
            let world = world.warmed().await;
            assert!(world.pause() <= Duration::from_secs(600), "{:?}", world.pause());
            world.clock.advance(Duration::from_secs(600));
            assert_eq!(world.good().await, 200, "{cache_control:?}");
        }
    }
}

#[tokio::test]
async fn unlimited_durations_do_not_overflow() {
    let world = World::with(|mut settings| {
        settings.ttl = Duration::MAX;
        settings.cooldown = Duration::MAX;
        settings.max_stale = Duration::MAX;
        settings.wait = Duration::MAX;
        settings.timeout = Duration::MAX;
        settings
    })
    .await;
    assert_eq!(world.good().await, 200);
    world.clock.advance(1000 * DAY);
    assert_eq!(world.good().await, 200);
    assert_eq!((world.state(), world.provider.jwks_requests()), (KeyState::Fresh, 1));
}

#[tokio::test]
async fn health_shows_last_attempt_without_answer() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    drop(world.health());
    world.provider.wait_for_jwks_requests(1).await;
    assert!(world.health().last_attempt.is_some());
}

#[tokio::test]
async fn health_is_sorted_and_serialisable() {
    let world = World::warm().await;
    let (other, _) = super::fixture::provider().await;
    let auth = service([trust(&other), trust(&world.provider)], &world.clock);
    assert_eq!(status(&auth, &world.token()).await, 200);
    let names: Vec<_> = auth.issuers().health().into_iter().map(|one| one.issuer).collect();
    let mut sorted = vec![other.issuer(), world.provider.issuer()];
    sorted.sort();
    assert_eq!(names, sorted);
    let json = serde_json::to_value(world.health()).unwrap();
    assert_eq!(json["state"], "fresh");
}
