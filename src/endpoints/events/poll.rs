//! Polling (RFC 8936): this service asks the provider for the events of a stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::AbortHandle;
use url::Url;

use super::super::response::Failure;
use super::super::seen_tokens::Delivery;
use super::super::{Endpoints, Inner};
use super::{EventStream, INVALID_REQUEST};
use crate::auth::Auth;
use crate::clock::{Clock, jittered, sleep};
use crate::config::{AuthMode, Route};
use crate::exchange::{AccessToken, ExchangeError, ServiceTokenRequest, TokenExchangeClient};
use crate::issuer::{FetchError, IssuerLookup, Limits};
use crate::support::retry::{Backoff, Failures};
use crate::support::telemetry::{self, Outage};

/// The most tokens that one answer may have. More are not read; the provider sends them again.
const MAX_SETS: usize = 32;

/// The most bytes that one answer may have: the longest tokens, and room for their names.
const MAX_BYTES: usize = 1 << 20;

/// The longest time that a request may take, in real time. It is the time that the provider may wait for an event.
const LONG: Duration = Duration::from_secs(90);

/// The longest time that a request may take whose answer the provider must not delay.
const SHORT: Duration = Duration::from_secs(10);

/// The shortest time between two requests, if the first brought nothing new. Some providers never wait for an event.
const PACE: Duration = Duration::from_secs(1);

/// The longest sleep in real time. The clock of a test may have moved meanwhile.
const MAX_SLEEP: Duration = Duration::from_millis(100);

/// The shortest time between two starts of the tasks, which end early if a handler panics.
const RESTART: Duration = Duration::from_secs(10);

/// The request for a token of this service, with which it polls.
#[derive(Debug, Clone)]
pub(in super::super) struct PollToken {
    pub(in super::super) client: TokenExchangeClient,
    request: ServiceTokenRequest,
}

impl PollToken {
    pub(super) fn new(client: TokenExchangeClient, request: ServiceTokenRequest) -> Self {
        Self { client, request }
    }
}

/// The tasks that poll. They end with the endpoints.
#[derive(Debug, Default)]
pub(in super::super) struct Polling(Mutex<Option<Tasks>>);

#[derive(Debug)]
struct Tasks {
    handles: Vec<AbortHandle>,
    started_at: Duration,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.handles.iter().for_each(AbortHandle::abort);
    }
}

impl Endpoints {
    /// Starts the tasks that poll, if a stream is polled. Without a tokio runtime, they start with the first request.
    pub(in super::super) fn start_polling(&self) {
        let Inner { polling, event_streams, auth, .. } = &*self.0;
        let is_polled = event_streams.iter().any(|stream| stream.url.is_some());
        // In development there is no provider.
        if !is_polled || auth.mode() == AuthMode::Mock {
            return;
        }
        let mut tasks = polling.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = auth.clock().elapsed();
        let runs = |tasks: &Tasks| {
            let has_ended = tasks.handles.iter().any(AbortHandle::is_finished);
            !has_ended || now.saturating_sub(tasks.started_at) < RESTART
        };
        if tasks.as_ref().is_some_and(runs) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let pollers = event_streams.iter().filter_map(|stream| Poller::new(stream, &self.0));
        let handles = pollers.map(|poller| runtime.spawn(poller.run()).abort_handle()).collect();
        *tasks = Some(Tasks { handles, started_at: now });
    }
}

/// A request (RFC 8936 §2.2).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PollRequest<'a> {
    max_events: usize,
    return_immediately: bool,
    ack: &'a [String],
    set_errs: &'a BTreeMap<String, SetError>,
}

/// The reason why a token is refused (RFC 8936 §2.6).
#[derive(Debug, Serialize)]
struct SetError {
    err: &'static str,
    description: &'static str,
}

/// An answer (RFC 8936 §2.3). Whether more events are available makes no difference: the next request asks for them.
#[derive(Debug, Deserialize)]
pub(super) struct PollAnswer {
    #[serde(default)]
    sets: BTreeMap<String, Value>,
}

