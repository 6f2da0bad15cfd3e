//! Algorithms are limited by issuer and key; key ids only select keys.

use scaikey_auth::Auth;
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint, SigningKey};
use serde_json::{Value, json};

use super::fixture::{World, outcome, provider, service, small_auth, status, trust};

async fn of_all() -> (Provider, Auth) {
    let provider = Provider::builder().algorithms(Algorithm::ALL).start().await;
    let config = trust(&provider).algorithms(Algorithm::ALL);
    let auth = small_auth().issuer(config).audience("scaiwave").build().unwrap();
    (provider, auth)
}

fn is_ml_dsa(algorithm: Algorithm) -> bool {
    algorithm.as_str().starts_with("ML-DSA")
}

/// Serves the keys without these members.
fn stripped(members: &'static [&'static str]) -> Fault {
    Fault::rewrite(move |mut set| {
        for key in set["keys"].as_array_mut().unwrap() {
            for member in members {
                key.as_object_mut().unwrap().remove(*member);
            }
        }
        set.to_string()
    })
}

#[tokio::test]
async fn every_algorithm_verifies_without_key_alg() {
    for fault in [None, Some(stripped(&["alg"])), Some(stripped(&["alg", "use"]))] {
        let (provider, auth) = of_all().await;
        if let Some(fault) = &fault {
            provider.fail(ProviderEndpoint::Jwks, fault.clone());
        }
        for algorithm in Algorithm::ALL {
            // The key type of ML-DSA requires `alg` (RFC 9964 §3).
            let expected = if fault.is_some() && is_ml_dsa(algorithm) { 401 } else { 200 };
            let token = provider.token().algorithm(algorithm).sign();
            assert_eq!(status(&auth, &token).await, expected, "{algorithm} {fault:?}");
        }
        let unusable = auth.issuers().health()[0].unusable_keys;
        assert_eq!(unusable, if fault.is_some() { 3 } else { 0 });
    }
}

#[tokio::test]
async fn issuer_is_limited_to_its_algorithms() {
    let provider =
        Provider::builder().algorithms([Algorithm::ES256, Algorithm::RS256]).start().await;
    let config = trust(&provider).algorithms([Algorithm::ES256]);
    let auth = small_auth().issuer(config).audience("scaiwave").build().unwrap();
    let good = provider.token().algorithm(Algorithm::ES256).sign();
    let other = provider.token().algorithm(Algorithm::RS256).sign();
    assert_eq!(outcome(&auth, &other).await, "token_algorithm");
    assert_eq!(provider.jwks_requests(), 0, "refused before a key was needed");
    assert_eq!(outcome(&auth, &good).await, "accepted");
    let health = auth.issuers().health().remove(0);
    assert_eq!((health.keys, health.unusable_keys), (1, 1));
}

#[tokio::test]
async fn key_is_limited_to_its_alg() {
    let (provider, auth) = of_all().await;
    let (rs256, ps256) = (Algorithm::RS256, Algorithm::PS256);
    let name = provider.key_for(ps256).kid().to_owned();
    // A good RS256 signature with the key id of a PS256 key.
    let token = provider.token().algorithm(rs256).kid(Some(&name)).sign();
    assert_eq!(outcome(&auth, &token).await, "token_algorithm");
    assert_eq!(provider.jwks_requests(), 1, "the set of this request's fetch is not fetched again");
}

#[tokio::test]
async fn token_without_kid_tries_fitting_keys() {
    let (provider, clock) = provider().await;
    for _ in 0..3 {
        provider.rotate();
    }
    let first = provider.kids()[0].clone();
    let auth = service([trust(&provider)], &clock);
    let without_kid = |provider: &Provider| provider.token().kid(None).sign();
    assert_eq!(status(&auth, &without_kid(&provider)).await, 200);
    provider.remove_key(&first);
    assert_eq!(status(&auth, &without_kid(&provider)).await, 200);
    let other_key = SigningKey::generate(Algorithm::ES256);
    let forged = provider.token().signed_by(&other_key).kid(None).sign();
    assert_eq!(status(&auth, &forged).await, 401);
}

#[tokio::test]
async fn rotation_refuses_no_token_without_kid() {
    let world = World::warm().await;
    world.provider.rotate();
    world.provider.remove_old_keys();
    let token = world.provider.token().kid(None).sign();
    assert_eq!((world.status(&token).await, world.provider.jwks_requests()), (200, 2));
}

#[tokio::test]
async fn forged_tokens_without_kid_share_the_budget() {
    let world = World::warm().await;
    let other_key = SigningKey::generate(Algorithm::ES256);
    let forged = world.provider.token().signed_by(&other_key).kid(None).sign();
    for _ in 0..100 {
        assert_eq!(world.status(&forged).await, 401);
    }
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, 3));
}

#[tokio::test]
async fn key_without_kid_requires_token_without_kid() {
    let (provider, clock) = provider().await;
    provider.fail(ProviderEndpoint::Jwks, stripped(&["kid"]));
    let auth = service([trust(&provider)], &clock);
    assert_eq!(status(&auth, &provider.token().kid(None).sign()).await, 200);
    let with_kid = provider.token().sign();
    assert_eq!(outcome(&auth, &with_kid).await, "token_key_unknown", "the kid must be published");
}

