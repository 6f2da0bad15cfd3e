//! Sign-ins that the provider answers with a form (`response_mode=form_post`), and attacks on them.

use axum::http::Method;
use scaikey_auth::AuthConfig;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::session::MemorySessions;
use scaikey_auth::testing::ProviderEndpoint;
use serde_json::json;

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, Visitor, encoded};
use crate::support::http::Answer;

const LOGIN: &str = "/v1/auth/login";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const PAGE: &str = "/sorry";

fn setup() -> Setup {
    Setup::with_sessions().sign_in(|it| it.form_post().failure_page(PAGE))
}

fn refused(code: &str) -> String {
    format!("{PAGE}?error={code}")
}

/// Posts a form as a page of the provider does. `site`: `cross-site`, or `same-site`.
async fn post(browser: &Visitor, path: &str, form: &str, site: &str) -> Answer {
    let headers = [
        FORM,
        ("origin", "https://id.example"),
        ("sec-fetch-site", site),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("accept", "text/html,*/*;q=0.8"),
    ];
    browser.send(Method::POST, path, &headers, form).await
}

/// Starts a sign-in. Returns the provider's answer as a form.
async fn start(env: &TestEnv, browser: &Visitor) -> String {
    let redirect = browser.get(&format!("{LOGIN}?return_to=/me")).await;
    let location = redirect.header("location");
    assert!(location.contains("response_mode=form_post"), "{location}");
    env.callback_path(location).split_once('?').unwrap().1.to_owned()
}

/// Returns a form with another value.
fn with(form: &str, name: &str, value: &str) -> String {
    let mut pairs: Vec<_> = form.split('&').map(str::to_owned).collect();
    pairs.retain(|pair| !pair.starts_with(&format!("{name}=")));
    pairs.push(format!("{name}={value}"));
    pairs.join("&")
}

fn value<'f>(form: &'f str, name: &str) -> &'f str {
    let pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(known, _)| *known == name).unwrap().1
}

#[tokio::test]
async fn posted_answer_starts_a_session() {
    let env = setup().build().await;
    let browser = env.visitor();
    let form = start(&env, &browser).await;
    // Apple sends `user` at the first sign-in.
    let user = encoded(r#"{"name":{"firstName":"Eve"},"email":"eve@evil.example"}"#);
    let form = format!("{form}&user={user}&id_token=x&id_token=y");
    let answer = post(&browser, LOGIN, &form, "cross-site").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/me"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(browser.cookie_names().iter().all(|name| name.starts_with("__Host-session-")));
    assert!(browser.get("/me").await.body.starts_with("bob-id"));
    // The cookie works once.
    let again = post(&browser, LOGIN, &form, "cross-site").await;
    assert_eq!(again.header("location"), refused("invalid_request"));
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 1);
}

#[tokio::test]
async fn cookies_are_cross_site_for_form_posts() {
    let attribute = |answer: &Answer| {
        let cookie = answer.header("set-cookie").to_owned();
        cookie.rsplit_once("SameSite=").unwrap().1.to_owned()
    };
    let env = setup().build().await;
    let browser = env.visitor();
    assert_eq!(attribute(&browser.get(LOGIN).await), "None");
    let form = start(&env, &browser).await;
    let answer = post(&browser, LOGIN, &form, "cross-site").await;
    let cookies = answer.headers.get_all("set-cookie").iter();
    for cookie in cookies.map(|cookie| cookie.to_str().unwrap()) {
        assert!(cookie.ends_with("SameSite=Lax"), "{cookie}");
    }
    let env = Setup::with_sessions().build().await;
    assert_eq!(attribute(&env.visitor().get(LOGIN).await), "Lax");
}

#[tokio::test]
async fn answer_in_the_query_still_works() {
    let env = setup().build().await;
    let browser = env.visitor();
    let form = start(&env, &browser).await;
    assert_eq!(browser.get(&format!("{LOGIN}?{form}")).await.header("location"), "/me");
}

