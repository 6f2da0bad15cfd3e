//! Retries and rate limits: [`Backoff`] after failures, [`TokenBucket`] before attempts, and their settings.

use std::time::Duration;

use crate::clock::random_fraction;

/// The longest period of a [`Rate`], so that sums of durations do not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The waits after consecutive failures. They are random, so that processes that failed together do not retry
/// together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// The number of consecutive failures without a wait.
    failures_without_wait: u32,
    base: Duration,
    pub(crate) cap: Duration,
}

impl Backoff {
    /// For key sets, metadata and renewals of tokens. A provider restarts within seconds; during an outage of
    /// hours each process sends one request a minute.
    pub(crate) const PROVIDER: Self = Self::new(0, 1_000, 60_000);
    /// For renewals of a session's tokens. The user is active and needs the next token before the current one
    /// expires.
    pub(crate) const SESSION: Self = Self::new(0, 1_000, 30_000);
    /// For token endpoints. Unlike [`PROVIDER`](Self::PROVIDER) it allows two failures without a wait, because
    /// users sign in there.
    pub(crate) const ENDPOINT: Self = Self::new(2, 1_000, 60_000);
    /// For Redis and tenant stores. They are in the same network as the service, and a failover takes a few
    /// seconds.
    pub(crate) const STORE: Self = Self::new(0, 250, 5_000);
    /// For the second attempt of one token request. It is short, because the caller waits.
    pub(crate) const REPEAT: Self = Self::new(0, 100, 200);

    const fn new(failures_without_wait: u32, base: u64, cap: u64) -> Self {
        Self {
            failures_without_wait,
            base: Duration::from_millis(base),
            cap: Duration::from_millis(cap),
        }
    }

    /// Returns the wait after a failure that followed `failures` others. It is zero for the first
    /// `failures_without_wait` failures. Then it is a random part of `base`, doubled for each further
    /// failure: at least `base / 2` and at most `cap`.
    pub(crate) fn wait(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(self.failures_without_wait) else {
            return Duration::ZERO;
        };
        let ceiling = self.base.saturating_mul(1 << doublings.min(16)).min(self.cap);
        ceiling.mul_f64(random_fraction()).max(self.base / 2)
    }
}

/// The number of consecutive failures, and the time of the next attempt.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    pub(crate) retry_at: Duration,
}

impl Failures {
    /// Counts a failure and returns the wait after it. `Retry-After` is obeyed from the first failure on, up
    /// to the cap.
    pub(crate) fn add(
        &mut self,
        backoff: Backoff,
        retry_after: Option<Duration>,
        now: Duration,
    ) -> Duration {
        if retry_after.is_some() {
            self.count = self.count.max(backoff.failures_without_wait);
        }
        let wait = retry_after.map_or_else(|| backoff.wait(self.count), |it| it.min(backoff.cap));
        self.count = self.count.saturating_add(1);
        // Without a wait, `retry_at` must not block a caller that read the clock a moment earlier.
        if !wait.is_zero() {
            self.retry_at = now + wait;
        }
        wait
    }

    /// Returns whether there were more failures than are allowed without a wait. A failure with `Retry-After`
    /// always counts as one too many.
    pub(crate) fn are_too_many(&self, backoff: Backoff) -> bool {
        self.count > backoff.failures_without_wait
    }
}

/// A rate limit: `burst` times immediately, then once per period.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    burst: u32,
    pub(crate) period: Duration,
}

impl Rate {
    /// The burst of key-set fetches for unknown key ids; their period is configured. It allows two rotations in a
    /// row.
    pub(crate) const EXTRA_FETCH_BURST: u32 = 2;
    /// For fetches of all key sets and metadata of one template. They allow 20 fetches immediately, and then
    /// 2 per second.
    pub(crate) const TEMPLATE: Self = Self::new(20, Duration::from_millis(500));
    /// For fetching the issuers of tenants that an attacker may have invented. After a start, 200 tenants
    /// need not wait.
    pub(crate) const OPENING: Self = Self::new(200, Duration::from_millis(50));
    /// For attempts from one address. It is high enough for an office behind NAT.
    pub(crate) const ADDRESS: Self = Self::new(60, Duration::from_secs(1));
    /// For attempts on one account. It allows typing errors, and 2,880 guesses a day.
    pub(crate) const ACCOUNT: Self = Self::new(10, Duration::from_secs(30));
    /// For introspections by one caller. It allows a service that introspects for each of its requests.
    pub(crate) const INTROSPECTION: Self = Self::new(1000, Duration::from_millis(10));
    /// For requests of one administrator that check or change a policy. It allows the checks while they type.
    pub(crate) const ADMINISTRATION: Self = Self::new(120, Duration::from_millis(500));

