//! [`WorkloadExchange`]: exchanges a foreign token for a token of this service.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::{MintRequest, Minted, Minter};
use crate::clock::{Clock, SystemClock};
use crate::exchange::{ExchangeError, OAuthError};
use crate::identity::Scopes;
use crate::support::secret::Secret;
use crate::support::telemetry::{self, Outage};
use crate::trust::{Denied, Granted, TrustEvaluator};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// A workload's request for a token (RFC 8693 §2.1; feature `trust`).
///
/// ```
/// use scaikey_auth::mint::WorkloadRequest;
///
/// let mut request = WorkloadRequest::new("the token of the pod");
/// request.scopes = "secrets:read".parse()?;
/// request.trust_id = Some("k8s-prod-eu".to_owned());
/// # Ok::<_, scaikey_auth::identity::InvalidScope>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkloadRequest {
    /// The token from the workload's platform.
    pub subject_token: Secret,
    /// The type of that token: the URN for `jwt`, `id_token` or `access_token`. The token must be a
    /// JWT.
    pub subject_token_type: String,
    /// The name of the service that the new token is for. If present, it must be the audience of
    /// the [`WorkloadExchange`]. Default: none.
    pub audience: Option<String>,
    /// The URL of the service that the new token is for. If present, it must be one of
    /// [`WorkloadExchange::resource`]. Default: none.
    pub resource: Option<String>,
    /// The requested scopes. If there are none, the token gets all scopes that the policy grants.
    pub scopes: Scopes,
    /// The type of the new token: the URN for `access_token` (the default) or `jwt`.
    pub requested_token_type: Option<String>,
    /// The id of the trust. Required if several trusts match the token, or if the trust is
    /// `named_only`.
    pub trust_id: Option<String>,
}

impl WorkloadRequest {
    /// Creates a request with a JWT, for all scopes that the policy grants.
    pub fn new(subject_token: impl Into<Secret>) -> Self {
        Self {
            subject_token: subject_token.into(),
            subject_token_type: JWT.to_owned(),
            audience: None,
            resource: None,
            scopes: Scopes::new(),
            requested_token_type: None,
            trust_id: None,
        }
    }
}

/// The reason for refusing a workload's request (feature `trust`).
///
/// An endpoint of your own answers with its public parts:
///
/// ```
/// use axum::Json;
/// use axum::response::{IntoResponse, Response};
/// use scaikey_auth::mint::WorkloadRefusal;
/// use serde_json::json;
///
/// fn answer(refusal: &WorkloadRefusal) -> Response {
///     println!("{refusal}"); // the log may say more than the caller may know
///     let body = json!({ "error": refusal.code(), "error_description": refusal.public_message() });
///     (refusal.status(), Json(body)).into_response()
/// }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadRefusal {
    /// The request is malformed. A fixed text describes the fault.
    #[error("{0}")]
    Malformed(&'static str),
    /// The request is for a token of another service.
    #[error("the audience or resource is not this service")]
    Target,
    /// The policy denies the foreign token, or cannot decide.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The policy granted the token, but the minter failed.
    #[error("the token was granted, but could not be minted: {0}")]
    MintFailed(ExchangeError),
}

impl WorkloadRefusal {
    /// Returns the `error` of the response (RFC 8693 §2.2.2).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "invalid_request",
            Self::Target => "invalid_target",
            Self::Denied(denied) => denied.code(),
            Self::MintFailed(ExchangeError::Unavailable { .. }) => "temporarily_unavailable",
            Self::MintFailed(ExchangeError::Refused { error: Some(code), .. }) => match code {
                OAuthError::InvalidTarget => "invalid_target",
                OAuthError::InvalidScope => "invalid_scope",
                // The provider rejects the foreign token. The caller gets the same code as if this
                // service had rejected it.
                OAuthError::InvalidGrant | OAuthError::InvalidRequest => "invalid_request",
                _ => "server_error",
            },
            Self::MintFailed(_) => "server_error",
        }
    }

    /// Returns the HTTP status of the response: 400, 502 or 503.
    pub fn status(&self) -> StatusCode {
        match self.code() {
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "server_error" => StatusCode::BAD_GATEWAY,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns a fixed sentence for the caller. It does not say what is wrong with the foreign
    /// token.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Malformed(problem) => problem,
            Self::Target => "There are no tokens for this target here.",
            Self::Denied(denied) => denied.public_message(),
            Self::MintFailed(_) => "The token could not be issued.",
        }
    }

    /// Returns the time that the caller should wait (1 s if it is unknown), if the response is 503.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Denied(denied) => denied.retry_after(),
            Self::MintFailed(error @ ExchangeError::Unavailable { .. }) => {
                Some(error.retry_after().unwrap_or(Duration::from_secs(1)))
            }
            _ => None,
        }
    }
}

