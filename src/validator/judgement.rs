//! [`Judgement`]: a verdict, or what a token must wait for first.

use std::sync::Arc;

use crate::error::{AuthError, InvalidToken};
use crate::identity::TenantId;
use crate::issuer::{Keys, NoNewKeys, PerTenant, Renewed};

/// How often a token may wait for keys: once for a fetch that was under way already, and once for
/// one that began after the token arrived.
const MAX_RENEWALS: usize = 2;

/// A judgement for each thing a token may wait for, and the last.
const MAX_ROUNDS: usize = MAX_RENEWALS + 3;

/// What the token at hand leads to.
pub(super) enum Judgement<T> {
    Final(Result<T, AuthError>),
    /// The issuer of its tenant must be found first.
    NeedsIssuer(Arc<PerTenant>, TenantId),
    /// No key at hand fits, as of so many sets.
    NeedsKeys(Arc<Keys>, u64),
}

impl<T> Judgement<T> {
    /// The verdict, if there is nothing to wait for.
    pub(super) fn at_once(self) -> Option<Result<T, AuthError>> {
        match self {
            Self::Final(verdict) => Some(verdict),
            Self::NeedsIssuer(..) => None,
            Self::NeedsKeys(keys, as_of) => {
                keys.no_new_keys(as_of).map(|reason| Err(reason.into()))
            }
        }
    }
}

/// Judges until there is a verdict, and waits in between for what is needed.
pub(super) async fn settle<T>(judge: impl Fn() -> Judgement<T>) -> Result<T, AuthError> {
    let mut renewals = 0;
    for _ in 0..MAX_ROUNDS {
        match judge() {
            Judgement::Final(verdict) => return verdict,
            Judgement::NeedsIssuer(all, tenant) => all.open(tenant).await?,
            Judgement::NeedsKeys(..) if renewals >= MAX_RENEWALS => break,
            Judgement::NeedsKeys(keys, as_of) => match keys.renew(as_of).await {
                Ok(Renewed::ByOthersFetch) => renewals += 1,
                // Asking again would bring the same, and use up what the next rotation needs.
                Ok(Renewed::ByOwnFetch) => renewals = MAX_RENEWALS,
                // What others asked for may have come since we looked: look once more.
                Err(NoNewKeys::AskedEnough) => renewals = MAX_RENEWALS,
                Err(other) => return Err(other.into()),
            },
        }
    }
    Err(InvalidToken::Key.into())
}
