//! Revocations in Redis: conformance suite, several processes, faults of the server, and entries of an attacker who
//! can write to Redis.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::Value;
use scaikey_auth::clock::Clock;
use scaikey_auth::exchange::{RedisCache, RedisRevocations};
use scaikey_auth::revocation::{
    Revocation, RevocationLog, Revocations, RevocationsBuilder, RevokeError,
};
use scaikey_auth::testing::conformance::revocation_log;
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::{Auth, Secret};

use crate::support::process::{Program, job, ready};
use crate::support::{Log, Server, Spy, eventually, local_with_all_algorithms, within_timeout};

use super::fixture::{NEW, OLD, keys, redis};
use super::server::Redis;

/// The key of the stream.
const STREAM: &str = "scaikey:-:revocations";

fn log(url: &Secret) -> RedisRevocations {
    RedisRevocations::new(&redis(url), keys(OLD))
}

/// A service with a connection of its own, as in a process of its own.
struct Process {
    auth: Auth,
    server: Server,
}

impl Process {
    async fn new(provider: &Provider, url: &Secret) -> Self {
        Self::with(provider, log(url), |builder| builder).await
    }

    async fn with(
        provider: &Provider,
        log: RedisRevocations,
        set: fn(RevocationsBuilder) -> RevocationsBuilder,
    ) -> Self {
        let revocations = Revocations::builder().check_every(Duration::from_millis(20)).log(log);
        let builder = Auth::builder().issuer(local_with_all_algorithms(&provider.issuer()));
        let builder = builder.audience("scaiwave").revocations(set(revocations).build());
        let auth = builder.build().unwrap();
        // Reads the history. Some tests begin with a server that fails.
        let _ = auth.ready().await;
        let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
        Self { auth, server }
    }

    async fn status(&self, token: &str) -> u16 {
        self.server.get_as("/", token).await.status
    }

    async fn revoke(&self, revocation: Revocation) {
        self.auth.revocations().revoke(revocation).await.unwrap();
    }

    fn entries(&self) -> usize {
        self.auth.revocations().health().entries
    }

    fn is_away(&self) -> bool {
        self.auth.revocations().health().is_away
    }
}

fn session(provider: &Provider, sid: &str) -> (Revocation, String) {
    let token = provider.token().claim("sid", sid).sign();
    (Revocation::session(provider.issuer(), sid), token)
}

/// Returns the ids of the entries, and their sealed values.
fn stream(server: &Redis) -> Vec<(String, Vec<u8>)> {
    let entries: Vec<(String, Vec<Value>)> = server.ask(&["XRANGE", STREAM, "-", "+"]);
    let value = |fields: Vec<Value>| match &fields[1] {
        Value::BulkString(value) => value.clone(),
        other => panic!("{other:?}"),
    };
    entries.into_iter().map(|(id, fields)| (id, value(fields))).collect()
}

fn add(server: &Redis, key: &str, value: &[u8]) {
    let mut link = redis::Client::open(server.url().expose()).unwrap().get_connection().unwrap();
    let mut add = redis::cmd("XADD");
    add.arg(key).arg("*").arg("entry").arg(value).arg("until").arg(u64::MAX);
    let _: String = add.query(&mut link).unwrap();
}

#[tokio::test]
async fn redis_log_passes_the_suite() {
    let server = Redis::start();
    revocation_log(Arc::new(log(&server.url())), SystemTime::now()).await;
    // Again, with entries that are there already.
    revocation_log(Arc::new(log(&server.url())), SystemTime::now()).await;
    let cluster = Redis::cluster();
    let redis = RedisCache::open(&Secret::new(format!("{0},{0}", cluster.url().expose())));
    let redis = redis.unwrap().write_timeout(Duration::from_secs(20));
    revocation_log(Arc::new(RedisRevocations::new(&redis, keys(OLD))), SystemTime::now()).await;
}

#[tokio::test]
async fn event_is_known_in_every_process() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let one = Process::new(&provider, &server.url()).await;
    let other = Process::new(&provider, &server.url()).await;
    let (revocation, token) = session(&provider, "one");
    assert_eq!([one.status(&token).await, other.status(&token).await], [200; 2], "known in both");
    one.revoke(revocation).await;
    assert_eq!(one.status(&token).await, 401);
    eventually(async || other.status(&token).await == 401).await;
    // A process that starts after the event.
    let late = Process::new(&provider, &server.url()).await;
    assert_eq!(late.status(&token).await, 401);
}

