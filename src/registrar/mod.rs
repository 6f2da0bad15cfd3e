//! Registration of identities (feature `endpoints`, on by default). A registered identity has a participant:
//! its record in this service, with a stable id, such as a row in the service's own table of users. It may
//! have a personal workspace, too: an id for the data of that participant.
//!
//! The trait is [`Registrar`]. Its implementations are [`MemoryRegistrar`] for tests and [`SqlRegistrar`]
//! for databases (features `sqlite` and `postgres`). Pass one to
//! [`EndpointsBuilder::registrar`](crate::endpoints::EndpointsBuilder::registrar).
//! [`testing::conformance`](crate::testing::conformance) (feature `testing`) checks a custom registrar.
//!
//! See also: [manual::tenants](crate::manual::tenants).

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

/// A registrar finds or creates the participant of an identity, and its personal workspace, if the service has
/// workspaces.
///
/// The endpoint `register` calls it, each sign-in
/// ([`register_at_sign_in`](crate::endpoints::EndpointsBuilder::register_at_sign_in)), or the service itself:
/// for example before the first request of an automated client. An [`IdentityKey`] has exactly one participant,
/// and a participant has at most one personal workspace, even if several processes register concurrently. Each
/// call also updates the participant's [`Profile`]; the last call wins.
///
/// A service with its own table of users implements this trait over that table, without workspaces:
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use std::time::SystemTime;
///
/// use async_trait::async_trait;
/// use scaikey_auth::Identity;
/// use scaikey_auth::identity::IdentityKey;
/// use scaikey_auth::registrar::{
///     ParticipantId, Profile, Registrar, RegistrarError, Registration,
/// };
///
/// /// In a real service, a connection pool, and one statement with `ON CONFLICT DO UPDATE`.
/// #[derive(Debug, Default)]
/// struct Users(Mutex<HashMap<IdentityKey, (Registration, Profile)>>);
///
/// #[async_trait]
/// impl Registrar for Users {
///     async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
///         let mut users = self.0.lock().map_err(|_| RegistrarError::store("poisoned"))?;
///         let next = users.len() + 1;
///         let id = ParticipantId::new(&next.to_string()).map_err(RegistrarError::store)?;
///         let new = Registration::new(id, SystemTime::now());
///         let user = users.entry(identity.key()).or_insert((new, Profile::default()));
///         user.1.update(&Profile::new(identity));
///         Ok(user.0.clone())
///     }
/// }
/// ```
///
/// Implement this trait for your own store, and run
/// [`testing::conformance::registrar`](crate::testing::conformance::registrar()) (feature `testing`) on it.
/// Use a unique constraint over *issuer, tenant, kind and subject*, and one over the workspace's
/// participant, if there are workspaces. A lookup followed by an insertion is not enough, because two processes may look up
/// concurrently. If a call stops halfway, the next call must complete the registration.
///
/// Harmless mistakes: slowness and failures, because callers repeat the call; an outdated profile; reporting
/// `created` twice or never. Security holes:
///
/// - using the e-mail address as key: a caller with the address in a token, verified or not, takes over the
///   participant, and an address may later belong to another person;
/// - using `sub` alone as key: another issuer or tenant can issue the same `sub` (RFC 8725 §3.8);
/// - omitting the kind from the key: the id of a client may equal the id of a user (RFC 9700 §4.15);
/// - comparing keys inexactly, for example ignoring case, accents, or the end of a long text;
/// - deriving ids from names or addresses: such ids can be guessed, and reveal the person.
///
/// The tenant is that of the identity, not that of the request: a user who acts in another tenant remains a
/// participant of the home tenant.
///
/// A registrar does not check how the identity was authenticated. Mock identities are registered under the
/// issuer of the mock.
#[async_trait]
pub trait Registrar: Debug + Send + Sync + 'static {
    /// Finds or creates the participant of `identity`, and updates the profile.
    ///
    /// # Errors
    /// [`RegistrarError::InvalidIdentity`] if this identity can never be stored. Other errors mean that the
    /// store failed or did not answer; the registration may have succeeded nevertheless.
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError>;
}

/// The participant of an identity, and its workspace, if any.
///
/// ```
/// use std::time::SystemTime;
/// use scaikey_auth::registrar::{ParticipantId, Registration, WorkspaceId};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let known = Registration::new(ParticipantId::new("42")?, SystemTime::now());
/// assert!(known.workspace_id.is_none() && !known.created);
/// let mut new = known.with_workspace(WorkspaceId::random()?);
/// new.created = true;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// The participant, which is the same on every call.
    pub participant_id: ParticipantId,
    /// The personal workspace, which is the same on every call. `None` in a service without workspaces; the
    /// endpoint then omits the field.
    pub workspace_id: Option<WorkspaceId>,
    /// Whether this call created the participant. The endpoint then answers 201 instead of 200.
    pub created: bool,
    /// The creation time of the participant by the store's clock, in whole seconds.
    pub created_at: SystemTime,
}

impl Registration {
    /// Creates the result for a participant that already existed, without a workspace. For a new participant,
    /// a registrar sets `created`.
    pub fn new(participant_id: ParticipantId, created_at: SystemTime) -> Self {
        Self { participant_id, workspace_id: None, created: false, created_at }
    }

    /// Sets the personal workspace.
    #[must_use]
    pub fn with_workspace(mut self, workspace_id: WorkspaceId) -> Self {
        self.workspace_id = Some(workspace_id);
        self
    }
}

/// The reason why an identity was not registered.
///
/// ```
/// use scaikey_auth::registrar::RegistrarError;
///
/// /// Finds the user in a store that may fail.
/// async fn find(answer: std::io::Result<u64>) -> Result<u64, RegistrarError> {
///     answer.map_err(RegistrarError::store) // the endpoints answer 503
/// }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrarError {
    /// The identity can never be stored. Repeating the call does not help.
    #[error("the {part} of this identity cannot be stored: {reason}")]
    InvalidIdentity {
        /// The invalid part of the identity's key.
        part: &'static str,
        /// The fault, without the value.
        reason: &'static str,
    },
    /// The store did not answer within this time. The call can be repeated.
    #[error("the participant store did not answer within {0:?}: repeat the call")]
    TimedOut(Duration),
    /// The store failed. The call can be repeated.
    #[error("the participant store failed (the call can be repeated): {0}")]
    Store(#[source] Arc<dyn Error + Send + Sync>),
}

impl RegistrarError {
    /// Creates the error for a failed store. `source` must not contain a connection string.
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

/// The key and the profile of an identity, checked for storing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct StorableIdentity {
    key: IdentityKey,
    profile: Profile,
}

/// Maximum length of the issuer and of `sub`, in bytes. Together with a tenant of 255 bytes they fit into
/// an entry of a PostgreSQL index (2,704 bytes). OpenID Connect allows 255 bytes for `sub`.
const MAX_LENGTH: usize = 1024;

impl StorableIdentity {
    fn new(identity: &Identity) -> Result<Self, RegistrarError> {
        let key = identity.key();
        for (part, text) in [("issuer", &*key.issuer), ("subject", &*key.subject)] {
            let reason = match text {
                "" => "it is empty",
                // Refused rather than shortened, because two keys that differ only at the end would become
                // equal.
                text if text.len() > MAX_LENGTH => "it has more than 1024 bytes",
                text if text.contains('\0') => {
                    "it contains a NUL character, which PostgreSQL cannot store"
                }
                _ => continue,
            };
            return Err(RegistrarError::InvalidIdentity { part, reason });
        }
        Ok(Self { key, profile: Profile::new(identity) })
    }
}
