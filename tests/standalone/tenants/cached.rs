//! `CachedTenants`: cached answers, their times to live, and outages of the store.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::tenant::CachedTenants;
use scaikey_auth::tenant::TenantStatus::{Active, Suspended};
use scaikey_auth::{Tenant, TenantId, TenantResolver};
use tokio::task::JoinSet;

use crate::support::tenants::{Store, StoreMode, id, status, tenant};
use crate::support::until;
use scaikey_auth::testing::ManualClock;

/// Longer than the default time to live of 60 s with 10 % jitter.
const PAST_TIME_TO_LIVE: Duration = Duration::from_secs(67);
/// Longer than the default `max_stale` of 10 min.
const PAST_STALENESS: Duration = Duration::from_secs(601);
/// Longer than any back-off.
const PAST_BACKOFF: Duration = Duration::from_secs(6);

fn cached(store: &Store) -> (CachedTenants<Store>, ManualClock) {
    let clock = ManualClock::new();
    (CachedTenants::new(store.clone()).clock(clock.clone()), clock)
}

#[tokio::test]
async fn known_tenant_is_cached() {
    let store = Store::with(&["acme"]);
    let (tenants, clock) = cached(&store);
    assert!(tenants.try_resolve(&id("acme")).is_none());
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    clock.advance(Duration::from_secs(53));
    let answer = tenants.try_resolve(&id("acme")).unwrap().unwrap().unwrap();
    assert_eq!((answer.id(), store.lookups()), (&id("acme"), 1));
}

#[tokio::test]
async fn suspension_takes_effect_after_time_to_live() {
    let store = Store::with(&["acme"]);
    let (tenants, clock) = cached(&store);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    store.list.insert(tenant("acme", Suspended));
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    clock.advance(PAST_TIME_TO_LIVE);
    assert!(tenants.try_resolve(&id("acme")).is_none());
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Suspended));
    store.list.remove(&id("acme"));
    clock.advance(PAST_TIME_TO_LIVE);
    assert_eq!(status(&tenants, "acme").await.unwrap(), None);
}

#[tokio::test]
async fn unknown_tenant_is_cached_briefly() {
    let store = Store::with(&[]);
    let (tenants, clock) = cached(&store);
    assert_eq!(status(&tenants, "acme").await.unwrap(), None);
    store.list.insert(tenant("acme", Active));
    clock.advance(Duration::from_secs(4));
    assert!(matches!(tenants.try_resolve(&id("acme")), Some(Ok(None))));
    assert_eq!(store.lookups(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_lookups_share_one_call() {
    let store = Store::with(&["acme"]);
    let (tenants, _clock) = cached(&store);
    let mut lookups = JoinSet::new();
    for _ in 0..1000 {
        let tenants = tenants.clone();
        lookups.spawn(async move { status(&tenants, "acme").await.unwrap() });
    }
    assert!(lookups.join_all().await.iter().all(|answer| *answer == Some(Active)));
    assert_eq!(store.lookups(), 1);
}

#[tokio::test]
async fn stale_answer_bridges_outage() {
    for last in [Active, Suspended] {
        let store = Store::with(&[]);
        store.list.insert(tenant("acme", last));
        let (tenants, clock) = cached(&store);
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(last));
        store.set_mode(StoreMode::Failing);
        clock.advance(PAST_TIME_TO_LIVE);
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(last));
        clock.advance(PAST_STALENESS);
        let error = status(&tenants, "acme").await.unwrap_err();
        assert_eq!(error.to_string(), "the tenant store failed: on purpose");
        store.set_mode(StoreMode::Normal);
        clock.advance(PAST_BACKOFF);
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(last));
    }
}

#[tokio::test]
async fn failing_store_without_max_stale_is_error() {
    let store = Store::with(&["acme"]);
    let (tenants, clock) = cached(&store);
    let tenants = tenants.max_stale(Duration::ZERO);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    store.set_mode(StoreMode::Failing);
    clock.advance(PAST_TIME_TO_LIVE);
    assert!(status(&tenants, "acme").await.is_err());
}

