//! Revocations and the answers about opaque tokens, which need not say when a token was issued (RFC 7662 §2.2).

use std::time::Duration;

use scaikey_auth::Auth;
use scaikey_auth::revocation::Revocation;
use scaikey_auth::testing::Fault;
use serde_json::Value;

use super::{Introspection, change, outcome};

/// Returns a service whose provider says nothing about the time of issue.
async fn undated() -> (Introspection, Auth) {
    let it = Introspection::new().await;
    it.fail(change("iat", &Value::Null));
    let auth = it.auth();
    (it, auth)
}

async fn revoke_alice(it: &Introspection, auth: &Auth) {
    let alice = Revocation::subject(it.world.provider.issuer(), "alice");
    auth.revocations().revoke(alice).await.unwrap();
}

#[tokio::test]
async fn answer_after_a_revocation_counts() {
    let (it, auth) = undated().await;
    let token = it.token().subject("alice").opaque("skt_");
    let other = it.token().subject("bob").opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    assert_eq!(outcome(&auth, &other).await, "active");
    it.advance(1);
    revoke_alice(&it, &auth).await;
    // The issuer is asked again, and says that the token is good.
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 3));
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 3));
    assert_eq!((outcome(&auth, &other).await, it.questions()), ("active", 3));
    // A token that is new here.
    let new = it.token().subject("alice").opaque("skt_");
    assert_eq!(outcome(&auth, &new).await, "active");
    let before = it.questions();
    it.advance(29);
    assert_eq!((outcome(&auth, &new).await, it.questions()), ("active", before));
}

#[tokio::test]
async fn ended_token_is_noticed_immediately() {
    let (it, auth) = undated().await;
    let token = it.token().subject("alice").opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    it.advance(1);
    it.world.provider.revoke_token(&token);
    assert_eq!(outcome(&auth, &token).await, "active", "the answer is cached");
    revoke_alice(&it, &auth).await;
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("token_inactive", 2));
}

/// Without reuse, each request asks once, also in the seconds after a revocation.
#[tokio::test]
async fn each_request_still_asks_once() {
    let it = Introspection::new().await;
    it.fail(change("iat", &Value::Null));
    let auth = it.auth_with(it.settings().cache_for(Duration::ZERO));
    let token = it.token().subject("alice").opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    it.advance(1);
    revoke_alice(&it, &auth).await;
    for asked in 2..6 {
        assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", asked));
        it.advance(1);
    }
}

#[tokio::test]
async fn time_of_issue_decides_if_known() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let token = it.token().subject("alice").opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    it.advance(10);
    revoke_alice(&it, &auth).await;
    for _ in 0..3 {
        assert_eq!((outcome(&auth, &token).await, it.questions()), ("token_revoked", 1));
    }
    it.advance(10);
    assert_eq!(outcome(&auth, &it.token().subject("alice").opaque("skt_")).await, "active");
}

#[tokio::test]
async fn revoked_ids_refuse_every_answer() {
    let (it, auth) = undated().await;
    let issuer = it.world.provider.issuer();
    let token = it.token().claim("jti", "one").opaque("skt_");
    let of_session = it.token().claim("sid", "two").opaque("skt_");
    auth.revocations().revoke(Revocation::token(&*issuer, "one")).await.unwrap();
    auth.revocations().revoke(Revocation::session(&*issuer, "two")).await.unwrap();
    for seconds in [0, 1, 20] {
        it.advance(seconds);
        for token in [&token, &of_session] {
            assert_eq!(outcome(&auth, token).await, "token_revoked", "{seconds}");
        }
    }
    assert_eq!(it.questions(), 2, "the issuer is not asked again");
}

#[tokio::test]
async fn old_answer_does_not_serve_after_revocation() {
    let it = Introspection::new().await;
    it.fail(change("iat", &Value::Null));
    let auth = it.auth_with(it.settings().serve_while_unavailable(Duration::from_secs(60)));
    let token = it.token().subject("alice").opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    it.advance(1);
    it.fail(Fault::Status(500));
    revoke_alice(&it, &auth).await;
    assert_eq!(outcome(&auth, &token).await, "unavailable");
    it.fail(change("iat", &Value::Null));
    it.advance(120);
    assert_eq!(outcome(&auth, &token).await, "active");
}

/// A connection that is open has the answer from before.
#[tokio::test]
async fn context_remembers_its_answer() {
    let (it, auth) = undated().await;
    let token = it.token().subject("alice").opaque("skt_");
    let open = auth.authenticate(&token).await.unwrap();
    it.advance(10);
    revoke_alice(&it, &auth).await;
    let new = auth.authenticate(&token).await.unwrap();
    let is_revoked = |identity| auth.revocations().is_revoked(identity);
    assert!(is_revoked(open.identity()));
    assert!(!is_revoked(new.identity()));
}
