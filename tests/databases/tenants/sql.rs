//! `SqlTenants` on real databases: conformance suite, migration, and unexpected rows.

use std::sync::Arc;

use async_trait::async_trait;
use scaikey_auth::error::SqlError;
use scaikey_auth::tenant::TenantStatus::{Active, Suspended};
use scaikey_auth::tenant::{SqlTenantRow, SqlTenants, TenantStatus};
use scaikey_auth::testing::conformance::{TenantSuite, tenant_resolver};
use scaikey_auth::{Secret, TenantId, TenantResolver};
use tokio::task::JoinSet;

use crate::support::tenants::{id, status};

struct Candidate(SqlTenants);

#[async_trait]
impl TenantSuite for Candidate {
    fn resolver(&self) -> Arc<dyn TenantResolver> {
        Arc::new(self.0.clone())
    }

    fn known(&self) -> TenantId {
        id("acme")
    }

    fn unknown(&self) -> TenantId {
        id("unknown")
    }

    async fn insert(&self, id: &TenantId, status: TenantStatus) -> bool {
        self.0.insert(id, SqlTenantRow::default(), status).await.unwrap();
        true
    }

    async fn remove(&self, id: &TenantId) {
        self.0.remove(id).await.unwrap();
    }
}

/// Checks the rules for every database.
async fn check_database(url: &Secret) {
    let tenants = SqlTenants::connect(url).await.unwrap();
    let first = tenants.resolve(&id("acme")).await.unwrap();
    assert!(first.is_none(), "the first lookup creates the table");
    tenants.migrate().await.unwrap();
    let row = SqlTenantRow { display_name: Some("Acme ✓".into()), partner_id: Some("p1".into()) };
    tenants.insert(&id("acme"), row.clone(), Active).await.unwrap();
    let found = tenants.resolve(&id("acme")).await.unwrap().unwrap();
    assert_eq!(found.row::<SqlTenantRow>(), Some(&row));
    tenants.migrate().await.unwrap();
    tenant_resolver(&Candidate(tenants)).await;
}

/// Simulates processes that start together: each has its own connections.
async fn migrate_together(url: &Secret) {
    let mut processes = JoinSet::new();
    for _ in 0..4 {
        let url = url.clone();
        processes.spawn(async move { SqlTenants::connect(&url).await?.migrate().await });
    }
    for outcome in processes.join_all().await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn invalid_connection_string_is_not_disclosed() {
    for (url, reason) in [
        ("", "names an unsupported database"),
        ("hunter2", "names an unsupported database"),
        ("mysql://app:hunter2@db/app", "names an unsupported database"),
        #[cfg(feature = "sqlite")]
        ("sqlite:x?hunter2=hunter2", "malformed"),
        #[cfg(not(feature = "sqlite"))]
        ("sqlite:hunter2", "needs the feature `sqlite`"),
        #[cfg(feature = "postgres")]
        ("postgres://app:hunter2@db:hunter2/app", "malformed"),
        #[cfg(feature = "postgres")]
        ("postgres://app:x@db/app?sslmode=hunter2", "malformed"),
        #[cfg(not(feature = "postgres"))]
        ("postgres://app:hunter2@db/app", "needs the feature `postgres`"),
    ] {
        let error = SqlTenants::connect_lazy(&url.into()).unwrap_err();
        assert!(error.to_string().contains(reason), "{url}: {error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{url}: {error:?}");
    }
}

#[test]
fn connecting_outside_a_runtime_is_an_error() {
    let error = SqlTenants::connect_lazy(&"sqlite::memory:".into()).unwrap_err();
    assert!(matches!(error, SqlError::NoRuntime));
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use crate::support::File;

    #[tokio::test]
    async fn sqlite_memory_passes_conformance_suite() {
        check_database(&"sqlite::memory:".into()).await;
    }

    #[tokio::test]
    async fn sqlite_file_passes_conformance_suite() {
        check_database(&File::reserve("tenants.db").sqlite_url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_migrates_concurrently() {
        migrate_together(&File::reserve("tenants.db").sqlite_url()).await;
    }

    #[tokio::test]
    async fn resolver_accepts_an_existing_pool() {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        let tenants = SqlTenants::from_sqlite(pool);
        tenants.migrate().await.unwrap();
        tenants.insert(&id("acme"), SqlTenantRow::default(), Suspended).await.unwrap();
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Suspended));
    }

    #[tokio::test]
    async fn unknown_status_counts_as_suspended() {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        for statement in [
            "CREATE TABLE auth_tenants (id TEXT, display_name, partner_id TEXT, status TEXT)",
            "INSERT INTO auth_tenants VALUES ('frozen', 'Frozen', NULL, 'frozen')",
            "INSERT INTO auth_tenants VALUES ('shouting', 'Shouting', NULL, 'ACTIVE')",
            "INSERT INTO auth_tenants VALUES ('number', 7, NULL, 'active')",
            "INSERT INTO auth_tenants VALUES ('null', NULL, NULL, NULL)",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let tenants = SqlTenants::from_sqlite(pool);
        assert_eq!(status(&tenants, "frozen").await.unwrap(), Some(Suspended));
        assert_eq!(status(&tenants, "shouting").await.unwrap(), Some(Suspended));
        assert_eq!(status(&tenants, "null").await.unwrap(), Some(Suspended));
        assert!(status(&tenants, "number").await.is_err());
    }

    #[tokio::test]
    async fn case_insensitive_table_finds_exact_id_only() {
        let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
        for statement in [
            "CREATE TABLE auth_tenants (id TEXT COLLATE NOCASE, display_name TEXT, \
             partner_id TEXT, status TEXT)",
            "INSERT INTO auth_tenants VALUES ('acme', NULL, NULL, 'active')",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let tenants = SqlTenants::from_sqlite(pool);
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
        assert_eq!(status(&tenants, "Acme").await.unwrap(), None);
    }

    #[tokio::test]
    async fn writer_does_not_block_readers() {
        let file = File::reserve("tenants.db");
        let tenants = SqlTenants::connect(&file.sqlite_url()).await.unwrap();
        tenants.migrate().await.unwrap();
        tenants.insert(&id("acme"), SqlTenantRow::default(), Active).await.unwrap();
        let writer = sqlx::SqlitePool::connect(file.sqlite_url().expose()).await.unwrap();
        let _writing = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
        let read_only = format!("sqlite://{}?mode=ro", file.path_text());
        let reader = SqlTenants::connect(&read_only.into()).await.unwrap();
        assert_eq!(status(&reader, "acme").await.unwrap(), Some(Active));
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::postgres::Postgres;

    #[tokio::test]
    async fn postgres_passes_conformance_suite() {
        check_database(&Postgres::start().url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_migrates_concurrently() {
        let server = Postgres::start();
        migrate_together(&server.url()).await;
        let pool = sqlx::PgPool::connect(server.url().expose()).await.unwrap();
        let impossible = "INSERT INTO auth_tenants (id, status) VALUES ('acme', 'frozen')";
        assert!(sqlx::query(impossible).execute(&pool).await.is_err());
        sqlx::query("ALTER TABLE auth_tenants DROP CONSTRAINT auth_tenants_status_check")
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query(impossible).execute(&pool).await.unwrap();
        let tenants = SqlTenants::from_postgres(pool);
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Suspended));
    }
}
