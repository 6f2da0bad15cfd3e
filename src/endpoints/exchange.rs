//! `POST exchange`: exchanges a workload token of another platform for a token of the provider or
//! of this service.

use std::path::Path;

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use super::parameters::{BodyFormat, Parameters};
use super::response::{Failure, invalid_request, oauth_error};
use super::tokens::scopes;
use super::{EndpointRequest, Inner};
use crate::auth::Auth;
use crate::config::{AuthConfig, ConfigError, Fault};
use crate::exchange::TokenExchangeClient;
use crate::mint::{ForwardingMinter, WorkloadExchange, WorkloadRequest};
use crate::trust::{TrustEvaluator, TrustEvaluatorBuilder};

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
        match workloads.exchange(&request(&parameters)?).await {
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

/// Builds the exchange from a policy file. The token client of the endpoints forwards the tokens to
/// the provider, which issues the new ones.
pub(super) fn from_file(
    file: &Path,
    config: &AuthConfig,
    auth: &Auth,
    client: Option<&TokenExchangeClient>,
) -> Result<WorkloadExchange, ConfigError> {
    let fault = |problem: String| ConfigError::one(Fault::new("endpoints.trust_file", problem));
    let client = client.ok_or_else(|| {
        let problem = "needs an OAuth client to get tokens: set client.id (`P_CLIENT_ID`)";
        fault(problem.to_owned())
    })?;
    let own = config.issuers.first().and_then(|issuer| config.audience_of(issuer).first());
    let audience = own.ok_or_else(|| {
        fault("needs the audience of this service: set `audience` (`P_AUDIENCE`)".to_owned())
    })?;
    let issuers = config.issuers.iter().map(|issuer| issuer.expected().to_owned());
    let evaluator = with_replay_log(TrustEvaluator::builder().file(file), config)?;
    let evaluator = issuers.fold(evaluator, |evaluator, own| evaluator.own_issuer(own));
    let evaluator = evaluator.build().map_err(|error| fault(format!("cannot be used: {error}")))?;
    let minter = ForwardingMinter::new(client.clone());
    let workloads = WorkloadExchange::new(evaluator, minter, audience);
    Ok(match auth.resource() {
        Some(resource) => workloads.resource(&resource.identifier),
        None => workloads,
    })
}

/// Sets the replay log: processes that share a token cache in Redis also share it.
#[cfg(feature = "redis")]
fn with_replay_log(
    evaluator: TrustEvaluatorBuilder,
    config: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    let urls = config.client.redis_urls().map_err(ConfigError::one)?;
    Ok(match &urls {
        Some(urls) => evaluator.replay_log(crate::exchange::RedisCache::open_source(urls)?),
        None => evaluator,
    })
}

/// Sets no replay log: without the feature `redis`, the token client already reports the URL as a
/// fault.
#[cfg(not(feature = "redis"))]
#[expect(clippy::unnecessary_wraps, reason = "fails with the feature `redis`")]
fn with_replay_log(
    evaluator: TrustEvaluatorBuilder,
    _: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    Ok(evaluator)
}
