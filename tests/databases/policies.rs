//! Versions of a trust policy in real databases: conformance suite, migrations, outages, concurrent processes, and rows
//! that were changed by hand.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scaikey_auth::Secret;
use scaikey_auth::testing::conformance::policy_store;
use scaikey_auth::trust::{
    Appended, NewPolicyVersion, PolicyStore, PolicyVersionId, SaveError, SqlPolicies,
    TrustEvaluator,
};
use tokio::task::JoinSet;

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

fn policies(url: &Secret) -> SqlPolicies {
    SqlPolicies::connect_lazy_with_timeout(url, TIMEOUT).unwrap().timeout(TIMEOUT)
}

fn version(text: &str) -> NewPolicyVersion {
    NewPolicyVersion::new(text, SystemTime::UNIX_EPOCH + Duration::from_nanos(1_790_000_000_123))
}

/// Appends versions with these texts to an empty store, and returns the id of the last one.
async fn fill(policies: &SqlPolicies, texts: &[&str]) -> PolicyVersionId {
    let mut latest = None;
    for text in texts {
        match policies.append(version(text), latest.as_ref()).await.unwrap() {
            Appended::Done(id) => latest = Some(id),
            Appended::Conflict(found) => panic!("{found:?} is in force"),
        }
    }
    latest.unwrap()
}

/// Runs the suite on a new database, and checks that two policies in it are separate.
async fn check_new_database(policies: SqlPolicies) {
    policy_store(Arc::new(policies.clone())).await;
    assert_eq!(policies.kind(), "sql");
    let other = policies.clone().name("Default");
    policy_store(Arc::new(other.clone())).await;
    policies.migrate().await.unwrap();
    let latest = policies.latest().await.unwrap().unwrap();
    let changes = policies.history(None, 1).await.unwrap();
    assert_eq!(changes[0].id, latest);
}

/// Ten stores that share no connection append to a database without tables.
async fn append_together_without_tables(url: &Secret) {
    let mut calls = JoinSet::new();
    for caller in 0..10 {
        let policies = policies(url);
        calls.spawn(async move {
            policies.append(version(&format!("caller = {caller}")), None).await.unwrap()
        });
    }
    let outcomes = calls.join_all().await;
    let done: Vec<_> =
        outcomes.iter().filter(|outcome| matches!(outcome, Appended::Done(_))).collect();
    let [Appended::Done(id)] = done[..] else { panic!("{outcomes:?}") };
    let lost = outcomes.iter().filter(|it| **it == Appended::Conflict(Some(id.clone()))).count();
    assert_eq!((lost, id.number()), (9, 1), "{outcomes:?}");
}

