//! A service that browsers see under a sub-path, behind a proxy that removes it or not.

use std::collections::BTreeMap;

use axum::http::Method;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::session::Sessions;
use scaikey_auth::{AuthConfig, ConfigError};

use super::env::{REDIRECT, SUB_PATH_REDIRECT, Setup, TestEnv, Visitor, encoded};
use crate::support::proxy::Forwarded::{self, Stripped, Whole};
use crate::support::{Log, Server, proxy};

/// Starts a service with sessions behind a proxy that publishes it under `/app`.
async fn behind_proxy(
    forwarded: Forwarded,
    change: fn(SignIn) -> SignIn,
) -> (TestEnv, Visitor, Server) {
    let setup = Setup::with_sessions()
        .sign_in(move |_| change(SignIn::new(SUB_PATH_REDIRECT).scopes("openid docs:read")))
        .auth(|auth| auth.resource("https://wave.example/app"));
    let setup = match forwarded {
        Stripped => setup,
        Whole => Setup { base: "/app", ..setup.endpoints(|it| it.prefix("/app/v1/auth")) },
    };
    let mut env = setup.build().await;
    let proxy = proxy::start(env.api.clone(), forwarded).await;
    env.api = proxy.url();
    let browser = env.visitor();
    (env, browser, proxy)
}

#[tokio::test]
async fn sign_in_works_under_a_sub_path() {
    for forwarded in [Stripped, Whole] {
        let (env, browser, _proxy) = behind_proxy(forwarded, |it| it).await;
        let config = browser.get("/app/v1/auth/config").await;
        assert_eq!(config.json()["login_endpoint"], "/app/v1/auth/login", "{forwarded:?}");
        let page = encoded("/app/me");
        let redirect = browser.get(&format!("/app/v1/auth/login?return_to={page}")).await;
        let callback = env.callback_path(redirect.header("location"));
        assert!(callback.starts_with("/app/v1/auth/login?code="), "{callback}");
        assert_eq!(browser.get(&callback).await.header("location"), "/app/me", "{forwarded:?}");
        assert_eq!(browser.get("/app/me").await.body, "bob-id ", "{forwarded:?}");
        // Pages of the service send its origin; the proxy replaces `Host`.
        let same = [("sec-fetch-site", "same-origin"), ("origin", "https://wave.example")];
        let out = browser.send(Method::POST, "/app/v1/auth/logout", &same, "").await;
        assert_eq!((out.status, browser.cookie_names().len()), (204, 0), "{out:?}");
        // The metadata of the resource stands at the root of the host (RFC 9728 §3), so the proxy forwards it
        // from there.
        let challenge = browser.get("/app/me").await.challenge().unwrap();
        let metadata = "https://wave.example/.well-known/oauth-protected-resource/app";
        assert_eq!(challenge.param("resource_metadata"), Some(metadata));
    }
}

#[tokio::test]
async fn default_landing_is_the_public_path() {
    for (forwarded, landing) in [(Stripped, "/app/"), (Whole, "/app")] {
        let (env, browser, _proxy) =
            behind_proxy(forwarded, |it| it.failure_page("/app/sorry")).await;
        let redirect = browser.get("/app/v1/auth/login").await;
        let callback = env.callback_path(redirect.header("location"));
        assert_eq!(browser.get(&callback).await.header("location"), landing, "{forwarded:?}");
        // The back button.
        assert_eq!(browser.get(&callback).await.header("location"), landing, "{forwarded:?}");
        let failed = env.visitor().get(&callback).await;
        let sorry = "/app/sorry?error=invalid_request";
        assert_eq!(failed.header("location"), sorry, "{forwarded:?}");
    }
}

