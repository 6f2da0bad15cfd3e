//! Members of published keys: issuer, validity, and certificate.

use std::time::Duration;

use scaikey_auth::clock::Clock;
use scaikey_auth::config::Algorithm;
use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{BadKey, Fault, ProviderEndpoint, SigningKey, TestIssuer};
use serde_json::{Value, json};

use super::fixture::{PAST_TTL, World, outcome, provider, service, status, token, trust};
use super::tenant_fixture::TenantWorld;
use crate::support::Log;
use crate::support::until;

/// Adds a member to every key of the set, or replaces it.
fn member(name: &'static str, value: impl Into<Value>) -> Fault {
    let value = value.into();
    Fault::rewrite(move |mut set| {
        for key in set["keys"].as_array_mut().unwrap() {
            key[name] = value.clone();
        }
        set.to_string()
    })
}

#[tokio::test]
async fn key_of_another_issuer_verifies_nothing() {
    let (provider, clock) = provider().await;
    let own = provider.issuer();
    for (published, expected) in [
        (json!(own), "accepted"),
        (json!(format!("{own}/")), "token_key_unknown"),
        (
            json!("https://login.example/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"),
            "token_key_unknown",
        ),
    ] {
        provider.fail(ProviderEndpoint::Jwks, member("issuer", published.clone()));
        let auth = service([trust(&provider)], &clock);
        assert_eq!(outcome(&auth, &token(&provider)).await, expected, "{published}");
    }
}

#[tokio::test]
async fn key_of_a_template_verifies_its_tenants() {
    let world = TenantWorld::new().await;
    let template = format!("{}/tenants/{{tenantid}}", world.provider.url());
    world.acme.fail(ProviderEndpoint::Jwks, member("issuer", template));
    world.globex.fail(ProviderEndpoint::Jwks, member("issuer", world.acme.issuer()));
    assert_eq!(outcome(&world.auth, &token(&world.acme)).await, "accepted");
    assert_eq!(outcome(&world.auth, &token(&world.globex)).await, "token_key_unknown");
}

#[tokio::test]
async fn key_is_valid_until_exp() {
    let world = World::new().await;
    let now = unix_seconds(&world);
    world.provider.fail(ProviderEndpoint::Jwks, member("exp", now + 100));
    let token = world.token();
    assert_eq!(world.status(&token).await, 200);
    // The leeway is 60 s.
    world.clock.advance(Duration::from_secs(159));
    assert_eq!(world.status(&token).await, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(outcome(&world.auth, &token).await, "token_key_unknown", "also a cached token");
}

#[tokio::test]
async fn key_is_valid_from_nbf() {
    let world = World::new().await;
    let now = unix_seconds(&world);
    world.provider.fail(ProviderEndpoint::Jwks, member("nbf", now + 61));
    assert_eq!(outcome(&world.auth, &world.token()).await, "token_key_unknown");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.good().await, 200);
}

