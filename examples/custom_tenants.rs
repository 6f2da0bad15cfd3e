//! Run with `cargo run --example custom_tenants --features sqlite`
//!
//! Tenants in a table of your own: `Workspaces` looks them up with SQLx, `CachedTenants` spares
//! the database, and the exam for resolvers proves that nothing was overlooked.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "short, and talks to a reader")]

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use scaikey_auth::testing::conformance::{TenantExam, tenant_resolver};
use scaikey_auth::{BoxError, CachedTenants, Tenant, TenantId, TenantResolver, TenantStatus};
use sqlx::SqlitePool;

/// What handlers want to know about a tenant.
struct Workspace {
    number: i64,
    plan: String,
}

/// The store: nothing but the pool of connections the service has anyway.
#[derive(Debug, Clone)]
struct Workspaces(SqlitePool);

#[async_trait]
impl TenantResolver for Workspaces {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        let found: Option<(i64, String, bool)> =
            sqlx::query_as("SELECT number, plan, paid FROM workspaces WHERE tenant = $1")
                .bind(id.as_str())
                .fetch_optional(&self.0)
                .await?; // an outage is an error, never "unknown"
        Ok(found.map(|(number, plan, paid)| {
            let status = if paid { TenantStatus::Active } else { TenantStatus::Suspended };
            Tenant::with_row(id.clone(), status, Workspace { number, plan })
        }))
    }
}

/// Lets the exam change the store. In your crate this sits among the tests.
#[async_trait]
impl TenantExam for Workspaces {
    fn resolver(&self) -> Arc<dyn TenantResolver> {
        Arc::new(self.clone())
    }

    fn known(&self) -> TenantId {
        "acme".parse().expect("a valid id")
    }

    fn unknown(&self) -> TenantId {
        "nobody".parse().expect("a valid id")
    }

    async fn put(&self, id: &TenantId, status: TenantStatus) -> bool {
        sqlx::query("REPLACE INTO workspaces (tenant, plan, paid) VALUES ($1, 'free', $2)")
            .bind(id.as_str())
            .bind(status == TenantStatus::Active)
            .execute(&self.0)
            .await
            .is_ok()
    }

    async fn remove(&self, id: &TenantId) {
        let remove = sqlx::query("DELETE FROM workspaces WHERE tenant = $1").bind(id.as_str());
        remove.execute(&self.0).await.expect("a working database");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let pool = SqlitePool::connect("sqlite::memory:").await?;
    for statement in [
        "CREATE TABLE workspaces (number INTEGER PRIMARY KEY, tenant TEXT UNIQUE, plan TEXT, paid BOOLEAN)",
        "INSERT INTO workspaces (tenant, plan, paid) VALUES ('acme', 'gold', TRUE), ('late', 'free', FALSE)",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    let workspaces = Workspaces(pool);
    tenant_resolver(&workspaces).await;

    let tenants = CachedTenants::new(workspaces);
    for id in ["acme", "late", "nobody"] {
        let found = tenants.resolve(&id.parse()?).await?;
        let status = found.as_ref().map(Tenant::status);
        println!("{id}: {status:?}");
        if let Some(workspace) = found.as_ref().and_then(|tenant| tenant.row::<Workspace>()) {
            println!("    workspace {} on plan {}", workspace.number, workspace.plan);
        }
    }
    Ok(())
}
