//! A server that is down, hangs, is full, or has invalid entries: exchanges work, and it is logged once.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scaikey_auth::exchange::{CacheStatus, MemoryCache, RedisCache, TieredCache};
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::{TokenCache, TokenExchangeClient};

use super::fixture::{builder, client, fresh, layered, provider, record_results, redis};
use super::server::Redis;
use crate::support::Log;
use crate::support::files::File;
use crate::support::{MetricsRecorder, eventually};

/// The log and the metrics during a test.
struct Signals {
    log: Log,
    counts: MetricsRecorder,
    _counting: metrics::LocalRecorderGuard<'static>,
}

impl Signals {
    fn record() -> Self {
        let counts = MetricsRecorder::default();
        let recorder: &'static MetricsRecorder = Box::leak(Box::new(counts.clone()));
        let counting = metrics::set_default_local_recorder(recorder);
        Self { log: Log::start(), counts, _counting: counting }
    }

    /// Returns how often the log says that the cache fails, and that it recovered.
    fn logged(&self) -> (usize, usize) {
        let text = self.log.text();
        let count = |message: &str| text.matches(message).count();
        (count("token cache failed"), count("token cache answers again"))
    }

    fn failures(&self, reason: &str) -> u64 {
        match cfg!(feature = "metrics") {
            true => self.counts.sum_of(&["token_cache_failures", reason]),
            false => 1,
        }
    }
}

/// Asserts that callers get tokens from the provider.
async fn assert_works_without_cache(client: &TokenExchangeClient, provider: &Provider) {
    for _ in 0..5 {
        let before = provider.token_requests();
        let token = client.exchange(&fresh(provider)).await.unwrap();
        assert_eq!(token.cache_status(), CacheStatus::Miss);
        assert_eq!(provider.token_requests() - before, 1);
    }
}

