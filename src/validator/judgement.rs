//! [`Judgement`]: a verdict, or what a token must wait for first.

use std::sync::Arc;

use crate::error::{AuthError, InvalidToken};
use crate::identity::TenantId;
use crate::issuer::{Issuer, IssuerKeys, NoNewKeys, PerTenant, Renewed, Seen};

/// How often a token may wait for keys: once for a fetch that was under way already, and once for
/// one that began after the token arrived.
const MAX_RENEWALS: usize = 2;

/// A judgement for each thing a token may wait for, and the last.
const MAX_ROUNDS: usize = MAX_RENEWALS + 3;

/// What the token at hand leads to.
pub(super) enum Judgement<T> {
    Final(Result<T, AuthError>),
    /// The issuer of its tenant must be found first.
    NeedsIssuer {
        of: Arc<PerTenant>,
        tenant: TenantId,
        /// Whether there is reason to believe that the tenant is not invented.
        is_vouched: bool,
    },
    /// No key at hand verifies the token.
    NeedsKeys {
        keys: Arc<IssuerKeys>,
        /// Which were looked at.
        seen: Seen,
        /// What is wrong with the token if no others come.
        otherwise: InvalidToken,
    },
}

impl<T> Judgement<T> {
    /// That the issuer's keys are needed anew.
    pub(super) fn keys(issuer: &Issuer, seen: Seen, otherwise: InvalidToken) -> Self {
        Self::NeedsKeys { keys: issuer.keys.clone(), seen, otherwise }
    }

    /// The verdict, if there is nothing to wait for.
    pub(super) fn try_validate(self) -> Option<Result<T, AuthError>> {
        match self {
            Self::Final(verdict) => Some(verdict),
            Self::NeedsIssuer { .. } => None,
            Self::NeedsKeys { keys, seen, otherwise } => {
                keys.no_new_keys(&seen).map(|reason| Err(refusal(reason, otherwise)))
            }
        }
    }
}

/// Judges until there is a verdict, and waits in between for what is needed.
pub(super) async fn settle<T>(judge: impl Fn() -> Judgement<T>) -> Result<T, AuthError> {
    let mut renewals = 0;
    let mut wrong = InvalidToken::Key;
    for _ in 0..MAX_ROUNDS {
        match judge() {
            Judgement::Final(verdict) => return verdict,
            Judgement::NeedsIssuer { of, tenant, is_vouched } => {
                let look_again = || match judge() {
                    Judgement::NeedsIssuer { is_vouched, .. } => is_vouched,
                    Judgement::Final(_) | Judgement::NeedsKeys { .. } => false,
                };
                of.open(tenant, is_vouched, look_again).await?;
            }
            Judgement::NeedsKeys { otherwise, .. } if renewals >= MAX_RENEWALS => {
                return Err(otherwise.into());
            }
            Judgement::NeedsKeys { keys, seen, otherwise } => {
                match keys.renew(&seen).await {
                    Ok(Renewed::ByOthersFetch) => renewals += 1,
                    // Asking again would bring the same, and use up what the next rotation needs.
                    Ok(Renewed::ByOwnFetch) => renewals = MAX_RENEWALS,
                    // What others asked for may have come since we looked: look once more.
                    Err(NoNewKeys::AskedEnough) => renewals = MAX_RENEWALS,
                    Err(reason) => return Err(refusal(reason, otherwise)),
                }
                wrong = otherwise;
            }
        }
    }
    Err(wrong.into())
}

/// What a token is answered with for which there are no newer keys. Under a name that is not known
/// a good key may be published by now; one that is known is the best there is to judge by.
fn refusal(reason: NoNewKeys, otherwise: InvalidToken) -> AuthError {
    match otherwise {
        InvalidToken::Key => reason.into(),
        known => known.into(),
    }
}
