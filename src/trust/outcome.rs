//! [`Granted`] and [`Denied`]: what comes of a foreign token, for the service and for the caller.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::error::{AuthError, InvalidToken};
use crate::identity::{Identity, IdentityKind, Scopes, TenantId};
use crate::support::crypto;

/// A foreign token that is believed, and what it is worth here (feature `trust`).
///
/// With this an endpoint either forwards the token to the provider (RFC 8693, asking for
/// [`scopes`](Self::scopes) in [`tenant`](Self::tenant)), or mints a token of its own for
/// [`identity`](Self::identity), which must not outlive [`expires_at`](Self::expires_at). It must
/// not give out one with other scopes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Granted {
    /// The id of the trust that vouches.
    pub trust: String,
    /// The name of the rule that matched.
    pub grant: String,
    /// Who the workload is here, as the rule's template says: `sa:reporting-service`.
    pub identity: String,
    /// Always [`IdentityKind::Workload`].
    pub kind: IdentityKind,
    /// The one tenant it works in.
    pub tenant: TenantId,
    /// What it may do: what was asked for, or everything the rule permits when nothing was.
    pub scopes: Scopes,
    /// When the foreign token expires, or the trust ends, whichever is earlier.
    pub expires_at: SystemTime,
    /// The foreign token as verified: its `iss`, `sub` and claims, for whoever needs more. Nothing
    /// in it says what the workload is here.
    pub workload: Identity,
}

impl Granted {
    /// Whom the foreign token is of, for the log, which has it as a digest.
    pub(crate) fn subject_sha256(&self) -> String {
        crypto::sha256_hex(self.workload.subject())
    }
}

/// A foreign token that is not believed, or asks for too much (feature `trust`).
///
/// `Display` and [`reason`](Self::reason) are for the log. The caller is told
/// [`code`](Self::code) and [`public_message`](Self::public_message), which say the same whatever
/// is wrong with the token (RFC 8693 §2.2.2).
#[derive(Debug, Clone, thiserror::Error)]
#[error("foreign token denied: {reason}")]
pub struct Denied {
    #[source]
    pub(super) reason: DenialReason,
}

/// Why a foreign token is denied (feature `trust`). For the log and for administrators, never for the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DenialReason {
    /// The caller named a trust that the policy does not have.
    #[error("the policy has no trust of the id named")]
    UnknownTrust,
    /// No trust has this issuer and audience.
    #[error("no trust has the token's issuer and audience")]
    NoTrust,
    /// The token names the audiences of several trusts of one issuer.
    #[error("several trusts have the token's issuer and one of its audiences: name the trust")]
    AmbiguousTrust,
    /// The trust's `not_after` is over.
    #[error("the trust has ended (`not_after`)")]
    TrustEnded,
    /// The token does not hold.
    #[error("the token does not hold: {0}")]
    Token(InvalidToken),
    /// It was issued for longer than `max_lifetime`, or does not say for how long.
    #[error("the token lives longer than `max_lifetime`, or has no `iat`")]
    Lifetime,
    /// It was issued longer ago than `max_age`.
    #[error("the token is older than `max_age`")]
    Age,
    /// No rule matches.
    #[error("no rule matches")]
    NoGrant,
    /// More than one rule matches.
    #[error("more than one rule matches, so that it is not clear who this is")]
    AmbiguousGrants,
    /// The identity template cannot be filled in from the claims.
    #[error("the rule's identity cannot be made from the token's claims")]
    Identity,
    /// Scopes were asked for that the rule does not permit.
    #[error("scopes were asked for that the rule does not permit")]
    Scope,
    /// The trust wants `jti`, and the token has none.
    #[error("the token has no `jti`, which `single_use_jti` needs")]
    NoJti,
    /// The token was used before.
    #[error("the token was used before")]
    Replayed,
    /// The trust is on trial: it would have been granted.
    #[error("the trust is in audit mode: it would have been granted")]
    AuditMode,
    /// Keys or the replay log are away: the token may be good.
    #[error("{what} unavailable")]
    Unavailable {
        /// What is away: `"keys"` or `"replay log"`.
        what: &'static str,
        /// When trying again makes sense.
        retry_after: Option<Duration>,
    },
}

impl DenialReason {
    /// A stable name for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownTrust => "trust_unknown",
            Self::NoTrust => "trust_none",
            Self::AmbiguousTrust => "trust_ambiguous",
            Self::TrustEnded => "trust_ended",
            Self::Token(invalid) => invalid.reason(),
            Self::Lifetime => "token_lifetime",
            Self::Age => "token_age",
            Self::NoGrant => "grant_none",
            Self::AmbiguousGrants => "grant_ambiguous",
            Self::Identity => "identity",
            Self::Scope => "scope",
            Self::NoJti => "jti_missing",
            Self::Replayed => "replayed",
            Self::AuditMode => "audit_mode",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

impl From<AuthError> for DenialReason {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::InvalidToken(invalid) => Self::Token(invalid),
            AuthError::Unavailable { what, retry_after, .. } => {
                Self::Unavailable { what, retry_after }
            }
            // The validator returns no other.
            _ => Self::Token(InvalidToken::Unrecognised),
        }
    }
}

impl From<InvalidToken> for DenialReason {
    fn from(invalid: InvalidToken) -> Self {
        Self::Token(invalid)
    }
}

impl Denied {
    /// Why, for the log.
    pub fn reason(&self) -> &DenialReason {
        &self.reason
    }

    /// The `error` of the answer: `invalid_request`, `invalid_scope` or, when something is away,
    /// `temporarily_unavailable`. (`invalid_target` is for whoever reads the request's `audience`
    /// and `resource`, which a policy never sees.)
    pub fn code(&self) -> &'static str {
        self.answer().1
    }

    /// The HTTP status of the answer: 400, or 503 when something is away.
    pub fn status(&self) -> StatusCode {
        self.answer().0
    }

    /// One fixed sentence for the caller. Says nothing that came with the request.
    pub fn public_message(&self) -> &'static str {
        self.answer().2
    }

    fn answer(&self) -> (StatusCode, &'static str, &'static str) {
        let (bad, away) = (StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE);
        match self.reason {
            DenialReason::Scope => (bad, "invalid_scope", "the scope asked for is not permitted"),
            DenialReason::Unavailable { .. } => {
                (away, "temporarily_unavailable", "try again later")
            }
            _ => (bad, "invalid_request", "the subject token is not accepted"),
        }
    }

    /// When the caller should try again, when something is away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.reason {
            DenialReason::Unavailable { retry_after, .. } => {
                Some(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            _ => None,
        }
    }
}
