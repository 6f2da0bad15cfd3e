//! `POST exchange`: exchanges a workload token of another platform for a token of the provider or
//! of this service.

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use super::parameters::{BodyFormat, Parameters};
use super::response::{Failure, invalid_request, oauth_error};
use super::tokens::scopes;
use super::{EndpointRequest, Inner};
use crate::identity::ClaimsMapping;
use crate::mint::WorkloadRequest;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Parameters of a request (RFC 8693 §2.1).
const KNOWN: [&str; 10] = [
    "grant_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "audience",
    "resource",
    "requested_token_type",
    "scope",
    "trust_id",
];

/// A successful response (RFC 8693 §2.2.1).
#[derive(Serialize)]
struct TokenExchangeResponse<'a> {
    access_token: &'a str,
    issued_token_type: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    scope: &'a str,
}

impl Inner {
    /// Exchanges the workload token, which is the only credential: `Authorization` is ignored.
    pub(super) async fn exchange(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let parameters = Parameters::from_body(incoming, BodyFormat::FormOrJson, &KNOWN)?;
        match parameters.required("grant_type", "The parameter grant_type is missing.")? {
            TOKEN_EXCHANGE | "token_exchange" => {}
            _ => {
                let problem = "This grant type is not supported.";
                return Err(Failure::OAuth("unsupported_grant_type", problem));
            }
        }
        let workloads = self.workloads.as_ref();
        let workloads = workloads.ok_or(Failure::NotConfigured("there is no trust policy"))?;
        let request = request(&parameters)?;
        let minted = workloads.exchange(&request).await;
        if minted.is_ok() {
            // Not before the token is verified: who is revoked is not for everyone.
            let (token, mapping) = (&request.subject_token, ClaimsMapping::default());
            self.refuse_revoked(token, &mapping).await.map_err(|error| {
                match error.is_unavailable() {
                    true => error.into(),
                    false => invalid_request("The subject token is revoked."),
                }
            })?;
        }
        match minted {
            Ok(minted) => Ok(self.ok(&TokenExchangeResponse {
                access_token: minted.access_token.expose(),
                issued_token_type: &minted.issued_token_type,
                token_type: "Bearer",
                expires_in: minted.expires_in.map(|lifetime| lifetime.as_secs()),
                scope: minted.scopes.as_str(),
            })),
            Err(refusal) => {
                let (code, message) = (refusal.code(), refusal.public_message());
                Ok(oauth_error(refusal.status().as_u16(), code, message, refusal.retry_after()))
            }
        }
    }
}

fn request(parameters: &Parameters) -> Result<WorkloadRequest, Failure> {
    let text = |name: &str| parameters.get(name).map(str::to_owned);
    if parameters.get("actor_token").is_some() || parameters.get("actor_token_type").is_some() {
        return Err(invalid_request("Actor tokens are not supported."));
    }
    let missing = "The parameter subject_token is missing.";
    let mut request = WorkloadRequest::new(parameters.required("subject_token", missing)?);
    let missing = "The parameter subject_token_type is missing.";
    request.subject_token_type = parameters.required("subject_token_type", missing)?.to_owned();
    request.audience = text("audience");
    request.resource = text("resource");
    request.requested_token_type = text("requested_token_type");
    request.trust_id = text("trust_id");
    request.scopes = scopes(parameters)?;
    Ok(request)
}
