//! [`MemoryPolicies`]: the versions of a policy in memory, and an example of a store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Appended, NewPolicyVersion, PolicyChange, PolicyStore, PolicyVersion, PolicyVersionId,
};
use crate::error::BoxError;

/// The versions of a policy in memory (feature `trust`). They are lost when the process ends. Clones share them.
///
/// Use it for tests and demonstrations only: other processes do not see the changes, and its memory grows with
/// each change.
///
/// ```
/// use std::time::SystemTime;
/// use scaikey_auth::trust::{MemoryPolicies, NewPolicyVersion, TrustEvaluator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use scaikey_auth::trust::PolicyStore;
///
/// let policies = MemoryPolicies::new();
/// policies.append(NewPolicyVersion::new("# Trusts nobody yet.\n", SystemTime::now()), None).await?;
/// assert_eq!(policies.latest().await?.unwrap().number(), 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryPolicies(Arc<Mutex<Vec<PolicyVersion>>>);

impl MemoryPolicies {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn versions(&self) -> MutexGuard<'_, Vec<PolicyVersion>> {
        // A panic cannot leave the list half written, so poisoning is ignored.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PolicyStore for MemoryPolicies {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        Ok(self.versions().last().map(|version| version.change.id.clone()))
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        let versions = self.versions();
        Ok(versions.iter().find(|version| version.change.id.number() == number).cloned())
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        let mut versions = self.versions();
        let latest = versions.last().map(|version| &version.change.id);
        if latest != expected {
            return Ok(Appended::Conflict(latest.cloned()));
        }
        let number = latest.map_or(0, PolicyVersionId::number).saturating_add(1);
        let version = PolicyVersion::new(number, version);
        let id = version.change.id.clone();
        versions.push(version);
        Ok(Appended::Done(id))
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        let versions = self.versions();
        let changes = versions.iter().rev().map(|version| &version.change);
        let is_before = |change: &&PolicyChange| before.is_none_or(|end| change.id.number() < end);
        Ok(changes.filter(is_before).take(limit).cloned().collect())
    }
}
