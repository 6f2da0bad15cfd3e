//! Stores of tenants: from the tenant that a token names to the tenant this service knows.
//!
//! [`Tenant`] and the trait [`TenantResolver`] are at the root of the crate. Here are its
//! implementations: [`AnyTenant`] (the default), [`MemoryTenants`] for a list, [`SqlTenants`] for a
//! table (features `sqlite` and `postgres`), and [`CachedTenants`], which remembers the answers of any
//! other. [`testing::conformance::tenant_resolver`](crate::testing::conformance::tenant_resolver) (feature
//! `testing`) examines a store of your own.
//!
//! How it fits together: [manual::tenants](crate::manual::tenants).

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

pub(crate) use cached::is_told;
pub(crate) use resolver::{Tenant, TenantResolver};
