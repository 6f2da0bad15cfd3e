//! [`Endpoint`]: the introspection endpoint of one issuer, with its budget and its breaker.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use http::StatusCode;
use url::Url;

use super::answer::{Active, Expected, MAX_BYTES, NoAnswer};
use super::cache::{Entry, IntrospectedTokens, QuestionId, Reuse};
use super::{COMPONENT, OpaqueTokens};
use crate::clock::{Clock, sleep, with_timeout};
use crate::config::SignedAnswers;
use crate::error::{AuthError, InvalidToken};
use crate::issuer::{
    ClientRequest, FetchError, Issuer, IssuerLookup, Issuers, Limits, RequestError,
};
use crate::support::breaker::{Breaker, Delivery, Permit, Transition};
use crate::support::json::Document;
use crate::support::retry::{Backoff, Rate, TokenBucket};
use crate::support::secret::Secret;
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry::{self, Causes, Outage};

const PLAIN: &str = "application/json";
const SIGNED: &str = "application/token-introspection+jwt";

/// The label of failures with tokens that were active before. An attacker can provoke failures with a token,
/// such as a timeout, but cannot invent one of these.
const KNOWN_TOKENS: &str = "known_tokens";

/// The minimum time between two warnings about the used budget.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// The introspection endpoint of one issuer.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) of: OpaqueTokens,
    /// The configured URL.
    url: Option<Url>,
    /// The URL in the metadata that were read last.
    found_url: ArcSwapOption<Url>,
    issuers: Issuers,
    clock: Arc<dyn Clock>,
    tokens: IntrospectedTokens,
    breaker: Arc<Breaker>,
    budget: Mutex<Budget>,
    outage: Outage,
    questions: SingleFlight<QuestionId, Result<Arc<Entry>, Refusal>>,
}

/// The budget of questions about tokens that may be invented.
#[derive(Debug, Default)]
struct Budget {
    bucket: TokenBucket,
    /// The monotonic time of the last warning.
    warned_at: Option<Duration>,
}

/// A question about a token.
struct Question {
    id: QuestionId,
    token: Secret,
    /// Whether the token was active before.
    is_known: bool,
    counts_from: SystemTime,
}

/// The reason why a token is not accepted.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// The token is inactive, or a rule refuses it.
    Token(InvalidToken),
    /// There is no answer. The flag says whether the endpoint is unavailable, and an old answer may serve.
    Unanswered(AuthError, bool),
}

/// The reason why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
struct Failure {
    problem: String,
    kind: FailureKind,
    delivery: Delivery,
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureKind {
    /// The endpoint is unavailable.
    Outage,
    /// The endpoint, or the configuration of this service, must be corrected.
    Misconfigured,
}

impl Failure {
    fn outage(delivery: Delivery, problem: impl Into<String>) -> Self {
        let (problem, kind) = (problem.into(), FailureKind::Outage);
        Self { problem, kind, delivery, retry_after: None }
    }

    fn misconfigured(delivery: Delivery, problem: impl Into<String>) -> Self {
        let (problem, kind) = (problem.into(), FailureKind::Misconfigured);
        Self { problem, kind, delivery, retry_after: None }
    }

    /// Returns the failure for an answer with another status than 200.
    fn of_status(url: &Url, status: StatusCode, retry_after: Option<Duration>) -> Self {
        let delivery = Delivery::Answered(status);
        let is_outage = status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        if is_outage {
            let failure = Self::outage(delivery, format!("{url} answered {status}"));
            return Self { retry_after, ..failure };
        }
        let remedy = match status.as_u16() {
            // The caller's token is not the reason: about that, the endpoint answers 200.
            401 => {
                "it refuses the credentials of this service: check the client's id, secret and method of authentication"
            }
            400 | 403 => {
                "check the credentials of this service, and whether its client may introspect tokens"
            }
            300..=399 => "requests with credentials follow no redirect: set introspection_url",
            _ => "check introspection_url",
        };
        Self::misconfigured(delivery, format!("{url} answered {status}: {remedy}"))
    }

