//! Failed sign-ins in a browser: the page shown, and the log.

use scaikey_auth::endpoints::{SignIn, TokenBuckets};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint, User};
use scaikey_auth::{Auth, TokenExchangeClient};
use serde_json::json;
use tower::ServiceExt as _;

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, encoded};
use crate::support::{Log, local};

const PAGE: &str = "/sorry";

async fn env() -> TestEnv {
    let setup = Setup::with_sessions().sign_in(|it| it.failure_page(PAGE).landing("/home"));
    setup.build().await
}

fn failure_page(code: &str) -> String {
    format!("{PAGE}?error={code}")
}

#[tokio::test]
async fn every_failure_redirects_to_the_failure_page() {
    let env = env().await;
    let browser = env.visitor();
    let issuer = encoded(&env.provider.issuer());
    for (query, code) in [
        ("error=access_denied".to_owned(), "invalid_request"),
        (format!("error=server_error&iss={issuer}"), "invalid_request"),
        ("code=abc".to_owned(), "invalid_request"),
        ("code=abc&state=made-up".to_owned(), "invalid_request"),
        ("code=abc&code=def&state=x".to_owned(), "invalid_request"),
        ("return_to=%2F%2Fevil.example".to_owned(), "invalid_request"),
    ] {
        let answer = browser.get(&format!("/v1/auth/login?{query}")).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, failure_page(code).as_str()),
            "{query}"
        );
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    // The sign-in took too long.
    let redirect = browser.get("/v1/auth/login").await;
    let callback = env.callback_path(redirect.header("location"));
    env.clock.advance(MINUTE * 11);
    assert_eq!(browser.get(&callback).await.header("location"), failure_page("invalid_request"));
}

#[tokio::test]
async fn unavailable_provider_redirects_to_the_failure_page() {
    let env = env().await;
    env.provider.fail(ProviderEndpoint::Discovery, Fault::Status(503));
    let answer = env.visitor().get("/v1/auth/login").await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(answer.header("location"), failure_page("temporarily_unavailable"));
}

#[tokio::test]
async fn throttled_browser_redirects_to_the_failure_page() {
    let setup = Setup::default().sign_in(|it| it.failure_page(PAGE));
    let env = setup.endpoints(|it| it.throttle(TokenBuckets::new())).build().await;
    let browser = env.visitor();
    let mut last = String::new();
    for _ in 0..200 {
        last = browser.get("/v1/auth/login").await.header("location").to_owned();
        if last.starts_with(PAGE) {
            break;
        }
    }
    assert_eq!(last, failure_page("temporarily_unavailable"));
}

#[tokio::test]
async fn back_button_with_session_shows_landing_page() {
    let env = env().await;
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login?return_to=/me").await;
    let callback = env.callback_path(redirect.header("location"));
    assert_eq!(browser.get(&callback).await.header("location"), "/me");
    for url in [callback.as_str(), "/v1/auth/login?error=access_denied"] {
        let again = browser.get(url).await;
        assert_eq!((again.status, again.header("location")), (303, "/home"), "{url}");
    }
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 1);
    // An expired session does not lead to the landing page.
    env.clock.advance(MINUTE * 60 * 13);
    assert_eq!(browser.get(&callback).await.header("location"), failure_page("invalid_request"));
}

#[tokio::test]
async fn rejected_access_token_starts_no_session() {
    // Without ID tokens, which are bound to their access token.
    let setup = Setup::with_sessions().sign_in(|it| it.failure_page(PAGE).scopes("docs:read"));
    let env = setup.build().await;
    let elsewhere = env.provider.token().audience("elsewhere").subject("bob-id").sign();
    for (token, cause) in [(elsewhere, "aud"), ("opaque-token".to_owned(), "token_unrecognised")] {
        let log = Log::start();
        let browser = env.visitor();
        env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("access_token", token));
        let answer = env.sign_in(&browser).await;
        assert_eq!(answer.header("location"), failure_page("server_error"), "{cause}");
        assert!(browser.cookie_names().is_empty(), "{cause}");
        let text = log.text();
        let warned =
            text.lines().find(|line| line.contains("WARN") && line.contains("access token"));
        assert!(warned.is_some_and(|line| line.contains(cause)), "{cause}: {text}");
    }
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 2, "the tokens are revoked");
    env.provider.heal(ProviderEndpoint::Token);
    assert_eq!(env.sign_in(&env.visitor()).await.header("location"), "/me");
}

