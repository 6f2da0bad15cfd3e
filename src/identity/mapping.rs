//! [`ClaimsMapping`]: the names of the claims, by default those of ScaiKey.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IdentityKind;

/// The place of a value in the claims: the name of a claim, or a JSON pointer (RFC 6901).
///
/// A path that begins with `/` is a pointer: Keycloak's roles are `/realm_access/roles`. Any other path is the
/// name of one claim, so that Auth0's `https://example.com/roles` needs no escapes.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimPath(Box<[Box<str>]>);

/// The error for a path that is empty, or has a `~` that is neither `~0` nor `~1`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a claim's name, such as `tenant_id`, or a JSON pointer, such as `/realm_access/roles`"
)]
pub struct InvalidClaimPath;

impl ClaimPath {
    /// Returns the reference tokens of the pointer, or the one name.
    pub(crate) fn steps(&self) -> &[Box<str>] {
        &self.0
    }

    /// Creates a path of one claim.
    fn claim(name: &str) -> Self {
        Self(Box::new([name.into()]))
    }
}

impl FromStr for ClaimPath {
    type Err = InvalidClaimPath;

    fn from_str(path: &str) -> Result<Self, InvalidClaimPath> {
        let Some(pointer) = path.strip_prefix('/') else {
            return if path.is_empty() { Err(InvalidClaimPath) } else { Ok(Self::claim(path)) };
        };
        let unescape = |step: &str| {
            let stray = step.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']));
            (!stray).then(|| step.replace("~1", "/").replace("~0", "~").into())
        };
        pointer.split('/').map(unescape).collect::<Option<_>>().map(Self).ok_or(InvalidClaimPath)
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [name] = &*self.0
            && !name.starts_with('/')
        {
            return f.write_str(name);
        }
        self.0
            .iter()
            .try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for ClaimPath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClaimPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The claims that an [`Identity`](super::Identity) is read from.
///
/// An attribute with one value is read from the first path that has a value; scopes, roles and groups are the
/// union of all paths. `null` counts as absent. A token with a value of the wrong JSON type is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ClaimsMapping {
    /// The tenant. Default `tenant_id`; for Entra ID, use `tid`.
    pub tenant_id: Vec<ClaimPath>,
    /// The partner of the tenant. Default `partner_id`.
    pub partner_id: Vec<ClaimPath>,
    /// The name for display. Default `name`, then `preferred_username`.
    pub display_name: Vec<ClaimPath>,
    /// The e-mail address. Default `email`.
    pub email: Vec<ClaimPath>,
    /// The scopes. Default `scope`, `scp` and `scopes`. A string is split at spaces, and so is each item of
    /// a list.
    pub scopes: Vec<ClaimPath>,
    /// The roles. Default `roles` and `role`; for Keycloak, use `/realm_access/roles`.
    pub roles: Vec<ClaimPath>,
    /// The groups. Default `groups`.
    pub groups: Vec<ClaimPath>,
    /// The values of `acr` that mean multi-factor authentication, in addition to `mfa` in `amr`. Default:
    /// none.
    pub mfa_acr: Vec<String>,
    /// The kind of every identity of this issuer. Default `None`: an identity is a service account if
    /// `token_type` is `client_credentials`, or if `sub` equals `client_id` (or `azp`, without a
    /// `client_id`); otherwise it is a user. Set it to `workload` for an issuer of workload tokens only,
    /// such as a Kubernetes cluster.
    pub kind: Option<IdentityKind>,
}

impl Default for ClaimsMapping {
    fn default() -> Self {
        let claims = |names: &[&str]| names.iter().map(|name| ClaimPath::claim(name)).collect();
        Self {
            tenant_id: claims(&["tenant_id"]),
            partner_id: claims(&["partner_id"]),
            display_name: claims(&["name", "preferred_username"]),
            email: claims(&["email"]),
            scopes: claims(&["scope", "scp", "scopes"]),
            roles: claims(&["roles", "role"]),
            groups: claims(&["groups"]),
            mfa_acr: Vec::new(),
            kind: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_a_name_or_a_pointer() {
        let table: [(&str, &[&str]); 5] = [
            ("tid", &["tid"]),
            ("https://example.com/roles", &["https://example.com/roles"]),
            ("/realm_access/roles", &["realm_access", "roles"]),
            ("/a~1b/m~0n", &["a/b", "m~n"]),
            ("/~01", &["~1"]),
        ];
        for (path, steps) in table {
            let parsed: ClaimPath = path.parse().unwrap();
            assert!(parsed.steps().iter().map(|step| &**step).eq(steps.iter().copied()), "{path}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{path}");
        }
        for path in ["", "/a~2b", "/a~"] {
            assert_eq!(path.parse::<ClaimPath>(), Err(InvalidClaimPath), "{path:?}");
        }
    }
}