#[tokio::test]
async fn return_to_may_have_the_own_origin() {
    let env = Setup::with_sessions().build().await;
    let browser = env.visitor();
    let return_to = encoded("https://wave.example/me?a=b#c");
    let redirect = browser.get(&format!("/v1/auth/login?return_to={return_to}")).await;
    let callback = env.callback_path(redirect.header("location"));
    assert_eq!(browser.get(&callback).await.header("location"), "/me?a=b#c");
    for elsewhere in [
        "https://wave.example.evil.example/me",
        "https://wave.example@evil.example/me",
        "https://wave.example//evil.example",
        "http://wave.example/me",
        "https://wave.example:8443/me",
        // Another sign-in, without end.
        "/v1/auth/login",
        "https://wave.example/v1/auth/login?return_to=/me",
    ] {
        let return_to = encoded(elsewhere);
        let answer = browser.get(&format!("/v1/auth/login?return_to={return_to}")).await;
        answer.assert_oauth_error(400, "invalid_request");
    }
}

#[tokio::test]
async fn public_login_is_no_landing_page() {
    let env = TestEnv::new().await;
    let build = |sign_in| env.auth.endpoints().client(env.client.clone()).sign_in(sign_in).build();
    let sub_path = || SignIn::new(SUB_PATH_REDIRECT);
    for page in ["/app/v1/auth/login", "/app/./v1/auth/login?a=b"] {
        for sign_in in [sub_path().landing(page), sub_path().failure_page(page)] {
            let error = build(sign_in).unwrap_err().to_string();
            assert!(error.contains("is the path of `login`"), "{error}");
        }
    }
    // A page of another service of the host.
    assert!(build(sub_path().landing("/v1/auth/login")).is_ok());
}

#[tokio::test]
async fn doubtful_paths_are_logged() {
    let env = TestEnv::new().await;
    let told = |sign_in: SignIn, cookie_name: &str| {
        let log = Log::start();
        let keys = scaikey_auth::exchange::SealingKeys::random().unwrap();
        let sessions = Sessions::builder(&env.auth, env.client.clone(), keys);
        let sessions = sessions.cookie_name(cookie_name).build().unwrap();
        let endpoints = env.auth.endpoints().client(env.client.clone()).sessions(sessions);
        endpoints.sign_in(sign_in).build().unwrap();
        log.text()
    };
    let quiet = told(SignIn::new(REDIRECT).landing("/home"), "session");
    assert!(!quiet.contains("WARN"), "{quiet}");
    let named = || SignIn::new(SUB_PATH_REDIRECT).cookie_prefix("sign-in-wave");
    let quiet = told(named().landing("/app/home").failure_page("/app"), "wave");
    assert!(!quiet.contains("WARN"), "{quiet}");
    for (sign_in, cookie_name, warning) in [
        (
            named().landing("/home"),
            "wave",
            "landing is /home, but browsers see this service under /app",
        ),
        (named().failure_page("/application"), "wave", "failure_page is /application, but"),
        (named(), "session", "cookie_name has its default"),
        (SignIn::new(SUB_PATH_REDIRECT), "wave", "cookie_prefix has its default"),
        (SignIn::new("https://wave.example/app/callback"), "wave", "the path of redirect_uri"),
    ] {
        let log = told(sign_in, cookie_name);
        assert!(log.contains(warning), "{warning}: {log}");
    }
}

fn from_variables(
    env: &TestEnv,
    more: &[(&str, &str)],
) -> Result<scaikey_auth::endpoints::Endpoints, ConfigError> {
    let issuer = env.provider.issuer();
    let keys = "QUFB".repeat(12);
    let fixed = [
        ("ISSUER", issuer.as_str()),
        ("ALLOW_LOOPBACK_HTTP", "true"),
        ("CLIENT_ID", "wave"),
        ("CLIENT_SECRET", "secret"),
        ("REDIRECT_URI", SUB_PATH_REDIRECT),
        ("SESSION_KEYS", &keys),
    ];
    let all: BTreeMap<_, _> = fixed.iter().chain(more).copied().collect();
    let all = all.into_iter().map(|(name, value)| (format!("P_{name}"), value.to_owned()));
    env.auth.endpoints().configured(&AuthConfig::from_vars("P", all)).build()
}

