//! Run with `cargo run --example quickstart`
//!
//! Then paste the `curl` lines it prints into another terminal, or this one, which needs no token
//! and gets 401: `curl -i http://127.0.0.1:8080/me`. `LISTEN` sets another address.

use std::process::ExitCode;

use axum::{Router, routing::get};
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, ConfigError, Identity, IssuerConfig, Tenant, scope};
use tokio::net::TcpListener;

mod serve;

async fn me(identity: Identity, tenant: Tenant) -> String {
    format!("You are {} of {}.", identity.subject(), tenant.id())
}

async fn admin(identity: Identity) -> String {
    format!("Welcome, {}: you may change things.", identity.subject())
}

/// The API, which trusts the provider's tokens as soon as they are meant for `scaiwave`.
fn api(issuer: String) -> Result<Router, ConfigError> {
    // The provider in a box has no TLS; anything but loopback must be https.
    let issuer = IssuerConfig::new(issuer).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
    Ok(Router::new()
        .route("/me", get(me))
        .route("/admin", get(admin).route_layer(auth.require(scope("admin"))))
        .layer(auth.layer()))
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt::init(); // silent, unless RUST_LOG says otherwise
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(&listen).await.map_err(|error| {
        format!(
            "Cannot listen on {listen}: {error}.\nChoose another address: LISTEN=127.0.0.1:8081 cargo run --example quickstart"
        )
    })?;
    // ES256 makes short tokens.
    let provider = Provider::builder().algorithms([Algorithm::ES256]).start().await;
    let api = api(provider.issuer())?;
    introduce(&format!("http://{}", listener.local_addr()?), &provider);
    serve::serve(listener, api, serve::HEAD).await;
    Ok(())
}

fn introduce(api: &str, provider: &Provider) {
    let alice = provider.token().subject("alice").scope("docs:read");
    let bearer = |token: String| format!(" -H 'Authorization: Bearer {token}'");
    let (good, expired) = (bearer(alice.clone().sign()), bearer(alice.expired().sign()));
    println!(
        "\
A protected API and its identity provider, both on this machine:

  API       {api}   /me needs a token, /admin one with scope admin
  provider  {provider}   in a box: signs tokens, publishes its keys

Paste these lines into another terminal.

  200  alice asks who she is; the API fetches the provider's keys and checks her token
curl -i -w '\\n' {api}/me{good}

  403  alice wants to be admin; her token is as good as before, but lacks the scope
curl -i -w '\\n' {api}/admin{good}

  401  alice comes back with a token that expired an hour ago
curl -i -w '\\n' {api}/me{expired}

  401  somebody comes without a token
curl -i -w '\\n' {api}/me

To sign in with a browser: cargo run --example browser_login, and open http://localhost:8080

Ctrl-C stops both. With RUST_LOG=scaikey_auth=debug, the log here says why a request was refused.",
        provider = provider.url(),
    );
}
