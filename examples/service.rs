//! Runs a complete service that is configured by environment variables only: `SCAIWAVE_…` (see the
//! manual), `LISTEN` (default `127.0.0.1:8080`), `STOP_DELAY`, `STOP_LIMIT` and `RUST_LOG`.
//!
//! ```sh
//! # With a provider:
//! SCAIWAVE_ISSUER=https://id.example SCAIWAVE_AUDIENCE=scaiwave cargo run --example service
//! # Without a provider; with `--release`, this also needs APP_ENV=local:
//! SCAIWAVE_AUTH_MODE=mock cargo run --example service
//! ```
//!
//! In mock mode, try:
//!
//! ```sh
//! curl -i http://127.0.0.1:8080/me -H 'Authorization: Bearer anything'
//! curl -i http://127.0.0.1:8080/v1/auth/whoami -H 'Authorization: Bearer anything'
//! ```
//!
//! On `SIGTERM` or Ctrl-C, the service stops without an error for any caller: the readiness probe
//! `/healthz` fails, but requests are served for another `STOP_DELAY` seconds (default 5), until load
//! balancers have noticed. Then it accepts no more connections, finishes the requests in flight for at
//! most `STOP_LIMIT` seconds (default 20), and exits. A second signal skips the delay. The liveness probe
//! `/livez` never fails.
//!
//! On `SIGHUP` (`kill -HUP PID`), the service reloads the trust policy (`SCAIWAVE_TRUST_FILE`). It reads
//! the files with keys, certificates, the client secret and the Redis URL again by itself. For all other
//! settings, restart it.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing::get};
use scaikey_auth::endpoints::Endpoints;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{AccessToken, ExchangeError, OAuthError};
use scaikey_auth::issuer::IssuerHealth;
use scaikey_auth::registrar::MemoryRegistrar;
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{
    Auth, AuthConfig, AuthContext, AuthMode, ConfigError, ExchangeRequest, Identity, TenantId,
    TokenExchangeClient, role, scope,
};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

mod serve;

type TokenClient = Option<TokenExchangeClient>;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    log.with_ansi(std::io::stderr().is_terminal()).init();

    let config = AuthConfig::from_env("SCAIWAVE");
    let (auth, client) = match (Auth::from_config(config.clone()).build(), token_client(&config)) {
        (Ok(auth), Ok(client)) => (auth, client),
        (auth, client) => {
            auth.err().into_iter().chain(client.err()).for_each(|faults| eprintln!("{faults}"));
            return ExitCode::from(2);
        }
    };
    let endpoints = match endpoints(&config, &auth, &client) {
        Ok(endpoints) => endpoints,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(2);
        }
    };
    match run(auth, client, endpoints).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the client that gets tokens for other services, if this service has a `client_id`.
fn token_client(config: &AuthConfig) -> Result<TokenClient, ConfigError> {
    let has_client = config.client.id.is_some();
    has_client.then(|| TokenExchangeClient::from_config(config).build()).transpose()
}

/// Builds the endpoints under `/v1/auth/`. Participants are stored in the database, or in memory
/// without one.
fn endpoints(
    config: &AuthConfig,
    auth: &Auth,
    client: &TokenClient,
) -> Result<Endpoints, ConfigError> {
    let mut endpoints = auth.endpoints();
    // Sign-in and refresh requests name no tenant, so they cannot use a token endpoint per tenant.
    let per_tenant =
        config.client.token_url.as_deref().is_some_and(|url| url.contains("{tenant_id}"));
    if let (Some(client), false) = (client, per_tenant) {
        endpoints = endpoints.client(client.clone());
    }
    if config.database_url.is_none() && config.database_url_file.is_none() {
        endpoints = endpoints.registrar(MemoryRegistrar::new());
    }
    endpoints.configured(config).build()
}

async fn run(auth: Auth, client: TokenClient, endpoints: Endpoints) -> Result<(), BoxError> {
    let (delay, limit) = (seconds("STOP_DELAY", 5)?, seconds("STOP_LIMIT", 20)?);
    let listener = serve::listen().await?;
    let mut signals = StopSignals::new()?;
    reload_on_hangup(&endpoints)?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    // Fetches the keys before the first request needs them. If the provider is unavailable, the
    // library logs a warning and fetches them for the first token or health check.
    let warm_up = auth.clone();
    tokio::spawn(async move { warm_up.ready().await });
    let is_stopping = Arc::new(AtomicBool::new(false));
    let health = Health {
        auth: auth.clone(),
        endpoints: endpoints.clone(),
        is_stopping: is_stopping.clone(),
    };
    let mut app = api(&auth, client, health).layer(endpoints.clone());
    if let Some(sessions) = endpoints.sessions() {
        app = app.layer(sessions.layer());
    }
    let stop = async {
        signals.next().await;
        is_stopping.store(true, Ordering::Relaxed);
        tracing::info!(?delay, "not ready any more; serves until load balancers have noticed");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = signals.next() => {}
        }
    };
    if !serve::serve_until(listener, app, serve::HEAD_TIMEOUT, stop, limit).await {
        tracing::warn!(?limit, "requests were still in flight after STOP_LIMIT");
    }
    Ok(())
}

