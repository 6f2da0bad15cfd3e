//! Polling (RFC 8936): this service asks the provider for the events of a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::super::Inner;
use super::super::response::Failure;
use super::polling::Task;
use super::{Delivery, EventStream, INVALID_KEY, INVALID_REQUEST, Report};
use crate::auth::Auth;
use crate::clock::{Clock, jittered, sleep};
use crate::config::Route;
use crate::exchange::{AccessToken, ExchangeError, ServiceTokenRequest, TokenExchangeClient};
use crate::issuer::{FetchError, IssuerLookup, Limits};
use crate::support::retry::{Backoff, Failures};
use crate::support::telemetry::{self, Outage};

/// The most new tokens that one answer may have. More are not read; the provider sends them again.
const MAX_NEW: usize = 32;

/// The most tokens that are neither acknowledged nor refused, because of the handler. The provider sends them again
/// with the new ones.
const MAX_UNHANDLED: usize = 224;

/// The most bytes that one answer may have: the longest tokens, and room for their names.
const MAX_BYTES: usize = 5 << 20;

/// The longest time that a request may take, in real time. It is the time that the provider may wait for an event.
/// Many gateways end requests after 60 s.
const LONG: Duration = Duration::from_secs(50);

/// The shortest time after which a gateway may have ended a request because the provider waited for an event.
const GATEWAY_WAIT: Duration = Duration::from_secs(5);

/// The longest time that a request may take whose answer the provider must not delay.
const SHORT: Duration = Duration::from_secs(10);

/// The shortest time between two requests, if the first brought nothing new. Some providers never wait for an event.
const PACE: Duration = Duration::from_secs(1);

