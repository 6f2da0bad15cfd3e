//! `POST events`: security events that a provider pushes (RFC 8935), such as those of CAEP and RISC.

mod effect;
mod stream;
mod subject;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use super::backchannel_logout::RETRY_AFTER;
use super::response::Failure;
use super::{EndpointRequest, Inner};
use crate::clock::with_timeout;
use crate::error::{AuthError, InvalidToken};
use crate::replay::ReplayKey;
use crate::revocation::Revocation;
use crate::support::crypto;
use crate::support::media_type::media_type;
use crate::support::telemetry;
use crate::validator::{
    EventToken, EventTokenKind, ExpectedEventToken, insecure_decode_claims, verify_event_token,
};
use effect::Effect;
use subject::{Subject, SubjectFault};

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

impl Inner {
    /// Puts the revocations in force that the events of a token mean, and calls the handler of its stream. Answers
    /// 202, also for a token that was sent before.
    pub(super) async fn events(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        if media_type(&incoming.head.headers) != MEDIA_TYPE {
            let problem = "The body must be application/secevent+jwt.";
            return Err(Failure::OAuth(INVALID_REQUEST, problem));
        }
        let not_a_token = |_| Failure::OAuth(INVALID_REQUEST, "The body is not a token.");
        let token = std::str::from_utf8(incoming.body.trim_ascii()).map_err(not_a_token)?;
        let stream = self.event_stream(token)?;
        check_authorization(stream, incoming)?;
        let expected = ExpectedEventToken {
            kind: EventTokenKind::SecurityEvent,
            issuer: Some(&stream.issuer),
            audiences: std::slice::from_ref(&stream.audience),
        };
        let (issuers, clock) = (self.auth.issuers(), self.clock());
        let token = verify_event_token(issuers, clock, token, &expected).await.map_err(failure)?;
        let key = ReplayKey::new("security event token", [&*token.issuer.name, token.id()]);
        if !self.seen_tokens.contains(&key) {
            self.process(stream, &token).await?;
            self.seen_tokens.insert(key);
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }

    /// Returns the stream of a token, which is not verified yet.
    fn event_stream(&self, token: &str) -> Result<&EventStream, Failure> {
        #[derive(serde::Deserialize)]
        struct Claims {
            iss: String,
        }
        if let [only] = &*self.event_streams {
            return Ok(only);
        }
        let claims: Claims = insecure_decode_claims(token).map_err(|it| failure(it.into()))?;
        let stream = self.event_streams.iter().find(|stream| stream.issuer == claims.iss);
        stream.ok_or(UNKNOWN_ISSUER)
    }

    async fn process(&self, stream: &EventStream, token: &EventToken) -> Result<(), Failure> {
        let claims = token.claims();
        let events = claims.get("events").and_then(Value::as_object).into_iter().flatten();
        let events = events.map(|(event_type, payload)| {
            let in_payload = || payload.get("sub_id").or_else(|| payload.get("subject"));
            let subject = claims.get("sub_id").or_else(in_payload);
            let occurred_at = occurred_at(payload, &claims, token.issued_at);
            let revocations = revocations(token, event_type, payload, subject)?;
            Ok((event_type, payload, subject, occurred_at, revocations))
        });
        // All are read first: a token with a fault changes nothing.
        let events = events.collect::<Result<Vec<_>, Failure>>()?;
        for (event_type, payload, subject, occurred_at, revocations) in events {
            let has_revoked = !revocations.is_empty();
            for revocation in revocations {
                self.revoke(revocation.issued_before(occurred_at)).await?;
            }
            telemetry::security_event(&token.issuer.name, event_type, has_revoked);
            let event = SecurityEvent {
                issuer: &token.issuer.name,
                token_id: token.id(),
                event_type,
                subject,
                payload,
                occurred_at,
                has_revoked,
            };
            self.call_handler(stream, &event).await?;
        }
        Ok(())
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
    let subject = Subject::read(subject, &token.issuer.name, token.issuer.tenant.as_ref());
    let subject = subject.map_err(|fault| match fault {
        SubjectFault::Malformed => {
            Failure::OAuth(INVALID_REQUEST, "The subject of the event is malformed.")
        }
        SubjectFault::Foreign => {
            Failure::OAuth(ACCESS_DENIED, "The subject belongs to another issuer or tenant.")
        }
    })?;
    Ok(effect.revocations(&token.issuer.name, &subject))
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
