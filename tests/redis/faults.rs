//! A server that is down, hangs, is full, or holds garbage: nobody is failed, and it is told once.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scaikey_auth::exchange::{CacheStatus, MemoryCache, TieredCache};
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::{TokenCache, TokenExchangeClient};

use super::fixture::{builder, client, fresh, layered, provider, redis, told};
use super::server::Redis;
use crate::support::Log;
use crate::support::{MetricsRecorder, eventually};

/// What is watched while a server fails.
struct Watch {
    log: Log,
    counts: MetricsRecorder,
    _counting: metrics::LocalRecorderGuard<'static>,
}

impl Watch {
    fn begin() -> Self {
        let counts = MetricsRecorder::default();
        let recorder: &'static MetricsRecorder = Box::leak(Box::new(counts.clone()));
        let counting = metrics::set_default_local_recorder(recorder);
        Self { log: Log::start(), counts, _counting: counting }
    }

    /// How often it was said that the cache fails, and that it answers again.
    fn said(&self) -> (usize, usize) {
        let text = self.log.text();
        let said = |what: &str| text.matches(what).count();
        (said("token cache fails"), said("token cache answers again"))
    }

    fn failures(&self, reason: &str) -> u64 {
        match cfg!(feature = "metrics") {
            true => self.counts.of(&["token_cache_failures", reason]),
            false => 1,
        }
    }
}

/// Every caller gets a token, from the provider.
async fn goes_on(client: &TokenExchangeClient, provider: &Provider) {
    for _ in 0..5 {
        let before = provider.token_requests();
        let token = client.exchange(&fresh(provider)).await.unwrap();
        assert_eq!(token.cache_status(), CacheStatus::Miss);
        assert_eq!(provider.token_requests() - before, 1);
    }
}

