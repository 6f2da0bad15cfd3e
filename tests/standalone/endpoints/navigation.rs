//! Browsers that load a page without a session go to the sign-in, and come back.

use axum::http::{Method, StatusCode};
use axum::routing::get;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::error::{ErrorResponse, ProblemJson, Refusal};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::layer::TokenSource;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{Identity, scope};

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, Visitor};
use crate::support::{Answer, Server};

const NAVIGATE: [(&str, &str); 2] =
    [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

type Headers<'h> = &'h [(&'h str, &'h str)];

async fn env() -> TestEnv {
    let setup = Setup::with_sessions().sign_in(SignIn::redirect_navigation);
    setup.build().await
}

async fn load(browser: &Visitor, path: &str) -> Answer {
    browser.send(Method::GET, path, &NAVIGATE, "").await
}

fn sign_in_url(page: &str) -> String {
    format!("{REDIRECT}?return_to={page}")
}

#[tokio::test]
async fn page_load_leads_to_sign_in() {
    let env = env().await;
    let browser = env.visitor();
    let led = load(&browser, "/me?a=b%20c&d").await;
    assert_eq!((led.status, led.body.as_str()), (303, ""), "{led:?}");
    let url = sign_in_url("%2Fme%3Fa%3Db%2520c%26d");
    assert_eq!(led.header("location"), url);
    assert_eq!(led.header("cache-control"), "no-store");
    assert!(led.header("vary").contains("sec-fetch-mode"));
    assert_eq!(led.header_opt("www-authenticate"), None);
    let login = url.strip_prefix("https://wave.example").unwrap();
    let redirect = load(&browser, login).await;
    let callback = env.callback_path(redirect.header("location"));
    let back = load(&browser, &callback).await;
    assert_eq!(back.header("location"), "/me?a=b%20c&d");
    let page = load(&browser, "/me?a=b%20c&d").await;
    assert_eq!((page.status, page.body.as_str()), (200, "bob-id "));
}

#[tokio::test]
async fn only_page_loads_lead_to_sign_in() {
    let env = env().await;
    let browser = env.visitor();
    let [mode, dest] = NAVIGATE;
    let basic = ("authorization", "Basic cHJveHk6cHJveHk=");
    let table: &[(Method, &str, Headers<'_>, u16)] = &[
        (Method::GET, "/me", &NAVIGATE, 303),
        (Method::HEAD, "/me", &NAVIGATE, 303),
        (Method::GET, "/me", &[HTML], 303),
        // Credentials of a proxy.
        (Method::GET, "/me", &[mode, dest, basic], 303),
        // The service's own 401.
        (Method::GET, "/own-401", &NAVIGATE, 303),
        (Method::GET, "/basic-401", &NAVIGATE, 401),
        (Method::GET, "/public", &NAVIGATE, 200),
        // Also protected: the layer does not know which routes exist.
        (Method::GET, "/nowhere", &NAVIGATE, 303),
        (Method::POST, "/me", &NAVIGATE, 401),
        (Method::GET, "/me", &[], 401),
        (Method::GET, "/me", &[("accept", "application/json")], 401),
        (Method::GET, "/me", &[mode, ("sec-fetch-dest", "iframe")], 401),
        (Method::GET, "/me", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), HTML], 401),
        (Method::GET, "/me", &[HTML, ("x-requested-with", "XMLHttpRequest")], 401),
        (Method::GET, "/me", &[mode, dest, ("sec-purpose", "prefetch")], 401),
        (Method::GET, "/me", &[mode, dest, ("sec-websocket-key", "x")], 401),
        (Method::GET, "/me", &[mode, dest, ("authorization", "Bearer x")], 401),
        (Method::GET, "/own-401", &[mode, dest, ("authorization", "Bearer x")], 401),
        (Method::GET, "/own-401", &[mode, dest, ("authorization", "DPoP x")], 401),
    ];
    for (method, path, headers, status) in table {
        let answer = browser.send(method.clone(), path, headers, "").await;
        assert_eq!(answer.status, *status, "{method} {path} {headers:?}: {answer:?}");
    }
    // Off by default.
    let env = Setup::with_sessions().build().await;
    assert_eq!(load(&env.visitor(), "/me").await.status, 401);
}

#[tokio::test]
async fn unsafe_return_pages_are_left_out() {
    let env = env().await;
    let browser = env.visitor();
    let long = format!("/own-401?{}", "a".repeat(2048));
    for path in [long.as_str(), "/own-401?\u{e4}", "/own-401?\\"] {
        let led = load(&browser, path).await;
        let location = led.header("location");
        let kept =
            [REDIRECT, &sign_in_url("%2Fown-401%3F%25C3%25A4"), &sign_in_url("%2Fown-401%3F%5C")];
        assert!(kept.contains(&location) && location.len() < 200, "{path}: {location}");
    }
}

