//! Tokens seen before: the same answers as the first time, at a fraction of the price.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use scaikey_auth::testing::{SigningKey, forge};
use scaikey_auth::{
    Algorithm, Auth, KnownTokensStats, MemoryTenants, Tenant, TenantStatus, TokenProfile, scope,
};
use serde_json::json;

use crate::support::{Server, World, tenant_id};

/// The stable name of the refusal, or who was accepted with which claims.
async fn answer(auth: &Auth, token: &str) -> String {
    match auth.authenticate(token).await {
        Ok(context) => {
            let claims: serde_json::Value = context.identity().claims().unwrap();
            format!("{:?} {claims}", context.identity())
        }
        Err(error) => error.reason().to_owned(),
    }
}

fn hits(auth: &Auth) -> u64 {
    auth.known_tokens().stats().hits
}

#[tokio::test]
async fn a_token_is_verified_once_and_known_from_then_on() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let token = world.provider.token().scope("a b").sign();
    let first = answer(&auth, &token).await;
    assert_eq!(hits(&auth), 0);
    for n in 1..10 {
        assert_eq!(answer(&auth, &token).await, first);
        assert_eq!(hits(&auth), n);
    }
    let stats = auth.known_tokens().stats();
    assert_eq!((stats.tokens, stats.displaced), (1, 0));
    assert!(stats.hit_rate().unwrap() > 0.5, "{stats:?}");
    let printed = format!("{auth:?} {:?}", auth.known_tokens());
    assert!(!printed.contains("alice") && !printed.contains(&token[..20]), "{printed}");
}

/// One good token for each algorithm is known; texts made from it are not.
#[tokio::test]
async fn a_text_that_differs_anywhere_is_another_token() {
    let world = World::with([Algorithm::RS256, Algorithm::Ed25519]).await;
    let auth = world.auth().build().unwrap();
    for algorithm in [Algorithm::RS256, Algorithm::Ed25519] {
        let token = world.provider.token().algorithm(algorithm).sign();
        let known = answer(&auth, &token).await;
        assert_eq!(answer(&auth, &token).await, known);
        let before = hits(&auth);
        let last = token.as_bytes()[token.len() - 1];
        let mut variants = vec![
            token.to_ascii_uppercase(),
            token.to_ascii_lowercase(),
            token.replacen('.', "..", 1),
            token.replace('-', "+").replace('_', "/"),
            format!("{token}."),
            format!("{token}="),
            format!("{token}=="),
            format!(" {token}"),
            format!("{token}\n"),
            format!("{token}{token}"),
            // The same signature with spare bits set: another spelling of the same octets.
            format!("{}{}", &token[..token.len() - 1], (last + 1) as char),
        ];
        variants.extend((0..token.len()).step_by(7).map(|end| token[..end].to_owned()));
        for variant in variants.iter().filter(|variant| **variant != token) {
            let refused = auth.authenticate(variant).await;
            assert!(refused.is_err(), "{variant}");
        }
        assert_eq!(hits(&auth), before);
        assert_eq!(answer(&auth, &token).await, known);
    }
}

#[test]
fn no_edit_of_a_known_token_is_taken_for_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::with([Algorithm::RS256]));
    let auth = world.auth().build().unwrap();
    let tokens: Vec<_> =
        ["a", "b"].map(|subject| world.provider.token().subject(subject).sign()).into();
    for token in [&tokens[0], &tokens[1], &tokens[0]] {
        runtime.block_on(auth.authenticate(token)).unwrap();
    }
    let edit = (0..2_usize, any::<prop::sample::Index>(), 0..6_usize, any::<char>());
    let mut runner =
        TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&edit, |(which, at, kind, letter)| {
        let (token, other) = (&tokens[which], &tokens[1 - which]);
        let at = at.index(token.len());
        let edited = match kind {
            0 => format!("{}{letter}{}", &token[..at], &token[at + 1..]),
            1 => format!("{}{letter}{}", &token[..at], &token[at..]),
            2 => format!("{}{}", &token[..at], &token[at + 1..]),
            3 => token[..at].to_owned(),
            4 => format!("{}{}", &token[..at], &other[at..]),
            _ => token[at..].to_owned(),
        };
        if !tokens.contains(&edited) {
            let before = hits(&auth);
            prop_assert!(runtime.block_on(auth.authenticate(&edited)).is_err());
            prop_assert_eq!(hits(&auth), before);
        }
        Ok(())
    });
    outcome.unwrap();
}

