//! [`MemoryTenants`]: tenants held in memory, and the worked example of a resolver.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::{Tenant, TenantResolver};
use crate::error::BoxError;
use crate::identity::TenantId;

/// A list of tenants in memory, changeable while requests run. Clones share the list.
///
/// For services with few tenants known at start, and for tests.
#[derive(Debug, Clone, Default)]
pub struct MemoryTenants {
    known: Arc<ArcSwap<HashMap<TenantId, Tenant>>>,
}

impl MemoryTenants {
    /// An empty list: every tenant is unknown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tenant, or replaces the one with its id.
    pub fn insert(&self, tenant: Tenant) {
        self.change(|known| {
            known.insert(tenant.id().clone(), tenant.clone());
        });
    }

    /// Removes a tenant; from the next request on it is unknown.
    pub fn remove(&self, id: &TenantId) {
        self.change(|known| {
            known.remove(id);
        });
    }

    /// Readers must not wait, so a change copies the map and swaps it in.
    fn change(&self, edit: impl Fn(&mut HashMap<TenantId, Tenant>)) {
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            edit(&mut known);
            known
        });
    }

    fn lookup(&self, id: &TenantId) -> Option<Tenant> {
        self.known.load().get(id).cloned()
    }
}

impl FromIterator<Tenant> for MemoryTenants {
    fn from_iter<I: IntoIterator<Item = Tenant>>(tenants: I) -> Self {
        let known: HashMap<_, _> = tenants.into_iter().map(|t| (t.id().clone(), t)).collect();
        Self { known: Arc::new(ArcSwap::from_pointee(known)) }
    }
}

#[async_trait]
impl TenantResolver for MemoryTenants {
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        Some(Ok(self.lookup(id)))
    }

    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        Ok(self.lookup(id))
    }
}
