//! [`OutboundError`]: the reasons why a request was not sent.

use std::error::Error;

use crate::exchange::ExchangeError;

/// The error of a request that the layer did not send. [`find_in`](Self::find_in) finds it in the error of an
/// HTTP client:
///
/// ```
/// use std::error::Error;
/// use scaikey_auth::outbound::OutboundError;
///
/// fn status(error: &(dyn Error + 'static)) -> u16 {
///     match OutboundError::find_in(error) {
///         // The provider refuses this user a token for that service.
///         Some(OutboundError::Token(error)) if error.oauth_error().is_some() => 403,
///         // The provider is unavailable.
///         Some(OutboundError::Token(_)) => 503,
///         // The configuration is incomplete, or the request has no caller.
///         Some(_) => 500,
///         // The called service is unavailable.
///         None => 502,
///     }
/// }
/// # assert_eq!(status(&OutboundError::NoCaller), 500);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// No destination matches the URL of the request.
    #[error(
        "no destination of the outbound layer matches this URL on `{0}`: add one to send requests there"
    )]
    UnknownDestination(String),
    /// The URL is relative, so the layer cannot know the server.
    #[error(
        "the URL of the request has no scheme and host: send absolute URLs, or create the tonic client by `with_origin`"
    )]
    RelativeUrl,
    /// The `Host` header differs from the request's URI.
    #[error("the Host header differs from the URI")]
    HostMismatch,
    /// The path is ambiguous: it has dot segments, empty segments or encoded slashes, or a lenient server
    /// reads it as the path of another destination. Checked only for an origin with path prefixes.
    #[error("the path is ambiguous: remove dot segments, empty segments and encoded characters")]
    AmbiguousPath,
    /// The request already has an `Authorization` header, and the layer does not replace it.
    #[error("the request already has an Authorization header")]
    HasAuthorization,
    /// The destination needs the caller's token, and there is no caller.
    #[error(
        "there is no caller: put the AuthContext into the request's extensions, or use CallerLayer"
    )]
    NoCaller,
    /// The destination needs the caller's token, and the caller is a mock identity without one.
    #[error("the caller is a mock identity, which has no token for other services")]
    MockCaller,
    /// The destination needs the caller's token or tenant, and the token is [revoked](crate::revocation).
    #[error("the token of the caller is revoked")]
    Revoked,
    /// The destination needs the caller's tenant, and the caller has none.
    #[error("the caller has no tenant")]
    NoTenant,
    /// The token could not be obtained.
    #[error(transparent)]
    Token(#[from] ExchangeError),
}

impl OutboundError {
    /// Returns the reason why a request was not sent, from the error of an HTTP client or from an error
    /// that it caused. Returns `None` if the request was sent, or if another layer refused it.
    pub fn find_in<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = inner(error);
        }
        None
    }
}

/// Returns the cause of an error.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    // Its `source` is the source of the error in it.
    #[cfg(feature = "reqwest-middleware")]
    if let Some(reqwest_middleware::Error::Middleware(inner)) = error.downcast_ref() {
        return Some(inner.as_ref());
    }
    error.source()
}