/// Beside a service that remembers nothing, through the whole life of some tokens and back.
#[tokio::test]
async fn time_is_judged_each_time_as_it_was_the_first_time() {
    let world = World::new().await;
    let (knows, forgets) =
        (world.auth().build().unwrap(), world.auth().known_tokens_bytes(0).build().unwrap());
    let start = scaikey_auth::Clock::now(&world.clock);
    let now = start.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let token = || world.provider.token();
    let tokens = [
        token().claim("exp", now + 100).sign(),
        token().claim("exp", now as f64 + 100.25).sign(),
        token().claim("exp", now + 100).claim("nbf", now + 30).sign(),
        token().claim("exp", now + 100).claim("nbf", now - 30).sign(),
        token().claim("exp", now + 100).claim("iat", now + 59).sign(),
        token().claim("exp", now + 100).without("iat").sign(),
    ];
    for token in &tokens {
        let first = answer(&forgets, token).await;
        assert_eq!(answer(&knows, token).await, first);
        assert_eq!(answer(&knows, token).await, first);
    }
    assert_eq!(hits(&knows), tokens.len() as u64);
    let moments = [0, 50_000, 99_999, 159_999, 160_000, 160_249, 160_250, 161_000, 10_000_000];
    let back = [-1_000, -29_000, -30_001, -89_000, -90_001, -100_000, 0];
    let mut accepted = 0;
    for millis in moments.into_iter().chain(back) {
        let offset = Duration::from_millis(i64::unsigned_abs(millis));
        world.clock.set_wall(if millis < 0 { start - offset } else { start + offset });
        for (nth, token) in tokens.iter().enumerate() {
            let first = answer(&forgets, token).await;
            assert_eq!(answer(&knows, token).await, first, "token {nth} at {millis} ms");
            accepted += u64::from(first.starts_with("Identity"));
        }
    }
    assert_eq!((hits(&knows) - tokens.len() as u64, hits(&forgets)), (accepted, 0));
    assert!(accepted > 20, "{accepted}");
}

#[tokio::test]
async fn a_token_may_be_flushed_with_its_tenant_or_with_all() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let token = |tenant| world.provider.token().tenant(tenant).sign();
    let (acme, other) = (token("acme"), token("other"));
    let known = async || {
        for token in [&acme, &other] {
            auth.authenticate(token).await.unwrap();
        }
        auth.known_tokens().stats().tokens
    };
    assert_eq!(known().await, 2);
    auth.known_tokens().flush_tenant(&tenant_id("nobody"));
    assert_eq!(auth.known_tokens().stats().tokens, 2);
    auth.known_tokens().flush_tenant(&tenant_id("acme"));
    assert_eq!(auth.known_tokens().stats().tokens, 1);
    let before = hits(&auth);
    auth.authenticate(&acme).await.unwrap();
    assert_eq!(hits(&auth), before, "verified anew");
    auth.authenticate(&acme).await.unwrap();
    assert_eq!(hits(&auth), before + 1);
    assert_eq!(known().await, 2);
    auth.known_tokens().flush();
    assert_eq!(auth.known_tokens().stats().tokens, 0);
    let before = hits(&auth);
    assert_eq!((known().await, hits(&auth)), (2, before));
}

#[tokio::test]
async fn switched_off_nothing_is_remembered() {
    let world = World::new().await;
    let auth = world.auth().known_tokens_bytes(0).build().unwrap();
    let token = world.provider.token().sign();
    for _ in 0..3 {
        auth.authenticate(&token).await.unwrap();
    }
    assert_eq!(auth.known_tokens().stats(), KnownTokensStats::default());
    assert_eq!(auth.known_tokens().stats().hit_rate(), None);
    auth.known_tokens().flush();
    auth.known_tokens().flush_tenant(&tenant_id("acme"));
}