#[test]
#[ignore = "started by the test below, as a process of its own"]
fn child() {
    let Some(job) = job() else { return };
    let job: Vec<_> = job.split(' ').collect();
    let [issuer, url, token, sid] = job[..] else { panic!("{job:?}") };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let revocations = Revocations::builder().log(log(&url.into())).build();
        let auth = Auth::builder().issuer(local_with_all_algorithms(issuer)).audience("scaiwave");
        let auth = auth.revocations(revocations).build().unwrap();
        auth.authenticate(token).await.unwrap();
        ready().await;
        eventually(async || auth.authenticate(token).await.is_err()).await;
        let error = auth.authenticate(token).await.unwrap_err();
        auth.revocations().revoke(Revocation::session(issuer, sid)).await.unwrap();
        println!("child: {}", error.reason());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_processes_agree() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let here = Process::new(&provider, &server.url()).await;
    let (revocation, token) = session(&provider, "here");
    let (_, other) = session(&provider, "there");
    assert_eq!([here.status(&token).await, here.status(&other).await], [200; 2]);
    let url = server.url();
    let job = format!("{} {} {token} there", provider.issuer(), url.expose());
    let mut there = Program::child("revocations::child", job).await;
    there.go().await;
    here.revoke(revocation).await;
    assert_eq!(there.next_message().await, "token_revoked");
    eventually(async || here.status(&other).await == 401).await;
}

#[tokio::test]
async fn nothing_readable_reaches_the_server() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let process = Process::new(&provider, &server.url()).await;
    let session = Revocation::session(provider.issuer(), "sid-canary").of_subject("sub-canary");
    process.revoke(session).await;
    for (_, sealed) in stream(&server) {
        let text = String::from_utf8_lossy(&sealed).into_owned();
        assert!(!text.contains("canary") && !text.contains(&provider.issuer()), "{text}");
    }
}

#[tokio::test]
async fn killed_server_is_survived() {
    let (mut server, provider) = (Redis::start(), Provider::start().await);
    let short = |url: &Secret| {
        let redis = redis(url).write_timeout(Duration::from_millis(300));
        RedisRevocations::new(&redis, keys(OLD))
    };
    let one = Process::with(&provider, short(&server.url()), |builder| builder).await;
    let other = Process::with(&provider, short(&server.url()), |builder| builder).await;
    let strict = Process::with(&provider, short(&server.url()), |builder| {
        builder.refuse_after(Duration::from_secs(5))
    });
    let strict = strict.await;
    let (first, token) = session(&provider, "one");
    let (second, later) = session(&provider, "two");
    one.revoke(first).await;
    eventually(async || other.status(&token).await == 401).await;
    eventually(async || strict.status(&later).await == 200).await;
    server.kill();
    eventually(async || other.is_away()).await;
    assert_eq!([other.status(&token).await, other.status(&later).await], [401, 200]);
    eventually(async || strict.status(&later).await == 503).await;
    let error = one.auth.revocations().revoke(second).await.unwrap_err();
    assert!(matches!(error, RevokeError::Log(_)), "{error}");
    assert_eq!(one.status(&later).await, 401, "in force in this process");
    // Without data: both processes know the first revocation, one of them the second.
    server.restart();
    eventually(async || other.status(&later).await == 401).await;
    eventually(async || strict.status(&later).await == 401).await;
    let late = Process::new(&provider, &server.url()).await;
    eventually(async || late.entries() == 2).await;
    assert_eq!([late.status(&token).await, late.status(&later).await], [401; 2]);
}

#[tokio::test]
async fn paused_server_delays_events_only() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let short = redis(&server.url()).write_timeout(Duration::from_millis(300));
    let log = RedisRevocations::new(&short, keys(OLD));
    let one = Process::new(&provider, &server.url()).await;
    let other = Process::with(&provider, log, |builder| builder).await;
    let (revocation, token) = session(&provider, "one");
    assert_eq!([one.status(&token).await, other.status(&token).await], [200; 2]);
    server.pause();
    eventually(async || other.is_away()).await;
    assert_eq!(within_timeout(other.status(&token)).await, 200);
    let auth = one.auth.clone();
    let call = tokio::spawn(async move { auth.revocations().revoke(revocation).await });
    eventually(async || one.status(&token).await == 401).await;
    server.resume();
    within_timeout(call).await.unwrap().unwrap();
    eventually(async || other.status(&token).await == 401 && !other.is_away()).await;
}

