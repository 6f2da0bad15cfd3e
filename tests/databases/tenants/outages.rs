//! A real PostgreSQL server that is killed, paused and brought back under a `CachedTenants`.

use std::time::{Duration, Instant};

use scaikey_auth::TenantResolver;
use scaikey_auth::tenant::TenantStatus::{Active, Suspended};
use scaikey_auth::tenant::{CachedTenants, SqlTenantRow, SqlTenants, TenantStatus};
use tokio::task::JoinSet;

use crate::postgres::Postgres;
use crate::support::tenants::{Store, id, status};
use scaikey_auth::testing::ManualClock;

const PAST_TIME_TO_LIVE: Duration = Duration::from_secs(67);
const PAST_STALENESS: Duration = Duration::from_secs(601);
const PAST_BACKOFF: Duration = Duration::from_secs(6);

struct Setting {
    server: Postgres,
    table: SqlTenants,
    tenants: CachedTenants<Store<SqlTenants>>,
    store: Store<SqlTenants>,
    clock: ManualClock,
}

async fn setting() -> Setting {
    let server = Postgres::start();
    let table = SqlTenants::connect_lazy(&server.url()).unwrap();
    table.migrate().await.unwrap();
    let (store, clock) = (Store::over(table.clone()), ManualClock::new());
    let tenants = CachedTenants::new(store.clone()).clock(clock.clone());
    let this = Setting { server, table, tenants, store, clock };
    this.put("acme", Active).await;
    this
}

impl Setting {
    async fn put(&self, tenant: &str, status: TenantStatus) {
        self.table.insert(&id(tenant), SqlTenantRow::default(), status).await.unwrap();
    }

    async fn status(&self, tenant: &str) -> Option<TenantStatus> {
        status(&self.tenants, tenant).await.unwrap()
    }

    /// Back-off is on the manual clock, reconnecting in real time.
    async fn recovers_to(&self, expected: TenantStatus) {
        let since = Instant::now();
        loop {
            self.clock.advance(PAST_BACKOFF);
            if status(&self.tenants, "acme").await.is_ok_and(|found| found == Some(expected)) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(120), "did not recover");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_server_is_bridged_until_max_stale() {
    let mut setting = setting().await;
    assert_eq!(setting.status("acme").await, Some(Active));
    setting.server.kill();
    setting.clock.advance(PAST_TIME_TO_LIVE);
    assert_eq!(setting.status("acme").await, Some(Active));
    assert!(status(&setting.tenants, "never-seen").await.is_err());
    setting.clock.advance(PAST_STALENESS);
    let error = status(&setting.tenants, "acme").await.unwrap_err().to_string();
    assert!(error.starts_with("the tenant store failed"), "{error}");

    setting.server.restart();
    setting.put("acme", Suspended).await;
    setting.recovers_to(Suspended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_server_delays_one_request() {
    let setting = setting().await;
    let brief = setting.tenants.clone().deadline(Duration::from_millis(300));
    let endless = setting.tenants.clone().deadline(Duration::MAX);
    let setting = Setting { tenants: setting.tenants.deadline(Duration::from_secs(60)), ..setting };
    assert_eq!(setting.status("acme").await, Some(Active));
    setting.server.pause();
    setting.clock.advance(PAST_TIME_TO_LIVE);

    let since = Instant::now();
    assert_eq!(status(&brief, "acme").await.unwrap(), Some(Active));
    assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
    setting.clock.advance(Duration::from_secs(5));
    // Whoever waited for the paused server now would wait for ever.
    let nobody_waits = async {
        for _ in 0..100 {
            assert_eq!(status(&endless, "acme").await.unwrap(), Some(Active));
        }
    };
    tokio::time::timeout(Duration::from_secs(120), nobody_waits).await.expect("nobody waits");
    let error = status(&brief, "never-seen").await.unwrap_err().to_string();
    assert_eq!(error, "the tenant store did not answer within 300ms");

    setting.server.resume();
    setting.put("acme", Suspended).await;
    setting.recovers_to(Suspended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn service_starts_before_its_database() {
    let mut server = Postgres::start();
    server.kill();
    let table = SqlTenants::connect_lazy(&server.url()).unwrap();
    let error = format!("{:?}", SqlTenants::connect(&server.url()).await.unwrap_err());
    assert!(!error.contains(server.url().expose()), "{error}");
    let clock = ManualClock::new();
    let tenants = CachedTenants::new(table.clone()).clock(clock.clone());
    assert!(status(&tenants, "acme").await.is_err());
    server.restart();
    table.migrate().await.unwrap();
    clock.advance(PAST_BACKOFF);
    assert_eq!(status(&tenants, "acme").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_take_effect_after_time_to_live() {
    let setting = setting().await;
    assert_eq!(setting.status("acme").await, Some(Active));
    assert_eq!(setting.status("later").await, None);
    setting.put("acme", Suspended).await;
    setting.put("later", Active).await;
    assert_eq!(setting.status("acme").await, Some(Active));
    assert_eq!(setting.status("later").await, None);
    setting.clock.advance(Duration::from_secs(5));
    assert_eq!(setting.status("later").await, Some(Active));
    setting.clock.advance(PAST_TIME_TO_LIVE);
    assert_eq!(setting.status("acme").await, Some(Suspended));
    setting.put("acme", Active).await;
    setting.tenants.forget(&id("acme"));
    assert_eq!(setting.status("acme").await, Some(Active));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_lookups_share_one_query() {
    let setting = setting().await;
    let mut lookups = JoinSet::new();
    for _ in 0..1000 {
        let tenants = setting.tenants.clone();
        lookups.spawn(async move { tenants.resolve(&id("acme")).await.unwrap().is_some() });
    }
    assert!(lookups.join_all().await.iter().all(|found| *found));
    assert_eq!(setting.store.lookups(), 1);
}
