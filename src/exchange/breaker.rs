//! [`Breakers`]: leaves a token endpoint alone that does not answer, for one grant or for all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

use super::ExchangeError;
use crate::clock::Clock;
use crate::support::bounded::{Bounded, bounded};
use crate::support::retry::{Backoff, Failures};
use crate::support::telemetry::Outage;

/// How long a trial may be under way before another one is allowed. One that is given up ends then
/// and there.
const TRIAL: Duration = Duration::from_secs(30);

/// So many endpoints are remembered: one, or one for each tenant. The breaker of an endpoint that is
/// forgotten begins closed.
const MAX_ENDPOINTS: usize = 1_000;

/// The name of all grants together.
pub(super) const ALL: &str = "all";

/// One breaker for each endpoint.
#[derive(Debug)]
pub(super) struct Breakers(Bounded<String, Arc<Breaker>, RandomState>);

impl Default for Breakers {
    fn default() -> Self {
        Self(bounded(MAX_ENDPOINTS))
    }
}

impl Breakers {
    pub(super) fn of(&self, url: &str) -> Arc<Breaker> {
        let Ok(breaker) = self.0.get_or_insert_with(url, || Ok::<_, Infallible>(Arc::default()));
        breaker
    }
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// It was not sent: the service cannot prove itself.
    Nothing,
    /// It was not sent: there is no connection.
    NoConnection,
    /// It was sent, or connecting took too long, and no answer came.
    NoAnswer,
    /// It was answered.
    Answer(StatusCode),
}

impl Reached {
    /// Whether a failure is one of the endpoint as a whole: no connection, or an answer of the
    /// gateway in front of it. A caller cannot provoke these. All other failures, 429, 500 and
    /// silence, may be due to what one caller sent, so they count for the grant alone, and not even
    /// for that where anybody can bring a made-up credential.
    pub(super) fn concerns_all(self) -> bool {
        match self {
            Self::NoConnection => true,
            Self::Answer(status) => matches!(status.as_u16(), 502..=504),
            Self::Nothing | Self::NoAnswer => false,
        }
    }
}

/// The state of one endpoint: as a whole, and for each grant.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    states: Mutex<States>,
    /// What the log was told.
    outages: Mutex<HashMap<&'static str, Arc<Outage>>>,
}

#[derive(Debug, Default)]
struct States {
    whole: State,
    /// By the name of the grant.
    grants: HashMap<&'static str, State>,
}

/// Closed, open until some moment, or waiting for the outcome of one trial until some moment.
#[derive(Debug, Default)]
struct State(Failures);

/// What the endpoint did, as the breaker sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It is not asked for this grant, or for [`ALL`], for this long.
    Opened(&'static str, Duration),
    /// It answers again.
    Closed,
}

/// Leave to send one request. Dropped before its end is noted, it gives its place back: its caller
/// went away, and the next one tries.
#[derive(Debug)]
pub(super) struct Permit {
    breaker: Arc<Breaker>,
    clock: Arc<dyn Clock>,
    /// `None`: only failures of the endpoint as a whole count.
    grant: Option<&'static str>,
    /// Until when others wait for this one, if it is a trial.
    trial: Duration,
    is_noted: bool,
}

impl Permit {
    /// Notes how the request ended.
    pub(super) fn note<T>(
        mut self,
        reached: Reached,
        outcome: &Result<T, ExchangeError>,
    ) -> Change {
        self.is_noted = true;
        let failed = match outcome {
            Err(ExchangeError::Unavailable { retry_after, .. }) => Some(*retry_after),
            _ => None,
        };
        let now = self.clock.elapsed();
        let mut states = self.breaker.states();
        let States { whole, grants } = &mut *states;
        let mut unnamed = State::default();
        let own = self.grant.map_or(&mut unnamed, |grant| grants.entry(grant).or_default());
        match (reached, failed) {
            (Reached::Nothing, _) => {
                whole.end_trial(self.trial, now);
                own.end_trial(self.trial, now);
                Change::None
            }
            (reached, Some(retry_after)) if reached.concerns_all() => {
                own.end_trial(self.trial, now);
                whole
                    .fail(self.trial, retry_after, now)
                    .map_or(Change::None, |pause| Change::Opened(ALL, pause))
            }
            (reached, Some(retry_after)) => {
                whole.end_trial(self.trial, now);
                let was_open = matches!(reached, Reached::Answer(_)) && whole.close();
                match (own.fail(self.trial, retry_after, now), self.grant) {
                    (Some(pause), Some(grant)) => Change::Opened(grant, pause),
                    _ => closed(was_open),
                }
            }
            (_, None) => closed(whole.close() | own.close()),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_noted {
            return;
        }
        let now = self.clock.elapsed();
        let mut states = self.breaker.states();
        states.whole.end_trial(self.trial, now);
        if let Some(own) = self.grant.and_then(|grant| states.grants.get_mut(grant)) {
            own.end_trial(self.trial, now);
        }
    }
}

impl Breaker {
    /// Leave to ask the endpoint for this grant now. Without a grant, only failures of the endpoint
    /// as a whole stand in the way: for credentials that anybody may bring, or one caller with
    /// made-up ones would stop everybody.
    pub(super) fn permit(
        self: &Arc<Self>,
        grant: Option<&'static str>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Permit, ExchangeError> {
        let now = clock.elapsed();
        let mut states = self.states();
        let States { whole, grants } = &mut *states;
        let mut unnamed = State::default();
        let own = grant.map_or(&mut unnamed, |grant| grants.entry(grant).or_default());
        let closed_until = whole.0.retry_at.max(own.0.retry_at);
        if now < closed_until {
            let why = "it failed before and is not asked for a while";
            return Err(ExchangeError::unavailable(Some(closed_until - now), why));
        }
        // One caller tries; the others wait for the outcome.
        let trial = now + TRIAL;
        for state in [whole, own].into_iter().filter(|state| state.is_open()) {
            state.0.retry_at = trial;
        }
        drop(states);
        let (breaker, clock) = (self.clone(), clock.clone());
        Ok(Permit { breaker, clock, grant, trial, is_noted: false })
    }

