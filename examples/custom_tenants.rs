//! Run with `cargo run --example custom_tenants --features sqlite`
//!
//! Reads tenants from a database table of the service. The resolver `Workspaces` reads the table
//! with SQLx, `CachedTenants` caches the rows, and handlers receive them. Prints `curl` lines to
//! try. `LISTEN` sets the address (default `127.0.0.1:8080`).

use std::error::Error;

use async_trait::async_trait;
use axum::{Router, routing::get};
use scaikey_auth::error::BoxError;
use scaikey_auth::extract::TenantRow;
use scaikey_auth::tenant::{CachedTenants, TenantStatus};
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, IssuerConfig, Tenant, TenantId, TenantResolver};
use sqlx::SqlitePool;

mod serve;

/// The row that handlers receive.
#[derive(Clone)]
struct Workspace {
    number: i64,
    plan: String,
}

/// The tenant store: a wrapper around the connection pool of the service.
#[derive(Debug, Clone)]
struct Workspaces(SqlitePool);

#[async_trait]
impl TenantResolver for Workspaces {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        let found: Option<(i64, String, bool)> =
            sqlx::query_as("SELECT number, plan, paid FROM workspaces WHERE tenant = $1")
                .bind(id.as_str())
                .fetch_optional(&self.0)
                .await?; // an outage is an error, not an unknown tenant
        Ok(found.map(|(number, plan, paid)| {
            let status = if paid { TenantStatus::Active } else { TenantStatus::Suspended };
            Tenant::with_row(id.clone(), status, Workspace { number, plan })
        }))
    }
}

async fn plan(TenantRow(workspace): TenantRow<Workspace>) -> String {
    format!("workspace {} on plan {}\n", workspace.number, workspace.plan)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = serve::listen().await?;
    let provider = Provider::start().await;
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder()
        .issuer(issuer)
        .audience("scaiwave")
        .tenants(CachedTenants::new(Workspaces(database().await?)))
        .build()?;
    let api = Router::new().route("/plan", get(plan)).layer(auth.layer());

    let url = format!("http://{}/plan", listener.local_addr()?);
    for (tenant, outcome) in [
        ("acme", "200: its workspace is paid"),
        ("late", "403: its workspace is not paid"),
        ("nobody", "403: it has no workspace"),
    ] {
        println!("# {tenant} gets {outcome}");
        let token = provider.token().tenant(tenant).sign();
        println!("curl -i {url} -H 'Authorization: Bearer {token}'");
    }
    serve::serve(listener, api, serve::HEAD_TIMEOUT).await;
    Ok(())
}

async fn database() -> Result<SqlitePool, sqlx::Error> {
    // An in-memory database exists only as long as its connection, so the pool keeps exactly one.
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).idle_timeout(None);
    let pool = pool.max_lifetime(None).connect("sqlite::memory:").await?;
    for statement in [
        "CREATE TABLE workspaces (number INTEGER PRIMARY KEY, tenant TEXT UNIQUE, plan TEXT, paid BOOLEAN)",
        "INSERT INTO workspaces (tenant, plan, paid) VALUES ('acme', 'gold', TRUE), ('late', 'free', FALSE)",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    Ok(pool)
}
