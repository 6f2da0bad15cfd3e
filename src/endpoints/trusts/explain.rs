//! `POST trusts/explain`: explains the decision about a foreign token. Nothing is minted, and the token does not
//! count as used.

use serde::Deserialize;
use serde_json::json;

use super::problem::Problem;
use super::{Admitted, Outcome};
use crate::support::media_type::media_type;
use crate::support::secret::Secret;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainRequest {
    token: Secret,
    trust_id: Option<String>,
}

impl Admitted<'_> {
    pub(super) async fn explain(&self) -> Outcome {
        if media_type(&self.incoming.head.headers) != "application/json" {
            return Err(
                Problem::unsupported_media_type("The body must be application/json.").into()
            );
        }
        let request: ExplainRequest =
            serde_json::from_slice(&self.incoming.body).map_err(|_| MALFORMED)?;
        let explanation =
            self.evaluator.explain(request.token.expose(), request.trust_id.as_deref()).await;
        Ok(self.inner.ok(&json!({
            "trust": explanation.trust(),
            "rule": explanation.grant(),
            "outcome": explanation.denial().map_or("granted", |denial| denial.as_str()),
            "problem": explanation.denial().map(ToString::to_string),
            "lines": explanation.to_string().lines().collect::<Vec<_>>(),
        })))
    }
}

const MALFORMED: Problem = Problem::malformed(
    "The body must be a JSON object with token or claims, and optionally trust_id and text.",
);
