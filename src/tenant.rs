//! Tenant stores: implementations of [`TenantResolver`], which look up the tenant that a token names.
//!
//! [`Tenant`] and the trait [`TenantResolver`] are at the root of the crate. This module has the
//! implementations of the trait: [`AnyTenant`] (the default without a database), [`MemoryTenants`] for a
//! list, [`SqlTenants`] for a table (features `sqlite` and `postgres`), and [`CachedTenants`], a cache for
//! any other store. [`testing::conformance::tenant_resolver`](crate::testing::conformance::tenant_resolver)
//! (feature `testing`) checks a custom store.
//!
//! See also: [manual::tenants](crate::manual::tenants).

mod cached;
mod memory;
pub(crate) mod resolver;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;

pub use cached::CachedTenants;
pub use memory::MemoryTenants;
pub use resolver::{AnyTenant, TenantStatus};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::{SqlTenantRow, SqlTenants};

pub(crate) use cached::is_logged;
pub(crate) use resolver::{Tenant, TenantResolver};
