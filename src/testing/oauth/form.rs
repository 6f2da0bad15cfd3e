//! [`Form`]: the request body of an OAuth endpoint.

use http::Method;
use http::header::CONTENT_TYPE;

use super::super::endpoint::ReceivedRequest;
use super::OAuthError;

/// The parameters of a request body. Parameters without a value count as absent (RFC 6749 §3.2).
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn read(request: &ReceivedRequest) -> Result<Self, OAuthError> {
        if request.method != Method::POST {
            return Err(OAuthError::wrong_method());
        }
        let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(OAuthError::new("invalid_request", "the body is not a form"));
        }
        let mut parameters = request.form();
        parameters.retain(|(_, value)| !value.is_empty());
        // Only these two parameters may repeat (RFC 8693 §2.1).
        let mut names: Vec<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| !matches!(*name, "audience" | "resource"));
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(OAuthError::new("invalid_request", "a parameter is repeated"));
        }
        Ok(Self(parameters))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns all values of a parameter that may repeat.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn require(&self, name: &str) -> Result<&str, OAuthError> {
        self.get(name).ok_or(OAuthError::new("invalid_request", "a parameter is missing"))
    }
}
