//! PostgreSQL that is unavailable, hangs, or is killed between the two insertions of a registration.

use std::time::{Duration, Instant};

use scaikey_auth::registrar::{Registrar, RegistrarError, SqlRegistrar};
use scaikey_auth::testing::identity;
use serde_json::json;
use sqlx::PgPool;

use super::processes::process;
use super::sql::patient;
use crate::postgres::Postgres;

/// A trigger that delays the second insertion until the lock is free.
const GATE: [&str; 2] = [
    "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS \
     'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END'",
    "CREATE TRIGGER gate BEFORE INSERT ON auth_workspaces \
     FOR EACH ROW EXECUTE FUNCTION gate()",
];

/// Creates the tables with a closed gate, and the connection that keeps it closed.
async fn with_closed_gate(
    server: &Postgres,
) -> (PgPool, sqlx::Transaction<'static, sqlx::Postgres>) {
    let pool = PgPool::connect(server.url().expose()).await.unwrap();
    SqlRegistrar::from_postgres(pool.clone()).migrate().await.unwrap();
    for statement in GATE {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(7)").execute(&mut *holder).await.unwrap();
    (pool, holder)
}

/// Waits until this number of sessions wait at the gate, or for such a session.
async fn waiting(pool: &PgPool, expected: i64) {
    let since = Instant::now();
    let count = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await.unwrap() != expected {
        assert!(since.elapsed() < Duration::from_secs(60), "{expected} should be waiting");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn rows(pool: &PgPool) -> (i64, i64) {
    let both = "SELECT (SELECT COUNT(*) FROM auth_participants), \
                (SELECT COUNT(*) FROM auth_workspaces)";
    sqlx::query_as(both).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_process_leaves_no_partial_registration() {
    let server = Postgres::start();
    let (pool, holder) = with_closed_gate(&server).await;
    let mut process = process(&server.url(), "alice", 1, 1).await;
    process.go().await;
    waiting(&pool, 1).await;
    process.kill().await;
    let (url, alice) = (server.url(), identity(json!({"sub": "alice"})));
    let next = tokio::spawn(async move { patient(&url).register(&alice).await });
    // Waits behind the killed process's row, which is not rolled back yet.
    waiting(&pool, 2).await;
    holder.rollback().await.unwrap();
    let registration = next.await.unwrap().unwrap();
    assert!(registration.created, "the killed process left nothing");
    assert_eq!(rows(&pool).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_leaves_no_partial_registration() {
    let mut server = Postgres::start();
    let (pool, holder) = with_closed_gate(&server).await;
    let (registrar, alice) = (patient(&server.url()), identity(json!({"sub": "alice"})));
    let doomed = tokio::spawn({
        let (registrar, alice) = (registrar.clone(), alice.clone());
        async move { registrar.register(&alice).await }
    });
    waiting(&pool, 1).await;
    server.kill();
    let error = doomed.await.unwrap().unwrap_err();
    assert!(matches!(error, RegistrarError::Store(_)), "{error:?}");
    assert!(!format!("{error:?} {error}").contains(server.url().expose()), "{error:?}");
    drop(holder);
    server.restart();
    let pool = PgPool::connect(server.url().expose()).await.unwrap();
    assert_eq!(rows(&pool).await, (0, 0));
    let since = Instant::now();
    let registration = loop {
        match registrar.register(&alice).await {
            Ok(registration) => break registration,
            // A connection that was open when the server died.
            Err(_) => assert!(since.elapsed() < Duration::from_secs(120), "did not recover"),
        }
    };
    assert!(registration.created);
    assert_eq!(rows(&pool).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_complete_partial_registration_once() {
    let server = Postgres::start();
    let pool = PgPool::connect(server.url().expose()).await.unwrap();
    let alice = identity(json!({"sub": "alice", "tenant_id": "acme"}));
    let whole = SqlRegistrar::from_postgres(pool.clone()).register(&alice).await.unwrap();
    sqlx::query("DELETE FROM auth_workspaces").execute(&pool).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        // Separate registrars do not share a call, as in separate processes.
        let registrar = SqlRegistrar::from_postgres(pool.clone());
        let (registrar, alice) = (registrar.timeout(Duration::from_secs(60)), alice.clone());
        calls.spawn(async move { registrar.register(&alice).await.unwrap() });
    }
    let healed = calls.join_all().await;
    assert!(healed.iter().all(|each| each == &healed[0] && !each.created));
    assert_eq!(healed[0].participant_id, whole.participant_id);
    assert_eq!(rows(&pool).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_server_times_out_and_recovers() {
    let server = Postgres::start();
    let registrar = SqlRegistrar::connect(&server.url()).await.unwrap();
    let patient = registrar.clone().timeout(Duration::from_secs(60));
    let alice = identity(json!({"sub": "alice"}));
    let first = patient.register(&alice).await.unwrap();
    server.pause();
    match registrar.register(&alice).await.unwrap_err() {
        RegistrarError::TimedOut(limit) => assert_eq!(limit, Duration::from_secs(2)),
        // The pool's timeout is equally long.
        error => assert!(error.to_string().contains("timed out"), "{error}"),
    }
    let brief = registrar.clone().timeout(Duration::from_millis(200));
    let error = brief.register(&identity(json!({"sub": "bob"}))).await.unwrap_err();
    assert!(matches!(error, RegistrarError::TimedOut(_)), "{error:?}");
    assert!(error.to_string().ends_with("within 200ms: repeat the call"), "{error}");
    server.resume();
    let since = Instant::now();
    while patient.register(&alice).await.map(|again| again.participant_id).ok()
        != Some(first.participant_id.clone())
    {
        assert!(since.elapsed() < Duration::from_secs(120), "did not recover");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn service_starts_before_its_database() {
    let mut server = Postgres::start();
    server.kill();
    let registrar = SqlRegistrar::connect_lazy(&server.url()).unwrap();
    let alice = identity(json!({"sub": "alice"}));
    let error = registrar.register(&alice).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(server.url().expose()), "{error:?}");
    let error = format!("{:?}", SqlRegistrar::connect(&server.url()).await.unwrap_err());
    assert!(!error.contains(server.url().expose()), "{error}");
    server.restart();
    let since = Instant::now();
    while registrar.register(&alice).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(120), "did not recover");
    }
}
