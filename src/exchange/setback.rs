//! [`Setbacks`]: what did not work lately, so that it is not tried again at once.

use std::time::Duration;

use moka::sync::Cache;

use super::{ExchangeError, OAuthError};
use crate::clock::backoff;
use crate::mark::{Mark, MarkHasher};

/// How long a refusal is repeated without asking.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How long anything else the provider said is repeated. A fault of the service itself may be
/// mended any moment.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// How soon a token that is due, and still good, is sought again.
const BASE: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_secs(60);

const MAX_REMEMBERED: u64 = 10_000;

/// The last failure of each request.
#[derive(Debug)]
pub(super) struct Setbacks(Cache<Mark, Setback, MarkHasher>);

#[derive(Debug, Clone)]
struct Setback {
    error: ExchangeError,
    failures: u32,
    repeated_until: Duration,
    renewed_from: Duration,
}

impl Default for Setbacks {
    fn default() -> Self {
        let cache = Cache::builder().max_capacity(MAX_REMEMBERED);
        Self(cache.build_with_hasher(MarkHasher::default()))
    }
}

impl Setbacks {
    /// The error that asking again would only give once more.
    pub(super) fn standing(&self, mark: Mark, now: Duration) -> Option<ExchangeError> {
        let setback = self.0.get(&mark)?;
        (now < setback.repeated_until).then_some(setback.error)
    }

    /// Whether it is time to try to renew a token that is due.
    pub(super) fn permits_renewal(&self, mark: Mark, now: Duration) -> bool {
        self.0.get(&mark).is_none_or(|setback| now >= setback.renewed_from)
    }

    pub(super) fn note<T>(&self, mark: Mark, outcome: &Result<T, ExchangeError>, now: Duration) {
        let Err(error) = outcome else {
            self.0.invalidate(&mark);
            return;
        };
        let failures = self.0.get(&mark).map_or(0, |setback| setback.failures);
        let repeated_for = match error {
            _ if !error.is_final() => Duration::ZERO,
            // Somebody may be mending it.
            _ if error.oauth() == Some(&OAuthError::InvalidClient) => FAILED_FOR,
            ExchangeError::Refused { .. } => REFUSED_FOR,
            _ => FAILED_FOR,
        };
        let setback = Setback {
            error: error.clone(),
            failures: failures.saturating_add(1),
            repeated_until: now + repeated_for,
            renewed_from: now + backoff(BASE, CAP, failures),
        };
        self.0.insert(mark, setback);
    }
}