/// Two evaluators with connections of their own follow each other, and notice each other's changes.
async fn check_evaluators_follow(url: &Secret) {
    let process = || TrustEvaluator::builder().store(policies(url)).build().unwrap();
    let (one, other) = (process(), process());
    for process in [&one, &other] {
        process.sync().await.unwrap();
    }
    let first = one.save(version("# first"), None).await.unwrap();
    other.sync().await.unwrap();
    assert_eq!(other.version(), Some(first.clone()));
    let second = other.save(version("# second"), Some(&first)).await.unwrap();
    match one.save(version("# lost"), Some(&first)).await.unwrap_err() {
        SaveError::Conflict(found) => assert_eq!(found, Some(second.clone())),
        error => panic!("{error}"),
    }
    one.sync().await.unwrap();
    assert_eq!(one.version(), Some(second));
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sqlx::SqlitePool;

    use super::*;
    use crate::support::File;

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_in_memory_passes_conformance_suite() {
        check_new_database(policies(&"sqlite::memory:".into())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn evaluators_follow_a_sqlite_file() {
        let file = File::reserve("policies.db");
        check_evaluators_follow(&file.sqlite_url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_file_passes_conformance_suite() {
        let file = File::reserve("policies.db");
        check_new_database(policies(&file.sqlite_url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_first_appends_have_one_winner() {
        let file = File::reserve("policies.db");
        append_together_without_tables(&file.sqlite_url()).await;
    }

    #[tokio::test]
    async fn versions_survive_a_restart() {
        let file = File::reserve("policies.db");
        let latest = fill(&policies(&file.sqlite_url()), &["one", "two"]).await;
        let again = policies(&file.sqlite_url());
        assert_eq!(again.latest().await.unwrap(), Some(latest));
        let read = again.read(2).await.unwrap().unwrap();
        assert_eq!((&*read.text, read.change.at), ("two", version("").at), "to the nanosecond");
    }

    #[tokio::test]
    async fn read_only_database_reads_and_refuses_appends() {
        let file = File::reserve("policies.db");
        let latest = fill(&policies(&file.sqlite_url()), &["one"]).await;
        let url = file.sqlite_url().expose().replace("mode=rwc", "mode=ro");
        assert!(url.contains("mode=ro"), "{url}");
        let reader = policies(&url.into());
        assert_eq!(reader.latest().await.unwrap(), Some(latest.clone()));
        assert_eq!(reader.read(1).await.unwrap().unwrap().text, "one");
        let error = reader.append(version("two"), Some(&latest)).await.unwrap_err().to_string();
        assert!(error.contains("readonly"), "{error}");
        assert_eq!(reader.latest().await.unwrap(), Some(latest));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writer_holding_lock_blocks_only_appends() {
        let file = File::reserve("policies.db");
        let policies = policies(&file.sqlite_url());
        let latest = fill(&policies, &["one"]).await;
        let other = SqlitePool::connect(file.sqlite_url().expose()).await.unwrap();
        let writing = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        assert_eq!(policies.latest().await.unwrap(), Some(latest.clone()));
        let brief = policies.clone().timeout(Duration::from_millis(300));
        let error = brief.append(version("two"), Some(&latest)).await.unwrap_err();
        assert_eq!(error.to_string(), "the database did not answer within 300ms");
        writing.rollback().await.unwrap();
        let appended = policies.append(version("two"), Some(&latest)).await.unwrap();
        assert_eq!(appended, Appended::Done(PolicyVersionId::new(2, "two")));
    }

    #[tokio::test]
    async fn row_changed_by_hand_is_an_error() {
        let file = File::reserve("policies.db");
        let policies = policies(&file.sqlite_url());
        fill(&policies, &["one", "two"]).await;
        let pool = SqlitePool::connect(file.sqlite_url().expose()).await.unwrap();
        for (change, is_latest_affected, problem) in [
            ("policy = 'three'", false, "its policy does not match its digest"),
            ("policy = 'two', digest = 'x'", true, "its number or digest is malformed"),
            (
                "digest = (SELECT digest FROM auth_trust_policies WHERE number = 1)",
                false,
                "its policy does not match its digest",
            ),
        ] {
            let change = format!("UPDATE auth_trust_policies SET {change} WHERE number = 2");
            sqlx::query(sqlx::AssertSqlSafe(change.clone())).execute(&pool).await.unwrap();
            let error = policies.read(2).await.unwrap_err().to_string();
            assert!(error.contains("version 2 in the table auth_trust_policies"), "{error}");
            assert!(error.contains(problem), "{change}: {error}");
            assert_eq!(policies.latest().await.is_err(), is_latest_affected, "{change}");
            assert_eq!(policies.read(1).await.unwrap().unwrap().text, "one");
        }
        let change = "UPDATE auth_trust_policies SET changed_at = 'yesterday' WHERE number = 1";
        sqlx::query(change).execute(&pool).await.unwrap();
        let error = policies.read(1).await.unwrap_err().to_string();
        assert!(error.contains("version 1") && error.contains("time is malformed"), "{error}");
        let history = policies.history(None, 10).await.unwrap();
        let damaged: Vec<_> =
            history.iter().map(|change| (change.id.number(), change.is_damaged)).collect();
        assert_eq!(damaged, [(2, false), (1, true)]);
    }

    #[tokio::test]
    async fn newer_schema_stays_as_it_is() {
        let file = File::reserve("policies.db");
        let policies = policies(&file.sqlite_url());
        policies.migrate().await.unwrap();
        let pool = SqlitePool::connect(file.sqlite_url().expose()).await.unwrap();
        let newer = "INSERT INTO auth_trust_schema_versions (version) VALUES (2)";
        sqlx::query(newer).execute(&pool).await.unwrap();
        policies.migrate().await.unwrap();
        fill(&policies, &["one"]).await;
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::time::Instant;

    use sqlx::PgPool;

    use super::*;
    use crate::postgres::{Bouncer, Postgres};
    use crate::support::process::{Program, job, ready};

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_passes_conformance_suite() {
        let server = Postgres::start();
        check_new_database(policies(&server.url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn evaluators_follow_postgres() {
        let server = Postgres::start();
        check_evaluators_follow(&server.url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn serializable_pool_passes_conformance_suite() {
        let server = Postgres::start();
        let url = server.url();
        let option = "&options=-c%20default_transaction_isolation%3Dserializable";
        let pool = PgPool::connect(&format!("{}{option}", url.expose())).await.unwrap();
        check_new_database(SqlPolicies::from_postgres(pool).timeout(TIMEOUT)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn store_behind_pgbouncer_passes_conformance_suite() {
        let server = Postgres::start();
        let bouncer = Bouncer::before(&server);
        check_new_database(policies(&bouncer.url())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_first_appends_have_one_winner() {
        let server = Postgres::start();
        append_together_without_tables(&server.url()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn role_needs_only_select_and_insert() {
        let server = Postgres::start();
        let owner = PgPool::connect(server.url().expose()).await.unwrap();
        for statement in ["CREATE ROLE app LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"] {
            sqlx::query(statement).execute(&owner).await.unwrap();
        }
        let app = policies(&server.url().expose().replace("postgres@", "app@").into());
        let error = app.latest().await.unwrap_err().to_string();
        assert!(error.contains("call `migrate` once with a role that is"), "{error}");
        assert!(error.contains("permission denied"), "{error}");

        SqlPolicies::from_postgres(owner.clone()).migrate().await.unwrap();
        for statement in [
            "GRANT SELECT, INSERT ON auth_trust_policies TO app",
            "GRANT SELECT ON auth_trust_schema_versions TO app",
        ] {
            sqlx::query(statement).execute(&owner).await.unwrap();
        }
        app.migrate().await.unwrap();
        let latest = fill(&app, &["one", "two"]).await;
        let conflict = app.append(version("three"), None).await.unwrap();
        assert_eq!(conflict, Appended::Conflict(Some(latest)));
        assert_eq!(app.history(None, 10).await.unwrap().len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn read_only_server_reads_and_refuses_appends() {
        let server = Postgres::start();
        let latest = fill(&policies(&server.url()), &["one"]).await;
        let option = "&options=-c%20default_transaction_read_only%3Don";
        let url = format!("{}{option}", server.url().expose());
        let standby = policies(&url.into());
        assert_eq!(standby.latest().await.unwrap(), Some(latest.clone()));
        let error = standby.append(version("two"), Some(&latest)).await.unwrap_err().to_string();
        assert!(error.contains("read-only transaction"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_server_keeps_versions_and_recovers() {
        let mut server = Postgres::start();
        let policies = policies(&server.url()).timeout(Duration::from_secs(5));
        let latest = fill(&policies, &["one", "two"]).await;
        server.kill();
        for outcome in [
            policies.latest().await.map(drop),
            policies.append(version("three"), Some(&latest)).await.map(drop),
            policies.history(None, 10).await.map(drop),
        ] {
            let error = outcome.unwrap_err();
            assert!(!format!("{error:?} {error}").contains(server.url().expose()), "{error:?}");
        }
        server.restart();
        let since = Instant::now();
        while policies.latest().await.ok() != Some(Some(latest.clone())) {
            assert!(since.elapsed() < Duration::from_secs(120), "did not recover");
        }
        let appended = policies.append(version("three"), Some(&latest)).await.unwrap();
        assert_eq!(appended, Appended::Done(PolicyVersionId::new(3, "three")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn paused_server_times_out_and_recovers() {
        let server = Postgres::start();
        let policies = policies(&server.url());
        let latest = fill(&policies, &["one"]).await;
        server.pause();
        let brief = policies.clone().timeout(Duration::from_millis(300));
        let error = brief.latest().await.unwrap_err().to_string();
        assert_eq!(error, "the database did not answer within 300ms");
        server.resume();
        let since = Instant::now();
        while policies.latest().await.ok() != Some(Some(latest.clone())) {
            assert!(since.elapsed() < Duration::from_secs(120), "did not recover");
        }
    }

    /// Not a test: the work of another process.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "started by the test below"]
    async fn child() {
        let Some(job) = job() else { return };
        let (name, url) = job.split_once(' ').unwrap();
        let policies = policies(&url.into());
        policies.latest().await.unwrap();
        ready().await;
        // Each process appends ten versions, and repeats those that lose.
        let (mut latest, mut done) = (policies.latest().await.unwrap(), 0);
        while done < 10 {
            let version = version(&format!("{name} = {done}"));
            latest = match policies.append(version, latest.as_ref()).await.unwrap() {
                Appended::Done(id) => {
                    done += 1;
                    Some(id)
                }
                Appended::Conflict(found) => found,
            };
        }
        println!("child: done");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_processes_lose_no_version() {
        let server = Postgres::start();
        let mut processes = Vec::new();
        for name in ["a", "b", "c"] {
            let job = format!("{name} {}", server.url().expose());
            processes.push(Program::child("policies::postgres::child", job).await);
        }
        for process in &mut processes {
            process.go().await;
        }
        for process in &mut processes {
            assert_eq!(process.next_message().await, "done");
        }
        let policies = policies(&server.url());
        let mut texts = Vec::new();
        for number in 1..=30 {
            texts.push(policies.read(number).await.unwrap().expect("no gap").text);
        }
        assert_eq!(policies.latest().await.unwrap().unwrap().number(), 30);
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 30, "{texts:?}");
    }
}