    /// What the log was told of this grant, or of [`ALL`].
    pub(super) fn outage(&self, grant: &'static str) -> Arc<Outage> {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.entry(grant).or_default().clone()
    }

    fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed(was_open: bool) -> Change {
    if was_open { Change::Closed } else { Change::None }
}

impl State {
    fn is_open(&self) -> bool {
        self.0.are_too_many(Backoff::ENDPOINT)
    }

    /// Tells whether it was open.
    fn close(&mut self) -> bool {
        std::mem::take(self).is_open()
    }

    /// The trial that was to last until then says nothing: the next caller tries. A pause that
    /// began meanwhile stays.
    fn end_trial(&mut self, trial: Duration, now: Duration) {
        if self.0.retry_at == trial {
            self.0.retry_at = now;
        }
    }

    /// Ends the trial that was to last until then, and counts a failure. The pause, if this one opened it.
    fn fail(
        &mut self,
        trial: Duration,
        retry_after: Option<Duration>,
        now: Duration,
    ) -> Option<Duration> {
        self.end_trial(trial, now);
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
    struct At(u64);

    impl Clock for At {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            seconds(self.0)
        }
    }

    fn failed(retry_after: Option<u64>) -> Result<(), ExchangeError> {
        Err(ExchangeError::unavailable(retry_after.map(Duration::from_secs), "test"))
    }

