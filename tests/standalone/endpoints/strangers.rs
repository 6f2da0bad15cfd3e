//! Callers without a credential, and what of theirs reaches others.

use axum::http::Method;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use serde_json::json;

use super::house::{MINUTE, Plan};
use crate::support::Log;

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

#[tokio::test]
async fn strangers_throttled_stop_nobody_else() {
    let plan = Plan::with_sessions().endpoints(|it| it.unthrottled());
    let house = plan.build().await;
    let (browser, stranger) = (house.visitor(), house.visitor());
    house.sign_in(&browser).await;
    house.provider.fail(ProviderEndpoint::Token, Fault::RetryAfter(429, 60));
    let junk = json!({"code": "junk", "code_verifier": "a".repeat(43)});
    let answer = stranger.post_json("/v1/auth/login", &junk).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "60"), "{answer:?}");
    assert_eq!(stranger.post_form("/v1/auth/refresh", "refresh_token=junk").await.status, 503);
    // A sign-in of their own, which ends with a made-up code.
    let away = stranger.get("/v1/auth/login").await;
    let back = house.signed_in_at_provider(away.header("location"));
    assert_eq!(stranger.get(&back).await.status, 503);
    house.provider.heal(ProviderEndpoint::Token);
    assert_eq!(house.sign_in(&house.visitor()).await.status, 303);
    let tokens = house.tokens_of_bob().await;
    let refresh = format!("refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    assert_eq!(stranger.post_form("/v1/auth/refresh", &refresh).await.status, 200);
    let before = house.provider.requests(ProviderEndpoint::Token);
    house.clock.advance(MINUTE * 61);
    assert_eq!(browser.get("/me").await.status, 200, "the session is renewed");
    assert_eq!(house.provider.requests(ProviderEndpoint::Token), before + 1);
    // The same for the end of sessions.
    house.provider.fail(ProviderEndpoint::Revocation, Fault::RetryAfter(429, 60));
    assert_eq!(stranger.post_form("/v1/auth/logout", "refresh_token=junk").await.status, 503);
    house.provider.heal(ProviderEndpoint::Revocation);
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!(out.status, 204, "{out:?}");
}

#[tokio::test]
async fn junk_to_revoke_fills_no_log() {
    let log = Log::start();
    let house = Plan::default().endpoints(|it| it.unthrottled()).build().await;
    house.provider.fail(ProviderEndpoint::Revocation, Fault::Status(500));
    let stranger = house.visitor();
    for nth in 0..30 {
        let junk = format!("refresh_token=junk{nth}");
        assert_eq!(stranger.post_form("/v1/auth/logout", &junk).await.status, 503);
    }
    let told = |what: &str| log.lines("WARN").iter().filter(|line| line.contains(what)).count();
    assert_eq!(told("token endpoint fails"), 1, "{}", log.text());
    assert_eq!(told("not revoked"), 1, "{}", log.text());
    house.provider.heal(ProviderEndpoint::Revocation);
    assert_eq!(stranger.post_form("/v1/auth/logout", "refresh_token=junk").await.status, 204);
    house.provider.fail(ProviderEndpoint::Revocation, Fault::Status(500));
    stranger.post_form("/v1/auth/logout", "refresh_token=junk").await;
    assert_eq!(told("not revoked"), 2, "it is told again after it worked");
}
