//! Cached verified tokens are refused as soon as a full verification would refuse them.

use std::time::Duration;

use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, IssuerConfig};

use super::fixture::{PAST_TTL, World, outcome, provider, service, token, trust};
use super::tenant_fixture::TenantWorld;
use crate::support::until;

fn hits(auth: &Auth) -> u64 {
    auth.verified_tokens().stats().hits
}

/// Sends the token until it is cached.
async fn cache(auth: &Auth, token: &str) {
    auth.authenticate(token).await.unwrap();
    let before = hits(auth);
    auth.authenticate(token).await.unwrap();
    assert_eq!(hits(auth), before + 1, "the token is not cached");
}

/// Returns the outcome, and checks that it is not from the cache.
async fn uncached_outcome(auth: &Auth, token: &str) -> &'static str {
    let before = hits(auth);
    let outcome = outcome(auth, token).await;
    assert_eq!(hits(auth), before, "from the cache: {outcome}");
    outcome
}

#[tokio::test]
async fn removed_key_ends_cached_tokens() {
    let world = World::warm().await;
    let old = world.token();
    cache(&world.auth, &old).await;
    world.provider.rotate();
    let new = world.token();
    world.auth.authenticate(&new).await.unwrap();
    cache(&world.auth, &new).await;
    cache(&world.auth, &old).await;
    world.provider.remove_old_keys();
    world.clock.advance(PAST_TTL);
    world.until_state(KeyState::Fresh).await;
    assert_eq!(uncached_outcome(&world.auth, &old).await, "token_key_unknown");
    let before = hits(&world.auth);
    world.auth.authenticate(&new).await.unwrap();
    assert_eq!(hits(&world.auth), before + 1, "tokens of the other key stay cached");
}