#[tokio::test]
async fn sign_in_does_not_redirect_to_itself() {
    // The layers in the wrong order: the sign-in itself needs a token.
    let keys = SealingKeys::random().unwrap();
    let env = Setup::with_sessions()
        .sign_in(|it| it.redirect_navigation().failure_page("/own-401?from=login"))
        .build()
        .await;
    let sessions = Sessions::builder(&env.auth, env.client.clone(), keys);
    let sessions = sessions.build().unwrap();
    let sign_in = SignIn::new(REDIRECT).redirect_navigation();
    let endpoints = env.auth.endpoints().client(env.client.clone()).sessions(sessions.clone());
    let app = axum::Router::new()
        .layer(endpoints.sign_in(sign_in).build().unwrap())
        .fallback(async || ())
        .layer(env.auth.layer())
        .layer(sessions.layer());
    let server = Server::axum(app).await;
    let status = async |path: &str| server.get(path, &NAVIGATE).await.status;
    assert_eq!(status("/v1/auth/login").await, 401);
    assert_eq!(status("/v1/auth/login?return_to=/").await, 401);
    assert_eq!(status("/other").await, 303);

    // A failed sign-in, whose page needs a session.
    let browser = env.visitor();
    let failed = load(&browser, "/v1/auth/login?code=abc&state=x").await;
    let page = failed.header("location").to_owned();
    assert_eq!(page, "/own-401?from=login&error=invalid_request");
    assert_eq!(load(&browser, &page).await.status, 401);
    assert_eq!(load(&browser, "/own-401?from=login").await.status, 303);
}

#[tokio::test]
async fn query_tokens_are_in_no_redirect() {
    let env = env().await;
    let sessions = Sessions::builder(&env.auth, env.client.clone(), SealingKeys::random().unwrap());
    let sessions = sessions.build().unwrap();
    let endpoints = env.auth.endpoints().client(env.client.clone()).sessions(sessions.clone());
    let sign_in = SignIn::new(REDIRECT).redirect_navigation();
    let layer = |name| {
        let sources = [TokenSource::Authorization, TokenSource::insecure_query(name)];
        env.auth.layer().tokens_from(sources)
    };
    // Handlers that do not know this user, and a route that reads no token from the query.
    let own_401 = || get(async || StatusCode::UNAUTHORIZED);
    let app = axum::Router::new()
        .route("/own", own_401().layer(layer("access_token")))
        .route("/ticket", own_401().layer(layer("ticket")))
        .route("/optional", own_401().layer(layer("ticket").optional()))
        .route("/me", own_401().layer(env.auth.layer()))
        .layer(endpoints.sign_in(sign_in).build().unwrap())
        .layer(sessions.layer());
    let server = Server::axum(app).await;
    let token = env.provider.token().subject("bob-id").sign();
    for (path, status) in [
        (format!("/own?access_token={token}&a=b"), 401),
        (format!("/own?access_token={token}&access_token={token}"), 400),
        (format!("/ticket?a&tick%65t={token}"), 401),
        (format!("/optional?ticket={token}"), 401),
        (format!("/me?access%5Ftoken={token}"), 401),
        ("/own?a=b".to_owned(), 303),
        ("/ticket".to_owned(), 303),
        ("/optional?tickets=x".to_owned(), 303),
    ] {
        let answer = server.get(&path, &NAVIGATE).await;
        assert_eq!(answer.status, status, "{path}");
        let location = answer.header_opt("location").unwrap_or_default();
        assert!(!location.contains(&token), "{location}");
    }
}

#[tokio::test]
async fn refused_session_is_not_redirected() {
    let env = env().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert_eq!(load(&browser, "/own-401").await.status, 401);
    // The provider is unavailable: the user is not signed out.
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    env.clock.advance(MINUTE * 70);
    assert_eq!(load(&browser, "/me").await.status, 503);
    assert!(!browser.session_cookies().is_empty());
}