/// Sooner or later tokens are shared again.
async fn recovers(
    client: &TokenExchangeClient,
    provider: &Provider,
    server: &Redis,
    clock: &ManualClock,
) {
    eventually(async || {
        clock.advance(Duration::from_secs(6));
        let request = fresh(provider);
        let got = client.exchange(&request).await.unwrap();
        let other = super::fixture::client(provider, redis(&server.url()));
        other.exchange(&request).await.unwrap().secret() == got.secret()
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_down_from_the_start_is_gone_on_without_and_found_when_it_comes() {
    for is_layered in [true, false] {
        let (watch, provider, mut server) = (Watch::begin(), provider().await, Redis::later());
        let clock = ManualClock::new();
        let far = redis(&server.url()).clock(clock.clone());
        let client = match is_layered {
            true => client(&provider, TieredCache::new(MemoryCache::default(), far)),
            false => client(&provider, far),
        };
        goes_on(&client, &provider).await;
        assert_eq!(watch.said(), (1, 0));
        assert!(watch.failures("unavailable") > 0);
        server.restart();
        recovers(&client, &provider, &server, &clock).await;
        assert_eq!(watch.said(), (1, 1));
    }
}

#[tokio::test]
async fn a_server_that_is_killed_midway_is_gone_on_without_and_comes_back_empty() {
    let (watch, provider, mut server) = (Watch::begin(), provider().await, Redis::start());
    let clock = ManualClock::new();
    let far = redis(&server.url()).clock(clock.clone());
    let client = client(&provider, TieredCache::new(MemoryCache::default(), far));
    let request = fresh(&provider);
    let kept = client.exchange(&request).await.unwrap();
    assert_eq!(watch.said(), (0, 0));
    server.kill();
    goes_on(&client, &provider).await;
    assert_eq!(watch.said(), (1, 0));
    // What is in memory is served meanwhile.
    assert_eq!(client.exchange(&request).await.unwrap().secret(), kept.secret());
    server.restart();
    recovers(&client, &provider, &server, &clock).await;
    assert_eq!(watch.said(), (1, 1));
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_budget_and_then_nothing() {
    let (watch, provider, server) = (Watch::begin(), provider().await, Redis::start());
    let clock = ManualClock::new();
    let cache = redis(&server.url()).clock(clock.clone());
    cache.connect().await.unwrap();
    let cache = cache.budget(Duration::from_secs(2)).write_timeout(Duration::from_secs(2));
    cache.connect().await.unwrap();
    let (cache, told) = told(cache);
    let client = client(&provider, cache);
    server.pause();
    for _ in 0..4 {
        goes_on(&client, &provider).await;
        // A trial, behind everybody's back.
        clock.advance(Duration::from_secs(6));
    }
    let told = told.lock().unwrap().clone();
    let waited = told.iter().filter(|told| !told.contains("backoff")).collect::<Vec<_>>();
    assert_eq!(waited, ["Redis did not answer in time"]);
    assert_eq!(watch.said(), (1, 0));
    server.resume();
    recovers(&client, &provider, &server, &clock).await;
    assert_eq!(watch.said(), (1, 1));
}

#[tokio::test]
async fn a_dead_server_is_asked_once_for_each_rest_however_many_call() {
    // It takes connections and ends them, so that each attempt is seen.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let attempts = Arc::new(AtomicUsize::new(0));
    let seen = attempts.clone();
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (provider, clock) = (provider().await, ManualClock::new());
    let client = client(&provider, redis(&url.as_str().into()).clock(clock.clone()));
    for trial in 1..=4 {
        for _ in 0..20 {
            client.exchange(&fresh(&provider)).await.unwrap();
        }
        eventually(async || attempts.load(Ordering::SeqCst) == trial).await;
        for _ in 0..20 {
            client.exchange(&fresh(&provider)).await.unwrap();
        }
        assert_eq!(attempts.load(Ordering::SeqCst), trial);
        clock.advance(Duration::from_secs(6));
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_gone_on_without_until_it_does() {
    let full = (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]);
    let replica = (["REPLICAOF", "127.0.0.1", "1", ""], ["REPLICAOF", "NO", "ONE", ""]);
    for (breaks, mends) in [full, replica] {
        let (watch, provider, server) = (Watch::begin(), provider().await, Redis::start());
        let given = |command: [&'static str; 4]| {
            let words: Vec<_> = command.into_iter().filter(|word| !word.is_empty()).collect();
            let _: () = server.ask(&words);
        };
        let clock = ManualClock::new();
        let client = client(&provider, redis(&server.url()).clock(clock.clone()));
        let kept = fresh(&provider);
        client.exchange(&kept).await.unwrap();
        given(breaks);
        // Several trials: none of them is a recovery, although what was kept could still be read.
        // The pauses are for trials to end between two calls.
        for _ in 0..10 {
            clock.advance(Duration::from_secs(6));
            client.exchange(&fresh(&provider)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            client.exchange(&kept).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(watch.said(), (1, 0), "{}", watch.log.text());
        given(mends);
        recovers(&client, &provider, &server, &clock).await;
        assert_eq!(watch.said(), (1, 1));
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_printed() {
    let (watch, provider, server) =
        (Watch::begin(), provider().await, Redis::with_password("hunter2"));
    let wrong = server.url().expose().replace("hunter2", "guessed-canary");
    let client = client(&provider, layered(&wrong.as_str().into()));
    goes_on(&client, &provider).await;
    assert_eq!(watch.said(), (1, 0));
    let text = watch.log.text();
    assert!(!text.contains("canary") && !text.contains("hunter2"), "{text}");
    assert!(text.contains("authentication failed"), "{text}");
}

/// How a value is spoilt, and what that is called.
type Change<'c> = (&'c str, &'c dyn Fn(&str, &[u8]));

#[tokio::test]
async fn garbage_is_a_miss_that_is_counted_and_replaced() {
    let (watch, provider, server) = (Watch::begin(), provider().await, Redis::start());
    // A lock that is no lock of ours is not waited for: that would take a minute.
    let timeout = Duration::from_secs(60);
    let with = || {
        let builder = builder(&provider.issuer()).cache(redis(&server.url()));
        builder.timeout(timeout).build().unwrap()
    };
    let request = fresh(&provider);
    let huge = vec![7; 1 << 20];
    let changes: [Change<'_>; 7] = [
        ("garbage", &|name, _| server.overwrite(name, b"garbage")),
        ("half of it", &|name, value| server.overwrite(name, &value[..value.len() / 2])),
        ("too much", &|name, _| server.overwrite(name, &huge)),
        ("another's", &|name, _| server.overwrite(name, &sealed_for_another(&server, name))),
        ("a list", &|name, _| {
            let _: () = server.ask(&["DEL", name]);
            let _: () = server.ask(&["LPUSH", name, "garbage"]);
        }),
        ("a lock that nobody gives back", &|name, _| {
            let _: () = server.ask(&["DEL", name]);
            server.overwrite(&format!("{name}:lock"), b"garbage");
        }),
        ("a lock that is a list", &|name, _| {
            let _: () = server.ask(&["DEL", name]);
            let _: () = server.ask(&["LPUSH", &format!("{name}:lock"), "garbage"]);
        }),
    ];
    let mut last = with().exchange(&request).await.unwrap();
    let name = server.tokens().remove(0);
    with().exchange(&fresh(&provider)).await.unwrap();
    for (what, change) in changes {
        let (_, value) = server.stored().into_iter().find(|(it, _)| *it == name).unwrap();
        change(&name, &value);
        let begun = Instant::now();
        let next = with().exchange(&request).await.unwrap();
        assert_ne!(next.secret(), last.secret(), "{what}");
        assert!(begun.elapsed() < timeout, "{what}: {:?}", begun.elapsed());
        let found = with().exchange(&request).await.unwrap();
        assert_eq!(found.secret(), next.secret(), "{what}: it was not replaced");
        last = next;
    }
    assert!(watch.failures("garbage") > 0);
    assert_eq!(watch.said(), (0, 0), "{}", watch.log.text());
}

/// What is filed under another name.
fn sealed_for_another(server: &Redis, name: &str) -> Vec<u8> {
    let mut stored = server.stored().into_iter();
    stored.find(|(other, _)| other != name && !other.ends_with(":lock")).unwrap().1
}

#[tokio::test]
async fn much_garbage_is_told_once() {
    let (watch, provider, server) = (Watch::begin(), provider().await, Redis::start());
    let one = client(&provider, redis(&server.url()));
    let requests: Vec<_> = (0..5).map(|_| fresh(&provider)).collect();
    for request in &requests {
        one.exchange(request).await.unwrap();
    }
    for name in server.tokens() {
        server.overwrite(&name, b"garbage");
    }
    for request in &requests {
        one.exchange(request).await.unwrap();
    }
    assert_eq!(watch.log.text().matches("does not open").count(), 1);
    if cfg!(feature = "metrics") {
        assert_eq!(watch.failures("garbage"), 5);
    }
    for client in [&one, &client(&provider, layered(&server.url()))] {
        for request in &requests {
            assert_eq!(client.exchange(request).await.unwrap().cache_status(), CacheStatus::Hit);
        }
    }
    // It was well meanwhile, so this is news.
    server.overwrite(&server.tokens()[0], b"garbage");
    for request in &requests {
        one.exchange(request).await.unwrap();
    }
    assert_eq!(watch.log.text().matches("does not open").count(), 2);
}

#[tokio::test]
async fn one_call_waits_for_a_server_that_never_answers_and_none_after_it() {
    // It takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let attempts = Arc::new(AtomicUsize::new(0));
    let seen = attempts.clone();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for connection in listener.incoming() {
            held.push(connection);
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (provider, clock) = (provider().await, ManualClock::new());
    let cache = redis(&url.as_str().into()).write_timeout(Duration::from_millis(200));
    let (cache, told) = told(cache.clock(clock.clone()));
    let client = client(&provider, cache);
    for _ in 0..60 {
        client.exchange(&fresh(&provider)).await.unwrap();
    }
    // It is tried again, behind everybody's back.
    eventually(async || {
        clock.advance(Duration::from_secs(6));
        client.exchange(&fresh(&provider)).await.unwrap();
        attempts.load(Ordering::SeqCst) >= 3
    })
    .await;
    let told = told.lock().unwrap();
    let waited = told.iter().filter(|told| !told.contains("backoff")).collect::<Vec<_>>();
    assert_eq!(waited, ["Redis did not answer in time"]);
    assert!(told.len() >= 180, "{} calls", told.len());
}

#[tokio::test]
async fn a_server_of_something_else_is_gone_on_without() {
    let provider = provider().await;
    let url = provider.url().replace("http://", "redis://");
    let client = client(&provider, layered(&url.as_str().into()));
    goes_on(&client, &provider).await;
}

#[tokio::test]
async fn a_cache_that_is_away_says_so_to_whoever_asks_it_directly() {
    let cache = redis(&"redis://127.0.0.1:1".into());
    assert!(cache.is_shared());
    assert!(format!("{cache:?}").contains("is_connected: false"));
}
