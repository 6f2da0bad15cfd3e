//! `POST events`: security events that a provider pushes (RFC 8935), such as those of CAEP and RISC.

mod effect;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod poll;
mod polling;
mod stream;
mod subject;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::report_limits::Refusal;
use super::response::Failure;
use super::seen_tokens::{Progress, RETRY_AFTER};
use super::{Endpoint, EndpointRequest, Inner};
use crate::clock::with_timeout;
use crate::error::{AuthError, InvalidToken};
use crate::replay::ReplayKey;
use crate::revocation::Revocation;
use crate::support::crypto;
use crate::support::media_type::media_type;
use crate::support::secret::Secret;
use crate::support::telemetry::{self, SecurityEventRecord};
use crate::validator::{
    EventToken, EventTokenKind, ExpectedEventToken, insecure_decode_claims, verify_event_token,
};
use effect::{Effect, kind_of};
use subject::{Subject, SubjectFault};

pub(super) use polling::Polling;
pub use stream::{EventHandler, EventStream, SecurityEvent};

/// The media type of a security event token (RFC 8417 §7.2).
const MEDIA_TYPE: &str = "application/secevent+jwt";

/// The longest time that an [`EventHandler`] may take.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(5);

// The error codes of RFC 8935 §2.4.
const INVALID_REQUEST: &str = "invalid_request";
const INVALID_KEY: &str = "invalid_key";
const INVALID_ISSUER: &str = "invalid_issuer";
const INVALID_AUDIENCE: &str = "invalid_audience";
const AUTHENTICATION_FAILED: &str = "authentication_failed";
const ACCESS_DENIED: &str = "access_denied";

const UNKNOWN_ISSUER: Failure =
    Failure::OAuth(INVALID_ISSUER, "This service has no event stream of this issuer.");
const NOT_AUTHENTICATED: Failure =
    Failure::OAuth(AUTHENTICATION_FAILED, "The Authorization header is missing or wrong.");

/// Whether a token was handled by this delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    First,
    Repeated,
}

/// A verified token, and what it means.
struct Report {
    token: EventToken,
    key: ReplayKey,
    events: Vec<Event>,
}

struct Event {
    event_type: String,
    payload: Value,
    subject: Option<Value>,
    occurred_at: SystemTime,
    revocations: Vec<Revocation>,
}

impl Inner {
    /// Receives a pushed token. Answers 202, also for a token that was sent before.
    pub(super) async fn events(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Refusal> {
        let (stream, token) = self.pushed(incoming).inspect_err(|_| record_unverified(None))?;
        let report = self.read(stream, token, None).await?;
        let mut progress = self.seen_tokens.progress(&report.key).await?;
        self.put_in_force(&report, &mut progress).await?;
        self.pass_on(stream, &report, &mut progress).await?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }

    /// Returns a pushed token, which is not verified yet, and its stream.
    fn pushed<'r>(
        &self,
        incoming: &'r EndpointRequest,
    ) -> Result<(&EventStream, &'r str), Failure> {
        if media_type(&incoming.head.headers) != MEDIA_TYPE {
            let problem = "The body must be application/secevent+jwt.";
            return Err(Failure::OAuth(INVALID_REQUEST, problem));
        }
        let not_a_token = |_| Failure::OAuth(INVALID_REQUEST, "The body is not a token.");
        let token = std::str::from_utf8(incoming.body.trim_ascii()).map_err(not_a_token)?;
        let stream = self.event_stream(token)?;
        let is_right = |expected| has_authorization(&incoming.head.headers, expected);
        match stream.authorization.as_ref().is_none_or(is_right) {
            true => Ok((stream, token)),
            false => Err(NOT_AUTHENTICATED),
        }
    }

    /// Returns whether a request has the header that was agreed for a stream.
    pub(super) fn has_stream_authorization(&self, endpoint: Endpoint, head: &Parts) -> bool {
        let mut streams = self.event_streams.iter().filter(|stream| stream.url.is_none());
        let has = |stream: &EventStream| {
            let expected = stream.authorization.as_ref();
            expected.is_some_and(|it| has_authorization(&head.headers, it))
        };
        endpoint == Endpoint::Events && streams.any(has)
    }

    /// Returns the stream of a pushed token, which is not verified yet.
    fn event_stream(&self, token: &str) -> Result<&EventStream, Failure> {
        #[derive(serde::Deserialize)]
        struct Claims {
            iss: String,
        }
        let mut streams = self.event_streams.iter().filter(|stream| stream.url.is_none());
        if let (Some(only), None) = (streams.next(), streams.next()) {
            return Ok(only);
        }
        let claims: Claims = insecure_decode_claims(token).map_err(|it| failure(it.into()))?;
        let is_of = |stream: &&EventStream| stream.url.is_none() && stream.issuer == claims.iss;
        self.event_streams.iter().find(is_of).ok_or(UNKNOWN_ISSUER)
    }

