//! Pages that need another sign-in at a third-party provider (`acr_values`, `max_age`).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::guard::{Guard, acr, signed_in_within};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::ManualClock;
use scaikey_auth::{Auth, Identity, IssuerConfig, TokenExchangeClient};

use super::client_side::{REDIRECT, SECRET, sign_in};
use super::{Provider, Site};
use crate::support::http::{self, Answer, Server, send};
use crate::support::webdriver::Browser;

/// A service with guarded pages.
fn app(provider: &Provider, client: ClientAuth, redirect_uri: &str, clock: &ManualClock) -> Router {
    let issuer = IssuerConfig::new(&provider.url).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").clock(clock.clone());
    let auth = auth.build().unwrap();
    let client = TokenExchangeClient::builder(&provider.url).client_auth(client);
    let client = client.allow_loopback_http(true).clock(clock.clone()).build().unwrap();
    let keys = SealingKeys::random().unwrap();
    let sessions = Sessions::builder(&auth, client.clone(), keys).build().unwrap();
    let sign_in = SignIn::new(redirect_uri).scopes("openid").redirect_navigation();
    let endpoints = auth.endpoints().client(client).sessions(sessions.clone()).sign_in(sign_in);
    let page = async |who: Identity| format!("page of {} by {:?}", who.subject(), who.acr());
    let guarded = |guard: Box<dyn Guard>| {
        let guard = scaikey_auth::guard::guard_fn(move |request| guard.check(request));
        get(page).route_layer(auth.require(guard))
    };
    Router::new()
        .route("/gold", guarded(Box::new(acr(["phr", "gold"]))))
        .route("/phr", guarded(Box::new(acr(["phr"]))))
        .route("/recent", guarded(Box::new(signed_in_within(Duration::from_secs(60)))))
        .route("/me", get(page))
        .layer(auth.layer())
        .layer(endpoints.build().unwrap())
        .layer(sessions.layer())
}

/// A browser's cookies at the service.
struct Pages {
    server: Server,
    cookies: Mutex<BTreeMap<String, String>>,
}

impl Pages {
    /// Loads a page, without following a redirect.
    async fn load(&self, path: &str) -> Answer {
        let jar: Vec<_> = {
            let cookies = self.cookies.lock().unwrap();
            cookies.iter().map(|(name, value)| format!("{name}={value}")).collect()
        };
        let request = http::client().get(format!("{}{path}", self.server.url()));
        let request = request.header("accept", "text/html").header("cookie", jar.join("; "));
        let answer = send(request).await;
        for cookie in answer.header_lines("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            let mut cookies = self.cookies.lock().unwrap();
            match cookie.contains("Max-Age=0;") {
                true => drop(cookies.remove(name)),
                false => drop(cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        answer
    }

    /// Follows a redirect of the service to `login`, to the provider and back. Returns the answer to the callback.
    async fn follow(&self, led: &Answer) -> Answer {
        let here = |url: &str| url.strip_prefix("https://wave.example").unwrap().to_owned();
        let login = self.load(&here(led.header("location"))).await;
        self.load(&here(&sign_in(login.header("location")).await)).await
    }
}

#[tokio::test]
async fn provider_signs_in_as_a_page_requires() {
    let (provider, clock) = (Provider::start("0").await, ManualClock::new());
    let app = app(&provider, ClientAuth::basic("web", SECRET), REDIRECT, &clock);
    let pages = Pages { server: Server::axum(app).await, cookies: Mutex::default() };
    let first = pages.load("/gold").await;
    assert_eq!(pages.follow(&first).await.header("location"), "/gold");
    let led = pages.load("/gold").await;
    assert!(led.header("location").contains("step_up="), "{led:?}");
    assert_eq!(pages.follow(&led).await.header("location"), "/gold");
    assert_eq!(pages.load("/gold").await.body, r#"page of alice by Some("gold")"#);

    // The sign-in grows old.
    assert_eq!(pages.load("/recent").await.status, 200);
    clock.advance(Duration::from_secs(150));
    let led = pages.load("/recent").await;
    clock.set_wall(SystemTime::now());
    assert_eq!(pages.follow(&led).await.header("location"), "/recent");
    assert_eq!(pages.load("/recent").await.status, 200);

    // The provider does not know the class, and ignores it.
    let led = pages.load("/phr").await;
    let refused = pages.follow(&led).await;
    refused.assert_oauth_error(400, "unmet_authentication_requirements");
    assert_eq!(pages.load("/me").await.status, 200, "the session stays");
}

#[tokio::test]
async fn browser_comes_back_after_step_up() {
    let site = Site::reserve();
    let (redirect_uri, logout_uri) = (site.redirect_uri(), site.logout_uri());
    let uris = [("REDIRECT_URI", &*redirect_uri), ("POST_LOGOUT_REDIRECT_URI", &*logout_uri)];
    let provider = Provider::start_with(&uris).await;
    let client = ClientAuth::basic("shared", "s3cret");
    let app = app(&provider, client, &redirect_uri, &ManualClock::new());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", site.0)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let browser = Browser::start().await;
    let enter_password = async || {
        browser.has("#password").await;
        browser.write("#password", "wonderland").await;
        browser.click("button").await;
    };
    browser.open(&format!("{}/me", site.url())).await;
    enter_password().await;
    browser.shows("page of alice by None").await;
    // The provider remembers the browser, and asks for the password nevertheless.
    browser.open(&format!("{}/gold?a=b", site.url())).await;
    enter_password().await;
    browser.shows(r#"page of alice by Some("gold")"#).await;
    assert_eq!(browser.url().await, format!("{}/gold?a=b", site.url()));
}
