//! What the administrators of one tenant do with a policy: see and change their part of it, its history, and try a
//! token.

use std::sync::Arc;
use std::time::Duration;

use super::current::{SaveError, SyncError};
use super::evaluator::{LoadedPolicy, TrustEvaluator};
use super::explain::Explanation;
use super::fault::PolicyError;
use super::store::{
    NewPolicyVersion, PolicyAuthor, PolicyChange, PolicyStore, PolicyVersion, PolicyVersionId,
};
use super::tenant_policy::{TenantChange, TenantPolicy, hidden, is_same_for_others, number_of};
use super::verification::CompiledTrust;
use crate::clock::with_timeout;
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::support::crypto;
use crate::support::off_thread::off_thread;

/// The number of attempts to save while others write.
const ATTEMPTS: usize = 5;

/// The longest time that a tenant waits for the changes of others, in real time.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// The limit of versions in which a tenant's history is looked for, so that its cost is bounded.
const MAX_VERSIONS: usize = 1000;

/// The number of versions whose changes are asked for together.
const PAGE: usize = 100;

/// For the administrators of one tenant. They learn nothing about the rules of other tenants, nor about the key
/// sources.
impl TrustEvaluator {
    /// Returns what a tenant sees of the loaded policy.
    ///
    /// # Errors
    /// The policy cannot be read. The fault is always the same.
    pub fn tenant_policy(&self, tenant: &TenantId) -> Result<TenantPolicy, PolicyError> {
        let current = self.current();
        match current.version() {
            Some(version) => TenantPolicy::of(&version.text, tenant),
            None => TenantPolicy::of_policy(current.policy(), tenant),
        }
    }

    /// Checks a tenant's changed text against the loaded policy. Nothing is saved.
    ///
    /// # Errors
    /// As for [`TenantPolicy::change`].
    pub fn check_for_tenant(
        &self,
        tenant: &TenantId,
        text: &str,
    ) -> Result<TenantChange, PolicyError> {
        let current = self.current();
        match current.version() {
            Some(version) => TenantPolicy::change(&version.text, tenant, text),
            None => TenantPolicy::change(&current.policy().to_toml(), tenant, text),
        }
    }

    /// Saves a changed text of a tenant, if its part of the policy is still `expected`. Changes of others do not
    /// matter, and none of them is lost. Returns the new id of the tenant's part.
    ///
    /// The changes of tenants take turns in this process: it waits for up to 10 s. It does *not* check that the author
    /// is an administrator of the tenant.
    ///
    /// # Errors
    /// As for [`save`](Self::save). The ids are those of [`TenantPolicy::id`], and faults that depend on what the
    /// tenant cannot see are always the same.
    pub async fn save_for_tenant(
        &self,
        tenant: &TenantId,
        mut version: NewPolicyVersion,
        expected: &PolicyVersionId,
    ) -> Result<PolicyVersionId, SaveError> {
        let Some(following) = &self.0.following else { return Err(SaveError::ReadOnly) };
        if let Some(author) = &mut version.author {
            author.tenant = Some(tenant.to_string());
        }
        // The number is one of the whole policy.
        version.restores = None;
        // In this process, tenants take turns. The attempts are for other processes.
        let turn = with_timeout(TURN_LIMIT, following.tenant_saves.lock()).await;
        let Some(_turn) = turn else {
            return Err(SaveError::Store("was busy with changes of tenants for 10 s".into()));
        };
        for _ in 0..ATTEMPTS {
            self.sync().await.map_err(|error| match error {
                SyncError::Faults(_) => SaveError::Faults(hidden()),
                SyncError::Store(error) => SaveError::Store(error),
            })?;
            let current = self.current();
            let Some(before) = current.version() else { return Err(SaveError::Conflict(None)) };
            let (policy, submitted) = (before.text.clone(), version.text.clone());
            let (tenant, expected) = (tenant.clone(), expected.clone());
            let changed = move || changed_policy(&policy, &tenant, &submitted, &expected);
            let (text, own) =
                off_thread(changed).await.map_err(|error| SaveError::Store(error.into()))??;
            if text == before.text {
                return Ok(own);
            }
            let whole = NewPolicyVersion { text, ..version.clone() };
            match self.save(whole, Some(&before.change.id)).await {
                Ok(_) => return Ok(own),
                // Another writer was faster. Its change may not concern this tenant.
                Err(SaveError::Conflict(_)) => {}
                Err(SaveError::Faults(_)) => return Err(SaveError::Faults(hidden())),
                Err(error) => return Err(error),
            }
        }
        Err(SaveError::Store("changed each time that it was read".into()))
    }

