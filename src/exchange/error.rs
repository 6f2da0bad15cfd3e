//! [`ExchangeError`]: the reason why there is no token.

use std::error::Error;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::error::AuthError;
use crate::issuer::{ClientAuthError, WorkloadTokenError};
use crate::support::base64url;
use crate::support::json::{Document, Value};
use crate::support::telemetry::Causes;

/// The error of a request to the provider.
///
/// Contains no secret and no token, and of the provider's answer only the status, the error code, and
/// the claims that a new sign-in must have.
/// Cheap to clone: all callers that waited for one request get the same error.
///
/// ```
/// use scaikey_auth::exchange::ExchangeError;
///
/// /// The status of a response that could not be made without the token.
/// fn status(error: &ExchangeError) -> u16 {
///     match error {
///         // The user may not use the other service.
///         ExchangeError::Refused { error: Some(_), .. } => 403,
///         // `error.retry_after()` is the value for `Retry-After`, if it is known.
///         ExchangeError::Unavailable { .. } => 503,
///         // A fault of the provider, or of the configuration of this service: log it.
///         _ => 500,
///     }
/// }
///
/// assert_eq!(status(&ExchangeError::NotConfigured("the grant is not configured")), 500);
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The provider refused the request.
    #[error("the provider refused the request with {}{}", status.as_u16(), code(error.as_ref()))]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// The `error` member of the answer, or `None` if the body could not be read.
        error: Option<OAuthError>,
        /// The `Retry-After` header of the answer.
        retry_after: Option<Duration>,
        /// The `claims` member of the answer: see [`claims_challenge`](Self::claims_challenge).
        claims: Option<Arc<str>>,
    },
    /// The provider could not be reached, did not answer in time, or answered 429 or 5xx; or the
    /// circuit breaker is open. A request that was sent may have taken effect: a refresh token may be
    /// used up. Also returned if the [log of revocations](crate::revocation::RevocationsBuilder::refuse_after) is
    /// unavailable; if the shared cache does not answer or another process holds the lock, so
    /// that a refresh token or code was not used; or if the platform gives no usable
    /// [`WorkloadToken`](crate::issuer::WorkloadToken), so that nothing was sent.
    #[error("{source}")]
    Unavailable {
        /// The time until a retry may succeed: the `Retry-After` of the answer, the rest of the circuit
        /// breaker's backoff, or two seconds if the shared cache or its lock is the cause.
        retry_after: Option<Duration>,
        /// The cause.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The provider's answer is invalid, or is not what was requested.
    #[error("the provider's answer {0}")]
    InvalidAnswer(&'static str),
    /// The service cannot authenticate to the provider, for example because its key file cannot be
    /// read.
    #[error("client authentication is not possible: {0}")]
    ClientAuth(String),
    /// The subject token or the actor token is [revoked](crate::revocation) here. Nothing was sent to the provider.
    #[error("the subject token or the actor token is revoked")]
    Revoked,
    /// The request cannot be sent: the client is not configured for it, or a value that it needs is
    /// missing.
    #[error("{0}")]
    NotConfigured(&'static str),
}

/// Writes the error and its causes: a `main` that returns it, and `unwrap`, print them.
impl fmt::Debug for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Causes(self).fmt(f)
    }
}

/// An error code of a token endpoint (RFC 6749 §5.2, RFC 8693 §2.2.2).
///
/// ```
/// use scaikey_auth::exchange::{ExchangeError, OAuthError};
///
/// /// Returns whether a failed refresh means that the user must sign in again.
/// fn has_ended(error: &ExchangeError) -> bool {
///     error.oauth_error() == Some(&OAuthError::InvalidGrant)
/// }
///
/// assert!(!has_ended(&ExchangeError::NotConfigured("the session has no refresh token")));
/// assert_eq!(OAuthError::InvalidGrant.as_str(), "invalid_grant");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OAuthError {
    /// `invalid_request`: also for an exchange whose subject token is invalid or expired.
    InvalidRequest,
    /// `invalid_client`: client authentication failed.
    InvalidClient,
    /// `invalid_grant`: the code, password or refresh token is invalid or expired.
    InvalidGrant,
    /// `unauthorized_client`: this client may not use this grant.
    UnauthorizedClient,
    /// `unsupported_grant_type`: the provider does not support this grant.
    UnsupportedGrantType,
    /// `invalid_scope`: a requested scope is unknown or not allowed.
    InvalidScope,
    /// `invalid_target`: the provider issues no tokens for this audience.
    InvalidTarget,
    /// Another code of at most 64 visible ASCII characters.
    Other(String),
}

impl OAuthError {
    const KNOWN: [Self; 7] = [
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::InvalidGrant,
        Self::UnauthorizedClient,
        Self::UnsupportedGrantType,
        Self::InvalidScope,
        Self::InvalidTarget,
    ];

    /// Returns the code as sent over the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::Other(code) => code,
        }
    }

    fn read(body: &[u8]) -> Option<Self> {
        let document = Document::parse(body).ok()?;
        let code = document.root().get("error").and_then(Value::as_str)?;
        let known = Self::KNOWN.into_iter().find(|known| known.as_str() == code);
        // The code is logged, so it must not contain arbitrary text.
        let is_code = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_graphic());
        known.or_else(|| is_code.then(|| Self::Other(code.to_owned())))
    }
}

/// The shared cache did not answer.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the shared cache did not answer, so the refresh token or code was not used")]
pub(super) struct CacheUnavailable;

