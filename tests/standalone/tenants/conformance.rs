//! The conformance suite for tenant resolvers: correct resolvers pass, and each faulty one fails with the
//! broken rule.

use std::sync::Arc;

use async_trait::async_trait;
use scaikey_auth::error::BoxError;
use scaikey_auth::tenant::{AnyTenant, CachedTenants, MemoryTenants, TenantStatus};
use scaikey_auth::testing::conformance::{TenantSuite, tenant_resolver};
use scaikey_auth::{Tenant, TenantId, TenantResolver};

use crate::support::tenants::{id, tenant};

/// A list of tenants, and a correct or faulty resolver over it.
struct Candidate<R>(MemoryTenants, R);

#[async_trait]
impl<R: TenantResolver + Clone> TenantSuite for Candidate<R> {
    fn resolver(&self) -> Arc<dyn TenantResolver> {
        Arc::new(self.1.clone())
    }

    fn known(&self) -> TenantId {
        id("acme")
    }

    fn unknown(&self) -> TenantId {
        id("unknown")
    }

    async fn insert(&self, id: &TenantId, status: TenantStatus) -> bool {
        self.0.insert(Tenant::with_row(id.clone(), status, ()));
        true
    }

    async fn remove(&self, id: &TenantId) {
        self.0.remove(id);
    }
}

fn acme() -> MemoryTenants {
    MemoryTenants::from_iter([tenant("acme", TenantStatus::Active)])
}

#[tokio::test]
async fn memory_passes_conformance_suite() {
    let list = acme();
    tenant_resolver(&Candidate(list.clone(), list)).await;
}

#[tokio::test]
async fn cache_passes_conformance_suite() {
    struct Cached(MemoryTenants, CachedTenants<MemoryTenants>);

    #[async_trait]
    impl TenantSuite for Cached {
        fn resolver(&self) -> Arc<dyn TenantResolver> {
            Arc::new(self.1.clone())
        }

        fn known(&self) -> TenantId {
            id("acme")
        }

        fn unknown(&self) -> TenantId {
            id("unknown")
        }

        async fn insert(&self, id: &TenantId, status: TenantStatus) -> bool {
            self.0.insert(Tenant::with_row(id.clone(), status, ()));
            self.1.forget(id);
            true
        }

        async fn remove(&self, id: &TenantId) {
            self.0.remove(id);
            self.1.forget(id);
        }
    }

    let list = acme();
    tenant_resolver(&Cached(list.clone(), CachedTenants::new(list))).await;
}

#[tokio::test]
async fn immutable_list_passes_conformance_suite() {
    struct Fixed;

    #[async_trait]
    impl TenantSuite for Fixed {
        fn resolver(&self) -> Arc<dyn TenantResolver> {
            Arc::new(acme())
        }

        fn known(&self) -> TenantId {
            id("acme")
        }

        fn unknown(&self) -> TenantId {
            id("unknown")
        }
    }

    tenant_resolver(&Fixed).await;
}

#[tokio::test]
#[should_panic(expected = "rule broken: an unknown tenant is Ok(None)")]
async fn resolver_that_knows_every_tenant_fails() {
    tenant_resolver(&Candidate(acme(), AnyTenant)).await;
}

#[tokio::test]
#[should_panic(expected = "rule broken: a suspended tenant is reported as suspended")]
async fn cache_without_forget_fails() {
    let list = acme();
    let cached = CachedTenants::new(list.clone()).negative_time_to_live(std::time::Duration::ZERO);
    tenant_resolver(&Candidate(list, cached)).await;
}

/// A faulty resolver, which changes the id before the lookup, or the answer after it.
#[derive(Debug, Clone)]
struct Faulty {
    list: MemoryTenants,
    change_id: fn(&str) -> String,
    answers: fn(Option<Tenant>, &TenantId) -> Result<Option<Tenant>, BoxError>,
}

#[async_trait]
impl TenantResolver for Faulty {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        let found = self.list.resolve(&(self.change_id)(id.as_str()).parse()?).await?;
        (self.answers)(found, id)
    }
}

/// Gives the found tenant the requested id.
fn relabelled(found: Option<Tenant>, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
    Ok(found.map(|tenant| Tenant::with_row(id.clone(), tenant.status(), ())))
}

async fn examine(
    change_id: fn(&str) -> String,
    answers: fn(Option<Tenant>, &TenantId) -> Result<Option<Tenant>, BoxError>,
) {
    let list = acme();
    tenant_resolver(&Candidate(list.clone(), Faulty { list, change_id, answers })).await;
}

#[tokio::test]
#[should_panic(expected = "rule broken: ids are compared byte for byte")]
async fn resolver_that_ignores_case_fails() {
    examine(str::to_lowercase, relabelled).await;
}

#[tokio::test]
#[should_panic(expected = "rule broken: a found tenant has the requested id")]
async fn resolver_that_returns_other_tenant_fails() {
    examine(str::to_lowercase, |found, _| Ok(found)).await;
}

#[tokio::test]
#[should_panic(expected = "rule broken: ids are stored and compared byte for byte")]
async fn resolver_that_cuts_ids_fails() {
    examine(|id| id.chars().take(254).collect(), relabelled).await;
}

#[tokio::test]
#[should_panic(
    expected = "rule broken: an unknown tenant is Ok(None): resolve(\"unknown\") failed"
)]
async fn resolver_with_error_for_unknown_fails() {
    examine(str::to_owned, |found, _| found.ok_or("no rows".into()).map(Some)).await;
}

#[tokio::test]
#[should_panic(expected = "rule broken: a suspended tenant is reported as suspended")]
async fn resolver_that_hides_suspended_tenants_fails() {
    examine(str::to_owned, |found, _| {
        Ok(found.filter(|tenant| tenant.status() == TenantStatus::Active))
    })
    .await;
}
