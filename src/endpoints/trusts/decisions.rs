//! `GET trusts/decisions`: the decisions of late. `POST trusts/dry_run`: those that a policy would change.

use serde_json::json;

use super::history::{limit, number};
use super::policy_text::{Format, utf8};
use super::problem::Problem;
use super::write::invalid;
use super::{Admitted, Outcome};
use crate::identity::TenantId;
use crate::trust::{Decision, DecisionFilter, OUTCOMES};

/// The number of decisions in an answer, unless the request says another.
const DEFAULT_LIMIT: usize = 100;

/// The largest number of decisions in an answer: the kept ones, and those about tokens that were not verified.
const MAX_LIMIT: usize = 2 * Decision::CAPACITY;

const NO_OUTCOME: Problem = Problem::malformed(
    "No decision has this outcome: it is granted, or the name of a reason, such as grant_none.",
);

impl Admitted<'_> {
    /// Returns the decisions of late: for a tenant, those of its rules.
    pub(super) fn decisions(&self, tenant: Option<&TenantId>) -> Outcome {
        let parameters = self.parameters(&["trust", "outcome", "after", "limit"])?;
        let limit = limit(&parameters, DEFAULT_LIMIT, MAX_LIMIT)?;
        let mut filter = DecisionFilter::new().limit(limit);
        if let Some(tenant) = tenant {
            filter = filter.tenant(tenant.clone());
        }
        if let Some(after) = number(&parameters, "after")? {
            filter = filter.after(after);
        }
        if let Some(trust) = parameters.get("trust") {
            filter = filter.trust(trust);
        }
        if let Some(outcome) = parameters.get("outcome") {
            if !OUTCOMES.contains(&outcome) {
                return Err(NO_OUTCOME.into());
            }
            filter = filter.outcome(outcome);
        }
        let decisions = self.evaluator.decisions(&filter);
        Ok(self.inner.ok(&json!({ "decisions": decisions, "capacity": Decision::CAPACITY })))
    }

    /// Compares the decisions of late with those of the policy in the body.
    pub(super) async fn dry_run(&self) -> Outcome {
        let format = Format::of(&self.incoming.head.headers)?;
        let text = utf8(&self.incoming.body)?;
        let evaluator = self.evaluator.clone();
        let compare = move || {
            let policy = format.parse(&text).and_then(|policy| evaluator.check(policy))?;
            Ok(evaluator.dry_run(&policy, &DecisionFilter::new()))
        };
        let dry_run = self.administration.run(compare).await?.map_err(invalid)?;
        Ok(self.inner.ok(&dry_run))
    }
}
