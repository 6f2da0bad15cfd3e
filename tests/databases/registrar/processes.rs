//! Several processes that register the same identity, as a service on several machines does.

use std::time::{Duration, Instant};

use scaikey_auth::Secret;
use scaikey_auth::registrar::{Registrar, SqlRegistrar};
use scaikey_auth::testing::identity;
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::postgres::Postgres;
use crate::support::process::{Program, job, ready};

/// Starts a process that uses the same database. On a signal, the number of `callers` register `subject`
/// concurrently, with the number of `registrars`.
pub(crate) async fn process(
    url: &Secret,
    subject: &str,
    callers: usize,
    registrars: usize,
) -> Program {
    let job = format!("{subject} {callers} {registrars} {}", url.expose());
    Program::child("registrar::processes::child", job).await
}

/// Not a test: the work of the second process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests"]
async fn child() {
    let Some(job) = job() else { return };
    let mut job = job.splitn(4, ' ');
    let mut next = || job.next().unwrap().to_owned();
    let (subject, callers, registrars) = (next(), next(), next());
    let pool = PgPool::connect(&next()).await.unwrap();
    // Registrars share connections but no calls, so the database must prevent duplicates.
    let registrars: Vec<_> = (0..registrars.parse().unwrap())
        .map(|_| SqlRegistrar::from_postgres(pool.clone()).timeout(Duration::from_secs(60)))
        .collect();
    let user = identity(json!({"sub": subject, "tenant_id": "acme", "name": "User"}));
    ready().await;

    let since = Instant::now();
    let mut calls = JoinSet::new();
    for caller in 0..callers.parse().unwrap() {
        let registrar = registrars[caller % registrars.len()].clone();
        let user = user.clone();
        calls.spawn(async move { registrar.register(&user).await.unwrap() });
    }
    let answers = calls.join_all().await;
    let took = since.elapsed().as_millis();
    let created = answers.iter().filter(|answer| answer.created).count();
    let first = &answers[0];
    for answer in &answers {
        assert_eq!(answer.participant_id, first.participant_id);
        assert_eq!(answer.workspace_id, first.workspace_id);
    }
    let workspace = first.workspace_id.as_ref().unwrap();
    println!("child: {} {workspace} {created} {took}", first.participant_id);
}

/// Two processes with 50 callers each, without tables at first.
async fn two_processes(registrars: usize) {
    let server = Postgres::start();
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(process(&server.url(), "alice", 50, registrars).await);
    }
    for process in &mut processes {
        process.go().await;
    }
    let (mut ids, mut created) = (Vec::new(), 0);
    for process in &mut processes {
        let said = process.next_message().await;
        let words: Vec<_> = said.split(' ').collect();
        ids.push((words[0].to_owned(), words[1].to_owned()));
        created += words[2].parse::<usize>().unwrap();
        println!("50 callers, {registrars} registrars: {} ms", words[3]);
    }
    assert_eq!(ids[0], ids[1], "one participant and one workspace");
    assert_eq!(created, 1, "one of a hundred created it");
    let pool = PgPool::connect(server.url().expose()).await.unwrap();
    let rows: (i64, i64) = sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM auth_participants), (SELECT COUNT(*) FROM auth_workspaces)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(rows, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_processes_create_one_participant() {
    two_processes(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_registrars_create_one_participant() {
    two_processes(50).await;
}