#[tokio::test]
async fn ended_session_leads_to_sign_in() {
    let env = env().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    env.provider.fail(ProviderEndpoint::Token, Fault::OAuthError(400, "invalid_grant"));
    env.clock.advance(MINUTE * 70);
    let led = load(&browser, "/me").await;
    assert_eq!((led.status, led.header("location")), (303, sign_in_url("%2Fme").as_str()));
    assert!(browser.cookie_names().is_empty(), "the ended session is cleared");
    env.provider.heal(ProviderEndpoint::Token);
    // After the maximum age, the cookies cannot be used.
    env.sign_in(&browser).await;
    env.clock.advance(MINUTE * 60 * 13);
    let led = load(&browser, "/me").await;
    assert_eq!(led.status, 303, "{led:?}");
    assert_eq!(led.header("cache-control"), "no-store");
    assert!(browser.cookie_names().is_empty());
}

#[tokio::test]
async fn unusable_new_session_causes_no_redirect_loop() {
    let first = env().await;
    let browser = first.visitor();
    first.sign_in(&browser).await;
    // Another process, whose keys differ.
    let second =
        first.start_process(Setup::with_sessions().sign_in(SignIn::redirect_navigation)).await;
    let browser = browser.at(&second);
    let cookies = browser.cookies.lock().unwrap().clone();
    let refused = load(&browser, "/me").await;
    assert_eq!(refused.status, 401, "{refused:?}");
    *browser.cookies.lock().unwrap() = cookies;
    second.clock.advance(MINUTE + MINUTE / 60);
    assert_eq!(load(&browser, "/me").await.status, 303);
}

#[tokio::test]
async fn redirect_of_page_loads_needs_sessions() {
    let env = TestEnv::new().await;
    let sign_in = SignIn::new(REDIRECT).redirect_navigation();
    let endpoints = env.auth.endpoints().client(env.client.clone()).sign_in(sign_in);
    let error = endpoints.build().unwrap_err().to_string();
    assert!(error.contains("redirect_navigation"), "{error}");
}

#[tokio::test]
async fn refused_page_loads_get_a_page() {
    let page = |refusal: &Refusal<'_>| -> axum::http::Response<bytes::Bytes> {
        if !refusal.navigation {
            return ProblemJson.respond(refusal);
        }
        let page = format!("<h1>{}</h1>", refusal.error.public_message());
        let mut response = axum::http::Response::new(page.into());
        *response.status_mut() = refusal.status;
        response
    };
    let env = TestEnv::new().await;
    let keys = SealingKeys::random().unwrap();
    let sessions = Sessions::builder(&env.auth, env.client.clone(), keys).build().unwrap();
    let sign_in = SignIn::new(REDIRECT).scopes("openid docs:read");
    let endpoints = env.auth.endpoints().client(env.client.clone()).sessions(sessions.clone());
    let endpoints = endpoints.sign_in(sign_in).respond_with(page).build().unwrap();
    let me = async |who: Identity| who.subject().to_owned();
    let admin = get(me).route_layer(env.auth.require(scope("admin")).respond_with(page));
    let app = axum::Router::new()
        .route("/me", get(me).post(me))
        .route("/admin", admin)
        .layer(env.auth.layer().respond_with(page))
        .layer(endpoints)
        .layer(sessions.layer().respond_with(page));
    let server = Server::axum(app).await;
    let env = TestEnv { api: server.url(), ..env };
    let anonymous = env.visitor();
    let browser = env.visitor();
    env.sign_in(&browser).await;
    let cross_site = ("sec-fetch-site", "cross-site");
    let bearer = ("authorization", "Bearer other");
    let table: &[(&Visitor, &str, &str, Headers<'_>, u16)] = &[
        (&anonymous, "GET", "/me", &[], 401),
        (&anonymous, "GET", "/v1/auth/whoami", &[], 401),
        (&browser, "GET", "/admin", &[], 403),
        (&browser, "POST", "/me", &[cross_site], 403),
        (&browser, "GET", "/me", &[bearer], 400),
    ];
    for (visitor, method, path, headers, status) in table {
        let method: Method = method.parse().unwrap();
        let navigate = [&NAVIGATE[..], headers].concat();
        let shown = visitor.send(method.clone(), path, &navigate, "").await;
        assert_eq!(shown.status, *status, "{method} {path}: {shown:?}");
        assert!(shown.body.starts_with("<h1>"), "{method} {path}: {shown:?}");
        let fetch = [&[("sec-fetch-mode", "cors")][..], headers].concat();
        let json = visitor.send(method.clone(), path, &fetch, "").await;
        assert_eq!(json.header("content-type"), "application/problem+json", "{method} {path}");
    }
    // The provider is unavailable.
    env.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    env.clock.advance(MINUTE * 70);
    let shown = load(&browser, "/me").await;
    assert_eq!((shown.status, &shown.body[..4]), (503, "<h1>"), "{shown:?}");
    assert_eq!(browser.get("/me").await.header("content-type"), "application/problem+json");
}