    /// Verifies a token of a stream and reads its events. `id` is the `jti` under which a polled token came.
    async fn read(
        &self,
        stream: &EventStream,
        token: &str,
        id: Option<&str>,
    ) -> Result<Report, Refusal> {
        let expected = ExpectedEventToken {
            kind: EventTokenKind::SecurityEvent,
            issuer: Some(&stream.issuer),
            audiences: std::slice::from_ref(&stream.audience),
        };
        let (issuers, clock) = (self.auth.issuers(), self.clock());
        let verified = verify_event_token(issuers, clock, token, &expected).await;
        let verified = verified.map_err(|error| Refusal::of(token, error, failure));
        let verified = verified.and_then(|token| match id {
            Some(id) if id != token.id() => {
                let problem = "The token came under another jti than its own.";
                Err(Failure::OAuth(INVALID_REQUEST, problem).into())
            }
            _ => Ok(token),
        });
        let refused = |refusal: &Refusal| record_unverified(Some((stream, &refusal.failure)));
        let token = verified.inspect_err(refused)?;
        Ok(Report::read(token)?)
    }

    /// Puts the revocations of a report in force, unless an earlier delivery did.
    async fn put_in_force(&self, report: &Report, progress: &mut Progress) -> Result<(), Failure> {
        if progress.is_in_force {
            return Ok(());
        }
        let revocations = report.events.iter().flat_map(|event| &event.revocations);
        // All are tried: one that cannot be stored is in force in this process.
        let revoked = join_all(revocations.map(|it| self.revoke(it.clone()))).await;
        let revoked = revoked.into_iter().collect::<Result<(), Failure>>();
        if revoked.is_err() && !std::mem::replace(&mut progress.has_failed, true) {
            report.events.iter().for_each(|event| report.record(event, "failed"));
        }
        revoked?;
        (progress.is_in_force, progress.has_failed) = (true, false);
        Ok(())
    }

    /// Calls the handler of a stream for each event that it has not accepted yet.
    async fn pass_on(
        &self,
        stream: &EventStream,
        report: &Report,
        progress: &mut Progress,
    ) -> Result<Delivery, Failure> {
        if progress.is_done {
            report.events.iter().for_each(|event| report.record(event, "repeated"));
            return Ok(Delivery::Repeated);
        }
        for event in report.events.iter().skip(progress.handled) {
            let handled = self.call_handler(stream, report, event).await;
            if handled.is_err() && !std::mem::replace(&mut progress.has_failed, true) {
                report.record(event, "failed");
            }
            handled?;
            (progress.handled, progress.has_failed) = (progress.handled + 1, false);
            let outcome = if event.revocations.is_empty() { "passed_on" } else { "revoked" };
            report.record(event, outcome);
        }
        progress.is_done = true;
        Ok(Delivery::First)
    }

    async fn call_handler(
        &self,
        stream: &EventStream,
        report: &Report,
        event: &Event,
    ) -> Result<(), Failure> {
        let Some(handler) = &stream.handler else { return Ok(()) };
        let event = SecurityEvent {
            issuer: &report.token.issuer.name,
            token_id: report.token.id(),
            event_type: &event.event_type,
            subject: event.subject.as_ref(),
            payload: &event.payload,
            occurred_at: event.occurred_at,
            has_revoked: !event.revocations.is_empty(),
        };
        let handled = with_timeout(HANDLER_TIMEOUT, handler.handle(&event)).await;
        let handled = handled.unwrap_or_else(|| Err("it did not return within 5 s".into()));
        let (outage, elapsed) = (&self.outages.event_handler, || self.auth.clock().elapsed());
        match handled {
            Ok(()) => {
                if outage.record_success(elapsed) {
                    telemetry::store_recovered("handler of security events");
                }
                Ok(())
            }
            Err(error) => {
                telemetry::event_handler_failed(&*error, outage.record_failure(&error, elapsed()));
                Err(AuthError::unavailable("event handler", Some(RETRY_AFTER), error).into())
            }
        }
    }
}

impl Report {
    /// Reads all events of a token: one with a fault changes nothing.
    fn read(token: EventToken) -> Result<Self, Failure> {
        let claims = token.claims();
        let events = events_of(&claims).map(|(event_type, payload)| {
            let subject = subject_of(&claims, payload);
            let occurred_at = occurred_at(payload, &claims, token.issued_at);
            let revocations = revocations(&token, event_type, payload, subject)
                .inspect_err(|_| record(&token, event_type, subject, "refused"))?;
            Ok(Event {
                event_type: event_type.clone(),
                payload: payload.clone(),
                subject: subject.cloned(),
                occurred_at,
                revocations: revocations
                    .into_iter()
                    .map(|it| it.issued_before(occurred_at))
                    .collect(),
            })
        });
        let events = events.collect::<Result<Vec<_>, Failure>>()?;
        let key = ReplayKey::new("security event token", [&*token.issuer.name, token.id()]);
        Ok(Self { token, key, events })
    }

