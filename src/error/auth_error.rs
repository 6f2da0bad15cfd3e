//! [`AuthError`]: the reasons for refusing a request, and their responses.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::extended::ExtendedError;
use super::public::{self, PublicResponse};
use super::step_up::StepUp;

/// The error that implementations of this crate's traits return if their store or provider fails.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The reason for refusing a request.
///
/// Most errors are for the caller to correct. [`Unavailable`](Self::Unavailable) is for the operator of the
/// service or of its provider, and [`MissingLayer`](Self::MissingLayer) for the author of the service.
///
/// The log contains [`reason`](Self::reason). The response contains [`public_reason`](Self::public_reason),
/// which reveals less. Each variant names the HTTP status and, in code font, the `error` parameter of the
/// `Bearer` challenge.
///
/// A guard or validator of your own returns one:
///
/// ```
/// use scaikey_auth::{AuthContext, AuthError};
///
/// /// Refuses users of the trial after its end.
/// fn trial(context: &AuthContext) -> Result<(), AuthError> {
///     if context.identity().in_group("trial-ended") {
///         return Err(AuthError::Forbidden { required: "a paid plan".into() });
///     }
///     Ok(())
/// }
///
/// let error = AuthError::Forbidden { required: "a paid plan".into() };
/// assert_eq!((error.status().as_u16(), error.reason()), (403, "forbidden"));
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No bearer token was sent, or another scheme was used. 401 without an error code
    /// (RFC 6750 §3.1).
    #[error("the request carries no bearer token")]
    MissingCredentials,
    /// The credentials are malformed, or there is more than one. 400 `invalid_request`.
    #[error("malformed credentials: {0}")]
    MalformedCredentials(&'static str),
    /// The token is not valid. 401 `invalid_token`.
    #[error("invalid token: {0}")]
    InvalidToken(InvalidToken),
    /// The token is valid but lacks a scope. 403 `insufficient_scope`, with the required scopes.
    #[error("insufficient scope: {required} required")]
    InsufficientScope {
        /// All scopes the operation needs, separated by spaces.
        required: Arc<str>,
    },
    /// The identity lacks the required role, group, kind or provenance. 403.
    #[error("forbidden: {required} required")]
    Forbidden {
        /// The requirement, for the log.
        required: Arc<str>,
    },
    /// The path has no rule in the layer of [`Auth::require_by_path`](crate::Auth::require_by_path). 403. The
    /// response has the body of [`Forbidden`](Self::Forbidden), and no challenge, because another token
    /// would not help.
    #[error(
        "no rule for the path {path:?}: add `.path({path:?}, guard)` or `.public({path:?})` to the rules of `require_by_path`"
    )]
    UnlistedPath {
        /// The path of the request, for the log. At most 200 characters.
        path: Arc<str>,
    },
    /// The user must authenticate again or more strongly. 401
    /// `insufficient_user_authentication` (RFC 9470 §3).
    #[error("a more recent or stronger authentication is required: {0:?}")]
    StepUpRequired(StepUp),
    /// A state-changing request with a session cookie came from a page of another origin, or has no
    /// origin. 403.
    #[error("the request does not come from the service's own pages")]
    ForeignOrigin,
    /// The token names no tenant. 403. Refreshing the token does not help: the caller must sign in to a tenant.
    #[error(
        "the token names no tenant: map the claim that does (`P_TENANT_CLAIM`), or accept tokens without a tenant (`tenant_optional`, `P_TENANT_REQUIRED=false`; handlers then take `Option<Tenant>`)"
    )]
    TenantMissing,
    /// The tenant does not exist. 403, or 404 with
    /// [`unknown_tenant_is_not_found`](crate::AuthBuilder::unknown_tenant_is_not_found).
    #[error("unknown tenant")]
    UnknownTenant,
    /// The tenant exists but is suspended. 403.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The request names a tenant other than the token's, and the caller may not act in it. 403.
    #[error("the token does not belong to the tenant of the request")]
    TenantMismatch,
    /// A component that the decision needs is unavailable. The token may be good. 503 with `Retry-After`.
    /// The message of the response depends on `component`.
    #[error("{component} unavailable")]
    Unavailable {
        /// The component: `"keys"`, `"issuer"`, `"proof verifier"`, `"admission check"`, `"tenant store"`,
        /// `"group source"`, `"introspection endpoint"`, `"store of participants"`, `"identity provider"`, `"token store"`,
        /// `"session store"`, `"trust policy store"`, `"revocation log"` or `"check of the policy"`. Your own
        /// validators and proof verifiers may use other names.
        component: &'static str,
        /// The time to wait before a retry. `None` means 1 s.
        retry_after: Option<Duration>,
        /// The cause, for the log.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// A request to one of this crate's endpoints is malformed. 400.
    #[error("malformed request: {0}")]
    MalformedRequest(&'static str),
    /// The caller sent too many requests. 429 with `Retry-After`.
    #[error("too many requests")]
    TooManyRequests {
        /// The time to wait before a retry.
        retry_after: Duration,
    },
    /// The identity is valid but can never be registered. 422.
    #[error("cannot be registered: {0}")]
    Unregistrable(String),
    /// A guard or extractor ran on a request that did not pass through an
    /// [`AuthLayer`](crate::AuthLayer). 500: the service is assembled wrongly.
    #[error(
        "this request did not pass through an authentication layer: add `.layer(auth.layer())` outside the guard or handler that needs the identity"
    )]
    MissingLayer,
    /// An error with additional challenges or headers, made by [`with_challenge`](Self::with_challenge) and
    /// [`with_header`](Self::with_header). Otherwise the response is that of the error that
    /// [`plain`](Self::plain) returns.
    #[error(transparent)]
    Extended(ExtendedError),
}