/// A token exchange for foreign workloads (feature `trust`): a trust policy decides about the
/// foreign token, then a [`Minter`] issues a token of this service. Cloning is cheap.
///
/// The [endpoints](crate::endpoints::EndpointsBuilder::workloads) call it for
/// `POST /v1/auth/exchange`. To call it yourself:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use scaikey_auth::config::Algorithm;
/// use scaikey_auth::mint::{LocalMinter, WorkloadExchange, WorkloadRequest};
/// use scaikey_auth::testing::{Provider, SigningKey};
/// use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
///
/// let cluster = Provider::builder().audience("scaivault").start().await;
/// let policy = TrustPolicy::from_toml(&format!(
///     r#"
///     [[trust]]
///     id = "cluster"
///     issuer = "{}"
///     allow_loopback_http = true
///     audiences = ["scaivault"]
///     [[trust.grant]]
///     name = "reporting"
///     subject = "system:serviceaccount:reports:reporter"
///     map = {{ identity = "sa:{{trust}}:{{sub}}", tenant = "acme", scopes = ["secrets:read"] }}
///     "#,
///     cluster.issuer(),
/// ))?;
/// let key = SigningKey::generate(Algorithm::ES256).private_pem();
/// let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, key, "minter-1")?;
/// let trusts = TrustEvaluator::builder().policy(policy).own_issuer("https://vault.example").build()?;
/// let exchange = WorkloadExchange::new(trusts, minter, "scaivault");
///
/// let pod = cluster.token().subject("system:serviceaccount:reports:reporter").sign();
/// let minted = exchange.exchange(&WorkloadRequest::new(pod)).await?;
/// assert_eq!(minted.scopes.as_str(), "secrets:read");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct WorkloadExchange {
    evaluator: TrustEvaluator,
    minter: Arc<dyn Minter>,
    audience: String,
    resources: Vec<String>,
    clock: Arc<dyn Clock>,
    /// Logs a failure of the minter once, until it works again.
    outage: Arc<Outage>,
}

impl WorkloadExchange {
    /// Creates an exchange. `audience` is the name of this service, which the new tokens have in
    /// `aud`.
    pub fn new(
        evaluator: TrustEvaluator,
        minter: impl Minter,
        audience: impl Into<String>,
    ) -> Self {
        Self {
            evaluator,
            minter: Arc::new(minter),
            audience: audience.into(),
            resources: Vec::new(),
            clock: Arc::new(SystemClock::default()),
            outage: Arc::default(),
        }
    }

    /// Adds a URL of this service that callers may request as `resource` (RFC 8707). It must match
    /// exactly. May be repeated. Default: none.
    #[must_use]
    pub fn resource(mut self, url: impl Into<String>) -> Self {
        self.resources.push(url.into());
        self
    }

    /// Sets the clock. Default: [`SystemClock`].
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns the evaluator, to reload the policy or explain a decision.
    pub fn evaluator(&self) -> &TrustEvaluator {
        &self.evaluator
    }

    /// Exchanges a foreign token: checks the request, evaluates and logs the policy's decision, and
    /// mints a token.
    ///
    /// A token of a [trust](crate::trust) with `single_use_jti` counts as used when the policy
    /// grants it, even if minting fails, because the provider may have issued a token although its
    /// response was lost. The workload must then request another token from its platform.
    ///
    /// # Errors
    /// [`WorkloadRefusal`]. Its public message does not say what is wrong with the foreign token.
    pub async fn exchange(&self, request: &WorkloadRequest) -> Result<Minted, WorkloadRefusal> {
        let resource = self.check(request)?;
        let token = &request.subject_token;
        let trust = request.trust_id.as_deref();
        let granted = self.evaluator.evaluate(token.expose(), trust, &request.scopes).await?;
        let mint_request = MintRequest {
            granted: &granted,
            subject_token: token,
            audience: &self.audience,
            resource: resource.as_ref(),
            now: self.clock.now(),
        };
        let minted = self.minter.mint(&mint_request).await;
        let minted = minted.and_then(|minted| check_scopes(&granted, minted));
        let error = minted.as_ref().err();
        let is_new = match error {
            Some(error) => self.outage.record_failure(error, self.clock.elapsed()),
            None => self.outage.record_success(|| self.clock.elapsed()),
        };
        let (trust, rule) = (&granted.trust, &granted.rule);
        let error = error.map(|error| error as _);
        telemetry::workload_minted(trust, rule, &granted.subject_sha256(), error, is_new);
        minted.map_err(WorkloadRefusal::MintFailed)
    }

    /// Checks the token types and the target, and returns the requested resource.
    fn check(&self, request: &WorkloadRequest) -> Result<Option<Url>, WorkloadRefusal> {
        let malformed = WorkloadRefusal::Malformed;
        if ![JWT, ID_TOKEN, ACCESS_TOKEN].contains(&request.subject_token_type.as_str()) {
            return Err(malformed("The subject_token_type must be that of a JWT."));
        }
        let requested = request.requested_token_type.as_deref().unwrap_or(ACCESS_TOKEN);
        if ![JWT, ACCESS_TOKEN].contains(&requested) {
            return Err(malformed("The requested_token_type must be an access token or a JWT."));
        }
        if request.audience.as_ref().is_some_and(|audience| *audience != self.audience) {
            return Err(WorkloadRefusal::Target);
        }
        let Some(resource) = &request.resource else { return Ok(None) };
        let url = Url::parse(resource).ok().filter(|url| url.fragment().is_none());
        match url {
            Some(url) if self.resources.contains(resource) => Ok(Some(url)),
            _ => Err(WorkloadRefusal::Target),
        }
    }
}

/// Rejects a minted token with scopes that were not granted.
fn check_scopes(granted: &Granted, minted: Minted) -> Result<Minted, ExchangeError> {
    match granted.scopes.contains_all(&minted.scopes) {
        true => Ok(minted),
        false => Err(ExchangeError::InvalidAnswer("has scopes that were not granted")),
    }
}