/// The longest sleep in real time. The clock of a test may have moved meanwhile.
const MAX_SLEEP: Duration = Duration::from_millis(100);

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

    /// Returns whether the provider may just have waited for an event, for this long.
    fn ends_wait(&self, waited: Duration) -> bool {
        use FetchError::{Deadline, Status, Unreachable};
        match self {
            Self::Fetch(Deadline(limit)) => *limit == LONG,
            Self::Fetch(Unreachable(_)) => waited >= GATEWAY_WAIT,
            Self::Fetch(Status { status, .. }) => {
                let is_timeout = [StatusCode::REQUEST_TIMEOUT, StatusCode::GATEWAY_TIMEOUT];
                waited >= GATEWAY_WAIT && is_timeout.contains(status)
            }
            _ => false,
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
pub(super) struct Poller {
    inner: Weak<Inner>,
    auth: Auth,
    stream: EventStream,
    url: Url,
    /// The number of tokens of the last answer that were neither acknowledged nor refused.
    unhandled: usize,
    /// Tokens whose signature was not valid at their first delivery: the keys may be on their way.
    suspects: BTreeSet<String>,
    has_given_up: bool,
    /// Whether the provider must answer immediately, to show that it answers.
    must_answer: bool,
    /// The tokens that were handled, and those that were refused, until the provider knows.
    acks: Vec<String>,
    errors: BTreeMap<String, SetError>,
    failures: Failures,
    outage: Outage,
}

impl Poller {
    pub(super) fn new(stream: &EventStream, inner: &Arc<Inner>) -> Option<Self> {
        let url = stream.url.as_deref()?.parse().ok()?;
        Some(Self {
            inner: Arc::downgrade(inner),
            auth: inner.auth.clone(),
            stream: stream.clone(),
            url,
            unhandled: 0,
            suspects: BTreeSet::new(),
            has_given_up: false,
            must_answer: true,
            acks: Vec::new(),
            errors: BTreeMap::new(),
            failures: Failures::default(),
            outage: Outage::default(),
        })
    }

    pub(super) async fn run(mut self, task: Task) {
        loop {
            task.polls();
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

    /// Returns the number of tokens that an answer may have: tokens that come again leave room for new ones.
    fn max_events(&self) -> usize {
        MAX_NEW + self.unhandled.min(MAX_UNHANDLED)
    }

    fn clock(&self) -> &dyn Clock {
        &**self.auth.clock()
    }

    /// Records the outcome of a poll: whether it brought anything new. Returns the monotonic time of the next one.
    fn record(&mut self, outcome: Result<bool, PollError>, started: Duration) -> Duration {
        let (now, issuer) = (self.clock().elapsed(), &*self.stream.issuer);
        match outcome {
            // A provider may wait for an event for longer than this service or a gateway does. The next request shows
            // whether it is there.
            Err(error) if !self.must_answer && error.ends_wait(now.saturating_sub(started)) => {
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
        let body = sent?;
        self.acks.clear();
        self.errors.clear();
        Ok(serde_json::from_slice(&body)?)
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
            max_events: self.max_events(),
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
        let most = self.max_events();
        let sets: Vec<_> = answer.sets.into_iter().take(most).collect();
        // No handler delays a revocation.
        let reports = sets.iter().map(|(id, token)| self.put_in_force(inner, id, token));
        let reports = join_all(reports).await;
        let outcomes = reports.into_iter().map(|report| self.pass_on(inner, report));
        let outcomes = join_all(outcomes).await;
        let suspects = std::mem::take(&mut self.suspects);
        let (mut has_new, mut given_up) = (false, 0);
        self.unhandled = 0;
        for ((id, _), outcome) in sets.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Handled(delivery) => {
                    has_new |= delivery == Delivery::First;
                    self.acks.push(id);
                }
                Outcome::Refused(INVALID_KEY, _) if !suspects.contains(&id) => {
                    self.suspects.insert(id);
                    self.unhandled += 1;
                }
                Outcome::Refused(err, description) => {
                    self.errors.insert(id, SetError { err, description });
                }
                Outcome::NotPassedOn if self.unhandled >= MAX_UNHANDLED => {
                    given_up += 1;
                    self.acks.push(id);
                }
                // Neither acknowledged nor refused, so the provider sends it again.
                Outcome::NotPassedOn | Outcome::Failed => {
                    // Its key may not have been fetched again. The next delivery is not its first.
                    if suspects.contains(&id) {
                        self.suspects.insert(id);
                    }
                    self.unhandled += 1;
                }
            }
        }
        if given_up > 0 {
            let is_new = !std::mem::replace(&mut self.has_given_up, true);
            telemetry::events_not_handled(&self.stream.issuer, given_up, is_new);
        }
        self.has_given_up &= self.unhandled > 0;
        if self.unhandled > 0 { Err(PollError::Unhandled) } else { Ok(has_new) }
    }

    async fn put_in_force(
        &self,
        inner: &Inner,
        id: &str,
        token: &Value,
    ) -> Result<Report, Failure> {
        let not_a_text = Failure::OAuth(INVALID_REQUEST, "The token is not a text.");
        let token = token.as_str().ok_or(not_a_text)?;
        let report = inner.read(&self.stream, token, Some(id)).await;
        let report = report.map_err(|refusal| refusal.failure)?;
        let mut progress = inner.seen_tokens.progress(&report.key).await?;
        inner.put_in_force(&report, &mut progress).await?;
        Ok(report)
    }

    async fn pass_on(&self, inner: &Inner, report: Result<Report, Failure>) -> Outcome {
        let report = match report {
            Ok(report) => report,
            Err(Failure::OAuth(err, description)) => return Outcome::Refused(err, description),
            Err(_) => return Outcome::Failed,
        };
        let Ok(mut progress) = inner.seen_tokens.progress(&report.key).await else {
            return Outcome::NotPassedOn;
        };
        match inner.pass_on(&self.stream, &report, &mut progress).await {
            Ok(delivery) => Outcome::Handled(delivery),
            Err(_) => Outcome::NotPassedOn,
        }
    }
}

/// What became of a token.
enum Outcome {
    Handled(Delivery),
    Refused(&'static str, &'static str),
    /// It is in force, but the handler failed.
    NotPassedOn,
    /// It could not be judged, or its revocations could not be stored.
    Failed,
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
    fn gateways_may_end_long_polls() {
        let status = |status| FetchError::Status { status, retry_after: None };
        let broken = || FetchError::Unreachable("the connection was closed".to_owned());
        for (error, waited, is_end) in [
            (status(StatusCode::GATEWAY_TIMEOUT), 30, true),
            (status(StatusCode::REQUEST_TIMEOUT), 30, true),
            (broken(), 30, true),
            (status(StatusCode::GATEWAY_TIMEOUT), 1, false),
            (broken(), 1, false),
            (status(StatusCode::BAD_GATEWAY), 30, false),
            (FetchError::Unconnected("refused".to_owned()), 30, false),
        ] {
            let text = format!("{error:?} {waited}");
            let is_found = PollError::Fetch(error).ends_wait(Duration::from_secs(waited));
            assert_eq!(is_found, is_end, "{text}");
        }
    }

    #[test]
    fn answers_must_have_sets() {
        let read = |text| serde_json::from_str::<PollAnswer>(text).is_ok();
        assert!(read(r#"{ "sets": {} }"#) && !read("{}") && !read(r#"{ "status": "up" }"#));
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
