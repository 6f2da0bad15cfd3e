//! `GET trusts`: the policy in force, its warnings, and the state of each trust.

use serde::Serialize;
use serde_json::json;

use bytes::Bytes;
use http::Response;

use super::access::Access;
use super::policy_text::{Fault, faults};
use super::{Admitted, Outcome};
use crate::trust::{TrustOverview, TrustPolicy, presets};

#[derive(Serialize)]
struct PolicyResponse {
    access: Access,
    policy: TrustPolicy,
    warnings: Vec<Fault>,
    trusts: Vec<TrustOverview>,
}

impl Admitted<'_> {
    pub(super) async fn policy(&self) -> Outcome {
        let policy = self.evaluator.policy();
        let trusts = self.evaluator.overview();
        let warnings = faults(policy.warnings());
        Ok(self.inner.ok(&PolicyResponse { access: self.access.clone(), policy, warnings, trusts }))
    }

    pub(super) fn presets(&self) -> Response<Bytes> {
        let preset = |(name, text): &(&str, &str)| json!({ "name": name, "text": text });
        self.inner.ok(&json!({ "presets": presets::ALL.iter().map(preset).collect::<Vec<_>>() }))
    }
}
