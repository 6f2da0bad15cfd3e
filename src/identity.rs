//! Who is calling: the parts of an [`Identity`], and which claims they are read from.
//!
//! [`Identity`] itself and [`TenantId`] are at the root of the crate. Here are the types that its
//! methods return ([`Scopes`], [`Actor`], [`IdentityKey`] to store and to authorise by) and
//! [`ClaimsMapping`], for providers that name their claims differently.
//!
//! How it fits together: [manual::request](crate::manual::request).

mod claims;
mod confirmation;
pub(crate) mod ids;
mod mapping;
pub(crate) mod principal;
mod scopes;

pub use confirmation::Confirmation;
pub use ids::{IdentityKey, InvalidTenantId};
pub use mapping::{ClaimPath, ClaimsMapping, InvalidClaimPath};
pub use principal::{Actor, IdentityKind, Provenance};
pub use scopes::{InvalidScope, Scopes};

pub(crate) use claims::{
    Reading, numeric_date, scopes as read_scopes, tenant as read_tenant, text,
};
pub(crate) use ids::TenantId;
pub(crate) use principal::Identity;
use principal::{ARC_COUNTS, Inner};
