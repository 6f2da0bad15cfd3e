//! Run with `cargo run --example opaque_tokens`
//!
//! Starts an API that accepts personal access tokens (`skt_…`) beside JWTs, and a test provider that answers
//! what a token means. Prints `curl` lines to try in another terminal. `LISTEN` sets the address (default
//! `127.0.0.1:8080`).

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use axum::{Router, routing::get};
use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Provenance;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Provider};
use scaikey_auth::validator::OpaqueTokens;
use scaikey_auth::{Auth, ConfigError, Identity, IssuerConfig, Tenant};

mod serve;

async fn me(identity: Identity, tenant: Tenant) -> String {
    let how = match identity.provenance() {
        Provenance::Introspected => "introspection",
        _ => "a signature",
    };
    format!("You are {} of {}, by {how}.", identity.subject(), tenant.id())
}

/// Builds the API. The credentials are those of the API itself, as the provider knows it.
fn api(issuer: &str, credentials: ClientAuth) -> Result<Router, ConfigError> {
    let opaque = OpaqueTokens::new(issuer, credentials)
        .prefixes(["skt_"])
        // Each request asks, so that a revocation counts immediately. Default: 30 s.
        .cache_for(Duration::ZERO);
    // The test provider has no TLS. Plain http is allowed on the loopback interface only.
    let issuer = IssuerConfig::new(issuer).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").opaque_tokens(opaque).build()?;
    Ok(Router::new().route("/me", get(me)).layer(auth.layer()))
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

async fn run() -> Result<(), Box<dyn Error>> {
    let listener = serve::listen().await?;
    // ES256 tokens are short, which keeps the `curl` lines short.
    let provider = Provider::builder().algorithms([Algorithm::ES256]).start().await;
    provider.register_client(Client::new("scaiwave", "secret"));
    let api = api(&provider.issuer(), ClientAuth::basic("scaiwave", "secret"))?;
    print_instructions(&format!("http://{}", listener.local_addr()?), &provider);
    serve::serve(listener, api, serve::HEAD_TIMEOUT).await;
    Ok(())
}

fn print_instructions(api: &str, provider: &Provider) {
    let alice = provider.token().subject("alice");
    let opaque = alice.clone().opaque("skt_");
    let bearer = |token: &str| format!(" -H 'Authorization: Bearer {token}'");
    println!(
        "\
An API and a test provider run on this machine:

  API       {api}   asks the provider about tokens that begin with skt_
  provider  {provider}   knows what its opaque tokens mean, and signs JWTs

Paste these lines into another terminal.

  200  an opaque token: the API asks the introspection endpoint of the provider
curl -i -w '\\n' {api}/me{good}

  200  a JWT of the same provider: the API verifies its signature
curl -i -w '\\n' {api}/me{jwt}

  401  an opaque token of alice for another service: its audience is scaidrive
curl -i -w '\\n' {api}/me{foreign}

  200  the provider revokes the first token
curl -i -w '\\n' {revoke} -u scaiwave:secret -d token={opaque}

  401  the first token again
curl -i -w '\\n' {api}/me{good}

  401  an invented token
curl -i -w '\\n' {api}/me{invented}

Press Ctrl-C to stop both. Set RUST_LOG=scaikey_auth=debug to log why a request was rejected.",
        provider = provider.url(),
        good = bearer(&opaque),
        jwt = bearer(&alice.clone().sign()),
        foreign = bearer(&alice.audience("scaidrive").opaque("skt_")),
        revoke = provider.revocation_endpoint(),
        invented = bearer("skt_invented"),
    );
}
