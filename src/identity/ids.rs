//! Identifiers that cannot be mixed up: [`TenantId`] and [`IdentityKey`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ARC_COUNTS, IdentityKind};

/// The identifier of a tenant, compared byte for byte. Cheap to clone.
///
/// 1 to 255 bytes without white space or control characters. It is otherwise opaque: it may hold
/// `/` or `..`, so do not build paths from it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// A tenant identifier is empty, too long, or has white space or control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant id has 1 to 255 bytes and neither white space nor control characters")]
pub struct InvalidTenantId;

impl TenantId {
    /// Checks and takes `id`.
    ///
    /// # Errors
    /// When `id` is empty, longer than 255 bytes, or has white space or control characters.
    pub fn new(id: &str) -> Result<Self, InvalidTenantId> {
        let fits = (1..=255).contains(&id.len());
        if !fits || id.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidTenantId);
        }
        Ok(Self(id.into()))
    }

    /// The identifier as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many bytes it holds elsewhere, as asked of the allocator.
    pub(super) fn footprint(&self) -> usize {
        ARC_COUNTS + self.0.len()
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(id: &str) -> Result<Self, InvalidTenantId> {
        Self::new(id)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for TenantId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// What makes an identity the same one tomorrow: issuer, tenant, kind and subject.
///
/// `sub` alone does not: two issuers or tenants may use the same one, and a client's may equal a
/// user's (RFC 8725 §3.8, RFC 9700 §4.15).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct IdentityKey {
    /// `iss`.
    pub issuer: Arc<str>,
    /// The tenant, if the token names one.
    pub tenant_id: Option<TenantId>,
    /// User, service account or workload.
    pub kind: IdentityKind,
    /// `sub`.
    pub subject: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_is_opaque_but_not_arbitrary() {
        for id in ["tnt_acme_prod", "6f1c-…", "../x", &"a".repeat(255)] {
            assert_eq!(TenantId::new(id).unwrap().as_str(), id);
        }
        for id in ["", " ", "a b", "a\n", "a\0", &"a".repeat(256)] {
            assert_eq!(TenantId::new(id), Err(InvalidTenantId), "{id:?}");
        }
    }
}
