//! Secrets in requests must not appear in logs.

use axum::http::Method;
use serde_json::json;

use super::env::{MINUTE, Setup, TestEnv, Visitor};
use crate::support::Log;

/// Sends valid and invalid requests to all endpoints. Returns the secrets in them.
async fn send_all_requests(env: &TestEnv) -> Vec<String> {
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login").await;
    let callback = env.callback_path(redirect.header("location"));
    let code = callback.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let sign_in_cookies: Vec<_> = browser.cookies.lock().unwrap().values().cloned().collect();
    assert_eq!(browser.get(&callback).await.status, 303);
    let session_cookies: Vec<_> = browser.cookies.lock().unwrap().values().cloned().collect();
    browser.get("/me").await;
    env.clock.advance(MINUTE * 55);
    browser.get("/me").await;

    let visitor: Visitor = env.visitor();
    let tokens = env.bob_tokens().await;
    let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
    let (access, refresh) = (text("access_token"), text("refresh_token"));
    let bearer = format!("Bearer {access}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let introspection = json!({ "token": access }).to_string();
    for path in ["introspect", "register"] {
        visitor.send(Method::POST, &format!("/v1/auth/{path}"), &headers, &introspection).await;
    }
    visitor.get(&format!("/v1/auth/login?code={code}&state=made-up-state-canary")).await;
    visitor.get(&format!("/v1/auth/login?error={code}&state=made-up-state-canary")).await;
    for form in [
        "grant_type=password&username=bob&password=password-canary".to_owned(),
        format!("refresh_token={refresh}x"),
        format!("code={code}&code_verifier=verifier-canary-verifier-canary-verifier-canary"),
    ] {
        for path in ["token", "refresh", "login", "logout"] {
            visitor.post_form(&format!("/v1/auth/{path}"), &form).await;
        }
    }
    let made_up = ["password-canary", "verifier-canary", "state-canary", "hunter2"];
    let made_up = made_up.map(str::to_owned);
    [access, refresh, code]
        .into_iter()
        .chain(sign_in_cookies)
        .chain(session_cookies)
        .chain(made_up)
        .collect()
}

#[tokio::test]
async fn no_secret_is_logged() {
    let log = Log::start();
    let env = Setup::with_sessions().build().await;
    let secrets = send_all_requests(&env).await;
    let written = log.text();
    // Only lines of this crate; other libraries log what they want.
    let lines: Vec<_> = written.lines().filter(|line| line.contains("scaikey_auth")).collect();
    assert!(lines.iter().any(|line| line.contains("endpoint answered")), "{written}");
    for secret in &secrets {
        for line in &lines {
            assert!(!line.contains(secret.as_str()), "{line}");
        }
    }
    let debug = format!("{:?} {:?}", env.auth, env.auth.endpoints());
    assert!(secrets.iter().all(|secret| !debug.contains(secret)));
}
