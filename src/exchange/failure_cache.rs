//! [`FailureCache`]: recent failures, returned again without a request to the provider.

use std::time::Duration;

use super::{ExchangeError, OAuthError};
use crate::support::bounded::{Bounded, bounded};
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::retry::{Backoff, Failures};

/// The time for which a refusal is returned again without a request to the provider.
const REFUSAL_TTL: Duration = Duration::from_secs(10);

/// The time for which `invalid_client` or an invalid answer is returned again. Shorter, because an
/// operator may correct the configuration at any moment.
const ERROR_TTL: Duration = Duration::from_secs(1);

/// The maximum number of entries, of about 300 bytes each. An entry stays until its request succeeds or
/// it is evicted.
const MAX_ENTRIES: usize = 10_000;

/// The last failure of each request.
#[derive(Debug)]
pub(super) struct FailureCache(Bounded<Mac, CachedFailure, BuildMacHasher>);

#[derive(Debug, Clone)]
struct CachedFailure {
    error: ExchangeError,
    /// The backoff of renewals of a due token.
    renewals: Failures,
    expires: Duration,
}

impl Default for FailureCache {
    fn default() -> Self {
        Self(bounded(MAX_ENTRIES))
    }
}

impl FailureCache {
    /// Returns the cached error, until it expires.
    pub(super) fn get(&self, mac: Mac, now: Duration) -> Option<ExchangeError> {
        let entry = self.0.get(&mac)?;
        (now < entry.expires).then_some(entry.error)
    }

    /// Returns whether a token that is due may be renewed now.
    pub(super) fn permits_renewal(&self, mac: Mac, now: Duration) -> bool {
        self.0.get(&mac).is_none_or(|entry| now >= entry.renewals.retry_at)
    }

    /// Stores a failure, or removes the stored one after a success.
    pub(super) fn record<T>(&self, mac: Mac, outcome: &Result<T, ExchangeError>, now: Duration) {
        let Err(error) = outcome else {
            self.0.remove(&mac);
            return;
        };
        let mut renewals = self.0.get(&mac).map(|entry| entry.renewals).unwrap_or_default();
        renewals.add(Backoff::PROVIDER, None, now);
        let ttl = match error {
            _ if !error.is_final() => Duration::ZERO,
            _ if error.oauth_error() == Some(&OAuthError::InvalidClient) => ERROR_TTL,
            ExchangeError::Refused { .. } => REFUSAL_TTL,
            _ => ERROR_TTL,
        };
        let (error, expires) = (error.clone(), now + ttl);
        self.0.insert(mac, CachedFailure { error, renewals, expires });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_resets_the_failure_count() {
        let (cache, mac, now) = (FailureCache::default(), Mac::of(b"request"), Duration::ZERO);
        for _ in 0..20 {
            cache.record(mac, &Err::<(), _>(ExchangeError::InvalidAnswer("is no JSON")), now);
        }
        assert!(cache.get(mac, now).is_some() && !cache.permits_renewal(mac, now));
        cache.record(mac, &Ok(()), now);
        assert!(cache.get(mac, now).is_none() && cache.permits_renewal(mac, now));
    }
}
