//! [`Breakers`]: leaves a token endpoint alone that does not answer, for one grant or for all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use moka::sync::Cache;

use super::ExchangeError;
use crate::clock::backoff;
use crate::telemetry::Outage;

/// So many failures in a row before the endpoint is left alone.
const THRESHOLD: u32 = 3;

/// The pauses after that, growing with each further failure.
const BASE: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_secs(60);

/// How long a trial may be under way before another one is allowed: its caller may have gone.
const TRIAL: Duration = Duration::from_secs(30);

/// So many endpoints are remembered: one, or one for each tenant.
const MAX_ENDPOINTS: u64 = 1_000;

/// The name of all grants together.
pub(super) const ALL: &str = "all";

/// One breaker for each endpoint.
#[derive(Debug)]
pub(super) struct Breakers(Cache<String, Arc<Breaker>>);

impl Default for Breakers {
    fn default() -> Self {
        Self(Cache::new(MAX_ENDPOINTS))
    }
}

impl Breakers {
    pub(super) fn of(&self, url: &str) -> Arc<Breaker> {
        self.0.get(url).unwrap_or_else(|| self.0.get_with(url.to_owned(), Arc::default))
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
    /// silence, may be due to what one caller sent, so they count for the grant alone.
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

/// Closed, open until some moment, or waiting for the outcome of one trial.
#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// The endpoint is not asked before.
    closed_until: Duration,
}

/// What the endpoint did, as the breaker sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It is not asked for this grant, or for [`ALL`], for this long.
    Opened(&'static str, Duration),
    /// It answers again.
    Closed,
}

impl Breaker {
    /// Whether the endpoint may be asked for this grant now.
    pub(super) fn permit(&self, grant: &'static str, now: Duration) -> Result<(), ExchangeError> {
        let mut states = self.states();
        let States { whole, grants } = &mut *states;
        let own = grants.entry(grant).or_default();
        let closed_until = whole.closed_until.max(own.closed_until);
        if now < closed_until {
            let why = "it failed before and is not asked for a while";
            return Err(ExchangeError::unavailable(Some(closed_until - now), why));
        }
        // One caller tries; the others wait for the outcome.
        for state in [whole, own].into_iter().filter(|state| state.is_open()) {
            state.closed_until = now + TRIAL;
        }
        Ok(())
    }

    /// Notes how a permitted request ended.
    pub(super) fn note<T>(
        &self,
        grant: &'static str,
        reached: Reached,
        outcome: &Result<T, ExchangeError>,
        now: Duration,
    ) -> Change {
        let mut states = self.states();
        let States { whole, grants } = &mut *states;
        let own = grants.entry(grant).or_default();
        let failed = match outcome {
            Err(ExchangeError::Unavailable { retry_after, .. }) => Some(*retry_after),
            _ => None,
        };
        match (reached, failed) {
            (Reached::Nothing, _) => {
                whole.end_trial(now);
                own.end_trial(now);
                Change::None
            }
            (reached, Some(retry_after)) if reached.concerns_all() => {
                own.end_trial(now);
                whole
                    .fail(retry_after, now)
                    .map_or(Change::None, |pause| Change::Opened(ALL, pause))
            }
            (reached, Some(retry_after)) => {
                whole.end_trial(now);
                let was_open = matches!(reached, Reached::Answer(_)) && whole.close();
                match own.fail(retry_after, now) {
                    Some(pause) => Change::Opened(grant, pause),
                    None => closed(was_open),
                }
            }
            (_, None) => closed(whole.close() | own.close()),
        }
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
        self.failures >= THRESHOLD
    }

    /// Tells whether it was open.
    fn close(&mut self) -> bool {
        std::mem::take(self).is_open()
    }

    /// The trial says nothing: the next caller tries.
    fn end_trial(&mut self, now: Duration) {
        self.closed_until = self.closed_until.min(now);
    }

