//! Browser sessions in real databases: conformance suite, migrations, expiry, and outages.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scaikey_auth::Secret;
use scaikey_auth::session::{
    SessionId, SessionLabel, SessionSelector, SessionStore, SqlSessions, StoredSession,
};
use scaikey_auth::testing::conformance::session_store;
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::stored_sessions::check_three_processes;

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The time limit of a removal of many sessions.
const MAX_REMOVAL: Duration = Duration::from_secs(30);

fn sessions(url: &Secret) -> SqlSessions {
    SqlSessions::connect_lazy_with_timeout(url, TIMEOUT).unwrap()
}

/// Returns a session that starts after so many seconds, and lasts for ten.
fn session(number: u8, seconds: u64) -> StoredSession {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + seconds);
    let id = SessionId::from_bytes([number; 32]);
    StoredSession::new(id, vec![number; 100], start, start + Duration::from_secs(10))
}

const USER: SessionLabel = SessionLabel::from_bytes([7; 32]);

fn of_user() -> SessionSelector {
    SessionSelector::any_of([USER])
}

/// Runs the suite on a new database, also a second time.
async fn check_new_database(store: SqlSessions) {
    session_store(Arc::new(store.clone())).await;
    store.migrate().await.unwrap();
    session_store(Arc::new(store)).await;
}

/// Ten stores that share no connection create sessions in a database without tables.
async fn create_together_without_tables(url: &Secret) {
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let store = sessions(url);
        calls.spawn(async move { store.create(session(number, 0), &[USER]).await.unwrap() });
    }
    calls.join_all().await;
    assert_eq!(sessions(url).list(&of_user()).await.unwrap().len(), 10);
}

/// Returns the session with this number, which starts and ends with the first.
fn numbered(number: u32) -> StoredSession {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let mut session = session(1, 0);
    session.id = SessionId::from_bytes(id);
    session
}

/// Creates the sessions with the numbers up to `count`, in parallel.
async fn create_many(store: &SqlSessions, count: u32) {
    let mut calls = JoinSet::new();
    for first in 0..8 {
        let store = store.clone();
        calls.spawn(async move {
            for number in (first..count).step_by(8) {
                store.create(numbered(number), &[USER]).await.unwrap();
            }
        });
    }
    calls.join_all().await;
}

/// All sessions of a user end in time, however many there are.
async fn check_many(store: SqlSessions) {
    create_many(&store, 5000).await;
    let others = of_user().except(numbered(7).id);
    let removal = tokio::time::timeout(MAX_REMOVAL, store.remove_where(&others)).await;
    assert_eq!(removal.expect("in time").unwrap(), 4999);
    assert_eq!(store.list(&of_user()).await.unwrap(), [numbered(7)]);
    assert_eq!(store.remove_where(&of_user()).await.unwrap(), 1);
}

/// Many expired sessions are removed, a part at a time.
async fn check_purge_of_many(store: SqlSessions) {
    create_many(&store, 2100).await;
    store.create(session(9, 1000), &[USER]).await.unwrap();
    eventually(async || store.list(&of_user()).await.unwrap() == [session(9, 1000)]).await;
}

