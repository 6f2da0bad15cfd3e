//! [`Clock`]: the only source of time in this crate.
//!
//! [`SystemClock`] is the default. [`AuthBuilder::clock`](crate::AuthBuilder::clock) and the other builders
//! take a different one. Tests pass [`testing::ManualClock`](crate::testing::ManualClock) (feature
//! `testing`), which stands still until the test moves it.
//!
//! See also: [manual::testing](crate::manual::testing).

use std::fmt::Debug;
use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;

/// A source of time.
///
/// [`SystemClock`] is the default. [`testing::ManualClock`](crate::testing::ManualClock) (feature `testing`)
/// stands still until the test moves it, so that expiry, rotation and back-off are tested without sleeping.
///
/// A slow clock accepts expired tokens; a fast clock refuses good ones.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use scaikey_auth::Auth;
/// use scaikey_auth::clock::{Clock, SystemClock};
///
/// /// The clock of a machine whose time is known to be wrong by a constant.
/// #[derive(Debug)]
/// struct Corrected {
///     system: SystemClock,
///     behind: Duration,
/// }
///
/// impl Clock for Corrected {
///     fn now(&self) -> SystemTime {
///         self.system.now() + self.behind
///     }
///     fn elapsed(&self) -> Duration {
///         self.system.elapsed()
///     }
/// }
///
/// let clock = Corrected { system: SystemClock::default(), behind: Duration::from_secs(90) };
/// let builder = Auth::builder().clock(clock);
/// ```
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the wall-clock time. `exp`, `nbf` and `iat` are compared with it.
    fn now(&self) -> SystemTime;

    /// Returns the time since a fixed moment. It is monotonic. Lifetimes and back-off use it, because they
    /// must not jump when the wall clock is set.
    fn elapsed(&self) -> Duration;

    /// Waits until the wall clock shows `at` or a later time. Returns immediately if it already does.
    ///
    /// The default sleeps in real time, at most one minute at a time, and then looks at the clock again, because
    /// it may have been set. A clock that a test moves should return when it is moved far enough. Outside a
    /// tokio runtime there is no timer, so the default returns immediately.
    async fn sleep_until(&self, at: SystemTime) {
        while tokio::runtime::Handle::try_current().is_ok()
            && let Ok(remaining) = at.duration_since(self.now())
            && !remaining.is_zero()
        {
            sleep(remaining.min(MAX_SLEEP)).await;
        }
    }
}

/// The longest sleep of [`Clock::sleep_until`]. A wall clock that is set forwards is noticed after it.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// The clock of the operating system. All instances in a process share one origin, so `elapsed` values of
/// two instances can be compared.
///
/// ```
/// use scaikey_auth::clock::{Clock, SystemClock};
///
/// let begin = SystemClock::default().elapsed();
/// let end = SystemClock::default().elapsed();
/// assert!(end >= begin);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: Instant,
}

static SHARED: LazyLock<SystemClock> = LazyLock::new(|| SystemClock { origin: Instant::now() });

impl Default for SystemClock {
    fn default() -> Self {
        *SHARED
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

/// Returns the seconds since the Unix epoch, or 0 for an earlier time.
pub(crate) fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the seconds since the Unix epoch with their fraction, for comparison with a NumericDate.
pub(crate) fn unix_time(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Runs `work` for at most `limit` of real time. After that, drops it and returns `None`. The [`Clock`] does
/// not apply, because a slow peer is slow in real time. Outside a tokio runtime there is no timer, so there is
/// no limit; no peer is called there either.
pub(crate) async fn with_timeout<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::time::timeout(limit, work).await.ok(),
        Err(_) => Some(work.await),
    }
}

/// The timeout of a check that the service supplies, [in real time](with_timeout). A shorter timeout would
/// treat a slow store as failed; a longer one would keep callers waiting while the store hangs.
/// [`CachedTenants::timeout`](crate::tenant::CachedTenants::deadline) has the same default.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Sleeps for `period` of real time. Outside a tokio runtime, returns immediately.
pub(crate) async fn sleep(period: Duration) {
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::time::sleep(period).await;
    }
}

/// Returns `period`, made longer or shorter by a random fraction of up to `share`, so that processes that
/// started together do not all call their provider at the same time.
pub(crate) fn jittered(period: Duration, share: f64) -> Duration {
    period.mul_f64(1.0 + share * (2.0 * random_fraction() - 1.0))
}

/// Returns a random number in `0.0..1.0`. Spreading load needs no cryptographic randomness, so the seed of a
/// std hasher is enough.
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