#[tokio::test]
async fn error_of_the_provider_reaches_the_page() {
    let env = setup().build().await;
    let issuer = encoded(&env.provider.issuer());
    for (error, code) in [
        ("access_denied", "access_denied"),
        ("user_cancelled_authorize", "access_denied"),
        ("made_up", "server_error"),
    ] {
        let browser = env.visitor();
        let state = value(&start(&env, &browser).await, "state").to_owned();
        let form = format!("error={error}&state={state}&iss={issuer}");
        let answer = post(&browser, LOGIN, &form, "cross-site").await;
        assert_eq!(answer.header("location"), refused(code), "{error}");
        assert!(browser.cookie_names().is_empty(), "{error}");
    }
    // Without a sign-in of this browser, not even the error is shown.
    let answer = post(&env.visitor(), LOGIN, "error=access_denied", "cross-site").await;
    assert_eq!(answer.header("location"), refused("invalid_request"));
}

#[tokio::test]
async fn forged_answers_start_no_session() {
    let env = setup().build().await;
    let issuer = encoded(&env.provider.issuer());
    // The attacker's own sign-in, with a code that was not used yet.
    let attacker = env.visitor();
    let evil = start(&env, &attacker).await;
    let browser = env.visitor();
    let own = start(&env, &browser).await;
    let (state, code) = (value(&own, "state"), value(&own, "code"));
    let tokens = env.provider.requests(ProviderEndpoint::Token);
    let without_iss = format!("code={code}&state={state}");
    let attacks = [
        ("login CSRF: state of another browser", String::new(), evil.clone(), "invalid_request"),
        ("state without a sign-in", String::new(), with(&own, "state", "x"), "invalid_request"),
        (
            "state with the same start",
            String::new(),
            {
                let near = format!("{}{}", &state[..16], &value(&evil, "state")[16..]);
                with(&own, "state", &near)
            },
            "invalid_request",
        ),
        ("repeated state", String::new(), format!("{own}&state={state}"), "invalid_request"),
        ("repeated code", String::new(), format!("{own}&code=x"), "invalid_request"),
        ("query and body", format!("?code={code}"), own.clone(), "invalid_request"),
        ("state in the query too", format!("?state={state}"), own.clone(), "invalid_request"),
        ("not UTF-8", String::new(), with(&own, "code", "%FF"), "invalid_request"),
        ("many parameters", String::new(), format!("{own}{}", "&x=".repeat(70)), "invalid_request"),
    ];
    for (attack, query, form, error) in attacks {
        let answer = post(&browser, &format!("{LOGIN}{query}"), &form, "cross-site").await;
        assert_eq!(answer.header("location"), refused(error), "{attack}: {answer:?}");
        assert!(browser.session_cookies().is_empty(), "{attack}");
    }
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), tokens, "no code was sent");
    // None of them used up the sign-in, so the rest begins with another one each.
    for (attack, form) in [
        ("another provider", with(&without_iss, "iss", &encoded("https://evil.example"))),
        ("no provider", without_iss.clone()),
        ("no code", format!("state={state}&iss={issuer}")),
    ] {
        let cookies = browser.cookies.lock().unwrap().clone();
        let answer = post(&browser, LOGIN, &form, "cross-site").await;
        assert_eq!(answer.header("location"), refused("invalid_request"), "{attack}");
        assert!(browser.session_cookies().is_empty(), "{attack}");
        *browser.cookies.lock().unwrap() = cookies;
    }
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), tokens, "no code was sent");
    // A stolen code does not fit the verifier of this browser.
    let answer =
        post(&browser, LOGIN, &with(&own, "code", value(&evil, "code")), "cross-site").await;
    assert_eq!(answer.header("location"), refused("invalid_grant"));
    assert!(browser.session_cookies().is_empty());
}

#[tokio::test]
async fn expired_sign_in_is_refused() {
    let env = setup().build().await;
    let browser = env.visitor();
    let form = start(&env, &browser).await;
    env.clock.advance(MINUTE * 11);
    let answer = post(&browser, LOGIN, &form, "cross-site").await;
    assert_eq!(answer.header("location"), refused("invalid_request"));
}

