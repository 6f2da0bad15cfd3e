//! [`Breakers`]: leaves a token endpoint alone that does not answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use super::ExchangeError;
use crate::clock::backoff;

/// So many failures in a row before the endpoint is left alone.
const THRESHOLD: u32 = 3;

/// The pauses after that, growing with each further failure.
const BASE: Duration = Duration::from_secs(1);
const CAP: Duration = Duration::from_secs(60);

/// How long a trial may be under way before another one is allowed: its caller may have gone.
const TRIAL: Duration = Duration::from_secs(30);

/// So many endpoints are remembered: one, or one for each tenant.
const MAX_ENDPOINTS: u64 = 1_000;

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

/// Closed, open until some moment, or waiting for the outcome of one trial.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Nobody asks before.
    closed_until: Duration,
}

/// What the endpoint did, as the breaker sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Nobody will ask it for this long.
    Opened(Duration),
    /// It answers again.
    Closed,
}

impl Breaker {
    /// Whether the endpoint may be asked now.
    pub(super) fn permit(&self, now: Duration) -> Result<(), ExchangeError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now < state.closed_until {
            let left = state.closed_until - now;
            let why = "it failed before and is not asked for a while";
            return Err(ExchangeError::unavailable(Some(left), why));
        }
        if state.failures >= THRESHOLD {
            // One caller tries; the others wait for what becomes of it.
            state.closed_until = now + TRIAL;
        }
        Ok(())
    }

    /// Notes how a permitted request ended.
    pub(super) fn note<T>(&self, outcome: &Result<T, ExchangeError>, now: Duration) -> Change {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(ExchangeError::Unavailable { retry_after, .. }) = outcome else {
            let was_open = state.failures >= THRESHOLD;
            *state = State::default();
            return if was_open { Change::Closed } else { Change::None };
        };
        let was_open = state.failures >= THRESHOLD;
        state.failures = state.failures.saturating_add(1);
        let pause = match retry_after {
            // Told to wait is told once.
            Some(wait) => {
                state.failures = state.failures.max(THRESHOLD);
                (*wait).min(CAP)
            }
            None if state.failures >= THRESHOLD => backoff(BASE, CAP, state.failures - THRESHOLD),
            None => return Change::None,
        };
        state.closed_until = now + pause;
        if was_open { Change::None } else { Change::Opened(pause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(retry_after: Option<u64>) -> Result<(), ExchangeError> {
        Err(ExchangeError::unavailable(retry_after.map(Duration::from_secs), "test"))
    }

    #[test]
    fn it_opens_at_the_third_failure_lets_one_try_and_closes_when_that_one_succeeds() {
        let (breaker, now) = (Breaker::default(), Duration::from_secs);
        for failure in 1..=2 {
            breaker.permit(now(0)).unwrap();
            assert_eq!(breaker.note(&failed(None), now(0)), Change::None, "{failure}");
        }
        breaker.permit(now(0)).unwrap();
        assert!(matches!(breaker.note(&failed(None), now(0)), Change::Opened(_)));
        breaker.permit(now(0)).unwrap_err();
        breaker.permit(now(61)).unwrap();
        breaker.permit(now(61)).unwrap_err();
        assert_eq!(breaker.note(&Ok(()), now(61)), Change::Closed);
        breaker.permit(now(61)).unwrap();
        breaker.permit(now(61)).unwrap();
    }

    #[test]
    fn who_is_told_to_wait_waits_for_a_minute_at_most() {
        for (told, waits) in [(7, 7), (3600, 60)] {
            let breaker = Breaker::default();
            let opened = breaker.note(&failed(Some(told)), Duration::ZERO);
            assert_eq!(opened, Change::Opened(Duration::from_secs(waits)));
            breaker.permit(Duration::from_secs(waits - 1)).unwrap_err();
            breaker.permit(Duration::from_secs(waits)).unwrap();
        }
    }

    #[test]
    fn a_refusal_is_an_answer_and_a_trial_nobody_saw_the_end_of_blocks_for_half_a_minute() {
        let breaker = Breaker::default();
        let _ = breaker.note(&failed(Some(1)), Duration::ZERO);
        breaker.permit(Duration::from_secs(1)).unwrap();
        breaker.permit(Duration::from_secs(30)).unwrap_err();
        breaker.permit(Duration::from_secs(31)).unwrap();
        let refused: Result<(), _> = Err(ExchangeError::Answer("test"));
        assert_eq!(breaker.note(&refused, Duration::from_secs(32)), Change::Closed);
    }
}
