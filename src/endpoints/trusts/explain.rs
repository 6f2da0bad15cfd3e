//! `POST trusts/explain`: explains the decision about a foreign token. Nothing is minted, and the token does not
//! count as used.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::{Problem, Refused};
use super::tenant::hidden_conflict;
use super::write::invalid;
use super::{Admitted, Outcome};
use crate::identity::TenantId;
use crate::support::media_type::media_type;
use crate::support::secret::Secret;
use crate::trust::TrustPolicy;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainRequest {
    token: Option<Secret>,
    claims: Option<Box<RawValue>>,
    trust_id: Option<String>,
    /// A policy in TOML that is not in force.
    text: Option<String>,
}

impl Admitted<'_> {
    /// For a tenant, a trust without rules or delegations of the tenant is unknown, and its keys are not fetched.
    pub(super) async fn explain(&self, tenant: Option<&TenantId>) -> Outcome {
        if media_type(&self.incoming.head.headers) != "application/json" {
            let detail = "The body must be application/json.";
            return Err(Problem::unsupported_media_type(detail).into());
        }
        let request: ExplainRequest =
            serde_json::from_slice(&self.incoming.body).map_err(|_| MALFORMED)?;
        let trust_id = request.trust_id.as_deref();
        let policy = match request.text {
            None => None,
            Some(text) => Some(self.policy_to_try(text, tenant).await?),
        };
        let explanation = match (request.token, request.claims) {
            (Some(token), None) => {
                let token = token.expose();
                match (&policy, tenant) {
                    (None, None) => self.evaluator.explain(token, trust_id).await,
                    (None, Some(tenant)) => {
                        self.evaluator.explain_for_tenant(tenant, token, trust_id).await
                    }
                    (Some(policy), _) => {
                        let explained = self.evaluator.explain_with(policy, token, trust_id).await;
                        explained.map_err(|error| match tenant {
                            // About the files of a trust.
                            Some(_) => hidden_conflict(),
                            None => invalid(error),
                        })?
                    }
                }
            }
            (None, Some(claims)) => {
                let claims = claims.get();
                if !claims.starts_with('{') {
                    return Err(NO_OBJECT.into());
                }
                match (&policy, tenant) {
                    (None, None) => self.evaluator.explain_claims(claims, trust_id).await,
                    (None, Some(tenant)) => {
                        let policy = self.latest().await?.current.policy().for_tenant(tenant);
                        self.evaluator.explain_claims_with(&policy, claims, trust_id)
                    }
                    (Some(policy), _) => {
                        self.evaluator.explain_claims_with(policy, claims, trust_id)
                    }
                }
            }
            (Some(_), Some(_)) | (None, None) => return Err(MALFORMED.into()),
        };
        Ok(self.inner.ok(&explanation))
    }

    /// Reads a policy that is not in force: for a tenant, its part with the text that it submits.
    async fn policy_to_try(
        &self,
        text: String,
        tenant: Option<&TenantId>,
    ) -> Result<TrustPolicy, Refused> {
        if let Some(tenant) = tenant {
            self.latest().await?;
            let change = self.check_tenant(tenant, text).await?.map_err(invalid)?;
            return Ok(change.policy().for_tenant(tenant));
        }
        let evaluator = self.evaluator.clone();
        let read = move || TrustPolicy::from_toml(&text).and_then(|it| evaluator.check(it));
        self.administration.run(read).await?.map_err(invalid)
    }
}

const MALFORMED: Problem = Problem::malformed(
    "The body must be a JSON object with token or claims (an object), and optionally trust_id and text.",
);

const NO_OBJECT: Problem = Problem::malformed("The member claims must be a JSON object.");