/// The reason why a token is not valid.
///
/// A validator of your own returns one. `?` converts it into an [`AuthError`]:
///
/// ```
/// use std::time::{Duration, SystemTime, UNIX_EPOCH};
///
/// use scaikey_auth::AuthError;
/// use scaikey_auth::error::InvalidToken;
///
/// fn check(expiry: Option<u64>, now: SystemTime) -> Result<(), AuthError> {
///     let expiry = expiry.ok_or(InvalidToken::MissingClaim("exp"))?;
///     match now < UNIX_EPOCH + Duration::from_secs(expiry) {
///         true => Ok(()),
///         false => Err(InvalidToken::Expired.into()),
///     }
/// }
/// assert_eq!(check(Some(7), SystemTime::now()).unwrap_err().public_reason(), "token_expired");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// The token is not a well-formed JWT, or exceeds a limit (RFC 7519 §7.2).
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The header's `alg` is unknown, not allowed for the issuer, or not the algorithm of the key
    /// (RFC 8725 §3.1).
    #[error("algorithm not allowed")]
    Algorithm,
    /// The header's `typ` is not that of an access token (RFC 8725 §3.11), a claim marks another kind of token,
    /// or no test of [`IssuerConfig::access_token`](field@crate::IssuerConfig::access_token) passes.
    #[error("not an access token")]
    Type,
    /// `iss` is not a configured issuer.
    #[error("unknown issuer")]
    Issuer,
    /// `aud` does not name this service.
    #[error("meant for another audience")]
    Audience,
    /// The token has expired: `exp` has passed.
    #[error("expired")]
    Expired,
    /// The token is not valid yet: `nbf` or `iat` is in the future.
    #[error("not yet valid")]
    NotYetValid,
    /// A claim that the issuer's [`TokenProfile`](crate::config::TokenProfile) requires is missing.
    #[error("claim `{0}` is missing")]
    MissingClaim(&'static str),
    /// A claim has the wrong JSON type or an impossible value.
    #[error("claim `{0}` is malformed")]
    MalformedClaim(&'static str),
    /// The issuer's key set has no key with the token's `kid`.
    #[error("unknown key")]
    Key,
    /// The signature does not verify.
    #[error("bad signature")]
    Signature,
    /// The token is bound to a key (`cnf`, RFC 7800 §3.1). The sender did not prove possession of the key, or
    /// this kind of binding is not supported.
    #[error("bound to a key that was not proven")]
    Unproven,
    /// An admission check says that the token, its session or its user was revoked. The response says so
    /// (`token_revoked`).
    #[error("revoked")]
    Revoked,
    /// The token is encrypted (JWE, RFC 7516), and cannot be opened: this service has no key for it, or it was
    /// altered after it was encrypted.
    #[error("cannot be decrypted: {0}")]
    Decryption(&'static str),
    /// The token is not encrypted, but its issuer has decryption keys
    /// ([`IssuerConfig::decrypt`](crate::IssuerConfig::decrypt)). Let the provider encrypt the tokens for this
    /// service, or accept both kinds ([`also_unencrypted`](crate::IssuerConfig::also_unencrypted)).
    #[error("not encrypted")]
    Unencrypted,
    /// The tenant in `iss` differs from the tenant claim.
    #[error("tenant does not belong to the issuer")]
    IssuerTenant,
    /// The issuer says that this opaque token is not active: it is unknown, expired or revoked (RFC 7662 §2.2).
    #[error("not active, as its issuer says")]
    Inactive,
    /// No validator accepts this kind of token.
    #[error("not a token this service accepts")]
    Unrecognised,
}

impl InvalidToken {
    /// Returns a stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::Type => "token_type",
            Self::Issuer => "token_issuer",
            Self::Audience => "token_audience",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::MissingClaim(_) => "token_claim_missing",
            Self::MalformedClaim(_) => "token_claim_malformed",
            Self::Key => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Unproven => "token_unproven",
            Self::Revoked => "token_revoked",
            Self::Decryption(_) => "token_decryption",
            Self::Unencrypted => "token_unencrypted",
            Self::IssuerTenant => "token_issuer_tenant",
            Self::Inactive => "token_inactive",
            Self::Unrecognised => "token_unrecognised",
        }
    }

    /// Returns the name of the wrong claim or header parameter, for the log, or `""` if there is none.
    pub(crate) fn claim(&self) -> &'static str {
        match self {
            Self::MissingClaim(name) | Self::MalformedClaim(name) => name,
            Self::Audience => "aud",
            Self::Issuer => "iss",
            Self::Expired => "exp",
            Self::NotYetValid => "nbf or iat",
            Self::IssuerTenant => "tenant in iss",
            Self::Unproven => "cnf",
            Self::Algorithm => "alg",
            Self::Type => "typ",
            Self::Key => "kid",
            Self::Malformed(_)
            | Self::Signature
            | Self::Decryption(_)
            | Self::Unencrypted
            | Self::Revoked
            | Self::Inactive
            | Self::Unrecognised => "",
        }
    }
}

