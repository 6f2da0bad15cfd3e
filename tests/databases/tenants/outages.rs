//! `CachedTenants` over a real PostgreSQL server that is killed, paused and restarted.

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

struct World {
    server: Postgres,
    table: SqlTenants,
    tenants: CachedTenants<Store<SqlTenants>>,
    store: Store<SqlTenants>,
    clock: ManualClock,
}

async fn world() -> World {
    let server = Postgres::start();
    let table = SqlTenants::connect_lazy(&server.url()).unwrap();
    table.migrate().await.unwrap();
    let (store, clock) = (Store::over(table.clone()), ManualClock::new());
    let tenants = CachedTenants::new(store.clone()).clock(clock.clone());
    let this = World { server, table, tenants, store, clock };
    this.put("acme", Active).await;
    this
}

impl World {
    async fn put(&self, tenant: &str, status: TenantStatus) {
        self.table.insert(&id(tenant), SqlTenantRow::default(), status).await.unwrap();
    }

    async fn status(&self, tenant: &str) -> Option<TenantStatus> {
        status(&self.tenants, tenant).await.unwrap()
    }

    /// Waits for the status. The back-off uses the manual clock; reconnecting takes real time.
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
async fn stale_tenants_bridge_outage_until_max_stale() {
    let mut world = world().await;
    assert_eq!(world.status("acme").await, Some(Active));
    world.server.kill();
    world.clock.advance(PAST_TIME_TO_LIVE);
    assert_eq!(world.status("acme").await, Some(Active));
    assert!(status(&world.tenants, "never-seen").await.is_err());
    world.clock.advance(PAST_STALENESS);
    let error = status(&world.tenants, "acme").await.unwrap_err().to_string();
    assert!(error.starts_with("the tenant store failed"), "{error}");

    world.server.restart();
    world.put("acme", Suspended).await;
    world.recovers_to(Suspended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_server_delays_one_request() {
    let world = world().await;
    let brief = world.tenants.clone().timeout(Duration::from_millis(300));
    let endless = world.tenants.clone().timeout(Duration::MAX);
    let world = World { tenants: world.tenants.timeout(Duration::from_secs(60)), ..world };
    assert_eq!(world.status("acme").await, Some(Active));
    world.server.pause();
    world.clock.advance(PAST_TIME_TO_LIVE);

    let since = Instant::now();
    assert_eq!(status(&brief, "acme").await.unwrap(), Some(Active));
    assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
    world.clock.advance(Duration::from_secs(5));
    // A request that waited for the paused server would never end.
    let without_waiting = async {
        for _ in 0..100 {
            assert_eq!(status(&endless, "acme").await.unwrap(), Some(Active));
        }
    };
    tokio::time::timeout(Duration::from_secs(120), without_waiting)
        .await
        .expect("a request waited");
    let error = status(&brief, "never-seen").await.unwrap_err().to_string();
    assert_eq!(error, "the tenant store did not answer within 300ms");

    world.server.resume();
    world.put("acme", Suspended).await;
    world.recovers_to(Suspended).await;
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
    let world = world().await;
    assert_eq!(world.status("acme").await, Some(Active));
    assert_eq!(world.status("later").await, None);
    world.put("acme", Suspended).await;
    world.put("later", Active).await;
    assert_eq!(world.status("acme").await, Some(Active));
    assert_eq!(world.status("later").await, None);
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(world.status("later").await, Some(Active));
    world.clock.advance(PAST_TIME_TO_LIVE);
    assert_eq!(world.status("acme").await, Some(Suspended));
    world.put("acme", Active).await;
    world.tenants.forget(&id("acme"));
    assert_eq!(world.status("acme").await, Some(Active));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_lookups_share_one_query() {
    let world = world().await;
    let mut lookups = JoinSet::new();
    for _ in 0..1000 {
        let tenants = world.tenants.clone();
        lookups.spawn(async move { tenants.resolve(&id("acme")).await.unwrap().is_some() });
    }
    assert!(lookups.join_all().await.iter().all(|found| *found));
    assert_eq!(world.store.lookups(), 1);
}
