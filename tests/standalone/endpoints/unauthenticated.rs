//! Unauthenticated callers must not affect other callers.

use axum::http::Method;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use serde_json::json;

use super::env::{MINUTE, Setup};
use crate::support::Log;

const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");

#[tokio::test]
async fn provider_429_affects_only_the_unauthenticated_caller() {
    let setup = Setup::with_sessions().endpoints(|it| it.unthrottled());
    let env = setup.build().await;
    let (browser, stranger) = (env.visitor(), env.visitor());
    env.sign_in(&browser).await;
    env.provider.fail(ProviderEndpoint::Token, Fault::RetryAfter(429, 60));
    let junk = json!({"code": "junk", "code_verifier": "a".repeat(43)});
    let answer = stranger.post_json("/v1/auth/login", &junk).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "60"), "{answer:?}");
    assert_eq!(stranger.post_form("/v1/auth/refresh", "refresh_token=junk").await.status, 503);
    // The stranger signs in, too.
    let redirect = stranger.get("/v1/auth/login").await;
    let callback = env.callback_path(redirect.header("location"));
    assert_eq!(stranger.get(&callback).await.status, 503);
    env.provider.heal(ProviderEndpoint::Token);
    assert_eq!(env.sign_in(&env.visitor()).await.status, 303);
    let tokens = env.bob_tokens().await;
    let refresh = format!("refresh_token={}", tokens["refresh_token"].as_str().unwrap());
    assert_eq!(stranger.post_form("/v1/auth/refresh", &refresh).await.status, 200);
    let before = env.provider.requests(ProviderEndpoint::Token);
    env.clock.advance(MINUTE * 61);
    assert_eq!(browser.get("/me").await.status, 200, "the session is renewed");
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), before + 1);
    // The same for revocation.
    env.provider.fail(ProviderEndpoint::Revocation, Fault::RetryAfter(429, 60));
    assert_eq!(stranger.post_form("/v1/auth/logout", "refresh_token=junk").await.status, 503);
    env.provider.heal(ProviderEndpoint::Revocation);
    let out = browser.send(Method::POST, "/v1/auth/logout", &[SAME], "").await;
    assert_eq!(out.status, 204, "{out:?}");
}

#[tokio::test]
async fn junk_revocations_are_logged_once() {
    let log = Log::start();
    let env = Setup::default().endpoints(|it| it.unthrottled()).build().await;
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(500));
    let stranger = env.visitor();
    for nth in 0..30 {
        let junk = format!("refresh_token=junk{nth}");
        assert_eq!(stranger.post_form("/v1/auth/logout", &junk).await.status, 503);
    }
    let count = |what: &str| log.lines("WARN").iter().filter(|line| line.contains(what)).count();
    assert_eq!(count("requests to the provider fail"), 1, "{}", log.text());
    assert_eq!(count("not revoked"), 1, "{}", log.text());
    env.provider.heal(ProviderEndpoint::Revocation);
    assert_eq!(stranger.post_form("/v1/auth/logout", "refresh_token=junk").await.status, 204);
    env.provider.fail(ProviderEndpoint::Revocation, Fault::Status(500));
    stranger.post_form("/v1/auth/logout", "refresh_token=junk").await;
    assert_eq!(count("not revoked"), 2, "the failure is logged again after a success");
}