/// Reads a number of seconds from an environment variable.
fn seconds(name: &str, default: u64) -> Result<Duration, BoxError> {
    let Ok(value) = std::env::var(name) else { return Ok(Duration::from_secs(default)) };
    let seconds = value.trim().parse().map_err(|_| {
        format!("{name} is `{value}`: set it to a whole number of seconds, such as {default}.")
    })?;
    Ok(Duration::from_secs(seconds))
}

/// The signals that ask the service to stop. Made before the service reports that it listens, because a
/// signal without a receiver kills the process.
#[cfg(unix)]
struct StopSignals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl StopSignals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]))
    }

    /// Waits for the next signal.
    async fn next(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct StopSignals;

#[cfg(not(unix))]
impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // Fails if the system has no such signal: the service then runs until it is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Reloads the trust policy on each `SIGHUP`. If the new policy is invalid, the library logs the
/// reasons and the previous policy stays in force. Without a policy the signal has no effect.
#[cfg(unix)]
fn reload_on_hangup(endpoints: &Endpoints) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let endpoints = endpoints.clone();
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            if let Some(workloads) = endpoints.workloads() {
                let _ = workloads.evaluator().reload();
            }
        }
    });
    Ok(())
}

#[cfg(not(unix))]
fn reload_on_hangup(_: &Endpoints) -> std::io::Result<()> {
    Ok(())
}

fn api(auth: &Auth, client: TokenClient, health: Health) -> Router {
    let protected = Router::new()
        .route("/me", get(me))
        .route("/admin", get(admin).route_layer(auth.require(scope("admin"))))
        .route("/docs", get(docs).route_layer(auth.require(role("docs_internal"))))
        .route("/downstream/{audience}", get(downstream))
        .route(
            "/service-token/{tenant}",
            get(service_token).route_layer(auth.require(scope("admin"))),
        )
        .with_state(client)
        .layer(auth.layer());
    let public = Router::new().route("/public", get(public)).layer(auth.layer().optional());
    // A failed liveness probe means a restart, which helps against no outage of another system.
    let health = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/healthz", get(healthz))
        .with_state(health);
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
    format!("{} is an administrator\n", identity.subject())
}

async fn docs(identity: Identity) -> String {
    format!("{} may read the internal documents\n", identity.subject())
}

/// Exchanges the caller's token for another service, and answers with its claims, never the token.
async fn downstream(
    State(client): State<TokenClient>,
    Path(audience): Path<String>,
    context: AuthContext,
) -> Response {
    let (Some(client), Some(token)) = (client, context.token()) else { return no_client() };
    let mut request = ExchangeRequest::new(token, audience);
    request.tenant = context.identity().tenant_id().cloned();
    claims_or_error(client.exchange(&request).await)
}

/// Gets a service token of this service for one tenant, and answers with its claims.
async fn service_token(
    State(client): State<TokenClient>,
    Path(tenant): Path<TenantId>,
) -> Response {
    let Some(client) = client else { return no_client() };
    claims_or_error(client.service_token(tenant).await)
}

fn claims_or_error(outcome: Result<AccessToken, ExchangeError>) -> Response {
    let error = match outcome {
        Ok(token) => {
            let claims: Value = insecure_decode_claims(token.secret().expose()).unwrap_or_default();
            let cache = token.cache_status().as_str();
            return Json(json!({ "cache": cache, "claims": claims })).into_response();
        }
        Err(error) => error,
    };
    let status = match &error {
        ExchangeError::Refused { .. } => StatusCode::FORBIDDEN,
        ExchangeError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    tracing::warn!(%error, "could not get a token");
    let code = error.oauth_error().map_or("unavailable", OAuthError::as_str);
    let mut response = (status, Json(json!({ "error": code }))).into_response();
    if let Some(wait) = error.retry_after() {
        let seconds = wait.as_secs_f64().ceil() as u64;
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn no_client() -> Response {
    let hint =
        "tokens for other services need SCAIWAVE_CLIENT_ID and a caller with a verified token\n";
    (StatusCode::NOT_IMPLEMENTED, hint).into_response()
}

async fn public(identity: Option<Identity>) -> String {
    format!("hello, {}\n", identity.as_ref().map_or("stranger", Identity::subject))
}

/// What the readiness probe reports.
#[derive(Clone)]
struct Health {
    auth: Auth,
    endpoints: Endpoints,
    is_stopping: Arc<AtomicBool>,
}

/// Answers readiness probes: 200 if the service can verify tokens and is not about to stop. The body also
/// reports the issuers of the trust policy, but an unavailable one does not make the service unready.
async fn healthz(State(health): State<Health>) -> (StatusCode, Json<Value>) {
    let issuers = health.auth.issuers().health();
    let mode = health.auth.mode();
    let can_verify = mode == AuthMode::Mock || issuers.iter().all(IssuerHealth::can_verify);
    let (status, text) = match (health.is_stopping.load(Ordering::Relaxed), can_verify) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "cannot verify tokens"),
        (false, true) => (StatusCode::OK, "ready"),
    };
    let trusts = health.endpoints.workloads().map(|workloads| workloads.evaluator().health());
    let report = json!({ "status": text, "mode": mode, "issuers": issuers, "trusts": trusts });
    (status, Json(report))
}
