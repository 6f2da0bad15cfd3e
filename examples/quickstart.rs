//! Run with `cargo run --example quickstart`
//!
//! Starts a protected API and a test provider, and prints `curl` lines to try in another terminal.
//! `LISTEN` sets the address (default `127.0.0.1:8080`). Without a token, the API answers 401:
//! `curl -i http://127.0.0.1:8080/me`.

use std::process::ExitCode;

use axum::{Router, routing::get};
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, ConfigError, Identity, IssuerConfig, Tenant, scope};

mod serve;

async fn me(identity: Identity, tenant: Tenant) -> String {
    format!("You are {} of {}.", identity.subject(), tenant.id())
}

async fn admin(identity: Identity) -> String {
    format!("Welcome, {}. You are an administrator.", identity.subject())
}

/// Builds the API, which accepts the provider's tokens for the audience `scaiwave`.
fn api(issuer: String) -> Result<Router, ConfigError> {
    // The test provider has no TLS. Plain http is allowed on the loopback interface only.
    let issuer = IssuerConfig::new(issuer).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
    Ok(Router::new()
        .route("/me", get(me))
        .route("/admin", get(admin).route_layer(auth.require(scope("admin"))))
        .layer(auth.layer()))
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt::init(); // prints nothing unless RUST_LOG is set
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let listener = serve::listen().await?;
    // ES256 tokens are short, which keeps the `curl` lines short.
    let provider = Provider::builder().algorithms([Algorithm::ES256]).start().await;
    let api = api(provider.issuer())?;
    print_instructions(&format!("http://{}", listener.local_addr()?), &provider);
    serve::serve(listener, api, serve::HEAD_TIMEOUT).await;
    Ok(())
}

fn print_instructions(api: &str, provider: &Provider) {
    let alice = provider.token().subject("alice").scope("docs:read");
    let bearer = |token: String| format!(" -H 'Authorization: Bearer {token}'");
    let (good, expired) = (bearer(alice.clone().sign()), bearer(alice.expired().sign()));
    println!(
        "\
A protected API and a test provider run on this machine:

  API       {api}   /me needs a token, /admin needs the scope admin
  provider  {provider}   signs tokens and publishes its keys

Paste these lines into another terminal.

  200  a valid token: the API fetches the provider's keys and verifies the token
curl -i -w '\\n' {api}/me{good}

  403  the same token on /admin: it lacks the scope admin
curl -i -w '\\n' {api}/admin{good}

  401  a token that expired an hour ago
curl -i -w '\\n' {api}/me{expired}

  401  no token
curl -i -w '\\n' {api}/me

To sign in with a browser, run this in another terminal and open the address that it prints:
LISTEN=127.0.0.1:0 cargo run --example browser_login

Press Ctrl-C to stop both. Set RUST_LOG=scaikey_auth=debug to log why a request was rejected.",
        provider = provider.url(),
    );
}
