//! Cancelled requests, panicking tasks and stopped runtimes during a fetch: no request waits forever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use scaikey_auth::Auth;
use scaikey_auth::clock::Clock;
use scaikey_auth::config::Algorithm;
use scaikey_auth::issuer::KeyState;
use scaikey_auth::testing::{Fault, ManualClock, Provider, ProviderEndpoint};
use tokio::runtime::Runtime;

use super::fixture::{PAST_TTL, World, provider, service, small_auth, status, token, trust};

/// Longer than any request needs. A test that waits this long hangs visibly.
const FOREVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn cancelled_first_caller_does_not_cancel_fetch() {
    let world = World::with(|mut settings| {
        settings.wait = FOREVER;
        settings
    })
    .await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    let request = || {
        let (auth, token) = (world.auth.clone(), world.token());
        tokio::spawn(async move { status(&auth, &token).await })
    };
    let leader = request();
    world.provider.wait_for_jwks_requests(1).await;
    let follower = request();
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    world.provider.heal(ProviderEndpoint::Jwks);
    assert_eq!(follower.await.unwrap(), 200);
    assert_eq!(world.provider.jwks_requests(), 1);
}

#[tokio::test]
async fn fetch_continues_without_waiters() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    let (auth, token) = (world.auth.clone(), world.token());
    let only = tokio::spawn(async move { status(&auth, &token).await });
    world.provider.wait_for_jwks_requests(1).await;
    only.abort();
    world.provider.heal(ProviderEndpoint::Jwks);
    world.until_state(KeyState::Fresh).await;
    assert_eq!((world.good().await, world.provider.jwks_requests()), (200, 1));
}

/// A clock that panics once in the fetch task.
#[derive(Debug, Clone)]
struct PanickingClock {
    clock: ManualClock,
    armed: Arc<AtomicBool>,
}

impl Clock for PanickingClock {
    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        if tokio::task::try_id().is_some() && self.armed.swap(false, Ordering::SeqCst) {
            panic!("on purpose");
        }
        self.clock.elapsed()
    }
}

#[tokio::test]
async fn panicking_fetch_answers_503_once() {
    let (provider, clock) = provider().await;
    let clock = PanickingClock { clock, armed: Arc::new(AtomicBool::new(true)) };
    let config = trust(&provider);
    let builder = small_auth().issuer(config).audience("scaiwave").clock(clock.clone());
    let auth = builder.build().unwrap();
    assert_eq!(status(&auth, &token(&provider)).await, 503);
    assert!(!clock.armed.load(Ordering::SeqCst), "the fetch panicked");
    assert_eq!(status(&auth, &token(&provider)).await, 200);

    // The same in the background: the set stays in use, and another fetch follows.
    clock.armed.store(true, Ordering::SeqCst);
    clock.clock.advance(PAST_TTL);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    crate::support::until(|| !clock.armed.load(Ordering::SeqCst)).await;
    clock.clock.advance(Duration::from_secs(60));
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    provider.wait_for_jwks_requests(2).await;
}

/// A provider in a separate runtime, which outlives the services' runtimes.
fn separate_provider() -> (Runtime, Provider, ManualClock) {
    let home =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let clock = ManualClock::new();
    let builder = Provider::builder().algorithms([Algorithm::ES256]).clock(clock.clone());
    let provider = home.block_on(builder.start());
    (home, provider, clock)
}

fn patient(provider: &Provider, clock: &ManualClock) -> Auth {
    let mut config = trust(provider);
    config.jwks.wait = FOREVER;
    service([config], clock)
}

#[test]
fn service_survives_runtime_shutdown_during_first_fetch() {
    let (_home, provider, clock) = separate_provider();
    let auth = patient(&provider, &clock);
    let token = token(&provider);
    provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    let first = Runtime::new().unwrap();
    first.block_on(async {
        let (auth, token) = (auth.clone(), token.clone());
        tokio::spawn(async move { status(&auth, &token).await });
        provider.wait_for_jwks_requests(1).await;
    });
    // A request in another runtime waits for the same fetch.
    let (waiting, other) = (auth.clone(), token.clone());
    let second = std::thread::spawn(move || {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async move { status(&waiting, &other).await })
    });
    first.shutdown_timeout(Duration::from_secs(5));
    provider.heal(ProviderEndpoint::Jwks);
    let answer = second.join().unwrap();
    assert!([200, 503].contains(&answer), "{answer}");
    // A runtime ends its tasks in any order. If the connection ends before the fetch, the fetch fails, and
    // the next one follows after one second of back-off.
    clock.advance(Duration::from_secs(1));
    let last = Runtime::new().unwrap().block_on(status(&auth, &token));
    assert_eq!(last, 200, "{:?}", auth.issuers().health());
}

#[test]
fn service_survives_runtime_shutdown_during_refresh() {
    let (_home, provider, clock) = separate_provider();
    let auth = patient(&provider, &clock);
    let token = token(&provider);
    let first = Runtime::new().unwrap();
    first.block_on(auth.ready()).unwrap();
    provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    clock.advance(PAST_TTL);
    first.block_on(async {
        assert_eq!(status(&auth, &token).await, 200);
        provider.wait_for_jwks_requests(2).await;
    });
    first.shutdown_timeout(Duration::from_secs(5));
    provider.heal(ProviderEndpoint::Jwks);
    clock.advance(PAST_TTL);
    Runtime::new().unwrap().block_on(async {
        assert_eq!(status(&auth, &token).await, 200);
        provider.wait_for_jwks_requests(3).await;
        crate::support::until(|| auth.issuers().health()[0].state == KeyState::Fresh).await;
    });
}

#[test]
fn service_works_across_runtimes() {
    let (_home, provider, clock) = separate_provider();
    let auth = patient(&provider, &clock);
    for _ in 0..5 {
        provider.rotate();
        clock.advance(PAST_TTL);
        let token = token(&provider);
        assert_eq!(Runtime::new().unwrap().block_on(status(&auth, &token)), 200);
    }
}

#[test]
fn health_works_after_runtime_end() {
    let auth = Auth::builder().issuer("https://scaikey.example").audience("a").build().unwrap();
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let (send, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _inside = handle.enter();
        send.send(auth.issuers().health()[0].state)
    });
    let state = answer.recv_timeout(Duration::from_secs(120));
    assert_eq!(state, Ok(KeyState::Never), "it must not hang");
}