    fn refusal(&self) -> Refusal {
        let retry_after = self.retry_after.map(|wait| wait.min(Backoff::ENDPOINT.cap));
        let error = AuthError::unavailable(COMPONENT, retry_after, self.problem.clone());
        Refusal::Unanswered(error, self.kind == FailureKind::Outage)
    }
}

impl Endpoint {
    pub(super) fn new(
        of: OpaqueTokens,
        issuers: Issuers,
        clock: Arc<dyn Clock>,
        tokens: IntrospectedTokens,
    ) -> Self {
        Self {
            url: of.settings.url.as_deref().and_then(|url| Url::parse(url).ok()),
            found_url: ArcSwapOption::empty(),
            breaker: Arc::default(),
            budget: Mutex::default(),
            outage: Outage::default(),
            questions: SingleFlight::default(),
            of,
            issuers,
            clock,
            tokens,
        }
    }

    /// Returns the issuer. `None` if it was removed.
    pub(super) fn issuer(&self) -> Option<Arc<Issuer>> {
        match self.issuers.find(&self.of.issuer) {
            IssuerLookup::Found(issuer) => Some(issuer),
            IssuerLookup::NotOpen(..) | IssuerLookup::Unknown => None,
        }
    }

    /// Joins the question about the token, or asks it. `previous` is an earlier answer, too old to be reused. An answer
    /// counts from `counts_from` on, if that is after the question.
    pub(super) fn ask(
        self: &Arc<Self>,
        token: &str,
        question: QuestionId,
        previous: Option<&Arc<Entry>>,
        counts_from: SystemTime,
    ) -> Result<Waiter<Result<Arc<Entry>, Refusal>>, Refusal> {
        let issuer = self.issuer().ok_or(Refusal::Token(InvalidToken::Issuer))?;
        // A token after its `exp` is limited as an unknown one, because no answer about it is reused.
        let is_known = previous.is_some_and(|entry| entry.is_valid(self.clock.now()));
        let permit = Cell::new(None);
        self.questions.run_if(
            question,
            || self.permit(is_known).map(|granted| permit.set(Some(granted))),
            || {
                let (endpoint, token) = (self.clone(), Secret::new(token));
                let permit = permit.take();
                async move {
                    let question = Question { id: question, token, is_known, counts_from };
                    endpoint.run(question, &issuer, permit).await
                }
            },
        )
    }

    /// Permits a question: the breaker is closed, and the budget allows it.
    fn permit(&self, is_known: bool) -> Result<Permit, Refusal> {
        let grant = is_known.then_some(KNOWN_TOKENS);
        let issuer = &self.of.issuer;
        let permit = self.breaker.permit(grant, &self.clock).map_err(|wait| {
            telemetry::introspection_not_sent(issuer, "breaker_open", false);
            let problem = "questions failed recently, so the circuit breaker is open";
            Refusal::Unanswered(AuthError::unavailable(COMPONENT, Some(wait), problem), true)
        })?;
        if !is_known && let Err(wait) = self.charge() {
            let problem = "the budget for questions about unknown tokens is used up: see OpaqueTokens::unknown_tokens";
            let error = AuthError::unavailable(COMPONENT, Some(wait), problem);
            return Err(Refusal::Unanswered(error, false));
        }
        Ok(permit)
    }

    fn rate(&self) -> Rate {
        let (burst, per_second) = self.of.settings.unknown_tokens;
        Rate::new(burst, Duration::from_secs(1) / per_second.max(1))
    }

