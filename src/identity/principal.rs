//! [`Identity`]: the caller, as described by a verified token.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Confirmation, IdentityKey, Scopes, TenantId};
use crate::support::json::Span;

/// The kind of an identity.
///
/// It is part of [`IdentityKey`], because a client and a user may have the same id (RFC 9700 §4.15).
///
/// ```
/// use scaikey_auth::guard::kind;
/// use scaikey_auth::identity::IdentityKind;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // Nightly jobs only: a person gets 403.
/// let jobs = auth.require(kind(IdentityKind::ServiceAccount));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IdentityKind {
    /// A person.
    User,
    /// A client that acts for itself (RFC 6749 §4.4).
    ServiceAccount,
    /// A workload that its platform vouches for (Kubernetes, a cloud, a CI system).
    Workload,
}

impl IdentityKind {
    /// Returns the name in JSON and logs: `user`, `service_account` or `workload`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
            Self::Workload => "workload",
        }
    }
}

impl fmt::Display for IdentityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The evidence for an identity.
///
/// ```
/// use scaikey_auth::identity::{ClaimsMapping, Provenance};
/// use scaikey_auth::Identity;
/// use serde_json::json;
///
/// let claims = json!({ "iss": "https://id.example", "sub": "7", "exp": 4102444800u64 });
/// let identity = Identity::from_claims(&claims, &ClaimsMapping::default(), Provenance::Introspected)?;
/// assert!(!identity.is_mock());
/// # Ok::<_, scaikey_auth::error::InvalidToken>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Provenance {
    /// This service verified the signature of a configured issuer, or the service's own validator verified
    /// the token.
    Verified,
    /// The issuer confirmed an opaque token by introspection (RFC 7662):
    /// [`OpaqueTokens`](crate::validator::OpaqueTokens), or your own validator.
    Introspected,
    /// There is no evidence: the identity is made up, for example by mock mode, hybrid mode or
    /// `testing::identity`.
    Mock,
}

impl Provenance {
    /// Returns `verified`, `introspected` or `mock`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Introspected => "introspected",
            Self::Mock => "mock",
        }
    }
}

/// A party that acts for the subject (`act`, RFC 8693 §4.1).
///
/// If the claim cannot be read, for example because it is a string, all fields are `None`: the token has an
/// actor, but does not say which.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Actor {
    /// The actor's `sub`.
    pub subject: Option<Box<str>>,
    /// The actor's `client_id`.
    pub client_id: Option<Box<str>>,
    /// The actor's `iss`, when it differs from the token's.
    pub issuer: Option<Box<str>>,
}

impl Actor {
    pub(super) const UNREADABLE: Self = Self { subject: None, client_id: None, issuer: None };
}

/// The identity of a caller. Clones are cheap, because they share one allocation.
///
/// Only [`issuer`](Self::issuer), [`tenant_id`](Self::tenant_id), [`kind`](Self::kind) and
/// [`subject`](Self::subject) together identify a caller: use [`key`](Self::key). Names and e-mail addresses
/// change, and users may choose them freely, so they are for display only.
///
/// ```
/// use scaikey_auth::Identity;
/// use scaikey_auth::identity::IdentityKey;
///
/// /// The owner of a new document, and the name to show.
/// fn author(caller: &Identity) -> (IdentityKey, String) {
///     let name = caller.display_name().unwrap_or_else(|| caller.subject());
///     (caller.key(), name.to_owned())
/// }
/// ```
#[derive(Clone)]
pub struct Identity(pub(super) Arc<Inner>);

