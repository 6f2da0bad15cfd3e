//! The end of a session refuses its access tokens, which other services may have.

use std::sync::atomic::Ordering;

use axum::http::Method;
use scaikey_auth::revocation::Revocations;
use scaikey_auth::testing::User;
use scaikey_auth::{Identity, scope};
use serde_json::Value;

use super::super::env::{MINUTE, Setup, Visitor, encoded};
use super::revoked::{
    KINDS, Kind, SIGNED_IN, SIGNED_OUT, Site, Unreliable, site, site_with, status,
};
use super::{LOGOUT, SAME, SESSIONS};
use crate::support::{Answer, Log};

async fn send(browser: &Visitor, method: Method, path: &str) -> Answer {
    browser.send(method, path, &[SAME], "").await
}

async fn delete(browser: &Visitor, path: &str) -> Answer {
    send(browser, Method::DELETE, &format!("{SESSIONS}{path}")).await
}

fn revoked<const N: usize>(site: &Site, identities: [&Identity; N]) -> [bool; N] {
    identities.map(|identity| site.is_revoked(identity))
}

#[tokio::test]
async fn sign_out_refuses_the_access_token() {
    for kind in KINDS {
        let site = site(kind).await;
        let (browser, bob) = site.sign_in("bob").await;
        let (other, elsewhere) = site.sign_in("bob").await;
        let copy = browser.copy_at(&site.env.api);
        assert_eq!(send(&browser, Method::POST, LOGOUT).await.status, 204);
        assert_eq!(revoked(&site, [&bob, &elsewhere]), [true, false], "{kind:?}");
        assert_eq!(status(&copy).await, SIGNED_OUT, "{kind:?}");
        assert_eq!(status(&other).await, SIGNED_IN, "{kind:?}");
        // In the same second.
        let again = site.sign_in_with("bob", &browser).await;
        assert_eq!(revoked(&site, [&again, &elsewhere]), [false; 2], "{kind:?}");
        assert_eq!(status(&browser).await, SIGNED_IN, "{kind:?}");
    }
}

#[tokio::test]
async fn sign_in_again_refuses_nothing() {
    for kind in KINDS {
        let site = site(kind).await;
        let (browser, before) = site.sign_in("bob").await;
        let after = site.sign_in_with("bob", &browser).await;
        assert_eq!(revoked(&site, [&before, &after]), [false; 2], "{kind:?}");
    }
}

#[tokio::test]
async fn revocation_of_a_sign_out_may_fail() {
    for kind in KINDS {
        let log = Unreliable::default();
        let revocations = Revocations::builder().log(log.clone()).build();
        let site = site_with(kind, Some(revocations), |setup| setup).await;
        let (browser, bob) = site.sign_in("bob").await;
        log.is_away.store(true, Ordering::SeqCst);
        let captured = Log::start();
        assert_eq!(send(&browser, Method::POST, LOGOUT).await.status, 204, "{kind:?}");
        let warned = captured.lines("WARN").join("\n");
        assert!(warned.contains("a session ended, but its tokens"), "{kind:?}: {warned}");
        assert!(site.is_revoked(&bob), "in this process");
    }
}

#[tokio::test]
async fn sessions_ended_by_handle_lose_their_tokens() {
    let site = site(Kind::InStore).await;
    let (_, one) = site.sign_in("bob").await;
    site.env.clock.advance(MINUTE);
    let (browser, two) = site.sign_in("bob").await;
    let listed = browser.get(SESSIONS).await.json()["sessions"].as_array().unwrap().clone();
    let handle = |is_current: bool| {
        let found = listed.iter().find(|session| session["current"] == is_current).unwrap();
        found["handle"].as_str().unwrap().to_owned()
    };
    assert_eq!(delete(&browser, &format!("/{}", handle(false))).await.status, 204);
    assert_eq!(revoked(&site, [&one, &two]), [true, false]);
    assert_eq!(status(&browser).await, SIGNED_IN);
    assert_eq!(delete(&browser, &format!("/{}", handle(true))).await.status, 204);
    assert_eq!(revoked(&site, [&one, &two]), [true, true]);
    let again = site.sign_in_with("bob", &browser).await;
    assert_eq!((site.is_revoked(&again), status(&browser).await), (false, SIGNED_IN));
}