    /// Takes one question from the budget, or returns the wait until the next one.
    fn charge(&self) -> Result<(), Duration> {
        let (now, mut budget) = (self.clock.elapsed(), self.budget());
        budget.bucket.take(self.rate(), now).inspect_err(|_| {
            let last = budget.warned_at;
            let is_new = last.is_none_or(|at| now.saturating_sub(at) >= WARNING_PERIOD);
            if is_new {
                budget.warned_at = Some(now);
            }
            self.tokens.count(|counters| &counters.over_budget);
            telemetry::introspection_not_sent(&self.of.issuer, "over_budget", is_new);
        })
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        // Any two times are a valid state, so poisoning is harmless.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the question, and stores its answer.
    async fn run(
        &self,
        question: Question,
        issuer: &Arc<Issuer>,
        permit: Option<Permit>,
    ) -> Result<Arc<Entry>, Refusal> {
        let Question { id: question, token, is_known, counts_from } = question;
        let (settings, asked_at) = (&self.of.settings, self.clock.elapsed());
        let counts_from = counts_from.max(self.clock.now());
        self.tokens.count(|counters| &counters.questions);
        let answer = with_timeout(settings.timeout, self.answer(issuer, &token)).await;
        let answer = answer.unwrap_or_else(|| {
            let problem = format!("no answer within {:?}", settings.timeout);
            Err(Failure::outage(Delivery::NoAnswer, problem))
        });
        self.record(permit, answer.as_ref().err());
        let members = answer.map_err(|failure| failure.refusal())?;
        let Some(members) = members else {
            return Err(self.refuse(question, InvalidToken::Inactive, "inactive", asked_at));
        };
        match Active::read(members, issuer, settings, self.clock.now()) {
            Err(fault) => Err(self.refuse(question, fault, "refused", asked_at)),
            Ok(Active { identity, lifetime, expires_at }) => {
                telemetry::introspection_ended(&self.of.issuer, "active");
                let reuse = Reuse {
                    asked_at,
                    counts_from,
                    cache_for: settings.cache_for,
                    serve_while_unavailable: settings.serve_while_unavailable,
                };
                let entry = Entry::new(question, identity, lifetime, expires_at, reuse);
                let entry = Arc::new(entry);
                if !is_known && entry.is_valid(self.clock.now()) {
                    self.budget().bucket.give_back(self.rate());
                }
                self.tokens.insert(&entry);
                Ok(entry)
            }
        }
    }

    fn refuse(
        &self,
        question: QuestionId,
        fault: InvalidToken,
        outcome: &'static str,
        asked_at: Duration,
    ) -> Refusal {
        telemetry::introspection_ended(&self.of.issuer, outcome);
        self.tokens.refuse(question, fault, asked_at);
        Refusal::Token(fault)
    }

    /// Records whether there was an answer: for the breaker, in the statistics and in the log.
    fn record(&self, permit: Option<Permit>, failure: Option<&Failure>) {
        let issuer = &self.of.issuer;
        let delivery = failure.map_or(Delivery::Answered(StatusCode::OK), |it| it.delivery);
        let outage = failure.filter(|it| it.kind == FailureKind::Outage);
        let transition = permit.map(|it| it.record(delivery, outage.map(|it| it.retry_after)));
        match transition {
            Some(Transition::Opened(_, pause)) => {
                telemetry::introspection_breaker_opened(issuer, pause);
            }
            Some(Transition::Closed) => telemetry::introspection_breaker_closed(issuer),
            Some(Transition::None) | None => {}
        }
        match failure {
            None if self.outage.record_success(|| self.clock.elapsed()) => {
                telemetry::introspection_recovered(issuer);
            }
            None => {}
            Some(failure) => {
                self.tokens.count(|counters| &counters.failures);
                let is_new = self.outage.record_failure(failure, self.clock.elapsed());
                let is_outage = failure.kind == FailureKind::Outage;
                telemetry::introspection_failed(issuer, failure, is_outage, is_new);
            }
        }
    }

    /// Returns the members about an active token, or `None` for an inactive one.
    async fn answer(
        &self,
        issuer: &Arc<Issuer>,
        token: &Secret,
    ) -> Result<Option<Document>, Failure> {
        let url = self.url(issuer).await?;
        let body = self.post(&url, issuer, token).await?;
        let expected = Expected {
            issuer,
            client_id: self.of.client_auth.client_id(),
            signed: self.of.settings.signed_answers,
            clock: &*self.clock,
        };
        let delivery = Delivery::Answered(StatusCode::OK);
        expected.read(body).await.map_err(|error| match error {
            NoAnswer::Keys(_) => Failure::outage(delivery, format!("{url}: {}", Causes(&error))),
            error => Failure::misconfigured(delivery, format!("{url}: {error}")),
        })
    }

    /// Returns the URL of the endpoint. Without new metadata, the URL in the previous ones is used.
    async fn url(&self, issuer: &Arc<Issuer>) -> Result<Url, Failure> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let name = &issuer.name;
        let endpoints = issuer.keys.endpoints_with(|it| it.introspection.is_some()).await;
        let Some(endpoints) = endpoints else {
            let problem =
                format!("the metadata of {name} are unavailable, or have no token_endpoint");
            let unavailable = Failure::outage(Delivery::NotAuthenticated, problem);
            return self.found_url.load_full().map(|url| (*url).clone()).ok_or(unavailable);
        };
        let Some(url) = &endpoints.introspection else {
            let problem = format!(
                "the metadata of {name} have no usable introspection_endpoint: set introspection_url"
            );
            return Err(Failure::misconfigured(Delivery::NotAuthenticated, problem));
        };
        self.found_url.store(Some(Arc::new(url.clone())));
        Ok(url.clone())
    }

