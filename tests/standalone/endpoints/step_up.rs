//! Browsers whose session a guard refused go to another sign-in, and come back (RFC 9470).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::http::Method;
use axum::routing::get;
use scaikey_auth::clock::Clock;
use scaikey_auth::config::IdentitySource;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::error::StepUp;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::guard::{GuardExt, acr, mfa_within, signed_in_within};
use scaikey_auth::session::{MemorySessions, Sessions};
use scaikey_auth::testing::{ProviderEndpoint, User};
use scaikey_auth::{AuthError, Identity, role};
use serde_json::json;

use super::env::{MINUTE, REDIRECT, Setup, TestEnv, Visitor, encoded};
use crate::support::http::client;
use crate::support::{Answer, Log, Server};

const NAVIGATE: [(&str, &str); 2] =
    [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
const LOGIN: &str = "/v1/auth/login";

type Headers<'h> = &'h [(&'h str, &'h str)];

/// The settings of the service.
struct Settings {
    sign_in: fn(SignIn) -> SignIn,
    identity: IdentitySource,
    /// Whether the sessions are on the server.
    has_store: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sign_in: SignIn::redirect_navigation,
            identity: IdentitySource::AccessToken,
            has_store: false,
        }
    }
}

/// A service with guarded pages, and its provider, which reaches the classes `gold` and `silver`.
struct Site {
    env: TestEnv,
    _server: Server,
}

async fn start(settings: Settings) -> Site {
    let env = Setup::default().build().await;
    env.provider.acr_values(["gold", "silver"]);
    let keys = SealingKeys::random().unwrap();
    let sessions = Sessions::builder(&env.auth, env.client.clone(), keys).renewal_wait(MINUTE);
    let sessions = match settings.has_store {
        true => sessions.store(MemorySessions::new()),
        false => sessions,
    };
    let sessions = sessions.identity_from(settings.identity).build().unwrap();
    let sign_in = (settings.sign_in)(SignIn::new(REDIRECT).scopes("openid docs:read"));
    let endpoints = env.auth.endpoints().client(env.client.clone()).sessions(sessions.clone());
    let endpoints = endpoints.sign_in(sign_in).build().unwrap();
    let me = async |who: Identity| who.subject().to_owned();
    let guarded = |layer| get(me).post(me).route_layer(layer);
    let recent = || signed_in_within(MINUTE * 5);
    let own =
        async || -> Result<(), AuthError> { Err(StepUp::default().acr_values(["gold"]).into()) };
    let app = Router::new()
        .route("/gold", guarded(env.auth.require(acr(["phr", "gold"]))))
        .route("/silver", guarded(env.auth.require(acr(["silver"]))))
        .route("/recent", guarded(env.auth.require(recent())))
        .route("/both", guarded(env.auth.require(acr(["gold"]).and(recent()))))
        .route("/mfa", guarded(env.auth.require(mfa_within(Duration::MAX))))
        .route("/boss", guarded(env.auth.require(role("boss"))))
        .route("/own", get(own))
        .route("/me", get(me))
        .layer(env.auth.layer())
        .layer(endpoints)
        .layer(sessions.layer());
    let server = Server::axum(app).await;
    Site { env: TestEnv { api: server.url(), ..env }, _server: server }
}

async fn load(browser: &Visitor, path: &str) -> Answer {
    browser.send(Method::GET, path, &NAVIGATE, "").await
}

impl Site {
    async fn signed_in(&self) -> Visitor {
        let browser = self.env.visitor();
        self.env.sign_in(&browser).await;
        browser
    }

    /// Returns the path of `login` with the sealed parameters that a refused page leads to.
    async fn led_to(&self, browser: &Visitor, page: &str) -> String {
        let led = load(browser, page).await;
        assert_eq!((led.status, led.body.as_str()), (303, ""), "{page}: {led:?}");
        let location = led.header("location");
        assert!(location.starts_with(&format!("{REDIRECT}?step_up=")), "{location}");
        location.strip_prefix("https://wave.example").unwrap().to_owned()
    }

    /// Signs in as bob on the provider's page, and returns the path of the callback.
    async fn at_provider(&self, location: &str) -> String {
        let form = "username=bob&password=hunter2";
        let answer = crate::support::http::send(client().post(location).body(form)).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        answer.header("location").strip_prefix("https://wave.example").unwrap().to_owned()
    }

