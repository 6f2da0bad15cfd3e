//! Run with `cargo run --example on_behalf_of`
//!
//! Calls another service on behalf of the user. Users call the drive. The drive calls the vault
//! with a token that it got in exchange for the user's token, or with its own service token for
//! housekeeping. The handlers do not handle tokens: the drive's `reqwest` client adds the right token for
//! each destination.

use axum::extract::State;
use axum::{Json, Router, routing::get};
use reqwest_middleware::ClientWithMiddleware;
use scaikey_auth::error::BoxError;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::outbound::{CallerLayer, OutboundLayer, OutboundToken};
use scaikey_auth::testing::{self, Provider};
use scaikey_auth::{Auth, Identity, IssuerConfig, TokenExchangeClient};
use serde_json::{Value, json};
use tower::ServiceBuilder;

mod serve;

/// The state that the drive's handlers share.
#[derive(Clone)]
struct Drive {
    http: ClientWithMiddleware,
    vault: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = Provider::builder().audience("scaivault").start().await;
    let client = testing::Client::new("scaidrive", "a secret").scopes("audit:write");
    provider.register_client(client.may_exchange("scaivault", "vault:read"));
    let vault = start(vault(&provider)?).await?;
    let drive = start(drive(&provider, &vault)?).await?;

    let users = reqwest::Client::builder().no_proxy().build()?;
    let ask = async |path: &str, token: &str| {
        let answer = users.get(format!("{drive}{path}")).bearer_auth(token).send().await?;
        answer.text().await
    };
    let token = |user| provider.token().subject(user).audience("scaidrive").sign();
    let (alice, bob) = (token("alice"), token("bob"));
    for (user, token) in [("alice", &alice), ("bob", &bob), ("alice", &alice)] {
        println!("{user} calls the drive, which calls the vault on behalf of {user}:");
        println!("  the vault saw {}", ask("/secrets", token).await?);
    }
    println!(
        "The drive's housekeeping has no caller, so the drive calls the vault with its own token:"
    );
    println!("  the vault saw {}", ask("/housekeeping", "").await?);
    println!("alice makes the drive call a URL that is not a configured destination:");
    println!("  {}", ask("/elsewhere", &alice).await?);
    println!("{} token requests reached the provider", provider.token_requests());
    Ok(())
}

/// Builds the vault, which accepts tokens for `scaivault` and answers with their claims.
fn vault(provider: &Provider) -> Result<Router, BoxError> {
    let show_claims = async |identity: Identity| {
        let claims: Value = identity.claims().unwrap_or_default();
        let (sub, aud, act) = (&claims["sub"], &claims["aud"], &claims["act"]["sub"]);
        Json(json!({ "sub": sub, "aud": aud, "act": act, "scope": claims["scope"] }))
    };
    let auth = auth(provider).audience("scaivault").build()?;
    Ok(Router::new()
        .route("/secrets", get(show_claims))
        .route("/audit", get(show_claims))
        .layer(auth.layer()))
}

fn auth(provider: &Provider) -> scaikey_auth::AuthBuilder {
    Auth::builder().issuer(IssuerConfig::new(provider.issuer()).allow_loopback_http(true))
}

/// Builds the drive. Its users' tokens are for `scaidrive`, so the vault would reject them.
fn drive(provider: &Provider, vault: &str) -> Result<Router, BoxError> {
    let client = TokenExchangeClient::builder(provider.issuer())
        .client_auth(ClientAuth::basic("scaidrive", "a secret"))
        .allow_loopback_http(true)
        .build()?;
    let outbound = OutboundLayer::builder(client)
        .allow_loopback_http(true)
        .destination(format!("{vault}/secrets"), OutboundToken::on_behalf_of_caller("scaivault"))
        .destination(format!("{vault}/audit"), OutboundToken::service())
        .build()?;
    let http = outbound.reqwest_client(reqwest::Client::builder().no_proxy())?;
    let state = Drive { http, vault: vault.to_owned() };
    let auth = auth(provider).audience("scaidrive").build()?;
    let users = ServiceBuilder::new().layer(auth.layer()).layer(CallerLayer);
    Ok(Router::new()
        .route("/secrets", get(async |State(drive): State<Drive>| drive.call("/secrets").await))
        .route("/elsewhere", get(async |State(drive): State<Drive>| drive.call("/admin").await))
        .layer(users)
        .route("/housekeeping", get(async |State(drive): State<Drive>| drive.call("/audit").await))
        .with_state(state))
}

impl Drive {
    async fn call(&self, path: &str) -> String {
        match self.http.get(format!("{}{path}", self.vault)).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => format!("no answer: {error}"),
        }
    }
}

async fn start(app: Router) -> Result<String, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve::serve(listener, app, serve::HEAD_TIMEOUT));
    Ok(url)
}
