//! `SqlRegistrar` on real databases: conformance suite, migrations, repairs, and unexpected rows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use scaikey_auth::Secret;
use scaikey_auth::error::SqlError;
use scaikey_auth::registrar::{ParticipantId, Profile, Registrar, SqlRegistrar};
use scaikey_auth::testing::conformance::{RegistrarSuite, registrar};
use scaikey_auth::testing::identity;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Creates registrars that share only their connections.
struct Candidate<F>(F);

#[async_trait]
impl<F: Fn() -> SqlRegistrar + Sync> RegistrarSuite for Candidate<F> {
    fn registrar(&self) -> Arc<dyn Registrar> {
        Arc::new((self.0)().timeout(Duration::from_secs(60)))
    }

    async fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        (self.0)().profile(participant).await.unwrap()
    }
}

async fn check_new_database(make: impl Fn() -> SqlRegistrar + Sync) {
    let before = SystemTime::now() - Duration::from_secs(2);
    let alice = identity(json!({"sub": "alice", "name": "Alice"}));
    let first = make().register(&alice).await.expect("the first call creates the tables");
    assert!(first.created);
    assert!((before..=SystemTime::now()).contains(&first.created_at), "{:?}", first.created_at);
    make().migrate().await.unwrap();
    make().migrate().await.unwrap();
    let again = make().register(&alice).await.unwrap();
    assert_eq!((again.participant_id, again.created), (first.participant_id, false));
    let unknown = ParticipantId::new("unknown").unwrap();
    assert_eq!(make().profile(&unknown).await.unwrap(), None);
    registrar(&Candidate(make)).await;
}

#[tokio::test]
async fn invalid_connection_string_is_not_disclosed() {
    for (url, reason) in [
        ("", "names an unsupported database"),
        ("mysql://app:hunter2@db/app", "names an unsupported database"),
        #[cfg(feature = "sqlite")]
        ("sqlite:x?hunter2=hunter2", "malformed"),
        #[cfg(not(feature = "sqlite"))]
        ("sqlite:hunter2", "needs the feature `sqlite`"),
        #[cfg(feature = "postgres")]
        ("postgres://app:hunter2@db:hunter2/app", "malformed"),
        #[cfg(not(feature = "postgres"))]
        ("postgres://app:hunter2@db/app", "needs the feature `postgres`"),
    ] {
        let error = SqlRegistrar::connect_lazy(&url.into()).unwrap_err();
        assert!(error.to_string().contains(reason), "{url}: {error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{url}: {error:?}");
    }
}

#[test]
fn connecting_outside_a_runtime_is_an_error() {
    let error = SqlRegistrar::connect_lazy(&"sqlite::memory:".into()).unwrap_err();
    assert!(matches!(error, SqlError::NoRuntime));
}

/// A registrar with timeouts long enough for a busy machine.
pub(crate) fn patient(url: &Secret) -> SqlRegistrar {
    let patience = Duration::from_secs(60);
    SqlRegistrar::connect_lazy_with_timeout(url, patience).unwrap().timeout(patience * 2)
}

