//! Limits: sessions of a user, calls of the store for a request, and requests for the list.

use std::time::Duration;

use axum::http::Method;
use scaikey_auth::clock::Clock;
use scaikey_auth::endpoints::TokenBuckets;
use scaikey_auth::session::{SessionId, SessionStore, StoredSession};

use super::super::env::MINUTE;
use super::{LOGOUT, SAME, SESSIONS, Service, far_future, seconds, sign_in, signed_in};
use crate::support::{eventually, until};

#[tokio::test]
async fn user_has_at_most_hundred_sessions() {
    let (env, service, first) = signed_in().await;
    let (labels, start) = (service.store.labels(), env.clock.now());
    for nth in 1..100 {
        let (id, at) = (SessionId::from_bytes([nth; 32]), start + seconds(nth.into()));
        let session = StoredSession::new(id, b"value".to_vec(), at, far_future(at));
        service.store.create(session, &labels).await.unwrap();
    }
    let alice = env.visitor();
    env.sign_in_as("alice", &alice).await;
    until(|| service.store.lists() == 2).await;
    assert_eq!(service.store.all().await.len(), 101, "bob has no session too many");
    // The session that started first is used last.
    env.clock.advance(MINUTE * 3);
    assert_eq!(first.get("/me").await.status, 200);
    let second = sign_in(&env).await;
    eventually(async || service.store.all().await.len() == 101).await;
    let ended = service.store.load(&SessionId::from_bytes([1; 32])).await.unwrap();
    assert_eq!(ended, None, "the one used longest ago ends");
    for browser in [&first, &second, &alice] {
        assert_eq!(browser.get("/me").await.status, 200);
    }
}

#[tokio::test]
async fn sign_in_again_ends_no_other_session() {
    let (env, service, browser) = signed_in().await;
    until(|| service.store.lists() == 1).await;
    let (labels, start) = (service.store.labels(), env.clock.now());
    for nth in 1..100 {
        let id = SessionId::from_bytes([nth; 32]);
        let session = StoredSession::new(id, b"value".to_vec(), start, far_future(start));
        service.store.create(session, &labels).await.unwrap();
    }
    env.clock.advance(seconds(1));
    env.sign_in(&browser).await;
    until(|| service.store.lists() == 2).await;
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(service.store.all().await.len(), 100, "in place of the one before");
}

#[tokio::test]
async fn hanging_list_delays_no_sign_in() {
    let service = Service::new();
    let env = service.setup().build().await;
    service.store.hang_lists();
    for sign_ins in 1..=2 {
        let browser = sign_in(&env).await;
        assert_eq!(browser.get("/me").await.status, 200);
        assert_eq!(service.store.all().await.len(), sign_ins);
    }
}

#[tokio::test]
async fn requests_need_few_calls_of_store() {
    let (env, service, browser) = signed_in().await;
    let store = &service.store;
    until(|| store.lists() == 1).await; // after the sign-in
    let calls = || [store.loads(), store.writes(), store.lists(), store.removals()];
    for (minutes, method, path, expected) in [
        (0, Method::GET, "/me", [1, 0, 0, 0]),
        (0, Method::POST, "/me", [1, 0, 0, 0]),
        (0, Method::GET, "/public", [1, 0, 0, 0]),
        (0, Method::GET, "/v1/auth/whoami", [1, 0, 0, 0]),
        (0, Method::GET, SESSIONS, [1, 0, 1, 0]),
        // The first request after a minute writes that the session is in use.
        (2, Method::GET, "/me", [1, 1, 0, 0]),
        (0, Method::GET, "/me", [1, 0, 0, 0]),
        (0, Method::POST, LOGOUT, [2, 0, 0, 1]),
        (0, Method::GET, "/me", [0, 0, 0, 0]),
    ] {
        env.clock.advance(MINUTE * minutes);
        let before = calls();
        browser.send(method.clone(), path, &[SAME], "").await;
        let after = calls();
        let made: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(made, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn requests_for_sessions_are_limited() {
    let service = Service::new();
    let setup = service.setup().endpoints(|endpoints| {
        endpoints.throttle(TokenBuckets::new().administration(2, Duration::from_secs(3600)))
    });
    let env = setup.build().await;
    let (bob, alice) = (sign_in(&env).await, env.visitor());
    env.sign_in_as("alice", &alice).await;
    until(|| service.store.lists() == 2).await;
    assert_eq!(bob.get(SESSIONS).await.status, 200);
    let unknown = format!("{SESSIONS}/x");
    assert_eq!(bob.send(Method::DELETE, &unknown, &[SAME], "").await.status, 404);
    let lists = service.store.lists();
    for (method, path) in
        [(Method::GET, SESSIONS), (Method::DELETE, SESSIONS), (Method::DELETE, &unknown)]
    {
        let limited = bob.send(method, path, &[SAME], "").await;
        assert_eq!(limited.status, 429, "{limited:?}");
        assert_eq!(limited.header("retry-after"), "3600");
        assert_eq!(limited.json()["type"], "urn:scaikey-auth:too_many_requests");
    }
    assert_eq!(service.store.lists(), lists);
    // Another caller, and other pages, are not concerned.
    assert_eq!(alice.get(SESSIONS).await.status, 200);
    assert_eq!(bob.get("/me").await.status, 200);
    env.clock.advance(MINUTE * 20);
    assert_eq!(bob.get("/me").await.status, 200);
}