#[tokio::test]
async fn other_sessions_lose_their_tokens() {
    let site = site(Kind::InStore).await;
    let (_, alice) = site.sign_in("alice").await;
    let (_, one) = site.sign_in("bob").await;
    let (_, two) = site.sign_in("bob").await;
    site.env.clock.advance(MINUTE);
    let (browser, own) = site.sign_in("bob").await;
    assert_eq!(delete(&browser, "?others=true").await.json()["ended"], 2);
    assert_eq!(revoked(&site, [&one, &two, &own, &alice]), [true, true, false, false]);
    assert_eq!(status(&browser).await, SIGNED_IN);
}

#[tokio::test]
async fn sessions_end_although_none_can_be_listed() {
    let site = site(Kind::InStore).await;
    let (one, _) = site.sign_in("bob").await;
    let (browser, _) = site.sign_in("bob").await;
    site.service.store.refuse_lists();
    let ended = delete(&browser, "?others=true").await;
    assert_eq!((ended.status, &ended.json()["ended"]), (200, &1.into()), "{ended:?}");
    assert_eq!([status(&one).await, status(&browser).await], [SIGNED_OUT, SIGNED_IN]);
}

#[tokio::test]
async fn end_of_all_sessions_refuses_all_tokens() {
    let site = site(Kind::InStore).await;
    let (_, alice) = site.sign_in("alice").await;
    let (_, one) = site.sign_in("bob").await;
    site.env.clock.advance(MINUTE);
    let (browser, _) = site.sign_in("bob").await;
    assert_eq!(delete(&browser, "").await.json()["ended"], 2);
    assert_eq!(revoked(&site, [&one, &alice]), [true, false]);
    // In the same second.
    let again = site.sign_in_with("bob", &browser).await;
    assert_eq!((site.is_revoked(&again), status(&browser).await), (false, SIGNED_IN));
}

#[tokio::test]
async fn many_sessions_end_in_one_call() {
    let site = site(Kind::InStore).await;
    let (browser, bob) = site.sign_in("bob").await;
    let sessions = site.service.sessions(&site.env);
    let labelled = site.service.store.copies(5_000).await;
    assert_eq!(site.service.store.all().await.len(), 5_001);
    let ended = sessions.end_sessions_of(&site.env.provider.issuer(), "bob-id").await.unwrap();
    assert_eq!((ended, labelled), (5_001, 5_000));
    assert!(site.is_revoked(&bob) && status(&browser).await == SIGNED_OUT);
}

#[tokio::test]
async fn administrators_refuse_tokens_of_users() {
    for in_all_tenants in [false, true] {
        let change = move |setup: Setup| {
            setup.endpoints(move |endpoints| {
                let endpoints = endpoints.session_admin(scope("admin"));
                if in_all_tenants { endpoints.session_admin_in_all_tenants() } else { endpoints }
            })
        };
        let site = site_with(Kind::InStore, None, change).await;
        let twin = User::new("bob2", "hunter2").claim("sub", "bob-id");
        site.env.provider.register_user(twin.claim("tenant_id", "tenant-2"));
        let (_, bob) = site.sign_in("bob").await;
        let (_, twin) = site.sign_in("bob2").await;
        let end = async |claim: &str, value: Value| {
            let admin = site.env.provider.token().subject("root").scope("admin");
            let bearer = format!("Bearer {}", admin.claim(claim, value).sign());
            let issuer = encoded(&site.env.provider.issuer());
            let path = format!("{SESSIONS}?issuer={issuer}&subject=bob-id");
            let headers = [("authorization", bearer.as_str())];
            site.env.visitor().send(Method::DELETE, &path, &headers, "").await
        };
        if !in_all_tenants {
            assert_eq!(end("tenant_id", "tenant-3".into()).await.status, 200);
            assert_eq!(revoked(&site, [&bob, &twin]), [false, false], "of another tenant");
        }
        let ended = end("x", Value::Null).await;
        assert_eq!(ended.status, 200, "{ended:?}");
        assert_eq!(revoked(&site, [&bob, &twin]), [true, in_all_tenants]);
    }
}

#[tokio::test]
async fn end_sessions_of_refuses_tokens_everywhere() {
    let site = site(Kind::InStore).await;
    let (browser, bob) = site.sign_in("bob").await;
    let sessions = site.service.sessions(&site.env);
    let issuer = site.env.provider.issuer();
    assert_eq!(sessions.end_sessions_of("https://other.example", "bob-id").await.unwrap(), 0);
    assert_eq!((site.is_revoked(&bob), status(&browser).await), (false, SIGNED_IN));
    assert_eq!(sessions.end_sessions_of(&issuer, "bob-id").await.unwrap(), 1);
    assert_eq!((site.is_revoked(&bob), status(&browser).await), (true, SIGNED_OUT));
    site.env.clock.advance(MINUTE);
    site.sign_in_with("bob", &browser).await;
}
