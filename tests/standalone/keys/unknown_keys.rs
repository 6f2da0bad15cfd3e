//! Unknown key ids: a rotation refuses no good token, and a flood causes few fetches.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use scaikey_auth::config::Algorithm;
use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ProviderEndpoint, SigningKey};

use super::fixture::{PAST_BACKOFF, PAST_TTL, World, outcome, status, token, unknown_kid};

const COOLDOWN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotation_after_fetch_refuses_no_token() {
    for _ in 0..10 {
        let world = World::warm().await;
        world.provider.rotate();
        let token = world.token();
        let requests: Vec<_> = (0..50)
            .map(|_| {
                let (auth, token) = (world.auth.clone(), token.clone());
                tokio::spawn(async move { status(&auth, &token).await })
            })
            .collect();
        for request in requests {
            assert_eq!(request.await.unwrap(), 200);
        }
        assert_eq!(world.provider.jwks_requests(), 2);
    }
}

#[tokio::test]
async fn two_rotations_refuse_no_token() {
    let world = World::warm().await;
    for _ in 0..2 {
        world.provider.rotate();
        assert_eq!(world.good().await, 200);
    }
    assert_eq!(world.provider.jwks_requests(), 3);
}

#[tokio::test]
async fn unknown_kid_leaves_budget_for_rotation() {
    let world = World::warm().await;
    assert_eq!((world.unknown_kid().await, world.provider.jwks_requests()), (401, 2));
    world.provider.rotate();
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, 3));
}

#[tokio::test]
async fn flood_of_kids_is_rate_limited() {
    let world = World::warm().await;
    let key = SigningKey::generate(Algorithm::ES256);
    for nth in 0..1000 {
        let kid = format!("flood-{nth}");
        let token = world.provider.token().signed_by(&key).kid(Some(&kid)).sign();
        assert_eq!(world.status(&token).await, 401);
        if nth % 100 == 0 {
            assert_eq!(world.good().await, 200);
        }
    }
    assert_eq!(world.provider.jwks_requests(), 1 + 2);
    for nth in 1..4 {
        world.clock.advance(COOLDOWN);
        for _ in 0..100 {
            assert_eq!(world.unknown_kid().await, 401);
        }
        assert_eq!(world.provider.jwks_requests(), 1 + 2 + nth);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hanging_flood_does_not_slow_good_tokens() {
    let world = World::warm().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    let flood: Vec<_> = (0..500)
        .map(|_| {
            let (auth, token) = (world.auth.clone(), unknown_kid(&world.provider));
            tokio::spawn(async move { status(&auth, &token).await })
        })
        .collect();
    world.provider.wait_for_jwks_requests(2).await;
    for _ in 0..100 {
        assert_eq!(world.good().await, 200);
    }
    assert_eq!(world.provider.jwks_requests(), 2, "the flood waits for one fetch");
    world.provider.heal(ProviderEndpoint::Jwks);
    for request in flood {
        assert_eq!(request.await.unwrap(), 401);
    }
    assert!(world.provider.jwks_requests() <= 3, "{}", world.provider.jwks_requests());
}

#[tokio::test]
async fn cancelled_requests_cause_no_extra_fetches() {
    let world = World::warm().await;
    for nth in 0..20 {
        world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
        let (auth, token) = (world.auth.clone(), unknown_kid(&world.provider));
        let caller = tokio::spawn(async move { status(&auth, &token).await });
        if nth < 2 {
            world.provider.wait_for_jwks_requests(2 + nth).await;
        } else {
            assert_eq!(world.unknown_kid().await, 401, "no fetch is running, and none starts");
        }
        caller.abort();
        world.provider.heal(ProviderEndpoint::Jwks);
        // A finished fetch replaces the set and its time.
        let fetches = world.provider.jwks_requests();
        if nth < 2 {
            world.provider.rotate();
            let token = world.token();
            crate::support::until(|| world.provider.jwks_requests() == fetches).await;
            assert!([200, 401].contains(&world.status(&token).await));
        }
    }
    assert!(world.provider.jwks_requests() <= 3, "{}", world.provider.jwks_requests());
}

#[tokio::test]
async fn failed_fetches_are_charged_too() {
    for fault in [Fault::Status(500), Fault::html(), Fault::HangUp] {
        let world = World::warm().await;
        world.provider.fail(ProviderEndpoint::Jwks, fault.clone());
        for _ in 0..100 {
            // The last fetch failed, so the provider may have published the key.
            assert_eq!(world.unknown_kid().await, 503, "{fault:?}");
        }
        assert_eq!(world.provider.jwks_requests(), 1 + 2, "{fault:?}");
        assert_eq!(world.good().await, 200, "{fault:?}");

        world.provider.heal(ProviderEndpoint::Jwks);
        world.clock.advance(PAST_BACKOFF);
        world.until_state(KeyState::Fresh).await;
        assert_eq!(world.unknown_kid().await, 401, "{fault:?}");
    }
}

#[tokio::test]
async fn rotation_during_outage_answers_503() {
    let mut world = World::warm().await;
    let before = world.token();
    world.provider.rotate();
    world.provider.pause().await;
    let error = world.auth.authenticate(&world.token()).await.unwrap_err();
    assert_eq!(error.status(), 503);
    assert!(error.retry_after().unwrap() >= Duration::from_secs(1));
    assert_eq!(world.status(&before).await, 200, "the old key still verifies");
    world.provider.resume().await;
    world.clock.advance(PAST_BACKOFF);
    assert_eq!(world.good().await, 200);
}

#[tokio::test]
async fn key_replaced_under_same_kid_is_found() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256] {
        let world = World::warm().await;
        let old = world.token();
        assert_eq!(world.status(&old).await, 200);
        let kid = world.provider.kid();
        world.provider.remove_key(&kid);
        world.provider.rotate_to(SigningKey::with_kid(algorithm, kid));
        let new = world.provider.token().algorithm(algorithm).sign();
        assert_eq!(
            (world.status(&new).await, world.provider.jwks_requests()),
            (200, 2),
            "{algorithm}"
        );
        assert_ne!(world.status(&old).await, 200, "{algorithm}");
    }
}

