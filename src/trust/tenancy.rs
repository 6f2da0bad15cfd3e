//! What the administrators of one tenant do with a policy: see and change their part of it, its history, and try a
//! token.

use std::sync::Arc;

use super::evaluator::{LoadedPolicy, TrustEvaluator};
use super::explain::Explanation;
use super::fault::PolicyError;
use super::following::{SaveError, SyncError};
use super::store::{NewPolicyVersion, PolicyAuthor, PolicyChange, PolicyVersion, PolicyVersionId};
use super::tenant_policy::{TenantChange, TenantPolicy, hidden, is_same_for_others, number_of};
use super::verification::CompiledTrust;
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::support::crypto;
use crate::support::off_thread::off_thread;

/// The number of attempts to save while others write.
const ATTEMPTS: usize = 5;

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
    /// It does *not* check that the author is an administrator of the tenant.
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
        if self.policy_store().is_none() {
            return Err(SaveError::ReadOnly);
        }
        if let Some(author) = &mut version.author {
            author.tenant = Some(tenant.to_string());
        }
        // The number is one of the whole policy.
        version.restores = None;
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
    /// searched.
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
    /// `false`.
    async fn each_tenant_version(
        &self,
        tenant: &TenantId,
        mut visit: impl FnMut(PolicyVersion) -> bool + Send,
    ) -> Result<(), BoxError> {
        let Some(store) = self.policy_store().cloned() else { return Ok(()) };
        let mut before = None;
        // A version, until it is known whether the one before it differs.
        let mut later: Option<(PolicyVersion, TenantPolicy)> = None;
        for _ in 0..MAX_VERSIONS / PAGE {
            let changes = store.history(before, PAGE).await?;
            for change in &changes {
                before = Some(change.id.number());
                let Some(version) = store.read(change.id.number()).await? else { continue };
                // A version that cannot be read was never in force.
                let Ok(own) = TenantPolicy::of(&version.text, tenant) else { continue };
                if let Some((later, after)) = &later
                    && after.id() != own.id()
                    && !visit(tenant_version(tenant, later, after, Some(&version)))
                {
                    return Ok(());
                }
                later = Some((version, own));
            }
            if changes.len() < PAGE {
                break;
            }
        }
        if let Some((first, own)) = later.filter(|(_, own)| !own.is_empty()) {
            visit(tenant_version(tenant, &first, &own, None));
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

/// Returns the entry of a tenant's history for a version of the whole policy.
fn tenant_version(
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
