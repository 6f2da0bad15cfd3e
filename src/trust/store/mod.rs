//! [`PolicyStore`]: where the versions of a trust policy are kept.

mod file;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
mod stored;

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use file::FilePolicies;
pub use memory::MemoryPolicies;
#[cfg(feature = "redis")]
pub use redis::RedisPolicies;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::SqlPolicies;

use crate::error::BoxError;
use crate::support::crypto;

/// A store for the versions of a [`TrustPolicy`](super::TrustPolicy), which all processes of a service share
/// (feature `trust`).
///
/// A store appends versions and never changes or removes one, so the versions are also the audit log of the
/// policy. The text of each version is TOML. A store does not check it; the
/// [`TrustEvaluator`](super::TrustEvaluator) does.
///
/// Harmless mistakes: reporting a conflict where there is none; failing, which leaves the current policy in force.
/// Security holes: reading and writing the latest version in two steps, so that two writers can both succeed and
/// the change of one is lost; returning a version that was only partly written; losing a version after
/// [`append`](Self::append) has returned.
///
/// Test a store of your own with
/// [`testing::conformance::policy_store`](crate::testing::conformance::policy_store). The source of
/// [`MemoryPolicies`] is an example of a whole store. A store that adds to another one:
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::trust::{
///     Appended, FilePolicies, NewPolicyVersion, PolicyChange, PolicyStore, PolicyVersion, PolicyVersionId,
/// };
///
/// /// Saves only changes that say why they were made.
/// #[derive(Debug)]
/// struct WithReasons(FilePolicies);
///
/// #[async_trait]
/// impl PolicyStore for WithReasons {
///     async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
///         self.0.latest().await
///     }
///     async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
///         self.0.read(number).await
///     }
///     async fn append(
///         &self,
///         version: NewPolicyVersion,
///         expected: Option<&PolicyVersionId>,
///     ) -> Result<Appended, BoxError> {
///         if version.note.is_none() {
///             return Err("a change needs a note".into());
///         }
///         self.0.append(version, expected).await
///     }
///     async fn history(&self, before: Option<u64>, limit: usize) -> Result<Vec<PolicyChange>, BoxError> {
///         self.0.history(before, limit).await
///     }
/// }
/// ```
#[async_trait]
pub trait PolicyStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the id of the version in force, or `None` if the store is empty. It is called every few seconds, so
    /// it should not read the text. It must never return an earlier version than the last that was
    /// [appended](Self::append), as a replica that lags behind would: rules that were removed would be in force again.
    ///
    /// # Errors
    /// The store is unavailable. The policy that a process has loaded stays in force.
    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError>;

    /// Returns a version, or `None` if there is none with this number.
    ///
    /// # Errors
    /// The store is unavailable, or the version is damaged.
    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError>;

    /// Appends a version and puts it into force, if the version in force is still `expected` (`None`: the store is
    /// empty). Otherwise it changes nothing and returns [`Appended::Conflict`]. The version gets the next number,
    /// beginning with 1.
    ///
    /// # Errors
    /// The store is unavailable. The version may have been written or not, but never in part.
    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError>;

    /// Returns up to `limit` versions without their texts, the latest first. With `before`, only those with a
    /// smaller number. One that cannot be read is [damaged](PolicyChange::damaged).
    ///
    /// # Errors
    /// The store is unavailable.
    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError>;

    /// Returns a name for the kind of store, which the administration shows. Default: `other`.
    fn kind(&self) -> &'static str {
        "other"
    }
}

/// Identifies a version in a [`PolicyStore`] by its number and the SHA-256 digest of its text (feature `trust`).
///
/// `Display` and `FromStr` use the form of the entity tags of `GET /v1/auth/trusts`: the number, `-`, and the first
/// 16 hexadecimal digits of the digest.
///
/// ```
/// use scaikey_auth::trust::PolicyVersionId;
///
/// let id: PolicyVersionId = "7-e3b0c44298fc1c14".parse()?;
/// assert_eq!((id.number(), id.is_of("")), (7, true));
/// # Ok::<_, scaikey_auth::trust::InvalidPolicyVersionId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyVersionId {
    number: u64,
    digest: String,
}

impl PolicyVersionId {
    /// Creates the id of the version with this number and text.
    pub fn new(number: u64, text: &str) -> Self {
        Self { number, digest: crypto::sha256_hex(text).chars().take(16).collect() }
    }

    /// Returns the number of the version.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the first 16 hexadecimal digits of the digest.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the id of the same text with another number.
    pub(super) fn with_number(&self, number: u64) -> Self {
        Self { number, ..self.clone() }
    }

    /// Returns whether a text is that of the version.
    pub fn is_of(&self, text: &str) -> bool {
        *self == Self::new(self.number, text)
    }
}