    /// Returns up to `limit` changes of a tenant's part of the policy, the latest first. With `before`, only those
    /// before the one with this number. The latest one of all is the one in force.
    ///
    /// The numbers identify the changes, but do not count them. Author and note are those of the tenant's own
    /// administrators; for changes by others they are `None`. Only the last 1,000 versions of the whole policy are
    /// searched. A version that the store cannot read is left out, and the next one has no author.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tenant_history(
        &self,
        tenant: &TenantId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        let mut changes = Vec::new();
        let mut is_reached = before.is_none();
        self.each_tenant_version(tenant, |version| {
            if is_reached {
                changes.push(version.change);
            } else {
                is_reached = Some(version.change.id.number()) == before;
            }
            changes.len() < limit
        })
        .await?;
        changes.truncate(limit);
        Ok(changes)
    }

    /// Returns a version of a tenant's part of the policy by its number in [`tenant_history`](Self::tenant_history).
    /// To roll back, save its text again.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tenant_version(
        &self,
        tenant: &TenantId,
        number: u64,
    ) -> Result<Option<PolicyVersion>, BoxError> {
        let mut found = None;
        self.each_tenant_version(tenant, |version| {
            let is_found = version.change.id.number() == number;
            found = is_found.then_some(version);
            !is_found
        })
        .await?;
        Ok(found)
    }

    /// Passes each version that changed a tenant's part of the policy to `visit`, the latest first, until it returns
    /// `false`. The texts are read and compared off the thread of the caller, one at a time.
    async fn each_tenant_version(
        &self,
        tenant: &TenantId,
        mut visit: impl FnMut(PolicyVersion) -> bool + Send,
    ) -> Result<(), BoxError> {
        let Some(store) = self.policy_store().cloned() else { return Ok(()) };
        let (mut before, mut search) = (None, Search::of(tenant));
        for _ in 0..MAX_VERSIONS / PAGE {
            let changes = store.history(before, PAGE).await?;
            for change in &changes {
                before = Some(change.id.number());
                let version = undamaged(&*store, change).await?;
                let entry;
                (search, entry) = off_thread(move || search.next(version)).await?;
                if entry.is_some_and(|entry| !visit(entry)) {
                    return Ok(());
                }
            }
            if changes.len() < PAGE {
                break;
            }
        }
        if let Some(entry) = search.first() {
            visit(entry);
        }
        Ok(())
    }

    /// Explains a token as [`explain`](Self::explain) does, with the trusts and rules that a tenant sees. All others
    /// are as unknown: their keys are not fetched, and their rules are not considered. So a token that other rules
    /// match too is explained as granted, although it is denied as ambiguous.
    pub async fn explain_for_tenant(
        &self,
        tenant: &TenantId,
        token: &str,
        trust_id: Option<&str>,
    ) -> Explanation {
        let loaded = self.follow().await;
        let own = |compiled: &Arc<CompiledTrust>| {
            let trust = compiled.trust.for_tenant(tenant)?;
            let CompiledTrust { validator, config, usage, .. } = &**compiled;
            let (validator, config, usage) = (validator.clone(), config.clone(), usage.clone());
            Some(Arc::new(CompiledTrust { trust, validator, config, usage }))
        };
        let visible = LoadedPolicy {
            // In the order of `trusts`.
            policy: loaded.policy.for_tenant(tenant),
            trusts: loaded.trusts.iter().filter_map(own).collect(),
            is_missing: loaded.is_missing,
            ..LoadedPolicy::default()
        };
        Explanation::of(self.verify(&visible, trust_id, token).await)
    }
}

