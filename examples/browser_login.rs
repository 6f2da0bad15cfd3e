//! Run with `cargo run --example browser_login`
//!
//! Then open the printed address in two browsers, or in one and a private window of it, and sign in to both as
//! `alice` with the password `wonderland`. Reload the first: it lists two sessions. *End* the other one, or *Sign out
//! everywhere*, and click *Write a note* in the second browser: it is signed out.
//!
//! The page is plain HTML and public. Its API requires a session, and a test provider shows the sign-in form. The
//! tokens are in a store of the service, here in memory; the browser has one cookie that no script can read. *Close
//! the account* needs a recent sign-in: after two minutes, the link leads to the sign-in form, and back.
//!
//! `LISTEN` sets the address (default `127.0.0.1:8080`). `TOKEN_SECONDS` sets the lifetime of access tokens in
//! seconds (default 3600); they are renewed while you use the page. `RECENT_SECONDS` sets the age of a recent sign-in
//! in seconds (default 120).

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};
use axum::{Router, routing::get, routing::post};
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::guard::signed_in_within;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::{MemorySessions, Sessions};
use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{Auth, Identity, IssuerConfig, Tenant, TokenExchangeClient};

mod serve;

/// The age of a sign-in that is recent.
const RECENT: Duration = Duration::from_secs(120);

const PAGE: &str = include_str!("browser_login.html");
const SCRIPT: &str = include_str!("browser_login.js");
const STYLE: &str = include_str!("browser_login.css");
const CLOSE_PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Close the account</title>
<link rel="stylesheet" href="/page.css">
<main><section>
<h1>Close the account</h1>
<p>You signed in a short time ago, so this page trusts that it is you.</p>
<a class="button" href="/">Back</a>
</section></main>"#;

/// Serves the page, its API, sign-in and sessions. The page itself is public.
fn app(provider: &Provider, base_url: &str) -> Result<Router, BoxError> {
    // The test provider has no TLS. Plain http is allowed for loopback only.
    let issuer_config = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer_config).audience("scaiwave").build()?;
    let client = TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("scaiwave", "secret"))
        .build()?;
    // Random keys and a store in memory end all sessions at a restart. A real service reads its keys from an
    // environment variable (in the manual: `P_SESSION_KEYS`), and its processes share them and a store.
    // A sign-out also ends the session at the provider, which then leads the browser back to the page.
    let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random()?)
        .store(MemorySessions::new())
        .end_at_provider(format!("{base_url}/"))
        .build()?;
    // Pages that need a session, or a recent sign-in, lead the browser to it.
    let sign_in = SignIn::new(format!("{base_url}/v1/auth/login")).failure_page("/");
    let endpoints = auth
        .endpoints()
        .client(client)
        .sign_in(sign_in.redirect_navigation())
        .sessions(sessions.clone())
        .build()?;

    let notes = Arc::new(AtomicU64::new(0));
    let write = move |identity: Identity, tenant: Tenant| async move {
        let nth = notes.fetch_add(1, Ordering::Relaxed) + 1;
        format!("note {nth} of {} in {}", identity.subject(), tenant.id())
    };
    let recently = auth.require(signed_in_within(seconds("RECENT_SECONDS").unwrap_or(RECENT)));
    Ok(Router::new()
        .route("/api/notes", post(write))
        .route("/close-account", get(page(provider, CLOSE_PAGE)).route_layer(recently))
        .layer(auth.layer())
        .route("/", get(page(provider, PAGE)))
        .route("/page.js", get(([(CONTENT_TYPE, "text/javascript")], SCRIPT)))
        .route("/page.css", get(([(CONTENT_TYPE, "text/css")], STYLE)))
        .layer(endpoints)
        .layer(sessions.layer()))
}

/// Returns a page that runs and shows nothing but the files of this service. The form that signs out is redirected to
/// the provider.
fn page(provider: &Provider, html: &'static str) -> impl IntoResponse + Clone + use<> {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         form-action 'self' {}; base-uri 'none'; frame-ancestors 'none'",
        provider.url()
    );
    // Without `no-store`, the Back button may show the page of a session that has ended.
    ([(CONTENT_SECURITY_POLICY, policy), (CACHE_CONTROL, "no-store".to_owned())], Html(html))
}

/// Returns a time from the environment.
fn seconds(variable: &str) -> Option<Duration> {
    Some(Duration::from_secs(std::env::var(variable).ok()?.parse().ok()?))
}

#[tokio::main]
async fn main() -> ExitCode {
    serve::log_warnings();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let listener = serve::listen().await?;
    // Browsers accept secure cookies over plain http from `localhost`.
    let here = format!("http://localhost:{}", listener.local_addr()?.port());
    let provider = Provider::start().await;
    provider.register_client(
        Client::new("scaiwave", "secret")
            .scopes("openid profile email offline_access")
            .redirect_uri(&format!("{here}/v1/auth/login"))
            .post_logout_redirect_uri(&format!("{here}/")),
    );
    provider.single_sign_on(true); // as most providers: the next sign-in needs no password
    let alice = User::new("alice", "wonderland").claim("name", "Alice Smith");
    provider.register_user(alice.claim("email_verified", true));
    if let Some(lifetime) = seconds("TOKEN_SECONDS") {
        provider.set_token_lifetime(Some(lifetime));
    }
    let app = app(&provider, &here)?;
    println!(
        "\
Open {here} in two browsers, or in one and a private window of it.
Sign in to both as alice with the password wonderland.

  1. Reload the first browser: it lists two sessions. End the other one.
  2. Click \"Write a note\" in the second browser: it is signed out. Sign in again: the provider remembers
     this browser, and asks for no password.
  3. Click \"Sign out everywhere\" in the second browser, and \"Write a note\" in the first: it is out, too.

  service   {here}
  provider  {provider}   the test provider: shows the sign-in form, signs tokens

Press Ctrl-C to stop both.",
        provider = provider.url(),
    );
    serve::serve(listener, app, serve::HEAD_TIMEOUT).await;
    Ok(())
}
