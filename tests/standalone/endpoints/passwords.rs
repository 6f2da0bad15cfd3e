//! Passwords and refresh tokens.

use scaikey_auth::TokenExchangeClient;
use scaikey_auth::endpoints::PasswordDecision;
use scaikey_auth::testing::{Fault, ProviderEndpoint};

use super::env::{Setup, TestEnv};

const FORM: &str = "grant_type=password&username=bob&password=hunter2";

#[tokio::test]
async fn password_rule_decides_per_attempt() {
    let env = TestEnv::new().await;
    let setup = Setup::default().endpoints(|endpoints| {
        endpoints.password_grant(|attempt| match attempt.head.headers.get("x-tenant") {
            Some(tenant) if tenant == "open" && attempt.username == "bob" => {
                PasswordDecision::Allow
            }
            Some(_) => PasswordDecision::NotInThisTenant,
            None => PasswordDecision::NotInThisService,
        })
    });
    let env = env.start_process(setup).await;
    let visitor = env.visitor();
    let try_at = async |tenant: Option<&str>| {
        let form = ("content-type", "application/x-www-form-urlencoded");
        let mut headers = vec![form];
        headers.extend(tenant.map(|tenant| ("x-tenant", tenant)));
        visitor.send(axum::http::Method::POST, "/v1/auth/token", &headers, FORM).await
    };
    try_at(None).await.assert_oauth_error(400, "unsupported_grant_type");
    try_at(Some("closed")).await.assert_oauth_error(400, "unauthorized_client");
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 0);
    assert_eq!(try_at(Some("open")).await.status, 200);
}

#[tokio::test]
async fn passwords_are_refused_by_default() {
    let env = TestEnv::new().await;
    let endpoints = env.auth.endpoints().client(env.client.clone()).build().unwrap();
    let service = endpoints.service();
    let request = axum::http::Request::post("/v1/auth/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(axum::body::Body::from(FORM))
        .unwrap();
    let answer = tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 0);
    // The client must have the password grant enabled, too.
    let client = TokenExchangeClient::builder("https://id.example")
        .client_auth(scaikey_auth::issuer::ClientAuth::none("x"))
        .build()
        .unwrap();
    let rule = |_: &scaikey_auth::endpoints::PasswordAttempt<'_>| PasswordDecision::Allow;
    let refused = env.auth.endpoints().client(client).password_grant(rule).build();
    assert!(refused.unwrap_err().to_string().contains("enable_password_grant"));
}

#[tokio::test]
async fn bad_token_requests_have_specific_errors() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    for (form, code) in [
        ("", "invalid_request"),
        ("username=bob&password=hunter2", "invalid_request"),
        ("grant_type=password&password=hunter2", "invalid_request"),
        ("grant_type=password&username=bob", "invalid_request"),
        ("grant_type=password&username=bob&password=", "invalid_request"),
        ("grant_type=client_credentials", "unsupported_grant_type"),
        ("grant_type=authorization_code&code=x", "unsupported_grant_type"),
        ("grant_type=password&username=bob&password=hunter2&scope=%22", "invalid_scope"),
        ("grant_type=password&username=bob&password=hunter2&scope=admin", "invalid_scope"),
        ("grant_type=password&username=bob&password=wrong", "invalid_grant"),
    ] {
        visitor.post_form("/v1/auth/token", form).await.assert_oauth_error(400, code);
    }
    for (form, code) in [
        ("", "invalid_request"),
        ("refresh_token=", "invalid_request"),
        ("refresh_token=x", "invalid_grant"),
        ("refresh_token=x&grant_type=password", "unsupported_grant_type"),
    ] {
        visitor.post_form("/v1/auth/refresh", form).await.assert_oauth_error(400, code);
    }
    // Client credentials of the caller are not forwarded; the service uses its own.
    let form = format!("{FORM}&client_id=evil&client_secret=guess");
    assert_eq!(visitor.post_form("/v1/auth/token", &form).await.status, 200);
    let asked = env.provider.received(ProviderEndpoint::Token);
    let sent = asked.last().unwrap().form();
    assert!(sent.iter().all(|(name, _)| !name.starts_with("client_")), "{sent:?}");
}

#[tokio::test]
async fn refresh_needs_no_grant_type_and_rotates() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    let mut tokens = env.bob_tokens().await;
    for suffix in ["", "&grant_type=refresh_token"] {
        let had = tokens["refresh_token"].as_str().unwrap().to_owned();
        let answer =
            visitor.post_form("/v1/auth/refresh", &format!("refresh_token={had}{suffix}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        tokens = answer.json();
        assert_ne!(tokens["refresh_token"], had.as_str());
    }
    env.provider.keep_refresh_tokens(true);
    let had = tokens["refresh_token"].as_str().unwrap();
    let answer = visitor.post_form("/v1/auth/refresh", &format!("refresh_token={had}")).await;
    assert!(answer.json().get("refresh_token").is_none(), "the old refresh token stays valid");
}

#[tokio::test]
async fn provider_failures_are_not_client_errors() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    env.provider.fail(ProviderEndpoint::Token, Fault::RetryAfter(503, 7));
    let answer = visitor.post_form("/v1/auth/token", FORM).await;
    answer.assert_oauth_error(503, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), "7");
    env.provider.heal(ProviderEndpoint::Token);
    // Some providers answer `invalid_request` to an unknown token.
    let env = TestEnv::new().await;
    let odd = Fault::rewrite(|_| r#"{"error":"invalid_request"}"#.to_owned());
    env.provider.fail(ProviderEndpoint::Token, odd);
    let form = "refresh_token=odd";
    env.visitor()
        .post_form("/v1/auth/refresh", form)
        .await
        .assert_oauth_error(400, "invalid_request");
    let env = TestEnv::new().await;
    env.provider
        .fail(ProviderEndpoint::Token, Fault::rewrite(|_| r#"{"access_token":7}"#.to_owned()));
    env.visitor().post_form("/v1/auth/token", FORM).await.assert_oauth_error(502, "server_error");
}
