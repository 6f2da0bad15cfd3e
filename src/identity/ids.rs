//! Typed identifiers: [`TenantId`] and [`IdentityKey`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ARC_HEADER_BYTES, IdentityKind};

/// The identifier of a tenant. It is compared byte by byte. Clones are cheap.
///
/// It has 1 to 255 bytes without white space or control characters. It is otherwise opaque: it may contain
/// `/` or `..`, so do not build paths from it.
///
/// ```
/// use scaikey_auth::TenantId;
///
/// let acme: TenantId = "acme".parse()?;
/// assert_eq!(acme, TenantId::new("acme")?);
/// assert_ne!(acme.as_str(), "Acme");
/// assert!(TenantId::new("two words").is_err());
/// # Ok::<_, scaikey_auth::identity::InvalidTenantId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The error for a tenant identifier that is empty, too long, or has white space or control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tenant id has 1 to 255 bytes and neither white space nor control characters")]
pub struct InvalidTenantId;

impl TenantId {
    /// Creates an identifier from `id`.
    ///
    /// # Errors
    /// If `id` is empty, longer than 255 bytes, or has white space or control characters.
    pub fn new(id: &str) -> Result<Self, InvalidTenantId> {
        let fits = (1..=255).contains(&id.len());
        if !fits || id.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidTenantId);
        }
        Ok(Self(id.into()))
    }

    /// Returns the identifier unchanged.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number of allocated bytes.
    pub(super) fn footprint(&self) -> usize {
        ARC_HEADER_BYTES + self.0.len()
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

/// The key of an identity, for storage and authorisation: issuer, tenant, kind and subject. It is the same
/// for all tokens of a caller in a tenant.
///
/// `sub` alone is not a key. Two issuers or tenants may use the same value, and so may a client and a user
/// (RFC 8725 §3.8, RFC 9700 §4.15).
///
/// ```
/// use std::collections::HashMap;
///
/// use scaikey_auth::Identity;
/// use scaikey_auth::identity::IdentityKey;
///
/// /// The documents of each caller. In a database, store the four fields as four columns.
/// #[derive(Default)]
/// struct Documents(HashMap<IdentityKey, Vec<String>>);
///
/// impl Documents {
///     fn of(&self, caller: &Identity) -> &[String] {
///         self.0.get(&caller.key()).map_or(&[], Vec::as_slice)
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct IdentityKey {
    /// The issuer (`iss`).
    pub issuer: Arc<str>,
    /// The tenant, if the token names one.
    pub tenant_id: Option<TenantId>,
    /// The kind: user, service account or workload.
    pub kind: IdentityKind,
    /// The subject (`sub`).
    pub subject: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_id_rejects_spaces_and_wrong_lengths() {
        for id in ["tnt_acme_prod", "6f1c-…", "../x", &"a".repeat(255)] {
            assert_eq!(TenantId::new(id).unwrap().as_str(), id);
        }
        for id in ["", " ", "a b", "a\n", "a\0", &"a".repeat(256)] {
            assert_eq!(TenantId::new(id), Err(InvalidTenantId), "{id:?}");
        }
    }
}
