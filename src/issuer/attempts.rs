//! [`Attempts`]: how asking for a document went, and when it may be asked for again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::keys::NoNewKeys;
use super::source::FetchFault;
use crate::support::retry::Backoff;

/// How long `Retry-After` is kept to, while there are keys and while there are none: without keys
/// every request is refused, so the provider is asked again sooner than it may want.
const MAX_RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(60));

/// A moment of the clock, in milliseconds, that is read without a lock. What was written before it
/// was set is seen by whoever reads it.
#[derive(Debug, Default)]
pub(super) struct AtomicInstant(AtomicU64);

impl AtomicInstant {
    pub(super) fn set(&self, moment: Duration) {
        let millis = u64::try_from(moment.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Release);
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire))
    }
}

/// How asking for a key set or for metadata went so far.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: u32,
    /// Not before this moment is a missing document asked for again.
    pub(super) next: Duration,
    /// Not before this moment is any asked for: the provider said so.
    pub(super) left_alone_until: Duration,
    pub(super) last: Option<SystemTime>,
    pub(super) last_fault: Option<Arc<FetchFault>>,
}

impl Attempts {
    pub(super) fn succeeded(&mut self, next: Duration) {
        *self = Self { next, last: self.last, ..Self::default() };
    }

    /// Whoever answered so is not asked again, whatever may want it, for as long as `Retry-After`
    /// says, within bounds. Who has had too much and does not say for how long is given the pause of
    /// the back-off.
    pub(super) fn failed(&mut self, fault: Arc<FetchFault>, holds_keys: bool, now: Duration) {
        let pause = Backoff::PROVIDER.wait(self.failures);
        let (with_keys, without) = MAX_RETRY_AFTER;
        let longest = if holds_keys { with_keys } else { without };
        let unsaid = if fault.is_of_too_many_requests() { pause } else { Duration::ZERO };
        let asked_for = fault.retry_after().unwrap_or(unsaid).min(longest);
        self.left_alone_until = now + asked_for;
        self.next = now + pause.max(asked_for);
        self.failures = self.failures.saturating_add(1);
        self.last_fault = Some(fault);
    }

    pub(super) fn are_failing(&self) -> bool {
        self.failures > 0
    }

    /// How long nobody may ask who has nothing to go on with. `in_a_hurry` waits only as long as the
    /// provider itself said.
    pub(super) fn wait(&self, in_a_hurry: bool, now: Duration) -> Duration {
        let next = if in_a_hurry { Duration::ZERO } else { self.next };
        next.max(self.left_alone_until).saturating_sub(now)
    }

    /// Why there is nothing to wait for.
    pub(super) fn unavailable(&self, fault: Option<Arc<FetchFault>>, now: Duration) -> NoNewKeys {
        let wait = self.next.saturating_sub(now);
        let retry_after = wait.clamp(Duration::from_secs(1), Backoff::PROVIDER.cap);
        NoNewKeys::Unavailable { retry_after, fault }
    }
}
