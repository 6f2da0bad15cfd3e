//! Cached verified tokens: they get the same answers as on first use.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use scaikey_auth::config::{Algorithm, TokenProfile};
use scaikey_auth::tenant::{MemoryTenants, TenantStatus};
use scaikey_auth::testing::{Provider, SigningKey, forge};
use scaikey_auth::validator::VerifiedTokensStats;
use scaikey_auth::{Auth, Tenant, scope};

use crate::support::{Server, World, tenant_id};

/// Returns the stable name of the refusal, or the accepted identity with its claims.
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
    auth.verified_tokens().stats().hits
}

#[tokio::test]
async fn token_is_verified_once_then_cached() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let token = world.provider.token().scope("a b").sign();
    let first = answer(&auth, &token).await;
    assert_eq!(hits(&auth), 0);
    for n in 1..10 {
        assert_eq!(answer(&auth, &token).await, first);
        assert_eq!(hits(&auth), n);
    }
    let stats = auth.verified_tokens().stats();
    assert_eq!((stats.tokens, stats.evicted), (1, 0));
    assert!(stats.hit_rate().unwrap() > 0.5, "{stats:?}");
    let printed = format!("{auth:?} {:?}", auth.verified_tokens());
    assert!(!printed.contains("alice") && !printed.contains(&token[..20]), "{printed}");
}

/// One good token per algorithm is cached. Changed tokens must not hit the cache.
#[tokio::test]
async fn reencoded_token_misses_the_cache() {
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
            // The same signature with spare bits set: another encoding of the same bytes.
            format!("{}{}", &token[..token.len() - 1], (last + 1) as char),
        ];
        variants.extend((0..token.len()).step_by(7).map(|end| token[..end].to_owned()));
        variants.extend((1..token.len()).step_by(7).map(|start| token[start..].to_owned()));
        // One letter in the other case, and each part padded or with another last character.
        variants.extend((0..token.len()).step_by(5).map(|at| {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= if bytes[at].is_ascii_alphabetic() { 0x20 } else { 1 };
            String::from_utf8(bytes).unwrap()
        }));
        for (dot, _) in token.match_indices('.') {
            let (part, rest) = token.split_at(dot);
            let other = (part.as_bytes()[dot - 1] + 1) as char;
            variants.extend(["=", "==", "\n", "A"].map(|more| format!("{part}{more}{rest}")));
            variants.push(format!("{}{other}{rest}", &part[..dot - 1]));
        }
        for variant in variants.iter().filter(|variant| **variant != token) {
            let refused = auth.authenticate(variant).await;
            assert!(refused.is_err(), "{variant}");
        }
        assert_eq!(hits(&auth), before);
        assert_eq!(answer(&auth, &token).await, known);
    }
}

#[test]
fn randomly_modified_token_misses_the_cache() {
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

/// Compares with a service without the cache, over the whole life of some tokens and back.
#[tokio::test]
async fn cached_token_is_checked_for_time() {
    let world = World::new().await;
    let (cached, uncached) =
        (world.auth().build().unwrap(), world.auth().verified_tokens_bytes(0).build().unwrap());
    let start = scaikey_auth::clock::Clock::now(&world.clock);
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
        let first = answer(&uncached, token).await;
        assert_eq!(answer(&cached, token).await, first);
        assert_eq!(answer(&cached, token).await, first);
    }
    assert_eq!(hits(&cached), tokens.len() as u64);
    let moments = [0, 50_000, 99_999, 159_999, 160_000, 160_249, 160_250, 161_000, 10_000_000];
    let back = [-1_000, -29_000, -30_001, -89_000, -90_001, -100_000, 0];
    let mut accepted = 0;
    for millis in moments.into_iter().chain(back) {
        let offset = Duration::from_millis(i64::unsigned_abs(millis));
        world.clock.set_wall(if millis < 0 { start - offset } else { start + offset });
        for (nth, token) in tokens.iter().enumerate() {
            let first = answer(&uncached, token).await;
            assert_eq!(answer(&cached, token).await, first, "token {nth} at {millis} ms");
            accepted += u64::from(first.starts_with("Identity"));
        }
    }
    // Each token was verified once more, after it had expired and the clock was set back.
    let verified_again = tokens.len() as u64;
    assert_eq!(
        (hits(&cached) - tokens.len() as u64, hits(&uncached)),
        (accepted - verified_again, 0)
    );
    assert!(accepted > 20, "{accepted}");
}

