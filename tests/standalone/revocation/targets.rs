//! Which tokens a revocation refuses.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use scaikey_auth::revocation::Revocation;
use scaikey_auth::testing::TokenBuilder;

use super::Revocable;
use crate::support::{World, tenant_id};

/// Another issuer, with the same ids.
const OTHER: &str = "https://other.example";

#[tokio::test]
async fn known_token_is_refused_from_now_on() {
    let service = Revocable::new().await;
    let token = service.token().claim("sid", "one").sign();
    for _ in 0..2 {
        assert_eq!(service.status(&token).await, 200);
    }
    let hits = service.auth.verified_tokens().stats().hits;
    service.revoke(Revocation::session(service.issuer(), "one")).await;
    let answer = service.get(&token).await;
    assert_eq!((answer.status, answer.error().as_deref()), (401, Some("invalid_token")));
    assert_eq!(answer.json()["type"], "urn:scaikey-auth:token_revoked");
    assert_eq!(service.auth.verified_tokens().stats().hits, hits + 1, "the token is cached");
    assert_eq!(service.spy.calls(), 2);
    // Another token of the session, which is not cached.
    let other = service.token().claim("sid", "one").sign();
    assert_eq!(service.status(&other).await, 401);
}

/// A change to the claims of a token.
type Change = fn(TokenBuilder) -> TokenBuilder;

/// Tokens, by a name: the first ones differ from `same` in one claim each.
const TOKENS: [(&str, Change); 9] = [
    ("same", |token| token),
    ("jti", |token| token.claim("jti", "other")),
    ("sid", |token| token.claim("sid", "other")),
    ("no sid", |token| token.without("sid")),
    ("no jti", |token| token.without("jti")),
    ("sub", |token| token.subject("other")),
    ("no sid, sub", |token| token.without("sid").subject("other")),
    ("client", |token| token.claim("client_id", "other")),
    ("tenant", |token| token.tenant("other")),
];

/// Creates a revocation for an issuer.
type Create = fn(&str) -> Revocation;

/// The names of all tokens.
const ALL: &[&str] =
    &["same", "jti", "sid", "no sid", "no jti", "sub", "no sid, sub", "client", "tenant"];

/// Revocations, and the names of the tokens that still pass.
#[rustfmt::skip]
const ROWS: [(Create, &[&str]); 22] = [
    (|iss| Revocation::token(iss, "t"), &["jti", "no jti"]),
    (|iss| Revocation::token(iss, "t").of_subject("alice"), &["jti", "no jti"]),
    (|iss| Revocation::session(iss, "s"), &["sid", "no sid", "no sid, sub"]),
    (|iss| Revocation::session(iss, "s").of_subject("alice"), &["sid", "no sid, sub"]),
    (|iss| Revocation::session(iss, "s").of_subject("other"), &["sid", "no sid"]),
    (|iss| Revocation::session(iss, "s").in_tenant(tenant_id("umbrella")), &["sid", "no sid", "no sid, sub"]),
    (|iss| Revocation::subject(iss, "alice"), &["sub", "no sid, sub"]),
    (|iss| Revocation::subject(iss, "alice").of_subject("other"), &["sub", "no sid, sub"]),
    (|iss| Revocation::subject(iss, "alice").in_tenant(tenant_id("acme")), &["sub", "no sid, sub", "tenant"]),
    (|iss| Revocation::client(iss, "web"), &["client"]),
    (|iss| Revocation::client(iss, "web").in_tenant(tenant_id("acme")), &["client", "tenant"]),
    (|iss| Revocation::tenant(iss, tenant_id("acme")), &["tenant"]),
    (|iss| Revocation::issuer(iss), &[]),
    // Ids of another kind, case, issuer or tenant.
    (|iss| Revocation::token(iss, "s"), ALL),
    (|iss| Revocation::session(iss, "alice"), ALL),
    (|iss| Revocation::subject(iss, "web"), ALL),
    (|iss| Revocation::subject(iss, "Alice"), ALL),
    (|iss| Revocation::subject(iss, "alice").in_tenant(tenant_id("umbrella")), ALL),
    (|_| Revocation::subject(OTHER, "alice"), ALL),
    (|iss| Revocation::subject(format!("{iss}/"), "alice"), ALL),
    (|_| Revocation::tenant(OTHER, tenant_id("acme")), ALL),
    (|_| Revocation::issuer(OTHER), ALL),
];

#[tokio::test]
async fn revocation_refuses_exactly_its_tokens() {
    let world = Arc::new(World::new().await);
    let issuer = world.provider.issuer();
    let token = |change: Change| {
        let token = world.provider.token().subject("alice").tenant("acme").claim("jti", "t");
        change(token.claim("sid", "s").claim("client_id", "web")).sign()
    };
    let tokens = TOKENS.map(|(name, change)| (name, token(change)));
    for (create, passing) in ROWS {
        let service = Revocable::of(&world, |builder| builder).await;
        let revocation = create(&issuer);
        for (name, token) in &tokens {
            assert_eq!(service.status(token).await, 200, "{name}");
        }
        service.revoke(revocation.clone()).await;
        for (name, token) in &tokens {
            let expected = if passing.contains(name) { 200 } else { 401 };
            assert_eq!(service.status(token).await, expected, "{revocation:?}: {name}");
        }
    }
}

#[tokio::test]
async fn all_revocations_of_a_token_count() {
    let service = Revocable::new().await;
    let issuer = service.issuer();
    let token = service.token().claim("sid", "s").claim("jti", "t").sign();
    // A long time ago, or of others.
    service.revoke(Revocation::issuer(&*issuer).issued_before(UNIX_EPOCH)).await;
    service.revoke(Revocation::session(&*issuer, "other")).await;
    assert_eq!(service.status(&token).await, 200);
    let soon = service.now() + Duration::from_secs(10);
    service.revoke(Revocation::token(&*issuer, "t").until(soon)).await;
    service.revoke(Revocation::session(&*issuer, "s")).await;
    assert_eq!(service.status(&token).await, 401);
    service.advance(20);
    assert_eq!(service.status(&token).await, 401, "the other one is in force");
}
