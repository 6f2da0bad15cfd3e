//! Renewal of sessions in a store, by one or several processes.

use std::time::Duration;

use axum::http::Method;
use scaikey_auth::clock::Clock;
use scaikey_auth::session::SessionStore;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use tokio::task::JoinSet;

use super::super::env::{MINUTE, TestEnv, Visitor};
use super::{LOGOUT, SAME, Service, cookie, seconds, sign_in, signed_in};
use crate::support::eventually;

/// Uses the session often enough that only its token becomes old.
async fn age(env: &TestEnv, service: &Service, minutes: u32) {
    env.clock.advance(MINUTE * minutes);
    let now = env.clock.now();
    for session in service.store.all().await {
        service
            .store
            .change(&session.id, |session| {
                session.used_at = now;
                session.expires_at = session.ends_at;
            })
            .await;
    }
}

/// Waits until the first session has been renewed so many times.
async fn until_renewed(env: &TestEnv, service: &Service, times: u64) {
    // The lease is taken before the grant, and released with the new tokens.
    eventually(async || {
        grants(env).0 == times && service.store.all().await[0].renewing_until.is_none()
    })
    .await;
}

fn grants(env: &TestEnv) -> (u64, u64) {
    (env.provider.granted("refresh_token"), env.provider.refresh_reuses())
}

/// Returns a browser with an expired session. The provider renews it, but its answer comes only when it is healed.
async fn stalled_renewal() -> (TestEnv, Service, Visitor) {
    let (env, service, browser) = signed_in().await;
    age(&env, &service, 70).await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Stall);
    (env, service, browser)
}

#[tokio::test]
async fn due_session_is_renewed_in_the_background() {
    let (env, service, browser) = signed_in().await;
    let before = (cookie(&browser), service.store.all().await[0].clone());
    env.provider.fail(ProviderEndpoint::Token, Fault::Hang);
    age(&env, &service, 52).await;
    let me = browser.get("/me").await;
    assert_eq!((me.status, me.headers.get("set-cookie")), (200, None), "{me:?}");
    env.provider.heal(ProviderEndpoint::Token);
    until_renewed(&env, &service, 1).await;
    let after = service.store.all().await[0].clone();
    assert_ne!(before.1.value, after.value);
    assert_eq!(before.0, cookie(&browser), "the cookie stays");
    // The session outlives its first token.
    for _ in 0..10 {
        age(&env, &service, 30).await;
        assert_eq!(browser.get("/me").await.status, 200);
    }
    assert_eq!(env.provider.refresh_reuses(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_renew_a_session_once() {
    let (env, service, browser) = signed_in().await;
    let mut apis = vec![env.api.clone()];
    for _ in 0..2 {
        apis.push(env.start_beside(service.setup()).await);
    }
    // Due, and expired: then all requests wait.
    for (round, minutes) in [(1, 52), (2, 70)] {
        age(&env, &service, minutes).await;
        env.provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(200)));
        let mut requests = JoinSet::new();
        for nth in 0..150 {
            let tab = browser.copy_at(&apis[nth % 3]);
            requests.spawn(async move { (tab.get("/me").await.status, tab.cookie_names().len()) });
        }
        for (status, cookies) in requests.join_all().await {
            assert_eq!((status, cookies), (200, 1), "{minutes}");
        }
        until_renewed(&env, &service, round).await;
        assert_eq!(grants(&env), (round, 0), "{minutes}");
    }
}

#[tokio::test]
async fn session_survives_provider_outage() {
    let (env, service, browser) = signed_in().await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    age(&env, &service, 55).await;
    assert_eq!(browser.get("/me").await.status, 200);
    age(&env, &service, 10).await;
    let answer = browser.get("/me").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(browser.session_cookies().len(), 1);
    env.provider.heal(ProviderEndpoint::Token);
    age(&env, &service, 1).await;
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(grants(&env), (1, 0));
}

#[tokio::test]
async fn expired_session_can_sign_out() {
    let (env, service, browser) = signed_in().await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    age(&env, &service, 70).await;
    let out = browser.send(Method::POST, LOGOUT, &[SAME], "").await;
    assert_eq!((out.status, browser.cookie_names().len()), (204, 0), "{out:?}");
    assert!(service.store.all().await.is_empty());
}

#[tokio::test]
async fn refused_refresh_token_ends_the_session() {
    let (env, service, browser) = signed_in().await;
    env.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, "invalid_grant"));
    age(&env, &service, 70).await;
    assert_eq!(browser.get("/me").await.status, 401);
    assert!(browser.cookie_names().is_empty() && service.store.all().await.is_empty());
}

