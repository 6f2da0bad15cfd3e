//! [`Granted`] and [`Denied`]: the outcomes of an evaluation.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::error::{AuthError, InvalidToken};
use crate::identity::{Identity, IdentityKind, Scopes, TenantId};
use crate::support::crypto;

/// The identity, tenant and scopes granted to a foreign token (feature `trust`).
///
/// The endpoint then either forwards the token to the provider (RFC 8693, requesting
/// [`scopes`](Self::scopes) in [`tenant`](Self::tenant)), or mints a token for
/// [`identity`](Self::identity). A minted token must not have other scopes, and must not live
/// longer than [`expires_at`](Self::expires_at).
///
/// ```
/// use scaikey_auth::trust::Granted;
///
/// /// The line of an audit log. `granted.workload` has the claims of the platform's token.
/// fn audit(granted: &Granted) -> String {
///     let Granted { trust, rule, identity, tenant, scopes, .. } = granted;
///     format!("{trust}/{rule}: {identity} in {tenant} may use {scopes}")
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Granted {
    /// The id of the trust.
    pub trust: String,
    /// The name of the rule that matched.
    pub rule: String,
    /// The identity of the workload in this service, from the rule's template, such as
    /// `sa:reporting-service`.
    pub identity: String,
    /// Always [`IdentityKind::Workload`].
    pub kind: IdentityKind,
    /// The tenant of the workload.
    pub tenant: TenantId,
    /// The requested scopes, or all scopes that the rule permits if none were requested.
    pub scopes: Scopes,
    /// The time when the foreign token expires or the trust ends, whichever is earlier.
    pub expires_at: SystemTime,
    /// The verified foreign token: its `iss`, `sub` and claims, for further checks. The workload's
    /// identity in this service is [`identity`](Self::identity) instead.
    pub workload: Identity,
}

impl Granted {
    /// Returns the digest of the foreign token's subject, for the log.
    pub(crate) fn subject_sha256(&self) -> String {
        crypto::sha256_hex(self.workload.subject())
    }
}

/// A denied foreign token (feature `trust`).
///
/// `Display` and [`reason`](Self::reason) are for the log. The caller gets [`code`](Self::code) and
/// [`public_message`](Self::public_message), which do not depend on what is wrong with the token
/// (RFC 8693 §2.2.2).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), scaikey_auth::trust::PolicyError> {
/// use scaikey_auth::identity::Scopes;
/// use scaikey_auth::trust::{DenialReason, TrustEvaluator};
///
/// let trusts = TrustEvaluator::builder().build()?;
/// let denied = trusts.evaluate("not a token", None, &Scopes::new()).await.unwrap_err();
/// assert_eq!((denied.status().as_u16(), denied.code()), (400, "invalid_request"));
/// assert!(matches!(denied.reason(), DenialReason::Token(_))); // for the log
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("foreign token denied: {reason}")]
pub struct Denied {
    #[source]
    pub(super) reason: DenialReason,
}

/// The reason for denying a foreign token (feature `trust`). For the log and for administrators,
/// never for the caller.
///
/// ```
/// use scaikey_auth::trust::DenialReason;
///
/// /// Returns whether the denial deserves an alert.
/// fn is_suspicious(reason: &DenialReason) -> bool {
///     matches!(reason, DenialReason::Replayed | DenialReason::Scope)
/// }
/// assert!(is_suspicious(&DenialReason::Replayed));
/// assert_eq!(DenialReason::Replayed.as_str(), "replayed");
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DenialReason {
    /// The caller named a trust that is not in the policy.
    #[error("the policy has no trust with the requested id")]
    UnknownTrust,
    /// No trust has the token's issuer (or the trust domain of its `sub`) and its audience.
    #[error("no trust has the token's issuer, or the trust domain of its `sub`, and its audience")]
    NoMatchingTrust,
    /// Several trusts have one of the token's audiences, and its issuer or the trust domain of its
    /// `sub`.
    #[error(
        "several trusts match the token's audience and its issuer, or the trust domain of its `sub`: name the trust"
    )]
    AmbiguousTrusts,
    /// The trust's `not_after` has passed.
    #[error("the trust has ended (`not_after`)")]
    TrustEnded,
    /// The token is invalid.
    #[error("the token is invalid: {0}")]
    Token(InvalidToken),
    /// The token's lifetime exceeds `max_lifetime`, or the token has no `iat` although it needs one.
    #[error("the token's lifetime exceeds `max_lifetime`, or it has no `iat`")]
    Lifetime,
    /// The token is older than `max_age`.
    #[error("the token is older than `max_age`")]
    Age,
    /// No rule matches.
    #[error("no rule matches")]
    NoMatchingRule,
    /// More than one rule matches.
    #[error("more than one rule matches, so the identity is ambiguous")]
    AmbiguousRules,
    /// The claims cannot fill in the identity template.
    #[error("the token's claims cannot fill in the rule's identity template")]
    Identity,
    /// The request has a scope that the rule does not permit.
    #[error("the rule does not permit all requested scopes")]
    Scope,
    /// The trust has `single_use_jti`, but the token has no `jti`.
    #[error("the token has no `jti`, which `single_use_jti` requires")]
    NoJti,
    /// The token was used before.
    #[error("the token was used before")]
    Replayed,
    /// The trust is in audit mode. In enforce mode the token would have been granted.
    #[error("the trust is in audit mode; in enforce mode the token would have been granted")]
    AuditMode,
    /// The keys, the replay log or the store of the policy are unavailable. The token may be valid.
    #[error("{component} unavailable")]
    Unavailable {
        /// The unavailable component: `"keys"`, `"replay log"` or `"trust policy"`.
        component: &'static str,
        /// The time to wait before a retry. With `None`, [`Denied::retry_after`] returns 1 s.
        retry_after: Option<Duration>,
    },
}

