//! Versions of a trust policy in Redis: conformance suite, concurrent processes, faults of the server, and entries that
//! were changed by an attacker who can write to Redis.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::cmd;
use scaikey_auth::exchange::RedisCache;
use scaikey_auth::testing::conformance::policy_store;
use scaikey_auth::trust::{
    Appended, NewPolicyVersion, PolicyStore, PolicyVersionId, RedisPolicies, SyncError,
    TrustEvaluator,
};

use super::fixture::{NEW, OLD, keys, redis};
use super::server::Redis;
use crate::support::eventually;
use crate::support::process::{Program, job, ready};

/// The list, under the default prefix.
const LIST: &str = "scaikey:-:trust-policy";

fn on(cache: &RedisCache) -> RedisPolicies {
    RedisPolicies::new(cache, keys(OLD))
}

/// Returns a store as in a separate process.
fn policies(server: &Redis) -> RedisPolicies {
    on(&redis(&server.url()))
}

/// Returns a store that does not wait long for a server that fails.
fn brief(server: &Redis) -> RedisPolicies {
    on(&redis(&server.url()).write_timeout(Duration::from_millis(500)))
}

fn version(text: &str) -> NewPolicyVersion {
    NewPolicyVersion::new(text, SystemTime::UNIX_EPOCH + Duration::from_nanos(1_790_000_000_123))
}

/// Appends versions with these texts to an empty store, and returns the id of the last one.
async fn fill(policies: &RedisPolicies, texts: &[&str]) -> PolicyVersionId {
    let mut latest = None;
    for text in texts {
        match policies.append(version(text), latest.as_ref()).await.unwrap() {
            Appended::Done(id) => latest = Some(id),
            Appended::Conflict(found) => panic!("{found:?} is in force"),
        }
    }
    latest.unwrap()
}

fn link(server: &Redis) -> redis::Connection {
    redis::Client::open(server.url().expose()).unwrap().get_connection().unwrap()
}

/// Returns the values of a list.
fn values(server: &Redis, list: &str) -> Vec<Vec<u8>> {
    cmd("LRANGE").arg(list).arg(0).arg(-1).query(&mut link(server)).unwrap()
}