#[tokio::test]
async fn bodies_of_clients_stay_theirs() {
    for env in [setup().build().await, Setup::with_sessions().build().await] {
        let browser = env.visitor();
        let redirect = browser.get(&format!("{LOGIN}?return_to=/me")).await;
        let form = env.callback_path(redirect.header("location"));
        let form = form.split_once('?').unwrap().1;
        let (code, state) = (value(form, "code"), value(form, "state"));
        // The browser's answer in other shapes: no PKCE verifier, so nothing is redeemed.
        let json = json!({ "code": code, "state": state, "iss": env.provider.issuer() });
        let answer = browser.post_json(LOGIN, &json).await;
        answer.assert_oauth_error(400, "invalid_request");
        assert!(answer.body.contains("code_verifier"), "{answer:?}");
        for kind in ["text/plain", "multipart/form-data; boundary=x"] {
            let answer = browser.send(Method::POST, LOGIN, &[("content-type", kind)], form).await;
            answer.assert_oauth_error(415, "invalid_request");
        }
        browser.post_form(LOGIN, "").await.assert_oauth_error(400, "invalid_request");
        let huge = format!("{form}&x={}", "x".repeat(70_000));
        browser.post_form(LOGIN, &huge).await.assert_oauth_error(413, "invalid_request");
        assert_eq!(env.provider.requests(ProviderEndpoint::Token), 0);
        assert!(browser.session_cookies().is_empty());
        // A client's own flow, with its state: tokens, and no session.
        let verifier = scaikey_auth::exchange::PkceVerifier::generate().unwrap();
        let code = env.provider.authorize("bob", "wave", REDIRECT, &verifier.challenge());
        let own = format!("code={code}&state=s&code_verifier={}", verifier.secret().expose());
        let answer = browser.post_form(LOGIN, &own).await;
        assert!(answer.json()["access_token"].is_string(), "{answer:?}");
        assert!(answer.headers.get("set-cookie").is_none());
    }
}

#[tokio::test]
async fn answer_without_the_setting_is_no_callback() {
    let env = Setup::with_sessions().sign_in(|it| it.failure_page(PAGE)).build().await;
    let browser = env.visitor();
    let redirect = browser.get(LOGIN).await;
    assert!(!redirect.header("location").contains("response_mode"));
    let callback = env.callback_path(redirect.header("location"));
    let form = callback.split_once('?').unwrap().1;
    let answer = post(&browser, LOGIN, form, "cross-site").await;
    assert_eq!(answer.header("location"), format!("{PAGE}?error=invalid_request"));
    assert!(browser.session_cookies().is_empty());
}

#[tokio::test]
async fn same_site_provider_replaces_the_session() {
    let env = setup().build().await;
    let browser = env.visitor();
    env.sign_in_as("alice", &browser).await;
    let old = browser.session_cookies();
    let form = start(&env, &browser).await;
    // The browser sends the session of alice, because the provider's host is of the same site.
    let answer = post(&browser, LOGIN, &form, "same-site").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/me"), "{answer:?}");
    assert!(browser.get("/me").await.body.starts_with("bob-id"));
    assert!(browser.session_cookies().keys().all(|name| !old.contains_key(name)));
}

#[tokio::test]
async fn foreign_posts_cannot_use_the_session() {
    let env = setup().build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    let signed_in = browser.session_cookies();
    // A forged answer is handled as without a session, and does not sign the user out.
    for site in ["same-site", "cross-site"] {
        for form in ["state=x&code=y", "error=access_denied", "code=y"] {
            let answer = post(&browser, LOGIN, form, site).await;
            assert_ne!(answer.status, 403, "{answer:?}");
            assert!(!answer.body.contains("access_token"), "{answer:?}");
            assert_eq!(browser.session_cookies(), signed_in, "{form}");
        }
        for path in ["/me", "/v1/auth/logout", "/v1/auth/refresh", "/v1/auth/register"] {
            assert_eq!(post(&browser, path, "state=x", site).await.status, 403, "{path}");
        }
        let json = [("content-type", "application/json"), ("sec-fetch-site", site)];
        assert_eq!(browser.send(Method::POST, LOGIN, &json, "{}").await.status, 403);
        let socket = [FORM, ("sec-fetch-site", site), ("sec-websocket-key", "x")];
        assert_eq!(browser.send(Method::GET, LOGIN, &socket, "").await.status, 403);
    }
    assert_eq!(browser.session_cookies(), signed_in);
    assert_eq!(browser.get("/me").await.status, 200);
    // Without the setting, no foreign post passes.
    let env = Setup::with_sessions().build().await;
    let browser = env.visitor();
    env.sign_in(&browser).await;
    assert_eq!(post(&browser, LOGIN, "state=x&code=y", "same-site").await.status, 403);
}

