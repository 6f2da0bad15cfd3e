//! [`Verification`]: the result for a token, or the issuer or keys that must be fetched first.

use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{AuthError, InvalidToken};
use crate::identity::TenantId;
use crate::issuer::{
    Issuer, IssuerKeys, IssuerTemplate, KeyLease, KeySetVersion, NotRefreshed, Refreshed,
    SignatureCheck,
};

/// The number of times that a token may wait for keys: once for a fetch that was already running, and once
/// for a fetch that began after the token arrived.
const MAX_REFRESHES: usize = 2;

/// The maximum number of calls of `verify`: one for the issuer, one for each refresh, the final one, and one
/// to spare, because the issuer may have to be opened again.
const MAX_ROUNDS: usize = MAX_REFRESHES + 3;

/// The state of a token's verification.
pub(super) enum Verification<T> {
    Done(Result<T, AuthError>),
    /// The issuer of the token's tenant must be resolved, and its keys fetched, first.
    NeedsIssuer {
        template: Arc<IssuerTemplate>,
        tenant: TenantId,
        /// Whether a known key of the provider made the signature, so that the tenant exists.
        is_vouched: bool,
    },
    /// No cached key verifies the token.
    NeedsKeys {
        keys: Arc<IssuerKeys>,
        /// The key set that was tried.
        tried: KeySetVersion,
        /// The fault of the token if there are no newer keys.
        fault: InvalidToken,
    },
}

impl<T> Verification<T> {
    pub(super) fn needs_keys(issuer: &Issuer, tried: KeySetVersion, fault: InvalidToken) -> Self {
        Self::NeedsKeys { keys: issuer.keys.clone(), tried, fault }
    }

    /// Applies a further rule to the result.
    pub(super) fn and_then<R>(
        self,
        rule: impl FnOnce(T) -> Result<R, AuthError>,
    ) -> Verification<R> {
        match self {
            Self::Done(result) => Verification::Done(result.and_then(rule)),
            Self::NeedsIssuer { template, tenant, is_vouched } => {
                Verification::NeedsIssuer { template, tenant, is_vouched }
            }
            Self::NeedsKeys { keys, tried, fault } => {
                Verification::NeedsKeys { keys, tried, fault }
            }
        }
    }

    /// Returns the result of `verified` if a key of the issuer made the signature.
    pub(super) fn of_signature(
        check: SignatureCheck,
        issuer: &Issuer,
        verified: impl FnOnce(KeyLease, Option<SystemTime>) -> Result<T, InvalidToken>,
    ) -> Result<Self, InvalidToken> {
        let (tried, fault) = match check {
            SignatureCheck::Verified(lease, key_expiry) => {
                issuer.record_verified_token();
                return Ok(Self::Done(Ok(verified(lease, key_expiry)?)));
            }
            SignatureCheck::BadSignature(tried) => (tried, InvalidToken::Signature),
            SignatureCheck::WrongAlgorithm(tried) => (tried, InvalidToken::Algorithm),
            SignatureCheck::NoKey(tried) => (tried, InvalidToken::Key),
        };
        Ok(Self::needs_keys(issuer, tried, fault))
    }

    /// Returns the result, if there is nothing to wait for.
    pub(super) fn try_finish(self) -> Option<Result<T, AuthError>> {
        match self {
            Self::Done(result) => Some(result),
            Self::NeedsIssuer { .. } => None,
            Self::NeedsKeys { keys, tried, fault } => {
                keys.refusal_to_refresh(&tried).map(|reason| Err(rejection(reason, fault)))
            }
        }
    }
}

/// Calls `verify` until it returns a result. Between the calls, waits for the issuer or the keys that are
/// needed.
pub(super) async fn finish<T>(verify: impl Fn() -> Verification<T>) -> Result<T, AuthError> {
    let mut refreshes = 0;
    let mut last_fault = InvalidToken::Key;
    for _ in 0..MAX_ROUNDS {
        match verify() {
            Verification::Done(result) => return result,
            Verification::NeedsIssuer { template, tenant, is_vouched } => {
                let check_again = || match verify() {
                    Verification::NeedsIssuer { is_vouched, .. } => is_vouched,
                    Verification::Done(_) | Verification::NeedsKeys { .. } => false,
                };
                template.open(tenant, is_vouched, check_again).await?;
            }
            Verification::NeedsKeys { fault, .. } if refreshes >= MAX_REFRESHES => {
                return Err(fault.into());
            }
            Verification::NeedsKeys { keys, tried, fault } => {
                match keys.refresh(&tried).await {
                    Ok(Refreshed::ByEarlierFetch) => refreshes += 1,
                    // Another fetch would return the same set and use up the budget of the next rotation.
                    Ok(Refreshed::ByNewFetch) => refreshes = MAX_REFRESHES,
                    // Another request's fetch may have finished since this check: verify once more.
                    Err(NotRefreshed::RateLimited) => refreshes = MAX_REFRESHES,
                    Err(reason) => return Err(rejection(reason, fault)),
                }
                last_fault = fault;
            }
        }
    }
    Err(last_fault.into())
}

/// Returns the error for a token when there are no newer keys. If its key is unknown, the token may be valid,
/// and the error is `reason`; otherwise the error is `fault`.
fn rejection(reason: NotRefreshed, fault: InvalidToken) -> AuthError {
    match fault {
        InvalidToken::Key => reason.into(),
        fault => fault.into(),
    }
}