/// A sign-in removes what expired, and nothing else.
async fn check_purge(store: SqlSessions) {
    for (number, seconds) in [(1, 0), (2, 30), (3, 100)] {
        store.create(session(number, seconds), &[USER]).await.unwrap();
    }
    let left = async || {
        let listed = store.list(&of_user()).await.unwrap();
        listed.into_iter().map(|session| session.id.as_bytes()[0]).collect::<Vec<_>>()
    };
    // The first session ended 90 s before the third began, the second one 60 s.
    eventually(async || left().await == [3, 2]).await;
    store.create(session(4, 101), &[USER]).await.unwrap();
    store.create(session(5, 1000), &[USER]).await.unwrap();
    eventually(async || left().await == [5]).await;
    assert_eq!(store.remove_where(&of_user()).await.unwrap(), 1);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use crate::support::File;

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_in_memory_passes_conformance_suite() {
        check_new_database(sessions(&"sqlite::memory:".into())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_file_passes_conformance_suite() {
        let file = File::reserve("sessions.db");
        check_new_database(sessions(&file.sqlite_url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_first_sessions_are_all_stored() {
        let file = File::reserve("sessions.db");
        create_together_without_tables(&file.sqlite_url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn expired_sessions_are_purged() {
        let file = File::reserve("sessions.db");
        check_purge(sessions(&file.sqlite_url())).await;
        check_purge_of_many(sessions(&file.sqlite_url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn thousands_of_sessions_end_in_time() {
        check_many(sessions(&"sqlite::memory:".into())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn three_processes_share_a_sqlite_file() {
        let file = File::reserve("sessions.db");
        check_three_processes(|| sessions(&file.sqlite_url())).await;
    }

    #[tokio::test]
    async fn sessions_survive_a_restart() {
        let file = File::reserve("sessions.db");
        let stored = session(1, 0);
        sessions(&file.sqlite_url()).create(stored.clone(), &[USER]).await.unwrap();
        let again = sessions(&file.sqlite_url());
        assert_eq!(again.load(&stored.id).await.unwrap(), Some(stored.clone()));
        assert_eq!(again.list(&of_user()).await.unwrap(), [stored]);
    }

    #[tokio::test]
    async fn damaged_row_is_an_error() {
        let file = File::reserve("sessions.db");
        let store = sessions(&file.sqlite_url());
        store.create(session(1, 0), &[USER]).await.unwrap();
        let pool = sqlx::SqlitePool::connect(file.sqlite_url().expose()).await.unwrap();
        for table in ["auth_sessions SET id", "auth_session_labels SET session_id"] {
            let change = format!("UPDATE {table} = 'x'");
            sqlx::query(sqlx::AssertSqlSafe(change)).execute(&pool).await.unwrap();
        }
        let error = store.list(&of_user()).await.unwrap_err().to_string();
        assert!(error.contains("malformed id"), "{error}");
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::PgPool;

    use super::*;
    use crate::postgres::{Bouncer, Postgres};

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_passes_conformance_suite() {
        let server = Postgres::start();
        check_new_database(sessions(&server.url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn store_behind_pgbouncer_passes_conformance_suite() {
        let server = Postgres::start();
        let bouncer = Bouncer::before(&server);
        check_new_database(sessions(&bouncer.url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_first_sessions_are_all_stored() {
        let server = Postgres::start();
        create_together_without_tables(&server.url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn expired_sessions_are_purged() {
        let server = Postgres::start();
        check_purge(sessions(&server.url())).await;
        check_purge_of_many(sessions(&server.url())).await;
        let pool = PgPool::connect(server.url().expose()).await.unwrap();
        let labels = sqlx::query_scalar("SELECT count(*) FROM auth_session_labels");
        let labels: i64 = labels.fetch_one(&pool).await.unwrap();
        assert_eq!(labels, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn purge_waits_for_no_locked_session() {
        let server = Postgres::start();
        let store = sessions(&server.url());
        store.create(session(1, 0), &[USER]).await.unwrap();
        store.create(session(2, 0), &[USER]).await.unwrap();
        let pool = PgPool::connect(server.url().expose()).await.unwrap();
        let mut transaction = pool.begin().await.unwrap();
        let lock = "SELECT 1 FROM auth_sessions ORDER BY id LIMIT 1 FOR UPDATE";
        sqlx::query(lock).execute(&mut *transaction).await.unwrap();
        store.create(session(3, 1000), &[USER]).await.unwrap();
        let left = [session(3, 1000), session(1, 0)];
        eventually(async || store.list(&of_user()).await.unwrap() == left).await;
        transaction.rollback().await.unwrap();
        store.create(session(4, 2000), &[USER]).await.unwrap();
        eventually(async || store.list(&of_user()).await.unwrap() == [session(4, 2000)]).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn thousands_of_sessions_end_in_time() {
        let server = Postgres::start();
        check_many(sessions(&server.url())).await;
        let bouncer = Bouncer::before(&server);
        check_many(sessions(&bouncer.url())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn three_processes_share_postgres() {
        let server = Postgres::start();
        check_three_processes(|| sessions(&server.url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn role_needs_only_the_documented_rights() {
        let server = Postgres::start();
        let owner = PgPool::connect(server.url().expose()).await.unwrap();
        for statement in ["CREATE ROLE app LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"] {
            sqlx::query(statement).execute(&owner).await.unwrap();
        }
        let app = sessions(&server.url().expose().replace("postgres@", "app@").into());
        let error = app.load(&session(1, 0).id).await.unwrap_err().to_string();
        assert!(error.contains("call `migrate` once with a role that is"), "{error}");
        SqlSessions::from_postgres(owner.clone()).migrate().await.unwrap();
        for statement in [
            "GRANT SELECT, INSERT, UPDATE, DELETE ON auth_sessions, auth_session_labels TO app",
            "GRANT SELECT ON auth_session_schema_versions TO app",
        ] {
            sqlx::query(statement).execute(&owner).await.unwrap();
        }
        check_new_database(app).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_server_keeps_sessions_and_recovers() {
        let mut server = Postgres::start();
        let store = SqlSessions::connect_lazy_with_timeout(&server.url(), Duration::from_secs(5));
        let store = store.unwrap();
        let stored = session(1, 0);
        store.create(stored.clone(), &[USER]).await.unwrap();
        server.kill();
        let error = store.load(&stored.id).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains(server.url().expose()), "{error:?}");
        store.remove(&stored.id).await.unwrap_err();
        server.restart();
        eventually(async || store.load(&stored.id).await.is_ok_and(|it| it.is_some())).await;
    }
}