#[tokio::test]
async fn variable_and_file_turn_form_post_on() {
    let env = TestEnv::new().await;
    let variables = [
        ("P_ISSUER", "https://id.example"),
        ("P_CLIENT_ID", "wave"),
        ("P_CLIENT_SECRET", "secret"),
        ("P_TOKEN_URL", "https://id.example/token"),
        ("P_AUTHORIZATION_URL", "https://id.example/auth"),
        ("P_REDIRECT_URI", REDIRECT),
        ("P_FORM_POST", "true"),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let config = AuthConfig::from_vars("P", variables.map(owned));
    let endpoints = env.auth.endpoints().configured(&config).build().unwrap();
    let request = axum::http::Request::get(LOGIN).body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(endpoints.service(), request).await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap();
    assert!(location.contains("response_mode=form_post"), "{location}");
    let file: AuthConfig =
        serde_json::from_value(json!({ "endpoints": { "form_post": true } })).unwrap();
    assert!(file.endpoints.form_post);
    let sign_in = SignIn::new(REDIRECT).parameter("response_mode", "form_post");
    let endpoints = env.auth.endpoints().client(env.client.clone()).sign_in(sign_in);
    let error = endpoints.build().unwrap_err().to_string();
    assert!(error.contains("response_mode") && error.contains("set form_post"), "{error}");
}

#[tokio::test]
async fn other_sites_cannot_evict_pending_sign_ins() {
    let env = setup().build().await;
    let browser = env.visitor();
    let form = start(&env, &browser).await;
    let page = format!("{LOGIN}?return_to=/{}", "a".repeat(1500));
    for (mode, destination) in
        [("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe"), ("no-cors", "script")]
    {
        env.clock.advance(MINUTE / 60);
        let headers = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", mode),
            ("sec-fetch-dest", destination),
        ];
        let answer = browser.send(Method::GET, &page, &headers, "").await;
        assert_eq!(answer.header("location"), refused("invalid_request"), "{destination}");
        assert_eq!(answer.header_opt("set-cookie"), None, "{destination}");
    }
    assert_eq!(browser.cookie_names().len(), 1);
    assert_eq!(post(&browser, LOGIN, &form, "cross-site").await.header("location"), "/me");
}

/// The provider's page is of another site, so the posted answer comes without the session that it replaces.
#[tokio::test]
async fn posted_answer_ends_the_session_before() {
    let store = MemorySessions::new();
    let of = store.clone();
    let setup = Setup { session_settings: Box::new(move |it| it.store(of)), ..setup() };
    let env = setup.build().await;
    let browser = env.visitor();
    env.sign_in_as("alice", &browser).await;
    let before = browser.copy_at(&env.api);
    env.clock.advance(MINUTE);
    let form = start(&env, &browser).await;
    let cookies = browser.session_cookies();
    browser.cookies.lock().unwrap().retain(|name, _| !cookies.contains_key(name));
    let answer = post(&browser, LOGIN, &form, "cross-site").await;
    assert_eq!((answer.status, answer.header("location")), (303, "/me"), "{answer:?}");
    // The browser sends both cookies again.
    browser.cookies.lock().unwrap().extend(cookies);
    assert!(browser.get("/me").await.body.starts_with("bob-id"));
    assert_eq!(before.get("/me").await.status, 401, "the session of alice has ended");
    // A failed sign-in ends nothing.
    let still = browser.copy_at(&env.api);
    let form = start(&env, &browser).await;
    let refused = post(&browser, LOGIN, &with(&form, "code", "x"), "cross-site").await;
    assert!(refused.header("location").contains("error="), "{refused:?}");
    assert_eq!(still.get("/me").await.status, 200);
}
