//! [`SessionStore`]: where the server keeps sessions.
//!
//! [`MemorySessions`] serves one process. [`RedisSessions`] and [`SqlSessions`] serve several.

mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;

use std::fmt::{self, Debug};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::error::BoxError;
use crate::support::crypto;

#[cfg(feature = "redis")]
pub use self::redis::RedisSessions;
#[cfg(all(feature = "redis", feature = "testing"))]
pub(in crate::session) use self::redis::check_redis_entry;
pub use memory::MemorySessions;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlSessions;

/// The largest number of sessions that [`SessionStore::list`] returns.
pub(crate) const MAX_LISTED: usize = 1000;

/// A store of browser sessions, for [`SessionsBuilder::store`](super::SessionsBuilder::store).
///
/// [`MemorySessions`] serves one process. [`RedisSessions`] (feature `redis`) and [`SqlSessions`] (features `sqlite`,
/// `postgres`) serve several. The conformance suite for
/// your own store is [`testing::conformance::session_store`](crate::testing::conformance::session_store) (feature
/// `testing`).
///
/// The store sees no token: the value of a session is sealed under a key that only the session's cookie has. It decides
/// neither whether a session is still valid, nor whose it is. It must compare ids and labels exactly, and [`replace`] a
/// session atomically: of several callers with the same version, exactly one succeeds.
///
/// Harmless mistakes: a session that stays after it expired; a session that is lost, whose user signs in again.
/// Security holes: a session that can be loaded after [`remove`] or [`remove_where`] returned; a [`replace`] that
/// creates a removed session again. An outage must be an error, because `None` signs the user out.
///
/// A call that takes longer than 2 s of real time counts as failed. [`remove_where`] may take 30 s, because a user may
/// have thousands of sessions.
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::session::{
///     MemorySessions, SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
/// };
///
/// /// Logs the ends of sessions.
/// #[derive(Debug)]
/// struct Logged(MemorySessions);
///
/// #[async_trait]
/// impl SessionStore for Logged {
///     async fn create(
///         &self,
///         session: StoredSession,
///         labels: &[SessionLabel],
///     ) -> Result<(), BoxError> {
///         self.0.create(session, labels).await
///     }
///     async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
///         self.0.load(id).await
///     }
///     async fn replace(&self, session: StoredSession, version: u64) -> Result<bool, BoxError> {
///         self.0.replace(session, version).await
///     }
///     async fn remove(&self, id: &SessionId) -> Result<bool, BoxError> {
///         println!("the session {id} ends");
///         self.0.remove(id).await
///     }
///     async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, BoxError> {
///         self.0.remove_where(selector).await
///     }
///     async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
///         self.0.list(selector).await
///     }
/// }
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let store = std::sync::Arc::new(Logged(MemorySessions::new()));
/// # scaikey_auth::testing::conformance::session_store(store).await;
/// # }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
///
/// [`replace`]: Self::replace
/// [`remove`]: Self::remove
/// [`remove_where`]: Self::remove_where
#[async_trait]
pub trait SessionStore: Debug + Send + Sync + 'static {
    /// Adds a session, which can then be found by its id and by each of its labels. The labels never change.
    ///
    /// # Errors
    /// The store failed, or it has a session with this id.
    async fn create(&self, session: StoredSession, labels: &[SessionLabel])
    -> Result<(), BoxError>;

    /// Returns the session with this id. It may have expired.
    ///
    /// # Errors
    /// The store failed, so it is unknown whether there is such a session.
    async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError>;

    /// Replaces the session with the id of `session`, if it still has the version `version`. Returns whether it did:
    /// `false` if the session was replaced by another caller, or is no longer there.
    ///
    /// # Errors
    /// The store failed, so it is unknown whether the session was replaced.
    async fn replace(&self, session: StoredSession, version: u64) -> Result<bool, BoxError>;

    /// Removes the session with this id. Returns whether it was there.
    ///
    /// # Errors
    /// The store failed, so the session may still be there.
    async fn remove(&self, id: &SessionId) -> Result<bool, BoxError>;

    /// Removes all selected sessions, and returns their number. A session that is created at the same time may stay. It
    /// may take several steps; a session that was removed stays removed if a later step fails.
    ///
    /// # Errors
    /// The store failed, so some sessions may still be there.
    async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, BoxError>;

    /// Returns the selected sessions, those that started last first, and at most 1000. Some may have expired. Each
    /// sign-in calls this once in the background, for the user's sessions.
    ///
    /// # Errors
    /// The store failed.
    async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError>;
}

/// The key of a session in a [`SessionStore`]: the SHA-256 digest of the id in the cookie. It is not a secret: the
/// cookie cannot be computed from it.
///
/// ```
/// use scaikey_auth::session::SessionId;
///
/// let id = SessionId::from_bytes([7; 32]);
/// assert_eq!(SessionId::from_bytes(*id.as_bytes()), id);
/// assert_eq!(id.to_string(), "07".repeat(32));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 32]);