/// Simulates processes that start together: each has its own connections.
async fn register_together_without_tables(url: &Secret) {
    let mut processes = JoinSet::new();
    let start = Arc::new(Barrier::new(8));
    for number in 0..8 {
        let (url, start) = (url.clone(), start.clone());
        processes.spawn(async move {
            start.wait().await;
            let user = identity(json!({"sub": format!("user-{number}")}));
            patient(&url).register(&user).await
        });
    }
    for outcome in processes.join_all().await {
        assert!(outcome.unwrap().created);
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use scaikey_auth::registrar::RegistrarError;
    use sqlx::SqlitePool;

    use super::*;
    use crate::support::File;

    async fn memory() -> SqlitePool {
        let one = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        one.connect("sqlite::memory:").await.unwrap()
    }

    async fn count(pool: &SqlitePool) -> (i64, i64) {
        let both = "SELECT (SELECT COUNT(*) FROM auth_participants), \
                    (SELECT COUNT(*) FROM auth_workspaces)";
        sqlx::query_as(both).fetch_one(pool).await.unwrap()
    }

    #[tokio::test]
    async fn sqlite_memory_passes_conformance_suite() {
        let pool = memory().await;
        check_new_database(|| SqlRegistrar::from_sqlite(pool.clone())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_file_passes_conformance_suite() {
        let file = File::reserve("registrar.db");
        let url = file.sqlite_url();
        // Two registrars with separate connections. Clones of one share calls, as in one process.
        let both = [0, 1].map(|_| patient(&url));
        let turn = AtomicUsize::new(0);
        check_new_database(|| both[turn.fetch_add(1, Ordering::SeqCst) % 2].clone()).await;
    }

    /// If several connections switch a new file to WAL mode concurrently, SQLite refuses some immediately.
    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_first_calls_create_tables_once() {
        for _ in 0..20 {
            register_together_without_tables(&File::reserve("registrar.db").sqlite_url()).await;
        }
    }

    #[tokio::test]
    async fn registration_outlives_the_process() {
        let (file, alice) = (File::reserve("registrar.db"), identity(json!({"sub": "alice"})));
        let first = SqlRegistrar::connect(&file.sqlite_url()).await.unwrap();
        let first = first.register(&alice).await.unwrap();
        let again = SqlRegistrar::connect(&file.sqlite_url()).await.unwrap();
        let again = again.register(&alice).await.unwrap();
        assert_eq!(again.participant_id, first.participant_id);
        assert_eq!(again.workspace_id, first.workspace_id);
        assert!(!again.created);
    }

    #[tokio::test]
    async fn missing_workspace_is_created_once() {
        let pool = memory().await;
        let registrar = SqlRegistrar::from_sqlite(pool.clone());
        let alice = identity(json!({"sub": "alice"}));
        let whole = registrar.register(&alice).await.unwrap();
        sqlx::query("DELETE FROM auth_workspaces").execute(&pool).await.unwrap();
        let healed = registrar.register(&alice).await.unwrap();
        assert_eq!(healed.participant_id, whole.participant_id);
        assert_eq!(healed.created_at, whole.created_at);
        assert_ne!(healed.workspace_id, whole.workspace_id);
        assert!(!healed.created, "the participant existed");
        assert_eq!(registrar.register(&alice).await.unwrap(), healed);
        assert_eq!(count(&pool).await, (1, 1));
    }

    #[tokio::test]
    async fn unchanged_profile_is_not_written() {
        let pool = memory().await;
        let registrar = SqlRegistrar::from_sqlite(pool.clone());
        let alice = identity(json!({"sub": "alice", "name": "Alice", "email": "a@b.example"}));
        let brief = identity(json!({"sub": "alice"}));
        let first = registrar.register(&alice).await.unwrap();
        sqlx::query("PRAGMA query_only = ON").execute(&pool).await.unwrap();
        for _ in 0..3 {
            let again = registrar.register(&alice).await.unwrap();
            assert_eq!(again.participant_id, first.participant_id);
            registrar.register(&brief).await.unwrap();
        }
        let renamed = identity(json!({"sub": "alice", "name": "Alice Smith"}));
        assert!(matches!(registrar.register(&renamed).await, Err(RegistrarError::Store(_))));
    }

    #[tokio::test]
    async fn case_insensitive_table_is_refused() {
        let pool = memory().await;
        for statement in [
            "CREATE TABLE auth_participants (id TEXT PRIMARY KEY, issuer TEXT, tenant_id TEXT, \
             kind TEXT, subject TEXT COLLATE NOCASE, display_name TEXT, email TEXT, \
             email_verified BOOLEAN DEFAULT FALSE, created_at TEXT DEFAULT CURRENT_TIMESTAMP, \
             updated_at TEXT, UNIQUE (issuer, tenant_id, kind, subject))",
            "CREATE TABLE auth_workspaces (id TEXT PRIMARY KEY, participant_id TEXT UNIQUE)",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let registrar = SqlRegistrar::from_sqlite(pool);
        registrar.register(&identity(json!({"sub": "alice"}))).await.unwrap();
        let error = registrar.register(&identity(json!({"sub": "Alice"}))).await.unwrap_err();
        assert!(error.to_string().contains("compared exactly"), "{error}");
    }

    #[tokio::test]
    async fn migration_is_atomic_and_keeps_newer_tables() {
        let pool = memory().await;
        let registrar = SqlRegistrar::from_sqlite(pool.clone());
        sqlx::query("CREATE TABLE auth_workspaces (surprise TEXT)").execute(&pool).await.unwrap();
        let error = registrar.migrate().await.unwrap_err();
        assert!(matches!(error, SqlError::Migration(_)), "{error:?}");
        assert!(error.to_string().contains("call `migrate` once with a role that is"), "{error}");
        let left: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(left, ["auth_workspaces"], "all migrations or none");

        sqlx::query("DROP TABLE auth_workspaces").execute(&pool).await.unwrap();
        registrar.migrate().await.unwrap();
        let newer = "INSERT INTO auth_registrar_versions (version) VALUES (2)";
        sqlx::query(newer).execute(&pool).await.unwrap();
        registrar.migrate().await.unwrap();
        let versions: Vec<i64> =
            sqlx::query_scalar("SELECT version FROM auth_registrar_versions ORDER BY version")
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(versions, [1, 2]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writer_holding_lock_blocks_only_writers() {
        let file = File::reserve("registrar.db");
        let deadline = Duration::from_millis(300);
        let registrar = SqlRegistrar::connect(&file.sqlite_url()).await.unwrap();
        let known = identity(json!({"sub": "known"}));
        registrar.register(&known).await.unwrap();
        let (patient, registrar) =
            (registrar.clone().timeout(Duration::from_secs(60)), registrar.timeout(deadline));
        let other = SqlitePool::connect(file.sqlite_url().expose()).await.unwrap();
        let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();

        // The writer ends only after this, so a reader that waited would time out.
        patient.register(&known).await.expect("readers do not wait");
        let new_user = identity(json!({"sub": "new_user"}));
        let error = registrar.register(&new_user).await.unwrap_err();
        assert!(matches!(error, RegistrarError::TimedOut(limit) if limit == deadline), "{error:?}");

        writing.rollback().await.unwrap();
        patient.register(&new_user).await.unwrap();
        assert_eq!(count(&other).await, (2, 2));
    }

    #[tokio::test]
    async fn cancelled_call_leaves_no_partial_registration() {
        let file = File::reserve("registrar.db");
        let registrar = SqlRegistrar::connect(&file.sqlite_url()).await.unwrap();
        registrar.migrate().await.unwrap();
        for number in 0..50 {
            let user = identity(json!({"sub": format!("user-{number}")}));
            let patience = Duration::from_micros(100 * number);
            let _ = tokio::time::timeout(patience, registrar.register(&user)).await;
        }
        let pool = SqlitePool::connect(file.sqlite_url().expose()).await.unwrap();
        let whole = "SELECT (SELECT COUNT(*) FROM auth_participants) = \
                     (SELECT COUNT(*) FROM auth_workspaces)";
        assert!(sqlx::query_scalar::<_, bool>(whole).fetch_one(&pool).await.unwrap());
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use crate::postgres::Postgres;

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_passes_conformance_suite() {
        let server = Postgres::start();
        let pool = sqlx::PgPool::connect(server.url().expose()).await.unwrap();
        check_new_database(|| SqlRegistrar::from_postgres(pool.clone())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn serializable_pool_passes_conformance_suite() {
        let server = Postgres::start();
        let url = format!(
            "{}&options=-c%20default_transaction_isolation%3Dserializable",
            server.url().expose()
        );
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        let level: String =
            sqlx::query_scalar("SHOW transaction_isolation").fetch_one(&pool).await.unwrap();
        assert_eq!(level, "serializable");
        check_new_database(|| SqlRegistrar::from_postgres(pool.clone())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_first_calls_create_tables_once() {
        let server = Postgres::start();
        register_together_without_tables(&server.url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn role_without_create_needs_migration_first() {
        let server = Postgres::start();
        let owner = sqlx::PgPool::connect(server.url().expose()).await.unwrap();
        for statement in ["CREATE ROLE app LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"] {
            sqlx::query(statement).execute(&owner).await.unwrap();
        }
        let url = server.url().expose().replace("postgres@", "app@");
        let registrar = SqlRegistrar::connect(&url.into()).await.unwrap();
        let alice = identity(json!({"sub": "alice"}));
        let error = registrar.register(&alice).await.unwrap_err().to_string();
        assert!(error.contains("call `migrate` once with a role that is"), "{error}");
        assert!(error.contains("permission denied"), "{error}");

        SqlRegistrar::from_postgres(owner.clone()).migrate().await.unwrap();
        for statement in [
            "GRANT SELECT, INSERT, UPDATE ON auth_participants, auth_workspaces TO app",
            "GRANT SELECT ON auth_registrar_versions TO app",
        ] {
            sqlx::query(statement).execute(&owner).await.unwrap();
        }
        registrar.migrate().await.unwrap();
        assert!(registrar.register(&alice).await.unwrap().created);
    }
}