    /// Follows `login` to the provider and back. Returns the answer to the callback.
    async fn step_up(&self, browser: &Visitor, login: &str) -> Answer {
        let redirect = load(browser, login).await;
        assert_eq!(redirect.status, 303, "{redirect:?}");
        let callback = self.at_provider(redirect.header("location")).await;
        load(browser, &callback).await
    }
}

fn query(location: &str) -> BTreeMap<String, String> {
    url::Url::parse(location).unwrap().query_pairs().into_owned().collect()
}

/// Returns the parameters that depend on the guard.
fn requested(location: &str) -> String {
    let query = query(location);
    let of = |name: &str| query.get(name).map(|value| format!("{name}={value}"));
    let parameters = ["acr_values", "max_age", "prompt", "resource"].into_iter().filter_map(of);
    parameters.collect::<Vec<_>>().join("&")
}

#[tokio::test]
async fn refused_page_leads_to_another_sign_in() {
    for (page, asked) in [
        ("/gold?a=b%20c&d", "acr_values=phr gold&prompt=login"),
        ("/recent", "max_age=300&prompt=login"),
        ("/both", "acr_values=gold&max_age=300&prompt=login"),
        ("/own", "acr_values=gold&prompt=login"),
        ("/mfa", "max_age=2147483647&prompt=login"),
    ] {
        let site = start(Settings::default()).await;
        let browser = site.signed_in().await;
        site.env.clock.advance(MINUTE * 6);
        let before = browser.session_cookies();
        let led = load(&browser, page).await;
        assert_eq!((led.status, led.header("cache-control")), (303, "no-store"), "{led:?}");
        assert!(led.header_lines("vary").concat().contains("sec-fetch-mode"));
        assert_eq!(led.header_opt("www-authenticate"), None);
        let login = site.led_to(&browser, page).await;
        for open in ["gold", "page", "300", "recent"] {
            assert!(!login.contains(open), "the parameters are sealed: {login}");
        }
        let redirect = load(&browser, &login).await;
        assert_eq!(requested(redirect.header("location")), asked, "{page}");
        let callback = site.at_provider(redirect.header("location")).await;
        let back = load(&browser, &callback).await;
        assert_eq!((back.status, back.header("location")), (303, page), "{back:?}");
        let after = browser.session_cookies();
        assert!(after.keys().all(|name| !before.contains_key(name)), "{page}: another session");
        if !["/own", "/mfa"].contains(&page) {
            assert_eq!(load(&browser, page).await.status, 200, "{page}");
        }
    }
}