fn unix_seconds(world: &World) -> u64 {
    let since = world.clock.now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[tokio::test]
async fn revoked_key_stops_verifying() {
    let world = World::warm().await;
    let (old, token) = (world.provider.kid(), world.token());
    assert_eq!(world.status(&token).await, 200);
    world.provider.rotate();
    world.provider.fail(
        ProviderEndpoint::Jwks,
        Fault::rewrite(move |mut set| {
            let keys = set["keys"].as_array_mut().unwrap().iter_mut();
            for key in keys.filter(|key| key["kid"] == old.as_str()) {
                key["revoked"] = json!({ "revoked_at": 1_700_000_000, "reason": "compromised" });
            }
            set.to_string()
        }),
    );
    world.clock.advance(PAST_TTL);
    assert_eq!(world.good().await, 200);
    until(|| world.state() == KeyState::Fresh).await;
    assert_eq!(outcome(&world.auth, &token).await, "token_key_unknown");
}

#[tokio::test]
async fn rsa_modulus_may_begin_with_zero() {
    let (provider, clock) = provider().await;
    let key = SigningKey::generate(Algorithm::RS256);
    provider.rotate_to(key.clone());
    provider.fail(
        ProviderEndpoint::Jwks,
        Fault::rewrite(|mut set| {
            for key in set["keys"].as_array_mut().unwrap() {
                // Three bytes are four characters, so this adds leading zero bytes.
                if let Some(n) = key["n"].as_str().map(with_leading_zero) {
                    key["n"] = n.into();
                }
            }
            set.to_string()
        }),
    );
    let auth = service([trust(&provider)], &clock);
    let token = provider.token().signed_by(&key).sign();
    assert_eq!(outcome(&auth, &token).await, "accepted");
}

/// Encodes a number as Java's `BigInteger` does if its first bit is set.
fn with_leading_zero(number: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    BASE64.encode([vec![0], BASE64.decode(number).unwrap()].concat())
}

fn broken_and_foreign(mut set: Value) -> String {
    let keys = set["keys"].as_array_mut().unwrap();
    keys.push(json!({ "kty": "RSA", "kid": "short", "n": "3Q", "e": "AQAB" }));
    let public = "A".repeat(2603);
    keys.push(json!({ "kty": "AKP", "kid": "later", "alg": "ML-DSA-65", "pub": public }));
    set.to_string()
}

#[tokio::test]
async fn health_reports_why_keys_are_unusable() {
    let (provider, clock) = provider().await;
    provider.fail(ProviderEndpoint::Jwks, Fault::rewrite(broken_and_foreign));
    let auth = service([trust(&provider)], &clock);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    let health = serde_json::to_value(&auth.issuers().health()[0]).unwrap();
    assert_eq!(health["unusable_keys"], 2);
    assert_eq!(health["unusable"][0]["kid"], "short");
    assert_eq!(health["unusable"][0]["is_fault"], true);
    let reason = health["unusable"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("2048"), "{reason}");
    assert_eq!(health["unusable"][1]["kid"], "later");
    assert_eq!(health["unusable"][1]["is_fault"], false);
}

#[tokio::test]
async fn unusable_keys_are_logged_on_change() {
    let log = Log::start();
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::rewrite(broken_and_foreign));
    let lines = |level: &str| {
        let text = log.text();
        let lines =
            text.lines().filter(|line| line.contains("key set has") && line.contains(level));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for nth in 1..4 {
        assert_eq!(world.good().await, 200);
        until(|| world.provider.jwks_requests() == nth && world.state() == KeyState::Fresh).await;
        let (broken, foreign) = (lines("WARN"), lines("INFO"));
        assert_eq!((broken.len(), foreign.len()), (1, 1), "{}", log.text());
        assert!(broken[0].contains("short") && !broken[0].contains("later"), "{broken:?}");
        world.clock.advance(PAST_TTL);
    }
    let seen = world.provider.jwks_requests();
    world.provider.fail(ProviderEndpoint::Jwks, Fault::bad_key(BadKey::OffCurve));
    assert_eq!(world.good().await, 200);
    until(|| world.provider.jwks_requests() > seen && world.state() == KeyState::Fresh).await;
    assert_eq!(lines("WARN").len(), 2, "the unusable keys changed");
}

/// Publishes this number of keys of one algorithm.
fn publish_keys(issuer: &TestIssuer, keys: usize) -> Vec<SigningKey> {
    let keys: Vec<_> = (0..keys).map(|_| SigningKey::generate(Algorithm::ES256)).collect();
    keys.iter().for_each(|key| issuer.rotate_to(key.clone()));
    keys
}

#[tokio::test]
async fn six_keys_verify_tokens_without_kid() {
    let (provider, clock) = provider().await;
    let keys = publish_keys(&provider, 5);
    let auth = service([trust(&provider)], &clock);
    for key in &keys {
        let token = provider.token().signed_by(key).kid(None).sign();
        assert_eq!(outcome(&auth, &token).await, "accepted", "{key:?}");
    }
    assert_eq!(provider.jwks_requests(), 1);
}

#[tokio::test]
async fn certificate_hash_chooses_among_many_keys() {
    let (provider, clock) = provider().await;
    let keys = publish_keys(&provider, 20);
    provider.fail(
        ProviderEndpoint::Jwks,
        Fault::rewrite(|mut set| {
            for key in set["keys"].as_array_mut().unwrap() {
                let name = key["kid"].take();
                key.as_object_mut().unwrap().remove("kid");
                key["x5t"] = format!("sha1-{}", name.as_str().unwrap()).into();
                key["x5t#S256"] = format!("sha256-{}", name.as_str().unwrap()).into();
            }
            set.to_string()
        }),
    );
    let auth = service([trust(&provider)], &clock);
    for (header, hash) in [("x5t", "sha1"), ("x5t#S256", "sha256")] {
        for key in &keys {
            let named = provider.token().signed_by(key).kid(None);
            let token = named.header(header, format!("{hash}-{}", key.kid())).sign();
            assert_eq!(outcome(&auth, &token).await, "accepted", "{header} {key:?}");
        }
    }
    assert_eq!(provider.jwks_requests(), 1);
    let wrong = provider.token().signed_by(&keys[0]).kid(None).header("x5t", "sha1-other").sign();
    assert_eq!(outcome(&auth, &wrong).await, "token_key_unknown");
}

#[tokio::test]
async fn key_limit_is_logged_once() {
    let log = Log::start();
    let (provider, clock) = provider().await;
    let keys = publish_keys(&provider, 20);
    let auth = service([trust(&provider)], &clock);
    let last = keys.last().unwrap();
    for _ in 0..3 {
        let token = provider.token().signed_by(last).kid(None).sign();
        assert_eq!(outcome(&auth, &token).await, "token_key_unknown");
    }
    let warnings = log.text().matches("match more keys than are tried").count();
    assert_eq!(warnings, 1, "{}", log.text());
}