#[derive(Clone)]
pub(super) struct Inner {
    pub(super) tenant_id: Option<TenantId>,
    pub(super) provenance: Provenance,
    pub(super) kind: IdentityKind,
    /// `None` if the token does not say it about the address in `email`.
    pub(super) email_verified: Option<bool>,
    pub(super) has_group_overage: bool,
    /// Whether the claims are those of an ID token, so that the token of the request is another one.
    #[cfg_attr(not(feature = "jsonwebtoken"), allow(dead_code, reason = "only the bridge asks"))]
    pub(super) is_of_id_token: bool,
    /// The length of the claims at the start of `text`, in bytes.
    pub(super) claims_length: u32,
    pub(super) issuer: Arc<str>,
    /// The JSON of the claims, followed by its escaped strings in unescaped form, and by the groups of a
    /// [`GroupSource`](crate::validator::GroupSource).
    pub(super) text: Box<str>,
    // The following spans are places in `text`.
    pub(super) subject: Span,
    pub(super) partner_id: Span,
    pub(super) client_id: Span,
    pub(super) display_name: Span,
    pub(super) email: Span,
    pub(super) session_id: Span,
    pub(super) token_id: Span,
    pub(super) acr: Span,
    /// The roles, followed by the groups.
    pub(super) names: Box<[Span]>,
    pub(super) scopes: Scopes,
    pub(super) issued_at: Option<SystemTime>,
    pub(super) expires_at: SystemTime,
    /// The end of the time in which the validator accepts the token.
    pub(super) valid_until: SystemTime,
    /// The time since which the issuer has vouched for an opaque token.
    pub(super) answered_at: Option<SystemTime>,
    pub(super) authenticated_at: Option<SystemTime>,
    pub(super) mfa_verified_at: Option<SystemTime>,
    pub(super) actors: Box<[Actor]>,
    /// Boxed, because few tokens are bound.
    pub(super) confirmation: Option<Box<Confirmation>>,
    /// The number of roles in `names`.
    pub(super) roles: u32,
    /// Boxed, because it is empty as long as nothing is revoked.
    pub(super) digests: OnceLock<Box<[Digest]>>,
}

/// The length of a [`Digest`], in bytes.
pub(crate) const DIGEST_BYTES: usize = 16;

/// A digest of some attributes of an identity.
pub(crate) type Digest = [u8; DIGEST_BYTES];

impl Identity {
    /// Returns `iss`, the issuer, unchanged.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Returns the subject: by default, the claim `sub`. It is unique only within issuer, tenant and kind.
    pub fn subject(&self) -> &str {
        self.text(self.0.subject).unwrap_or_default()
    }

    /// Returns the kind: user, service account or workload.
    pub fn kind(&self) -> IdentityKind {
        self.0.kind
    }

    /// Returns the key for storage and authorisation: issuer, tenant, kind and subject.
    pub fn key(&self) -> IdentityKey {
        IdentityKey {
            issuer: self.0.issuer.clone(),
            tenant_id: self.0.tenant_id.clone(),
            kind: self.0.kind,
            subject: self.subject().into(),
        }
    }

    /// Returns the tenant that the token was issued for. A request may run in another tenant, if the
    /// service allows it: see `AuthContext::tenant`.
    pub fn tenant_id(&self) -> Option<&TenantId> {
        self.0.tenant_id.as_ref()
    }

    /// Returns the partner of the tenant, if the token names one: by default, the claim `partner_id` of
    /// ScaiKey.
    pub fn partner_id(&self) -> Option<&str> {
        self.text(self.0.partner_id)
    }

    /// Returns the client that the token was issued to: by default `client_id`, or `azp`.
    pub fn client_id(&self) -> Option<&str> {
        self.text(self.0.client_id)
    }

    /// Returns a name for display: by default `name`, or `preferred_username`. It may change, and is not
    /// unique.
    pub fn display_name(&self) -> Option<&str> {
        self.text(self.0.display_name)
    }

    /// Returns the e-mail address: by default, the claim `email`. It may be unverified: see
    /// [`email_verified`](Self::email_verified).
    pub fn email(&self) -> Option<&str> {
        self.text(self.0.email)
    }

    /// Returns whether the issuer says that it verified the address (`email_verified`). False if the claim
    /// is absent or not a boolean, and if [`email`](Self::email) is not the claim `email`, because
    /// `email_verified` is about that claim only.
    pub fn email_verified(&self) -> bool {
        self.0.email_verified == Some(true)
    }

    /// Returns what the token says about the address: `None` if it has no address, or does not say
    /// whether it is verified.
    #[cfg(feature = "endpoints")]
    pub(crate) fn email_verification(&self) -> Option<bool> {
        self.0.email_verified
    }

