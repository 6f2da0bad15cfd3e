//! [`FailureCache`]: recent failures, repeated without asking the provider again.

use std::time::Duration;

use super::{ExchangeError, OAuthError};
use crate::support::mac::{Mac, BuildMacHasher};
use crate::support::bounded::{Bounded, bounded};
use crate::support::retry::{Backoff, Failures};

/// How long a refusal is repeated without asking the provider.
const REFUSAL_TTL: Duration = Duration::from_secs(10);

/// How long any other final error is repeated. Shorter, because an operator may correct the
/// configuration at any moment.
const ERROR_TTL: Duration = Duration::from_secs(1);

/// The maximum number of entries, of about 300 bytes each. An entry stays until its request succeeds or
/// it is evicted.
const MAX_ENTRIES: usize = 10_000;

/// The last failure of each request.
#[derive(Debug)]
pub(super) struct FailureCache(Bounded<Mac, Failure, BuildMacHasher>);

#[derive(Debug, Clone)]
struct Failure {
    error: ExchangeError,
    /// The backoff of early renewals.
    failures: Failures,
    expires: Duration,
}

impl Default for FailureCache {
    fn default() -> Self {
        Self(bounded(MAX_ENTRIES))
    }
}

impl FailureCache {
    /// Returns the cached error, until it expires.
    pub(super) fn get(&self, mark: Mac, now: Duration) -> Option<ExchangeError> {
        let failure = self.0.get(&mark)?;
        (now < failure.expires).then_some(failure.error)
    }

    /// Returns whether a token that is due may be renewed now.
    pub(super) fn permits_renewal(&self, mark: Mac, now: Duration) -> bool {
        self.0.get(&mark).is_none_or(|failure| now >= failure.failures.retry_at)
    }

    pub(super) fn record<T>(&self, mark: Mac, outcome: &Result<T, ExchangeError>, now: Duration) {
        let Err(error) = outcome else {
            self.0.remove(&mark);
            return;
        };
        let mut failures = self.0.get(&mark).map(|failure| failure.failures).unwrap_or_default();
        failures.add(Backoff::PROVIDER, None, now);
        let ttl = match error {
            _ if !error.is_final() => Duration::ZERO,
            _ if error.oauth() == Some(&OAuthError::InvalidClient) => ERROR_TTL,
            ExchangeError::Refused { .. } => REFUSAL_TTL,
            _ => ERROR_TTL,
        };
        let (error, expires) = (error.clone(), now + ttl);
        self.0.insert(mark, Failure { error, failures, expires });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_resets_the_failure_count() {
        let (cache, mark, now) = (FailureCache::default(), Mac::of(b"request"), Duration::ZERO);
        for _ in 0..20 {
            cache.record(mark, &Err::<(), _>(ExchangeError::Answer("is no JSON")), now);
        }
        assert!(cache.get(mark, now).is_some() && !cache.permits_renewal(mark, now));
        cache.record(mark, &Ok(()), now);
        assert!(cache.get(mark, now).is_none() && cache.permits_renewal(mark, now));
    }
}
