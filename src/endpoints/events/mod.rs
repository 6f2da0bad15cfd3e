//! `POST events`: security events that a provider pushes (RFC 8935), such as those of CAEP and RISC.

mod effect;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod poll;
mod stream;
mod subject;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use super::response::Failure;
use super::seen_tokens::{Delivery, RETRY_AFTER};
use super::{EndpointRequest, Inner};
use crate::clock::with_timeout;
use crate::error::{AuthError, InvalidToken};
use crate::replay::ReplayKey;
use crate::revocation::Revocation;
use crate::support::crypto;
use crate::support::media_type::media_type;
use crate::support::telemetry::{self, SecurityEventRecord};
use crate::validator::{
    EventToken, EventTokenKind, ExpectedEventToken, insecure_decode_claims, verify_event_token,
};
use effect::{Effect, kind_of};
use subject::{Subject, SubjectFault};

pub(super) use poll::Polling;
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

/// An event of a verified token, and what it means.
struct Event<'a> {
    event_type: &'a str,
    payload: &'a Value,
    subject: Option<&'a Value>,
    occurred_at: SystemTime,
    /// Still without their time.
    revocations: Vec<Revocation>,
}

impl Inner {
    /// Receives a pushed token. Answers 202, also for a token that was sent before.
    pub(super) async fn events(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let (stream, token) = self.pushed(incoming).inspect_err(|_| record_unverified(None))?;
        self.receive(stream, token, None).await?;
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
        check_authorization(stream, incoming)?;
        Ok((stream, token))
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

    /// Puts the revocations in force that the events of a token mean, and calls the handler of its stream. `id` is
    /// the `jti` under which a polled token came.
    async fn receive(
        &self,
        stream: &EventStream,
        token: &str,
        id: Option<&str>,
    ) -> Result<Delivery, Failure> {
        let expected = ExpectedEventToken {
            kind: EventTokenKind::SecurityEvent,
            issuer: Some(&stream.issuer),
            audiences: std::slice::from_ref(&stream.audience),
        };
        let (issuers, clock) = (self.auth.issuers(), self.clock());
        let verified = verify_event_token(issuers, clock, token, &expected).await;
        let verified = verified.map_err(failure).and_then(|token| match id {
            Some(id) if id != token.id() => {
                let problem = "The token came under another jti than its own.";
                Err(Failure::OAuth(INVALID_REQUEST, problem))
            }
            _ => Ok(token),
        });
        let token = verified.inspect_err(|failure| record_unverified(Some((stream, failure))))?;
        let claims = token.claims();
        let key = ReplayKey::new("security event token", [&*token.issuer.name, token.id()]);
        let delivery = self.seen_tokens.once(&key, self.process(stream, &token, &claims)).await?;
        if delivery == Delivery::Repeated {
            for (event_type, payload) in events_of(&claims) {
                record(&token, event_type, subject_of(&claims, payload), "repeated");
            }
        }
        Ok(delivery)
    }

    async fn process(
        &self,
        stream: &EventStream,
        token: &EventToken,
        claims: &Value,
    ) -> Result<(), Failure> {
        let events = events_of(claims).map(|(event_type, payload)| {
            let subject = subject_of(claims, payload);
            let occurred_at = occurred_at(payload, claims, token.issued_at);
            let revocations = revocations(token, event_type, payload, subject)
                .inspect_err(|_| record(token, event_type, subject, "refused"))?;
            Ok(Event { event_type, payload, subject, occurred_at, revocations })
        });
        // All are read first: a token with a fault changes nothing.
        for event in events.collect::<Result<Vec<_>, Failure>>()? {
            let outcome = if event.revocations.is_empty() { "passed_on" } else { "revoked" };
            let handled = self.handle(stream, token, &event).await;
            let outcome = if handled.is_ok() { outcome } else { "failed" };
            record(token, event.event_type, event.subject, outcome);
            handled?;
        }
        Ok(())
    }

    async fn handle(
        &self,
        stream: &EventStream,
        token: &EventToken,
        event: &Event<'_>,
    ) -> Result<(), Failure> {
        let Event { event_type, payload, subject, occurred_at, revocations } = event;
        for revocation in revocations {
            self.revoke(revocation.clone().issued_before(*occurred_at)).await?;
        }
        let event = SecurityEvent {
            issuer: &token.issuer.name,
            token_id: token.id(),
            event_type,
            subject: *subject,
            payload,
            occurred_at: *occurred_at,
            has_revoked: !revocations.is_empty(),
        };
        self.call_handler(stream, &event).await
    }

    async fn call_handler(
        &self,
        stream: &EventStream,
        event: &SecurityEvent<'_>,
    ) -> Result<(), Failure> {
        let Some(handler) = &stream.handler else { return Ok(()) };
        let handled = with_timeout(HANDLER_TIMEOUT, handler.handle(event)).await;
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
    let subject = subject.map(|it| crypto::pseudonym(&[issuer, &it.to_string()]));
    SecurityEventRecord {
        kind: kind_of(event_type),
        outcome,
        issuer: Some(issuer),
        token: Some(&crypto::pseudonym(&[issuer, token.id()])),
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

/// Checks that the request has the one header that was agreed for the stream.
fn check_authorization(stream: &EventStream, incoming: &EndpointRequest) -> Result<(), Failure> {
    let Some(expected) = &stream.authorization else { return Ok(()) };
    let mut values = incoming.head.headers.get_all(header::AUTHORIZATION).iter();
    let is_right =
        |value: &http::HeaderValue| crypto::equal(value.as_bytes(), expected.expose().as_bytes());
    match (values.next(), values.next()) {
        (Some(value), None) if is_right(value) => Ok(()),
        _ => Err(NOT_AUTHENTICATED),
    }
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
