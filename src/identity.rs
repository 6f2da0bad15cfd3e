//! The identity of a caller: the parts of an [`Identity`], and the claims that they come from.
//!
//! [`Identity`] itself and [`TenantId`] are at the root of the crate. This module has the types that its
//! methods return ([`Scopes`], [`Actor`], [`IdentityKey`] for storage and authorisation) and
//! [`ClaimsMapping`], for providers whose claims have other names.
//!
//! See also: [manual::request](crate::manual::request).

mod claim_test;
mod claims;
mod confirmation;
pub(crate) mod ids;
mod mapping;
pub(crate) mod principal;
mod scopes;
pub(crate) mod spiffe_id;

pub use claim_test::{ClaimTest, InvalidClaimTest};
pub use confirmation::Confirmation;
pub use ids::{IdentityKey, InvalidTenantId};
pub use mapping::{ClaimPath, ClaimsMapping, InvalidClaimPath};
pub use principal::{Actor, IdentityKind, Provenance};
pub use scopes::{InvalidScope, Scopes};

pub(crate) use claims::{
    Reading, first_text, numeric_date, scopes as read_scopes, tenant as read_tenant, text,
};
pub(crate) use ids::TenantId;
use principal::{ARC_HEADER_BYTES, Inner};
pub(crate) use principal::{DIGEST_BYTES, Identity};
