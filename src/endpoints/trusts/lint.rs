//! `POST trusts/lint`: checks a policy without using it.

use serde::Serialize;

use super::policy_text::{Fault, Format, faults, utf8};
use super::{Admitted, Outcome};
use crate::trust::TrustPolicy;

#[derive(Serialize)]
struct LintResponse {
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    policy: Option<TrustPolicy>,
}

impl Admitted<'_> {
    /// Returns 200 with the faults and the warnings of the policy in the body.
    pub(super) async fn lint(&self) -> Outcome {
        let format = Format::of(&self.incoming.head.headers)?;
        let text = utf8(&self.incoming.body)?;
        let evaluator = self.evaluator.clone();
        let check = move || format.parse(&text).and_then(|policy| evaluator.check(policy));
        let response = match self.administration.run(check).await? {
            Ok(policy) => LintResponse {
                faults: Vec::new(),
                warnings: faults(policy.warnings()),
                policy: Some(policy),
            },
            Err(error) => {
                LintResponse { faults: faults(error.faults()), warnings: Vec::new(), policy: None }
            }
        };
        Ok(self.inner.ok(&response))
    }
}
