//! Notes of workspaces in PostgreSQL. The tenant claim of a token is the UUID of a workspace. Its members
//! read notes, editors write them, and `/events` streams new ones until the reader's token expires.
//!
//! ```sh
//! # With a provider (without DATABASE_URL, it prints how to get a database):
//! SCAIWAVE_ISSUER=https://id.example SCAIWAVE_AUDIENCE=scaiwave cargo run --example axum_service --features postgres
//! # Without one, every token is that of an editor:
//! SCAIWAVE_AUTH_MODE=mock cargo run --example axum_service --features postgres
//!
//! curl -N http://127.0.0.1:8080/events -H 'Authorization: Bearer anything' & # shows new notes
//! curl http://127.0.0.1:8080/notes -d 'buy milk' -H 'Authorization: Bearer anything'
//! ```

use std::{convert::Infallible, env, error::Error, future::ready, time::Duration};

use async_trait::async_trait;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::{Json, Router, extract::State, http::StatusCode};
use futures_util::{Stream, StreamExt as _, stream};
use scaikey_auth::tenant::{CachedTenants, TenantStatus};
use scaikey_auth::{Auth, AuthContext, Identity, Tenant, TenantId, TenantResolver, role};
use scaikey_auth::{config::MockUser, error::BoxError, extract::TenantRow};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::broadcast;
use uuid::Uuid;

mod serve;

const NO_DATABASE: &str = "Set DATABASE_URL to a PostgreSQL database. To get one:
docker run --rm -d -p 5432:5432 -e POSTGRES_PASSWORD=notes postgres:17
export DATABASE_URL=postgres://postgres:notes@127.0.0.1:5432/postgres";

#[derive(Clone)]
struct Workspace {
    id: Uuid,
    name: String,
}

#[derive(Debug)]
struct Workspaces(PgPool);

#[async_trait]
impl TenantResolver for Workspaces {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        // An id has one spelling: other text, such as a UUID in upper case, names no workspace.
        let key = Uuid::parse_str(id.as_str()).ok().filter(|key| key.to_string() == id.as_str());
        let Some(key) = key else { return Ok(None) };
        let query = sqlx::query_as("SELECT name, suspended FROM workspaces WHERE id = $1");
        let row: Option<(String, bool)> = query.bind(key).fetch_optional(&self.0).await?;
        Ok(row.map(|(name, suspended)| {
            let status = if suspended { TenantStatus::Suspended } else { TenantStatus::Active };
            Tenant::with_row(id.clone(), status, Workspace { id: key, name })
        }))
    }
}

#[derive(Clone)]
struct Notes {
    pool: PgPool,
    new: broadcast::Sender<(Uuid, String)>, // the workspace and the text
}

fn unavailable(error: sqlx::Error) -> StatusCode {
    tracing::error!(%error, "database");
    StatusCode::SERVICE_UNAVAILABLE
}

async fn read(
    State(notes): State<Notes>,
    TenantRow(workspace): TenantRow<Workspace>,
) -> Result<Json<Vec<String>>, StatusCode> {
    let query = sqlx::query_scalar("SELECT text FROM notes WHERE workspace = $1 ORDER BY id");
    query.bind(workspace.id).fetch_all(&notes.pool).await.map(Json).map_err(unavailable)
}

async fn write(
    State(notes): State<Notes>,
    TenantRow(workspace): TenantRow<Workspace>,
    author: Identity,
    text: String,
) -> Result<StatusCode, StatusCode> {
    let query = sqlx::query("INSERT INTO notes (workspace, author, text) VALUES ($1, $2, $3)");
    let query = query.bind(workspace.id).bind(author.subject()).bind(&text);
    query.execute(&notes.pool).await.map_err(unavailable)?;
    let _ = notes.new.send((workspace.id, text)); // fails without a listener
    Ok(StatusCode::CREATED)
}

/// The layer checks a token when a request begins. The stream ends with it; browsers then connect again.
async fn events(
    State(notes): State<Notes>,
    TenantRow(workspace): TenantRow<Workspace>,
    context: AuthContext,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let new = stream::unfold(notes.new.subscribe(), async |mut new| match new.recv().await {
        Err(broadcast::error::RecvError::Closed) => None,
        note => Some((note.ok(), new)), // skips notes if the reader is too slow
    });
    let is_own = move |it: Option<(Uuid, String)>| ready(it.filter(|it| it.0 == workspace.id));
    let events = new.filter_map(is_own).map(|(_, text)| Ok(Event::default().data(text)));
    Sse::new(events.take_until(context.until_expired())).keep_alive(KeepAlive::default())
}

/// Answers strangers too. Only an invalid token is refused.
async fn welcome(caller: Option<Identity>, tenant: Option<Tenant>) -> String {
    match (caller, tenant.as_ref().and_then(Tenant::row::<Workspace>)) {
        (Some(user), Some(home)) => format!("Hello {} of {}.\n", user.subject(), home.name),
        _ => "Hello stranger.\n".to_owned(),
    }
}

fn app(auth: &Auth, pool: PgPool) -> Router {
    let protected = Router::new()
        .route("/notes", get(read))
        .route("/notes", post(write).route_layer(auth.require(role("editor"))))
        .route("/events", get(events))
        .layer(auth.layer());
    let open = Router::new().route("/", get(welcome)).layer(auth.layer().optional());
    protected.merge(open).with_state(Notes { pool, new: broadcast::channel(64).0 })
}

async fn database() -> Result<PgPool, Box<dyn Error>> {
    let url = env::var("DATABASE_URL").map_err(|_| NO_DATABASE)?;
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(5)).connect(&url).await;
    let pool = pool.map_err(|why| format!("No database at DATABASE_URL: {why}"))?;
    sqlx::raw_sql(include_str!("axum_service.sql")).execute(&pool).await?;
    Ok(pool)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mock = MockUser::default().claim("tenant_id", "0190a3c4-7a1e-7c2a-9f00-5d1b52f0a001");
    let auth = Auth::from_env("SCAIWAVE").mock_user(mock.claim("roles", vec!["editor"]));
    let pool = database().await?;
    let auth = auth.tenants(CachedTenants::new(Workspaces(pool.clone()))).build()?;
    let listener = serve::listen().await?;
    println!("listening on http://{}", listener.local_addr()?);
    serve::serve(listener, app(&auth, pool), serve::HEAD_TIMEOUT).await;
    Ok(())
}

#[tokio::main]
async fn main() {
    serve::log_warnings();
    if let Err(problem) = run().await {
        eprintln!("{problem}");
        std::process::exit(1);
    }
}
