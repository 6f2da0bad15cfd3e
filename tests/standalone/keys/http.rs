//! HTTP requests for keys and metadata: headers, content codings, and `Retry-After`.

use std::time::Duration;

use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ProviderEndpoint};

use super::fixture::{PAST_TTL, World, provider, service, status, token, trust};

#[tokio::test]
async fn requests_accept_both_media_types_unencoded() {
    let world = World::warm().await;
    for endpoint in [ProviderEndpoint::Discovery, ProviderEndpoint::Jwks] {
        let request = world.provider.received(endpoint).remove(0);
        let text = |name: &str| request.headers[name].to_str().unwrap().to_owned();
        let accept = text("accept");
        let types: Vec<_> = accept.split(", ").collect();
        assert_eq!(types, ["application/json", "application/jwk-set+json", "*/*;q=0.1"]);
        assert_eq!(text("accept-encoding"), "identity", "{endpoint:?}");
    }
}

#[tokio::test]
async fn unrequested_compression_is_reported() {
    let gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let json = vec![("content-type", "application/json")];
    let labelled = |coding| [json.clone(), vec![("content-encoding", coding)]].concat();
    for (headers, bytes, why) in [
        (labelled("gzip"), gzip.clone(), "content coding gzip"),
        (json.clone(), gzip.clone(), "content coding gzip"),
        (labelled("br"), b"{}".to_vec(), "content coding br"),
    ] {
        for endpoint in [ProviderEndpoint::Discovery, ProviderEndpoint::Jwks] {
            let world = World::new().await;
            world.provider.fail(endpoint, Fault::Bytes(headers.clone(), bytes.clone()));
            assert_eq!(world.good().await, 503);
            let error = world.health().last_error.unwrap();
            assert!(error.contains(why), "{endpoint:?}: {error}");
        }
    }
    let (provider, clock) = provider().await;
    let set = provider.jwks().to_string().into_bytes();
    provider.fail(ProviderEndpoint::Jwks, Fault::Bytes(labelled("identity"), set));
    let auth = service([trust(&provider)], &clock);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
}

#[tokio::test]
async fn retry_after_is_honoured_without_keys() {
    for (endpoint, code) in [
        (ProviderEndpoint::Jwks, 429),
        (ProviderEndpoint::Jwks, 503),
        (ProviderEndpoint::Discovery, 429),
    ] {
        let world = World::new().await;
        world.provider.fail(endpoint, Fault::RetryAfter(code, 40));
        assert_eq!(world.good().await, 503);
        let requests = world.provider.requests(endpoint);
        assert_eq!(requests, 1, "{endpoint:?}: other URLs are not tried either");
        let error = world.auth.authenticate(&world.token()).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(40)), "{endpoint:?}");
        world.clock.advance(Duration::from_secs(39));
        assert_eq!(world.good().await, 503);
        assert_eq!(world.provider.requests(endpoint), requests, "{endpoint:?}");
        world.provider.heal(endpoint);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.good().await, 200, "{endpoint:?}");
    }
}

#[tokio::test]
async fn retry_after_is_capped() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::RetryAfter(503, 86_400));
    assert_eq!(world.good().await, 503);
    assert_eq!(world.pause(), Duration::from_secs(60));
    world.provider.heal(ProviderEndpoint::Jwks);
    let world = World::warm().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::RetryAfter(503, 86_400));
    world.clock.advance(PAST_TTL);
    assert_eq!(world.good().await, 200);
    world.until_state(KeyState::Stale).await;
    assert_eq!(world.pause(), Duration::from_secs(300));
}

#[tokio::test]
async fn retry_after_of_metadata_is_capped() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Discovery, Fault::RetryAfter(503, 86_400));
    assert_eq!(world.good().await, 503);
    world.provider.heal(ProviderEndpoint::Discovery);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.good().await, 200);
}

#[tokio::test]
async fn readiness_probes_honour_retry_after() {
    for (endpoint, fault) in [
        (ProviderEndpoint::Jwks, Fault::Status(429)),
        (ProviderEndpoint::Jwks, Fault::RetryAfter(503, 60)),
        (ProviderEndpoint::Discovery, Fault::Status(429)),
        (ProviderEndpoint::Discovery, Fault::RetryAfter(503, 60)),
    ] {
        let world = World::new().await;
        world.provider.fail(endpoint, fault.clone());
        for _ in 0..20 {
            world.auth.ready().await.unwrap_err();
        }
        assert_eq!(world.provider.requests(endpoint), 1, "{endpoint:?} {fault:?}");
        world.provider.heal(endpoint);
        world.clock.advance(Duration::from_secs(60));
        world.auth.ready().await.unwrap();
    }
}

#[tokio::test]
async fn unknown_kids_do_not_shorten_retry_after() {
    let world = World::warm().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::RetryAfter(429, 120));
    assert_eq!(world.unknown_kid().await, 503, "the provider's current keys are not known");
    assert_eq!(world.provider.jwks_requests(), 2);
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(39));
        assert_eq!((world.unknown_kid().await, world.good().await), (503, 200));
        assert_eq!(world.provider.jwks_requests(), 2);
    }
    world.provider.heal(ProviderEndpoint::Jwks);
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(world.unknown_kid().await, 401);
    assert!(world.provider.jwks_requests() > 2);
}

#[tokio::test]
async fn retry_after_of_metadata_is_honoured() {
    let world = World::warm().await;
    let discoveries = world.provider.discovery_requests();
    world.provider.fail(ProviderEndpoint::Discovery, Fault::RetryAfter(503, 299));
    // Metadata are fetched again after one hour, keys after five minutes.
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(world.good().await, 200);
    world.provider.wait_for_jwks_requests(2).await;
    world.until_state(KeyState::Fresh).await;
    world.clock.advance(Duration::from_secs(298));
    assert_eq!(world.good().await, 200);
    assert_eq!(world.provider.discovery_requests(), discoveries + 1);
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.good().await, 200);
    crate::support::until(|| world.provider.discovery_requests() == discoveries + 2).await;
}