    /// Counts a failure. The pause, if this one opened it.
    fn fail(&mut self, retry_after: Option<Duration>, now: Duration) -> Option<Duration> {
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(1);
        let pause = match retry_after {
            // Told to wait is told once.
            Some(wait) => {
                self.failures = self.failures.max(THRESHOLD);
                wait.min(CAP)
            }
            None if self.is_open() => backoff(BASE, CAP, self.failures - THRESHOLD),
            None => return None,
        };
        self.closed_until = now + pause;
        (!was_open).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: StatusCode = StatusCode::OK;

    fn failed(retry_after: Option<u64>) -> Result<(), ExchangeError> {
        Err(ExchangeError::unavailable(retry_after.map(Duration::from_secs), "test"))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    impl Breaker {
        fn fails(&self, grant: &'static str, status: u16, wait: Option<u64>, now: u64) -> Change {
            let reached = Reached::Answer(StatusCode::from_u16(status).unwrap());
            self.note(grant, reached, &failed(wait), seconds(now))
        }

        fn works(&self, grant: &'static str, now: u64) -> Change {
            self.note(grant, Reached::Answer(OK), &Ok(()), seconds(now))
        }

        fn permits(&self, grant: &'static str, now: u64) -> bool {
            self.permit(grant, seconds(now)).is_ok()
        }
    }

    #[test]
    fn it_opens_at_the_third_failure_lets_one_try_and_closes_when_that_one_succeeds() {
        let breaker = Breaker::default();
        for failure in 1..=2 {
            assert!(breaker.permits("refresh", 0));
            assert_eq!(breaker.fails("refresh", 500, None, 0), Change::None, "{failure}");
        }
        assert!(breaker.permits("refresh", 0));
        assert!(matches!(breaker.fails("refresh", 500, None, 0), Change::Opened("refresh", _)));
        assert!(!breaker.permits("refresh", 0));
        assert!(breaker.permits("refresh", 61));
        assert!(!breaker.permits("refresh", 61));
        assert_eq!(breaker.works("refresh", 61), Change::Closed);
        assert!(breaker.permits("refresh", 61));
        assert!(breaker.permits("refresh", 61));
    }

    #[test]
    fn who_is_told_to_wait_waits_for_a_minute_at_most() {
        for (told, waits) in [(7, 7), (3600, 60)] {
            let breaker = Breaker::default();
            let opened = breaker.fails("password", 429, Some(told), 0);
            assert_eq!(opened, Change::Opened("password", seconds(waits)));
            assert!(!breaker.permits("password", waits - 1));
            assert!(breaker.permits("password", waits));
        }
    }

    #[test]
    fn a_refusal_is_an_answer_and_a_trial_nobody_saw_the_end_of_blocks_for_half_a_minute() {
        let breaker = Breaker::default();
        let _ = breaker.fails("code", 429, Some(1), 0);
        assert!(breaker.permits("code", 1));
        assert!(!breaker.permits("code", 30));
        assert!(breaker.permits("code", 31));
        let refused: Result<(), _> = Err(ExchangeError::Answer("test"));
        let noted = breaker.note("code", Reached::Answer(OK), &refused, seconds(32));
        assert_eq!(noted, Change::Closed);
    }

    #[test]
    fn callers_failures_count_for_their_grant() {
        for reached in
            [429, 500, 501].map(|code| Reached::Answer(StatusCode::from_u16(code).unwrap()))
        {
            let breaker = Breaker::default();
            let _ = breaker.note("password", reached, &failed(Some(60)), seconds(0));
            assert!(!breaker.permits("password", 0), "{reached:?}");
            assert!(breaker.permits("exchange", 0), "{reached:?}");
        }
        let breaker = Breaker::default();
        for _ in 0..9 {
            let _ = breaker.note("password", Reached::NoAnswer, &failed(None), seconds(0));
        }
        assert!(!breaker.permits("password", 0) && breaker.permits("exchange", 0));
    }

    #[test]
    fn endpoints_failures_count_for_all() {
        for reached in [
            Reached::NoConnection,
            Reached::Answer(StatusCode::BAD_GATEWAY),
            Reached::Answer(StatusCode::SERVICE_UNAVAILABLE),
            Reached::Answer(StatusCode::GATEWAY_TIMEOUT),
        ] {
            let breaker = Breaker::default();
            for grant in ["password", "exchange", "refresh"] {
                assert!(breaker.permits(grant, 0), "{reached:?}");
                let _ = breaker.note(grant, reached, &failed(None), seconds(0));
            }
            assert!(!breaker.permits("code", 0), "{reached:?}");
            // One trial, of whichever grant, and the others wait for it.
            assert!(breaker.permits("code", 2), "{reached:?}");
            assert!(!breaker.permits("exchange", 2), "{reached:?}");
            assert_eq!(breaker.works("code", 2), Change::Closed);
            assert!(breaker.permits("exchange", 2), "{reached:?}");
        }
    }

    #[test]
    fn unsent_trials_leave_their_place() {
        let breaker = Breaker::default();
        let _ = breaker.fails("exchange", 503, Some(1), 0);
        assert!(breaker.permits("exchange", 1) && !breaker.permits("exchange", 1));
        let unproven: Result<(), _> = Err(ExchangeError::ClientAuth("test".to_owned()));
        let noted = breaker.note("exchange", Reached::Nothing, &unproven, seconds(1));
        assert_eq!(noted, Change::None);
        assert!(breaker.permits("exchange", 1) && !breaker.permits("exchange", 1), "still open");
    }
}
