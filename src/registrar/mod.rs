//! Registration: from an identity to its participant and personal workspace in this service (feature
//! `endpoints`, on by default).
//!
//! [`Registrar`] is the trait, with [`MemoryRegistrar`] for tests and [`SqlRegistrar`] for databases
//! (features `sqlite` and `postgres`);
//! [`EndpointsBuilder::registrar`](crate::endpoints::EndpointsBuilder::registrar) takes one.
//! [`testing::conformance`](crate::testing::conformance) (feature `testing`) examines one of your own.
//!
//! How it fits together: [manual::tenants](crate::manual::tenants).

mod ids;
mod memory;
mod profile;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod schema;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::error::BoxError;
use crate::identity::{Identity, IdentityKey};

pub use ids::{InvalidLocalId, ParticipantId, WorkspaceId};
pub use memory::MemoryRegistrar;
pub use profile::Profile;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlRegistrar;

/// Gives an identity its participant and its personal workspace: those it has, else new ones.
///
/// A service calls it when a user signs in, and automation before its first request. However
/// often and from however many processes it is called, an [`IdentityKey`] has one participant, and
/// a participant one personal workspace. What the participant is shown as, its [`Profile`], lies
/// beside and is refreshed by each call; the last call wins.
///
/// Implement it over your own store and run
/// [`testing::conformance::registrar`](crate::testing::conformance::registrar()) (feature `testing`) on it. Let a unique constraint over *issuer, tenant, kind and subject* do the work, and one over
/// the workspace's participant: looking first and inserting after is not enough, since two
/// processes look at once. What is half done, the next call must complete.
///
/// Harmless mistakes: being slow, or failing, since callers repeat; a profile that is out of date;
/// to say `created` twice or never. Attacks:
///
/// - keyed by e-mail address: whoever gets the address into a token, verified or not, takes over
///   the participant, and an address may pass to somebody else;
/// - keyed by `sub` alone: another issuer or tenant can issue the same one (RFC 8725 §3.8);
/// - keyed without the kind: the id of a client may equal the id of a user (RFC 9700 §4.15);
/// - keyed loosely: by a comparison that overlooks case, accents, or what lies beyond some length;
/// - ids derived from names or addresses: they can be guessed, and tell who somebody is.
///
/// The tenant is the identity's, not the one a request runs in: who acts in a foreign tenant
/// remains the participant of its own.
///
/// Not checked: how the identity came to be believed. Those of the mock mode are registered like
/// others, under the mock's issuer.
#[async_trait]
pub trait Registrar: Debug + Send + Sync + 'static {
    /// Finds or creates the participant and personal workspace of `identity`, and refreshes the
    /// profile.
    ///
    /// # Errors
    /// [`RegistrarError::Unfit`] when this identity can never be stored; otherwise when the store
    /// did not answer or failed. It may have been done all the same.
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError>;
}

/// What an identity is in this service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The same on every call.
    pub participant_id: ParticipantId,
    /// The personal workspace: the same on every call.
    pub workspace_id: WorkspaceId,
    /// Whether this very call created the participant: 201 and not 200.
    pub created: bool,
    /// When the participant was created, by the store's clock, in whole seconds.
    pub created_at: SystemTime,
}

impl Registration {
    /// For registrars: of a participant that was found. Set `created` if it was not.
    pub fn new(
        participant_id: ParticipantId,
        workspace_id: WorkspaceId,
        created_at: SystemTime,
    ) -> Self {
        Self { participant_id, workspace_id, created: false, created_at }
    }
}

/// Why an identity was not registered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrarError {
    /// The identity can never be stored here: repeating the call is of no use.
    #[error("the {what} of this identity cannot be stored: {why}")]
    Unfit {
        /// Which part of its key.
        what: &'static str,
        /// What is wrong with it, without showing it.
        why: &'static str,
    },
    /// The store did not answer within this time. The call can be repeated.
    #[error("the store of participants gave no answer within {0:?}; the call can be repeated")]
    Slow(Duration),
    /// The store failed. The call can be repeated.
    #[error("the store of participants failed: {0}")]
    Store(#[source] Arc<dyn Error + Send + Sync>),
}

impl RegistrarError {
    /// For registrars: the store failed. `source` must not show a connection string.
    pub fn store(source: impl Into<BoxError>) -> Self {
        Self::Store(source.into().into())
    }
}

#[async_trait]
impl<R: Registrar + ?Sized> Registrar for Arc<R> {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        (**self).register(identity).await
    }
}

/// What a store is asked to hold, known to fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    key: IdentityKey,
    profile: Profile,
}

/// Longest issuer and longest `sub`, in bytes: with a tenant of 255 they fit into one entry of a
/// PostgreSQL index, which has 2,704. OpenID Connect allows a `sub` of 255.
const LONGEST: usize = 1024;

impl Entry {
    fn of(identity: &Identity) -> Result<Self, RegistrarError> {
        let key = identity.key();
        for (what, text) in [("issuer", &*key.issuer), ("subject", &*key.subject)] {
            let why = match text {
                "" => "it is empty",
                // Never shortened: two that differ only at the end would be one.
                text if text.len() > LONGEST => "it has more than 1024 bytes",
                text if text.contains('\0') => "it has a NUL, which PostgreSQL cannot hold",
                _ => continue,
            };
            return Err(RegistrarError::Unfit { what, why });
        }
        Ok(Self { key, profile: Profile::of(identity) })
    }
}