/// Returns the text of the whole policy after a tenant's change, and the id of the tenant's part.
fn changed_policy(
    policy: &str,
    tenant: &TenantId,
    submitted: &str,
    expected: &PolicyVersionId,
) -> Result<(String, PolicyVersionId), SaveError> {
    let own = TenantPolicy::of(policy, tenant)?;
    if own.id() != expected {
        return Err(SaveError::Conflict(Some(own.id().clone())));
    }
    let change = TenantPolicy::change(policy, tenant, submitted)?;
    Ok((change.policy_text().to_owned(), change.own.id().clone()))
}

/// Reads a version. Returns `None` for one that the store cannot read, although it works.
async fn undamaged(
    store: &dyn PolicyStore,
    change: &PolicyChange,
) -> Result<Option<PolicyVersion>, BoxError> {
    if change.is_damaged {
        return Ok(None);
    }
    let number = change.id.number();
    match store.read(number).await {
        Err(_) if store.latest().await.is_ok() => Ok(store.read(number).await.unwrap_or_default()),
        read => read,
    }
}

/// A search for the versions that changed a tenant's part of the policy, from the latest to the first.
struct Search {
    tenant: TenantId,
    /// A version with its part of the tenant, until it is known whether the one before it differs.
    later: Option<(PolicyVersion, TenantPolicy)>,
    /// Whether a version after this one could not be read.
    has_gap: bool,
}

impl Search {
    fn of(tenant: &TenantId) -> Self {
        Self { tenant: tenant.clone(), later: None, has_gap: false }
    }

    /// Compares a version (`None`: a damaged one) with the one after it, and returns the entry of the latter if it
    /// changed the tenant's part.
    fn next(mut self, version: Option<PolicyVersion>) -> (Self, Option<PolicyVersion>) {
        let Some(version) = version else {
            self.has_gap = true;
            return (self, None);
        };
        // A version with faults was never in force.
        let Ok(own) = TenantPolicy::of(&version.text, &self.tenant) else { return (self, None) };
        let later = self.later.take().filter(|(_, after)| after.id() != own.id());
        // The difference to an earlier version may have several authors.
        let before = (!self.has_gap).then_some(&version);
        let entry = later.map(|(later, after)| tenant_entry(&self.tenant, &later, &after, before));
        self.later = Some((version, own));
        self.has_gap = false;
        (self, entry)
    }

    /// Returns the entry of the first version, if it has a part of the tenant.
    fn first(self) -> Option<PolicyVersion> {
        let (first, own) = self.later.filter(|(_, own)| !own.is_empty())?;
        Some(tenant_entry(&self.tenant, &first, &own, None))
    }
}

/// Returns the entry of a tenant's history for a version of the whole policy.
fn tenant_entry(
    tenant: &TenantId,
    version: &PolicyVersion,
    own: &TenantPolicy,
    before: Option<&PolicyVersion>,
) -> PolicyVersion {
    let PolicyVersion { change, text } = version;
    // The digest of the whole text cannot be guessed, so the number of the whole policy cannot be found from this.
    let digest = crypto::sha256_hex(&format!("version\0{tenant}\0{}\0{text}", change.id));
    let number = number_of(&digest);
    let mut entry = PolicyVersion::new(number, NewPolicyVersion::new(own.text(), change.at));
    let is_own = |author: &PolicyAuthor| author.tenant.as_deref() == Some(tenant.as_str());
    if change.author.as_ref().is_some_and(is_own)
        && before.is_some_and(|before| is_same_for_others(&before.text, text, tenant))
    {
        entry.change.author.clone_from(&change.author);
        entry.change.note.clone_from(&change.note);
    }
    entry
}
