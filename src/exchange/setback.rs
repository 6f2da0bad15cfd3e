//! [`Setbacks`]: what did not work lately, so that it is not tried again at once.

use std::time::Duration;

use super::{ExchangeError, OAuthError};
use crate::support::bounded::{Bounded, bounded};
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::retry::{Backoff, Failures};

/// How long a refusal is repeated without asking.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How long anything else the provider said is repeated. A fault of the service itself may be
/// mended any moment.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// The latest of these are kept, and those that were asked for again, some 300 bytes each: a failure lies
/// there until its request succeeds or others displace it.
const MAX_REMEMBERED: usize = 10_000;

/// The last failure of each request.
#[derive(Debug)]
pub(super) struct Setbacks(Bounded<Mac, Setback, BuildMacHasher>);

#[derive(Debug, Clone)]
struct Setback {
    error: ExchangeError,
    /// A token that is due, and still good, is sought again after these.
    failures: Failures,
    repeated_until: Duration,
}

impl Default for Setbacks {
    fn default() -> Self {
        Self(bounded(MAX_REMEMBERED))
    }
}

impl Setbacks {
    /// The error that asking again would only give once more.
    pub(super) fn standing(&self, mac: Mac, now: Duration) -> Option<ExchangeError> {
        let setback = self.0.get(&mac)?;
        (now < setback.repeated_until).then_some(setback.error)
    }

    /// Whether it is time to try to renew a token that is due.
    pub(super) fn permits_renewal(&self, mac: Mac, now: Duration) -> bool {
        self.0.get(&mac).is_none_or(|setback| now >= setback.failures.retry_at)
    }

    pub(super) fn note<T>(&self, mac: Mac, outcome: &Result<T, ExchangeError>, now: Duration) {
        let Err(error) = outcome else {
            self.0.remove(&mac);
            return;
        };
        let mut failures = self.0.get(&mac).map(|setback| setback.failures).unwrap_or_default();
        failures.add(Backoff::PROVIDER, None, now);
        let repeated_for = match error {
            _ if !error.is_final() => Duration::ZERO,
            // Somebody may be mending it.
            _ if error.oauth() == Some(&OAuthError::InvalidClient) => FAILED_FOR,
            ExchangeError::Refused { .. } => REFUSED_FOR,
            _ => FAILED_FOR,
        };
        let (error, repeated_until) = (error.clone(), now + repeated_for);
        self.0.insert(mac, Setback { error, failures, repeated_until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_ends_the_count_of_failures() {
        let (setbacks, mac, now) = (Setbacks::default(), Mac::of(b"request"), Duration::ZERO);
        for _ in 0..20 {
            setbacks.note(mac, &Err::<(), _>(ExchangeError::Answer("is no answer")), now);
        }
        assert!(setbacks.standing(mac, now).is_some() && !setbacks.permits_renewal(mac, now));
        setbacks.note(mac, &Ok(()), now);
        assert!(setbacks.standing(mac, now).is_none() && setbacks.permits_renewal(mac, now));
    }
}
