//! The question whether a new policy would lock out its own writer.

use std::time::SystemTime;

use super::dry_run::judge;
use super::evaluator::TrustEvaluator;
use super::policy::{Mode, Trust, TrustPolicy};
use crate::identity::{Identity, TenantId};

impl TrustEvaluator {
    /// Returns whether the caller is a workload whose identity, tenant and scopes come from a rule of the policy in
    /// force, and would not come from `policy`: then it could not change the policy back.
    ///
    /// A rule counts if its tenant and scopes fit and its template could give the subject of the caller. If a
    /// [kept decision](Self::decisions) granted this identity, the last one is also judged by `policy`. *Not* noticed:
    /// a provider that gives its tokens another subject than the rule's identity, and conditions that exclude the
    /// workload, if no kept decision shows its claims. Callers whose identity comes from no rule are never locked out.
    ///
    /// ```
    /// use scaikey_auth::AuthContext;
    /// use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
    ///
    /// fn may_save(trusts: &TrustEvaluator, policy: &TrustPolicy, caller: &AuthContext) -> bool {
    ///     let tenant = caller.tenant().map(|tenant| tenant.id());
    ///     !trusts.would_lock_out(policy, caller.identity(), tenant)
    /// }
    /// ```
    pub fn would_lock_out(
        &self,
        policy: &TrustPolicy,
        caller: &Identity,
        tenant: Option<&TenantId>,
    ) -> bool {
        let workload = Workload { identity: caller, tenant, now: self.0.clock.now() };
        workload.may_come_from(&self.0.loaded.load().policy)
            && (!workload.may_come_from(policy) || self.denies_last_token(policy, &workload))
    }

    /// Returns whether a policy denies the last token that was granted this identity.
    fn denies_last_token(&self, policy: &TrustPolicy, workload: &Workload<'_>) -> bool {
        let records = self.0.decisions.records();
        let last = records.iter().find(|record| {
            let Some(tenant) = &record.decision.tenant else { return false };
            record.decision.outcome == "granted"
                && record.identity.as_deref() == Some(workload.identity.subject())
                && workload.is_in(tenant)
        });
        let Some(judgement) = last.and_then(|record| judge(policy, record)) else { return false };
        let is_same = judgement.gain.is_some_and(|gain| {
            gain.identity == workload.identity.subject() && workload.is_in(&gain.tenant)
        });
        !(is_same && judgement.outcome == "granted")
    }
}

/// The caller, if it is a workload.
struct Workload<'c> {
    identity: &'c Identity,
    tenant: Option<&'c TenantId>,
    now: SystemTime,
}

impl Workload<'_> {
    fn is_in(&self, tenant: &TenantId) -> bool {
        self.tenant.is_none_or(|own| own == tenant)
    }

    /// Returns whether a rule of the policy could give the identity.
    fn may_come_from(&self, policy: &TrustPolicy) -> bool {
        policy.trusts.iter().any(|trust| self.may_come_from_trust(trust))
    }

    fn may_come_from_trust(&self, trust: &Trust) -> bool {
        let is_in_force = trust.mode == Mode::Enforce && trust.check_end(self.now).is_ok();
        is_in_force
            && trust.grants.iter().any(|grant| {
                self.is_in(&grant.map.tenant)
                    && grant.map.identity.may_give(self.identity.subject(), &trust.id)
                    && grant.map.scopes.contains_all(self.identity.scopes())
            })
    }
}