    fn status(status: u16) -> Reached {
        Reached::Answer(StatusCode::from_u16(status).unwrap())
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A breaker, seen at one second after the other.
    struct Watched(Arc<Breaker>);

    impl Watched {
        fn new() -> Self {
            Self(Arc::default())
        }

        fn permit(&self, grant: &'static str, now: u64) -> Option<Permit> {
            self.permit_of(Some(grant), now)
        }

        fn permit_of(&self, grant: Option<&'static str>, now: u64) -> Option<Permit> {
            let clock: Arc<dyn Clock> = Arc::new(At(now));
            self.0.permit(grant, &clock).ok()
        }

        /// Whether it would permit a request that is never sent.
        fn permits(&self, grant: &'static str, now: u64) -> bool {
            self.permit(grant, now).is_some()
        }

        /// A request permitted and ended in this second.
        fn ends(
            &self,
            grant: &'static str,
            reached: Reached,
            outcome: &Result<(), ExchangeError>,
            now: u64,
        ) -> Change {
            self.permit(grant, now).expect("is permitted").note(reached, outcome)
        }
    }

    #[test]
    fn it_opens_at_the_third_failure_lets_one_try_and_closes_when_that_one_succeeds() {
        let breaker = Watched::new();
        for failure in 1..=2 {
            let change = breaker.ends("refresh", status(500), &failed(None), 0);
            assert_eq!(change, Change::None, "{failure}");
        }
        let change = breaker.ends("refresh", status(500), &failed(None), 0);
        assert!(matches!(change, Change::Opened("refresh", _)));
        assert!(!breaker.permits("refresh", 0));
        let trial = breaker.permit("refresh", 61).unwrap();
        assert!(!breaker.permits("refresh", 61));
        assert_eq!(trial.note(Reached::Answer(OK), &Ok::<_, ExchangeError>(())), Change::Closed);
        let first = breaker.permit("refresh", 61);
        assert!(first.is_some() && breaker.permits("refresh", 61));
    }

    #[test]
    fn who_is_told_to_wait_waits_for_a_minute_at_most() {
        for (told, waits) in [(7, 7), (3600, 60)] {
            let breaker = Watched::new();
            let opened = breaker.ends("password", status(429), &failed(Some(told)), 0);
            assert_eq!(opened, Change::Opened("password", seconds(waits)));
            assert!(!breaker.permits("password", waits - 1));
            assert!(breaker.permits("password", waits));
        }
    }

    #[test]
    fn a_refusal_is_an_answer_and_a_trial_without_end_blocks_for_half_a_minute() {
        let breaker = Watched::new();
        let _ = breaker.ends("code", status(429), &failed(Some(1)), 0);
        let endless = breaker.permit("code", 1).unwrap();
        assert!(!breaker.permits("code", 30));
        let second = breaker.permit("code", 31).unwrap();
        drop(endless);
        assert!(!breaker.permits("code", 31), "the first is not the trial any more");
        let refused: Result<(), _> = Err(ExchangeError::Answer("test"));
        assert_eq!(second.note(Reached::Answer(OK), &refused), Change::Closed);
    }

    #[test]
    fn trials_given_up_leave_their_place() {
        for code in [429, 503] {
            let breaker = Watched::new();
            let _ = breaker.ends("code", status(code), &failed(Some(1)), 0);
            let trial = breaker.permit("code", 1).unwrap();
            assert!(!breaker.permits("code", 1), "{code}");
            drop(trial);
            assert!(breaker.permits("code", 1), "{code}");
        }
        // What began before it failed is no trial: its end does not shorten the pause.
        let breaker = Watched::new();
        let early = breaker.permit("code", 0).unwrap();
        let _ = breaker.ends("code", status(429), &failed(Some(60)), 0);
        drop(early);
        assert!(!breaker.permits("code", 59));
    }

    #[test]
    fn callers_failures_count_for_their_grant() {
        for reached in [429, 500, 501].map(status) {
            let breaker = Watched::new();
            let _ = breaker.ends("password", reached, &failed(Some(60)), 0);
            assert!(!breaker.permits("password", 0), "{reached:?}");
            assert!(breaker.permits("exchange", 0), "{reached:?}");
        }
        let breaker = Watched::new();
        for _ in 0..3 {
            let _ = breaker.ends("password", Reached::NoAnswer, &failed(None), 0);
        }
        assert!(!breaker.permits("password", 0) && breaker.permits("exchange", 0));
    }

    #[test]
    fn strangers_failures_count_for_nobody() {
        let breaker = Watched::new();
        for reached in [status(429), status(500), Reached::NoAnswer] {
            for _ in 0..9 {
                let permit = breaker.permit_of(None, 0).unwrap();
                assert_eq!(permit.note(reached, &failed(Some(60))), Change::None, "{reached:?}");
            }
        }
        assert!(breaker.permits("refresh", 0));
        // Those of the endpoint as a whole do.
        let _ = breaker.permit_of(None, 0).unwrap().note(status(503), &failed(Some(60)));
        assert!(!breaker.permits("refresh", 0) && breaker.permit_of(None, 0).is_none());
    }

    #[test]
    fn endpoints_failures_count_for_all() {
        for reached in [Reached::NoConnection, status(502), status(503), status(504)] {
            let breaker = Watched::new();
            for grant in ["password", "exchange", "refresh"] {
                let _ = breaker.ends(grant, reached, &failed(None), 0);
            }
            assert!(!breaker.permits("code", 0), "{reached:?}");
            // One trial, of whichever grant, and the others wait for it.
            let trial = breaker.permit("code", 2).unwrap();
            assert!(!breaker.permits("exchange", 2), "{reached:?}");
            let change = trial.note(Reached::Answer(OK), &Ok::<_, ExchangeError>(()));
            assert_eq!(change, Change::Closed);
            assert!(breaker.permits("exchange", 2), "{reached:?}");
        }
    }

    #[test]
    fn unsent_trials_leave_their_place() {
        let breaker = Watched::new();
        let _ = breaker.ends("exchange", status(503), &failed(Some(1)), 0);
        let trial = breaker.permit("exchange", 1).unwrap();
        assert!(!breaker.permits("exchange", 1));
        let unproven: Result<(), _> = Err(ExchangeError::ClientAuth("test".to_owned()));
        assert_eq!(trial.note(Reached::Nothing, &unproven), Change::None);
        let trial = breaker.permit("exchange", 1);
        assert!(trial.is_some() && !breaker.permits("exchange", 1), "still open");
    }

    #[test]
    fn trial_ends_when_retry_after_is_zero() {
        for (grant, code) in [("exchange", 503), ("refresh", 429)] {
            let breaker = Watched::new();
            let _ = breaker.ends(grant, status(code), &failed(Some(1)), 0);
            let trial = breaker.permit(grant, 1).unwrap();
            let _ = trial.note(status(code), &failed(Some(0)));
            let waits = (1..100).find(|now| breaker.permits(grant, *now));
            assert_eq!(waits, Some(1), "{code}");
        }
    }
}
