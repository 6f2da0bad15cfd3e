//! The answer of an introspection endpoint: its form, its signature (RFC 9701), and the rules that an active token
//! must pass (RFC 7662 §4).

use std::time::{Duration, SystemTime};

use super::super::jws::{Jws, Typ, document};
use super::super::rules::{self, IntrospectionRules, ValidityPeriod};
use super::super::verification::{Verification, finish};
use crate::clock::{Clock, unix_time};
use crate::config::{IntrospectionSettings, SignedAnswers};
use crate::error::{AuthError, InvalidToken};
use crate::identity::{Identity, Provenance, Reading, numeric_date, text};
use crate::issuer::Issuer;
use crate::support::json::{Document, Fault, Value};
use crate::support::telemetry;

/// The largest answer, in bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// The age of a signed answer, at most, without the leeway. It was made after the question.
const MAX_AGE: f64 = 10.0;

/// The lifetime of an identity whose answer has no `exp`. It ends streams and what is derived from the token.
const LIFETIME_WITHOUT_EXPIRY: Duration = Duration::from_secs(3600);

/// The member with the answer about the token, in a signed answer (RFC 9701 §5).
const SIGNED_MEMBER: &str = "token_introspection";

/// The reason why a body is not an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("{0}")]
    Invalid(&'static str),
    #[error("its signed answer is refused: {0}")]
    Signature(InvalidToken),
    /// The keys that verify the answer are not available.
    #[error("its signed answer cannot be verified: {0}")]
    Keys(AuthError),
}

/// The expected properties of an answer.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a Issuer,
    pub(super) client_id: &'a str,
    pub(super) signed: SignedAnswers,
    pub(super) clock: &'a dyn Clock,
}

impl Expected<'_> {
    /// Returns the members about the token if it is active, or `None` if it is not.
    pub(super) async fn read(&self, body: Vec<u8>) -> Result<Option<Document>, NoAnswer> {
        let is_plain = body.trim_ascii_start().first() == Some(&b'{');
        let members = match self.signed {
            SignedAnswers::Required if is_plain => {
                let problem = "its answer is not signed, although `signed_answers` requires that: switch signed answers on for this client at the provider, or accept plain ones";
                return Err(NoAnswer::Invalid(problem));
            }
            _ if is_plain => Document::parse(body).map_err(|fault| {
                NoAnswer::Invalid(match fault {
                    Fault::Syntax => "its answer is not a JSON object",
                    Fault::Limit => "its answer has too many members, or is nested too deeply",
                    Fault::Duplicate => "a member of its answer occurs twice",
                })
            })?,
            _ => self.verified(body.trim_ascii()).await?,
        };
        // Any other value is no answer: neither that the token is good, nor that it is not (RFC 7662 §2.2).
        match members.root().get("active").and_then(Value::as_bool) {
            Some(true) => Ok(Some(members)),
            Some(false) => Ok(None),
            None => Err(NoAnswer::Invalid("its answer has no boolean `active`")),
        }
    }

    /// Returns the members in a signed answer.
    async fn verified(&self, answer: &[u8]) -> Result<Document, NoAnswer> {
        let verify = || match self.verify(answer) {
            Ok(verification) => verification,
            Err(fault) => Verification::Done(Err(fault.into())),
        };
        finish(verify).await.map_err(|error| match error {
            AuthError::InvalidToken(fault) => NoAnswer::Signature(fault),
            error => NoAnswer::Keys(error),
        })
    }

    pub(super) fn verify(&self, answer: &[u8]) -> Result<Verification<Document>, InvalidToken> {
        let jws = Jws::split(answer, MAX_BYTES)?;
        let header = jws.header()?;
        // A token of another kind could be about the token, too, but says nothing about its state.
        if header.typ != Typ::Introspection {
            return Err(InvalidToken::Type);
        }
        let mut rules = self.issuer.all_rules();
        if !rules.all(|it| it.config.algorithms.contains(&header.algorithm)) {
            return Err(InvalidToken::Algorithm);
        }
        let payload = document(jws.payload()?)?;
        let members = self.signed_members(payload.root())?;
        let (signature, now) = (jws.signature()?, self.clock.now());
        let query = header.key_query(&self.issuer.name, &self.issuer.rules, now);
        let check = self.issuer.keys.verify(&query, header.algorithm, jws.signed, &signature);
        Verification::of_signature(check, self.issuer, |_, _| Ok(members))
    }

    /// Checks the payload of a signed answer, and returns the members about the token. The same names outside
    /// mean nothing.
    pub(super) fn signed_members(&self, payload: Value<'_>) -> Result<Document, InvalidToken> {
        if rules::issuer_of(payload)? != &*self.issuer.name {
            return Err(InvalidToken::Issuer);
        }
        let is_own = |name: Value<'_>| name.as_str() == Some(self.client_id);
        let aud = payload.get("aud").ok_or(InvalidToken::MissingClaim("aud"))?;
        let names_client = is_own(aud) || (aud.is_list() && aud.children().any(is_own));
        if !names_client {
            return Err(InvalidToken::Audience);
        }
        let issued = numeric_date(payload.get("iat"), "iat")?;
        let issued = issued.ok_or(InvalidToken::MissingClaim("iat"))?;
        let (now, leeway) = (unix_time(self.clock.now()), self.issuer.rules.config.leeway);
        let leeway = leeway.as_secs_f64();
        if issued > now + leeway || issued + MAX_AGE + leeway < now {
            return Err(InvalidToken::MalformedClaim("iat"));
        }
        let missing = InvalidToken::MissingClaim(SIGNED_MEMBER);
        let members = payload.get(SIGNED_MEMBER).and_then(Value::object_text).ok_or(missing)?;
        document(members)
    }
}

/// An active token that passed every rule.
pub(super) struct Active {
    pub(super) identity: Identity,
    pub(super) lifetime: ValidityPeriod,
    /// `exp`, if the answer has it.
    pub(super) expires_at: Option<SystemTime>,
}

impl Active {
    /// Applies the rules of the issuer to the members about an active token.
    pub(super) fn read(
        members: Document,
        issuer: &Issuer,
        settings: &IntrospectionSettings,
        now: SystemTime,
    ) -> Result<Self, InvalidToken> {
        let (claims, rules) = (members.root(), &issuer.rules);
        let ends_without_expiry = now + LIFETIME_WITHOUT_EXPIRY;
        let lifetime = rules::check_introspected(
            claims,
            rules,
            &IntrospectionRules {
                issuer: &issuer.name,
                needs_audience: !settings.insecure_accept_missing_audience,
                ends_without_expiry,
                now,
            },
        )?;
        let has_expiry = numeric_date(claims.get("exp"), "exp")?.is_some();
        text(claims.get("username"), "username")?;
        let reading = Reading {
            issuer: issuer.name.clone(),
            mapping: &rules.config.claims,
            provenance: Provenance::Introspected,
            legacy_service_tokens: rules.config.legacy_service_tokens,
            logged: Some(&rules.logged),
        };
        let identity = reading.identity_until(members, Some(ends_without_expiry))?;
        if identity.has_group_overage() {
            telemetry::groups_missing(&issuer.name, rules.logged.is_first("overage"));
        }
        let expires_at = has_expiry.then(|| identity.expires_at());
        Ok(Self { identity, lifetime, expires_at })
    }
}
