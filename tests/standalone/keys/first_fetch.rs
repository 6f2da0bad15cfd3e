//! Requests before the first successful fetch: they get 503 with `Retry-After`, because the token may be good.

use std::time::Duration;

use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ManualClock, Provider, ProviderEndpoint};
use scaikey_auth::{Auth, AuthError};

use super::fixture::{PAST_BACKOFF, World, service, token, trust};

fn brief(
    world_wait: Duration,
) -> impl FnOnce(scaikey_auth::config::JwksSettings) -> scaikey_auth::config::JwksSettings {
    move |mut settings| {
        settings.wait = world_wait;
        settings
    }
}

#[tokio::test]
async fn unavailable_or_invalid_provider_answers_503() {
    for fault in [
        Fault::HangUp,
        Fault::Status(500),
        Fault::Status(404),
        Fault::garbage(),
        Fault::html(),
        Fault::empty_key_set(),
        Fault::many_keys(101),
        Fault::EndlessBody,
    ] {
        let world = World::new().await;
        world.provider.fail(ProviderEndpoint::Jwks, fault.clone());
        let error = world.auth.authenticate(&world.token()).await.unwrap_err();
        assert!(
            matches!(error, AuthError::Unavailable { component: "keys", .. }),
            "{fault:?}: {error}"
        );
        assert!(error.retry_after().unwrap() >= Duration::from_secs(1), "{fault:?}");
        assert_eq!(world.state(), KeyState::Never, "{fault:?}");
        assert!(world.health().last_error.is_some(), "{fault:?}");

        world.provider.heal(ProviderEndpoint::Jwks);
        world.clock.advance(PAST_BACKOFF);
        assert_eq!(world.good().await, 200, "{fault:?}");
    }
}

#[tokio::test]
async fn wait_for_slow_provider_is_limited() {
    let world = World::with(brief(Duration::from_millis(50))).await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    let error = world.auth.authenticate(&world.token()).await.unwrap_err();
    assert!(error.retry_after().is_some(), "{error}");
    assert_eq!(world.good().await, 503);
    world.provider.wait_for_jwks_requests(1).await;
    assert_eq!(world.provider.jwks_requests(), 1, "the second request waited for the same fetch");

    // The fetch continued without waiting requests.
    world.provider.heal(ProviderEndpoint::Jwks);
    world.until_state(KeyState::Fresh).await;
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, 1));
}

#[tokio::test]
async fn request_waits_for_slow_provider() {
    let world = World::with(brief(Duration::from_secs(60))).await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    let (auth, token) = (world.auth.clone(), world.token());
    let waiting = tokio::spawn(async move { super::fixture::status(&auth, &token).await });
    world.provider.wait_for_jwks_requests(1).await;
    assert!(!waiting.is_finished());
    world.provider.heal(ProviderEndpoint::Jwks);
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test]
async fn fetch_without_answer_times_out() {
    let world = World::with(|mut settings| {
        settings.timeout = Duration::from_millis(50);
        settings
    })
    .await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Stall);
    assert_eq!(world.good().await, 503);
    assert!(world.health().last_error.unwrap().contains("did not answer within 50ms"));
}

#[tokio::test]
async fn failing_provider_is_backed_off() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    for _ in 0..100 {
        assert_eq!(world.good().await, 503);
    }
    assert_eq!(world.provider.jwks_requests(), 1);
    // 0.5 s at least, and doubling up to a minute.
    for nth in 2..12 {
        world.clock.advance(Duration::from_millis(499));
        assert_eq!(world.good().await, 503);
        assert_eq!(world.provider.jwks_requests(), nth - 1);
        assert!(world.pause() <= Duration::from_secs(60));
        world.clock.advance(PAST_BACKOFF);
        assert_eq!(world.good().await, 503);
        assert_eq!(world.provider.jwks_requests(), nth);
    }
}

#[tokio::test]
async fn service_starts_before_its_provider() {
    let clock = ManualClock::new();
    let mut provider = Provider::builder().clock(clock.clone()).start().await;
    provider.pause().await;
    let auth = service([trust(&provider)], &clock);
    assert_eq!(super::fixture::status(&auth, &token(&provider)).await, 503);
    assert!(
        auth.ready().await.is_err(),
        "`ready` reports the failure, and the service still works"
    );
    provider.resume().await;
    clock.advance(PAST_BACKOFF);
    assert_eq!(super::fixture::status(&auth, &token(&provider)).await, 200);
    auth.ready().await.unwrap();
}

#[tokio::test]
async fn build_fetches_nothing_and_ready_fetches_once() {
    let world = World::new().await;
    assert_eq!((world.provider.discovery_requests(), world.provider.jwks_requests()), (0, 0));
    world.auth.ready().await.unwrap();
    world.auth.ready().await.unwrap();
    assert_eq!((world.provider.discovery_requests(), world.provider.jwks_requests()), (1, 1));
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, 1));
}

#[test]
fn building_and_health_need_no_runtime() {
    let auth = Auth::builder().issuer("https://scaikey.example").audience("a").build().unwrap();
    assert_eq!(auth.issuers().health()[0].state, KeyState::Never);
    auth.issuers().purge("https://scaikey.example");
    auth.issuers().remove("https://scaikey.example");
    assert!(auth.issuers().health().is_empty());
}