#[tokio::test]
async fn cached_tokens_keep_keys_refreshed() {
    let world = World::warm().await;
    let old = world.token();
    cache(&world.auth, &old).await;
    world.provider.rotate();
    world.provider.remove_old_keys();
    world.clock.advance(PAST_TTL);
    // No health report and no other token triggers a refresh.
    assert_eq!(world.status(&old).await, 200, "the removal is not known yet");
    world.provider.wait_for_jwks_requests(2).await;
    let mut refused = false;
    for _ in 0..1000 {
        refused = world.status(&old).await == 401;
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(refused, "the removed key still verifies");
}

#[tokio::test]
async fn dead_key_set_ends_cached_tokens() {
    let mut world = World::with(|mut settings| {
        settings.max_stale = Duration::from_secs(1000);
        settings
    })
    .await
    .warmed()
    .await;
    let token = world.token();
    cache(&world.auth, &token).await;
    world.provider.pause().await;
    world.clock.advance(PAST_TTL);
    assert_eq!(world.status(&token).await, 200);
    world.until_state(KeyState::Stale).await;
    let before = hits(&world.auth);
    assert_eq!(world.status(&token).await, 200);
    assert_eq!(hits(&world.auth), before + 1, "cached between two attempts");
    world.clock.advance(Duration::from_secs(1000) - PAST_TTL - Duration::from_millis(1));
    // The next attempt is after the end of the key set's life.
    assert_eq!(world.status(&token).await, 200);
    until(|| world.pause() > Duration::from_millis(1)).await;
    cache(&world.auth, &token).await;
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(uncached_outcome(&world.auth, &token).await, "unavailable");
}

#[tokio::test]
async fn purge_ends_cached_tokens() {
    let mut world = World::warm().await;
    let token = world.token();
    cache(&world.auth, &token).await;
    world.auth.issuers().purge(&world.provider.issuer());
    assert_eq!(uncached_outcome(&world.auth, &token).await, "accepted");
    cache(&world.auth, &token).await;
    world.provider.pause().await;
    world.auth.issuers().purge(&world.provider.issuer());
    assert_eq!(uncached_outcome(&world.auth, &token).await, "unavailable");
}

#[tokio::test]
async fn removed_issuer_ends_cached_tokens() {
    let world = World::warm().await;
    let (token, issuers) = (world.token(), world.auth.issuers());
    cache(&world.auth, &token).await;
    issuers.remove(&world.provider.issuer());
    assert_eq!(uncached_outcome(&world.auth, &token).await, "token_issuer");
    issuers.add(trust(&world.provider)).unwrap();
    assert_eq!(uncached_outcome(&world.auth, &token).await, "accepted");
    cache(&world.auth, &token).await;
}

#[tokio::test]
async fn replaced_issuer_configuration_applies_to_cached_tokens() {
    let world = World::warm().await;
    let token = world.token();
    let replace = |config: IssuerConfig| world.auth.issuers().add(config).unwrap();
    let trusted = || trust(&world.provider);
    let table = [
        (trusted().audience("another"), "token_audience"),
        (trusted().algorithms([scaikey_auth::config::Algorithm::RS256]), "token_algorithm"),
        (trusted().max_token_lifetime(Duration::from_secs(60)), "token_claim_malformed"),
        (trusted().tenants([scaikey_auth::TenantId::new("else").unwrap()]), "token_issuer_tenant"),
    ];
    for (config, reason) in table {
        cache(&world.auth, &token).await;
        replace(config);
        assert_eq!(uncached_outcome(&world.auth, &token).await, reason);
        replace(trusted());
    }
    cache(&world.auth, &token).await;
    let (other, _) = provider().await;
    world.auth.issuers().add(trust(&other)).unwrap();
    let before = hits(&world.auth);
    world.auth.authenticate(&token).await.unwrap();
    assert_eq!(hits(&world.auth), before + 1, "another issuer does not clear the cache");
}

#[tokio::test]
async fn template_change_ends_cached_tokens() {
    let world = TenantWorld::new().await;
    let acme = &world.acme;
    let token = token(acme);
    cache(&world.auth, &token).await;
    world.auth.issuers().purge(&acme.issuer());
    assert_eq!(uncached_outcome(&world.auth, &token).await, "accepted");
    cache(&world.auth, &token).await;
    // An issuer with an exact name takes precedence over the template.
    world.auth.issuers().add(trust(acme).audience("another").jwks_uri(acme.jwks_uri())).unwrap();
    assert_eq!(uncached_outcome(&world.auth, &token).await, "token_audience");
    world.auth.issuers().remove(&acme.issuer());
    assert_eq!(uncached_outcome(&world.auth, &token).await, "accepted");
    cache(&world.auth, &token).await;
    world.auth.issuers().remove(&format!("{}/tenants/{{tenant_id}}", world.provider.url()));
    assert_eq!(uncached_outcome(&world.auth, &token).await, "token_issuer");
}

#[tokio::test]
async fn services_do_not_share_cached_tokens() {
    let (provider, clock) = provider().await;
    let services = ["one", "other"].map(|_| service([trust(&provider)], &clock));
    let token = token(&provider);
    cache(&services[0], &token).await;
    assert_eq!(uncached_outcome(&services[1], &token).await, "accepted");
}

/// Threads use cached tokens while their keys are removed. After each removal, no token passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_cached_tokens_end_with_key() {
    let world = World::with(|mut settings| {
        settings.wait = Duration::from_secs(60);
        settings
    })
    .await
    .warmed()
    .await;
    for round in 0..20 {
        let old = world.token();
        cache(&world.auth, &old).await;
        let busy: Vec<_> = (0..3)
            .map(|_| {
                let (auth, token) = (world.auth.clone(), old.clone());
                tokio::spawn(async move {
                    while auth.authenticate(&token).await.is_ok() {
                        tokio::task::yield_now().await;
                    }
                    // Once refused, always refused.
                    for _ in 0..50 {
                        assert!(auth.authenticate(&token).await.is_err());
                    }
                })
            })
            .collect();
        rotate(&world.provider);
        match round % 2 {
            0 => world.auth.issuers().purge(&world.provider.issuer()),
            _ => {
                world.clock.advance(PAST_TTL);
                world.until_state(KeyState::Fresh).await;
            }
        }
        until(|| busy.iter().all(|task| task.is_finished())).await;
        for task in busy {
            task.await.unwrap();
        }
    }
}

fn rotate(provider: &Provider) {
    provider.rotate();
    provider.remove_old_keys();
}
