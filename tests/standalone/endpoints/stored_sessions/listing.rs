//! The endpoint `sessions`: users list and end their sessions, and administrators those of others.

use std::collections::HashMap;

use axum::http::Method;
use scaikey_auth::scope;
use scaikey_auth::testing::{ProviderEndpoint, User};
use serde_json::{Value, json};

use super::super::env::{MINUTE, Setup, TestEnv, Visitor, encoded};
use super::{SAME, SESSIONS, Service, sign_in, signed_in};
use crate::support::{Answer, until};

async fn list(browser: &Visitor) -> Vec<Value> {
    let listed = browser.get(SESSIONS).await;
    assert_eq!(listed.status, 200, "{listed:?}");
    assert_eq!(listed.header("cache-control"), "no-store");
    listed.json()["sessions"].as_array().unwrap().clone()
}

fn handle(session: &Value) -> String {
    session["handle"].as_str().unwrap().to_owned()
}

async fn delete(browser: &Visitor, path: &str) -> Answer {
    browser.send(Method::DELETE, &format!("{SESSIONS}{path}"), &[SAME], "").await
}

async fn is_signed_in(browser: &Visitor) -> bool {
    browser.get("/me").await.status == 200
}

#[tokio::test]
async fn users_see_their_own_sessions() {
    let (env, service, first) = signed_in().await;
    env.clock.advance(MINUTE * 5);
    let second = sign_in(&env).await;
    let alice = env.visitor();
    env.sign_in_as("alice", &alice).await;
    env.clock.advance(MINUTE * 5);
    assert!(is_signed_in(&first).await);
    let listed = list(&first).await;
    let current: Vec<_> = listed.iter().map(|session| session["current"].clone()).collect();
    assert_eq!(current, [false, true], "the latest sign-in first");
    let times = |session: &Value| ["started_at", "used_at"].map(|name| session[name].clone());
    assert_ne!(times(&listed[1])[0], times(&listed[1])[1]);
    assert_eq!(times(&listed[0])[0], times(&listed[0])[1]);
    let names: Vec<_> = listed[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["handle", "started_at", "used_at", "current"]);
    assert_eq!(list(&alice).await.len(), 1);
    // The handle names neither the cookie nor the key in the store.
    let (_, cookie) = super::cookie(&first);
    for session in service.store.all().await {
        for session_handle in listed.iter().map(handle) {
            assert!(!cookie.contains(&session_handle), "{session_handle}");
            assert!(!session.id.to_string().contains(&session_handle), "{session_handle}");
        }
    }
    // Expired sessions are not listed.
    for _ in 0..2 {
        env.clock.advance(MINUTE * 20);
        assert!(is_signed_in(&second).await);
    }
    assert_eq!(list(&second).await.len(), 1);
}

#[tokio::test]
async fn users_end_their_own_sessions() {
    let (env, _, first) = signed_in().await;
    env.clock.advance(MINUTE);
    let second = sign_in(&env).await;
    let listed = list(&second).await;
    let other = handle(listed.iter().find(|session| session["current"] == false).unwrap());
    let ended = delete(&second, &format!("/{other}")).await;
    assert_eq!((ended.status, ended.body.as_str()), (204, ""), "{ended:?}");
    assert!(!is_signed_in(&first).await && is_signed_in(&second).await);
    assert_eq!(delete(&second, &format!("/{other}")).await.status, 404, "it is gone");
    let own = handle(&list(&second).await[0]);
    assert_eq!(delete(&second, &format!("/{own}")).await.status, 204);
    assert!(second.cookie_names().is_empty());
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1, "of the own session");
}