/// Waits until processes share tokens again.
async fn wait_for_recovery(
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
async fn exchange_works_without_server_until_it_starts() {
    for is_layered in [true, false] {
        let (signals, provider, mut server) = (Signals::record(), provider().await, Redis::later());
        let clock = ManualClock::new();
        let far = redis(&server.url()).clock(clock.clone());
        let client = match is_layered {
            true => client(&provider, TieredCache::new(MemoryCache::default(), far)),
            false => client(&provider, far),
        };
        assert_works_without_cache(&client, &provider).await;
        assert_eq!(signals.logged(), (1, 0));
        assert!(signals.failures("unavailable") > 0);
        server.restart();
        wait_for_recovery(&client, &provider, &server, &clock).await;
        assert_eq!(signals.logged(), (1, 1));
    }
}

#[tokio::test]
async fn exchange_works_while_server_restarts() {
    let (signals, provider, mut server) = (Signals::record(), provider().await, Redis::start());
    let clock = ManualClock::new();
    let far = redis(&server.url()).clock(clock.clone());
    let client = client(&provider, TieredCache::new(MemoryCache::default(), far));
    let request = fresh(&provider);
    let kept = client.exchange(&request).await.unwrap();
    assert_eq!(signals.logged(), (0, 0));
    server.kill();
    assert_works_without_cache(&client, &provider).await;
    assert_eq!(signals.logged(), (1, 0));
    // Tokens in memory are still returned.
    assert_eq!(client.exchange(&request).await.unwrap().secret(), kept.secret());
    server.restart();
    wait_for_recovery(&client, &provider, &server, &clock).await;
    assert_eq!(signals.logged(), (1, 1));
}

#[tokio::test]
async fn hanging_server_delays_only_the_first_calls() {
    let (signals, provider, server) = (Signals::record(), provider().await, Redis::start());
    let clock = ManualClock::new();
    let cache = redis(&server.url()).clock(clock.clone());
    cache.connect().await.unwrap();
    let cache = cache.budget(Duration::from_secs(2)).write_timeout(Duration::from_secs(2));
    cache.connect().await.unwrap();
    let (cache, results) = record_results(cache);
    let client = client(&provider, cache);
    server.pause();
    for _ in 0..4 {
        assert_works_without_cache(&client, &provider).await;
        // A probe runs in the background.
        clock.advance(Duration::from_secs(6));
    }
    let results = results.lock().unwrap().clone();
    let waited = results.iter().filter(|it| !it.contains("backoff")).collect::<Vec<_>>();
    assert_eq!(waited, ["Redis did not answer in time"]);
    assert_eq!(signals.logged(), (1, 0));
    server.resume();
    wait_for_recovery(&client, &provider, &server, &clock).await;
    assert_eq!(signals.logged(), (1, 1));
}

#[tokio::test]
async fn dead_server_gets_one_attempt_per_backoff() {
    // The listener accepts and closes connections, and counts them.
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
    for attempt in 1..=4 {
        for _ in 0..20 {
            client.exchange(&fresh(&provider)).await.unwrap();
        }
        eventually(async || attempts.load(Ordering::SeqCst) == attempt).await;
        for _ in 0..20 {
            client.exchange(&fresh(&provider)).await.unwrap();
        }
        assert_eq!(attempts.load(Ordering::SeqCst), attempt);
        clock.advance(Duration::from_secs(6));
    }
}

#[tokio::test]
async fn read_only_server_counts_as_unavailable() {
    let full = (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]);
    let replica = (["REPLICAOF", "127.0.0.1", "1", ""], ["REPLICAOF", "NO", "ONE", ""]);
    for (breaks, mends) in [full, replica] {
        let (signals, provider, server) = (Signals::record(), provider().await, Redis::start());
        let configure = |command: [&'static str; 4]| {
            let words: Vec<_> = command.into_iter().filter(|word| !word.is_empty()).collect();
            let _: () = server.ask(&words);
        };
        let clock = ManualClock::new();
        let client = client(&provider, redis(&server.url()).clock(clock.clone()));
        let kept = fresh(&provider);
        client.exchange(&kept).await.unwrap();
        configure(breaks);
        // Several probes fail, although the cached token can still be read.
        // The pauses let a probe end between two calls.
        for _ in 0..10 {
            clock.advance(Duration::from_secs(6));
            client.exchange(&fresh(&provider)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            client.exchange(&kept).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(signals.logged(), (1, 0), "{}", signals.log.text());
        configure(mends);
        wait_for_recovery(&client, &provider, &server, &clock).await;
        assert_eq!(signals.logged(), (1, 1));
    }
}

#[tokio::test]
async fn wrong_password_is_logged_without_the_password() {
    let (signals, provider, server) =
        (Signals::record(), provider().await, Redis::with_password("hunter2"));
    let wrong = server.url().expose().replace("hunter2", "guessed-canary");
    let client = client(&provider, layered(&wrong.as_str().into()));
    assert_works_without_cache(&client, &provider).await;
    assert_eq!(signals.logged(), (1, 0));
    let text = signals.log.text();
    assert!(!text.contains("canary") && !text.contains("hunter2"), "{text}");
    assert!(text.contains("authentication failed"), "{text}");
}

/// The name of a change, and the function that applies it to a key.
type Change<'c> = (&'c str, &'c dyn Fn(&str, &[u8]));

#[tokio::test]
async fn replaced_url_file_is_read_when_connecting() {
    let server = Redis::with_password("hunter2");
    let right = server.url().expose().to_owned();
    let file = File::new("redis-url", &right.replace("hunter2", "old"));
    let cache = RedisCache::open_file(file.path()).unwrap();
    cache.connect().await.unwrap_err();
    file.write("nonsense");
    cache.connect().await.unwrap_err();
    file.write(&format!("{right}\n"));
    cache.connect().await.unwrap();
    let error = RedisCache::open_file("/nowhere/url").unwrap_err().to_string();
    assert!(error.contains("redis_url_file names a file") && error.contains("/nowhere/url"));
}

#[tokio::test]
async fn invalid_entry_is_counted_and_replaced() {
    let (signals, provider, server) = (Signals::record(), provider().await, Redis::start());
    // The client must not wait a minute for an invalid lock.
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
        ("another's", &|name, _| server.overwrite(name, &value_of_another_key(&server, name))),
        ("a list", &|name, _| {
            let _: () = server.ask(&["DEL", name]);
            let _: () = server.ask(&["LPUSH", name, "garbage"]);
        }),
        ("a lock without an expiry", &|name, _| {
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
    for (change_name, change) in changes {
        let (_, value) = server.stored().into_iter().find(|(it, _)| *it == name).unwrap();
        change(&name, &value);
        let start = Instant::now();
        let next = with().exchange(&request).await.unwrap();
        assert_ne!(next.secret(), last.secret(), "{change_name}");
        assert!(start.elapsed() < timeout, "{change_name}: {:?}", start.elapsed());
        let found = with().exchange(&request).await.unwrap();
        assert_eq!(found.secret(), next.secret(), "{change_name}: the entry was not replaced");
        last = next;
    }
    assert!(signals.failures("invalid_entry") > 0);
    assert_eq!(signals.logged(), (0, 0), "{}", signals.log.text());
}

/// Returns the value of another key.
fn value_of_another_key(server: &Redis, name: &str) -> Vec<u8> {
    let mut stored = server.stored().into_iter();
    stored.find(|(other, _)| other != name && !other.ends_with(":lock")).unwrap().1
}

#[tokio::test]
async fn invalid_entries_are_logged_once() {
    let (signals, provider, server) = (Signals::record(), provider().await, Redis::start());
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
    assert_eq!(signals.log.text().matches("cannot be read").count(), 1);
    if cfg!(feature = "metrics") {
        assert_eq!(signals.failures("invalid_entry"), 5);
    }
    for client in [&one, &client(&provider, layered(&server.url()))] {
        for request in &requests {
            assert_eq!(client.exchange(request).await.unwrap().cache_status(), CacheStatus::Hit);
        }
    }
    // Valid entries were read in between, so this is logged again.
    server.overwrite(&server.tokens()[0], b"garbage");
    for request in &requests {
        one.exchange(request).await.unwrap();
    }
    assert_eq!(signals.log.text().matches("cannot be read").count(), 2);
}

#[tokio::test]
async fn only_one_call_waits_for_hanging_server() {
    // The listener accepts connections and never answers.
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
    let (cache, results) = record_results(cache.clock(clock.clone()));
    let client = client(&provider, cache);
    for _ in 0..60 {
        client.exchange(&fresh(&provider)).await.unwrap();
    }
    // Connecting is retried in the background.
    eventually(async || {
        clock.advance(Duration::from_secs(6));
        client.exchange(&fresh(&provider)).await.unwrap();
        attempts.load(Ordering::SeqCst) >= 3
    })
    .await;
    let results = results.lock().unwrap();
    let waited = results.iter().filter(|it| !it.contains("backoff")).collect::<Vec<_>>();
    assert_eq!(waited, ["Redis did not answer in time"]);
    assert!(results.len() >= 180, "{} calls", results.len());
}

#[tokio::test]
async fn exchange_works_when_server_is_not_redis() {
    let provider = provider().await;
    let url = provider.url().replace("http://", "redis://");
    let client = client(&provider, layered(&url.as_str().into()));
    assert_works_without_cache(&client, &provider).await;
}

#[tokio::test]
async fn debug_output_shows_missing_connection() {
    let cache = redis(&"redis://127.0.0.1:1".into());
    assert!(cache.is_shared());
    assert!(format!("{cache:?}").contains("is_connected: false"));
}
