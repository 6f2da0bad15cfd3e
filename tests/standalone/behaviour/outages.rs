//! Logs of outages of a store or the provider: one line per change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::tenant::CachedTenants;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{Tenant, TenantId, TenantResolver};

use crate::support::Log;
use crate::support::{Server, Spy, World};

/// A store of tenants that fails on demand.
#[derive(Debug, Clone, Default)]
struct Store {
    fails: Arc<AtomicBool>,
    is_immediate: bool,
}

impl Store {
    fn lookup(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        match self.fails.load(Ordering::SeqCst) {
            true => Err("the database has no room".into()),
            false => Ok(Some(Tenant::new(id.clone()))),
        }
    }
}

#[async_trait]
impl TenantResolver for Store {
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        self.is_immediate.then(|| self.lookup(id))
    }

    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        self.lookup(id)
    }
}

/// Two outages, of which each is a warning with its cause and an end.
async fn logs_outage_once(world: &World, store: &Store, resolver: impl TenantResolver) {
    let log = Log::start();
    let auth = world.auth().tenants(resolver).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    for outage in 1..=2 {
        for (fails, status) in [(true, 503), (false, 200)] {
            store.fails.store(fails, Ordering::SeqCst);
            // Longer than the store's answers are cached.
            world.clock.advance(Duration::from_secs(3600));
            for nth in 0..20 {
                let token = world.provider.token().tenant(&format!("tenant-{nth}")).sign();
                let answer = server.get_as("/", &token).await;
                assert_eq!(answer.status, status, "{answer:?}");
                if fails {
                    let detail = "The tenant cannot be looked up right now. Try again.";
                    assert_eq!(answer.json()["detail"], detail);
                }
            }
        }
        let warnings = log.lines("WARN");
        assert_eq!(warnings.len(), outage, "{warnings:#?}");
        assert!(warnings[outage - 1].contains("the database has no room"), "{warnings:#?}");
        assert_eq!(log.text().matches("tenant store works again").count(), outage);
    }
}

#[tokio::test]
async fn failing_tenant_store_logs_one_warning() {
    let world = World::new().await;
    for is_immediate in [false, true] {
        let store = Store { is_immediate, ..Store::default() };
        logs_outage_once(&world, &store, store.clone()).await;
    }
}

#[tokio::test]
async fn failing_cached_store_logs_one_warning() {
    let world = World::new().await;
    let store = Store::default();
    let cached = CachedTenants::new(store.clone()).clock(world.clock.clone());
    logs_outage_once(&world, &store, cached).await;
}

#[tokio::test]
async fn missing_keys_log_one_warning() {
    let log = Log::start();
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    for outage in 1..=2 {
        world.provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
        for _ in 0..20 {
            server.get_as("/", &world.provider.token().sign()).await;
            auth.ready().await.ok();
            world.clock.advance(Duration::from_secs(3600));
        }
        let warnings = log.lines("WARN");
        assert_eq!(warnings.len(), outage, "{warnings:#?}");
        assert!(warnings[outage - 1].contains("500"), "{warnings:#?}");
        world.provider.heal(ProviderEndpoint::Jwks);
        world.clock.advance(Duration::from_secs(3600 * 25));
        assert_eq!(server.get_as("/", &world.provider.token().sign()).await.status, 200);
        assert_eq!(log.text().matches("keys can be fetched again").count(), outage);
    }
}
