//! [`MemoryTenants`]: tenants in memory, and an example of a tenant store.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::{Tenant, TenantResolver};
use crate::error::BoxError;
use crate::identity::TenantId;

/// A list of tenants in memory, which may change while requests run. Clones share the list.
///
/// Use it for tests, and for services with a few tenants that are known at start-up.
///
/// ```
/// use scaikey_auth::tenant::{MemoryTenants, TenantStatus};
/// use scaikey_auth::{Auth, Tenant};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenants = MemoryTenants::new();
/// tenants.insert(Tenant::new("acme".parse()?));
/// let auth = Auth::builder()
///     .issuer("https://scaikey.example")
///     .audience("scaiwave")
///     .tenants(tenants.clone())
///     .build()?;
/// // Takes effect with the next request.
/// tenants.insert(Tenant::with_row("acme".parse()?, TenantStatus::Suspended, ()));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryTenants {
    tenants: Arc<ArcSwap<HashMap<TenantId, Tenant>>>,
}

impl MemoryTenants {
    /// Creates an empty list. Every tenant is unknown until it is inserted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tenant, or replaces the one with its id.
    pub fn insert(&self, tenant: Tenant) {
        self.change(|tenants| {
            tenants.insert(tenant.id().clone(), tenant.clone());
        });
    }

    /// Removes a tenant. From the next request on, it is unknown.
    pub fn remove(&self, id: &TenantId) {
        self.change(|tenants| {
            tenants.remove(id);
        });
    }

    /// Changes a copy of the map and swaps it in, so that readers never wait.
    fn change(&self, edit: impl Fn(&mut HashMap<TenantId, Tenant>)) {
        self.tenants.rcu(|tenants| {
            let mut tenants = HashMap::clone(tenants);
            edit(&mut tenants);
            tenants
        });
    }

    fn lookup(&self, id: &TenantId) -> Option<Tenant> {
        self.tenants.load().get(id).cloned()
    }
}

impl FromIterator<Tenant> for MemoryTenants {
    fn from_iter<I: IntoIterator<Item = Tenant>>(tenants: I) -> Self {
        let tenants: HashMap<_, _> = tenants.into_iter().map(|t| (t.id().clone(), t)).collect();
        Self { tenants: Arc::new(ArcSwap::from_pointee(tenants)) }
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