#[tokio::test]
async fn stale_unknown_answer_is_never_used() {
    let store = Store::with(&[]);
    let (tenants, clock) = cached(&store);
    assert_eq!(status(&tenants, "acme").await.unwrap(), None);
    store.set_mode(StoreMode::Failing);
    clock.advance(Duration::from_secs(5));
    assert!(status(&tenants, "acme").await.is_err());
}

#[tokio::test]
async fn failing_store_is_backed_off() {
    let store = Store::with(&["acme"]);
    let (tenants, clock) = cached(&store);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    store.set_mode(StoreMode::Failing);
    clock.advance(PAST_TIME_TO_LIVE);
    for _ in 0..100 {
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
        assert!(status(&tenants, "never-seen").await.is_err());
    }
    assert!(tenants.try_resolve(&id("acme")).unwrap().is_ok());
    assert!(tenants.try_resolve(&id("never-seen")).unwrap().is_err());
    assert_eq!(store.lookups(), 3);
}

#[tokio::test]
async fn outage_delays_one_request_and_recovers() {
    let store = Store::with(&["acme"]);
    let (tenants, clock) = cached(&store);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    let tenants = tenants.timeout(Duration::from_millis(50));
    store.set_mode(StoreMode::Hanging);
    clock.advance(PAST_TIME_TO_LIVE);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    clock.advance(Duration::from_secs(1));
    // The store still hangs. The timeout is long, so a request that waits would be noticed.
    let tenants = tenants.timeout(Duration::from_secs(3600));
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    until(|| store.lookups() == 3).await;
    store.list.insert(tenant("acme", Suspended));
    store.set_mode(StoreMode::Normal);
    until(|| tenants.try_resolve(&id("acme")).is_some()).await;
    tenants.forget(&id("acme"));
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Suspended));
}

#[tokio::test]
async fn stale_answer_is_not_used_after_outage() {
    let store = Store::with(&["acme"]);
    let (tenants, clock) = cached(&store);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    store.set_mode(StoreMode::Failing);
    clock.advance(PAST_TIME_TO_LIVE);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    store.set_mode(StoreMode::Normal);
    store.list.insert(tenant("acme", Suspended));
    clock.advance(Duration::from_secs(60));
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Suspended));
}

#[tokio::test]
async fn hang_panic_and_wrong_tenant_are_failures() {
    for (mood, message) in [
        (StoreMode::Hanging, "the tenant store did not answer within 20ms"),
        (
            StoreMode::Panicking,
            "the lookup of the tenant was interrupted: the store panicked, or the tokio runtime is missing or shutting down",
        ),
        (StoreMode::WrongTenant, "the tenant store returned another tenant"),
    ] {
        let store = Store::with(&["acme"]);
        let (tenants, _clock) = cached(&store);
        let hangs = matches!(mood, StoreMode::Hanging);
        let tenants = tenants.timeout(Duration::from_millis(if hangs { 20 } else { 60_000 }));
        store.set_mode(mood);
        let error = status(&tenants, "acme").await.unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(status(&tenants, "acme").await.is_err());
        assert_eq!(store.lookups(), 1, "{mood:?} causes no immediate second call");
    }
}

#[tokio::test]
async fn forget_discards_earlier_lookups() {
    let store = Store::with(&["acme"]);
    let (tenants, _clock) = cached(&store);
    for forget in [CachedTenants::clear, |tenants: &_| CachedTenants::forget(tenants, &id("acme"))]
    {
        store.list.insert(tenant("acme", Active));
        tenants.clear();
        let asked = store.lookups();
        store.set_mode(StoreMode::Hanging);
        let early = tokio::spawn({
            let tenants = tenants.clone();
            async move { status(&tenants, "acme").await.unwrap() }
        });
        until(|| store.lookups() == asked + 1).await;
        store.list.insert(tenant("acme", Suspended));
        forget(&tenants);
        let late = tokio::spawn({
            let tenants = tenants.clone();
            async move { status(&tenants, "acme").await.unwrap() }
        });
        until(|| store.lookups() == asked + 2).await;
        store.set_mode(StoreMode::Normal);
        assert_eq!(early.await.unwrap(), Some(Active));
        assert_eq!(late.await.unwrap(), Some(Suspended));
        assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Suspended));
        assert_eq!(store.lookups(), asked + 2);
    }
}

