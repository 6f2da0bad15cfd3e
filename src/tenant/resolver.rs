//! [`TenantResolver`]: from the tenant a token names to the tenant this service knows.

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::identity::TenantId;

/// Whether a tenant may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TenantStatus {
    /// Requests are served.
    #[default]
    Active,
    /// Requests are refused with 403.
    Suspended,
}

/// A tenant as this service knows it. Cheap to clone: clones share id and row, and a tenant without
/// a row allocates nothing.
#[derive(Clone)]
pub struct Tenant {
    id: TenantId,
    status: TenantStatus,
    row: Option<Arc<dyn Any + Send + Sync>>,
}

impl Tenant {
    /// An active tenant about which nothing but its id is known.
    pub fn new(id: TenantId) -> Self {
        Self { id, status: TenantStatus::Active, row: None }
    }

    /// A tenant with the store's own row, for handlers to get back with [`row`](Self::row).
    pub fn with_row<R: Any + Send + Sync>(id: TenantId, status: TenantStatus, row: R) -> Self {
        Self { id, status, row: Some(Arc::new(row)) }
    }

    /// The tenant's id, as tokens name it.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// Whether the tenant may be used. Inside a handler it always may.
    pub fn status(&self) -> TenantStatus {
        self.status
    }

    /// The store's own row; `None` when the resolver attached none, or one of another type.
    pub fn row<R: Any>(&self) -> Option<&R> {
        self.row.as_deref()?.downcast_ref()
    }
}

impl Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("id", &self.id)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Looks up tenants.
///
/// Implement it over your own store, wrap it in [`CachedTenants`](super::CachedTenants), and run
/// [`testing::conformance::tenant_resolver`](crate::testing::conformance::tenant_resolver) (feature
/// `testing`) on it. Given to [`AuthBuilder::tenants`](crate::AuthBuilder::tenants).
///
/// Harmless mistakes: being slow, or failing: requests are then answered with 503. Attacks: to
/// return a tenant whose id is not the one asked for (the layer refuses it), or a default tenant
/// for an unknown id (it cannot tell).
#[async_trait]
pub trait TenantResolver: Debug + Send + Sync + 'static {
    /// An answer that needs no waiting, if there is one: keeps a request whose tenant is at hand
    /// free of allocations. The default knows none.
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        let _ = id;
        None
    }

    /// The tenant called `id`, or `None` when there is none.
    ///
    /// # Errors
    /// When the store cannot tell. Never `Ok(None)` for that: it would turn an outage into
    /// "unknown tenant".
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError>;
}

/// Takes every tenant that a verified token names: for services that keep no list of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyTenant;

#[async_trait]
impl TenantResolver for AnyTenant {
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        Some(Ok(Some(Tenant::new(id.clone()))))
    }

    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        Ok(Some(Tenant::new(id.clone())))
    }
}

#[async_trait]
impl<R: TenantResolver + ?Sized> TenantResolver for Arc<R> {
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        (**self).try_resolve(id)
    }

    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        (**self).resolve(id).await
    }
}