#[tokio::test]
async fn warnings_name_the_variables() {
    let env = TestEnv::new().await;
    let told = |more: &[(&str, &str)]| {
        let log = Log::start();
        from_variables(&env, more).unwrap();
        let text = log.text();
        text.lines().filter(|line| line.contains("WARN")).collect::<Vec<_>>().join("\n")
    };
    let log = told(&[("LANDING", "/home"), ("FAILURE_PAGE", "/sorry")]);
    for name in ["P_COOKIE_NAME has its default", "P_LANDING is /home", "P_FAILURE_PAGE is /sorry"]
    {
        assert!(log.contains(name), "{name}: {log}");
    }
    assert_eq!(log.lines().count(), 3, "{log}");
    let named = ("COOKIE_NAME", "wave");
    let log = told(&[named, ("REDIRECT_URI", "https://wave.example/app/callback")]);
    assert!(log.contains("the path of P_REDIRECT_URI is"), "{log}");
    assert!(!told(&[named]).contains("WARN"));
}

#[tokio::test]
async fn environment_sets_paths_and_cookie_names() {
    let env = TestEnv::new().await;
    let variables = [
        ("ENDPOINTS_PREFIX", "/app/v1/auth"),
        ("LANDING", "/app/home"),
        ("FAILURE_PAGE", "/app/sorry"),
        ("COOKIE_NAME", "wave"),
        ("REDIRECT_NAVIGATION", "true"),
        ("SCOPES", "openid docs:read"),
    ];
    let endpoints = from_variables(&env, &variables).unwrap();
    let sessions = endpoints.sessions().unwrap().clone();
    let app = axum::Router::new()
        .route(
            "/app/me",
            axum::routing::get(async |who: scaikey_auth::Identity| who.subject().to_owned()),
        )
        .layer(env.auth.layer())
        .layer(endpoints)
        .layer(sessions.layer());
    let service = Server::axum(app).await;
    let mut env = env;
    env.api = service.url();
    let browser = env.visitor();
    let navigate = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let led = browser.send(Method::GET, "/app/me", &navigate, "").await;
    assert_eq!(led.header("location"), format!("{SUB_PATH_REDIRECT}?return_to=%2Fapp%2Fme"));
    let redirect = browser.get("/app/v1/auth/login").await;
    assert!(browser.cookie_names()[0].starts_with("__Host-sign-in-wave-"));
    let callback = env.callback_path(redirect.header("location"));
    assert_eq!(browser.get(&callback).await.header("location"), "/app/home");
    assert!(browser.cookie_names().iter().all(|name| name.starts_with("__Host-wave-")));
    assert_eq!(browser.get("/app/me").await.body, "bob-id");
    let failed = env.visitor().get(&callback).await;
    assert_eq!(failed.header("location"), "/app/sorry?error=invalid_request");
}

#[tokio::test]
async fn invalid_paths_name_their_variables() {
    let env = TestEnv::new().await;
    for (name, value) in [
        ("ENDPOINTS_PREFIX", "v1/auth"),
        ("ENDPOINTS_PREFIX", "https://wave.example/app"),
        ("ENDPOINTS_PREFIX", "/app/../v1"),
        ("LANDING", "home"),
        ("LANDING", "https://wave.example/home"),
        ("FAILURE_PAGE", "//evil.example"),
        ("FAILURE_PAGE", "/app/v1/auth/login"),
        ("COOKIE_NAME", "a b"),
        ("REDIRECT_NAVIGATION", "perhaps"),
    ] {
        let error = from_variables(&env, &[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(&format!("P_{name}")), "{name}={value}: {error}");
    }
    for without in ["SESSION_KEYS", "REDIRECT_URI"] {
        let variables = [("REDIRECT_NAVIGATION", "true"), (without, "")];
        let error = from_variables(&env, &variables).unwrap_err().to_string();
        assert!(error.contains("P_REDIRECT_NAVIGATION"), "{without}: {error}");
        assert!(error.contains(&format!("`P_{without}`")), "{error}");
    }
}
