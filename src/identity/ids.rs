//! Identifiers that cannot be mixed up: [`TenantId`] and [`IdentityKey`].

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ARC_COUNTS, IdentityKind};

/// The identifier of a tenant, compared byte for byte. Cheap to clone.
///
/// 1 to 255 bytes without white space or control characters. It is otherwise opaque: it may hold
/// `/` or `..`, so do not build paths from it.
#[derive(Clone)]
pub struct TenantId(Name);

/// Names as short as most are stay where they are: copies share no counter, which all threads
/// that serve the tenant would contend for, and are read without a detour through memory.
#[derive(Clone)]
enum Name {
    Short(Short),
    Long(Arc<str>),
}

/// Aligned, so that it is moved in whole words.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(align(8))]
struct Short {
    length: u8,
    octets: [u8; SHORT],
}

/// A UUID with its dashes has 36 octets; more than 39 would make the name larger by a word.
const SHORT: usize = 39;

impl Name {
    fn new(name: &str) -> Self {
        let mut octets = [0; SHORT];
        match (octets.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(name.as_bytes());
                Self::Short(Short { length, octets })
            }
            _ => Self::Long(name.into()),
        }
    }

    fn as_octets(&self) -> &[u8] {
        match self {
            Self::Short(Short { length, octets }) => {
                octets.get(..(*length).into()).unwrap_or_default()
            }
            Self::Long(name) => name.as_bytes(),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Short(_) => std::str::from_utf8(self.as_octets()).unwrap_or_default(),
            Self::Long(name) => name,
        }
    }
}

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
        Ok(Self(Name::new(id)))
    }

    /// The identifier as sent.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// How many bytes it holds elsewhere, as asked of the allocator.
    pub(super) fn footprint(&self) -> usize {
        match &self.0 {
            Name::Short(_) => 0,
            Name::Long(name) => ARC_COUNTS + name.len(),
        }
    }
}

impl PartialEq for TenantId {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            // What is behind the end is the same in all: whole rooms are compared without a loop.
            (Name::Short(own), Name::Short(other)) => own == other,
            (own, other) => own.as_octets() == other.as_octets(),
        }
    }
}

impl Eq for TenantId {}

impl Hash for TenantId {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.0.as_octets().hash(to);
    }
}

impl PartialOrd for TenantId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TenantId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_octets().cmp(other.0.as_octets())
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
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

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

    #[test]
    fn ids_are_compared_and_hashed_as_their_texts_are_however_long() {
        let hash = |id: &TenantId| BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let lengths = [1, 2, SHORT - 1, SHORT, SHORT + 1, 255];
        let mut texts: Vec<String> = lengths.map(|length| "t".repeat(length)).into();
        texts.extend(lengths.map(|length| "t".repeat(length - 1) + "u"));
        texts.push("é".repeat(SHORT / 2));
        for one in &texts {
            let id = TenantId::new(one).unwrap();
            assert_eq!((id.as_str(), &*id.to_string()), (&**one, &**one));
            for other in &texts {
                let other_id = TenantId::new(other).unwrap();
                assert_eq!(id.cmp(&other_id), one.cmp(other), "{one} {other}");
                assert_eq!(id == other_id, one == other, "{one} {other}");
                assert_eq!(hash(&id) == hash(&other_id), one == other, "{one} {other}");
            }
        }
        assert_eq!(size_of::<Option<TenantId>>(), 48);
    }
}