impl AuthError {
    /// Returns a stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingCredentials => "credentials_missing",
            Self::MalformedCredentials(_) => "credentials_malformed",
            Self::InvalidToken(invalid) => invalid.reason(),
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::Forbidden { .. } => "forbidden",
            Self::UnlistedPath { .. } => "path_unlisted",
            Self::StepUpRequired { .. } => "step_up_required",
            Self::ForeignOrigin => "foreign_origin",
            Self::TenantMissing => "tenant_missing",
            Self::UnknownTenant => "tenant_unknown",
            Self::TenantSuspended => "tenant_suspended",
            Self::TenantMismatch => "tenant_mismatch",
            Self::Unavailable { .. } => "unavailable",
            Self::MalformedRequest(_) => "request_malformed",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::Unregistrable(_) => "unregistrable",
            Self::MissingLayer => "layer_missing",
            Self::Extended(extended) => extended.plain().reason(),
        }
    }

    /// Returns the name in the response. Of the invalid tokens, it distinguishes only expired tokens, which the
    /// client can refresh, and revoked tokens, which require a new sign-in. It reveals no other detail to an
    /// attacker.
    pub fn public_reason(&self) -> &'static str {
        self.public().reason
    }

    /// Returns the HTTP status of the response.
    pub fn status(&self) -> StatusCode {
        self.public().status
    }

    /// Returns a fixed sentence for the response. It contains nothing from the request.
    pub fn public_message(&self) -> &'static str {
        self.public().message
    }

    /// Returns the gRPC status code of the response.
    ///
    /// In a tonic service, convert the response of [`AuthLayer::refusal`](crate::AuthLayer::refusal) with
    /// `Status::from_header_map`. It includes the challenge and `Retry-After`, and it is logged and counted.
    /// A `Status` made from this code and [`public_message`](Self::public_message) has none of these; use it
    /// only where there is no layer.
    ///
    /// | HTTP status | gRPC code |
    /// |---|---|
    /// | 400 | 3 `INVALID_ARGUMENT` |
    /// | 401 | 16 `UNAUTHENTICATED` |
    /// | 403 | 7 `PERMISSION_DENIED` |
    /// | 422 | 9 `FAILED_PRECONDITION` |
    /// | 429 | 8 `RESOURCE_EXHAUSTED` |
    /// | 503 | 14 `UNAVAILABLE` |
    /// | else | 13 `INTERNAL` |
    ///
    /// ```
    /// use scaikey_auth::AuthError;
    ///
    /// fn status(error: &AuthError) -> tonic::Status {
    ///     tonic::Status::new(tonic::Code::from_i32(error.grpc_code()), error.public_message())
    /// }
    /// assert_eq!(status(&AuthError::MissingCredentials).code(), tonic::Code::Unauthenticated);
    /// ```
    pub fn grpc_code(&self) -> i32 {
        match self.status().as_u16() {
            400 => 3,
            401 => 16,
            403 => 7,
            422 => 9,
            429 => 8,
            503 => 14,
            _ => 13,
        }
    }

    pub(super) fn public(&self) -> &'static PublicResponse {
        match self {
            Self::MissingCredentials => &public::CREDENTIALS_MISSING,
            Self::MalformedCredentials(_) => &public::CREDENTIALS_MALFORMED,
            Self::InvalidToken(InvalidToken::Expired) => &public::TOKEN_EXPIRED,
            Self::InvalidToken(InvalidToken::Revoked) => &public::TOKEN_REVOKED,
            Self::InvalidToken(_) => &public::TOKEN_INVALID,
            Self::InsufficientScope { .. } => &public::INSUFFICIENT_SCOPE,
            Self::Forbidden { .. } | Self::UnlistedPath { .. } => &public::FORBIDDEN,
            Self::StepUpRequired { .. } => &public::STEP_UP_REQUIRED,
            Self::ForeignOrigin => &public::FOREIGN_ORIGIN,
            Self::TenantMissing => &public::TENANT_MISSING,
            Self::UnknownTenant => &public::TENANT_UNKNOWN,
            Self::TenantSuspended => &public::TENANT_SUSPENDED,
            Self::TenantMismatch => &public::TENANT_MISMATCH,
            Self::Unavailable { component, .. } => public::unavailable(component),
            Self::MalformedRequest(_) => &public::REQUEST_MALFORMED,
            Self::TooManyRequests { .. } => &public::TOO_MANY_REQUESTS,
            Self::Unregistrable(_) => &public::UNREGISTRABLE,
            Self::MissingLayer => &public::LAYER_MISSING,
            Self::Extended(extended) => extended.plain().public(),
        }
    }

    /// Returns the time to wait before a retry, or `None` if a retry does not help. It is 1 s for an
    /// [`Unavailable`](Self::Unavailable) without a time.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => {
                Some(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            Self::TooManyRequests { retry_after } => Some(*retry_after),
            Self::Extended(extended) => extended.plain().retry_after(),
            _ => None,
        }
    }

    /// Creates an [`Unavailable`](Self::Unavailable) error with its cause.
    pub(crate) fn unavailable(
        component: &'static str,
        retry_after: Option<Duration>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self::Unavailable { component, retry_after, source: Some(Arc::from(source.into())) }
    }
}