/// Every outcome of a decision: `granted`, and the [names](DenialReason::as_str) of the reasons.
#[cfg(feature = "endpoints")]
pub(crate) const OUTCOMES: &[&str] = &[
    "granted",
    "trust_unknown",
    "trust_none",
    "trust_ambiguous",
    "trust_ended",
    "token_lifetime",
    "token_age",
    "grant_none",
    "grant_ambiguous",
    "identity",
    "scope",
    "jti_missing",
    "replayed",
    "audit_mode",
    "unavailable",
    "token_malformed",
    "token_algorithm",
    "token_type",
    "token_issuer",
    "token_audience",
    "token_expired",
    "token_not_yet_valid",
    "token_claim_missing",
    "token_claim_malformed",
    "token_key_unknown",
    "token_signature",
    "token_unproven",
    "token_revoked",
    "token_decryption",
    "token_unencrypted",
    "token_issuer_tenant",
    "token_inactive",
    "token_unrecognised",
];

impl DenialReason {
    /// Returns a stable name for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownTrust => "trust_unknown",
            Self::NoMatchingTrust => "trust_none",
            Self::AmbiguousTrusts => "trust_ambiguous",
            Self::TrustEnded => "trust_ended",
            Self::Token(invalid) => invalid.reason(),
            Self::Lifetime => "token_lifetime",
            Self::Age => "token_age",
            Self::NoMatchingRule => "grant_none",
            Self::AmbiguousRules => "grant_ambiguous",
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
            AuthError::Unavailable { component, retry_after, .. } => {
                Self::Unavailable { component, retry_after }
            }
            // The validator returns no other error.
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
    /// Returns the reason, for the log.
    pub fn reason(&self) -> &DenialReason {
        &self.reason
    }

    /// Returns the `error` of the response: `invalid_request`, `invalid_scope` or
    /// `temporarily_unavailable`. (`invalid_target` is never returned, because a policy does not
    /// see the `audience` and `resource` of the request.)
    pub fn code(&self) -> &'static str {
        self.answer().1
    }

    /// Returns the HTTP status of the response: 400, or 503 if the keys or the replay log are
    /// unavailable.
    pub fn status(&self) -> StatusCode {
        self.answer().0
    }

    /// Returns a fixed sentence for the caller. It quotes nothing from the request.
    pub fn public_message(&self) -> &'static str {
        self.answer().2
    }

    fn answer(&self) -> (StatusCode, &'static str, &'static str) {
        let (bad_request, unavailable) = (StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE);
        match self.reason {
            DenialReason::Scope => {
                (bad_request, "invalid_scope", "the scope asked for is not permitted")
            }
            DenialReason::Unavailable { .. } => {
                (unavailable, "temporarily_unavailable", "try again later")
            }
            _ => (bad_request, "invalid_request", "the subject token is not accepted"),
        }
    }

    /// Returns the time that the caller should wait (1 s if it is unknown), if the keys or the
    /// replay log are unavailable.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.reason {
            DenialReason::Unavailable { retry_after, .. } => {
                Some(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            _ => None,
        }
    }
}

#[cfg(all(test, feature = "endpoints"))]
mod tests {
    use super::*;

    /// The names in the code, so that a new one is not forgotten.
    #[test]
    fn outcomes_are_the_names_of_reasons() {
        let names = |code: &str| -> Vec<String> {
            let code = code.split_once("-> &'static str {").unwrap().1;
            let code = code.split_once("\n    }\n").unwrap().0;
            let names = code.lines().filter_map(|line| line.split_once("=> \"")?.1.split_once('"'));
            names.map(|(name, _)| name.to_owned()).collect()
        };
        let errors = include_str!("../error/auth_error.rs").split_once("impl InvalidToken {");
        let reasons = include_str!("outcome.rs").split_once("impl DenialReason {");
        let mut expected = vec!["granted".to_owned()];
        expected.extend(names(reasons.unwrap().1));
        expected.extend(names(errors.unwrap().1));
        assert_eq!(OUTCOMES, expected);
    }
}