#[tokio::test]
async fn bad_signatures_share_the_unknown_keys_budget() {
    let world = World::warm().await;
    let foreign = SigningKey::with_kid(Algorithm::ES256, world.provider.kid());
    let token = world.provider.token().signed_by(&foreign).sign();
    for _ in 0..10 {
        assert_eq!(outcome(&world.auth, &token).await, "token_signature");
        assert_eq!(world.unknown_kid().await, 401);
    }
    assert_eq!(world.provider.jwks_requests(), 1 + 2);
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    for _ in 0..10 {
        world.clock.advance(COOLDOWN);
        assert_eq!(outcome(&world.auth, &token).await, "token_signature", "not 503");
    }
}

#[tokio::test]
async fn rotation_after_flood_takes_five_seconds() {
    let world = World::warm().await;
    for _ in 0..100 {
        assert_eq!(world.unknown_kid().await, 401);
    }
    let fetches = world.provider.jwks_requests();
    world.provider.rotate();
    world.provider.remove_old_keys();
    for _ in 0..4 {
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.good().await, 401);
    }
    assert_eq!(world.provider.jwks_requests(), fetches, "no further fetch");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, fetches + 1));
}

#[tokio::test]
async fn token_with_bad_claims_causes_no_fetch() {
    let world = World::warm().await;
    let key = SigningKey::generate(Algorithm::ES256);
    let unknown_kid = || world.provider.token().signed_by(&key);
    for token in [
        unknown_kid().expired().sign(),
        unknown_kid().audience("another").sign(),
        unknown_kid().issuer("https://another.example").sign(),
        unknown_kid().kid(Some(&"k".repeat(257))).sign(),
        unknown_kid().header("alg", "none").sign(),
    ] {
        assert_eq!(world.status(&token).await, 401, "{token}");
    }
    assert_eq!(world.provider.jwks_requests(), 1);
}

#[tokio::test]
async fn issuers_have_separate_budgets() {
    let (a, b) = (World::warm().await, super::fixture::provider().await.0);
    a.auth.issuers().add(super::fixture::trust(&b)).unwrap();
    for _ in 0..10 {
        assert_eq!(a.unknown_kid().await, 401);
    }
    assert_eq!(a.status(&token(&b)).await, 200);
    b.rotate();
    assert_eq!(a.status(&token(&b)).await, 200);
    assert_eq!((a.provider.jwks_requests(), b.jwks_requests()), (3, 2));
}

#[tokio::test]
async fn running_fetch_is_awaited_despite_empty_budget() {
    let world = World::with(|mut settings| {
        settings.cooldown = Duration::from_secs(24 * 3600);
        settings
    });
    let world = world.await.warmed().await;
    for _ in 0..3 {
        assert_eq!(world.unknown_kid().await, 401);
    }
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    world.clock.advance(PAST_TTL);
    assert_eq!(world.good().await, 200);
    world.provider.wait_for_jwks_requests(4).await;
    world.provider.rotate();
    let mut good = pin!(world.good());
    assert!(poll_fn(|context| Poll::Ready(good.as_mut().poll(context))).await.is_pending());
    world.provider.heal(ProviderEndpoint::Jwks);
    assert_eq!(good.await, 200);
    assert_eq!((world.unknown_kid().await, world.provider.jwks_requests()), (401, 4));
}
