//! [`ManualClock`]: time that moves when a test says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::{Clock, SystemClock};

/// A [`Clock`] that stands still until it is moved (feature `testing`).
///
/// Clones share their time: give one to the provider and one to the code under test, keep a third
/// to move them. Real deadlines (a request that hangs) are not subject to it; those pass in real
/// time whatever the clock says.
#[derive(Debug, Clone)]
pub struct ManualClock {
    time: Arc<Mutex<Time>>,
}

#[derive(Debug)]
struct Time {
    wall: SystemTime,
    elapsed: Duration,
}

impl ManualClock {
    /// Stands at the present moment of the system's clock.
    pub fn new() -> Self {
        Self::at(SystemClock::default().now())
    }

    /// Stands at `wall`.
    pub fn at(wall: SystemTime) -> Self {
        Self { time: Arc::new(Mutex::new(Time { wall, elapsed: Duration::ZERO })) }
    }

    /// Lets `period` pass, on the wall clock and on the monotonic one.
    pub fn advance(&self, period: Duration) {
        let mut time = self.lock();
        time.wall += period;
        time.elapsed += period;
    }

    /// Sets the wall clock alone, forwards or back, as an operator or NTP does. No time passes.
    pub fn set_wall(&self, wall: SystemTime) {
        self.lock().wall = wall;
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

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.lock().wall
    }

    fn elapsed(&self) -> Duration {
        self.lock().elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_time_and_only_advance_moves_both_clocks() {
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