#[tokio::test]
async fn renewal_for_another_user_ends_session() {
    for (claim, value) in [("sub", "mallory-id"), ("tenant_id", "tenant-2")] {
        let (env, service, browser) = signed_in().await;
        age(&env, &service, 70).await;
        let other = env.provider.token().subject("bob-id").claim(claim, value).sign();
        env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("access_token", other));
        assert_eq!(browser.get("/me").await.status, 401, "{claim}");
        assert!(service.store.all().await.is_empty(), "{claim}");
    }
}

#[tokio::test]
async fn end_during_renewal_revokes_new_token() {
    let (env, service, tab) = stalled_renewal().await;
    let end = async {
        eventually(async || grants(&env).0 == 1).await;
        let id = service.store.all().await[0].id;
        assert!(service.store.remove(&id).await.unwrap());
        env.provider.heal(ProviderEndpoint::Token);
    };
    let (me, ()) = tokio::join!(tab.get("/me"), end);
    assert_eq!((me.status, tab.cookie_names().len()), (401, 0), "{me:?}");
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1);
    assert!(service.store.all().await.is_empty());
}

#[tokio::test]
async fn failed_write_loses_no_tokens() {
    let (env, service, browser) = stalled_renewal().await;
    let tab = browser.copy_at(&env.api);
    let fail = async {
        eventually(async || grants(&env).0 == 1).await;
        service.store.fail_writes(2);
        env.provider.heal(ProviderEndpoint::Token);
    };
    let (me, ()) = tokio::join!(tab.get("/me"), fail);
    assert_eq!(me.status, 200, "{me:?}");
    // Another process finds the new tokens.
    let env = env.with_new_client().start_process(service.setup()).await;
    assert_eq!(browser.at(&env).get("/me").await.status, 200);
    assert_eq!(grants(&env), (1, 0));
}

#[tokio::test]
async fn writes_are_tried_until_lease_ends() {
    let (env, service, tab) = stalled_renewal().await;
    let fail = async {
        eventually(async || grants(&env).0 == 1).await;
        let before = service.store.writes();
        service.store.fail_writes(usize::MAX);
        env.provider.heal(ProviderEndpoint::Token);
        eventually(async || service.store.writes() >= before + 2).await;
        // From now on, another process may use the refresh token.
        env.clock.advance(seconds(35));
        before
    };
    let (me, before) = tokio::join!(tab.get("/me"), fail);
    assert_eq!(me.status, 200, "the request has its token: {me:?}");
    assert!(service.store.writes() <= before + 4, "{} writes", service.store.writes() - before);
}

#[tokio::test]
async fn lease_of_dead_process_ends() {
    let (env, service, browser) = signed_in().await;
    age(&env, &service, 52).await;
    let (id, now) = (service.store.all().await[0].id, env.clock.now());
    service.store.change(&id, |it| it.renewing_until = Some(now + seconds(30))).await;
    assert_eq!(browser.get("/me").await.status, 200, "the token is still valid");
    assert_eq!(grants(&env), (0, 0));
    env.clock.advance(seconds(31));
    assert_eq!(browser.get("/me").await.status, 200);
    eventually(async || grants(&env) == (1, 0)).await;
}

#[tokio::test]
async fn request_waits_for_another_process() {
    let (env, service, browser) = signed_in().await;
    age(&env, &service, 70).await;
    let (id, now) = (service.store.all().await[0].id, env.clock.now());
    service.store.change(&id, |it| it.renewing_until = Some(now + seconds(30))).await;
    let before = service.store.loads();
    let release = async {
        eventually(async || service.store.loads() > before + 3).await;
        assert_eq!(grants(&env), (0, 0));
        service.store.change(&id, |it| it.renewing_until = None).await;
    };
    let (me, ()) = tokio::join!(browser.get("/me"), release);
    assert_eq!((me.status, grants(&env)), (200, (1, 0)));
}

#[tokio::test]
async fn sign_out_revokes_the_newest_token() {
    let (env, service, browser) = signed_in().await;
    age(&env, &service, 52).await;
    env.provider.fail(ProviderEndpoint::Token, Fault::Slow(Duration::from_millis(50)));
    assert_eq!(browser.get("/me").await.status, 200);
    until_renewed(&env, &service, 1).await;
    let other = sign_in(&env).await;
    assert_eq!(browser.send(Method::POST, LOGOUT, &[SAME], "").await.status, 204);
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1);
    assert_eq!(other.get("/me").await.status, 200);
    assert_eq!(service.store.all().await.len(), 1);
}