#[tokio::test]
async fn emptied_server_is_filled_again() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let one = Process::new(&provider, &server.url()).await;
    let other = Process::new(&provider, &server.url()).await;
    let mut tokens = Vec::new();
    for n in 0..20 {
        let (revocation, token) = session(&provider, &format!("{n}"));
        one.revoke(revocation).await;
        tokens.push(token);
    }
    eventually(async || other.entries() == 20).await;
    for lose in [&["FLUSHALL"][..], &["DEL", STREAM], &["XTRIM", STREAM, "MAXLEN", "0"]] {
        let _: Value = server.ask(lose);
        eventually(async || !stream(&server).is_empty()).await;
        let late = Process::new(&provider, &server.url()).await;
        eventually(async || late.entries() == 20).await;
        for token in &tokens {
            assert_eq!(late.status(token).await, 401);
        }
    }
    // New events continue.
    let (revocation, token) = session(&provider, "after");
    other.revoke(revocation).await;
    eventually(async || one.status(&token).await == 401).await;
}

#[tokio::test]
async fn full_server_refuses_and_recovers() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let one = Process::new(&provider, &server.url()).await;
    let other = Process::new(&provider, &server.url()).await;
    let (first, token) = session(&provider, "one");
    let (second, later) = session(&provider, "two");
    one.revoke(first).await;
    eventually(async || other.status(&token).await == 401).await;
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = one.auth.revocations().revoke(second).await.unwrap_err();
    let RevokeError::Log(cause) = &error else { panic!("{error}") };
    assert!(cause.to_string().contains("OOM"), "{cause}");
    assert_eq!([one.status(&later).await, other.status(&later).await], [401, 200]);
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    // The process appends it by itself.
    eventually(async || other.status(&later).await == 401).await;
}

#[tokio::test]
async fn entries_of_attackers_are_ignored() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let one = Process::new(&provider, &server.url()).await;
    let (revocation, token) = session(&provider, "one");
    one.revoke(revocation).await;
    let valid = stream(&server).swap_remove(0).1;
    // The same under another prefix, and under other keys.
    let elsewhere = RedisRevocations::new(&redis(&server.url()).prefix("other"), keys(OLD));
    let other_keys = RedisRevocations::new(&redis(&server.url()), keys(NEW));
    let issuer = Revocation::issuer(provider.issuer());
    for log in [elsewhere, other_keys] {
        Revocations::builder().log(log).build().revoke(issuer.clone()).await.unwrap();
    }
    let foreign: Vec<(String, Vec<Vec<u8>>)> =
        server.ask(&["XRANGE", "other:-:revocations", "-", "+"]);
    add(&server, STREAM, &foreign[0].1[1]);
    let mut changed = valid.clone();
    *changed.last_mut().unwrap() ^= 1;
    for value in [&b""[..], b"{}", &changed, &valid[..20], &vec![1; 100_000]] {
        add(&server, STREAM, value);
    }
    let _: String = server.ask(&["XADD", STREAM, "*", "another", "field"]);
    // An entry that is repeated, and one after all of these.
    add(&server, STREAM, &valid);
    let (last, after) = session(&provider, "two");
    one.revoke(last).await;
    let logged = Log::start();
    let late = Process::new(&provider, &server.url()).await;
    late.auth.ready().await.unwrap();
    let health = late.auth.revocations().health();
    assert_eq!((health.unreadable, health.entries), (8, 2));
    let (_, unrelated) = session(&provider, "three");
    let statuses = [late.status(&token).await, late.status(&after).await];
    assert_eq!((statuses, late.status(&unrelated).await), ([401; 2], 200));
    let text = logged.text();
    assert!(text.contains("ERROR scaikey_auth: revocation ignored"), "{text}");
    assert!(text.contains("none of the sealing keys of this process"), "{text}");
    assert!(!text.contains(OLD) && !text.contains(NEW));
}

#[tokio::test]
async fn reordered_entries_refuse_the_same() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    let one = Process::new(&provider, &server.url()).await;
    let mut tokens = Vec::new();
    for n in 0..5 {
        let (revocation, token) = session(&provider, &format!("{n}"));
        one.revoke(revocation).await;
        tokens.push(token);
    }
    let entries = stream(&server);
    drop(one);
    let _: u64 = server.ask(&["DEL", STREAM]);
    for (_, value) in entries.iter().rev() {
        add(&server, STREAM, value);
    }
    let late = Process::new(&provider, &server.url()).await;
    for token in &tokens {
        assert_eq!(late.status(token).await, 401);
    }
}

