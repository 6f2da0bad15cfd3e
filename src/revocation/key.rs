//! [`Kind`] and [`Key`]: what an entry of the index refuses.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::identity::{Actor, DIGEST_BYTES, Identity, TenantId};
use crate::support::crypto;

/// The kind of an entry. The numbers are in logs of revocations, so they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Token = 0,
    Session = 1,
    /// The tokens of a subject that have no `sid`.
    SubjectWithoutSession = 2,
    Subject = 3,
    SubjectInTenant = 4,
    Client = 5,
    ClientInTenant = 6,
    Tenant = 7,
    Issuer = 8,
    /// The tokens of a subject that name no tenant.
    SubjectWithoutTenant = 9,
}

impl Kind {
    pub(super) const ALL: [Self; 10] = [
        Self::Token,
        Self::Session,
        Self::SubjectWithoutSession,
        Self::Subject,
        Self::SubjectInTenant,
        Self::Client,
        Self::ClientInTenant,
        Self::Tenant,
        Self::Issuer,
        Self::SubjectWithoutTenant,
    ];

    /// Returns the name in logs, metrics and keys.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::SubjectWithoutSession => "subject_without_session",
            Self::Subject => "subject",
            Self::SubjectInTenant => "subject_in_tenant",
            Self::Client => "client",
            Self::ClientInTenant => "client_in_tenant",
            Self::Tenant => "tenant",
            Self::Issuer => "issuer",
            Self::SubjectWithoutTenant => "subject_without_tenant",
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Returns whether an entry may refuse tokens whatever their `iat`, because the id says which ones are meant.
    pub(super) const fn may_be_timeless(self) -> bool {
        matches!(self, Self::Token | Self::Session)
    }
}

/// The first half of the SHA-256 of kind, issuer and ids. It is the same in all processes, so that a process can
/// write an entry that it knows only by its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(pub(super) [u8; DIGEST_BYTES]);

impl Key {
    /// The key of an attribute that an identity does not have.
    pub(super) const NONE: Self = Self([0; DIGEST_BYTES]);

    pub(super) fn new(kind: Kind, issuer: &str, ids: &[&str]) -> Self {
        let parts = [kind.as_str(), issuer].into_iter().chain(ids.iter().copied());
        let digest = crypto::sha256_of_parts(parts);
        Self(*digest.first_chunk().unwrap_or(&[0; DIGEST_BYTES]))
    }

    /// Returns the first byte.
    pub(super) fn first(self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }
}

/// Writes a pseudonym: it contains no id, but can be computed from the id.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crypto::hex(&self.0))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, to: &mut H) {
        to.write(&self.0);
    }
}

/// What the kinds of entries are about: the attributes of a token or of a session.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) token_id: Option<&'a str>,
    pub(super) session_id: Option<&'a str>,
    pub(super) tenant: Option<&'a str>,
    pub(super) client_id: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    fn of(identity: &'a Identity) -> Self {
        Self {
            issuer: identity.issuer(),
            subject: identity.subject(),
            token_id: identity.token_id(),
            session_id: identity.session_id(),
            tenant: identity.tenant_id().map(TenantId::as_str),
            client_id: identity.client_id(),
        }
    }

    /// Returns the key under which an entry of this kind is, if there can be one.
    pub(super) fn key(&self, kind: Kind) -> Option<Key> {
        let Self { issuer, subject, token_id, session_id, tenant, client_id } = *self;
        let key = |ids: &[&str]| Some(Key::new(kind, issuer, ids));
        match kind {
            Kind::Token => key(&[token_id?]),
            Kind::Session => key(&[session_id?]),
            Kind::SubjectWithoutSession if session_id.is_none() => key(&[subject]),
            Kind::SubjectWithoutTenant if tenant.is_none() => key(&[subject]),
            Kind::SubjectWithoutSession | Kind::SubjectWithoutTenant => None,
            Kind::Subject => key(&[subject]),
            Kind::SubjectInTenant => key(&[tenant?, subject]),
            Kind::Client => key(&[client_id?]),
            Kind::ClientInTenant => key(&[tenant?, client_id?]),
            Kind::Tenant => key(&[tenant?]),
            Kind::Issuer => key(&[]),
        }
    }
}

/// The kinds of the actor's keys.
const OF_ACTOR: [Kind; 4] =
    [Kind::Subject, Kind::SubjectInTenant, Kind::Client, Kind::ClientInTenant];

/// Returns the kinds of the keys of an identity.
pub(super) fn kinds_of_keys() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().chain(OF_ACTOR)
}

/// Returns the keys of an identity, and then those of its actor: a revoked service must not act for a user either.
/// Earlier actors do not count (RFC 8693 §4.1).
pub(super) fn keys_of(identity: &Identity) -> Box<[[u8; DIGEST_BYTES]]> {
    let attributes = Attributes::of(identity);
    let actor = identity.actor();
    let of_actor = |kind| {
        let Actor { subject, client_id, issuer } = actor?;
        let id = match kind {
            Kind::Client | Kind::ClientInTenant => client_id,
            _ => subject,
        };
        let (id, issuer) = (id.as_deref()?, issuer.as_deref().unwrap_or(attributes.issuer));
        let attributes = Attributes { issuer, subject: id, client_id: Some(id), ..attributes };
        attributes.key(kind)
    };
    let own = Kind::ALL.into_iter().map(|kind| attributes.key(kind));
    let keys = own.chain(OF_ACTOR.into_iter().map(of_actor));
    keys.map(|key| key.unwrap_or(Key::NONE).0).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_part_of_a_key_counts() {
        let keys = [
            Key::new(Kind::Subject, "https://a", &["7"]),
            Key::new(Kind::Client, "https://a", &["7"]),
            Key::new(Kind::Subject, "https://a7", &[""]),
            Key::new(Kind::Subject, "https://a", &["", "7"]),
            Key::new(Kind::Subject, "https://a", &[]),
            Key::new(Kind::SubjectInTenant, "https://a", &["7", "8"]),
            Key::new(Kind::SubjectInTenant, "https://a", &["78", ""]),
        ];
        let distinct: HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    /// Processes of two versions may share a log, so no key may change its value.
    #[test]
    fn key_values_are_fixed() {
        let key = Key::new(Kind::Session, "https://a", &["7"]);
        assert_eq!(format!("{key:?}"), "d371d103f3beaa249429999d151789be");
        for (number, kind) in (0..).zip(Kind::ALL) {
            assert_eq!((kind as u8, Kind::from_number(number)), (number, Some(kind)));
        }
    }
}
