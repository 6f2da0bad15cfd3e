//! Sign-ins that the provider answers with a form post, in a real browser.

use axum::{Router, routing};
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{Auth, Identity, IssuerConfig, TokenExchangeClient};
use tokio::net::TcpListener;

use crate::support::webdriver::Browser;

/// Starts a service at this host name, and returns its URL. The provider is at `127.0.0.1`.
async fn start(provider: &Provider, host: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("http://{host}:{}", listener.local_addr().unwrap().port());
    let redirect = format!("{here}/v1/auth/login");
    let wave = Client::new("wave", "secret").scopes("openid").redirect_uri(&redirect);
    provider.register_client(wave);
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build().unwrap();
    let client = TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("wave", "secret"))
        .build()
        .unwrap();
    let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random().unwrap());
    let sessions = sessions.build().unwrap();
    let sign_in = SignIn::new(redirect).scopes("openid").landing("/who").form_post();
    let endpoints = auth.endpoints().client(client).sessions(sessions.clone()).sign_in(sign_in);
    let who = async |identity: Identity| format!("I am {}", identity.subject());
    let app = Router::new()
        .route("/who", routing::get(who))
        .layer(auth.layer())
        .layer(endpoints.build().unwrap())
        .layer(sessions.layer());
    tokio::spawn(async move { axum::serve(listener, app).await });
    here
}

async fn sign_in(browser: &Browser, here: &str, user: &str, password: &str) {
    browser.open(&format!("{here}/v1/auth/login")).await;
    browser.shows("to continue to").await;
    browser.write("#username", user).await;
    browser.write("#password", password).await;
    browser.click("#sign-in").await;
    browser.shows(&format!("I am {user}-id")).await;
    assert_eq!(browser.url().await, format!("{here}/who"), "neither code nor state in the URL");
}

#[tokio::test]
async fn form_post_signs_in_from_any_site() {
    let provider = Provider::start().await;
    provider.register_user(User::new("alice", "wonderland"));
    provider.register_user(User::new("bob", "hunter2"));
    // Another site than the provider's, and another port of the same host, which is the same site: then
    // the browser sends the session cookies with the form.
    for host in ["localhost", "127.0.0.1"] {
        let here = start(&provider, host).await;
        let browser = Browser::start().await;
        sign_in(&browser, &here, "alice", "wonderland").await;
        sign_in(&browser, &here, "bob", "hunter2").await;
        let cookies = browser.cookies().await;
        assert_eq!(cookies.len(), 2, "{cookies:?}");
        assert!(cookies.iter().all(|cookie| cookie["sameSite"] == "Lax"), "{cookies:?}");
    }
}