#[tokio::test]
async fn rejected_id_token_is_logged_once() {
    let env = env().await;
    let log = Log::start();
    let warnings = |claim: &str| {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains("WARN") && line.contains("ID token"));
        lines.filter(|line| line.contains(&format!("claim=\"{claim}\""))).count()
    };
    let id_token = |name: &str, value: serde_json::Value| {
        let token = env.provider.token().audience("wave").without("scope").subject("bob-id");
        Fault::replace_member("id_token", token.claim(name, value).sign())
    };
    for (name, value, claim) in [
        ("nonce", json!("another"), "nonce"),
        ("aud", json!("another"), "aud"),
        ("iat", json!(1000), "iat"),
        ("azp", json!("another"), "azp"),
    ] {
        for _ in 0..3 {
            env.provider.fail(ProviderEndpoint::Token, id_token(name, value.clone()));
            let answer = env.sign_in(&env.visitor()).await;
            assert_eq!(answer.header("location"), failure_page("invalid_grant"), "{name}");
        }
        assert_eq!(warnings(claim), 1, "{name}: {}", log.text());
    }
    env.clock.advance(MINUTE * 61);
    env.provider.fail(ProviderEndpoint::Token, id_token("azp", json!("another")));
    env.sign_in(&env.visitor()).await;
    assert_eq!(warnings("azp"), 2, "the warning is repeated after an hour");
}

#[tokio::test]
async fn missing_id_token_is_logged_once() {
    let env = env().await;
    let log = Log::start();
    env.provider.fail(ProviderEndpoint::Token, Fault::remove_member("id_token"));
    for _ in 0..2 {
        let answer = env.sign_in(&env.visitor()).await;
        assert_eq!(answer.header("location"), failure_page("invalid_grant"));
    }
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("WARN") && line.contains("ID token"));
    assert_eq!(lines.count(), 1, "{text}");
}

#[tokio::test]
async fn tokens_too_large_for_cookies_are_revoked() {
    let env = env().await;
    let groups: Vec<_> = (0..2000).map(|nth| format!("group-{nth:08}")).collect();
    env.provider.register_user(User::new("bob", "hunter2").claim("groups", groups));
    let browser = env.visitor();
    assert_eq!(env.sign_in(&browser).await.header("location"), failure_page("server_error"));
    assert!(browser.cookie_names().is_empty());
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1);
}

#[tokio::test]
async fn unknown_callback_parameters_may_repeat() {
    let env = env().await;
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login?return_to=/me&utm=1&utm=2").await;
    let callback = env.callback_path(redirect.header("location"));
    let again = browser.get(&format!("{callback}&session_state=1&x=1&x=2&session_state=2")).await;
    assert_eq!(again.header("location"), "/me", "{again:?}");
    // Known parameters must not repeat, and no code is redeemed.
    let requests = env.provider.requests(ProviderEndpoint::Token);
    for name in ["code", "state", "iss", "error"] {
        let browser = env.visitor();
        let redirect = browser.get("/v1/auth/login").await;
        let callback = env.callback_path(redirect.header("location"));
        let answer = browser.get(&format!("{callback}&{name}=1&{name}=2")).await;
        assert_eq!(answer.header("location"), failure_page("invalid_request"), "{name}");
    }
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), requests);
}

#[tokio::test]
async fn services_keep_separate_sign_in_cookies() {
    let setup = |prefix: &'static str| Setup {
        sessions: Some(SealingKeys::random().unwrap()),
        ..Setup::default().sign_in(move |it| it.cookie_prefix(prefix))
    };
    let first = setup("one-two").build().await;
    let browser = first.visitor();
    let redirect = browser.get("/v1/auth/login").await;
    let callback = first.callback_path(redirect.header("location"));
    let api = first.api.clone();
    let second = first.start_process(setup("one")).await;
    let browser = browser.at(&second);
    for _ in 0..10 {
        browser.get("/v1/auth/login").await;
    }
    let is_first = |name: &&String| name.starts_with("__Host-one-two-");
    assert_eq!(browser.cookie_names().iter().filter(is_first).count(), 1);
    let first = TestEnv { api, ..second };
    assert_eq!(browser.at(&first).get(&callback).await.status, 303);
}

#[tokio::test]
async fn invalid_sign_in_cookie_prefix_is_refused() {
    let env = TestEnv::new().await;
    for bad in ["", "a b", "a;b", "a=b"] {
        let sign_in = SignIn::new(REDIRECT).cookie_prefix(bad);
        let built = env.auth.endpoints().client(env.client.clone()).sign_in(sign_in).build();
        let error = built.unwrap_err().to_string();
        assert!(error.contains("cookie_prefix"), "{bad:?}: {error}");
    }
}

#[tokio::test]
async fn login_cannot_be_landing_or_failure_page() {
    let env = TestEnv::new().await;
    for path in ["/v1/auth/login", "/v1/auth/login?a=b", "/v1/./x/../auth/login"] {
        let pages = [
            (SignIn::new(REDIRECT).failure_page(path), "failure_page"),
            (SignIn::new(REDIRECT).landing(path), "landing"),
        ];
        for (sign_in, field) in pages {
            let endpoints = env.auth.endpoints().prefix("/v1/auth/");
            let built = endpoints.client(env.client.clone()).sign_in(sign_in).build();
            let error = built.unwrap_err().to_string();
            assert!(error.contains(field) && error.contains("`login`"), "{path}: {error}");
        }
    }
    let sign_in = SignIn::new(REDIRECT).failure_page("/login").landing("/v1/auth/login/x");
    let endpoints = env.auth.endpoints().client(env.client.clone());
    assert!(endpoints.sign_in(sign_in).build().is_ok());
}