#[tokio::test]
async fn flush_removes_one_tenant_or_all() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let token = |tenant| world.provider.token().tenant(tenant).sign();
    let (acme, other) = (token("acme"), token("other"));
    let known = async || {
        for token in [&acme, &other] {
            auth.authenticate(token).await.unwrap();
        }
        auth.verified_tokens().stats().tokens
    };
    assert_eq!(known().await, 2);
    auth.verified_tokens().flush_tenant(&tenant_id("unknown"));
    assert_eq!(auth.verified_tokens().stats().tokens, 2);
    auth.verified_tokens().flush_tenant(&tenant_id("acme"));
    assert_eq!(auth.verified_tokens().stats().tokens, 1);
    let before = hits(&auth);
    auth.authenticate(&acme).await.unwrap();
    assert_eq!(hits(&auth), before, "verified again");
    auth.authenticate(&acme).await.unwrap();
    assert_eq!(hits(&auth), before + 1);
    assert_eq!(known().await, 2);
    auth.verified_tokens().flush();
    assert_eq!(auth.verified_tokens().stats().tokens, 0);
    let before = hits(&auth);
    assert_eq!((known().await, hits(&auth)), (2, before));
}

#[tokio::test]
async fn disabled_cache_stores_nothing() {
    let world = World::new().await;
    let auth = world.auth().verified_tokens_bytes(0).build().unwrap();
    let token = world.provider.token().sign();
    for _ in 0..3 {
        auth.authenticate(&token).await.unwrap();
    }
    assert_eq!(auth.verified_tokens().stats(), VerifiedTokensStats::default());
    assert_eq!(auth.verified_tokens().stats().hit_rate(), None);
    auth.verified_tokens().flush();
    auth.verified_tokens().flush_tenant(&tenant_id("acme"));
}

#[tokio::test]
async fn flood_does_not_evict_used_token() {
    let world = World::new().await;
    for limit in [1, 3_000, 50_000] {
        let auth = world.auth().verified_tokens_bytes(limit).build().unwrap();
        let regular = world.provider.token().sign();
        auth.authenticate(&regular).await.unwrap();
        for n in 0..300 {
            let token = world.provider.token().subject(&format!("subject-{n}")).sign();
            auth.authenticate(&token).await.unwrap();
            auth.authenticate(&regular).await.unwrap();
            let stats = auth.verified_tokens().stats();
            assert!(stats.tokens == 0 || stats.bytes <= limit, "{stats:?}");
            assert_eq!(stats.max_bytes, limit);
        }
        let stats = auth.verified_tokens().stats();
        assert!(stats.evicted > 200, "{stats:?}");
        assert_eq!(stats.hits, if limit == 1 { 0 } else { 300 }, "{limit}");
    }
}

#[tokio::test]
async fn cached_token_is_authorised_per_request() {
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
        (open.status, admin.status)
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

/// Good tokens that a forgery was, or could have been, made from.
struct Twins<'w> {
    provider: &'w Provider,
    keys: [SigningKey; 2],
    profile: TokenProfile,
}

impl Twins<'_> {
    /// The forgery's header and claims, unchanged and repaired, with good signatures.
    fn of(&self, forged: &str) -> Vec<String> {
        let (header, payload) = content(forged);
        if !header.contains("kid") && !payload.contains("jti") {
            return Vec::new();
        }
        let unchanged = payload.replacen("admin", "alice", 1);
        let mut twins = Vec::new();
        for key in &self.keys {
            let repaired = self.repaired(key, &payload);
            let (good_header, _) = content(&repaired);
            twins.push(repaired);
            for payload in [&payload, &unchanged] {
                twins.push(key.token(&header, payload));
                twins.push(key.token(&good_header, payload));
            }
        }
        twins.retain(|twin| twin != forged);
        twins
    }

    /// A good token with the same `jti`.
    fn repaired(&self, key: &SigningKey, payload: &str) -> String {
        let good = self.provider.token().signed_by(key);
        let good = match self.profile {
            TokenProfile::Lenient => good,
            _ => good.typ(Some("at+jwt")).claim("client_id", "web"),
        };
        let after = payload.split_once(r#""jti":""#).and_then(|(_, after)| after.split_once('"'));
        match after {
            Some((jti, _)) => good.claim("jti", jti).sign(),
            None => good.sign(),
        }
    }
}

