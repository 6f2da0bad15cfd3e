//! [`ExtendedError`]: an error with additional challenges and headers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderName, HeaderValue};

use super::response::{GRPC_STATUS, NO_STORE, retry_after_value};
use super::{AuthError, Challenge};

/// The headers that only the layer sets.
const LAYER_HEADERS: [HeaderName; 3] =
    [header::CACHE_CONTROL, header::RETRY_AFTER, header::WWW_AUTHENTICATE];

/// An error with additional challenges and headers: the content of [`AuthError::Extended`]. `Debug` prints the
/// names of the headers without their values.
#[derive(Clone)]
pub struct ExtendedError(Arc<Inner>);

#[derive(Clone)]
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

impl fmt::Debug for ExtendedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { plain, challenges, headers } = &*self.0;
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("ExtendedError")
            .field("plain", plain)
            .field("challenges", challenges)
            .field("headers", &names)
            .finish()
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
    /// Adds a challenge for a scheme other than `Bearer`. The response contains it in a separate
    /// `WWW-Authenticate` header, next to the `Bearer` challenge. It has no effect if the status of the
    /// response is not 400, 401 or 403, or if the [`ErrorResponse`](super::ErrorResponse) wrote a challenge
    /// itself.
    ///
    /// If the challenge has a parameter `error`, the `Bearer` challenge has none.
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

    /// Adds a header to the response, including a gRPC response, such as `DPoP-Nonce` (RFC 9449 §8). If a name
    /// is added twice, the last value wins. `Cache-Control`, `Retry-After` and `WWW-Authenticate` have no
    /// effect here, because the layer sets them.
    ///
    /// Do not add `Content-*`, `Transfer-Encoding` or `Connection` headers.
    #[must_use]
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        ExtendedError::of(self).change(|inner| inner.headers.push((name, value)))
    }

    /// Returns the error without the additional challenges and headers. Use it in a `match`.
    pub fn plain(&self) -> &Self {
        match self {
            Self::Extended(extended) => extended.plain(),
            plain => plain,
        }
    }

    /// Returns whether the cause is an unavailable component.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self.plain(), Self::Unavailable { .. })
    }

    /// Returns the additional challenges.
    pub(crate) fn challenges(&self) -> &[Challenge] {
        match self {
            Self::Extended(extended) => &extended.0.challenges,
            _ => &[],
        }
    }

    /// Writes the headers of a refusal: the additional ones of the error, `Cache-Control`, `Retry-After` for a
    /// 429 or 503, and the `challenges` for a 400, 401 or 403 that has none yet. A gRPC response has them as
    /// metadata, by the status that the same refusal has without gRPC. The session layer reads a
    /// [`StepUp`](super::StepUp) from the extensions.
    pub(crate) fn write_headers<I: IntoIterator<Item = HeaderValue>>(
        &self,
        response: &mut Response<Bytes>,
        challenges: impl FnOnce() -> I,
    ) {
        let is_grpc = response.headers().contains_key(GRPC_STATUS);
        let status = if is_grpc { self.status() } else { response.status() }.as_u16();
        let headers = response.headers_mut();
        if let Self::Extended(extended) = self {
            let additional =
                extended.0.headers.iter().filter(|(name, _)| !LAYER_HEADERS.contains(name));
            additional.for_each(|(name, value)| drop(headers.insert(name, value.clone())));
        }
        if let Self::StepUpRequired(step_up) = self.plain() {
            response.extensions_mut().insert(step_up.clone());
        }
        let headers = response.headers_mut();
        // A shared cache would serve the refusal of one caller to all others.
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        if matches!(status, 429 | 503)
            && let Some(wait) = self.retry_after()
        {
            headers.insert(header::RETRY_AFTER, retry_after_value(wait));
        }
        if matches!(status, 400 | 401 | 403) && !headers.contains_key(header::WWW_AUTHENTICATE) {
            for challenge in challenges() {
                headers.append(header::WWW_AUTHENTICATE, challenge);
            }
        }
    }
}
