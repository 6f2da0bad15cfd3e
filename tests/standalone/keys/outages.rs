//! Outages with cached keys: good tokens are accepted immediately while the provider fails.

use std::time::Duration;

use scaikey_auth::issuer::{IssuerHealth, KeyState};
use scaikey_auth::testing::{BadKey, Fault, ProviderEndpoint};

use super::fixture::{PAST_BACKOFF, PAST_TTL, World, provider};

/// Answers that must not replace a good set.
async fn garbage() -> Vec<(Fault, &'static str)> {
    vec![
        (Fault::Status(500), "answered 500"),
        (Fault::Status(404), "answered 404"),
        (Fault::Status(204), "answered 204"),
        (Fault::RetryAfter(503, 7), "answered 503"),
        (Fault::garbage(), "not a JSON object"),
        (Fault::html(), "not a JSON object"),
        (Fault::Body("application/json", String::new()), "not a JSON object"),
        (Fault::Body("application/json", "[]".to_owned()), "not a JSON object"),
        (Fault::Body("application/json", r#"{"keys":{}}"#.to_owned()), "not a JSON object"),
        (Fault::remove_member("keys"), "not a JSON object"),
        (Fault::empty_key_set(), "the key set is empty"),
        (Fault::many_keys(101), "more than 100 keys"),
        (Fault::Padded(256 * 1024), "more than 262144 bytes"),
        (Fault::EndlessBody, "more than 262144 bytes"),
        (Fault::HangUp, "could not be reached"),
    ]
}

#[tokio::test]
async fn bad_key_set_changes_only_health() {
    for (fault, why) in garbage().await {
        let world = World::warm().await;
        world.provider.fail(ProviderEndpoint::Jwks, fault.clone());
        world.clock.advance(PAST_TTL);
        assert_eq!(world.good().await, 200, "{fault:?}");
        world.until_state(KeyState::Stale).await;
        assert_eq!(world.good().await, 200, "{fault:?}");
        let IssuerHealth { keys, last_error, .. } = world.health();
        assert_eq!(keys, 1, "{fault:?}");
        let error = last_error.unwrap();
        assert!(error.contains(why), "{fault:?}: {error}");

        world.provider.heal(ProviderEndpoint::Jwks);
        world.clock.advance(PAST_BACKOFF);
        world.until_state(KeyState::Fresh).await;
        assert_eq!(world.health().last_error, None, "{fault:?}");
    }
}

#[tokio::test]
async fn keys_survive_one_day_outage() {
    let mut world = World::warm().await;
    world.provider.pause().await;
    for _ in 0..23 {
        world.clock.advance(Duration::from_secs(3600));
        assert_eq!(world.good().await, 200);
        world.until_state(KeyState::Stale).await;
    }
    assert!(world.health().can_verify());
    assert!(world.health().last_error.unwrap().contains("could not be reached"));
    world.provider.resume().await;
    world.clock.advance(PAST_BACKOFF);
    world.until_state(KeyState::Fresh).await;
}

#[tokio::test]
async fn hanging_provider_delays_no_request() {
    for fault in [Fault::Hang, Fault::Stall] {
        let world = World::warm().await;
        world.provider.fail(ProviderEndpoint::Jwks, fault.clone());
        world.clock.advance(PAST_TTL);
        for _ in 0..100 {
            assert_eq!(world.good().await, 200, "{fault:?}");
        }
        world.provider.wait_for_jwks_requests(2).await;
        assert_eq!(world.good().await, 200, "{fault:?}");
        assert_eq!(world.state(), KeyState::Due, "the fetch is still running");
        assert_eq!(world.provider.jwks_requests(), 2);
    }
}

#[tokio::test]
async fn bad_metadata_changes_only_health() {
    let bad = [
        (Fault::html(), "is not a JSON object"),
        (Fault::replace_member("issuer", "https://evil.example"), "is not for the issuer"),
        (Fault::replace_member("jwks_uri", "https://10.0.0.1/keys"), "private network"),
    ];
    for (fault, why) in bad {
        let world = World::warm().await;
        world.provider.fail(ProviderEndpoint::Discovery, fault.clone());
        // Long enough that the metadata are due.
        world.clock.advance(Duration::from_secs(3601));
        assert_eq!(world.good().await, 200, "{fault:?}");
        world.until_state(KeyState::Stale).await;
        assert_eq!((world.good().await, world.provider.jwks_requests()), (200, 1), "{fault:?}");
        let error = world.health().last_error.unwrap();
        assert!(error.contains(why), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn keys_refresh_while_metadata_is_unavailable() {
    for fault in [Fault::Status(500), Fault::Status(404), Fault::HangUp, Fault::EndlessBody] {
        let world = World::warm().await;
        world.provider.fail(ProviderEndpoint::Discovery, fault.clone());
        world.provider.rotate();
        world.clock.advance(Duration::from_secs(3601));
        assert_eq!(world.good().await, 200, "the new key is at the same URL: {fault:?}");
        assert_eq!((world.health().state, world.provider.jwks_requests()), (KeyState::Fresh, 2));
    }
}

#[tokio::test]
async fn redirect_is_followed_within_origin_only() {
    let world = World::warm().await;
    let (elsewhere, _) = provider().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Redirect(elsewhere.jwks_uri()));
    world.clock.advance(PAST_TTL);
    assert_eq!(world.good().await, 200);
    world.until_state(KeyState::Stale).await;
    assert_eq!(
        (elsewhere.jwks_requests(), elsewhere.stray_requests()),
        (0, 0),
        "the redirect was not followed"
    );
    assert!(world.health().last_error.unwrap().contains("another origin"));

    world.provider.fail(ProviderEndpoint::Jwks, Fault::RedirectHere);
    world.provider.rotate();
    world.clock.advance(PAST_BACKOFF);
    world.until_state(KeyState::Fresh).await;
    assert_eq!(world.good().await, 200, "the redirect led to the new key");
}

#[tokio::test]
async fn redirect_loop_ends() {
    let world = World::warm().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Redirect(world.provider.jwks_uri()));
    world.clock.advance(PAST_TTL);
    world.until_state(KeyState::Stale).await;
    assert!(world.provider.jwks_requests() <= 1 + 4, "{}", world.provider.jwks_requests());
    assert_eq!(world.good().await, 200);
}

#[tokio::test]
async fn bad_key_does_not_spoil_the_set() {
    for bad in BadKey::ALL {
        let world = World::new().await;
        world.provider.fail(ProviderEndpoint::Jwks, Fault::bad_key(bad));
        assert_eq!(world.good().await, 200, "{bad:?}");
        let health = world.health();
        assert_eq!((health.keys, health.unusable_keys), (1, 1), "{bad:?}");
        assert_eq!(health.state, KeyState::Fresh, "{bad:?}");
    }
}
