//! Methods, bodies, mounting and settings of the endpoints.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use scaikey_auth::Auth;
use scaikey_auth::endpoints::{Endpoint, Endpoints};
use serde_json::json;
use tower::ServiceExt as _;

use super::env::{Setup, TestEnv};

#[tokio::test]
async fn wrong_method_is_405_with_allow() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    for (path, allow) in [
        ("/v1/auth/login", "GET, POST"),
        ("/v1/auth/token", "POST"),
        ("/v1/auth/refresh", "POST"),
        ("/v1/auth/logout", "POST"),
        ("/v1/auth/register", "POST"),
        ("/v1/auth/introspect", "POST"),
        ("/v1/auth/whoami", "GET, HEAD"),
        ("/v1/auth/config", "GET, HEAD"),
        ("/.well-known/oauth-protected-resource", "GET, HEAD"),
    ] {
        let all = [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
            Method::OPTIONS,
        ];
        for method in all {
            let answer = visitor.send(method.clone(), path, &[], "").await;
            let allowed = allow.split(", ").any(|name| name == method.as_str());
            assert_eq!(answer.status == 405, !allowed, "{method} {path} {}", answer.status);
            if !allowed {
                assert_eq!(answer.header("allow"), allow, "{path}");
                assert_eq!(answer.header("cache-control"), "no-store", "{path}");
            }
        }
    }
    let head = visitor.send(Method::HEAD, "/v1/auth/config", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn oversized_and_mistyped_bodies_are_refused() {
    let env = TestEnv::new().await;
    let visitor = env.visitor();
    for path in ["/v1/auth/token", "/v1/auth/refresh"] {
        let json = json!({ "grant_type": "password", "username": "bob", "password": "hunter2" });
        visitor.post_json(path, &json).await.assert_oauth_error(415, "invalid_request");
    }
    let large = "x".repeat(65 * 1024);
    for path in ["/v1/auth/login", "/v1/auth/token", "/v1/auth/refresh", "/v1/auth/logout"] {
        let answer = visitor.post_form(path, &format!("a={large}")).await;
        answer.assert_oauth_error(413, "invalid_request");
        let twice = "grant_type=password&grant_type=password&code=a&code=a";
        visitor.post_form(path, twice).await.assert_oauth_error(400, "invalid_request");
        let answer =
            visitor.send(Method::POST, path, &[("content-type", "text/plain")], "a=b").await;
        answer.assert_oauth_error(415, "invalid_request");
    }
    let twice = r#"{"code":"a","code":"b"}"#;
    let json = [("content-type", "application/json")];
    let answer = visitor.send(Method::POST, "/v1/auth/login", &json, twice).await;
    answer.assert_oauth_error(400, "invalid_request");
    let answer = visitor.get("/v1/auth/login?state=a&state=b").await;
    answer.assert_oauth_error(400, "invalid_request");
    assert_eq!(env.provider.requests(scaikey_auth::testing::ProviderEndpoint::Token), 0);
}

#[tokio::test]
async fn disabled_endpoint_requests_go_to_inner_service() {
    let setup = Setup::default().endpoints(|endpoints| endpoints.without(Endpoint::Token));
    let env = setup.build().await;
    let answer = env.visitor().post_form("/v1/auth/token", "grant_type=password").await;
    assert_eq!(answer.status, env.visitor().get("/nowhere").await.status);
    for path in ["/v1/auth/", "/v1/auth", "/v1/auth/whoami/", "/v1/auth//whoami", "/v1/authwhoami"]
    {
        let answer = env.visitor().get(path).await;
        assert!(answer.headers.get("pragma").is_none(), "{path} is not an endpoint: {answer:?}");
    }

    let bare = Auth::builder().issuer("https://id.example").audience("me").build().unwrap();
    let endpoints = bare.endpoints().build().unwrap();
    assert_eq!(endpoints.enabled(), [Endpoint::Whoami, Endpoint::Introspect]);
}

async fn status(router: Router, path: &str) -> u16 {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    router.oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn endpoints_work_layered_nested_merged_as_fallback() {
    let auth = Auth::builder().issuer("https://id.example").audience("me").build().unwrap();
    let at = |prefix: &str| -> Endpoints { auth.endpoints().prefix(prefix).build().unwrap() };
    let layered = Router::new().layer(at("/v1/auth"));
    let fallback = Router::new().fallback_service(at("/v1/auth/").service());
    let nested = Router::new().nest_service("/v1/auth", at("").service());
    let merged = Router::new().merge(Router::new().fallback_service(at("/v1/auth").service()));
    for (how, router) in
        [("layer", layered), ("fallback", fallback), ("nested", nested), ("merged", merged)]
    {
        assert_eq!(status(router.clone(), "/v1/auth/whoami").await, 401, "{how}");
        assert_eq!(status(router, "/v1/auth/other").await, 404, "{how}");
    }
}

#[tokio::test]
async fn invalid_settings_are_refused_by_build() {
    let env = TestEnv::new().await;
    let assert_fault = |build: &dyn Fn() -> scaikey_auth::endpoints::EndpointsBuilder,
                        problem: &str| {
        let error = build().build().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    };
    let sign_in = || scaikey_auth::endpoints::SignIn::new("https://wave.example/v1/auth/login");
    assert_fault(&|| env.auth.endpoints().sign_in(sign_in()), "client");
    assert_fault(&|| env.auth.endpoints().prefix("v1"), "prefix");
    let with = |sign_in| env.auth.endpoints().client(env.client.clone()).sign_in(sign_in);
    assert_fault(
        &|| with(scaikey_auth::endpoints::SignIn::new("http://wave.example/x")),
        "redirect_uri",
    );
    assert_fault(&|| with(sign_in().landing("https://evil.example")), "landing");
    assert_fault(&|| with(sign_in().failure_page("//evil.example")), "failure_page");
    assert_fault(&|| with(sign_in().failure_page("/sorry#there")), "failure_page");
    assert_fault(&|| with(sign_in().scopes("a\"b")), "scopes");
    let variables = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        let config = scaikey_auth::AuthConfig::from_vars("P", pairs);
        env.auth.endpoints().configured(&config).build().unwrap_err().to_string()
    };
    let keys = "QUFB".repeat(12);
    let error = variables(&[("SESSION_KEYS", &keys)]);
    assert!(error.contains("P_CLIENT_ID"), "{error}");
    let client = [("ISSUER", "https://id.example"), ("CLIENT_ID", "x"), ("CLIENT_SECRET", "y")];
    for (name, value) in [
        ("SESSION_KEYS", "short"),
        ("REDIRECT_URI", "http://wave.example/v1/auth/login"),
        ("TRUSTED_PROXIES", "everybody"),
        ("TRUST_FILE", "/nowhere.toml"),
    ] {
        let error = variables(&[&client[..], &[(name, value)]].concat());
        assert!(error.contains(&format!("P_{name}")), "{name}: {error}");
    }
}
