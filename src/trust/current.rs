//! [`CurrentPolicy`]: the policy that is in force, and the failures to [load](SyncError) and to [save](SaveError) one.

use std::sync::Arc;

use super::evaluator::LoadedPolicy;
use super::fault::PolicyError;
use super::policy::TrustPolicy;
use super::store::{PolicyVersion, PolicyVersionId};
use crate::error::BoxError;

/// A failure to load the latest version from the store of a policy (feature `trust`). The loaded policy stays in
/// force.
///
/// ```
/// use scaikey_auth::trust::{SyncError, TrustEvaluator};
///
/// async fn after_a_notification(trusts: &TrustEvaluator) {
///     match trusts.sync().await {
///         Ok(()) => {}
///         Err(SyncError::Store(error)) => eprintln!("try again later: {error}"),
///         Err(error) => eprintln!("correct the policy: {error}"),
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The latest version has faults. It was written by hand or by a newer release of this crate.
    #[error(transparent)]
    Faults(#[from] PolicyError),
    /// The store failed.
    #[error("the store of the trust policy failed")]
    Store(#[source] BoxError),
}

/// A failure to save a version of a policy (feature `trust`).
///
/// ```
/// use scaikey_auth::trust::SaveError;
///
/// fn advice(error: &SaveError) -> &'static str {
///     match error {
///         SaveError::Faults(_) => "correct the text",
///         SaveError::Conflict(_) => "another administrator was faster: look at the changes first",
///         SaveError::ReadOnly => "change the policy where it comes from",
///         _ => "try again later",
///     }
/// }
/// # assert_eq!(advice(&SaveError::ReadOnly), "change the policy where it comes from");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The policy has faults. Nothing was stored.
    #[error(transparent)]
    Faults(#[from] PolicyError),
    /// Another version is in force than was expected: its id, or `None` if the store is empty. Nothing was stored.
    #[error("another version of the trust policy is in force than was expected")]
    Conflict(Option<PolicyVersionId>),
    /// The evaluator has no store.
    #[error("the trust policy is in no store, so that it cannot be saved")]
    ReadOnly,
    /// The store failed. The version may have been stored or not; if it was, all processes load it.
    #[error("the store of the trust policy failed")]
    Store(#[source] BoxError),
}

/// The policy that an evaluator has loaded, at one moment (feature `trust`).
///
/// ```
/// use scaikey_auth::trust::TrustEvaluator;
///
/// let trusts = TrustEvaluator::builder().build()?;
/// let current = trusts.current();
/// assert_eq!(current.policy().trust_ids().count(), 0);
/// assert!(current.version().is_none() && !current.is_store_away());
/// # Ok::<_, scaikey_auth::trust::PolicyError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CurrentPolicy {
    pub(super) loaded: Arc<LoadedPolicy>,
    pub(super) is_store_away: bool,
    pub(super) rejected: Option<PolicyVersionId>,
}

impl CurrentPolicy {
    /// Returns the policy. It has no trusts while it [is missing](Self::is_missing).
    pub fn policy(&self) -> &TrustPolicy {
        &self.loaded.policy
    }

    /// Returns the version in the store with its text, or `None` if the policy is in no store, or the store is
    /// empty.
    pub fn version(&self) -> Option<&PolicyVersion> {
        self.loaded.version.as_ref()
    }

    /// Returns whether the store has not given a policy yet, so that every token is denied.
    pub fn is_missing(&self) -> bool {
        self.loaded.is_missing
    }

    /// Returns whether the last check of the store failed. The loaded policy is still in force.
    pub fn is_store_away(&self) -> bool {
        self.is_store_away
    }

    /// Returns the id of the latest version in the store, if it has faults, so that an earlier one is in force.
    pub fn rejected(&self) -> Option<&PolicyVersionId> {
        self.rejected.as_ref()
    }
}
