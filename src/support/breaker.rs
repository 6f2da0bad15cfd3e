//! [`Breakers`]: circuit breakers of a provider's endpoints, for one grant or for all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

use crate::clock::Clock;
use crate::support::bounded::{Bounded, bounded};
use crate::support::retry::{Backoff, Failures};
use crate::support::telemetry::Outage;

/// The time after which a running probe no longer blocks the next one. A probe that is dropped ends
/// immediately.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum number of breakers. There is one for each endpoint, and each tenant may have its own
/// endpoint. The breaker of an evicted endpoint starts closed.
const MAX_ENDPOINTS: usize = 1_000;

/// The label in logs for a failure that affects all grants of an endpoint.
pub(crate) const ALL_GRANTS: &str = "all";

/// The breaker of each endpoint, by URL.
#[derive(Debug)]
pub(crate) struct Breakers(Bounded<String, Arc<Breaker>, RandomState>);

impl Default for Breakers {
    fn default() -> Self {
        Self(bounded(MAX_ENDPOINTS))
    }
}

impl Breakers {
    pub(crate) fn of(&self, url: &str) -> Arc<Breaker> {
        let Ok(breaker) = self.0.get_or_insert_with(url, || Ok::<_, Infallible>(Arc::default()));
        breaker
    }
}

/// How far a request got before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Client authentication failed, so no connection was attempted.
    NotAuthenticated,
    /// The connection failed.
    NotConnected,
    /// The request timed out, or the connection broke. The provider may have received it.
    NoAnswer,
    /// The provider answered with this status.
    Answered(StatusCode),
}

impl Delivery {
    /// Returns whether a failure counts for all grants: the connection failed, or the gateway in front
    /// of the endpoint answered (502, 503, 504). A caller cannot provoke these. A caller can provoke
    /// other failures (429, 500, a timeout), so they count for one grant only, and for none if the
    /// credential came from an anonymous caller.
    pub(crate) fn is_endpoint_failure(self) -> bool {
        match self {
            Self::NotConnected => true,
            Self::Answered(status) => matches!(status.as_u16(), 502..=504),
            Self::NotAuthenticated | Self::NoAnswer => false,
        }
    }
}

/// The circuit breaker of one endpoint, with a state for the whole endpoint and one for each grant.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    states: Mutex<States>,
    /// The logged outages, by label: a grant, [`ALL_GRANTS`], or another kind of request.
    outages: Mutex<HashMap<&'static str, Arc<Outage>>>,
}

#[derive(Debug, Default)]
struct States {
    whole: State,
    /// By the name of the grant.
    grants: HashMap<&'static str, State>,
}

/// Closed, or open until `retry_at`. A running probe moves `retry_at`, so that other callers wait.
#[derive(Debug, Default)]
struct State(Failures);

/// A change of the breaker's state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    None,
    /// No requests are sent for this long: those of the grant, or all requests ([`ALL_GRANTS`]).
    Opened(&'static str, Duration),
    Closed,
}

/// Permission to send one request. Dropping it before [`record`](Self::record) ends its probe, so that
/// the next caller may probe.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    clock: Arc<dyn Clock>,
    /// The grant whose failures count, or `None` if only failures of the whole endpoint count.
    grant: Option<&'static str>,
    /// The deadline of the probe, which identifies it if this request is a probe.
    probe_until: Duration,
    is_recorded: bool,
}

impl Permit {
    /// Records the outcome of the request. `failed` has the `Retry-After` of a failure that counts.
    pub(crate) fn record(
        mut self,
        delivery: Delivery,
        failed: Option<Option<Duration>>,
    ) -> Transition {
        self.is_recorded = true;
        let now = self.clock.elapsed();
        let mut states = self.breaker.states();
        let States { whole, grants } = &mut *states;
        let mut unused = State::default();
        let own = self.grant.map_or(&mut unused, |grant| grants.entry(grant).or_default());
        match (delivery, failed) {
            (Delivery::NotAuthenticated, _) => {
                whole.end_probe(self.probe_until, now);
                own.end_probe(self.probe_until, now);
                Transition::None
            }
            (delivery, Some(retry_after)) if delivery.is_endpoint_failure() => {
                own.end_probe(self.probe_until, now);
                whole
                    .fail(self.probe_until, retry_after, now)
                    .map_or(Transition::None, |pause| Transition::Opened(ALL_GRANTS, pause))
            }
            (delivery, Some(retry_after)) => {
                whole.end_probe(self.probe_until, now);
                let was_open = matches!(delivery, Delivery::Answered(_)) && whole.close();
                match (own.fail(self.probe_until, retry_after, now), self.grant) {
                    (Some(pause), Some(grant)) => Transition::Opened(grant, pause),
                    _ => closed_if(was_open),
                }
            }
            (_, None) => closed_if(whole.close() | own.close()),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_recorded {
            return;
        }
        let now = self.clock.elapsed();
        let mut states = self.breaker.states();
        states.whole.end_probe(self.probe_until, now);
        if let Some(own) = self.grant.and_then(|grant| states.grants.get_mut(grant)) {
            own.end_probe(self.probe_until, now);
        }
    }
}

impl Breaker {
    /// Permits a request of this grant, unless the breaker is open; then returns the wait. For credentials
    /// of anonymous callers, `grant` is `None`, so that one caller with invented credentials cannot open the
    /// breaker for all.
    pub(crate) fn permit(
        self: &Arc<Self>,
        grant: Option<&'static str>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Permit, Duration> {
        let now = clock.elapsed();
        let mut states = self.states();
        let States { whole, grants } = &mut *states;
        let mut unused = State::default();
        let own = grant.map_or(&mut unused, |grant| grants.entry(grant).or_default());
        let open_until = whole.0.retry_at.max(own.0.retry_at);
        if now < open_until {
            return Err(open_until - now);
        }
        // If the breaker is open, this request is its probe. Other callers wait for its outcome.
        let probe_until = now + PROBE_TIMEOUT;
        for state in [whole, own].into_iter().filter(|state| state.is_open()) {
            state.0.retry_at = probe_until;
        }
        drop(states);
        let (breaker, clock) = (self.clone(), clock.clone());
        Ok(Permit { breaker, clock, grant, probe_until, is_recorded: false })
    }