#[tokio::test]
async fn users_end_all_their_sessions() {
    let (env, _, first) = signed_in().await;
    let (second, third, alice) = (sign_in(&env).await, sign_in(&env).await, env.visitor());
    env.sign_in_as("alice", &alice).await;
    let others = delete(&first, "?others=true").await;
    assert_eq!((others.status, &others.json()["ended"]), (200, &2.into()), "{others:?}");
    assert!(is_signed_in(&first).await && !is_signed_in(&second).await);
    assert!(!is_signed_in(&third).await);
    let fourth = sign_in(&env).await;
    let all = delete(&first, "").await;
    assert_eq!((all.status, &all.json()["ended"]), (200, &2.into()), "{all:?}");
    assert!(first.cookie_names().is_empty());
    assert!(!is_signed_in(&fourth).await && is_signed_in(&alice).await);
}

#[tokio::test]
async fn end_of_all_continues_at_provider() {
    let (service, bye) = (Service::new(), "https://wave.example/bye");
    let setup = service.setup_with(move |sessions| sessions.end_at_provider(bye));
    let env = setup.build().await;
    let (browser, _other) = (sign_in(&env).await, sign_in(&env).await);
    assert_eq!(delete(&browser, "?others=true").await.json(), json!({ "ended": 1 }));
    let all = delete(&browser, "").await.json();
    assert_eq!((&all["ended"], all.as_object().unwrap().len()), (&1.into(), 2), "{all}");
    let url = url::Url::parse(all["end_session_url"].as_str().unwrap()).unwrap();
    let sent: HashMap<_, _> = url.query_pairs().collect();
    assert_eq!(sent["post_logout_redirect_uri"], bye);
    assert!(sent["id_token_hint"].starts_with("ey"), "{url}");
}