    fn record(&self, event: &Event, outcome: &'static str) {
        record(&self.token, &event.event_type, event.subject.as_ref(), outcome);
    }
}

fn events_of(claims: &Value) -> impl Iterator<Item = (&String, &Value)> {
    claims.get("events").and_then(Value::as_object).into_iter().flatten()
}

fn subject_of<'a>(claims: &'a Value, payload: &'a Value) -> Option<&'a Value> {
    let in_payload = || payload.get("sub_id").or_else(|| payload.get("subject"));
    claims.get("sub_id").or_else(in_payload)
}

/// Logs and counts an event of a verified token.
fn record(token: &EventToken, event_type: &str, subject: Option<&Value>, outcome: &'static str) {
    let issuer = &*token.issuer.name;
    let subject = subject.and_then(|it| crypto::pseudonym(&[issuer, &it.to_string()]));
    SecurityEventRecord {
        kind: kind_of(event_type),
        outcome,
        issuer: Some(issuer),
        token: Some(&crypto::short_digest(&[issuer, token.id()])),
        subject: subject.as_deref(),
        event_type: Some(event_type),
    }
    .record();
}

/// Logs and counts a token that was not verified: it is refused, or there are no keys for it.
fn record_unverified(cause: Option<(&EventStream, &Failure)>) {
    let is_unavailable = cause.is_some_and(|(_, failure)| failure.is_unavailable());
    SecurityEventRecord {
        kind: "unverified",
        outcome: if is_unavailable { "failed" } else { "refused" },
        issuer: cause.map(|(stream, _)| &*stream.issuer),
        ..SecurityEventRecord::default()
    }
    .record();
}

/// Returns whether there is one header `Authorization`, with this value.
fn has_authorization(headers: &HeaderMap, expected: &Secret) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let is_right =
        |value: &HeaderValue| crypto::equal(value.as_bytes(), expected.expose().as_bytes());
    matches!((values.next(), values.next()), (Some(value), None) if is_right(value))
}

/// Returns the revocations that an event means, still without their time.
fn revocations(
    token: &EventToken,
    event_type: &str,
    payload: &Value,
    subject: Option<&Value>,
) -> Result<Vec<Revocation>, Failure> {
    let effect = Effect::of(event_type, payload);
    let (Some(subject), true) = (subject, effect != Effect::None) else { return Ok(Vec::new()) };
    let subjects = Subject::read(subject, &token.issuer.name, token.issuer.tenant.as_ref());
    let subjects = subjects.map_err(|fault| match fault {
        SubjectFault::Malformed => {
            Failure::OAuth(INVALID_REQUEST, "The subject of the event is malformed.")
        }
        SubjectFault::Foreign => {
            Failure::OAuth(ACCESS_DENIED, "The subject belongs to another issuer or tenant.")
        }
    })?;
    let of = |subject| effect.revocations(&token.issuer.name, &subject);
    Ok(subjects.into_iter().flat_map(of).collect())
}

/// Returns the time of an event: its own, that of the token's events, or that of the token, which it cannot follow.
fn occurred_at(payload: &Value, claims: &Value, issued_at: SystemTime) -> SystemTime {
    let stated = payload.get("event_timestamp").or_else(|| claims.get("toe"));
    let since = stated.and_then(Value::as_f64).and_then(|it| Duration::try_from_secs_f64(it).ok());
    let time = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    time.map_or(issued_at, |time| time.min(issued_at))
}

/// Returns the failure for a token that is refused.
fn failure(error: AuthError) -> Failure {
    let AuthError::InvalidToken(fault) = &error else { return error.into() };
    telemetry::refused(error.reason(), &error);
    let (code, description) = match fault {
        InvalidToken::Issuer => return UNKNOWN_ISSUER,
        InvalidToken::Audience => (INVALID_AUDIENCE, "The token is for another receiver."),
        InvalidToken::Key
        | InvalidToken::Signature
        | InvalidToken::Algorithm
        | InvalidToken::Decryption(_) => {
            (INVALID_KEY, "The signature or encryption of the token is not valid.")
        }
        InvalidToken::Type => (INVALID_REQUEST, "The typ of the token must be secevent+jwt."),
        InvalidToken::Expired => (INVALID_REQUEST, "The token has expired."),
        InvalidToken::MissingClaim(_) | InvalidToken::MalformedClaim(_) => {
            (INVALID_REQUEST, "A claim of the token is missing or wrong.")
        }
        _ => (INVALID_REQUEST, "The token is malformed."),
    };
    Failure::OAuth(code, description)
}
