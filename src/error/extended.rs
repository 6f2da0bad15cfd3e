//! [`ExtendedError`]: a refusal with challenges and headers of its own.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{AuthError, Challenge};

/// A refusal with challenges and headers of its own: what [`AuthError::Extended`] holds.
#[derive(Debug, Clone)]
pub struct ExtendedError(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    plain: AuthError,
    challenges: Vec<Challenge>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ExtendedError {
    fn of(error: AuthError) -> Self {
        match error {
            AuthError::Extended(extended) => extended,
            plain => Self(Arc::new(Inner { plain, challenges: Vec::new(), headers: Vec::new() })),
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> AuthError {
        change(Arc::make_mut(&mut self.0));
        AuthError::Extended(self)
    }

    pub(super) fn plain(&self) -> &AuthError {
        &self.0.plain
    }
}

impl fmt::Display for ExtendedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.plain.fmt(f)
    }
}

impl Error for ExtendedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.plain.source()
    }
}

impl AuthError {
    /// Adds the challenge of a scheme other than `Bearer`, which the answer carries in a
    /// `WWW-Authenticate` line of its own beside that for `Bearer`. Without effect where an answer
    /// has no challenge: unless its status is 400, 401 or 403, and where
    /// [`ErrorResponse`](super::ErrorResponse) wrote one.
    ///
    /// If the challenge has a parameter `error`, the one for `Bearer` has none.
    ///
    /// ```
    /// use axum::http::HeaderValue;
    /// use scaikey_auth::AuthError;
    /// use scaikey_auth::error::{Challenge, InvalidToken};
    ///
    /// # let fresh = HeaderValue::from_static("n-0S6_WzA2Mj");
    /// let challenge = Challenge::new("DPoP").param("algs", "ES256").param("error", "use_dpop_nonce");
    /// let refusal = AuthError::from(InvalidToken::Unproven)
    ///     .with_challenge(challenge)
    ///     .with_header("dpop-nonce".parse().unwrap(), fresh);
    /// assert!(matches!(refusal.plain(), AuthError::InvalidToken(InvalidToken::Unproven)));
    /// ```
    #[must_use]
    pub fn with_challenge(self, challenge: Challenge) -> Self {
        ExtendedError::of(self).change(|inner| inner.challenges.push(challenge))
    }

    /// Adds a header to the answer, of gRPC, too, such as `DPoP-Nonce` (RFC 9449 §8). The last of a name
    /// counts. `Cache-Control`, `Retry-After` and `WWW-Authenticate` remain the layer's.
    ///
    /// Not for headers about the body, its length or the connection: the answer has those of its own.
    #[must_use]
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        ExtendedError::of(self).change(|inner| inner.headers.push((name, value)))
    }

    /// Returns the refusal without challenges and headers of its own: the one to match on.
    pub fn plain(&self) -> &Self {
        match self {
            Self::Extended(extended) => extended.plain(),
            plain => plain,
        }
    }

    /// Whether the token may be good: something that is needed to tell is away.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self.plain(), Self::Unavailable { .. })
    }

    /// The challenges of its own.
    pub(crate) fn challenges(&self) -> &[Challenge] {
        match self {
            Self::Extended(extended) => &extended.0.challenges,
            _ => &[],
        }
    }

    /// Writes the headers of its own.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        if let Self::Extended(extended) = self {
            for (name, value) in &extended.0.headers {
                headers.insert(name, value.clone());
            }
        }
    }
}
