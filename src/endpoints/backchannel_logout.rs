//! `POST backchannel_logout`: the provider reports that a session ended (OpenID Connect Back-Channel Logout 1.0).

use bytes::Bytes;
use http::Response;

use super::parameters::{BodyFormat, Parameters};
use super::report_limits::Refusal;
use super::response::{Failure, INVALID_REQUEST};
use super::seen_tokens::RETRY_AFTER;
use super::{EndpointRequest, Inner};
use crate::error::{AuthError, InvalidToken};
use crate::replay::ReplayKey;
use crate::revocation::{Revocation, RevokeError};
use crate::support::crypto;
use crate::support::telemetry::{self, SecurityEventRecord};
use crate::validator::{EventToken, EventTokenKind, ExpectedEventToken, verify_event_token};

impl Inner {
    /// Revokes the session or the tokens of the subject in a logout token. Answers 200, also if the token was sent
    /// before.
    pub(super) async fn backchannel_logout(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Refusal> {
        let parameters = Parameters::from_body(incoming, BodyFormat::Form, &["logout_token"])?;
        let missing = "The parameter logout_token is missing.";
        let token = parameters.required("logout_token", missing)?;
        let expected = ExpectedEventToken {
            kind: EventTokenKind::Logout,
            issuer: None,
            audiences: &self.logout_audiences,
        };
        let (issuers, clock) = (self.auth.issuers(), self.clock());
        let verified = verify_event_token(issuers, clock, token, &expected).await;
        let verified = verified.map_err(|error| Refusal::of(token, error, failure));
        let verified = verified.and_then(|it| Ok((revocation(&it)?, it)));
        let refused = |refusal: &Refusal| record(None, outcome(&refusal.failure));
        let (revocation, token) = verified.inspect_err(refused)?;
        let revoked = self.revoke_once(&token, revocation).await;
        record(Some(&token), revoked.as_ref().copied().unwrap_or_else(outcome));
        revoked?;
        Ok(Response::new(Bytes::new()))
    }

    /// Puts the revocation of a token in force, unless an earlier delivery did. Returns the outcome for the log.
    async fn revoke_once(
        &self,
        token: &EventToken,
        revocation: Revocation,
    ) -> Result<&'static str, Failure> {
        let key = ReplayKey::new("logout token", [&*token.issuer.name, token.id()]);
        let mut progress = self.seen_tokens.progress(&key).await?;
        if progress.is_done {
            return Ok("repeated");
        }
        self.revoke(revocation).await?;
        progress.is_done = true;
        Ok("revoked")
    }

    /// Puts a revocation in force. If that fails, the sender is told to try again.
    pub(super) async fn revoke(&self, revocation: Revocation) -> Result<(), Failure> {
        let unavailable = |error: RevokeError| {
            AuthError::unavailable("revocation log", Some(RETRY_AFTER), error).into()
        };
        self.auth.revocations().revoke(revocation).await.map_err(unavailable)
    }
}

fn outcome(failure: &Failure) -> &'static str {
    if failure.is_unavailable() { "failed" } else { "refused" }
}

/// Logs and counts a logout token. One that was not verified is `None`.
fn record(token: Option<&EventToken>, outcome: &'static str) {
    let issuer = token.map(|token| &*token.issuer.name);
    let of = |id| [issuer.unwrap_or_default(), id];
    let subject = token.and_then(EventToken::subject);
    let subject = subject.and_then(|subject| crypto::pseudonym(&of(subject)));
    SecurityEventRecord {
        kind: "backchannel-logout",
        outcome,
        issuer,
        token: token.map(|token| crypto::short_digest(&of(token.id()))).as_deref(),
        subject: subject.as_deref(),
        event_type: None,
    }
    .record();
}

/// Returns what a logout token revokes. A session that began after the token was issued goes on, so a replay ends
/// nothing.
fn revocation(token: &EventToken) -> Result<Revocation, Failure> {
    let issuer = &*token.issuer.name;
    let revocation = match (token.session_id(), token.subject()) {
        (Some(session), Some(subject)) => Revocation::session(issuer, session).of_subject(subject),
        (Some(session), None) => Revocation::session(issuer, session),
        (None, Some(subject)) => Revocation::subject(issuer, subject),
        (None, None) => return Err(failure(InvalidToken::MissingClaim("sub").into())),
    };
    Ok(revocation.issued_before(token.issued_at))
}

/// Returns the failure for a logout token that is refused.
fn failure(error: AuthError) -> Failure {
    let AuthError::InvalidToken(fault) = &error else { return error.into() };
    telemetry::refused(error.reason(), &error);
    Failure::OAuth(INVALID_REQUEST, description(fault))
}

/// Returns the text for the administrator of the provider.
fn description(fault: &InvalidToken) -> &'static str {
    match fault {
        InvalidToken::Malformed(_) => "The logout token is malformed.",
        InvalidToken::Type => "The type of the logout token is wrong.",
        InvalidToken::Issuer => "This service does not know the issuer of the logout token.",
        InvalidToken::Audience => "The logout token is for another client.",
        InvalidToken::Expired => "The logout token has expired.",
        InvalidToken::NotYetValid => "The logout token is from the future.",
        InvalidToken::MissingClaim(_) | InvalidToken::MalformedClaim(_) => {
            "A claim of the logout token is missing, wrong, or not allowed."
        }
        InvalidToken::Decryption(_) => "The logout token cannot be decrypted.",
        _ => "The signature of the logout token is not valid.",
    }
}