#[tokio::test]
async fn sessions_of_others_are_not_found() {
    let (env, service, bob) = signed_in().await;
    let alice = env.visitor();
    env.sign_in_as("alice", &alice).await;
    // The same subject in another tenant is another user.
    env.provider.register_user(
        User::new("bob2", "hunter2").claim("sub", "bob-id").claim("tenant_id", "tenant-2"),
    );
    let twin = env.visitor();
    env.sign_in_as("bob2", &twin).await;
    assert_eq!(twin.get("/v1/auth/whoami").await.json()["subject"], "bob-id");
    let theirs = handle(&list(&bob).await[0]);
    for other in [&alice, &twin] {
        assert_eq!(list(other).await.len(), 1);
        let unknown = delete(other, "/AAAAAAAAAAAAAAAAAAAAAA").await;
        let refused = delete(other, &format!("/{theirs}")).await;
        assert_eq!((refused.status, &refused.body), (404, &unknown.body), "{refused:?}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert_eq!(delete(other, "?others=true").await.json()["ended"], 0);
    }
    assert_eq!(service.store.all().await.len(), 3);
    assert!(is_signed_in(&bob).await);
}

#[tokio::test]
async fn malformed_requests_end_no_session() {
    let (env, service, browser) = signed_in().await;
    let bearer = format!("Bearer {}", env.provider.token().subject("bob-id").sign());
    let authorization = ("authorization", bearer.as_str());
    for (method, path, headers, signed_in, status) in [
        (Method::DELETE, "", &[][..], true, 403),
        (Method::DELETE, "", &[("sec-fetch-site", "cross-site")], true, 403),
        (Method::DELETE, "/", &[SAME], true, 404),
        (Method::DELETE, "/x/y", &[SAME], true, 404),
        (Method::DELETE, "?others=yes", &[SAME], true, 400),
        (Method::DELETE, "?others=true&others=true", &[SAME], true, 400),
        (Method::DELETE, "?issuer=x", &[SAME], true, 400),
        (Method::DELETE, "?subject=x", &[SAME], true, 400),
        (Method::DELETE, "?issuer=x&subject=bob-id", &[SAME], true, 403),
        (Method::POST, "", &[SAME], true, 405),
        (Method::GET, "/x", &[], true, 405),
        (Method::GET, "", &[], false, 401),
        (Method::DELETE, "", &[], false, 401),
        // A token alone, which may have been issued for something else.
        (Method::GET, "", &[authorization], false, 403),
        (Method::DELETE, "", &[authorization], false, 403),
        (Method::DELETE, "?others=true", &[authorization], false, 403),
    ] {
        let visitor = if signed_in { browser.copy_at(&env.api) } else { env.visitor() };
        let answer = visitor.send(method.clone(), &format!("{SESSIONS}{path}"), headers, "").await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {answer:?}");
        assert_eq!(service.store.all().await.len(), 1, "{method} {path}");
    }
    let wrong = browser.get(&format!("{SESSIONS}/x")).await;
    assert_eq!(wrong.header("allow"), "DELETE");
    let wrong = browser.send(Method::POST, SESSIONS, &[SAME], "").await;
    assert_eq!(wrong.header("allow"), "GET, HEAD, DELETE");
}

#[tokio::test]
async fn sessions_in_cookies_have_no_list() {
    let env = Setup::with_sessions().build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert_eq!(browser.get(SESSIONS).await.status, 404);
}

/// Returns a service whose administrators have the scope `admin`, with bob and his twin signed in.
async fn administrated(in_all_tenants: bool) -> (TestEnv, Service, Visitor, Visitor) {
    let service = Service::new();
    let setup = service.setup().endpoints(move |endpoints| {
        let endpoints = endpoints.session_admin(scope("admin"));
        if in_all_tenants { endpoints.session_admin_in_all_tenants() } else { endpoints }
    });
    let env = setup.build().await;
    let (bob, twin) = (sign_in(&env).await, env.visitor());
    env.provider.register_user(
        User::new("bob2", "hunter2").claim("sub", "bob-id").claim("tenant_id", "tenant-2"),
    );
    env.sign_in_as("bob2", &twin).await;
    assert!(is_signed_in(&bob).await && is_signed_in(&twin).await);
    (env, service, bob, twin)
}

#[tokio::test]
async fn administrators_end_sessions_of_users() {
    for in_all_tenants in [false, true] {
        let (env, service, bob, twin) = administrated(in_all_tenants).await;
        let end = async |token: String, subject: &str| {
            let issuer = encoded(&env.provider.issuer());
            let path = format!("{SESSIONS}?issuer={issuer}&subject={subject}");
            let bearer = format!("Bearer {token}");
            env.visitor().send(Method::DELETE, &path, &[("authorization", &bearer)], "").await
        };
        let user = env.provider.token().sign();
        assert_eq!(end(user, "bob-id").await.status, 403);
        assert_eq!(service.store.all().await.len(), 2);
        let admin = || env.provider.token().subject("root").scope("admin").sign();
        let none = end(admin(), "alice-id").await;
        assert_eq!((none.status, &none.json()["ended"]), (200, &0.into()), "{none:?}");
        let ended = end(admin(), "bob-id").await;
        let count = if in_all_tenants { 2 } else { 1 };
        assert_eq!((ended.status, &ended.json()["ended"]), (200, &count.into()), "{ended:?}");
        assert!(!is_signed_in(&bob).await);
        assert_eq!(is_signed_in(&twin).await, !in_all_tenants);
    }
}

#[tokio::test]
async fn service_ends_sessions_of_a_subject() {
    let (env, service, bob, twin) = administrated(false).await;
    let sessions = service.sessions(&env);
    let issuer = env.provider.issuer();
    until(|| service.store.lists() == 2).await; // after the sign-ins
    assert_eq!(sessions.end_sessions_of(&issuer, "nobody").await.unwrap(), 0);
    assert_eq!(sessions.end_sessions_of("https://other.example", "bob-id").await.unwrap(), 0);
    assert_eq!(sessions.end_sessions_of(&issuer, "bob-id").await.unwrap(), 2);
    assert!(!is_signed_in(&bob).await && !is_signed_in(&twin).await);
    assert_eq!(service.store.lists(), 2, "the list of many sessions takes long");
    service.store.set(super::FAILS);
    sessions.end_sessions_of(&issuer, "bob-id").await.unwrap_err();
}
