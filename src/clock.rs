//! The time: every part of this crate asks a [`Clock`], and nothing else.
//!
//! [`SystemClock`] is the default. [`AuthBuilder::clock`](crate::AuthBuilder::clock) and the other builders
//! take another one: tests pass [`testing::ManualClock`](crate::testing::ManualClock) (feature `testing`),
//! which stands still until it is moved.
//!
//! How it fits together: [manual::testing](crate::manual::testing).

use std::fmt::Debug;
use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// A source of time.
///
/// [`SystemClock`] is the default. [`testing::ManualClock`](crate::testing::ManualClock) (feature `testing`) stands still until
/// it is told to move, so that expiry, rotation and back-off can be tested without sleeping.
///
/// A clock that runs slow accepts expired tokens; one that runs fast refuses good ones.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall-clock time that `exp`, `nbf` and `iat` are compared with.
    fn now(&self) -> SystemTime;

    /// Time since some fixed moment, never going back: for life times and back-off, which must
    /// not jump when somebody sets the wall clock.
    fn elapsed(&self) -> Duration;
}

/// The operating system's clocks. All of them in a process agree: what was put into a cache under
/// one is as old under another.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

static FIRST: LazyLock<SystemClock> = LazyLock::new(|| SystemClock { origin: Instant::now() });

impl Default for SystemClock {
    fn default() -> Self {
        *FIRST
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// Seconds since the Unix epoch; a moment before 1970 counts as 0.
pub(crate) fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds since the Unix epoch with their fraction, to compare with NumericDates.
pub(crate) fn unix_time(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Gives up on `work` after `limit` of real time, whatever the [`Clock`] says: a deadline guards
/// against a peer that hangs, and a peer hangs in real time. Outside of a tokio runtime, where
/// nothing can be measured and no peer is asked, there is no deadline.
pub(crate) async fn within<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::time::timeout(limit, work).await.ok(),
        Err(_) => Some(work.await),
    }
}

/// How long a check of the service's own may take, [in real time](within). Longer than a busy store takes, and
/// shorter than callers wait: as the default of
/// [`CachedTenants::deadline`](crate::tenant::CachedTenants::deadline).
pub(crate) const CHECK_PATIENCE: Duration = Duration::from_secs(2);

/// Waits in real time. Outside of a tokio runtime, where nothing is waited for, not at all.
pub(crate) async fn pause(period: Duration) {
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::time::sleep(period).await;
    }
}

/// `period` moved by up to `share` of itself in either direction, so that many processes started
/// together do not call their provider together.
pub(crate) fn jittered(period: Duration, share: f64) -> Duration {
    period.mul_f64(1.0 + share * (2.0 * random_fraction() - 1.0))
}

/// A number in `0.0..1.0`. Spreading load needs no cryptographic randomness, so the hasher's
/// per-instance seed will do.
pub(crate) fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0_u8) >> 11;
    random as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_system_clocks_agree() {
        let (first, second) = (SystemClock::default(), SystemClock::default());
        let before = first.elapsed();
        let between = second.elapsed();
        assert!(before <= between && between <= first.elapsed());
    }

    #[test]
    fn jitter_stays_within_its_bounds() {
        let period = Duration::from_secs(60);
        for _ in 0..100 {
            let spread = jittered(period, 0.1);
            assert!(spread >= period.mul_f64(0.9) && spread <= period.mul_f64(1.1), "{spread:?}");
        }
    }
}
