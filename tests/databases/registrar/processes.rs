//! Several processes that register the same identity, as a service on several machines does.

use std::env;
use std::process::Stdio;
use std::time::{Duration, Instant};

use scaikey_auth::testing::identity;
use scaikey_auth::{Registrar, Secret, SqlRegistrar};
use serde_json::json;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::postgres::Postgres;

/// What a child is to do, in its environment.
const JOB: &str = "SCAIKEY_AUTH_TEST_JOB";

/// A process of its own, at the same database.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts one, and waits until it is ready to let so many callers at once register `subject`,
    /// by so many registrars.
    pub(crate) async fn start(
        url: &Secret,
        subject: &str,
        callers: usize,
        registrars: usize,
    ) -> Self {
        let job = format!("{subject} {callers} {registrars} {}", url.expose());
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "registrar::processes::child", "--ignored", "--nocapture"])
            .env(JOB, job)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut this = Self { child, stdin, lines: BufReader::new(stdout).lines() };
        assert_eq!(this.said().await, "ready");
        this
    }

    /// Sets it off.
    pub(crate) async fn go(&mut self) {
        self.stdin.write_all(b"go\n").await.unwrap();
    }

    /// As a crash or the kernel would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// The next thing it says for us.
    async fn said(&mut self) -> String {
        let next = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the child went on");
                if let Some((_, said)) = line.split_once("child: ") {
                    return said.to_owned();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(120), next).await.expect("the child answers")
    }
}

/// Not a test of its own: what a second process does.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests"]
async fn child() {
    let Ok(job) = env::var(JOB) else { return };
    let mut job = job.splitn(4, ' ');
    let mut next = || job.next().unwrap().to_owned();
    let (subject, callers, registrars) = (next(), next(), next());
    let pool = PgPool::connect(&next()).await.unwrap();
    // Registrars share connections but no flights: the database has to keep them apart.
    let registrars: Vec<_> = (0..registrars.parse().unwrap())
        .map(|_| SqlRegistrar::from_postgres(pool.clone()).deadline(Duration::from_secs(60)))
        .collect();
    let somebody = identity(json!({"sub": subject, "tenant_id": "acme", "name": "Somebody"}));
    println!("child: ready");
    let mut line = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await.unwrap();

    let since = Instant::now();
    let mut calls = JoinSet::new();
    for caller in 0..callers.parse().unwrap() {
        let registrar = registrars[caller % registrars.len()].clone();
        let somebody = somebody.clone();
        calls.spawn(async move { registrar.register(&somebody).await.unwrap() });
    }
    let answers = calls.join_all().await;
    let took = since.elapsed().as_millis();
    let created = answers.iter().filter(|answer| answer.created).count();
    let first = &answers[0];
    for answer in &answers {
        assert_eq!(answer.participant_id, first.participant_id);
        assert_eq!(answer.workspace_id, first.workspace_id);
    }
    println!("child: {} {} {created} {took}", first.participant_id, first.workspace_id);
}

/// Two processes with 50 callers each, with no tables to begin with.
async fn two_processes(registrars: usize) {
    let server = Postgres::start();
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(Process::start(&server.url(), "alice", 50, registrars).await);
    }
    for process in &mut processes {
        process.go().await;
    }
    let (mut ids, mut created) = (Vec::new(), 0);
    for process in &mut processes {
        let said = process.said().await;
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
async fn fifty_callers_in_each_of_two_processes_make_one_participant_and_one_workspace() {
    two_processes(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_do_when_no_two_calls_share_a_flight() {
    two_processes(50).await;
}
