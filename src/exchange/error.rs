//! [`ExchangeError`]: why there is no token.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::issuer::ClientAuthError;
use crate::support::json::{Document, Value};

/// Why there is no token. Never holds a secret or a token; of what the provider said it holds the
/// error code only. Cheap to clone: all who waited for the same answer get it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The provider said no.
    #[error("the provider refused with {}: {}", status.as_u16(), code(error.as_ref()))]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// `error` of the answer; `None` when the answer had no readable body.
        error: Option<OAuthError>,
        /// `Retry-After` of the answer.
        retry_after: Option<Duration>,
    },
    /// The provider could not be asked, or did not answer in time: 429 and 5xx count, too. Whether
    /// a request that was sent took effect is not known: a refresh token may be spent. Or the shared cache
    /// gave no answer, without which no refresh token or code is spent.
    #[error("{}{source}", subject(&**source))]
    Unavailable {
        /// When it is asked again at the earliest: `Retry-After` of the answer, or what is left of
        /// the pause after several failures.
        retry_after: Option<Duration>,
        /// What happened.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The provider's answer cannot be used.
    #[error("the provider's answer {0}")]
    Answer(&'static str),
    /// The service cannot prove itself: a file that cannot be read, a key that cannot be used.
    #[error("client authentication is not possible: {0}")]
    ClientAuth(String),
    /// The client was not configured for this.
    #[error("{0}")]
    NotConfigured(&'static str),
}

/// An error code of a token endpoint (RFC 6749 §5.2, RFC 8693 §2.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OAuthError {
    /// `invalid_request`; for an exchange, also a subject token that is not good.
    InvalidRequest,
    /// `invalid_client`: the service did not prove itself.
    InvalidClient,
    /// `invalid_grant`: the code, password or refresh token is not good (any more).
    InvalidGrant,
    /// `unauthorized_client`: this client may not use this grant.
    UnauthorizedClient,
    /// `unsupported_grant_type`.
    UnsupportedGrantType,
    /// `invalid_scope`.
    InvalidScope,
    /// `invalid_target`: no tokens for this audience.
    InvalidTarget,
    /// Another code, if it has the characters of one and at most 64 of them.
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

    /// The code as it goes over the wire.
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
        // It goes into logs, so a stranger's text must not.
        let is_code = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_graphic());
        known.or_else(|| is_code.then(|| Self::Other(code.to_owned())))
    }
}

/// Why a refresh token or code was not spent.
#[derive(Debug, thiserror::Error)]
#[error("the shared cache does not answer, and nothing is spent without it")]
struct CacheUnavailable;

/// Who is unavailable, unless the source says so.
fn subject(source: &(dyn Error + Send + Sync + 'static)) -> &'static str {
    if source.is::<CacheUnavailable>() { "" } else { "the provider is unavailable: " }
}

fn code(error: Option<&OAuthError>) -> &str {
    error.map_or("without an error code", OAuthError::as_str)
}

impl ExchangeError {
    /// What an answer other than 200 means.
    pub(super) fn of(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Self::unavailable(retry_after, format!("it answered {status}"));
        }
        Self::Refused { status, error: OAuthError::read(body), retry_after }
    }

    /// The shared cache does not tell whether a refresh token or code may be spent.
    pub(super) fn cache_unavailable(retry_after: Duration) -> Self {
        Self::Unavailable { retry_after: Some(retry_after), source: Arc::new(CacheUnavailable) }
    }

    /// Whether it is the shared cache that is unavailable, and not the provider.
    pub(crate) fn is_cache_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if source.is::<CacheUnavailable>())
    }

    /// What is unavailable, for those who are told nothing else.
    pub(crate) fn unavailable_component(&self) -> &'static str {
        if self.is_cache_unavailable() { "token store" } else { "identity provider" }
    }

    pub(crate) fn unavailable(retry_after: Option<Duration>, problem: impl Into<String>) -> Self {
        let source: Box<dyn Error + Send + Sync> = problem.into().into();
        Self::Unavailable { retry_after, source: source.into() }
    }

    /// Its name in metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::Answer(_) => "bad_answer",
            Self::ClientAuth(_) => "client_auth",
            Self::NotConfigured(_) => "not_configured",
        }
    }

    /// Whether the provider itself said no, or gave what cannot be used: asking the same again at
    /// once is of no use.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Answer(_))
    }

    /// The provider's error code, if it gave one.
    pub fn oauth(&self) -> Option<&OAuthError> {
        match self {
            Self::Refused { error, .. } => error.as_ref(),
            _ => None,
        }
    }

    /// When to ask again at the earliest, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

impl From<ClientAuthError> for ExchangeError {
    fn from(unproven: ClientAuthError) -> Self {
        Self::ClientAuth(unproven.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_are_read_and_strange_texts_are_not() {
        let read = |body: &str| OAuthError::read(body.as_bytes());
        assert_eq!(read(r#"{"error":"invalid_target"}"#), Some(OAuthError::InvalidTarget));
        let other = OAuthError::Other("slow_down".to_owned());
        assert_eq!(read(r#"{"error":"slow_down","error_description":null}"#), Some(other));
        for body in ["", "<html>", r#"{"error":7}"#, r#"{"error":"a\nb"}"#, r#"{"message":"x"}"#] {
            assert_eq!(read(body), None, "{body}");
        }
    }
}