/// Extracts header and claims from a malformed token: cut, in the wrong part, with another alphabet, or
/// with invalid characters.
fn content(text: &str) -> (String, String) {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let lax = GeneralPurpose::new(&alphabet::URL_SAFE, config);
    let decode = |part: &str| {
        // A single character of a group of four encodes no byte.
        let whole = part.len() - usize::from(part.len() % 4 == 1);
        let bytes = lax.decode(&part[..whole]).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', "")
    };
    let flattened: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let text = match (flattened["protected"].as_str(), flattened["payload"].as_str()) {
        (Some(header), Some(payload)) => format!("{header}.{payload}"),
        _ => text.replace("%2E", ".").replace("Bearer ", ""),
    };
    let usual = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let text: String = text.chars().filter(usual).collect();
    let parts: Vec<_> = text.split('.').map(decode).collect();
    let with = |name, otherwise: usize| {
        let named = parts.iter().find(|part| part.contains(name));
        named.or(parts.get(otherwise)).cloned().unwrap_or_default()
    };
    (with("\"kid\"", 0), with("\"jti\"", 1))
}

/// Forgeries that are not made from a token.
const FROM_NOTHING: [&str; 5] =
    ["empty token", "dots only", "JWE", "JWE with 2^31 rounds of PBKDF2", "JWE compressed"];

/// Number of uses of a good token before the forgery.
const USES: usize = 3;

/// Sends the forged tokens again, after all valid tokens and each forgery's twins were cached.
#[tokio::test]
async fn cache_does_not_change_refusals_of_forgeries() {
    let world = World::with(Algorithm::ALL).await;
    for (profile, forged, honest) in [
        (TokenProfile::Lenient, forge::all(&world.provider), forge::valid(&world.provider)),
        (
            TokenProfile::Rfc9068,
            forge::rfc9068(&world.provider),
            forge::rfc9068_valid(&world.provider),
        ),
    ] {
        let service = || world.auth_with(world.issuer().profile(profile));
        let fresh = service().verified_tokens_bytes(0).build().unwrap();
        // Room for all twins: none is evicted.
        let warm = service().verified_tokens_bytes(16 << 20).build().unwrap();
        for auth in [&fresh, &warm] {
            auth.ready().await.unwrap();
        }
        let mut first = Vec::new();
        for forged in &forged {
            let refused = answer(&fresh, &forged.token).await;
            assert!(!refused.starts_with("Identity"), "{}", forged.name);
            assert_eq!(answer(&warm, &forged.token).await, refused, "{}", forged.name);
            first.push(refused);
        }
        assert_eq!(hits(&warm), 0);
        let keys = [Algorithm::RS256, Algorithm::ES256].map(|alg| world.provider.key_for(alg));
        let twins = Twins { provider: &world.provider, keys, profile };
        for round in 1..=2 {
            for honest in &honest {
                for _ in 0..USES {
                    warm.authenticate(&honest.token).await.unwrap();
                }
            }
            assert!(hits(&warm) >= (round - 1) * honest.len() as u64);
            for (forged, first) in forged.iter().zip(&first) {
                let before = hits(&warm);
                for twin in twins.of(&forged.token) {
                    if warm.authenticate(&twin).await.is_ok() {
                        for _ in 0..USES {
                            warm.authenticate(&twin).await.unwrap();
                        }
                    }
                }
                let known = hits(&warm) - before;
                assert_eq!(known == 0, FROM_NOTHING.contains(&forged.name), "{}", forged.name);
                let before = hits(&warm);
                for _ in 0..2 {
                    assert_eq!(&answer(&warm, &forged.token).await, first, "{}", forged.name);
                }
                assert_eq!(hits(&warm), before, "{}", forged.name);
            }
        }
        assert_eq!(warm.verified_tokens().stats().evicted, 0);
    }
}
