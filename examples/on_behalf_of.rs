//! Run with `cargo run --example on_behalf_of`
//!
//! Three services in a row: users call the drive, the drive calls the vault for them, and itself for
//! its own housekeeping. No handler touches a token: the drive's HTTP client has a layer that knows
//! which one each destination gets, and a request's handler runs on behalf of its caller.

use axum::extract::State;
use axum::{Json, Router, routing::get};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use scaikey_auth::error::BoxError;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::outbound::{
    CallerLayer, OutboundLayer, OutboundService, OutboundToken, ReplayEmpty,
};
use scaikey_auth::testing::{self, Provider};
use scaikey_auth::{Auth, Identity, IssuerConfig, TokenExchangeClient};
use serde_json::{Value, json};
use tower::{Layer, ServiceBuilder, ServiceExt};

mod serve;

type Http = Client<HttpConnector, axum::body::Body>;

/// What the drive's handlers share.
#[derive(Clone)]
struct Drive {
    http: OutboundService<Http, ReplayEmpty>,
    vault: String,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = Provider::builder().audience("scaivault").start().await;
    let account = testing::Client::new("scaidrive", "a secret").scopes("audit:write");
    provider.register_client(account.may_exchange("scaivault", "vault:read"));
    let vault = open(vault(&provider)?).await?;
    let drive = open(drive(&provider, &vault)?).await?;

    let http: Http = Client::builder(TokioExecutor::new()).build_http();
    let token = |user| provider.token().subject(user).audience("scaidrive").sign();
    let (alice, bob) = (token("alice"), token("bob"));
    for (user, token) in [("alice", &alice), ("bob", &bob), ("alice", &alice)] {
        println!("{user} opens the drive, which asks the vault:");
        let said = ask(&http, &format!("{drive}/secrets"), Some(token)).await?;
        println!("  the vault saw {said}");
    }
    println!("Nobody opens the drive's housekeeping, which writes to the vault's audit log:");
    println!("  the vault saw {}", ask(&http, &format!("{drive}/housekeeping"), None).await?);
    println!("Alice makes the drive call what is no destination:");
    println!("  {}", ask(&http, &format!("{drive}/elsewhere"), Some(&alice)).await?);
    println!("{} requests to the provider for tokens", provider.token_requests());
    Ok(())
}

/// The vault takes tokens for `scaivault`, and says what it sees of them.
fn vault(provider: &Provider) -> Result<Router, BoxError> {
    let see = async |identity: Identity| {
        let claims: Value = identity.claims().unwrap_or_default();
        let (sub, aud, act) = (&claims["sub"], &claims["aud"], &claims["act"]["sub"]);
        Json(json!({ "sub": sub, "aud": aud, "act": act, "scope": claims["scope"] }))
    };
    let auth = auth(provider).audience("scaivault").build()?;
    Ok(Router::new().route("/secrets", get(see)).route("/audit", get(see)).layer(auth.layer()))
}

fn auth(provider: &Provider) -> scaikey_auth::AuthBuilder {
    Auth::builder().issuer(IssuerConfig::new(provider.issuer()).allow_loopback_http(true))
}

/// The drive: its users' tokens are for `scaidrive` and worth nothing at the vault.
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
    let http = outbound.layer(Client::builder(TokioExecutor::new()).build_http());
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
        ask(&self.http, &format!("{}{path}", self.vault), None)
            .await
            .unwrap_or_else(|error| format!("no answer: {error}"))
    }
}

/// `GET`, through whatever client.
async fn ask<S, B>(client: &S, url: &str, token: Option<&str>) -> Result<String, BoxError>
where
    S: tower::Service<http::Request<axum::body::Body>, Response = http::Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body_util::BodyExt<Error: Into<BoxError>>,
{
    let mut request = http::Request::get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = client.clone().oneshot(request.body(axum::body::Body::empty())?).await;
    let body = answer.map_err(Into::into)?.into_body().collect().await.map_err(Into::into)?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

async fn open(app: Router) -> Result<String, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve::serve(listener, app, serve::HEAD));
    Ok(url)
}