    /// Returns the logged outage of this grant, or of [`ALL_GRANTS`].
    pub(crate) fn outage(&self, grant: &'static str) -> Arc<Outage> {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.entry(grant).or_default().clone()
    }

    fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed_if(was_open: bool) -> Transition {
    if was_open { Transition::Closed } else { Transition::None }
}

impl State {
    /// Returns whether the breaker has opened and no request has succeeded since.
    fn is_open(&self) -> bool {
        self.0.are_too_many(Backoff::ENDPOINT)
    }

    /// Closes the breaker and returns whether it was open.
    fn close(&mut self) -> bool {
        std::mem::take(self).is_open()
    }

    /// Ends the probe with the deadline `probe_until`, so that the next caller may probe. If a backoff
    /// has begun in the meantime, it stays.
    fn end_probe(&mut self, probe_until: Duration, now: Duration) {
        if self.0.retry_at == probe_until {
            self.0.retry_at = now;
        }
    }

    /// Ends the probe and counts a failure. Returns the backoff if this failure opened the breaker.
    fn fail(
        &mut self,
        probe_until: Duration,
        retry_after: Option<Duration>,
        now: Duration,
    ) -> Option<Duration> {
        self.end_probe(probe_until, now);
        let was_open = self.is_open();
        let pause = self.0.add(Backoff::ENDPOINT, retry_after, now);
        (!was_open && self.is_open()).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const OK: StatusCode = StatusCode::OK;

    #[derive(Debug)]
    struct FixedClock(u64);

    impl Clock for FixedClock {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            seconds(self.0)
        }
    }

    fn failed(retry_after: Option<u64>) -> Option<Option<Duration>> {
        Some(retry_after.map(Duration::from_secs))
    }

