//! [`Scopes`]: a set of OAuth scopes (RFC 6749 §3.3).

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of scopes: case-sensitive, without duplicates.
///
/// There is no hierarchy and no wildcard: `admin:*`, `admin:read` and `admin` are three unrelated scopes.
///
/// ```
/// use scaikey_auth::identity::Scopes;
///
/// let held: Scopes = "docs:read docs:write docs:read".parse()?;
/// assert!(held.contains("docs:write") && !held.contains("docs"));
/// assert!(held.contains_all(&"docs:read".parse()?));
/// assert_eq!(held.as_str(), "docs:read docs:write");
/// # Ok::<_, scaikey_auth::identity::InvalidScope>(())
/// ```
#[derive(Clone, Default)]
pub struct Scopes {
    /// The scopes, separated by single spaces, so that a set has one allocation.
    joined: String,
}

/// The maximum length of a list whose scopes are searched one by one, in bytes. This search needs no
/// allocation. A longer list may come from an attacker, so it is hashed instead.
const LINEAR_SEARCH_BYTES: usize = 128;

/// The error for a scope with a character that RFC 6749 §3.3 does not allow. A scope is printable ASCII
/// without space, `"` and `\`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a scope consists of printable ASCII without space, `\"` and `\\`")]
pub struct InvalidScope;

impl Scopes {
    /// Returns the empty set.
    pub const fn new() -> Self {
        Self { joined: String::new() }
    }

    /// Adds every scope of a space-separated list.
    ///
    /// # Errors
    /// If a scope has a character that RFC 6749 §3.3 does not allow. The scopes before it are added.
    pub fn insert(&mut self, list: &str) -> Result<(), InvalidScope> {
        let earlier = self.joined.clone();
        let mut seen: BTreeSet<&str> = split(&earlier).collect();
        // Reserves exactly what is needed: most identities have one list, and they stay in memory while
        // cached.
        self.joined.reserve_exact(list.len() + usize::from(!earlier.is_empty()));
        for scope in split(list) {
            if !scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E)) {
                return Err(InvalidScope);
            }
            if !seen.insert(scope) {
                continue;
            }
            if !self.joined.is_empty() {
                self.joined.push(' ');
            }
            self.joined.push_str(scope);
        }
        Ok(())
    }

    pub(super) fn footprint(&self) -> usize {
        self.joined.capacity()
    }

    /// Returns whether `scope` is a member. Case matters.
    pub fn contains(&self, scope: &str) -> bool {
        self.iter().any(|member| member == scope)
    }

    /// Returns whether every scope of `required` is a member.
    pub fn contains_all(&self, required: &Scopes) -> bool {
        if required.joined.len() <= LINEAR_SEARCH_BYTES {
            return required.iter().all(|scope| self.contains(scope));
        }
        let members: HashSet<&str> = self.iter().collect();
        required.iter().all(|scope| members.contains(scope))
    }

    /// Returns the members, in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        split(&self.joined)
    }

    /// Returns whether the set has no members.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
    }

    /// Returns the members in the order of insertion, separated by single spaces, as in the OAuth parameter
    /// `scope`.
    pub fn as_str(&self) -> &str {
        &self.joined
    }
}

/// Returns the scopes of a space-separated list.
fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|scope| !scope.is_empty())
}

impl FromStr for Scopes {
    type Err = InvalidScope;

    fn from_str(list: &str) -> Result<Self, InvalidScope> {
        let mut scopes = Self::new();
        scopes.insert(list)?;
        Ok(scopes)
    }
}

impl PartialEq for Scopes {
    fn eq(&self, other: &Self) -> bool {
        self.contains_all(other) && other.contains_all(self)
    }
}

impl Eq for Scopes {}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined)
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Serialises as a list.
impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

/// Deserialises from a list or a space-separated string.
impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Input {
            Text(String),
            List(Vec<String>),
        }
        let list = match Input::deserialize(from)? {
            Input::Text(text) => text,
            Input::List(list) => list.join(" "),
        };
        list.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_case_sensitive_set() {
        let scopes: Scopes = "read  write Read read".parse().unwrap();
        assert_eq!(scopes.iter().collect::<Vec<_>>(), ["read", "write", "Read"]);
        assert_eq!(scopes, "Read read write".parse().unwrap());
        assert!(!scopes.contains("rea") && !scopes.contains("") && !scopes.contains("read write"));
        assert!(Scopes::new().is_empty() && scopes.contains_all(&Scopes::new()));
    }

    #[test]
    fn characters_outside_the_grammar_are_refused() {
        for list in ["a\"b", "a\\b", "a\tb", "é", "a\n"] {
            assert_eq!(list.parse::<Scopes>(), Err(InvalidScope), "{list:?}");
        }
    }

    #[test]
    fn long_lists_behave_as_short_ones() {
        let names = || (0..500).map(|n| format!("s{}", n % 250));
        let long: Scopes = names().collect::<Vec<_>>().join(" ").parse().unwrap();
        assert!(long.iter().eq((0..250).map(|n| format!("s{n}"))));
        let mut grown: Scopes = "s249 s3".parse().unwrap();
        grown.insert(long.as_str()).unwrap();
        assert_eq!((grown.iter().next(), grown.iter().count()), (Some("s249"), 250));
        assert!(grown == long && grown.contains_all(&"s7 s8".parse().unwrap()));
        grown.insert("one-more").unwrap();
        assert!(grown != long && grown.contains_all(&long) && !long.contains_all(&grown));
        let list: Scopes = serde_json::from_value(names().collect()).unwrap();
        assert_eq!(list, long);
    }
}
