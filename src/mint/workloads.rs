//! [`WorkloadExchange`]: a foreign token comes in, one of ours goes out.

use std::sync::Arc;
use std::time::Duration;

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

/// A workload asks for a token (RFC 8693 §2.1; feature `trust`).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkloadRequest {
    /// What its platform gave it.
    pub subject_token: Secret,
    /// What that is: a JWT, whichever of the URNs for `jwt`, `id_token` and `access_token` says so.
    pub subject_token_type: String,
    /// The service the new token is for, by name.
    pub audience: Option<String>,
    /// The service the new token is for, by URL.
    pub resource: Option<String>,
    /// What is asked for; empty: everything that is granted.
    pub scopes: Scopes,
    /// What the new token is to be: an access token, or a JWT.
    pub requested_token_type: Option<String>,
    /// The trust, where a token does not tell it.
    pub trust_id: Option<String>,
}

impl WorkloadRequest {
    /// A JWT for a token with everything that is granted.
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

/// Why a workload gets no token (feature `trust`).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadRefusal {
    /// The request is malformed: a fixed text says how.
    #[error("{0}")]
    Malformed(&'static str),
    /// The token asked for is for another service.
    #[error("the audience or resource is not this service")]
    Target,
    /// The policy says no, or cannot tell.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It was granted, and could not be minted.
    #[error("granted, and not minted: {0}")]
    Unminted(ExchangeError),
}

impl WorkloadRefusal {
    /// The `error` of the answer (RFC 8693 §2.2.2).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "invalid_request",
            Self::Target => "invalid_target",
            Self::Denied(denied) => denied.code(),
            Self::Unminted(ExchangeError::Unavailable { .. }) => "temporarily_unavailable",
            Self::Unminted(ExchangeError::Refused { error: Some(code), .. }) => match code {
                OAuthError::InvalidTarget => "invalid_target",
                OAuthError::InvalidScope => "invalid_scope",
                // That the provider does not believe the token is the same to the caller as
                // that we do not.
                OAuthError::InvalidGrant | OAuthError::InvalidRequest => "invalid_request",
                _ => "server_error",
            },
            Self::Unminted(_) => "server_error",
        }
    }

    /// The HTTP status of the answer: 400, 502 or 503.
    pub fn status(&self) -> u16 {
        match self.code() {
            "temporarily_unavailable" => 503,
            "server_error" => 502,
            _ => 400,
        }
    }

    /// One fixed sentence for the caller, which tells nothing of the policy.
    pub fn public_message(&self) -> &'static str {
        match self {
            Self::Malformed(problem) => problem,
            Self::Target => "There are no tokens for this target here.",
            Self::Denied(denied) => denied.public_message(),
            Self::Unminted(_) => "The token could not be issued.",
        }
    }

    /// When to try again, when something is away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Denied(denied) => denied.retry_after(),
            Self::Unminted(error @ ExchangeError::Unavailable { .. }) => {
                Some(error.retry_after().unwrap_or(Duration::from_secs(1)))
            }
            _ => None,
        }
    }
}

/// Foreign workload tokens for tokens of this service (feature `trust`): first the policy decides, then a [`Minter`]
/// mints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkloadExchange {
    evaluator: TrustEvaluator,
    minter: Arc<dyn Minter>,
    audience: String,
    resources: Vec<String>,
    clock: Arc<dyn Clock>,
    /// What the log was told of the minter.
    outage: Arc<Outage>,
}

impl WorkloadExchange {
    /// Gives out tokens for `audience`: what this service is called in `aud`.
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

    /// A URL that callers may name this service by (`resource`, RFC 8707). Compared byte for byte.
    /// May be repeated. Default: none.
    #[must_use]
    pub fn resource(mut self, url: impl Into<String>) -> Self {
        self.resources.push(url.into());
        self
    }

    /// Where the time comes from. Default: [`SystemClock`].
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The trusts, to reload and to explain.
    pub fn evaluator(&self) -> &TrustEvaluator {
        &self.evaluator
    }

    /// Gets a workload a token: of its request first what is cheap, then the policy, which logs its
    /// decision, then the minter.
    ///
    /// A token of [single use](crate::trust) is used up once it is granted, whether or not one can
    /// be minted: if the provider does not answer, nobody knows. Its workload comes back with
    /// another one.
    ///
    /// # Errors
    /// [`WorkloadRefusal`], which tells the caller next to nothing.
    pub async fn exchange(&self, request: &WorkloadRequest) -> Result<Minted, WorkloadRefusal> {
        let resource = self.check(request)?;
        let token = &request.subject_token;
        let trust = request.trust_id.as_deref();
        let granted = self.evaluator.evaluate(token.expose(), trust, &request.scopes).await?;
        let order = MintRequest {
            granted: &granted,
            subject_token: token,
            audience: &self.audience,
            resource: resource.as_ref(),
            now: self.clock.now(),
        };
        let minted = self.minter.mint(&order).await.and_then(|minted| within(&granted, minted));
        let error = minted.as_ref().err();
        let is_new = match error {
            Some(error) => self.outage.begins(error, self.clock.elapsed()),
            None => self.outage.ends(|| self.clock.elapsed()),
        };
        let (trust, grant) = (&granted.trust, &granted.grant);
        let error = error.map(|error| error as _);
        telemetry::workload_minted(trust, grant, &granted.subject_sha256(), error, is_new);
        minted.map_err(WorkloadRefusal::Unminted)
    }

    /// Whether it is for this service, and asks for what there is.
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

/// What a minter says it made, if it was told to.
fn within(granted: &Granted, minted: Minted) -> Result<Minted, ExchangeError> {
    match granted.scopes.contains_all(&minted.scopes) {
        true => Ok(minted),
        false => Err(ExchangeError::Answer("permits more than was granted")),
    }
}
