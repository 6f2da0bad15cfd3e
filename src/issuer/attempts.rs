//! [`Attempts`]: the outcome of past fetches of a key set or of metadata, and the earliest time of the next
//! fetch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::cached_key_set::NotRefreshed;
use super::source::FetchFault;
use crate::support::retry::Backoff;

/// The longest `Retry-After` that is obeyed: first while there are keys, then without keys. Without keys the
/// service refuses every request, so it asks the provider again sooner.
const MAX_RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(60));

/// A time of the monotonic clock, in milliseconds, that can be read without a lock. A thread that reads a
/// value also sees all writes that came before it.
#[derive(Debug, Default)]
pub(super) struct AtomicInstant(AtomicU64);

impl AtomicInstant {
    pub(super) fn set(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Release);
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire))
    }
}

/// Past fetches of a key set or of metadata.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: u32,
    /// The earliest time of the next fetch.
    pub(super) next: Duration,
    /// The end of the time for which the provider asked not to be called (`Retry-After`).
    pub(super) blocked_until: Duration,
    /// The start of the last fetch.
    pub(super) last: Option<SystemTime>,
    pub(super) last_fault: Option<Arc<FetchFault>>,
}

impl Attempts {
    pub(super) fn succeeded(&mut self, next: Duration) {
        *self = Self { next, last: self.last, ..Self::default() };
    }

    /// Records a failure. `Retry-After` blocks every fetch, up to [`MAX_RETRY_AFTER`]. A 429 without
    /// `Retry-After` blocks for the back-off.
    pub(super) fn failed(&mut self, fault: Arc<FetchFault>, has_keys: bool, now: Duration) {
        let pause = Backoff::PROVIDER.wait(self.failures);
        let (with_keys, without) = MAX_RETRY_AFTER;
        let longest = if has_keys { with_keys } else { without };
        let default = if fault.is_too_many_requests() { pause } else { Duration::ZERO };
        let blocked_for = fault.retry_after().unwrap_or(default).min(longest);
        self.blocked_until = now + blocked_for;
        self.next = now + pause.max(blocked_for);
        self.failures = self.failures.saturating_add(1);
        self.last_fault = Some(fault);
    }

    pub(super) fn are_failing(&self) -> bool {
        self.failures > 0
    }

    /// Returns the time until the next fetch is allowed, if there are no usable keys or no metadata. An
    /// urgent fetch ignores the back-off, but not the provider's `Retry-After`.
    pub(super) fn wait(&self, is_urgent: bool, now: Duration) -> Duration {
        let next = if is_urgent { Duration::ZERO } else { self.next };
        next.max(self.blocked_until).saturating_sub(now)
    }

    /// Creates the error for keys or metadata that are not available.
    pub(super) fn unavailable(
        &self,
        fault: Option<Arc<FetchFault>>,
        now: Duration,
    ) -> NotRefreshed {
        let wait = self.next.saturating_sub(now);
        let retry_after = wait.clamp(Duration::from_secs(1), Backoff::PROVIDER.cap);
        NotRefreshed::Unavailable { retry_after, fault }
    }
}
