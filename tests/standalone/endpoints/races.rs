//! Answers that arrive late, after their session ended, was renewed or was replaced.

use axum::http::Method;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::testing::{Fault, ProviderEndpoint, User};

use super::env::{MINUTE, Setup, TestEnv, Visitor};
use crate::support::eventually;

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

/// Returns a browser whose session the next request renews.
async fn session_due_for_renewal() -> (TestEnv, Visitor) {
    let env = Setup::with_sessions().build().await;
    let browser = env.visitor();
    assert_eq!(env.sign_in(&browser).await.status, 303);
    env.clock.advance(MINUTE * 52);
    (env, browser)
}

/// Returns a claim that makes the token so large that it needs several cookies.
fn groups(count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("group-{nth:08}")).collect()
}

#[tokio::test]
async fn smaller_session_replaces_larger_one() {
    let env = Setup::with_sessions().build().await;
    let usual = env.visitor();
    env.sign_in_as("alice", &usual).await;
    env.provider.register_user(User::new("bob", "hunter2").claim("groups", groups(400)));
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert!(
        browser.session_cookies().len() >= usual.session_cookies().len() + 2,
        "{:?}",
        browser.cookie_names()
    );

    assert_eq!(env.sign_in_as("alice", &browser).await.status, 303);
    let count = usual.session_cookies().len();
    assert_eq!(browser.session_cookies().len(), count, "the cookies of the first user are cleared");
    let me = browser.get("/me").await;
    assert_eq!((me.status, me.body.as_str()), (200, "alice-id "));
    assert!(me.headers.get("set-cookie").is_none());
}

#[tokio::test]
async fn leftover_parts_of_sessions_are_cleared() {
    let env = Setup::with_sessions().build().await;
    env.provider.register_user(User::new("bob", "hunter2").claim("groups", groups(400)));
    let (first, browser) = (env.visitor(), env.visitor());
    env.sign_in(&first).await;
    env.sign_in_as("alice", &browser).await;
    let own = browser.session_cookies();
    browser.cookies.lock().unwrap().extend(first.session_cookies().into_iter().filter(
        |(name, _)| {
            // As after a late answer: the parts, without the marker that only a sign-in sets.
            name.contains('.')
        },
    ));
    assert!(browser.session_cookies().len() > own.len());
    assert_eq!(browser.get("/me").await.body, "alice-id ");
    assert_eq!(browser.session_cookies(), own);
}

#[tokio::test]
async fn late_answer_after_sign_out_changes_nothing() {
    let (env, browser) = session_due_for_renewal().await;
    let sign_out = async {
        let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert_eq!((out.status, browser.cookie_names().len()), (204, 0), "{out:?}");
    };
    let late = env.while_slow_runs(&browser, sign_out).await;
    assert_eq!((late.status, late.body.as_str()), (200, "bob-id"));
    assert_eq!(browser.get("/me").await.status, 401, "{:?}", browser.cookie_names());
    assert!(browser.cookie_names().is_empty(), "the cookies of the late answer are cleared");
}

#[tokio::test]
async fn late_answer_keeps_next_user_signed_in() {
    let (env, browser) = session_due_for_renewal().await;
    let next = async {
        browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert_eq!(env.sign_in_as("alice", &browser).await.status, 303);
    };
    assert_eq!(env.while_slow_runs(&browser, next).await.body, "bob-id");
    for _ in 0..2 {
        assert_eq!(browser.get("/me").await.body, "alice-id ");
    }
    // The same without a sign-out.
    env.clock.advance(MINUTE * 52);
    let next = async {
        assert_eq!(env.sign_in(&browser).await.status, 303);
    };
    assert_eq!(env.while_slow_runs(&browser, next).await.body, "alice-id");
    for _ in 0..2 {
        assert_eq!(browser.get("/me").await.body, "bob-id ");
    }
}

#[tokio::test]
async fn late_session_end_keeps_next_user() {
    let (env, browser) = session_due_for_renewal().await;
    // The provider has ended the session, which the renewal finds out while the next user signs in.
    env.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, "invalid_grant"));
    let before = env.provider.requests(ProviderEndpoint::Token);
    let next = async {
        eventually(async || env.provider.requests(ProviderEndpoint::Token) > before).await;
        env.provider.heal(ProviderEndpoint::Token);
        assert_eq!(env.sign_in_as("alice", &browser).await.status, 303);
    };
    assert_eq!(env.while_slow_runs(&browser, next).await.body, "bob-id");
    assert_eq!(browser.get("/me").await.body, "alice-id ");
}

#[tokio::test]
async fn late_answer_restores_no_older_token() {
    let keys = SealingKeys::random().unwrap();
    let setup = || Setup { sessions: Some(keys.clone()), ..Setup::default() };
    let env = setup().build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    env.clock.advance(MINUTE * 52);
    let renewals = async {
        for _ in 0..2 {
            assert_eq!(browser.get("/me").await.status, 200);
            env.clock.advance(MINUTE * 52);
        }
    };
    assert_eq!(env.while_slow_runs(&browser, renewals).await.status, 200);
    assert_eq!(env.provider.granted("refresh_token"), 2);
    // This process has no cached successor of a spent refresh token.
    let env = env.with_new_client().start_process(setup()).await;
    let browser = browser.at(&env);
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(env.provider.refresh_reuses(), 0);
}

#[tokio::test]
async fn late_sign_out_ends_one_session() {
    let (env, browser) = session_due_for_renewal().await;
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Hang);
    let first = browser.cookies.lock().unwrap().clone();
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "");
    let next = async {
        while env.provider.requests(ProviderEndpoint::Revocation) == 0 {
            tokio::task::yield_now().await;
        }
        // Another tab, whose sign-in started before.
        let tab = env.visitor();
        assert_eq!(env.sign_in_as("alice", &tab).await.status, 303);
        browser.cookies.lock().unwrap().extend(tab.session_cookies());
        env.provider.heal(ProviderEndpoint::Revocation);
    };
    let (out, ()) = tokio::join!(out, next);
    assert_eq!(out.status, 204);
    assert_eq!(browser.get("/me").await.body, "alice-id ");
    assert!(browser.session_cookies().keys().all(|name| !first.contains_key(name)));
}

#[tokio::test]
async fn newest_of_two_sessions_is_used() {
    let env = Setup::with_sessions().build().await;
    let (one, two) = (env.visitor(), env.visitor());
    env.sign_in(&one).await;
    env.clock.advance(MINUTE);
    env.sign_in_as("alice", &two).await;
    // As after two tabs signed in at the same time.
    one.cookies.lock().unwrap().extend(two.session_cookies());
    for _ in 0..2 {
        assert_eq!(one.get("/me").await.body, "alice-id ");
        assert_eq!(one.session_cookies(), two.session_cookies());
    }
}