    /// Posts the question, and returns the body of a 200 answer. Repeats it once if the connection failed or
    /// broke, as a kept connection may that the server has closed.
    async fn post(&self, url: &Url, issuer: &Issuer, token: &Secret) -> Result<Vec<u8>, Failure> {
        let settings = &self.of.settings;
        let config = &issuer.rules.config;
        let request = ClientRequest {
            http: self.issuers.http(),
            auth: &self.of.client_auth,
            issuer: &issuer.name,
            url,
            accept: if settings.signed_answers == SignedAnswers::Required { SIGNED } else { PLAIN },
            limits: Limits { deadline: settings.timeout, max_bytes: MAX_BYTES },
            route: &config.key_access().route,
            now: self.clock.now(),
        };
        let send = || {
            request.send(|form| {
                form.append_pair("token", token.expose());
                form.append_pair("token_type_hint", "access_token");
            })
        };
        let broken = |error: &RequestError| {
            matches!(
                error,
                RequestError::NoAnswer(FetchError::Unconnected(_) | FetchError::Unreachable(_))
            )
        };
        let mut posted = send().await;
        if posted.as_ref().is_err_and(broken) {
            sleep(Backoff::REPEAT.wait(1)).await;
            posted = send().await;
        }
        match posted {
            Ok(answer) if answer.status == StatusCode::OK => Ok(answer.body),
            Ok(answer) => Err(Failure::of_status(url, answer.status, answer.retry_after)),
            Err(RequestError::NoCredentials(error)) => {
                Err(Failure::misconfigured(Delivery::NotAuthenticated, error.to_string()))
            }
            Err(RequestError::NoAnswer(error)) => {
                let problem = format!("{url} {error}");
                Err(match error {
                    FetchError::Unconnected(_) | FetchError::Ca(_) => {
                        Failure::outage(Delivery::NotConnected, problem)
                    }
                    FetchError::Unreachable(_) | FetchError::Deadline(_) => {
                        Failure::outage(Delivery::NoAnswer, problem)
                    }
                    _ => Failure::misconfigured(Delivery::NoAnswer, problem),
                })
            }
        }
    }

    /// Finds the URL of the endpoint. Fails if the metadata are unavailable or lack it.
    pub(super) async fn ready(&self) -> Result<(), AuthError> {
        let Some(issuer) = self.issuer() else { return Ok(()) };
        let found = self.url(&issuer).await;
        found.map(drop).map_err(|failure| {
            let is_outage = failure.kind == FailureKind::Outage;
            let is_new = self.outage.record_failure(&failure, self.clock.elapsed());
            telemetry::introspection_failed(&self.of.issuer, &failure, is_outage, is_new);
            AuthError::unavailable(COMPONENT, None, failure.problem)
        })
    }
}
