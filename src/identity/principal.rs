//! [`Identity`]: who is calling, as a verified token says it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Confirmation, IdentityKey, Scopes, TenantId};
use crate::support::json::Span;

/// What kind of party an identity is.
///
/// Part of [`IdentityKey`], because the id of a client may equal the id of a user (RFC 9700 §4.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IdentityKind {
    /// A person.
    User,
    /// A client acting for itself (RFC 6749 §4.4).
    ServiceAccount,
    /// A workload vouched for by its platform (Kubernetes, a cloud, a CI system).
    Workload,
}

impl IdentityKind {
    /// The name used on the wire: `user`, `service_account` or `workload`.
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

/// How we came to believe an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Provenance {
    /// A signature by a configured issuer was verified here.
    Verified,
    /// The issuer vouched for an opaque token (RFC 7662).
    Introspected,
    /// Nobody was asked: mock or hybrid mode.
    Mock,
}

impl Provenance {
    /// `verified`, `introspected` or `mock`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Introspected => "introspected",
            Self::Mock => "mock",
        }
    }
}

/// A party that acts for the subject (`act`, RFC 8693 §4.1).
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

/// Who is calling. Cheap to clone: clones share one allocation.
///
/// Only [`issuer`](Self::issuer), [`tenant_id`](Self::tenant_id), [`kind`](Self::kind) and
/// [`subject`](Self::subject) together identify somebody: use [`key`](Self::key). Names and e-mail
/// addresses change and may be chosen by the person; they are for display.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) tenant_id: Option<TenantId>,
    pub(super) provenance: Provenance,
    pub(super) kind: IdentityKind,
    pub(super) email_verified: bool,
    /// How much of the text was sent.
    pub(super) sent: u32,
    pub(super) issuer: Arc<str>,
    /// The claims as sent, and behind them the strings that are written with escapes there, without.
    pub(super) text: Box<str>,
    // Where in the text it stands.
    pub(super) subject: Span,
    pub(super) partner_id: Span,
    pub(super) client_id: Span,
    pub(super) display_name: Span,
    pub(super) email: Span,
    pub(super) session_id: Span,
    pub(super) token_id: Span,
    pub(super) acr: Span,
    /// First the roles, then the groups.
    pub(super) names: Box<[Span]>,
    pub(super) scopes: Scopes,
    pub(super) issued_at: Option<SystemTime>,
    pub(super) expires_at: SystemTime,
    pub(super) mfa_verified_at: Option<SystemTime>,
    pub(super) actors: Box<[Actor]>,
    /// In a box, because few tokens are bound.
    pub(super) confirmation: Option<Box<Confirmation>>,
    /// How many of the names are roles.
    pub(super) roles: u32,
}

impl Identity {
    /// `iss`: the issuer that vouches, byte for byte.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// `sub`: unique within issuer, tenant and kind only.
    pub fn subject(&self) -> &str {
        self.text(self.0.subject).unwrap_or_default()
    }

    /// User, service account or workload.
    pub fn kind(&self) -> IdentityKind {
        self.0.kind
    }

    /// The key to store and to authorize by: issuer, tenant, kind and subject.
    pub fn key(&self) -> IdentityKey {
        IdentityKey {
            issuer: self.0.issuer.clone(),
            tenant_id: self.0.tenant_id.clone(),
            kind: self.0.kind,
            subject: self.subject().into(),
        }
    }

    /// The tenant the token was issued for. The tenant a *request* runs in is
    /// `AuthContext::tenant`, which an authoriser may have switched.
    pub fn tenant_id(&self) -> Option<&TenantId> {
        self.0.tenant_id.as_ref()
    }

    /// The partner the tenant belongs to (ScaiKey's `partner_id`).
    pub fn partner_id(&self) -> Option<&str> {
        self.text(self.0.partner_id)
    }

    /// The client the token was issued to (`client_id`, else `azp`).
    pub fn client_id(&self) -> Option<&str> {
        self.text(self.0.client_id)
    }

    /// A name to show.
    pub fn display_name(&self) -> Option<&str> {
        self.text(self.0.display_name)
    }

