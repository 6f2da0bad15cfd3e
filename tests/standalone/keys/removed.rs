//! Removed keys: they stop verifying, and only a new publication brings them back.

use std::time::Duration;

use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ProviderEndpoint};

use super::fixture::{PAST_TTL, World, outcome, status};

#[tokio::test]
async fn removed_key_is_refused_after_refresh() {
    let world = World::warm().await;
    let old = world.token();
    world.provider.rotate();
    world.provider.remove_old_keys();
    assert_eq!(world.status(&old).await, 200, "the removal is not known yet");
    world.clock.advance(PAST_TTL);
    assert_eq!(world.state(), KeyState::Due);
    world.until_state(KeyState::Fresh).await;
    assert_eq!(outcome(&world.auth, &old).await, "token_key_unknown");
    assert_eq!(world.good().await, 200);
}

#[tokio::test]
async fn republished_key_verifies_again() {
    let world = World::warm().await;
    let (key, old) = (world.provider.key(), world.token());
    world.provider.rotate();
    world.provider.remove_old_keys();
    world.auth.issuers().purge(&world.provider.issuer());
    assert_eq!(world.status(&old).await, 401);
    world.provider.rotate_to(key);
    world.clock.advance(PAST_TTL);
    world.until_state(KeyState::Fresh).await;
    assert_eq!(world.status(&old).await, 200);
}

#[tokio::test]
async fn purged_keys_are_fetched_again() {
    let world = World::warm().await;
    let old = world.token();
    world.provider.rotate();
    world.provider.remove_old_keys();
    world.auth.issuers().purge("https://another.example");
    assert_eq!((world.status(&old).await, world.provider.jwks_requests()), (200, 1));
    world.auth.issuers().purge(&world.provider.issuer());
    assert_eq!(outcome(&world.auth, &old).await, "token_key_unknown");
    assert_eq!(world.good().await, 200);
}

#[tokio::test]
async fn outage_after_purge_answers_503() {
    let mut world = World::warm().await;
    world.provider.pause().await;
    world.auth.issuers().purge(&world.provider.issuer());
    assert_eq!(world.good().await, 503);
    assert_eq!(world.state(), KeyState::Never);
}

#[tokio::test]
async fn fetch_before_purge_is_discarded() {
    for due in [true, false] {
        let world = if due { World::warm().await } else { World::new().await };
        let old = world.token();
        // The answer contains the old key and is delayed.
        world.provider.fail(ProviderEndpoint::Jwks, Fault::Stall);
        world.clock.advance(PAST_TTL);
        drop(world.health());
        world.provider.wait_for_jwks_requests(if due { 2 } else { 1 }).await;
        world.provider.rotate();
        world.provider.remove_old_keys();
        world.auth.issuers().purge(&world.provider.issuer());
        world.provider.heal(ProviderEndpoint::Jwks);
        assert_eq!(outcome(&world.auth, &old).await, "token_key_unknown", "due: {due}");
        assert_eq!(world.good().await, 200, "due: {due}");
    }
}

#[tokio::test]
async fn purge_during_failing_fetch_leaves_no_trace() {
    let world = World::warm().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    world.clock.advance(PAST_TTL);
    drop(world.health());
    world.provider.wait_for_jwks_requests(2).await;
    world.auth.issuers().purge(&world.provider.issuer());
    assert_eq!(world.state(), KeyState::Never);
    world.provider.heal(ProviderEndpoint::Jwks);
    assert_eq!(world.good().await, 200);
    assert_eq!(world.health().last_error, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn removed_key_stays_refused_under_concurrency() {
    let world = World::with(|mut settings| {
        settings.wait = Duration::from_secs(60);
        settings
    })
    .await;
    for _ in 0..20 {
        let old = world.token();
        let busy: Vec<_> = (0..8)
            .map(|_| {
                let (auth, token) = (world.auth.clone(), old.clone());
                tokio::spawn(async move {
                    for _ in 0..20 {
                        status(&auth, &token).await;
                    }
                })
            })
            .collect();
        world.provider.rotate();
        world.provider.remove_old_keys();
        world.clock.advance(PAST_TTL);
        world.auth.issuers().purge(&world.provider.issuer());
        assert_eq!(world.status(&old).await, 401);
        for task in busy {
            task.await.unwrap();
        }
        assert_eq!(world.status(&old).await, 401);
    }
}