/// Replaces the list, as an attacker who can write to Redis.
fn overwrite(server: &Redis, values: &[Vec<u8>]) {
    let mut link = link(server);
    cmd("DEL").arg(LIST).exec(&mut link).unwrap();
    if !values.is_empty() {
        cmd("RPUSH").arg(LIST).arg(values).exec(&mut link).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_passes_conformance_suite() {
    let server = Redis::with_password("hunter2");
    let cache = redis(&server.url());
    policy_store(Arc::new(on(&cache))).await;
    // Another prefix is another policy.
    let other = on(&cache.prefix("sw{x}"));
    policy_store(Arc::new(other.clone())).await;
    assert_eq!(other.kind(), "redis");
    let shown = format!("{other:?}");
    assert!(shown.contains("sw%7Bx%7D:-:trust-policy") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_passes_conformance_suite() {
    let nodes = Redis::three(false);
    let urls: Vec<_> = nodes.iter().map(|node| node.url().expose().to_owned()).collect();
    policy_store(Arc::new(on(&redis(&urls.join(",").as_str().into())))).await;
    let one = Redis::cluster();
    let urls = format!("{0},{0}", one.url().expose());
    policy_store(Arc::new(on(&redis(&urls.as_str().into())))).await;
}

/// Not a test: the work of another process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test below"]
async fn child() {
    let Some(job) = job() else { return };
    let (name, url) = job.split_once(' ').unwrap();
    let policies = on(&redis(&url.into()));
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
        policies.latest().await.unwrap();
    }
    println!("child: done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_lose_no_version() {
    let server = Redis::start();
    let mut processes = Vec::new();
    for name in ["a", "b", "c"] {
        let job = format!("{name} {}", server.url().expose());
        processes.push(Program::child("policies::child", job).await);
    }
    for process in &mut processes {
        process.go().await;
    }
    for process in &mut processes {
        assert_eq!(process.next_message().await, "done");
    }
    let policies = policies(&server);
    let mut texts = Vec::new();
    for number in 1..=30 {
        texts.push(policies.read(number).await.unwrap().expect("no gap").text);
    }
    assert_eq!(policies.latest().await.unwrap().unwrap().number(), 30);
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 30, "{texts:?}");
}

#[tokio::test]
async fn long_history_is_paged() {
    let server = Redis::start();
    let policies = policies(&server);
    let texts: Vec<String> = (1..=230).map(|number| format!("text {number}")).collect();
    fill(&policies, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (before, limit, first, count) in [
        (None, 100, 230, 100),
        (None, 1000, 230, 230),
        (Some(231), 7, 230, 7),
        (Some(150), 149, 149, 149),
        (Some(102), 500, 101, 101),
        (Some(5000), 1, 230, 1),
    ] {
        let page = policies.history(before, limit).await.unwrap();
        let numbers: Vec<u64> = page.iter().map(|change| change.id.number()).collect();
        let expected: Vec<u64> = (first + 1 - count..=first).rev().collect();
        assert_eq!(numbers, expected, "before {before:?}, limit {limit}");
    }
}

#[tokio::test]
async fn latest_transfers_no_text() {
    let server = Redis::start();
    let policies = policies(&server);
    fill(&policies, &[&"x".repeat(1 << 20)]).await;
    let sent = || {
        let info: String = server.ask(&["INFO", "stats"]);
        let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = sent();
    policies.latest().await.unwrap().unwrap();
    policies.history(None, 10).await.unwrap();
    let transferred = sent() - before;
    assert!(transferred < 100_000, "{transferred} bytes");
}

#[tokio::test]
async fn too_large_version_is_an_error() {
    let server = Redis::start();
    let policies = policies(&server);
    let too_long = "x".repeat((1 << 20) + (64 << 10));
    let error = policies.append(version(&too_long), None).await.unwrap_err().to_string();
    assert!(error.contains("larger than 1 MiB"), "{error}");
    let mut version = version("text");
    version.note = Some("x".repeat(64 << 10));
    let error = policies.append(version, None).await.unwrap_err().to_string();
    assert!(error.contains("note") && error.contains("too long"), "{error}");
    assert_eq!(policies.latest().await.unwrap(), None);
}

#[tokio::test]
async fn stored_versions_are_sealed_without_expiry() {
    let server = Redis::start();
    let policies = policies(&server);
    let mut version = version("# text-canary");
    version.note = Some("note-canary".to_owned());
    policies.append(version, None).await.unwrap();
    let stored = values(&server, LIST).concat();
    assert!(!stored.windows(6).any(|part| part == b"canary"));
    assert_eq!(server.ask::<i64>(&["TTL", LIST]), -1);
    assert_eq!(server.ask::<Vec<String>>(&["KEYS", "*"]), [LIST]);
}

#[tokio::test]
async fn unavailable_server_is_an_error() {
    let mut server = Redis::start();
    let policies = brief(&server);
    let latest = fill(&policies, &["one"]).await;
    let fails = async || {
        let outcomes = [
            policies.latest().await.map(drop),
            policies.read(1).await.map(drop),
            policies.append(version("two"), Some(&latest)).await.map(drop),
            policies.history(None, 10).await.map(drop),
        ];
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    };
    server.pause();
    fails().await;
    server.resume();
    // The append of the paused server may have been written.
    eventually(async || matches!(policies.latest().await, Ok(Some(_)))).await;
    server.kill();
    fails().await;
}

#[tokio::test]
async fn emptied_server_is_not_an_empty_store() {
    let mut server = Redis::start();
    let old = policies(&server);
    let latest = fill(&old, &["one", "two"]).await;
    server.kill();
    server.restart();
    let mut problem = String::new();
    eventually(async || {
        problem = old.latest().await.unwrap_err().to_string();
        problem.contains("went back")
    })
    .await;
    assert!(problem.contains(&format!("from version {latest} to an empty list")), "{problem}");
    let conflict = old.append(version("three"), Some(&latest)).await.unwrap();
    assert_eq!(conflict, Appended::Conflict(None));
    assert!(old.latest().await.is_err(), "a conflict changes nothing");
    // A process that starts now knows no better.
    let new = policies(&server);
    assert_eq!(new.latest().await.unwrap(), None);
    // Whoever expects the list to be empty may begin again.
    let first = fill(&old, &["three"]).await;
    for each in [&old, &new] {
        assert_eq!(each.latest().await.unwrap(), Some(first.clone()));
    }
}

#[tokio::test]
async fn emptied_server_keeps_loaded_policy_in_force() {
    let mut server = Redis::start();
    let process = || TrustEvaluator::builder().store(policies(&server)).build().unwrap();
    let (one, other) = (process(), process());
    one.sync().await.unwrap();
    let id = one.save(version("# one"), None).await.unwrap();
    other.sync().await.unwrap();
    assert_eq!((one.version(), other.version()), (Some(id.clone()), Some(id.clone())));
    server.kill();
    server.restart();
    for process in [&one, &other] {
        let mut outcome = Ok(());
        eventually(async || {
            outcome = process.sync().await;
            matches!(&outcome, Err(SyncError::Store(error)) if error.to_string().contains("went back"))
        })
        .await;
        let current = process.current();
        assert_eq!(process.version(), Some(id.clone()), "{outcome:?}");
        assert!(current.is_store_away() && !current.is_missing());
    }
    // An administrator saves the policy again, as the first version.
    let again = one.save(version("# again"), None).await.unwrap();
    one.sync().await.unwrap();
    assert_eq!((again.number(), one.version()), (1, Some(again)));
    assert!(other.sync().await.is_err(), "until the process is restarted");
}

#[tokio::test]
async fn older_copy_of_list_is_an_error() {
    let server = Redis::start();
    let process = policies(&server);
    fill(&process, &["one", "two"]).await;
    let copy = values(&server, LIST);
    let two = process.latest().await.unwrap().unwrap();
    let append = async |policies: &RedisPolicies, text: &str, expected| {
        policies.append(version(text), Some(expected)).await.unwrap()
    };
    let Appended::Done(three) = append(&process, "three", &two).await else { panic!() };
    let newest = values(&server, LIST);
    overwrite(&server, &copy);
    let error = process.latest().await.unwrap_err().to_string();
    assert!(error.contains(&format!("from version {three} to version {two}")), "{error}");
    // Another version with the same number.
    let Appended::Done(other) = append(&policies(&server), "other", &two).await else { panic!() };
    let error = process.latest().await.unwrap_err().to_string();
    assert!(error.contains(&format!("from version {three} to version {other}")), "{error}");
    overwrite(&server, &newest);
    assert_eq!(process.latest().await.unwrap(), Some(three));
    // An append that expects the older version accepts it.
    overwrite(&server, &copy);
    assert!(process.latest().await.is_err());
    let appended = append(&process, "four", &two).await;
    let four = PolicyVersionId::new(3, "four");
    assert_eq!(appended, Appended::Done(four.clone()));
    assert_eq!(process.latest().await.unwrap(), Some(four));
}

#[tokio::test]
async fn full_or_read_only_server_refuses_versions() {
    let full = (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "OOM");
    let replica = (["REPLICAOF", "127.0.0.1", "1", ""], ["REPLICAOF", "NO", "ONE", ""], "READONLY");
    for (breaks, mends, code) in [full, replica] {
        let server = Redis::start();
        let configure = |command: [&'static str; 4]| {
            let words: Vec<_> = command.into_iter().filter(|word| !word.is_empty()).collect();
            let _: () = server.ask(&words);
        };
        let policies = policies(&server);
        let latest = fill(&policies, &["one"]).await;
        configure(breaks);
        assert_eq!(policies.latest().await.unwrap(), Some(latest.clone()), "can be read");
        let error = policies.append(version("two"), Some(&latest)).await.unwrap_err().to_string();
        assert!(error.contains(code), "{error}");
        assert_eq!(values(&server, LIST).len(), 2, "nothing was written");
        configure(mends);
        let mut appended = None;
        eventually(async || {
            appended = policies.append(version("two"), Some(&latest)).await.ok();
            appended.is_some()
        })
        .await;
        assert_eq!(appended, Some(Appended::Done(PolicyVersionId::new(2, "two"))));
    }
}

/// The name of a change to the values of the list, and the change.
type Change = (&'static str, fn(&mut Vec<Vec<u8>>, &[Vec<u8>]));

#[tokio::test]
async fn changed_entries_are_errors() {
    let server = Redis::start();
    fill(&policies(&server), &["one", "two", "three"]).await;
    // Another prefix with the same versions.
    let other = on(&redis(&server.url()).prefix("other"));
    fill(&other, &["one", "two", "three"]).await;
    let foreign = values(&server, "other:-:trust-policy");
    let original = values(&server, LIST);
    assert_eq!(original.len(), 6);
    let changes: [Change; 13] = [
        ("changed head", |list, _| list[5][40] ^= 1),
        ("changed text", |list, _| list[4][30] ^= 1),
        ("truncated head", |list, _| list[5].truncate(30)),
        ("truncated text", |list, _| list[4].truncate(30)),
        ("empty head", |list, _| list[5].clear()),
        ("head as text", |list, _| list[4] = list[5].clone()),
        ("huge head", |list, _| list[5] = vec![1; 100_000]),
        ("huge text", |list, _| list[4] = vec![1; 3 << 20]),
        ("swapped versions", |list, _| list.rotate_left(2)),
        ("text of another version", |list, _| list[4] = list[2].clone()),
        ("version of another prefix", |list, other| list[4..].clone_from_slice(&other[4..])),
        ("replayed version", |list, _| list.extend_from_within(4..)),
        ("removed version", |list, _| list.drain(..2).for_each(drop)),
    ];
    for (name, change) in changes {
        let mut list = original.clone();
        change(&mut list, &foreign);
        overwrite(&server, &list);
        let policies = policies(&server);
        let last = (list.len() / 2) as u64;
        let error = policies.read(last).await.unwrap_err().to_string();
        assert!(error.contains(&format!("version {last} of the trust policy")), "{name}: {error}");
        assert!(error.contains("was changed"), "{name}: {error}");
        if !name.ends_with("text") && !name.starts_with("text") {
            policies.latest().await.expect_err(name);
            let history = policies.history(None, 10).await.unwrap();
            assert!(history[0].is_damaged && history[0].id.number() == last, "{name}");
            let others = history[1..].iter().any(|change| !change.is_damaged);
            assert_eq!(others, !["swapped versions", "removed version"].contains(&name), "{name}");
            policies.append(version("four"), None).await.expect_err(name);
        }
        assert_eq!(values(&server, LIST), list, "nothing is written");
    }
    for (name, list) in [
        ("half of an entry", original[1..].to_vec()),
        ("an additional value", [&original[..], &[b"garbage".to_vec()]].concat()),
    ] {
        overwrite(&server, &list);
        let error = policies(&server).latest().await.unwrap_err().to_string();
        assert!(error.contains("half of an entry is missing"), "{name}: {error}");
    }
    overwrite(&server, &[]);
    server.overwrite(LIST, b"a text");
    for outcome in [
        policies(&server).latest().await.map(drop),
        policies(&server).read(1).await.map(drop),
        policies(&server).append(version("one"), None).await.map(drop),
    ] {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(LIST) && error.contains("is not a list"), "{error}");
    }
    overwrite(&server, &original);
    assert_eq!(policies(&server).read(3).await.unwrap().unwrap().text, "three");
}

#[tokio::test]
async fn wrong_sealing_key_is_named() {
    let server = Redis::start();
    let latest = fill(&policies(&server), &["one"]).await;
    let cache = redis(&server.url());
    let other = RedisPolicies::new(&cache, keys(NEW));
    let id = format!("{:?}", keys(OLD));
    for outcome in [
        other.latest().await.map(drop),
        other.read(1).await.map(drop),
        other.history(None, 1).await.map(drop),
        other.append(version("two"), None).await.map(drop),
        other.append(version("two"), Some(&latest)).await.map(drop),
        other.reseal().await,
    ] {
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("version 1 of the trust policy"), "{error}");
        let (has_sealed_key, has_own_keys) = (
            error.contains(id.trim_matches(['[', ']', '"'])),
            error.contains(&format!("{:?}", keys(NEW))),
        );
        assert!(has_sealed_key && has_own_keys, "{error}");
        assert!(!error.contains(OLD) && !error.contains(NEW), "{error}");
    }
}

#[tokio::test]
async fn sealing_key_is_replaced_in_steps() {
    let server = Redis::start();
    let cache = redis(&server.url());
    let with = |text: &str| RedisPolicies::new(&cache, keys(text));
    fill(&with(OLD), &["one", "two"]).await;
    let (old_new, new_old) = (with(&format!("{OLD},{NEW}")), with(&format!("{NEW},{OLD}")));
    let two = old_new.latest().await.unwrap().unwrap();
    let appended = new_old.append(version("three"), Some(&two)).await.unwrap();
    assert_eq!(old_new.latest().await.unwrap(), Some(PolicyVersionId::new(3, "three")));
    assert!(matches!(appended, Appended::Done(_)));
    assert!(with(NEW).read(1).await.is_err(), "still under the old key");
    new_old.reseal().await.unwrap();
    let after = with(NEW);
    assert_eq!(after.history(None, 10).await.unwrap().len(), 3);
    for (number, text) in (1..).zip(["one", "two", "three"]) {
        assert_eq!(after.read(number).await.unwrap().unwrap().text, text);
    }
    assert!(with(OLD).latest().await.is_err());
}