    /// Returns the identity with the name and the e-mail address of `other`, another token of the
    /// same user, if its own token has none. The address keeps what its token says about it.
    #[cfg(feature = "endpoints")]
    pub(crate) fn with_profile_of(&self, other: &Self) -> Self {
        let mut inner = Inner::clone(&self.0);
        let mut text = String::from(std::mem::take(&mut inner.text));
        if let (None, Some(name)) = (self.display_name(), other.display_name()) {
            inner.display_name = Span::append(&mut text, name).unwrap_or(inner.display_name);
        }
        if let (None, Some(email)) = (self.email(), other.email()) {
            inner.email = Span::append(&mut text, email).unwrap_or(inner.email);
            inner.email_verified = other.0.email_verified;
        }
        inner.text = text.into();
        Self(Arc::new(inner))
    }

    /// Returns the scopes: by default, the union of the claims `scope`, `scp` and `scopes`. See
    /// [`ClaimsMapping`](super::ClaimsMapping).
    pub fn scopes(&self) -> &Scopes {
        &self.0.scopes
    }

    /// Returns the roles: by default, the union of the claims `roles` and `role`.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.names().take(self.0.roles as usize)
    }

    /// Returns whether `role` is one of the roles. Case matters.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|other| other == role)
    }

    /// Returns the groups: by default, the claim `groups`.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.names().skip(self.0.roles as usize)
    }

    /// Returns whether the provider left the groups out of the token because there are too many: `_claim_names`
    /// names `groups`, or `hasgroups` is true, as in tokens of Entra ID. Then the groups are not known, and
    /// [`groups`](Self::groups) has only those of other claims. False after a
    /// [`GroupSource`](crate::validator::GroupSource) has returned the groups.
    pub fn has_group_overage(&self) -> bool {
        self.0.has_group_overage
    }

    /// Returns the identity with other groups, which are then complete; `None` if there are too many.
    pub(crate) fn with_groups(&self, groups: &[String]) -> Option<Self> {
        let mut inner = Inner::clone(&self.0);
        let mut text = String::from(std::mem::take(&mut inner.text));
        let mut names: Vec<_> = inner.names.iter().take(inner.roles as usize).copied().collect();
        let mut seen = BTreeSet::new();
        for group in groups.iter().filter(|group| seen.insert(group.as_str())) {
            names.push(Span::append(&mut text, group)?);
        }
        (inner.text, inner.names, inner.has_group_overage) = (text.into(), names.into(), false);
        Some(Self(Arc::new(inner)))
    }

    /// Returns whether `group` is one of the groups. Case matters.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups().any(|other| other == group)
    }

    /// Returns the time of the last multi-factor authentication, if a test in
    /// [`ClaimsMapping::mfa`](field@super::ClaimsMapping::mfa) passes: by default, if `amr` contains `mfa`.
    ///
    /// The time is that of the authentication methods that the test found, if the items of `amr` are objects
    /// with a `timestamp` (as those of Supabase; the earliest of them counts). Otherwise it is `auth_time`. If
    /// several tests pass, the latest of their times counts.
    /// `None` if the token states no readable time: then [`mfa_within`](crate::guard::mfa_within) refuses the
    /// identity. `iat` is never used instead, because a token may be renewed long after the authentication.
    pub fn mfa_verified_at(&self) -> Option<SystemTime> {
        self.0.mfa_verified_at
    }

    /// Returns the time of the user's authentication: by default, the claim `auth_time` (OpenID Connect Core §2), in
    /// whole seconds. `None` if the token states no readable time. It is that of the sign-in at the provider, and
    /// stays the same when a token is renewed.
    pub fn authenticated_at(&self) -> Option<SystemTime> {
        self.0.authenticated_at
    }

    /// Returns `sid`, the session at the issuer (OpenID Connect Back-Channel Logout §2.1), unchanged. It is
    /// unique only within the issuer. Many issuers put none into access tokens.
    pub fn session_id(&self) -> Option<&str> {
        self.text(self.0.session_id)
    }

    /// Returns `jti`, the id of this token (RFC 7519 §4.1.7), unchanged. It is unique only within the issuer.
    pub fn token_id(&self) -> Option<&str> {
        self.text(self.0.token_id)
    }

    /// Returns `acr`, the issuer's name for the strength of the authentication (OpenID Connect Core §2),
    /// unchanged.
    pub fn acr(&self) -> Option<&str> {
        self.text(self.0.acr)
    }

    /// Returns `cnf`, the key that the token is bound to, if any.
    ///
    /// If a layer accepted the request, the sender has proven possession of the key. A
    /// [validator](crate::TokenValidator) alone verifies no proof.
    pub fn confirmation(&self) -> Option<&Confirmation> {
        self.0.confirmation.as_deref()
    }

    /// Returns the time of issue (`iat`), in whole seconds.
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.0.issued_at
    }

    /// Returns the expiry (`exp`), in whole seconds and without leeway.
    pub fn expires_at(&self) -> SystemTime {
        self.0.expires_at
    }

    /// Returns the end of the time in which the validator accepts the token: by default,
    /// [`expires_at`](Self::expires_at).
    pub(crate) fn valid_until(&self) -> SystemTime {
        self.0.valid_until
    }

    /// Sets [`valid_until`](Self::valid_until), which depends on the leeway of the validator.
    pub(crate) fn with_valid_until(mut self, end: SystemTime) -> Self {
        Arc::make_mut(&mut self.0).valid_until = end;
        self
    }

    /// Returns the time since which the answer of the issuer about an opaque token counts.
    pub(crate) fn answered_at(&self) -> Option<SystemTime> {
        self.0.answered_at
    }

    /// Sets [`answered_at`](Self::answered_at).
    pub(crate) fn with_answered_at(mut self, time: SystemTime) -> Self {
        Arc::make_mut(&mut self.0).answered_at = Some(time);
        self
    }

    /// Marks the identity as that of an ID token, which the request does not carry.
    pub(crate) fn of_id_token(mut self) -> Self {
        Arc::make_mut(&mut self.0).is_of_id_token = true;
        self
    }

    /// Returns whether the token of the request is another one than that of the identity.
    #[cfg(feature = "jsonwebtoken")]
    pub(crate) fn is_of_id_token(&self) -> bool {
        self.0.is_of_id_token
    }

    /// Returns the evidence for this identity.
    pub fn provenance(&self) -> Provenance {
        self.0.provenance
    }

    /// Returns whether this identity is made up: [`Provenance::Mock`].
    pub fn is_mock(&self) -> bool {
        self.0.provenance == Provenance::Mock
    }

    /// Returns the party that currently acts for the subject (the outermost `act`).
    pub fn actor(&self) -> Option<&Actor> {
        self.0.actors.first()
    }

    /// Returns the actors before [`actor`](Self::actor), newest first. They are for audit only: RFC 8693 §4.1
    /// forbids access decisions based on them.
    pub fn prior_actors(&self) -> &[Actor] {
        self.0.actors.get(1..).unwrap_or_default()
    }

    /// Returns digests of the attributes by which a token can be revoked. The first call computes them, and all
    /// clones share them.
    pub(crate) fn digests(&self, compute: impl FnOnce(&Self) -> Box<[Digest]>) -> &[Digest] {
        self.0.digests.get_or_init(|| compute(self))
    }

    /// Deserialises the claims of the token into `T`. Each call parses them again.
    ///
    /// # Errors
    /// If the claims do not fit `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.text.get(..self.0.claims_length as usize).unwrap_or_default())
    }

    fn text(&self, span: Span) -> Option<&str> {
        self.0.text.get(span.range())
    }

    /// Returns the roles, followed by the groups.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names.iter().filter_map(|span| self.text(*span))
    }

    /// Returns the number of allocated bytes. The issuer's name is not included, because all identities of the
    /// issuer share it.
    pub(crate) fn footprint(&self) -> usize {
        let Inner { tenant_id, text, names, scopes, actors, confirmation, .. } = &*self.0;
        let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let named = |actor: &Actor| {
            length(&actor.subject) + length(&actor.client_id) + length(&actor.issuer)
        };
        ARC_HEADER_BYTES
            + size_of::<Inner>()
            + tenant_id.as_ref().map_or(0, TenantId::footprint)
            + size_of_val(&**names)
            + scopes.footprint()
            + size_of_val(&**actors)
            + actors.iter().map(named).sum::<usize>()
            + confirmation.as_deref().map_or(0, size_of_val)
            + text.len()
    }
}

/// The size of the two counters of an `Arc`, in bytes.
pub(super) const ARC_HEADER_BYTES: usize = 2 * size_of::<usize>();

/// Prints the identifying parts only: no names, no addresses, no claims.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("issuer", &self.0.issuer)
            .field("tenant_id", &self.0.tenant_id)
            .field("kind", &self.0.kind)
            .field("subject", &self.subject())
            .field("provenance", &self.0.provenance)
            .finish_non_exhaustive()
    }
}