#[tokio::test]
async fn foreign_value_under_key_is_error() {
    let (server, provider) = (Redis::start(), Provider::start().await);
    server.overwrite(STREAM, b"a text");
    let process = Process::new(&provider, &server.url()).await;
    let error = format!("{:?}", process.auth.ready().await.unwrap_err());
    assert!(error.contains(STREAM) && error.contains("is not a stream"), "{error}");
    let (revocation, token) = session(&provider, "one");
    let error = process.auth.revocations().revoke(revocation).await.unwrap_err();
    assert!(matches!(error, RevokeError::Log(_)), "{error}");
    let _: u64 = server.ask(&["DEL", STREAM]);
    eventually(async || !process.is_away()).await;
    eventually(async || !stream(&server).is_empty()).await;
    let late = Process::new(&provider, &server.url()).await;
    assert_eq!(late.status(&token).await, 401);
}

#[tokio::test]
async fn ended_entries_are_removed_by_age() {
    let server = Redis::start();
    let clock = ManualClock::at(SystemTime::now());
    let log = RedisRevocations::new(&redis(&server.url()).clock(clock.clone()), keys(OLD));
    let revocations = Revocations::builder().clock(clock.clone()).log(log.clone()).build();
    let hour = Duration::from_secs(3600);
    let revoke = async |n: usize, hours: u32| {
        let revocation = Revocation::session("https://a", format!("{n}"));
        revocations.revoke(revocation.until(clock.now() + hours * hour)).await.unwrap();
    };
    // Every tenth lives longer.
    for n in 0..100 {
        revoke(n, if n % 10 == 0 { 3 } else { 1 }).await;
    }
    assert_eq!(stream(&server).len(), 100, "never removed because there are many");
    clock.advance(hour + Duration::from_secs(59));
    revoke(100, 3).await;
    assert_eq!(stream(&server).len(), 101, "the clocks of processes differ");
    clock.advance(Duration::from_secs(2));
    for n in 101..120 {
        revoke(n, 3).await;
    }
    assert_eq!(stream(&server).len(), 10 + 1 + 19);
    // The last entry stays, so that a reader does not take its removal for a loss.
    let page = log.read(None, 1000).await.unwrap();
    let (last, entry) = page.entries.into_iter().next_back().unwrap();
    clock.advance(10 * hour);
    log.append(&entry.unwrap()).await.unwrap();
    let page = log.read(Some(&last), 1000).await.unwrap();
    assert_eq!((page.was_reset, page.entries.len()), (false, 1));
}

#[tokio::test]
async fn reader_survives_two_appends_after_a_pause() {
    let server = Redis::start();
    let hour = Duration::from_secs(3600);
    let clock = ManualClock::at(SystemTime::now() - 3 * hour);
    let log = RedisRevocations::new(&redis(&server.url()).clock(clock.clone()), keys(OLD));
    let revocations = Revocations::builder().clock(clock.clone()).log(log.clone()).build();
    let revoke = async |id| {
        let revocation = Revocation::session("https://a", id).until(clock.now() + hour);
        revocations.revoke(revocation).await.unwrap();
    };
    revoke("1").await;
    let page = log.read(None, 10).await.unwrap();
    let (cursor, _) = page.entries.into_iter().next_back().unwrap();
    clock.advance(3 * hour);
    // The reader has seen neither of them when the second removes ended entries.
    for id in ["2", "3"] {
        revoke(id).await;
    }
    let page = log.read(Some(&cursor), 10).await.unwrap();
    assert_eq!((page.was_reset, page.entries.len()), (false, 2));
}

#[tokio::test]
async fn sealing_keys_are_replaced_in_steps() {
    let server = Redis::start();
    let with = |text: &str| RedisRevocations::new(&redis(&server.url()), keys(text));
    let (old_new, new_old) = (format!("{OLD},{NEW}"), format!("{NEW},{OLD}"));
    let read = async |text: &str| {
        let page = with(text).read(None, 100).await.unwrap();
        page.entries.into_iter().filter(|(_, entry)| entry.is_ok()).count()
    };
    for (text, expected) in [(OLD, [1, 1, 0]), (&old_new, [2, 2, 0]), (&new_old, [3, 3, 1])] {
        let revocations = Revocations::builder().log(with(text)).build();
        revocations.revoke(Revocation::subject("https://a", "alice")).await.unwrap();
        let found = [read(&old_new).await, read(&new_old).await, read(NEW).await];
        assert_eq!(found, expected, "{text}");
    }
}
