//! Run with `cargo run --example browser_login`
//!
//! Then open the printed address, and sign in as `alice` with the password `wonderland`. The page
//! is plain HTML and public. Its API requires a session, and a test provider shows the sign-in form.
//! The browser keeps the tokens in sealed cookies that it cannot read. `LISTEN` sets the address
//! (default `127.0.0.1:8080`). `TOKEN_SECONDS` sets the lifetime of access tokens in seconds
//! (default 3600); they are renewed while you use the page.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::response::Html;
use axum::{Router, routing};
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Provider, User};
use scaikey_auth::{Auth, Identity, IssuerConfig, Tenant, TokenExchangeClient};

mod serve;

const PAGE: &str = include_str!("browser_login.html");

/// Serves the page, its API, sign-in and sessions. The page itself is public.
fn app(issuer: String, base_url: &str) -> Result<Router, BoxError> {
    // The test provider has no TLS. Plain http is allowed for loopback only.
    let issuer_config = IssuerConfig::new(&issuer).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer_config).audience("scaiwave").build()?;
    let client = TokenExchangeClient::builder(issuer)
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("scaiwave", "secret"))
        .build()?;
    // Random keys end all sessions at a restart. A real service reads its keys from an environment
    // variable (in the manual: `P_SESSION_KEYS`), the same in all its processes.
    // A sign-out also ends the session at the provider, which then leads the browser back to the page.
    let sessions = Sessions::builder(&auth, client.clone(), SealingKeys::random()?)
        .end_at_provider(format!("{base_url}/"))
        .build()?;
    let endpoints = auth
        .endpoints()
        .client(client)
        .sign_in(SignIn::new(format!("{base_url}/v1/auth/login")).failure_page("/"))
        .sessions(sessions.clone())
        .build()?;

    let notes = Arc::new(AtomicU64::new(0));
    let write = move |identity: Identity, tenant: Tenant| async move {
        let nth = notes.fetch_add(1, Ordering::Relaxed) + 1;
        format!("note {nth} of {} in {}", identity.subject(), tenant.id())
    };
    Ok(Router::new()
        .route("/api/notes", routing::post(write))
        .layer(auth.layer())
        .route("/", routing::get(Html(PAGE)))
        .layer(endpoints)
        .layer(sessions.layer()))
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
    if let Some(seconds) = std::env::var("TOKEN_SECONDS").ok().and_then(|text| text.parse().ok()) {
        provider.set_token_lifetime(Some(Duration::from_secs(seconds)));
    }
    let app = app(provider.issuer(), &here)?;
    println!(
        "\
Open {here} in a browser, and sign in as alice with the password wonderland.

  service   {here}
  provider  {provider}   the test provider: shows the sign-in form, signs tokens

Press Ctrl-C to stop both.",
        provider = provider.url(),
    );
    serve::serve(listener, app, serve::HEAD_TIMEOUT).await;
    Ok(())
}
