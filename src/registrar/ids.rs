//! [`ParticipantId`] and [`WorkspaceId`]: opaque ids that this service assigns.

use std::fmt;

use serde::{Serialize, Serializer};

use super::RegistrarError;
use crate::support::crypto;

/// The error for an id that is empty, too long, or has white space or control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id must have 1 to 255 bytes, without white space or control characters")]
pub struct InvalidLocalId;

macro_rules! local_id {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        ///
        /// A UUID of version 4 (RFC 9562 §5.4), which has 36 characters and 122 random bits. A custom
        /// registrar may use other ids. Ids are never derived from a name or an e-mail address.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Creates a random id.
            ///
            /// # Errors
            /// If the operating system's random number generator fails.
            pub fn random() -> Result<Self, RegistrarError> {
                uuid().map(|id| Self(id.into()))
            }

            /// Creates an id from text, such as the value in a store.
            ///
            /// # Errors
            /// If the text is empty, longer than 255 bytes, or has white space or control characters.
            pub fn new(id: &str) -> Result<Self, InvalidLocalId> {
                let fits = (1..=255).contains(&id.len());
                if !fits || id.chars().any(|c| c.is_whitespace() || c.is_control()) {
                    return Err(InvalidLocalId);
                }
                Ok(Self(id.into()))
            }

            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }
    };
}

local_id! {
    /// The id of a participant, which represents an identity in this service.
    ParticipantId
}

local_id! {
    /// The id of a personal workspace, the area of one participant in this service.
    WorkspaceId
}

fn uuid() -> Result<String, RegistrarError> {
    let random = crypto::random().map_err(RegistrarError::store)?;
    let version = u128::from_be_bytes(random) & !(0xf << 76) | 0x4 << 76;
    let bits = version & !(0b11 << 62) | 0b10 << 62;
    let group = |shift: u32| (bits >> shift) & 0xffff;
    let (first, last) = (bits >> 96, bits & 0xffff_ffff_ffff);
    Ok(format!("{first:08x}-{:04x}-{:04x}-{:04x}-{last:012x}", group(80), group(64), group(48)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_ids_are_distinct_version_4_uuids() {
        let ids: HashSet<_> = (0..1000).map(|_| ParticipantId::random().unwrap()).collect();
        assert_eq!(ids.len(), 1000);
        for id in &ids {
            let groups: Vec<_> = id.as_str().split('-').collect();
            let lengths: Vec<_> = groups.iter().map(|group| group.len()).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
            assert!(groups[2].starts_with('4'), "{id}");
            assert!(groups[3].starts_with(['8', '9', 'a', 'b']), "{id}");
        }
        let bit = |id: &ParticipantId, n: usize| {
            u128::from_str_radix(&id.as_str().replace('-', ""), 16).unwrap() >> n & 1
        };
        for n in (0..128).filter(|n| ![62, 63, 76, 77, 78, 79].contains(n)) {
            let ones = ids.iter().filter(|id| bit(id, n) == 1).count();
            assert!((300..700).contains(&ones), "bit {n} is not random");
        }
    }

    #[test]
    fn custom_ids_are_validated() {
        for id in ["prt_1", "7", &"a".repeat(255)] {
            assert_eq!(WorkspaceId::new(id).unwrap().as_str(), id);
        }
        for id in ["", " ", "a b", "a\n", "a\0", &"a".repeat(256)] {
            assert_eq!(WorkspaceId::new(id), Err(InvalidLocalId), "{id:?}");
        }
    }
}