#[tokio::test]
async fn keys_may_share_a_kid() {
    let (provider, clock) = provider().await;
    let keys = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES256].map(|algorithm| {
        let key = SigningKey::with_kid(algorithm, "same");
        provider.rotate_to(key.clone());
        key
    });
    let auth = service([trust(&provider)], &clock);
    for key in &keys {
        let token = provider.token().signed_by(key).sign();
        assert_eq!(status(&auth, &token).await, 200, "{key:?}");
    }
    let other_key = SigningKey::with_kid(Algorithm::ES256, "same");
    let forged = provider.token().signed_by(&other_key).sign();
    assert_eq!(provider.jwks_requests(), 1);
    assert_eq!(outcome(&auth, &forged).await, "token_signature");
}

#[tokio::test]
async fn published_secret_is_not_used() {
    use scaikey_auth::testing::BadKey;
    let (provider, clock) = provider().await;
    provider.fail(ProviderEndpoint::Jwks, Fault::bad_key(BadKey::Symmetric));
    let auth = service([trust(&provider)], &clock);
    let named = provider.token().kid(Some(BadKey::KID)).sign();
    assert_eq!(outcome(&auth, &named).await, "token_key_unknown");
    let header = provider.token().header("alg", "HS256").kid(Some(BadKey::KID)).sign();
    assert_eq!(outcome(&auth, &header).await, "token_algorithm");
}

#[tokio::test]
async fn one_good_key_among_many_is_found() {
    let (provider, clock) = provider().await;
    provider.fail(
        ProviderEndpoint::Jwks,
        Fault::rewrite(|good| {
            let unsupported = |nth| json!({ "kty": "AKP", "kid": format!("unsupported-{nth}") });
            let mut keys: Vec<Value> = (0..99).map(unsupported).collect();
            keys.extend(good["keys"].as_array().unwrap().iter().cloned());
            json!({ "keys": keys }).to_string()
        }),
    );
    let auth = service([trust(&provider)], &clock);
    assert_eq!(status(&auth, &provider.token().sign()).await, 200);
    assert_eq!(auth.issuers().health()[0].unusable_keys, 99);
}

/// Signs with a key that is published with these changes to its JWK.
async fn outcome_with(change: fn(&mut Value)) -> (&'static str, &'static str) {
    let (provider, auth) = of_all().await;
    let ml_dsa = provider.key_for(Algorithm::MLDSA65);
    let kid = ml_dsa.kid().to_owned();
    provider.fail(
        ProviderEndpoint::Jwks,
        Fault::rewrite(move |mut set| {
            let keys = set["keys"].as_array_mut().unwrap();
            change(keys.iter_mut().find(|key| key["kid"] == *kid).unwrap());
            set.to_string()
        }),
    );
    let token = |algorithm| provider.token().algorithm(algorithm).sign();
    let changed = outcome(&auth, &token(Algorithm::MLDSA65)).await;
    (changed, outcome(&auth, &token(Algorithm::ES256)).await)
}

/// A change of a JWK.
type Change = fn(&mut Value);

#[tokio::test]
async fn malformed_ml_dsa_key_affects_no_other() {
    let changes: [(&str, Change, &str); 9] = [
        ("none", |_| {}, "accepted"),
        ("no alg", |key| drop(key.as_object_mut().unwrap().remove("alg")), "token_key_unknown"),
        ("alg a number", |key| key["alg"] = json!(-49), "token_key_unknown"),
        ("other set", |key| key["alg"] = json!("ML-DSA-44"), "token_key_unknown"),
        ("other type", |key| key["kty"] = json!("OKP"), "token_key_unknown"),
        ("private", |key| key["priv"] = json!("AAAA"), "token_key_unknown"),
        ("for encryption", |key| key["use"] = json!("enc"), "token_key_unknown"),
        (
            "a byte short",
            |key| {
                let public = key["pub"].as_str().unwrap();
                key["pub"] = json!(public[..public.len() - 1]);
            },
            "token_key_unknown",
        ),
        ("other key", |key| key["pub"] = json!("A".repeat(2603)), "token_signature"),
    ];
    for (name, change, expected) in changes {
        let outcomes = outcome_with(change).await;
        assert_eq!(outcomes, (expected, "accepted"), "{name}");
    }
}

#[tokio::test]
async fn ml_dsa_is_not_a_default() {
    let algorithms = [Algorithm::ES256, Algorithm::MLDSA44, Algorithm::MLDSA65, Algorithm::MLDSA87];
    let provider = Provider::builder().algorithms(algorithms).start().await;
    let auth = small_auth().issuer(trust(&provider)).audience("scaiwave").build().unwrap();
    for algorithm in algorithms {
        let expected = if is_ml_dsa(algorithm) { "token_algorithm" } else { "accepted" };
        let token = provider.token().algorithm(algorithm).sign();
        assert_eq!(outcome(&auth, &token).await, expected, "{algorithm}");
    }
    let health = auth.issuers().health().remove(0);
    assert_eq!((health.keys, health.unusable_keys), (1, 3));
    assert!(health.unusable.iter().all(|key| !key.is_fault), "{:?}", health.unusable);
}
