//! `POST trusts/explain`: explains the decision about a foreign token. Nothing is minted, and the token does not
//! count as used.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::Problem;
use super::write::invalid;
use super::{Admitted, Outcome};
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
    pub(super) async fn explain(&self) -> Outcome {
        if media_type(&self.incoming.head.headers) != "application/json" {
            let detail = "The body must be application/json.";
            return Err(Problem::unsupported_media_type(detail).into());
        }
        let request: ExplainRequest =
            serde_json::from_slice(&self.incoming.body).map_err(|_| MALFORMED)?;
        let trust_id = request.trust_id.as_deref();
        let policy = match request.text {
            None => None,
            Some(text) => {
                let evaluator = self.evaluator.clone();
                let read = move || TrustPolicy::from_toml(&text).and_then(|it| evaluator.check(it));
                Some(self.administration.run(read).await?.map_err(invalid)?)
            }
        };
        let explanation = match (request.token, request.claims, &policy) {
            (Some(token), None, None) => self.evaluator.explain(token.expose(), trust_id).await,
            (Some(token), None, Some(policy)) => {
                let explained = self.evaluator.explain_with(policy, token.expose(), trust_id);
                explained.await.map_err(invalid)?
            }
            (None, Some(claims), None) => {
                self.evaluator.explain_claims(claims.get(), trust_id).await
            }
            (None, Some(claims), Some(policy)) => {
                self.evaluator.explain_claims_with(policy, claims.get(), trust_id)
            }
            (Some(_), Some(_), _) | (None, None, _) => return Err(MALFORMED.into()),
        };
        Ok(self.inner.ok(&explanation))
    }
}

const MALFORMED: Problem = Problem::malformed(
    "The body must be a JSON object with token or claims (an object), and optionally trust_id and text.",
);
