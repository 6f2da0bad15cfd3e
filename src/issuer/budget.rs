//! [`Budget`]: how often something may happen, with a burst.

use std::time::Duration;

/// A token bucket: full at first, charged at each attempt, earning one after each `every`.
#[derive(Debug)]
pub(crate) struct Budget {
    burst: f64,
    every: Duration,
    left: f64,
    counted_at: Duration,
}

impl Budget {
    pub(crate) fn new(burst: f64, every: Duration, now: Duration) -> Self {
        Self { burst, every, left: burst, counted_at: now }
    }

    /// Whether it may happen now.
    pub(crate) fn has_left(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.counted_at).div_duration_f64(self.every);
        self.left = (self.left + earned).min(self.burst);
        self.counted_at = self.counted_at.max(now);
        self.left >= 1.0
    }

    /// Whether it may happen now; if so, it is charged.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let may = self.has_left(now);
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_one_is_earned_in_each_period_and_no_more_than_the_burst() {
        let second = Duration::from_secs(1);
        let mut budget = Budget::new(2.0, second, second);
        let mut took = |halves: u32| {
            let now = second + second / 2 * halves;
            (0..10).filter(|_| budget.take(now)).count()
        };
        for (halves, expected) in [(0, 2), (1, 0), (2, 1), (3, 0), (100, 2), (99, 0), (101, 0)] {
            assert_eq!(took(halves), expected, "after {halves} half seconds");
        }
    }
}