impl fmt::Display for PolicyVersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.digest)
    }
}

/// The text is not the id of a policy version (feature `trust`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a policy version, such as 7-3f0a12b45c6d7e8f")]
pub struct InvalidPolicyVersionId;

impl FromStr for PolicyVersionId {
    type Err = InvalidPolicyVersionId;

    fn from_str(text: &str) -> Result<Self, InvalidPolicyVersionId> {
        let (number, digest) = text.split_once('-').ok_or(InvalidPolicyVersionId)?;
        let is_digest = digest.len() == 16
            && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number: u64 = number.parse().map_err(|_| InvalidPolicyVersionId)?;
        let id = Self { number, digest: digest.to_owned() };
        // Exactly one spelling: no sign and no leading zeros.
        (is_digest && id.to_string() == text).then_some(id).ok_or(InvalidPolicyVersionId)
    }
}

/// The author of a version: the identity that changed the policy (feature `trust`).
///
/// ```
/// use scaikey_auth::trust::PolicyAuthor;
///
/// let mut author = PolicyAuthor::new("https://scaikey.example", "alice");
/// author.tenant = Some("acme".to_owned());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyAuthor {
    /// The issuer of the identity.
    pub issuer: String,
    /// The subject of the identity.
    pub subject: String,
    /// The tenant of the identity, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The name to show, if known. It identifies nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl PolicyAuthor {
    /// Creates an author without a tenant and a name.
    pub fn new(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), subject: subject.into(), tenant: None, name: None }
    }
}

/// A version to [append](PolicyStore::append) (feature `trust`).
///
/// ```
/// use std::time::SystemTime;
/// use scaikey_auth::trust::{NewPolicyVersion, PolicyAuthor};
///
/// let mut version = NewPolicyVersion::new("# Trusts nobody yet.\n", SystemTime::now());
/// version.author = Some(PolicyAuthor::new("https://scaikey.example", "alice"));
/// version.note = Some("a first policy".to_owned());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewPolicyVersion {
    /// The policy, in TOML.
    pub text: String,
    /// The time of the change, by the clock of the process that made it.
    pub at: SystemTime,
    /// The author, or `None` if the text was changed outside of the store.
    pub author: Option<PolicyAuthor>,
    /// The reason for the change, in the words of its author.
    pub note: Option<String>,
    /// The number of the earlier version that this one restores.
    pub restores: Option<u64>,
}

impl NewPolicyVersion {
    /// Creates a version without author and note.
    pub fn new(text: impl Into<String>, at: SystemTime) -> Self {
        Self { text: text.into(), at, author: None, note: None, restores: None }
    }
}

/// A version of a policy without its text: an entry of the audit log (feature `trust`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyChange {
    /// The number and digest of the version.
    pub id: PolicyVersionId,
    /// See [`NewPolicyVersion::at`].
    pub at: SystemTime,
    /// See [`NewPolicyVersion::author`].
    pub author: Option<PolicyAuthor>,
    /// See [`NewPolicyVersion::note`].
    pub note: Option<String>,
    /// See [`NewPolicyVersion::restores`].
    pub restores: Option<u64>,
    /// Whether the store has the version, but cannot read it: see [`damaged`](Self::damaged).
    pub is_damaged: bool,
}

impl PolicyChange {
    /// Creates an entry without author and note, for a store of your own.
    pub fn new(id: PolicyVersionId, at: SystemTime) -> Self {
        Self { id, at, author: None, note: None, restores: None, is_damaged: false }
    }

    /// Creates an entry for a version that the store has, but cannot read, so that the history shows the others. Only
    /// the number counts; the time is the Unix epoch, and the id is that of no text.
    pub fn damaged(number: u64) -> Self {
        let id = PolicyVersionId { number, digest: "0".repeat(16) };
        Self { is_damaged: true, ..Self::new(id, SystemTime::UNIX_EPOCH) }
    }
}

/// A version of a policy (feature `trust`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyVersion {
    /// Number, time, author and note.
    pub change: PolicyChange,
    /// The policy, in TOML.
    pub text: String,
}

impl PolicyVersion {
    /// Creates the version that a store returns.
    pub fn new(number: u64, version: NewPolicyVersion) -> Self {
        let NewPolicyVersion { text, at, author, note, restores } = version;
        let id = PolicyVersionId::new(number, &text);
        Self { change: PolicyChange { author, note, restores, ..PolicyChange::new(id, at) }, text }
    }
}

/// The outcome of [`PolicyStore::append`] (feature `trust`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// The version is in force, with this id.
    Done(PolicyVersionId),
    /// Another version is in force than was expected: its id, or `None` if the store is empty.
    Conflict(Option<PolicyVersionId>),
}