    /// The e-mail address, verified or not: see [`email_verified`](Self::email_verified).
    pub fn email(&self) -> Option<&str> {
        self.text(self.0.email)
    }

    /// Whether the issuer says it verified the address. Absent counts as no.
    pub fn email_verified(&self) -> bool {
        self.0.email_verified
    }

    /// What the token may be used for: the union of the claims `scope`, `scp` and `scopes`.
    pub fn scopes(&self) -> &Scopes {
        &self.0.scopes
    }

    /// The union of the claims `roles` and `role`.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.names().take(self.0.roles as usize)
    }

    /// Whether `role` is among the roles, exactly.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|held| held == role)
    }

    /// The claim `groups`.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.names().skip(self.0.roles as usize)
    }

    /// Whether `group` is among the groups, exactly.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups().any(|held| held == group)
    }

    /// When the user last passed multi-factor authentication: `auth_time`, if `amr` contains
    /// `mfa` or `acr` is one configured as such. Never guessed from `iat`.
    pub fn mfa_verified_at(&self) -> Option<SystemTime> {
        self.0.mfa_verified_at
    }

    /// `sid`: the session at the issuer that the token belongs to (OpenID Connect Back-Channel Logout
    /// §2.1), as sent. Unique within the issuer only. Many issuers put none into access tokens.
    pub fn session_id(&self) -> Option<&str> {
        self.text(self.0.session_id)
    }

    /// `jti`: the name of this one token (RFC 7519 §4.1.7), as sent. Unique within the issuer only.
    pub fn token_id(&self) -> Option<&str> {
        self.text(self.0.token_id)
    }

    /// `acr`: how strongly the user was authenticated, in the issuer's own words (OpenID Connect Core
    /// §2), as sent.
    pub fn acr(&self) -> Option<&str> {
        self.text(self.0.acr)
    }

    /// `cnf`: the key that the token is bound to, if it is bound to any.
    ///
    /// In a request that a layer let through, its sender has proven that it has the key. A
    /// [validator](crate::TokenValidator) used alone judges no proof.
    pub fn confirmation(&self) -> Option<&Confirmation> {
        self.0.confirmation.as_deref()
    }

    /// `iat`.
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.0.issued_at
    }

    /// `exp`.
    pub fn expires_at(&self) -> SystemTime {
        self.0.expires_at
    }

    /// How we came to believe this identity.
    pub fn provenance(&self) -> Provenance {
        self.0.provenance
    }

    /// Whether mock or hybrid mode made this identity up.
    pub fn is_mock(&self) -> bool {
        self.0.provenance == Provenance::Mock
    }

    /// The party now acting for the subject (the outermost `act`).
    pub fn actor(&self) -> Option<&Actor> {
        self.0.actors.first()
    }

    /// The actors before [`actor`](Self::actor), newest first. For audit only: RFC 8693 §4.1
    /// forbids deciding access by them.
    pub fn prior_actors(&self) -> &[Actor] {
        self.0.actors.get(1..).unwrap_or_default()
    }

    /// The claims as sent, as a type of yours. Parsed on each call.
    ///
    /// # Errors
    /// When the claims do not fit `T`.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.text.get(..self.0.sent as usize).unwrap_or_default())
    }

    fn text(&self, span: Span) -> Option<&str> {
        self.0.text.get(span.range())
    }

    /// The roles, then the groups.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names.iter().filter_map(|span| self.text(*span))
    }

    /// How many bytes it holds, as asked of the allocator; the issuer's name belongs to the issuer.
    pub(crate) fn footprint(&self) -> usize {
        let Inner { tenant_id, text, names, scopes, actors, confirmation, .. } = &*self.0;
        let length = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let named = |actor: &Actor| {
            length(&actor.subject) + length(&actor.client_id) + length(&actor.issuer)
        };
        ARC_COUNTS
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

/// The counters in front of what an `Arc` points to.
pub(super) const ARC_COUNTS: usize = 2 * size_of::<usize>();

/// Identifying parts only: no names, no addresses, no claims.
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