    pub(crate) const fn new(burst: u32, period: Duration) -> Self {
        // `Ord::min` cannot be called in a const fn.
        let period = if period.as_secs() < LONGEST.as_secs() { period } else { LONGEST };
        Self { burst: if burst == 0 { 1 } else { burst }, period }
    }
}

/// A token bucket, initially full. Its only state is the time at which it will be full again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenBucket {
    full_at: Duration,
}

impl TokenBucket {
    /// Takes a token, or returns the wait until the next one.
    pub(crate) fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now).saturating_add(rate.period);
        let limit = now.saturating_add(rate.period.saturating_mul(rate.burst));
        match full_at.checked_sub(limit) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }

    /// Gives a taken token back.
    pub(crate) fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.saturating_sub(rate.period);
    }

    /// Returns whether [`take`](Self::take) would succeed.
    pub(crate) fn has_one(mut self, rate: Rate, now: Duration) -> bool {
        self.take(rate, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failure_below_the_threshold_sets_no_wait() {
        let (backoff, now) = (Backoff::new(2, 1000, 60_000), Duration::from_secs(10));
        let mut failures = Failures::default();
        for _ in 0..2 {
            assert_eq!(failures.add(backoff, None, now), Duration::ZERO);
            assert_eq!(failures.retry_at, Duration::ZERO);
        }
        assert!(failures.add(backoff, None, now) > Duration::ZERO && failures.retry_at > now);
    }

    #[test]
    fn waits_stay_within_their_bounds() {
        for backoff in [Backoff::PROVIDER, Backoff::ENDPOINT, Backoff::STORE, Backoff::REPEAT] {
            for failures in 0..100 {
                let wait = backoff.wait(failures);
                let (least, most) = match failures < backoff.failures_without_wait {
                    true => (Duration::ZERO, Duration::ZERO),
                    false => (backoff.base / 2, backoff.cap),
                };
                assert!(least <= wait && wait <= most, "{wait:?} after {failures} failures");
            }
        }
    }

    #[test]
    fn first_wait_is_at_most_the_base() {
        assert!((0..100).all(|_| Backoff::PROVIDER.wait(0) <= SECOND));
        assert!((0..1000).any(|_| Backoff::PROVIDER.wait(20) > SECOND * 30));
    }

    #[test]
    fn retry_after_is_obeyed_up_to_cap() {
        for (asked, waits, until) in [(7, 7, 8), (3600, 60, 61), (0, 0, 0)] {
            let mut failures = Failures::default();
            let wait = failures.add(Backoff::ENDPOINT, Some(SECOND * asked), SECOND);
            assert_eq!((wait, failures.retry_at), (SECOND * waits, SECOND * until));
            assert!(failures.are_too_many(Backoff::ENDPOINT));
        }
        let mut failures = Failures::default();
        for expected in [false, false, true, true] {
            let wait = failures.add(Backoff::ENDPOINT, None, SECOND);
            assert_eq!(
                (!wait.is_zero(), failures.are_too_many(Backoff::ENDPOINT)),
                (expected, expected)
            );
        }
    }

    #[test]
    fn bucket_refills_once_per_period() {
        let rate = Rate::new(2, SECOND);
        let mut bucket = TokenBucket::default();
        let mut took = |halves: u32| {
            let now = SECOND + SECOND / 2 * halves;
            (0..10)
                .filter(|_| {
                    let has_one = bucket.has_one(rate, now);
                    assert_eq!(bucket.take(rate, now).is_ok(), has_one);
                    has_one
                })
                .count()
        };
        for (halves, expected) in [(0, 2), (1, 0), (2, 1), (3, 0), (100, 2), (99, 0), (101, 0)] {
            assert_eq!(took(halves), expected, "after {halves} half seconds");
        }
    }

    #[test]
    fn token_given_back_can_be_taken() {
        let (rate, mut bucket) = (Rate::new(2, SECOND), TokenBucket::default());
        for _ in 0..100 {
            assert!(bucket.take(rate, SECOND).is_ok());
            bucket.give_back(rate);
        }
        assert_eq!((0..10).filter(|_| bucket.take(rate, SECOND).is_ok()).count(), 2);
    }

    #[test]
    fn extreme_rates_keep_their_burst() {
        for period in [Duration::MAX, LONGEST, SECOND] {
            let mut bucket = TokenBucket::default();
            let took = |_: &u32| bucket.take(Rate::new(3, period), SECOND).is_ok();
            assert_eq!((0..10).filter(took).count(), 3, "{period:?}");
        }
        let mut bucket = TokenBucket::default();
        let never_empty = |_| bucket.take(Rate::new(1, Duration::ZERO), SECOND).is_ok();
        assert!((0..10).all(never_empty));
        assert_eq!(TokenBucket::default().take(Rate::new(0, SECOND), SECOND), Ok(()));
    }
}