impl From<StepUp> for AuthError {
    fn from(step_up: StepUp) -> Self {
        Self::StepUpRequired(step_up)
    }
}

impl From<InvalidToken> for AuthError {
    fn from(invalid: InvalidToken) -> Self {
        Self::InvalidToken(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Challenge;

    #[test]
    fn grpc_codes_match_the_http_statuses() {
        let unavailable =
            AuthError::Unavailable { component: "keys", retry_after: None, source: None };
        for (error, code) in [
            (AuthError::MalformedCredentials("x"), 3),
            (AuthError::MalformedRequest("x"), 3),
            (AuthError::MissingCredentials, 16),
            (InvalidToken::Expired.into(), 16),
            (StepUp::default().into(), 16),
            (AuthError::TenantMissing, 7),
            (AuthError::UnknownTenant, 7),
            (AuthError::ForeignOrigin, 7),
            (AuthError::Unregistrable("x".to_owned()), 9),
            (AuthError::TooManyRequests { retry_after: Duration::ZERO }, 8),
            (unavailable, 14),
            (AuthError::MissingLayer, 13),
        ] {
            assert_eq!(error.grpc_code(), code, "{error:?}");
            assert_eq!(error.with_challenge(Challenge::new("X")).grpc_code(), code);
        }
    }

    #[test]
    fn extended_error_behaves_like_plain_error() {
        let refusal = || AuthError::unavailable("keys", Some(Duration::from_secs(7)), "the cause");
        let extended =
            refusal().with_challenge(Challenge::new("X")).with_challenge(Challenge::new("Y"));
        let plain = refusal();
        assert!(matches!(extended.plain(), AuthError::Unavailable { component: "keys", .. }));
        assert_eq!(extended.challenges().len(), 2);
        assert_eq!(extended.to_string(), plain.to_string());
        assert_eq!(extended.reason(), plain.reason());
        assert_eq!(extended.public_message(), plain.public_message());
        assert_eq!(extended.retry_after(), plain.retry_after());
        assert_eq!(extended.source().unwrap().to_string(), "the cause");
        assert!(extended.is_unavailable());
        assert!(size_of::<AuthError>() <= 56, "{}", size_of::<AuthError>());
    }
}