/// A digest under which a store finds sessions: of a user, or of a session of the provider. It is an HMAC under the
/// [`SealingKeys`](crate::exchange::SealingKeys), so without the keys it tells nothing about the user.
///
/// ```
/// use scaikey_auth::session::SessionLabel;
///
/// let label = SessionLabel::from_bytes([7; 32]);
/// assert_eq!(SessionLabel::from_bytes(*label.as_bytes()), label);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionLabel([u8; 32]);

macro_rules! digest {
    ($name:ident) => {
        impl $name {
            /// Creates the value from the bytes that a store has.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Returns the 32 bytes, for use in a store.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        /// Writes the bytes in hexadecimal.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&crypto::hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}
digest!(SessionId);
digest!(SessionLabel);

/// A session in a [`SessionStore`]. All times are whole milliseconds.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use scaikey_auth::session::{SessionId, StoredSession};
///
/// /// Returns the session in a row of a store's own table: milliseconds since 1970.
/// fn session(id: [u8; 32], version: u64, value: Vec<u8>, times: [u64; 4]) -> StoredSession {
///     let [started_at, used_at, expires_at, ends_at] =
///         times.map(|at| SystemTime::UNIX_EPOCH + Duration::from_millis(at));
///     let mut session = StoredSession::new(SessionId::from_bytes(id), value, started_at, ends_at);
///     session.version = version;
///     session.used_at = used_at;
///     session.expires_at = expires_at;
///     session
/// }
/// # session([0; 32], 1, Vec::new(), [0; 4]);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredSession {
    /// The key of the session.
    pub id: SessionId,
    /// The number of the last change, from 1.
    pub version: u64,
    /// The tokens and the user: at most 1 MiB, sealed under a key in the session's cookie.
    pub value: Vec<u8>,
    /// The time of the sign-in.
    pub started_at: SystemTime,
    /// The time of the last write, which follows a use of the session. A store that needs the lifetime of an entry
    /// takes the time from this to [`expires_at`](Self::expires_at), so it needs no clock.
    pub used_at: SystemTime,
    /// The time after which the session cannot be used. From then on, the store may remove it.
    pub expires_at: SystemTime,
    /// The latest value that `expires_at` can get.
    pub ends_at: SystemTime,
    /// The time until which a process may be renewing the tokens.
    pub renewing_until: Option<SystemTime>,
}

impl StoredSession {
    /// Returns the first version of a session, which starts now and is not used again. Times are rounded down to whole
    /// milliseconds.
    pub fn new(id: SessionId, value: Vec<u8>, started_at: SystemTime, ends_at: SystemTime) -> Self {
        let (started_at, ends_at) = (whole_milliseconds(started_at), whole_milliseconds(ends_at));
        Self {
            id,
            version: 1,
            value,
            started_at,
            used_at: started_at,
            expires_at: ends_at,
            ends_at,
            renewing_until: None,
        }
    }
}

/// Shows the length of the value only.
impl fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSession")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("value_bytes", &self.value.len())
            .field("started_at", &self.started_at)
            .field("used_at", &self.used_at)
            .field("expires_at", &self.expires_at)
            .field("ends_at", &self.ends_at)
            .field("renewing_until", &self.renewing_until)
            .finish()
    }
}

/// The sessions that have at least one of some labels. With two sealing keys, a user has a label under each.
///
/// ```
/// use scaikey_auth::session::{SessionId, SessionLabel, SessionSelector};
///
/// let [one, other] = [1, 2].map(|byte| SessionLabel::from_bytes([byte; 32]));
/// let current = SessionId::from_bytes([3; 32]);
/// let others = SessionSelector::any_of([one, other]).except(current);
/// assert_eq!((others.labels(), others.excepted()), (&[one, other][..], Some(&current)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSelector {
    labels: Vec<SessionLabel>,
    except: Option<SessionId>,
}

impl SessionSelector {
    /// Selects the sessions with any of these labels. Without labels, selects none.
    pub fn any_of(labels: impl IntoIterator<Item = SessionLabel>) -> Self {
        Self { labels: labels.into_iter().collect(), except: None }
    }

    /// Leaves one session out.
    #[must_use]
    pub fn except(mut self, id: SessionId) -> Self {
        self.except = Some(id);
        self
    }

    /// Returns the labels.
    pub fn labels(&self) -> &[SessionLabel] {
        &self.labels
    }

    /// Returns the session that is left out.
    pub fn excepted(&self) -> Option<&SessionId> {
        self.except.as_ref()
    }
}

/// Rounds a time down to whole milliseconds.
pub(crate) fn whole_milliseconds(at: SystemTime) -> SystemTime {
    from_milliseconds(to_milliseconds(at))
}

/// Returns the milliseconds since 1970.
pub(crate) fn to_milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time at these milliseconds since 1970. A time that the system cannot represent becomes 1970, so that a
/// session has expired.
pub(crate) fn from_milliseconds(at: u64) -> SystemTime {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at));
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}