#[tokio::test]
async fn flood_of_invented_tenants_evicts_nothing() {
    let store = Store::with(&["acme"]);
    let (tenants, _clock) = cached(&store);
    let tenants = tenants.max_tenants(100);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    for turn in 0..10_000 {
        assert_eq!(status(&tenants, &format!("invented-{turn}")).await.unwrap(), None);
    }
    assert!(tenants.try_resolve(&id("acme")).is_some());
}

#[tokio::test]
async fn more_tenants_than_capacity_are_answered() {
    let names: Vec<_> = (0..1000).map(|turn| format!("tenant-{turn}")).collect();
    let store = Store::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let (tenants, _clock) = cached(&store);
    let tenants = tenants.max_tenants(10);
    for name in names.iter().chain(&names) {
        assert_eq!(status(&tenants, name).await.unwrap(), Some(Active));
    }
    assert!(store.lookups() > 1000);
}

#[tokio::test]
async fn longest_durations_do_not_overflow() {
    let store = Store::with(&["acme"]);
    let tenants = CachedTenants::new(Arc::new(store.clone()))
        .time_to_live(Duration::MAX)
        .negative_time_to_live(Duration::MAX)
        .max_stale(Duration::MAX)
        .timeout(Duration::MAX);
    assert_eq!(status(&tenants, "acme").await.unwrap(), Some(Active));
    assert_eq!(status(&tenants, "unknown").await.unwrap(), None);
    tenants.forget(&id("acme"));
    store.set_mode(StoreMode::Failing);
    assert!(status(&tenants, "acme").await.is_err());
}

/// A row that calls the cache when it is dropped.
#[derive(Debug)]
struct Row(Arc<OnceLock<CachedTenants<Rows>>>);

impl Drop for Row {
    fn drop(&mut self) {
        if let Some(cache) = self.0.get() {
            (0..100).for_each(|n| cache.forget(&id(&format!("other-{n}"))));
        }
    }
}

/// A store that returns a new row for each call.
#[derive(Debug, Clone, Default)]
struct Rows(Arc<OnceLock<CachedTenants<Rows>>>);

#[async_trait]
impl TenantResolver for Rows {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        Ok(Some(Tenant::with_row(id.clone(), Active, Row(self.0.clone()))))
    }
}

/// Runs `work`, which must end within 30 s. Otherwise it has deadlocked.
fn must_end(work: impl FnOnce(&CachedTenants<Rows>, &dyn Fn(&str), &ManualClock) + Send + 'static) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (rows, clock) = (Rows::default(), ManualClock::new());
        let cache = CachedTenants::new(rows.clone()).clock(clock.clone());
        rows.0.set(cache.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolve = |name: &str| {
            runtime.block_on(async { cache.resolve(&id(name)).await.map(drop).unwrap() });
        };
        work(&cache, &resolve, &clock);
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(30)).expect("deadlock");
}

#[test]
fn forgotten_rows_are_dropped_outside_locks() {
    must_end(|cache, resolve, _| {
        resolve("a");
        cache.clear();
    });
    must_end(|cache, resolve, _| {
        resolve("other-1");
        cache.forget(&id("other-1"));
    });
    must_end(|_, resolve, clock| {
        resolve("a");
        clock.advance(Duration::from_secs(100));
        resolve("a");
    });
}

/// The lookup that evicts a row also drops it.
#[test]
fn evicted_rows_are_dropped_outside_locks() {
    must_end(|cache, _, _| {
        let rows = Rows::default();
        let small = CachedTenants::new(rows.clone()).max_tenants(2);
        rows.0.set(small.clone()).unwrap();
        drop(cache.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for n in 0..10 {
            let name = id(&format!("other-{n}"));
            runtime.block_on(async { small.resolve(&name).await.map(drop).unwrap() });
        }
    });
}