#[tokio::test]
async fn callback_can_be_repeated_after_outage() {
    let env = Setup::with_sessions().build().await;
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login?return_to=/me").await;
    let callback = env.callback_path(redirect.header("location"));
    let cookies = browser.cookies.lock().unwrap().clone();
    env.provider.fail(ProviderEndpoint::Jwks, Fault::Status(503));
    let first = browser.get(&callback).await;
    assert_eq!(first.status, 503, "{first:?}");
    env.provider.heal(ProviderEndpoint::Jwks);
    env.clock.advance(MINUTE / 2);
    *browser.cookies.lock().unwrap() = cookies;
    let second = browser.get(&callback).await;
    assert_eq!((second.status, second.header("location")), (303, "/me"), "{second:?}");
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0);
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn error_description_is_ignored() {
    let env = env().await;
    for described in ["no", "d%C3%A9ni", "d%E9ni", "a&error_description=b", "x&error_uri=%FF"] {
        let browser = env.visitor();
        let redirect = browser.get("/v1/auth/login").await;
        let url = url::Url::parse(redirect.header("location")).unwrap();
        let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let issuer = encoded(&env.provider.issuer());
        let url = format!(
            "/v1/auth/login?error=access_denied&state={state}&iss={issuer}&error_description={described}"
        );
        let answer = browser.get(&url).await;
        assert_eq!(answer.header("location"), failure_page("access_denied"), "{described}");
        assert!(browser.cookie_names().is_empty(), "{described}");
    }
}

#[tokio::test]
async fn different_subjects_need_opt_in() {
    let provider = Provider::start().await;
    let auth = Auth::builder().issuer(local(provider.issuer())).audience("wave").build().unwrap();
    let token = || provider.token().audience("wave");
    let answer = json!({
        "token_type": "Bearer", "expires_in": 600, "access_token": token().subject("1").sign(),
        "id_token": token().subject("2").typ(Some("JWT")).sign(),
    });
    provider.fail(ProviderEndpoint::Token, Fault::Body("application/json", answer.to_string()));
    let client = || {
        TokenExchangeClient::builder(provider.issuer())
            .client_auth(ClientAuth::basic("wave", "secret"))
            .allow_loopback_http(true)
    };
    for (client, status) in [(client(), 400), (client().insecure_any_subject(), 200)] {
        let endpoints = auth.endpoints().client(client.build().unwrap());
        let endpoints = endpoints.sign_in(SignIn::new("https://wave.example/v1/auth/login"));
        let request = http::Request::post("/v1/auth/login")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(axum::body::Body::from(format!("code=c&code_verifier={}", "v".repeat(43))));
        let router = axum::Router::new().layer(endpoints.build().unwrap());
        let answer = router.oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
    }
}

#[tokio::test]
async fn failed_page_loads_show_the_failure_page() {
    let env = env().await;
    let browser = env.visitor();
    let navigate = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let form = ("content-type", "application/x-www-form-urlencoded");
    let large = "a=".to_owned() + &"x".repeat(70_000);
    let table = [
        ("POST", "logout", "", "invalid_request"),
        ("POST", "logout", large.as_str(), "invalid_request"),
        ("POST", "logout", "refresh_token=a&refresh_token=b", "invalid_request"),
        ("POST", "login", "code=abc", "invalid_request"),
        ("POST", "token", "grant_type=other", "unsupported_grant_type"),
        ("POST", "refresh", "refresh_token=made-up", "invalid_grant"),
        ("GET", "token", "", "invalid_request"),
        ("GET", "logout", "", "invalid_request"),
    ];
    for (method, endpoint, body, code) in table {
        let (method, path) = (method.parse().unwrap(), format!("/v1/auth/{endpoint}"));
        let send = async |headers: &[(&str, &str)]| {
            browser.send(axum::http::Method::clone(&method), &path, headers, body).await
        };
        let page = send(&[&navigate[..], &[form]].concat()).await;
        let expected = (303, failure_page(code));
        let location = page.header_opt("location").unwrap_or_default().to_owned();
        assert_eq!((page.status, location), expected, "{method} {path} {page:?}");
        assert_eq!(page.header("cache-control"), "no-store");
        let script = send(&[form, ("sec-fetch-mode", "cors")]).await;
        assert!((400..500).contains(&script.status), "{method} {path} {script:?}");
    }
    // The session layer acts on the 401 of `whoami`, so it keeps its status.
    let whoami = browser.send(axum::http::Method::GET, "/v1/auth/whoami", &navigate, "").await;
    assert_eq!(whoami.status, 401);
}

#[tokio::test]
async fn unavailable_config_shows_the_failure_page() {
    let env = env().await;
    env.provider.fail(ProviderEndpoint::Discovery, Fault::Status(503));
    let browser = env.visitor();
    let html = [("accept", "text/html")];
    let page = browser.send(axum::http::Method::GET, "/v1/auth/config", &html, "").await;
    assert_eq!(page.header("location"), failure_page("temporarily_unavailable"));
    browser.get("/v1/auth/config").await.assert_oauth_error(503, "temporarily_unavailable");
}
