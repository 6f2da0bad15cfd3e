//! [`ManualClock`]: a clock that a test moves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::clock::{Clock, SystemClock};

/// A [`Clock`] that stands still until the test moves it (feature `testing`).
///
/// Clones share their time: give one to the provider and one to the code under test, and move a
/// third. Timeouts of network requests still use real time.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use scaikey_auth::testing::{ManualClock, Provider};
/// use scaikey_auth::{Auth, IssuerConfig};
///
/// let clock = ManualClock::new();
/// let provider = Provider::builder().clock(clock.clone()).start().await;
/// let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
/// let auth = Auth::builder().issuer(issuer).audience("scaiwave").clock(clock.clone()).build()?;
///
/// let token = provider.token().sign();
/// assert!(auth.authenticate(&token).await.is_ok());
/// clock.advance(Duration::from_secs(2 * 3600)); // no test has to sleep
/// assert!(auth.authenticate(&token).await.is_err());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<Mutex<Time>>,
    moved: Arc<Notify>,
}

#[derive(Debug)]
struct Time {
    wall: SystemTime,
    elapsed: Duration,
}

impl ManualClock {
    /// Creates a clock that shows the current system time.
    pub fn new() -> Self {
        Self::at(SystemClock::default().now())
    }

    /// Creates a clock that shows `wall`.
    pub fn at(wall: SystemTime) -> Self {
        let time = Arc::new(Mutex::new(Time { wall, elapsed: Duration::ZERO }));
        Self { time, moved: Arc::default() }
    }

    /// Moves the wall clock and the monotonic clock forwards by `period`.
    pub fn advance(&self, period: Duration) {
        let mut time = self.lock();
        time.wall += period;
        time.elapsed += period;
        self.moved.notify_waiters();
    }

    /// Sets only the wall clock, forwards or back, as NTP does. The monotonic clock does not
    /// change.
    pub fn set_wall(&self, wall: SystemTime) {
        self.lock().wall = wall;
        self.moved.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.lock().wall
    }

    fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }

    async fn sleep_until(&self, at: SystemTime) {
        loop {
            // Created before the clock is read, so that no move is missed.
            let moved = self.moved.notified();
            if self.now() >= at {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleep_ends_when_the_clock_is_moved() {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        let sleeping = clock.clone();
        let sleep = tokio::spawn(async move { sleeping.sleep_until(at).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleep.is_finished());
        clock.set_wall(at);
        sleep.await.unwrap();
        clock.sleep_until(at).await;
    }

    #[test]
    fn only_advance_moves_both_clocks() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_935_867);
        let clock = ManualClock::at(start);
        let shared = clock.clone();
        shared.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), start + Duration::from_secs(5));
        assert_eq!(clock.elapsed(), Duration::from_secs(5));
        shared.set_wall(start);
        assert_eq!((clock.now(), clock.elapsed()), (start, Duration::from_secs(5)));
    }
}
