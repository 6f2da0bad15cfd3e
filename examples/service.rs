//! Run with `SCAIWAVE_ISSUER=https://id.example SCAIWAVE_AUDIENCE=scaiwave cargo run --example service`
//!
//! or, without any provider, with `SCAIWAVE_AUTH_MODE=mock cargo run --example service`; then try
//! `curl -i http://127.0.0.1:8080/me -H 'Authorization: Bearer anything'`. Everything comes from
//! the environment: `SCAIWAVE_…` (see the manual), `LISTEN`, `RUST_LOG`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing::get};
use scaikey_auth::{Auth, AuthContext, AuthMode, Identity, IssuerHealth, role, scope};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    log.with_ansi(std::io::stderr().is_terminal()).init();

    let auth = match Auth::from_env("SCAIWAVE").build() {
        Ok(auth) => auth,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(2);
        }
    };
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    match serve(&listen, auth).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot listen on {listen}: {error}; set LISTEN to another address");
            ExitCode::FAILURE
        }
    }
}

async fn serve(listen: &str, auth: Auth) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    // The first request need not wait for keys then. If the provider is away, the library logs it,
    // and the keys are fetched when a token or a health check asks for them.
    let warm = auth.clone();
    tokio::spawn(async move { warm.ready().await });
    axum::serve(listener, api(&auth)).await
}

fn api(auth: &Auth) -> Router {
    let protected = Router::new()
        .route("/me", get(me))
        .route("/admin", get(admin).route_layer(auth.require(scope("admin"))))
        .route("/docs", get(docs).route_layer(auth.require(role("docs_internal"))))
        .layer(auth.layer());
    let public = Router::new().route("/public", get(public)).layer(auth.layer().optional());
    let health = Router::new().route("/healthz", get(healthz)).with_state(auth.clone());
    protected.merge(public).merge(health)
}

async fn me(context: AuthContext) -> Json<Value> {
    let identity = context.identity();
    Json(json!({
        "identity": {
            "issuer": identity.issuer(),
            "subject": identity.subject(),
            "kind": identity.kind(),
            "name": identity.display_name(),
            "email": identity.email(),
            "scopes": identity.scopes(),
            "roles": identity.roles().collect::<Vec<_>>(),
            "groups": identity.groups().collect::<Vec<_>>(),
        },
        "tenant": context.tenant().map(|tenant| tenant.id().to_string()),
        "provenance": identity.provenance(),
    }))
}

async fn admin(identity: Identity) -> String {
    format!("{} may administer\n", identity.subject())
}

async fn docs(identity: Identity) -> String {
    format!("{} may read the internal documents\n", identity.subject())
}

async fn public(identity: Option<Identity>) -> String {
    format!("hello, {}\n", identity.as_ref().map_or("stranger", Identity::subject))
}

/// For readiness probes: 200 when tokens can be verified.
async fn healthz(State(auth): State<Auth>) -> (StatusCode, Json<Value>) {
    let issuers = auth.issuers().health();
    let able = auth.mode() == AuthMode::Mock || issuers.iter().all(IssuerHealth::can_verify);
    let status = if able { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "mode": auth.mode(), "issuers": issuers })))
}
