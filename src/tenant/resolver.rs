//! [`TenantResolver`]: the trait of tenant stores, which look up the tenant that a token names.

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::identity::TenantId;

/// The status of a tenant.
///
/// ```
/// use scaikey_auth::tenant::TenantStatus;
///
/// /// A customer who has not paid is refused. A state that this code does not know is not served either.
/// fn status(state: &str) -> TenantStatus {
///     match state {
///         "trial" | "paid" => TenantStatus::Active,
///         _ => TenantStatus::Suspended,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TenantStatus {
    /// Requests of the tenant are served.
    #[default]
    Active,
    /// Requests of the tenant are refused with 403.
    Suspended,
}

/// A tenant of this service. A clone is cheap, because it shares the id and the row.
///
/// ```
/// use scaikey_auth::tenant::TenantStatus;
/// use scaikey_auth::{Tenant, TenantId};
///
/// /// The row that handlers receive.
/// struct Plan(&'static str);
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let id: TenantId = "acme".parse()?;
/// let tenant = Tenant::with_row(id, TenantStatus::Active, Plan("gold"));
/// assert_eq!(tenant.row::<Plan>().map(|plan| plan.0), Some("gold"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tenant {
    id: TenantId,
    status: TenantStatus,
    row: Option<Arc<dyn Any + Send + Sync>>,
}

impl Tenant {
    /// Creates an active tenant without a row.
    pub fn new(id: TenantId) -> Self {
        Self { id, status: TenantStatus::Active, row: None }
    }

    /// Creates a tenant with a row of the store. Handlers get the row by [`row`](Self::row).
    pub fn with_row<R: Any + Send + Sync>(id: TenantId, status: TenantStatus, row: R) -> Self {
        Self { id, status, row: Some(Arc::new(row)) }
    }

    /// Returns the tenant's id, which is the tenant claim of its tokens.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// Returns the tenant's status. It is always active in a handler, because requests of other tenants are
    /// refused.
    pub fn status(&self) -> TenantStatus {
        self.status
    }

    /// Returns the store's row, or `None` if the tenant has no row of the type `R`.
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

/// A tenant store: looks up the tenant that a token names.
///
/// Implement this trait, with `Debug`, for your own store. Test the store with
/// [`testing::conformance::tenant_resolver`](crate::testing::conformance::tenant_resolver) (feature
/// `testing`). Then wrap it in [`CachedTenants`](super::CachedTenants) and pass it to
/// [`AuthBuilder::tenants`](crate::AuthBuilder::tenants).
///
/// Harmless mistakes: slowness; failures, which are answered with 503. Security holes: returning a tenant
/// with an id other than the requested one, which the layer detects and answers with 503; returning a default
/// tenant for an unknown id, which the layer cannot detect. An id has one spelling: a store whose keys are
/// numbers or UUIDs must not find `007` or an upper-case UUID, because caches and logs would see another tenant.
///
/// ```
/// use std::collections::HashMap;
///
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::tenant::TenantStatus;
/// use scaikey_auth::{Tenant, TenantId, TenantResolver};
///
/// /// The names of this service's customers, by their numbers.
/// #[derive(Debug)]
/// struct Customers(HashMap<u32, String>);
///
/// #[async_trait]
/// impl TenantResolver for Customers {
///     async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
///         let number = id.as_str().parse().ok().filter(|number: &u32| number.to_string() == id.as_str());
///         let name = number.and_then(|number| self.0.get(&number));
///         Ok(name.map(|name| Tenant::with_row(id.clone(), TenantStatus::Active, name.clone())))
///     }
/// }
/// ```
///
/// The example `axum_service` has a store in PostgreSQL with UUIDs as keys.
#[async_trait]
pub trait TenantResolver: Debug + Send + Sync + 'static {
    /// Resolves the tenant without waiting, or returns `None` if that is not possible; then
    /// [`resolve`](Self::resolve) is called. Implementing it avoids the allocation of a future. Default:
    /// `None`.
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        let _ = id;
        None
    }

    /// Returns the tenant `id`, or `None` if there is no such tenant.
    ///
    /// # Errors
    /// If the store fails. Do not return `Ok(None)` then, because it would turn an outage into "unknown
    /// tenant".
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError>;
}

/// A tenant store that accepts every tenant of a verified token, for services without a list of tenants.
///
/// For an issuer with `{tenant_id}`, it means that every tenant of the provider may use this service:
///
/// ```
/// use scaikey_auth::Auth;
/// use scaikey_auth::tenant::AnyTenant;
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder()
///     .issuer("https://id.example/{tenant_id}")
///     .audience("scaiwave")
///     .tenants(AnyTenant)
///     .build()?;
/// # Ok(()) }
/// ```
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
