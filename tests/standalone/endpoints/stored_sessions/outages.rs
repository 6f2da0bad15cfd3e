//! A store that fails or hangs: requests get 503, and no user is signed out.

use axum::http::Method;
use scaikey_auth::testing::ProviderEndpoint;

use super::super::env::MINUTE;
use super::{FAILS, HANGS, LOGOUT, SAME, SESSIONS, Service, WORKS, cookie, signed_in};
use crate::support::Log;

#[tokio::test]
async fn store_outage_signs_nobody_out() {
    for mode in [FAILS, HANGS] {
        let (env, service, browser) = signed_in().await;
        let before = cookie(&browser);
        service.store.set(mode);
        for (method, path) in [
            (Method::GET, "/me"),
            (Method::POST, "/me"),
            (Method::GET, "/v1/auth/whoami"),
            (Method::POST, LOGOUT),
            (Method::GET, SESSIONS),
            (Method::DELETE, SESSIONS),
        ] {
            let answer = browser.send(method.clone(), path, &[SAME], "").await;
            assert_eq!(answer.status, 503, "{mode} {method} {path}: {answer:?}");
            assert!(!answer.header("retry-after").is_empty(), "{path}: {answer:?}");
            assert!(answer.body.contains("store of sessions"), "{path}: {answer:?}");
            assert!(!answer.body.contains("disk"), "{answer:?}");
            assert_eq!(cookie(&browser), before, "{mode} {path}");
        }
        assert_eq!(browser.get("/public").await.status, 200);
        assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0);
        service.store.set(WORKS);
        assert_eq!(browser.get("/me").await.status, 200);
    }
}

#[tokio::test]
async fn other_visitors_need_no_store() {
    let (env, service, _) = signed_in().await;
    service.store.set(HANGS);
    let visitor = env.visitor();
    assert_eq!(visitor.get("/me").await.status, 401);
    let bearer = format!("Bearer {}", env.provider.token().sign());
    let me = visitor.send(Method::GET, "/me", &[("authorization", &bearer)], "").await;
    assert_eq!(me.status, 200);
    assert_eq!(service.store.loads(), 0);
}

#[tokio::test]
async fn sign_in_can_be_repeated_after_outage() {
    let service = Service::new();
    let env = service.setup().build().await;
    let browser = env.visitor();
    let away = browser.get("/v1/auth/login?return_to=/me").await;
    let callback = env.callback_path(away.header("location"));
    service.store.set(FAILS);
    let failed = browser.get(&callback).await;
    failed.assert_oauth_error(503, "temporarily_unavailable");
    assert!(browser.session_cookies().is_empty());
    service.store.set(WORKS);
    assert_eq!(browser.get(&callback).await.status, 303);
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0);
}

#[tokio::test]
async fn failed_write_of_use_is_harmless() {
    let (env, service, browser) = signed_in().await;
    env.clock.advance(MINUTE * 2);
    service.store.fail_writes(1);
    for _ in 0..2 {
        assert_eq!(browser.get("/me").await.status, 200);
    }
    assert_eq!(service.store.writes(), 2, "the next request tries again");
}

#[tokio::test]
async fn outage_is_logged_once() {
    let log = Log::start();
    let (_env, service, browser) = signed_in().await;
    for outage in 1..=2 {
        service.store.set(FAILS);
        for _ in 0..5 {
            assert_eq!(browser.get("/me").await.status, 503);
        }
        let warnings = log.lines("WARN");
        let failures = warnings.iter().filter(|line| line.contains("session store failed"));
        assert_eq!(failures.count(), outage, "{warnings:#?}");
        service.store.set(WORKS);
        assert_eq!(browser.get("/me").await.status, 200);
        assert_eq!(log.text().matches("session store works again").count(), outage);
    }
    assert!(log.text().contains("the disk is full"));
}
