//! Answers that are under way while a session ends, is renewed, or gives way to another.

use axum::http::Method;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::testing::{Fault, ProviderEndpoint, User};

use super::house::{House, MINUTE, Plan, Visitor};

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

/// With a session that is to be renewed by the next request.
async fn due() -> (House, Visitor) {
    let house = Plan::with_sessions().build().await;
    let browser = house.visitor();
    assert_eq!(house.sign_in(&browser).await.status, 303);
    house.clock.advance(MINUTE * 52);
    (house, browser)
}

/// A claim that makes the token so large that it needs several cookies.
fn groups(count: usize) -> Vec<String> {
    (0..count).map(|nth| format!("group-{nth:08}")).collect()
}

#[tokio::test]
async fn smaller_session_replaces_larger_one() {
    let house = Plan::with_sessions().build().await;
    let usual = house.visitor();
    house.sign_in_as("alice", &usual).await;
    house.provider.register_user(User::new("bob", "hunter2").claim("groups", groups(400)));
    let browser = house.visitor();
    house.sign_in(&browser).await;
    assert!(browser.session().len() >= usual.session().len() + 2, "{:?}", browser.jar());

    assert_eq!(house.sign_in_as("alice", &browser).await.status, 303);
    let count = usual.session().len();
    assert_eq!(browser.session().len(), count, "no cookie of the first user is left");
    let me = browser.get("/me").await;
    assert_eq!((me.status, me.body.as_str()), (200, "alice-id "));
    assert!(me.headers.get("set-cookie").is_none());
}

#[tokio::test]
async fn surplus_parts_of_other_sessions_are_cleared() {
    let house = Plan::with_sessions().build().await;
    house.provider.register_user(User::new("bob", "hunter2").claim("groups", groups(400)));
    let (first, browser) = (house.visitor(), house.visitor());
    house.sign_in(&first).await;
    house.sign_in_as("alice", &browser).await;
    let own = browser.session();
    browser.cookies.lock().unwrap().extend(first.session().into_iter().filter(|(name, _)| {
        // As a late answer leaves them: the parts, and not what only a sign-in sets.
        name.contains('.')
    }));
    assert!(browser.session().len() > own.len());
    assert_eq!(browser.get("/me").await.body, "alice-id ");
    assert_eq!(browser.session(), own);
}

#[tokio::test]
async fn late_answer_after_sign_out_changes_nothing() {
    let (house, browser) = due().await;
    let sign_out = async {
        let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert_eq!((out.status, browser.jar().len()), (204, 0), "{out:?}");
    };
    let late = house.during_slow(&browser, sign_out).await;
    assert_eq!((late.status, late.body.as_str()), (200, "bob-id"));
    assert_eq!(browser.get("/me").await.status, 401, "{:?}", browser.jar());
    assert!(browser.jar().is_empty(), "what the late answer left is gone");
}

#[tokio::test]
async fn late_answer_leaves_the_next_user_signed_in() {
    let (house, browser) = due().await;
    let next = async {
        browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
        assert_eq!(house.sign_in_as("alice", &browser).await.status, 303);
    };
    assert_eq!(house.during_slow(&browser, next).await.body, "bob-id");
    for _ in 0..2 {
        assert_eq!(browser.get("/me").await.body, "alice-id ");
    }
    // Without a sign-out, too.
    house.clock.advance(MINUTE * 52);
    let next = async {
        assert_eq!(house.sign_in(&browser).await.status, 303);
    };
    assert_eq!(house.during_slow(&browser, next).await.body, "alice-id");
    for _ in 0..2 {
        assert_eq!(browser.get("/me").await.body, "bob-id ");
    }
}

#[tokio::test]
async fn late_end_leaves_the_next_user_signed_in() {
    let (house, browser) = due().await;
    // Its user signed out elsewhere, and this process does not know.
    let copy = house.visitor();
    *copy.cookies.lock().unwrap() = browser.cookies.lock().unwrap().clone();
    copy.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    house.clock.advance(MINUTE * 2);
    let next = async {
        assert_eq!(house.sign_in_as("alice", &browser).await.status, 303);
    };
    assert_eq!(house.during_slow(&browser, next).await.body, "bob-id");
    assert_eq!(browser.get("/me").await.body, "alice-id ");
}

#[tokio::test]
async fn late_answer_brings_no_older_token_back() {
    let keys = SealingKeys::random().unwrap();
    let plan = || Plan { sessions: Some(keys.clone()), ..Plan::default() };
    let house = plan().build().await;
    let browser = house.visitor();
    house.sign_in(&browser).await;
    house.clock.advance(MINUTE * 52);
    let renewals = async {
        for _ in 0..2 {
            assert_eq!(browser.get("/me").await.status, 200);
            house.clock.advance(MINUTE * 52);
        }
    };
    assert_eq!(house.during_slow(&browser, renewals).await.status, 200);
    assert_eq!(house.provider.granted("refresh_token"), 2);
    // A process that does not remember what a spent refresh token became.
    let house = house.with_a_client_of_its_own().open(plan()).await;
    let browser = browser.at(&house);
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(house.provider.refresh_reuses(), 0);
}

#[tokio::test]
async fn late_sign_out_ends_only_its_own_session() {
    let (house, browser) = due().await;
    house.provider.fail(ProviderEndpoint::Revocation, Fault::Hang);
    let first = browser.cookies.lock().unwrap().clone();
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "");
    let next = async {
        while house.provider.requests(ProviderEndpoint::Revocation) == 0 {
            tokio::task::yield_now().await;
        }
        // Another tab, whose sign-in was under way before.
        let tab = house.visitor();
        assert_eq!(house.sign_in_as("alice", &tab).await.status, 303);
        browser.cookies.lock().unwrap().extend(tab.session());
        house.provider.heal(ProviderEndpoint::Revocation);
    };
    let (out, ()) = tokio::join!(out, next);
    assert_eq!(out.status, 204);
    assert_eq!(browser.get("/me").await.body, "alice-id ");
    assert!(browser.session().keys().all(|name| !first.contains_key(name)));
}

#[tokio::test]
async fn newest_of_two_sessions_counts() {
    let house = Plan::with_sessions().build().await;
    let (one, two) = (house.visitor(), house.visitor());
    house.sign_in(&one).await;
    house.clock.advance(MINUTE);
    house.sign_in_as("alice", &two).await;
    // Two tabs signed in at once: neither knew of the other.
    one.cookies.lock().unwrap().extend(two.session());
    for _ in 0..2 {
        assert_eq!(one.get("/me").await.body, "alice-id ");
        assert_eq!(one.session(), two.session());
    }
}