#[tokio::test]
async fn a_flood_of_good_tokens_stays_within_the_limit_and_displaces_nobody_in_use() {
    let world = World::new().await;
    for limit in [1, 3_000, 50_000] {
        let auth = world.auth().known_tokens_bytes(limit).build().unwrap();
        let regular = world.provider.token().sign();
        auth.authenticate(&regular).await.unwrap();
        for n in 0..300 {
            let token = world.provider.token().subject(&format!("subject-{n}")).sign();
            auth.authenticate(&token).await.unwrap();
            auth.authenticate(&regular).await.unwrap();
            let stats = auth.known_tokens().stats();
            assert!(stats.tokens == 0 || stats.bytes <= limit, "{stats:?}");
            assert_eq!(stats.max_bytes, limit);
        }
        let stats = auth.known_tokens().stats();
        assert!(stats.displaced > 200, "{stats:?}");
        assert_eq!(stats.hits, if limit == 1 { 0 } else { 300 }, "{limit}");
    }
}

#[tokio::test]
async fn what_a_known_token_may_do_is_decided_for_each_request() {
    let world = World::new().await;
    let tenants = MemoryTenants::new();
    let tenant = |status| Tenant::with_row(tenant_id("tenant-1"), status, ());
    tenants.insert(tenant(TenantStatus::Active));
    let auth = world.auth().tenants(tenants.clone()).build().unwrap();
    let admin = get(|| async {}).route_layer(auth.require(scope("admin")));
    let app = Router::new().route("/open", get(|| async {})).route("/admin", admin);
    let server = Server::axum(app.layer(auth.layer())).await;
    let token = world.provider.token().scope("read").sign();
    let codes = async || {
        let (open, admin) =
            (server.get_as("/open", &token).await, server.get_as("/admin", &token).await);
        (open.code(), admin.code())
    };
    assert_eq!(codes().await, (200, 403));
    assert_eq!(codes().await, (200, 403));
    tenants.insert(tenant(TenantStatus::Suspended));
    assert_eq!(codes().await, (403, 403));
    tenants.remove(&tenant_id("tenant-1"));
    assert_eq!(codes().await, (403, 403));
    tenants.insert(tenant(TenantStatus::Active));
    assert_eq!(codes().await, (200, 403));
    assert_eq!(hits(&auth), 9);
}

/// What an honest signer would have made of the same header and claims.
fn twins(token: &str, keys: &[SigningKey]) -> Vec<String> {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part));
    let (Some(Ok(header)), Some(Ok(payload))) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let good = |algorithm: Algorithm, key: &SigningKey| {
        json!({ "alg": algorithm.as_str(), "kid": key.kid(), "typ": "JWT" }).to_string()
    };
    keys.iter()
        .flat_map(|key| {
            [key.token(&header, &payload), key.token(good(key.algorithm(), key), &payload)]
        })
        .collect()
}

/// The forged tokens again, after everything good that is near them: all honest tokens, and each
/// forgery's header and claims under a good signature.
#[tokio::test]
async fn forgeries_of_known_tokens_are_refused_for_the_same_reason_as_before() {
    let world = World::with(Algorithm::ALL).await;
    let keys: Vec<_> =
        [Algorithm::RS256, Algorithm::ES256].map(|alg| world.provider.key_for(alg)).into();
    for (profile, forged, honest) in [
        (TokenProfile::Lenient, forge::all(&world.provider), forge::accepted(&world.provider)),
        (
            TokenProfile::Rfc9068,
            forge::rfc9068(&world.provider),
            forge::rfc9068_accepted(&world.provider),
        ),
    ] {
        let service = || world.auth_with(world.issuer().profile(profile));
        let fresh = service().known_tokens_bytes(0).build().unwrap();
        let warm = service().build().unwrap();
        for auth in [&fresh, &warm] {
            auth.ready().await.unwrap();
        }
        let mut first = Vec::new();
        for forged in &forged {
            first.push(answer(&fresh, &forged.token).await);
        }
        for round in 1..=2 {
            for honest in &honest {
                warm.authenticate(&honest.token).await.unwrap();
            }
            assert!(hits(&warm) >= (round - 1) * honest.len() as u64);
            let mut accepted = 0;
            for (forged, first) in forged.iter().zip(&first) {
                for twin in twins(&forged.token, &keys).iter().filter(|t| **t != forged.token) {
                    accepted += u64::from(warm.authenticate(twin).await.is_ok());
                    accepted += u64::from(warm.authenticate(twin).await.is_ok());
                }
                assert!(!first.starts_with("Identity"), "{}", forged.name);
                for _ in 0..2 {
                    assert_eq!(&answer(&warm, &forged.token).await, first, "{}", forged.name);
                }
            }
            assert!(profile != TokenProfile::Lenient || accepted > 100, "{accepted}");
        }
    }
}
