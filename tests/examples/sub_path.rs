//! A site behind a proxy under `/app`, in a real browser.

use axum::response::Html;
use axum::{Router, routing::get};
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::error::{ErrorResponse, ProblemJson, Refusal};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{Auth, Identity, TokenExchangeClient, scope};
use tokio::net::TcpListener;

use crate::support::proxy::{self, Forwarded};
use crate::support::webdriver::Browser;
use crate::support::{Server, local};

/// A page for browsers, and JSON for scripts.
fn sorry(refusal: &Refusal<'_>) -> Response<Bytes> {
    if !refusal.navigation {
        return ProblemJson.respond(refusal);
    }
    let page = format!("<h1>Sorry</h1><p>{}</p>", refusal.error.public_message());
    let mut response = Response::new(Bytes::from(page));
    *response.status_mut() = refusal.status;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// Starts the provider, the site and its proxy. Returns the URL of the site in a browser.
async fn site(forwarded: Forwarded) -> (String, Provider, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let redirect = format!("{host}/app/v1/auth/login");
    let provider = Provider::start().await;
    let wave = Client::new("wave", "secret").scopes("openid").redirect_uri(&redirect);
    provider.register_client(wave);
    provider.register_user(User::new("alice", "wonderland"));
    let auth = Auth::builder().issuer(local(provider.issuer())).audience("scaiwave");
    let auth = auth.build().unwrap();
    let client = TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("wave", "secret"))
        .build()
        .unwrap();
    let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random().unwrap());
    let sessions = sessions.cookie_name("wave").build().unwrap();
    let base = if forwarded == Forwarded::Whole { "/app" } else { "" };
    let sign_in = SignIn::new(redirect)
        .scopes("openid")
        .cookie_prefix("sign-in-wave")
        .failure_page("/app/sorry")
        .redirect_navigation();
    let endpoints = auth
        .endpoints()
        .prefix(format!("{base}/v1/auth"))
        .client(client)
        .sign_in(sign_in)
        .sessions(sessions.clone())
        .build()
        .unwrap();
    let notes = async |who: Identity| Html(format!("<h1>Notes of {}</h1>", who.subject()));
    let admin = get(notes).route_layer(auth.require(scope("admin")).respond_with(sorry));
    let app = Router::new()
        .route(&format!("{base}/notes"), get(notes))
        .route(&format!("{base}/admin"), admin)
        .layer(auth.layer().respond_with(sorry))
        .route(&format!("{base}/sorry"), get(Html("<h1>You are not signed in</h1>")))
        .layer(endpoints)
        .layer(sessions.layer().respond_with(sorry));
    let service = Server::axum(app).await;
    let proxy = proxy::sub_path(service.url(), forwarded);
    tokio::spawn(async move { axum::serve(listener, proxy).await });
    (format!("{host}/app"), provider, service)
}

#[tokio::test]
async fn page_behind_a_proxy_needs_sign_in() {
    for forwarded in [Forwarded::Stripped, Forwarded::Whole] {
        let (site, _provider, _service) = site(forwarded).await;
        let browser = Browser::start().await;
        browser.open(&format!("{site}/notes?tag=a%20b")).await;
        browser.shows("to continue to").await;
        browser.write("#username", "alice").await;
        browser.write("#password", "wonderland").await;
        browser.click("button[type=submit]").await;
        browser.shows("Notes of alice-id").await;
        assert_eq!(browser.url().await, format!("{site}/notes?tag=a%20b"), "{forwarded:?}");

        // A route that refuses the session shows a page, and a script gets JSON.
        browser.open(&format!("{site}/admin")).await;
        browser.shows("Sorry").await;
        let fetch = "return fetch('admin').then(it => it.headers.get('content-type'))";
        assert_eq!(browser.script(fetch).await, "application/problem+json");

        let out = "return fetch('v1/auth/logout', { method: 'POST' }).then(it => it.status)";
        assert_eq!(browser.script(out).await, 204, "{forwarded:?}");
        assert!(browser.cookies().await.is_empty());
        let fetch = "return fetch('notes').then(it => it.status)";
        assert_eq!(browser.script(fetch).await, 401, "{forwarded:?}");
        let frame = "return new Promise(done => { let it = document.createElement('iframe');
            it.onload = () => done(it.contentDocument.body.innerText); it.src = 'notes';
            document.body.append(it); })";
        let shown = browser.script(frame).await;
        assert!(shown.as_str().unwrap().contains("urn:scaikey-auth:"), "{shown}");
    }
}

#[tokio::test]
async fn failed_sign_in_shows_the_own_page() {
    let (site, _provider, _service) = site(Forwarded::Stripped).await;
    let browser = Browser::start().await;
    browser.open(&format!("{site}/notes")).await;
    browser.shows("to continue to").await;
    browser.click("#cancel").await;
    browser.shows("You are not signed in").await;
    assert_eq!(browser.url().await, format!("{site}/sorry?error=access_denied"));
    // Other endpoints show it, too.
    browser.open(&format!("{site}/v1/auth/logout")).await;
    browser.shows("You are not signed in").await;
    assert_eq!(browser.url().await, format!("{site}/sorry?error=invalid_request"));
}
