//! The question whether a new policy would lock out its own writer.

use std::time::SystemTime;

use super::dry_run::{changes_keys, judge};
use super::evaluator::TrustEvaluator;
use super::policy::{Mode, Trust, TrustPolicy};
use super::rule::Grant;
use crate::identity::{Identity, Scopes, TenantId};

impl TrustEvaluator {
    /// Returns whether the caller is a workload whose identity, tenant and scopes come from a rule of the policy in
    /// force, and would not come from `policy`: then it could not change the policy back.
    ///
    /// A rule counts if its tenant fits, its template could give the subject of the caller, and the caller has a scope
    /// of it; the provider may have added others. `policy` must keep the scopes that the caller has of a rule. If a
    /// [kept decision](Self::decisions) granted this identity, the last one is also judged by `policy`; it counts as
    /// locked out if the trust of its token gets another issuer, other keys or fewer algorithms. *Not* noticed:
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
        let Some(scopes) = workload.scopes_of(&self.0.loaded.load().policy) else { return false };
        let is_kept = workload.rules(policy).any(|permitted| permitted.contains_all(&scopes));
        !is_kept || self.denies_last_token(policy, &workload)
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
        let Some(record) = last else { return false };
        let Some(judgement) = judge(policy, record, &mut 0) else {
            return record.evidence.as_ref().is_some_and(|it| changes_keys(policy, it));
        };
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

    /// Returns the scopes that the caller has of a rule of the policy, if one could give the identity. Of several, it
    /// is the one with the most of them.
    fn scopes_of(&self, policy: &TrustPolicy) -> Option<Scopes> {
        let own = self.identity.scopes();
        let common = |permitted: &Scopes| {
            let common: Vec<_> = own.iter().filter(|scope| permitted.contains(scope)).collect();
            (common.len(), common.join(" "))
        };
        let (count, common) = self.rules(policy).map(common).max_by_key(|(count, _)| *count)?;
        (count > 0 || own.is_empty()).then(|| common.parse().ok())?
    }

    /// Returns the permitted scopes of the rules that could give the identity in this tenant.
    fn rules<'p>(&'p self, policy: &'p TrustPolicy) -> impl Iterator<Item = &'p Scopes> {
        let is_in_force =
            move |trust: &&Trust| trust.mode == Mode::Enforce && trust.check_end(self.now).is_ok();
        let trusts = policy.trusts.iter().filter(is_in_force);
        let rules = trusts.flat_map(|trust| trust.grants.iter().map(move |rule| (trust, rule)));
        let fits = move |(trust, rule): &(&Trust, &Grant)| {
            self.is_in(&rule.map.tenant)
                && rule.map.identity.may_give(self.identity.subject(), &trust.id)
        };
        rules.filter(fits).map(|(_, rule)| &rule.map.scopes)
    }
}