#[tokio::test]
async fn only_refused_page_loads_are_redirected() {
    let site = start(Settings::default()).await;
    let browser = site.signed_in().await;
    let [mode, dest] = NAVIGATE;
    let same_origin = ("sec-fetch-site", "same-origin");
    let table: &[(Method, &str, Headers<'_>, u16)] = &[
        (Method::GET, "/gold", &[mode, dest], 303),
        (Method::HEAD, "/gold", &[mode, dest], 303),
        (Method::GET, "/gold", &[("accept", "text/html")], 303),
        (Method::GET, "/gold", &[], 401),
        (Method::GET, "/gold", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")], 401),
        (Method::GET, "/gold", &[mode, ("sec-fetch-dest", "iframe")], 401),
        (Method::GET, "/gold", &[mode, dest, ("sec-purpose", "prefetch")], 401),
        (Method::POST, "/gold", &[mode, dest, same_origin], 401),
        (Method::GET, "/boss", &[mode, dest], 403),
        (Method::GET, "/me", &[mode, dest], 200),
        (Method::GET, "/recent", &[mode, dest], 200),
    ];
    for (method, page, headers, status) in table {
        let answer = browser.send(method.clone(), page, headers, "").await;
        assert_eq!(answer.status, *status, "{method} {page} {headers:?}: {answer:?}");
        if *status == 401 && *method == Method::GET {
            assert_eq!(answer.challenge().unwrap().param("acr_values"), Some("phr gold"));
            assert_eq!(answer.json()["acr_values"], json!(["phr", "gold"]));
        }
    }
    // A bearer token is no session.
    let token = site.env.provider.token().sign();
    let bearer = format!("Bearer {token}");
    let with_token = [mode, dest, ("authorization", bearer.as_str())];
    let answer = site.env.visitor().send(Method::GET, "/gold", &with_token, "").await;
    assert_eq!(answer.status, 401);
    // Without a session, the first sign-in is a plain one.
    let led = load(&site.env.visitor(), "/gold").await;
    assert_eq!(led.header("location"), format!("{REDIRECT}?return_to=%2Fgold"));
    // Off by default.
    let site = start(Settings { sign_in: |it| it, ..Settings::default() }).await;
    let browser = site.signed_in().await;
    assert_eq!(load(&browser, "/gold").await.status, 401);
}

#[tokio::test]
async fn weaker_sign_in_is_refused() {
    type Claims = Vec<(&'static str, serde_json::Value)>;
    // The claims of the user replace those of the provider, which thereby ignores the request.
    let cases: Vec<(&str, Claims, bool)> = vec![
        ("/gold", vec![], true),
        ("/gold", vec![("acr", json!("silver"))], false),
        ("/gold", vec![("acr", json!("GOLD"))], false),
        ("/gold", vec![("acr", json!("phr gold"))], false),
        ("/gold", vec![("acr", json!(["gold"]))], false),
        ("/gold", vec![("acr", json!(null))], false),
        ("/recent", vec![], true),
        ("/recent", vec![("auth_time", json!(1_000))], false),
        ("/recent", vec![("auth_time", json!(99_999_999_999_u64))], false),
        ("/recent", vec![("auth_time", json!("now"))], false),
        ("/recent", vec![("auth_time", json!(null))], false),
        ("/both", vec![("auth_time", json!(1_000))], false),
        ("/both", vec![("acr", json!("silver"))], false),
    ];
    for (page, claims, is_met) in cases {
        let site = start(Settings::default()).await;
        let browser = site.signed_in().await;
        site.env.clock.advance(MINUTE * 6);
        let user = User::new("bob", "hunter2");
        let user = claims.iter().fold(user, |user, (name, value)| user.claim(name, value.clone()));
        site.env.provider.register_user(user);
        let before = browser.session_cookies();
        let login = site.led_to(&browser, page).await;
        let back = site.step_up(&browser, &login).await;
        if is_met {
            assert_eq!(back.status, 303, "{page} {claims:?}: {back:?}");
            continue;
        }
        back.assert_oauth_error(400, "unmet_authentication_requirements");
        assert_eq!(site.env.provider.requests(ProviderEndpoint::Revocation), 1, "{claims:?}");
        assert_eq!(browser.session_cookies(), before, "the earlier session stays");
        assert_eq!(load(&browser, "/me").await.status, 200);
    }
}

/// The user may wait between the password and the way back.
#[tokio::test]
async fn slow_sign_in_grows_too_old() {
    let site = start(Settings::default()).await;
    let browser = site.signed_in().await;
    site.env.clock.advance(MINUTE * 6);
    let now = site.env.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    site.env.clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
    for (age, is_met) in [(301, false), (300, true)] {
        let user = User::new("bob", "hunter2").claim("auth_time", now - age);
        site.env.provider.register_user(user);
        let login = site.led_to(&browser, "/recent").await;
        let back = site.step_up(&browser, &login).await;
        assert_eq!(back.status == 303, is_met, "{age}: {back:?}");
    }
}

#[tokio::test]
async fn failed_sign_in_leads_to_failure_page() {
    let sign_in = |it: SignIn| it.redirect_navigation().failure_page("/sorry?a=b");
    let site = start(Settings { sign_in, ..Settings::default() }).await;
    let browser = site.signed_in().await;
    site.env.provider.acr_values([""; 0]);
    let login = site.led_to(&browser, "/gold").await;
    let back = site.step_up(&browser, &login).await;
    let sorry = "/sorry?a=b&error=unmet_authentication_requirements";
    assert_eq!((back.status, back.header("location")), (303, sorry));
    // The provider says so itself.
    let login = site.led_to(&browser, "/gold").await;
    let redirect = load(&browser, &login).await;
    let query = query(redirect.header("location"));
    let (state, issuer) = (&query["state"], encoded(&site.env.provider.issuer()));
    let refused =
        format!("{LOGIN}?error=unmet_authentication_requirements&state={state}&iss={issuer}");
    assert_eq!(load(&browser, &refused).await.header("location"), sorry);
}

#[tokio::test]
async fn sealed_parameters_cannot_be_misused() {
    let site = start(Settings::default()).await;
    let browser = site.signed_in().await;
    let login = site.led_to(&browser, "/gold").await;
    let sealed = login.strip_prefix("/v1/auth/login?step_up=").unwrap().to_owned();
    let with = |value: &str| format!("{LOGIN}?step_up={value}");
    let (first, last) = (&sealed[..1], &sealed[sealed.len() - 1..]);
    let swap = |letter: &str| if letter == "A" { "B" } else { "A" };
    let cookies = |browser: &Visitor| -> Vec<String> {
        browser.cookies.lock().unwrap().values().cloned().collect()
    };
    load(&browser, LOGIN).await;
    let mut attacks = vec![
        format!("{LOGIN}?step_up="),
        with("x"),
        with("%7B%22page%22:%22/gold%22,%22needs%22:%7B%7D%7D"),
        with("https://evil.example/"),
        with(&format!("{}{}", swap(first), &sealed[1..])),
        with(&format!("{}{}", &sealed[..sealed.len() - 1], swap(last))),
        with(&sealed[..sealed.len() / 2]),
        format!("{login}&return_to=/me"),
        format!("{login}&return_to=https://evil.example/"),
        format!("{login}&step_up={sealed}"),
    ];
    // Sealed under the same keys for other purposes: the session, and a sign-in that is pending.
    attacks.extend(cookies(&browser).iter().map(|value| with(value.trim_start_matches("1."))));
    assert!(attacks.len() >= 13, "{attacks:?}");
    attacks.remove(0);
    for attack in &attacks {
        let before = browser.cookie_names();
        let answer = load(&browser, attack).await;
        answer.assert_oauth_error(400, "invalid_request");
        assert_eq!(answer.header_opt("location"), None, "{attack}");
        assert_eq!(browser.cookie_names(), before, "{attack}: nothing is started");
    }
    // Another browser: without a session, of another user, and of the same user.
    let alice = site.env.visitor();
    site.env.sign_in_as("alice", &alice).await;
    for other in [site.env.visitor(), alice, site.signed_in().await] {
        load(&other, &login).await.assert_oauth_error(400, "invalid_request");
    }
    // The attempts did not use it up.
    assert_eq!(site.step_up(&browser, &login).await.header("location"), "/gold");
    // Replayed: the session has ended.
    load(&browser, &login).await.assert_oauth_error(400, "invalid_request");
    // The record of the sign-in is sealed for the same purpose.
    let record = browser.cookies.lock().unwrap()["__Host-sign-in-step-up"].clone();
    load(&browser, &with(&record)).await.assert_oauth_error(400, "invalid_request");
}

#[tokio::test]
async fn sealed_parameters_expire() {
    let site = start(Settings::default()).await;
    let browser = site.signed_in().await;
    let login = site.led_to(&browser, "/gold").await;
    site.env.clock.advance(MINUTE * 10 - Duration::from_secs(1));
    assert_eq!(load(&browser, &login).await.status, 303);
    site.env.clock.advance(Duration::from_secs(1));
    load(&browser, &login).await.assert_oauth_error(400, "invalid_request");
}

/// The provider puts the class into ID tokens only.
async fn forgetful_provider(settings: Settings) -> (Site, Visitor) {
    let site = start(settings).await;
    site.env.provider.shape_tokens(|claims| drop(claims.remove("acr")));
    let browser = site.signed_in().await;
    let login = site.led_to(&browser, "/gold").await;
    assert_eq!(site.step_up(&browser, &login).await.header("location"), "/gold");
    (site, browser)
}

#[tokio::test]
async fn second_refusal_is_shown() {
    let log = Log::start();
    let (site, browser) = forgetful_provider(Settings::default()).await;
    let shown = load(&browser, "/gold").await;
    assert_eq!((shown.status, shown.header_opt("location")), (401, None), "{shown:?}");
    assert_eq!(shown.challenge().unwrap().param("acr_values"), Some("phr gold"));
    assert!(log.text().contains("immediately after the sign-in that it asked for"));
    // Other needs are still asked for, but not without end.
    let login = site.led_to(&browser, "/silver").await;
    site.step_up(&browser, &login).await;
    let login = site.led_to(&browser, "/own").await;
    site.step_up(&browser, &login).await;
    for page in ["/gold", "/silver", "/own", "/both"] {
        assert_eq!(load(&browser, page).await.status, 401, "{page}");
    }
    assert_eq!(load(&browser, "/me").await.status, 200);
    // The user tries again later.
    site.env.clock.advance(MINUTE + Duration::from_secs(1));
    site.led_to(&browser, "/gold").await;
}

#[tokio::test]
async fn id_token_can_name_the_class() {
    let settings = Settings { identity: IdentitySource::IdToken, ..Settings::default() };
    let (_site, browser) = forgetful_provider(settings).await;
    assert_eq!(load(&browser, "/gold").await.status, 200);
}

#[tokio::test]
async fn guard_replaces_configured_parameters() {
    let sign_in = |it: SignIn| {
        it.redirect_navigation()
            .parameter("prompt", "select_account")
            .parameter("acr_values", "silver")
            .parameter("max_age", "86400")
            .parameter("resource", "https://api.example")
    };
    let site = start(Settings { sign_in, ..Settings::default() }).await;
    let browser = site.signed_in().await;
    let plain = load(&browser, LOGIN).await;
    assert_eq!(
        requested(plain.header("location")),
        "acr_values=silver&max_age=86400&prompt=select_account&resource=https://api.example"
    );
    let login = site.led_to(&browser, "/gold").await;
    let redirect = load(&browser, &login).await;
    let location = redirect.header("location");
    assert_eq!(
        requested(location),
        "acr_values=phr gold&prompt=login&resource=https://api.example"
    );
    assert_eq!(location.matches("prompt=").count(), 1, "{location}");
}

#[tokio::test]
async fn renewed_session_can_step_up() {
    let site = start(Settings::default()).await;
    let browser = site.signed_in().await;
    for minutes in [55, 70] {
        site.env.clock.advance(MINUTE * minutes);
        let before = browser.session_cookies();
        let login = site.led_to(&browser, "/gold").await;
        assert_ne!(browser.session_cookies(), before, "renewed after {minutes} minutes");
        let redirect = load(&browser, &login).await;
        assert_eq!(redirect.status, 303, "{minutes}: {redirect:?}");
    }
}

#[tokio::test]
async fn sign_in_without_id_token_is_refused() {
    let sign_in = |it: SignIn| it.redirect_navigation().scopes("docs:read");
    let site = start(Settings { sign_in, ..Settings::default() }).await;
    let browser = site.signed_in().await;
    let login = site.led_to(&browser, "/gold").await;
    site.step_up(&browser, &login).await.assert_oauth_error(400, "invalid_grant");
}

#[tokio::test]
async fn step_up_replaces_a_stored_session() {
    let site = start(Settings { has_store: true, ..Settings::default() }).await;
    let browser = site.signed_in().await;
    let before = browser.copy_at(&site.env.api);
    let login = site.led_to(&browser, "/gold").await;
    let arrived = site.step_up(&browser, &login).await;
    assert_eq!((arrived.status, arrived.header("location")), (303, "/gold"), "{arrived:?}");
    assert_eq!(load(&browser, "/gold").await.status, 200);
    assert_eq!(before.get("/me").await.status, 401, "the session before has ended");
    let names = |visitor: &Visitor| visitor.session_cookies().into_keys().collect::<Vec<_>>();
    assert_eq!(names(&browser).len(), 1);
}

/// On a shared computer, another user may sign in on the provider's page.
#[tokio::test]
async fn another_users_step_up_replaces_the_session() {
    for has_store in [false, true] {
        let site = start(Settings { has_store, ..Settings::default() }).await;
        let browser = site.env.visitor();
        site.env.sign_in_as("alice", &browser).await;
        assert_eq!(load(&browser, "/me").await.body, "alice-id");
        let before = browser.copy_at(&site.env.api);
        let login = site.led_to(&browser, "/gold?of=alice").await;
        let arrived = site.step_up(&browser, &login).await;
        // Not to the page of the user before: its address may say something about that user.
        assert_eq!((arrived.status, arrived.header("location")), (303, "/"), "{arrived:?}");
        assert_eq!(load(&browser, "/me").await.body, "bob-id");
        assert_eq!(load(&browser, "/gold").await.body, "bob-id", "bob signed in as required");
        let expected = if has_store { 401 } else { 200 };
        assert_eq!(before.get("/me").await.status, expected, "a store ends the session before");
    }
}