    fn status(status: u16) -> Delivery {
        Delivery::Answered(StatusCode::from_u16(status).unwrap())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A breaker whose methods take the time in seconds.
    struct TestBreaker(Arc<Breaker>);

    impl TestBreaker {
        fn new() -> Self {
            Self(Arc::default())
        }

        fn permit(&self, grant: &'static str, now: u64) -> Option<Permit> {
            self.permit_of(Some(grant), now)
        }

        fn permit_of(&self, grant: Option<&'static str>, now: u64) -> Option<Permit> {
            let clock: Arc<dyn Clock> = Arc::new(FixedClock(now));
            self.0.permit(grant, &clock).ok()
        }

        /// Returns whether a request is permitted. The request is never sent.
        fn permits(&self, grant: &'static str, now: u64) -> bool {
            self.permit(grant, now).is_some()
        }

        /// Runs a request that starts and ends at `now`.
        fn run(
            &self,
            grant: &'static str,
            delivery: Delivery,
            failed: Option<Option<Duration>>,
            now: u64,
        ) -> Transition {
            self.permit(grant, now).expect("the request is permitted").record(delivery, failed)
        }
    }

    #[test]
    fn breaker_opens_probes_and_closes() {
        let breaker = TestBreaker::new();
        for failure in 1..=2 {
            let change = breaker.run("refresh", status(500), failed(None), 0);
            assert_eq!(change, Transition::None, "{failure}");
        }
        let change = breaker.run("refresh", status(500), failed(None), 0);
        assert!(matches!(change, Transition::Opened("refresh", _)));
        assert!(!breaker.permits("refresh", 0));
        let probe = breaker.permit("refresh", 61).unwrap();
        assert!(!breaker.permits("refresh", 61));
        assert_eq!(probe.record(Delivery::Answered(OK), None), Transition::Closed);
        let first = breaker.permit("refresh", 61);
        assert!(first.is_some() && breaker.permits("refresh", 61));
    }

    #[test]
    fn retry_after_is_capped_at_one_minute() {
        for (retry_after, waits) in [(7, 7), (3600, 60)] {
            let breaker = TestBreaker::new();
            let opened = breaker.run("password", status(429), failed(Some(retry_after)), 0);
            assert_eq!(opened, Transition::Opened("password", seconds(waits)));
            assert!(!breaker.permits("password", waits - 1));
            assert!(breaker.permits("password", waits));
        }
    }

    #[test]
    fn refusal_closes_and_silent_probe_times_out() {
        let breaker = TestBreaker::new();
        let _ = breaker.run("code", status(429), failed(Some(1)), 0);
        let silent = breaker.permit("code", 1).unwrap();
        assert!(!breaker.permits("code", 30));
        let second = breaker.permit("code", 31).unwrap();
        drop(silent);
        assert!(!breaker.permits("code", 31), "the first probe has timed out");
        assert_eq!(second.record(Delivery::Answered(OK), None), Transition::Closed);
    }

    #[test]
    fn dropped_probe_ends_immediately() {
        for code in [429, 503] {
            let breaker = TestBreaker::new();
            let _ = breaker.run("code", status(code), failed(Some(1)), 0);
            let probe = breaker.permit("code", 1).unwrap();
            assert!(!breaker.permits("code", 1), "{code}");
            drop(probe);
            assert!(breaker.permits("code", 1), "{code}");
        }
        // A request that began before the failure is no probe: its end does not shorten the backoff.
        let breaker = TestBreaker::new();
        let early = breaker.permit("code", 0).unwrap();
        let _ = breaker.run("code", status(429), failed(Some(60)), 0);
        drop(early);
        assert!(!breaker.permits("code", 59));
    }

    #[test]
    fn provoked_failure_counts_for_one_grant() {
        for delivery in [429, 500, 501].map(status) {
            let breaker = TestBreaker::new();
            let _ = breaker.run("password", delivery, failed(Some(60)), 0);
            assert!(!breaker.permits("password", 0), "{delivery:?}");
            assert!(breaker.permits("exchange", 0), "{delivery:?}");
        }
        let breaker = TestBreaker::new();
        for _ in 0..3 {
            let _ = breaker.run("password", Delivery::NoAnswer, failed(None), 0);
        }
        assert!(!breaker.permits("password", 0) && breaker.permits("exchange", 0));
    }

    #[test]
    fn anonymous_failure_counts_for_no_grant() {
        let breaker = TestBreaker::new();
        for delivery in [status(429), status(500), Delivery::NoAnswer] {
            for _ in 0..9 {
                let permit = breaker.permit_of(None, 0).unwrap();
                assert_eq!(
                    permit.record(delivery, failed(Some(60))),
                    Transition::None,
                    "{delivery:?}"
                );
            }
        }
        assert!(breaker.permits("refresh", 0));
        // Failures of the whole endpoint count.
        let _ = breaker.permit_of(None, 0).unwrap().record(status(503), failed(Some(60)));
        assert!(!breaker.permits("refresh", 0) && breaker.permit_of(None, 0).is_none());
    }

    #[test]
    fn endpoint_failure_counts_for_all_grants() {
        for delivery in [Delivery::NotConnected, status(502), status(503), status(504)] {
            let breaker = TestBreaker::new();
            for grant in ["password", "exchange", "refresh"] {
                let _ = breaker.run(grant, delivery, failed(None), 0);
            }
            assert!(!breaker.permits("code", 0), "{delivery:?}");
            // One request of any grant is the probe, and the others wait for it.
            let probe = breaker.permit("code", 2).unwrap();
            assert!(!breaker.permits("exchange", 2), "{delivery:?}");
            let change = probe.record(Delivery::Answered(OK), None);
            assert_eq!(change, Transition::Closed);
            assert!(breaker.permits("exchange", 2), "{delivery:?}");
        }
    }

    #[test]
    fn unsent_probe_ends_immediately() {
        let breaker = TestBreaker::new();
        let _ = breaker.run("exchange", status(503), failed(Some(1)), 0);
        let probe = breaker.permit("exchange", 1).unwrap();
        assert!(!breaker.permits("exchange", 1));
        assert_eq!(probe.record(Delivery::NotAuthenticated, None), Transition::None);
        let probe = breaker.permit("exchange", 1);
        assert!(probe.is_some() && !breaker.permits("exchange", 1), "still open");
    }

    #[test]
    fn probe_ends_when_retry_after_is_zero() {
        for (grant, code) in [("exchange", 503), ("refresh", 429)] {
            let breaker = TestBreaker::new();
            let _ = breaker.run(grant, status(code), failed(Some(1)), 0);
            let probe = breaker.permit(grant, 1).unwrap();
            let _ = probe.record(status(code), failed(Some(0)));
            let waits = (1..100).find(|now| breaker.permits(grant, *now));
            assert_eq!(waits, Some(1), "{code}");
        }
    }
}