/// The reason why there is no answer.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("the provider {0}")]
    Fetch(#[from] FetchError),
    #[error("there is no token for it: {0}")]
    Token(#[from] ExchangeError),
    #[error("no header can have the token for it")]
    TokenText,
    #[error("the answer is not that of RFC 8936: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("this service could not judge or store an event")]
    Unhandled,
}

impl PollError {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Fetch(FetchError::Status { status, .. }) => Some(*status),
            _ => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fetch(FetchError::Status { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }
}

/// The task that polls one stream.
struct Poller {
    inner: Weak<Inner>,
    auth: Auth,
    stream: EventStream,
    url: Url,
    max_events: usize,
    /// Whether the provider must answer immediately, to show that it answers.
    must_answer: bool,
    /// The tokens that were handled, and those that were refused, until the provider knows.
    acks: Vec<String>,
    errors: BTreeMap<String, SetError>,
    failures: Failures,
    outage: Outage,
}

impl Poller {
    fn new(stream: &EventStream, inner: &Arc<Inner>) -> Option<Self> {
        let url = stream.url.as_deref()?.parse().ok()?;
        Some(Self {
            inner: Arc::downgrade(inner),
            auth: inner.auth.clone(),
            stream: stream.clone(),
            url,
            max_events: MAX_SETS,
            must_answer: true,
            acks: Vec::new(),
            errors: BTreeMap::new(),
            failures: Failures::default(),
            outage: Outage::default(),
        })
    }

    async fn run(mut self) {
        loop {
            let started = self.clock().elapsed();
            let answer = self.request().await;
            // The endpoints are not used before, so that they can be dropped while the provider waits for an event.
            let Some(inner) = self.inner.upgrade() else { return };
            let outcome = match answer {
                Ok(answer) => self.handle(&inner, answer).await,
                Err(error) => Err(error),
            };
            drop(inner);
            let until = self.record(outcome, started);
            while let remaining = until.saturating_sub(self.clock().elapsed())
                && !remaining.is_zero()
            {
                sleep(remaining.min(MAX_SLEEP)).await;
            }
        }
    }

    fn clock(&self) -> &dyn Clock {
        &**self.auth.clock()
    }

    /// Records the outcome of a poll: whether it brought anything new. Returns the monotonic time of the next one.
    fn record(&mut self, outcome: Result<bool, PollError>, started: Duration) -> Duration {
        let (now, issuer) = (self.clock().elapsed(), &*self.stream.issuer);
        match outcome {
            // A provider may wait for an event for longer than this service does. The next request shows whether it
            // is there.
            Err(PollError::Fetch(FetchError::Deadline(limit))) if limit == LONG => {
                self.must_answer = true;
                now
            }
            Err(error) => {
                let is_new = self.outage.record_failure(&error, now);
                telemetry::events_not_polled(issuer, &error, is_new);
                self.must_answer = true;
                // An event that the handler never accepts must not delay the others for a minute.
                let backoff = match &error {
                    PollError::Unhandled => Backoff::STORE,
                    _ => Backoff::PROVIDER,
                };
                now + self.failures.add(backoff, error.retry_after(), now)
            }
            Ok(has_new) => {
                telemetry::events_polled(issuer, self.outage.record_success(|| now));
                (self.must_answer, self.failures) = (false, Failures::default());
                if has_new { now } else { started + jittered(PACE, 0.2) }
            }
        }
    }

    /// Sends a request, and another one if the provider refuses its token.
    async fn request(&mut self) -> Result<PollAnswer, PollError> {
        let token = self.token(None).await?;
        let mut sent = self.send(token.as_ref()).await;
        if let (Some(refused), Err(error)) = (&token, &sent)
            && error.status() == Some(StatusCode::UNAUTHORIZED)
        {
            let other = self.token(Some(refused)).await?;
            // A new token was not refused for its age, so there is no other one yet.
            if let Some(other) = other.filter(|it| it.secret() != refused.secret()) {
                sent = self.send(Some(&other)).await;
            }
        }
        if matches!(sent, Err(PollError::Fetch(FetchError::TooLarge(_)))) {
            // The provider may obey a smaller number.
            self.max_events = (self.max_events / 2).max(1);
        }
        let body = sent?;
        self.acks.clear();
        self.errors.clear();
        let answer = serde_json::from_slice(&body)?;
        self.max_events = MAX_SETS;
        Ok(answer)
    }

    /// Returns a token of this service, if the stream is polled with one.
    async fn token(
        &self,
        refused: Option<&AccessToken>,
    ) -> Result<Option<AccessToken>, ExchangeError> {
        let Some(PollToken { client, request }) = &self.stream.token else { return Ok(None) };
        let request = request.clone();
        let token = match refused {
            Some(refused) => client.service_token_replacing(refused, request).await?,
            None => client.service_token(request).await?,
        };
        Ok(Some(token))
    }

    async fn send(&self, token: Option<&AccessToken>) -> Result<Vec<u8>, PollError> {
        let deadline = if self.must_answer { SHORT } else { LONG };
        let request = PollRequest {
            max_events: self.max_events,
            return_immediately: self.must_answer,
            ack: &self.acks,
            set_errs: &self.errors,
        };
        // The members are texts, numbers and maps with text keys, so serialization cannot fail.
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let header = match (token, &self.stream.authorization) {
            (Some(token), _) => Some(format!("Bearer {}", token.secret().expose())),
            (None, Some(value)) => Some(value.expose().to_owned()),
            (None, None) => None,
        };
        let header = header.map(HeaderValue::try_from).transpose();
        let mut header = header.map_err(|_| PollError::TokenText)?;
        header.iter_mut().for_each(|it| it.set_sensitive(true));
        let limits = Limits { deadline, max_bytes: MAX_BYTES };
        let http = self.auth.issuers().http();
        Ok(http.post_json(&self.url, body, header, limits, &self.route()).await?)
    }

    /// Returns the way to the issuer, which is the one to its events.
    fn route(&self) -> Route {
        match self.auth.issuers().find(&self.stream.issuer) {
            IssuerLookup::Found(issuer) => issuer.rules.config.key_access().route,
            IssuerLookup::NotOpen(template, _) => template.rules().config.key_access().route,
            IssuerLookup::Unknown => Route::default(),
        }
    }

    /// Handles the tokens of an answer. Returns whether one of them is new.
    async fn handle(&mut self, inner: &Inner, answer: PollAnswer) -> Result<bool, PollError> {
        let (mut has_new, mut is_unhandled) = (false, false);
        for (id, token) in answer.sets.into_iter().take(MAX_SETS) {
            let handled = match token.as_str() {
                Some(token) => inner.receive(&self.stream, token, Some(&id)).await,
                None => Err(Failure::OAuth(INVALID_REQUEST, "The token is not a text.")),
            };
            match handled {
                Ok(delivery) => {
                    has_new |= delivery == Delivery::First;
                    self.acks.push(id);
                }
                Err(Failure::OAuth(err, description)) => {
                    self.errors.insert(id, SetError { err, description });
                }
                // Neither acknowledged nor refused, so the provider sends it again.
                Err(_) => is_unhandled = true,
            }
        }
        if is_unhandled { Err(PollError::Unhandled) } else { Ok(has_new) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_wait_of_provider_is_no_failure() {
        let auth = Auth::builder().issuer("https://id.example").audience("docs").build().unwrap();
        let stream = EventStream::poll("https://id.example", "docs", "https://id.example/poll");
        let endpoints = auth.endpoints().security_events(stream.clone()).build().unwrap();
        let mut poller = Poller::new(&stream, &endpoints.0).unwrap();
        let late = |limit| Err(PollError::Fetch(FetchError::Deadline(limit)));
        let started = poller.clock().elapsed();
        poller.record(Ok(true), started);
        assert!(!poller.must_answer);
        // The next request shows whether the provider is there.
        let next = poller.record(late(LONG), started);
        assert!(poller.must_answer && next <= poller.clock().elapsed());
        assert_eq!(poller.failures.count, 0);
        let next = poller.record(late(SHORT), started);
        assert!(next > started + Duration::from_millis(400));
        assert_eq!(poller.failures.count, 1);
    }

    #[test]
    fn empty_answers_are_paced() {
        let auth = Auth::builder().issuer("https://id.example").audience("docs").build().unwrap();
        let stream = EventStream::poll("https://id.example", "docs", "https://id.example/poll");
        let endpoints = auth.endpoints().security_events(stream.clone()).build().unwrap();
        let mut poller = Poller::new(&stream, &endpoints.0).unwrap();
        let started = Duration::from_secs(1000);
        let next = poller.record(Ok(false), started) - started;
        assert!(next >= PACE.mul_f64(0.8) && next <= PACE.mul_f64(1.2), "{next:?}");
        // A long wait is pace enough: this time is in the past by then.
        assert!(poller.record(Ok(true), started) < started);
    }
}