/// The maximum length of a claims challenge, in bytes. A longer one is ignored.
const MAX_CLAIMS_BYTES: usize = 4096;

/// Reads the `claims` of an error answer: a JSON object as a text.
fn read_claims(body: &[u8]) -> Option<Arc<str>> {
    let document = Document::parse(body).ok()?;
    let claims = document.root().get("claims").and_then(Value::as_str)?;
    let is_usable = claims.len() <= MAX_CLAIMS_BYTES && Document::parse(claims).is_ok();
    is_usable.then(|| claims.into())
}

fn code(error: Option<&OAuthError>) -> String {
    error.map_or(", without an error code".to_owned(), |error| format!(": {}", error.as_str()))
}

impl ExchangeError {
    /// Returns the error for an answer with a status other than 200.
    pub(super) fn of(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Self::provider_unavailable(retry_after, format_args!("it answered {status}"));
        }
        let (error, claims) = (OAuthError::read(body), read_claims(body));
        Self::Refused { status, error, retry_after, claims }
    }

    pub(super) fn cache_unavailable(retry_after: Duration) -> Self {
        Self::Unavailable { retry_after: Some(retry_after), source: Arc::new(CacheUnavailable) }
    }

    /// Returns whether the shared cache is unavailable, rather than the provider.
    pub(crate) fn is_cache_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if source.is::<CacheUnavailable>())
    }

    /// Returns the name of the unavailable component, for responses that show no further details:
    /// `token store` (the shared cache), `workload identity` (the platform's token of this service),
    /// `revocation log` or `identity provider`.
    pub(crate) fn unavailable_component(&self) -> &'static str {
        match self {
            _ if self.is_cache_unavailable() => "token store",
            Self::Unavailable { source, .. } if source.is::<WorkloadTokenError>() => {
                "workload identity"
            }
            Self::Unavailable { source, .. } if source.is::<AuthError>() => "revocation log",
            _ => "identity provider",
        }
    }

    pub(super) fn provider_unavailable(
        retry_after: Option<Duration>,
        problem: impl Display,
    ) -> Self {
        Self::unavailable(retry_after, format!("the provider is unavailable: {problem}"))
    }

    /// Returns an error with the message `problem`, which is a complete sentence.
    pub(crate) fn unavailable(retry_after: Option<Duration>, problem: impl Into<String>) -> Self {
        let source: Box<dyn Error + Send + Sync> = problem.into().into();
        Self::Unavailable { retry_after, source: source.into() }
    }

    /// Returns the value of the metric label `outcome` or `reason`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::InvalidAnswer(_) => "bad_answer",
            Self::ClientAuth(_) => "client_auth",
            Self::Revoked => "revoked",
            Self::NotConfigured(_) => "not_configured",
        }
    }

    /// Returns whether an immediate retry would fail in the same way: the provider refused the request,
    /// or its answer is invalid.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::InvalidAnswer(_))
    }

    /// Returns the provider's error code, if the answer has one.
    pub fn oauth_error(&self) -> Option<&OAuthError> {
        match self {
            Self::Refused { error, .. } => error.as_ref(),
            _ => None,
        }
    }

    /// Returns the claims that the user's next sign-in must have, as a JSON text. Microsoft Entra ID
    /// sends it with `interaction_required`, for example if a policy requires a second factor
    /// ([claims challenge][page]). This service cannot answer it. Send it to the client in a response
    /// with status 401 ([`claims_challenge_header`](Self::claims_challenge_header)), so that the client
    /// starts a sign-in with the parameter `claims`.
    ///
    /// [page]: https://learn.microsoft.com/entra/identity-platform/claims-challenge
    pub fn claims_challenge(&self) -> Option<&str> {
        match self {
            Self::Refused { claims, .. } => claims.as_deref(),
            _ => None,
        }
    }

    /// Returns the value of `WWW-Authenticate` that sends the [claims
    /// challenge](Self::claims_challenge) to the client, in base64:
    /// `Bearer error="insufficient_claims", claims="…"`.
    pub fn claims_challenge_header(&self) -> Option<HeaderValue> {
        let claims = base64url::encode_standard(self.claims_challenge()?);
        let challenge = format!(r#"Bearer error="insufficient_claims", claims="{claims}""#);
        HeaderValue::try_from(challenge).ok()
    }

    /// Returns the time until a retry may succeed, if known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

impl From<WorkloadTokenError> for ExchangeError {
    fn from(error: WorkloadTokenError) -> Self {
        Self::Unavailable { retry_after: None, source: Arc::new(error) }
    }
}

impl From<ClientAuthError> for ExchangeError {
    fn from(error: ClientAuthError) -> Self {
        match error {
            ClientAuthError::Unusable(problem) => Self::ClientAuth(problem),
            ClientAuthError::NoWorkloadToken(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_code_is_read_without_its_description() {
        let read = |body: &str| OAuthError::read(body.as_bytes());
        assert_eq!(read(r#"{"error":"invalid_target"}"#), Some(OAuthError::InvalidTarget));
        let other = OAuthError::Other("slow_down".to_owned());
        assert_eq!(read(r#"{"error":"slow_down","error_description":null}"#), Some(other));
        for body in ["", "<html>", r#"{"error":7}"#, r#"{"error":"a\nb"}"#, r#"{"message":"x"}"#] {
            assert_eq!(read(body), None, "{body}");
        }
    }
}
