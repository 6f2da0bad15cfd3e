//! Where the crate asks for the time: [`Clock`], and nowhere else.

use std::fmt::Debug;
use std::future::Future;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A source of time.
///
/// [`SystemClock`] is the default. `testing::ManualClock` (feature `testing`) stands still until
/// it is told to move, so that expiry, rotation and back-off can be tested without sleeping.
///
/// A clock that runs slow accepts expired tokens; one that runs fast refuses good ones.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall-clock time that `exp`, `nbf` and `iat` are compared with.
    fn now(&self) -> SystemTime;

    /// Time since some fixed moment, never going back: for life times and back-off, which must
    /// not jump when somebody sets the wall clock.
    fn elapsed(&self) -> Duration;

    /// [`now`](Self::now) and [`elapsed`](Self::elapsed) together and as cheaply as can be: what every
    /// request asks for. By default, one after the other. [`SystemClock`] takes up to a second to notice
    /// that somebody set the wall clock.
    fn coarse(&self) -> (SystemTime, Duration) {
        (self.now(), self.elapsed())
    }
}

/// The operating system's clocks. All of them in a process agree: what was put into a cache under
/// one is as old under another.
///
/// What it says of time elapsed lags by up to a tick of the system (1 to 16 ms): the clock that is
/// exact takes 30 ns to read, a twelfth of a request whose token is known, and the coarse one 6. On
/// systems other than Linux, Android, macOS, FreeBSD, DragonFly and Windows it is the exact one.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    origin: coarsetime::Instant,
    exact_origin: Instant,
}

/// Elsewhere, what `coarsetime` reads may go back.
const COARSE_NEVER_GOES_BACK: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd",
    target_os = "dragonfly",
    windows
));

static FIRST: LazyLock<SystemClock> =
    LazyLock::new(|| SystemClock { origin: coarse_now(), exact_origin: Instant::now() });

/// When it was that the origin was, by the wall clock, in nanoseconds since 1970.
static ORIGIN_BY_WALL: AtomicU64 = AtomicU64::new(0);

/// When the two clocks are to be compared again, in nanoseconds since the origin.
static NEXT_COMPARED: AtomicU64 = AtomicU64::new(0);

const SECOND: u64 = 1_000_000_000;

impl Default for SystemClock {
    fn default() -> Self {
        *FIRST
    }
}

impl SystemClock {
    /// Since the origin.
    fn nanos(&self) -> u64 {
        if COARSE_NEVER_GOES_BACK {
            coarse_now().duration_since(self.origin).as_nanos()
        } else {
            u64::try_from(self.exact_origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
        }
    }
}

/// Without leaving the time behind for others, where threads would contend for it.
fn coarse_now() -> coarsetime::Instant {
    coarsetime::Instant::now_without_cache_update()
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanos())
    }

    fn coarse(&self) -> (SystemTime, Duration) {
        let elapsed = self.nanos();
        if elapsed >= NEXT_COMPARED.load(Ordering::Acquire) {
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
            ORIGIN_BY_WALL.store(wall.saturating_sub(elapsed), Ordering::Relaxed);
            NEXT_COMPARED.store(elapsed.saturating_add(SECOND), Ordering::Release);
        }
        let wall = ORIGIN_BY_WALL.load(Ordering::Relaxed).saturating_add(elapsed);
        (SystemTime::UNIX_EPOCH + Duration::from_nanos(wall), Duration::from_nanos(elapsed))
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

/// "Full jitter" back-off: a random part of `base · 2^failures`, at most `cap`, at least `base / 2`.
pub(crate) fn backoff(base: Duration, cap: Duration, failures: u32) -> Duration {
    let ceiling = base.saturating_mul(1 << failures.min(16)).min(cap);
    ceiling.mul_f64(random_fraction()).max(base / 2)
}

/// A number in `0.0..1.0`. Spreading load needs no cryptographic randomness, so the hasher's
/// per-instance seed will do.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0_u8) >> 11;
    random as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_system_clocks_agree() {
        let (first, begun) = (SystemClock::default(), Instant::now());
        // Longer than a tick.
        while begun.elapsed() < Duration::from_millis(40) {}
        let before = first.elapsed();
        let second = SystemClock::default();
        assert!(before >= Duration::from_millis(20) && second.elapsed() >= before);
    }

    #[test]
    fn the_clocks_read_together_are_those_read_one_by_one() {
        let clock = SystemClock::default();
        for _ in 0..3 {
            let (from, to) = ((clock.now(), clock.elapsed()), clock.coarse());
            let (now, elapsed) = (clock.now(), clock.elapsed());
            let slack = Duration::from_millis(100);
            assert!((from.1..=elapsed).contains(&to.1));
            assert!((from.0 - slack..=now + slack).contains(&to.0));
        }
    }

    #[test]
    fn jitter_and_backoff_stay_within_their_bounds() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_secs(60));
        for failures in 0..100 {
            let wait = backoff(base, cap, failures);
            assert!(wait >= base / 2 && wait <= cap, "{wait:?} after {failures} failures");
            let spread = jittered(cap, 0.1);
            assert!(spread >= cap.mul_f64(0.9) && spread <= cap.mul_f64(1.1), "{spread:?}");
        }
    }
}
