//! [`ClaimsMapping`]: the names of the claims, by default those of ScaiKey.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IdentityKind;
use super::claim_test::{ClaimTest, InvalidClaimTest};

/// The place of a value in the claims: the name of a claim, or a JSON pointer (RFC 6901).
///
/// A path that begins with `/` is a pointer: Keycloak's roles are `/realm_access/roles`. Any other path is the
/// name of one claim, so that Auth0's `https://example.com/roles` needs no escapes.
///
/// The setters of [`ClaimsMapping`] and [`IssuerConfig`](crate::IssuerConfig) take it as text.
///
/// ```
/// use scaikey_auth::identity::ClaimPath;
///
/// let mut mapping = scaikey_auth::identity::ClaimsMapping::default();
/// mapping.roles = vec!["/realm_access/roles".parse::<ClaimPath>()?];
/// // Not a pointer: one claim, whose name has dots.
/// let path: ClaimPath = "https://example.com/roles".parse()?;
/// mapping.groups.push(path);
/// # Ok::<_, scaikey_auth::identity::InvalidClaimPath>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
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

    /// Returns the pointer that was probably meant, if the path is the name of one claim with dots that is no
    /// URL and no host: `/realm_access/roles` for `realm_access.roles`.
    pub(crate) fn probable_pointer(&self) -> Option<String> {
        let [name] = &*self.0 else { return None };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
        let steps = name.strip_prefix("$.").unwrap_or(name);
        let is_dotted = name.contains('.') && name.chars().all(is_plain);
        (is_dotted && steps.split('.').all(|step| !step.is_empty()))
            .then(|| format!("/{}", steps.replace('.', "/")))
    }

    /// Returns whether the path is this top-level claim.
    pub(crate) fn is_claim(&self, name: &str) -> bool {
        matches!(&*self.0, [step] if **step == *name)
    }

    /// Creates a path of one claim.
    pub(crate) fn claim(name: &str) -> Self {
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
            && !name.is_empty()
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
/// union of all paths. `null` counts as absent. The page [request](crate::manual::request) says which claims of
/// the wrong JSON type refuse a token, and which count as absent.
///
/// Each setter replaces its field, and takes claim names and JSON pointers as text (see [`ClaimPath`]).
/// `build()` reports a path that is neither. [`Identity::from_claims`](super::Identity::from_claims) then
/// returns an error.
///
/// ```
/// use scaikey_auth::IssuerConfig;
/// use scaikey_auth::identity::{ClaimTest, ClaimsMapping};
///
/// let mapping = ClaimsMapping::default()
///     .tenant_id(["customer"])
///     .roles(["/permissions/docs/roles"])
///     .service_account([ClaimTest::equals("actor", "machine")])
///     .mfa([ClaimTest::equals("acr", "2")]);
/// let issuer = IssuerConfig::new("https://id.example").claims(mapping);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[must_use]
#[non_exhaustive]
pub struct ClaimsMapping {
    /// The subject: the identity of the caller within issuer, tenant and kind. Default `sub`.
    ///
    /// Use another claim only for a provider without `sub`, or if its `sub` differs from service to service
    /// (Entra ID: use `oid`). The provider must never give the value to another person: e-mail addresses and
    /// user names (`email`, `upn`, `preferred_username`) are reassigned, and the next owner would get the
    /// data of the former. The start of the service logs a warning for such names.
    ///
    /// The comparisons of users in exchanges, sign-ins and sessions use the same claim.
    pub subject: Vec<ClaimPath>,
    /// The tenant. Default `tenant_id`; for Entra ID, use `tid`.
    pub tenant_id: Vec<ClaimPath>,
    /// The partner of the tenant. Default `partner_id`.
    pub partner_id: Vec<ClaimPath>,
    /// The client that the token was issued to. Default `client_id`, then `azp`; for Okta, use `cid`.
    pub client_id: Vec<ClaimPath>,
    /// The name for display. Default `name`, then `preferred_username`.
    pub display_name: Vec<ClaimPath>,
    /// The e-mail address. Default `email`.
    pub email: Vec<ClaimPath>,
    /// The scopes. Default `scope`, `scp` and `scopes`. A string is split at spaces, and so is each item of
    /// a list.
    pub scopes: Vec<ClaimPath>,
    /// The roles. Default `roles` and `role`; for Keycloak, use `/realm_access/roles`.
    ///
    /// Roles and groups are names. A string is one name. In a list, each string is a name, and each object has
    /// its name in the member [`name_member`](field@Self::name_member). In an object, the name of each member
    /// whose value is `true` or an object counts. Anything else is ignored, and logged once for each issuer and
    /// claim.
    pub roles: Vec<ClaimPath>,
    /// The groups, which are read as the [roles](field@Self::roles) are. Default `groups`.
    pub groups: Vec<ClaimPath>,
    /// The member with the name, for lists of objects in roles and groups. Default `value` (RFC 7643 §2.4).
    pub name_member: String,
    /// The tests for service accounts. A token that passes any of them is a service account's. Default: none.
    ///
    /// The kind is decided by the first of: the field [`kind`](field@Self::kind), these tests, and the rule for
    /// all other tokens: an identity is a service account if `token_type` is `client_credentials`, or if the
    /// subject equals the client; otherwise it is a user. So the tests only add service accounts: no test makes
    /// a user of a token that the rule recognises.
    pub service_account: Vec<ClaimTest>,
    /// The tests for multi-factor authentication. One of them must pass. Default: `amr` contains `mfa`.
    pub mfa: Vec<ClaimTest>,
    /// The time of the authentication, in seconds since 1970:
    /// [`Identity::authenticated_at`](super::Identity::authenticated_at). It is also the time of a multi-factor
    /// authentication, if the items of `amr` do not state theirs. Default `auth_time`.
    pub auth_time: Vec<ClaimPath>,
    /// The kind of every identity of this issuer. Default `None`: see
    /// [`service_account`](field@Self::service_account). Set it to `workload` for an issuer of workload tokens
    /// only, such as a Kubernetes cluster.
    pub kind: Option<IdentityKind>,
    /// The invalid paths that setters got, each as its field and the number of the entry.
    #[serde(skip)]
    invalid: Vec<(&'static str, usize)>,
}

impl Default for ClaimsMapping {
    fn default() -> Self {
        let claims = |names: &[&str]| names.iter().map(|name| ClaimPath::claim(name)).collect();
        Self {
            subject: claims(&["sub"]),
            tenant_id: claims(&["tenant_id"]),
            partner_id: claims(&["partner_id"]),
            client_id: claims(&["client_id", "azp"]),
            display_name: claims(&["name", "preferred_username"]),
            email: claims(&["email"]),
            scopes: claims(&["scope", "scp", "scopes"]),
            roles: claims(&["roles", "role"]),
            groups: claims(&["groups"]),
            name_member: "value".to_owned(),
            service_account: Vec::new(),
            mfa: vec![ClaimTest::contains("amr", "mfa")],
            auth_time: claims(&["auth_time"]),
            kind: None,
            invalid: Vec::new(),
        }
    }
}

impl ClaimsMapping {
    /// Sets [`subject`](field@Self::subject).
    pub fn subject(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.subject = self.parse("subject", paths);
        self
    }

    /// Sets [`tenant_id`](field@Self::tenant_id).
    pub fn tenant_id(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.tenant_id = self.parse("tenant_id", paths);
        self
    }

    /// Sets [`partner_id`](field@Self::partner_id).
    pub fn partner_id(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.partner_id = self.parse("partner_id", paths);
        self
    }

    /// Sets [`client_id`](field@Self::client_id).
    pub fn client_id(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.client_id = self.parse("client_id", paths);
        self
    }

    /// Sets [`display_name`](field@Self::display_name).
    pub fn display_name(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.display_name = self.parse("display_name", paths);
        self
    }

    /// Sets [`email`](field@Self::email).
    pub fn email(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.email = self.parse("email", paths);
        self
    }

    /// Sets [`scopes`](field@Self::scopes).
    pub fn scopes(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.scopes = self.parse("scopes", paths);
        self
    }

    /// Sets [`roles`](field@Self::roles).
    pub fn roles(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.roles = self.parse("roles", paths);
        self
    }

    /// Sets [`groups`](field@Self::groups).
    pub fn groups(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.groups = self.parse("groups", paths);
        self
    }

    /// Sets [`auth_time`](field@Self::auth_time).
    pub fn auth_time(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.auth_time = self.parse("auth_time", paths);
        self
    }

    /// Sets [`name_member`](field@Self::name_member).
    pub fn name_member(mut self, name: impl Into<String>) -> Self {
        self.name_member = name.into();
        self
    }

    /// Sets [`service_account`](field@Self::service_account).
    pub fn service_account(mut self, tests: impl IntoIterator<Item = ClaimTest>) -> Self {
        self.service_account = tests.into_iter().collect();
        self
    }

    /// Sets [`mfa`](field@Self::mfa).
    pub fn mfa(mut self, tests: impl IntoIterator<Item = ClaimTest>) -> Self {
        self.mfa = tests.into_iter().collect();
        self
    }

    /// Sets [`kind`](field@Self::kind).
    pub fn kind(mut self, kind: IdentityKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Returns the valid paths of a field, and remembers the others.
    fn parse(
        &mut self,
        field: &'static str,
        paths: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Vec<ClaimPath> {
        self.invalid.retain(|(other, _)| *other != field);
        let mut valid = Vec::new();
        for (path, nth) in paths.into_iter().zip(1..) {
            match path.as_ref().parse() {
                Ok(path) => valid.push(path),
                Err(InvalidClaimPath) => self.invalid.push((field, nth)),
            }
        }
        valid
    }

    /// Returns all faults, each as a field and a problem.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let paths = self.invalid.iter();
        let mut faults: Vec<_> = paths
            .map(|(field, nth)| (*field, format!("entry {nth}: {InvalidClaimPath}")))
            .collect();
        for (field, tests) in [("service_account", &self.service_account), ("mfa", &self.mfa)] {
            let invalid = tests.iter().zip(1..).filter(|(test, _)| test.is_invalid());
            faults.extend(
                invalid.map(|(_, nth)| (field, format!("entry {nth}: {InvalidClaimTest}"))),
            );
        }
        if self.subject.is_empty() && faults.iter().all(|(field, _)| *field != "subject") {
            faults.push(("subject", "is empty: name the claim, such as `sub`".to_owned()));
        }
        if self.name_member.is_empty() {
            faults.push(("name_member", "is empty: name the member, such as `value`".to_owned()));
        }
        if self.kind.is_some() && !self.service_account.is_empty() {
            let problem = "has no effect, because `kind` is set: set only one of them";
            faults.push(("service_account", problem.to_owned()));
        }
        faults
    }

    /// Returns the path of the subject, if its claim is known for values that are given to another person.
    pub(crate) fn reassignable_subject(&self) -> Option<&ClaimPath> {
        const REASSIGNABLE: [&str; 9] = [
            "email",
            "mail",
            "name",
            "nickname",
            "phone_number",
            "preferred_username",
            "unique_name",
            "upn",
            "username",
        ];
        self.subject
            .iter()
            .find(|path| path.steps().last().is_some_and(|name| REASSIGNABLE.contains(&&**name)))
    }

    /// Returns the paths that look like a place within a claim, but name one claim: `realm_access.roles`. Each
    /// has its field and the pointer that was probably meant.
    pub(crate) fn dotted_paths(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("subject", &self.subject),
            ("tenant_id", &self.tenant_id),
            ("partner_id", &self.partner_id),
            ("client_id", &self.client_id),
            ("display_name", &self.display_name),
            ("email", &self.email),
            ("scopes", &self.scopes),
            ("roles", &self.roles),
            ("groups", &self.groups),
            ("auth_time", &self.auth_time),
        ];
        let dotted = |(field, paths): (&'static str, &Vec<ClaimPath>)| {
            let pointers = paths.iter().filter_map(ClaimPath::probable_pointer);
            pointers.map(|pointer| (field, pointer)).collect::<Vec<_>>()
        };
        fields.into_iter().flat_map(dotted).collect()
    }

    /// Returns whether a path or a test is invalid.
    pub(super) fn is_invalid(&self) -> bool {
        let mut tests = self.service_account.iter().chain(&self.mfa);
        !self.invalid.is_empty() || tests.any(ClaimTest::is_invalid)
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

    #[test]
    fn invalid_entries_are_faults_by_number() {
        let mapping = ClaimsMapping::default()
            .roles(["", "roles", "/~"])
            .groups([""])
            .groups(["groups"])
            .subject(["/a~2"])
            .mfa([ClaimTest::is_present("amr"), ClaimTest::equals("acr", "")]);
        let places: Vec<_> = mapping
            .faults()
            .into_iter()
            .map(|(field, problem)| format!("{field} {}", problem.split(':').next().unwrap()))
            .collect();
        assert_eq!(places, ["roles entry 1", "roles entry 3", "subject entry 1", "mfa entry 2"]);
        assert_eq!(mapping.roles, ["roles".parse().unwrap()]);
        assert!(mapping.is_invalid() && !ClaimsMapping::default().is_invalid());
    }

    #[test]
    fn settings_without_effect_are_faults() {
        let fields = |mapping: ClaimsMapping| -> Vec<_> {
            mapping.faults().into_iter().map(|(field, _)| field).collect()
        };
        assert!(fields(ClaimsMapping::default()).is_empty());
        assert_eq!(fields(ClaimsMapping::default().subject([""; 0])), ["subject"]);
        assert_eq!(fields(ClaimsMapping::default().name_member("")), ["name_member"]);
        let both = ClaimsMapping::default().kind(IdentityKind::Workload);
        assert!(fields(both.clone()).is_empty());
        let both = both.service_account([ClaimTest::is_present("cid")]);
        assert_eq!(fields(both), ["service_account"]);
    }
}
