//! Validation of tokens that report events: logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.6) and security
//! event tokens (RFC 8417 §2).

use std::iter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::encrypted::{self, Opened};
use super::id_token;
use super::jwks::is_vouched;
use super::jws::{Header, Jws, Typ, document};
use super::rules;
use super::verification::{Verification, finish};
use crate::clock::{Clock, unix_time};
use crate::config::AuthConfig;
use crate::error::{AuthError, InvalidToken};
use crate::identity::{first_text, numeric_date, text};
use crate::issuer::{Issuer, IssuerLookup, Issuers, Rules};
use crate::support::json::{Document, Value};

/// The event of a logout token.
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The expected kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventTokenKind {
    Logout,
    SecurityEvent,
}

/// The expected contents of a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedEventToken<'a> {
    pub(crate) kind: EventTokenKind,
    /// Its `iss`. `None`: any issuer of this service, which can report only its own sessions and users.
    pub(crate) issuer: Option<&'a str>,
    /// The names of this service, of which `aud` must have one.
    pub(crate) audiences: &'a [String],
}

/// A token whose signature and claims are valid.
pub(crate) struct EventToken {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) issued_at: SystemTime,
    document: Document,
}

impl EventToken {
    /// Returns the claims, as JSON.
    pub(crate) fn claims(&self) -> serde_json::Value {
        let text = self.document.root().object_text().unwrap_or_default();
        // The strict reader has read it, so this reader can.
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Returns `jti`.
    pub(crate) fn id(&self) -> &str {
        self.text("jti").unwrap_or_default()
    }

    /// Returns `sid`.
    pub(crate) fn session_id(&self) -> Option<&str> {
        self.text("sid")
    }

    /// Returns the subject as in the identities of this issuer: its claim, if the token has it, else `sub`.
    pub(crate) fn subject(&self) -> Option<&str> {
        let paths = &self.issuer.rules.config.claims.subject;
        let mapped = first_text(self.document.root(), paths).filter(|text| !text.is_empty());
        mapped.or_else(|| self.text("sub"))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.document.root().get(name)?.as_str().filter(|text| !text.is_empty())
    }
}

/// The reason why a token is not accepted.
#[derive(Debug)]
pub(crate) enum EventTokenError {
    Auth(AuthError),
    /// Its key is unknown, and the keys were not fetched since it arrived, because that is limited. It may be valid.
    KeyNotFetched,
}

impl From<AuthError> for EventTokenError {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

/// Returns whether a token is encrypted, by its form (RFC 7516 §3.1).
pub(crate) fn is_encrypted(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 4
}

/// Verifies a token. Waits for the issuer or its keys if necessary.
pub(crate) async fn verify_event_token(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &str,
    expected: &ExpectedEventToken<'_>,
) -> Result<EventToken, EventTokenError> {
    let max_bytes = AuthConfig::default().max_token_bytes;
    let open = || encrypted::open(token.as_bytes(), issuers, max_bytes, clock);
    let opened = is_encrypted(token).then(open).transpose().map_err(AuthError::from)?;
    let signed = opened.as_ref().map_or(token.as_bytes(), |opened| &opened.token);
    // The first and the last key set that were tried.
    let tried = Mutex::new(None);
    let verify = || match try_verify(issuers, clock, signed, opened.as_ref(), expected) {
        Ok(verification) => {
            if let Verification::NeedsKeys { tried: version, .. } = &verification {
                let mut tried = tried.lock().unwrap_or_else(PoisonError::into_inner);
                let first = tried.take().map_or_else(|| version.clone(), |(first, _)| first);
                *tried = Some((first, version.clone()));
            }
            verification
        }
        Err(fault) => Verification::Done(Err(fault.into())),
    };
    let verified = finish(verify).await;
    let tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    match verified {
        Err(AuthError::InvalidToken(InvalidToken::Key))
            if tried.is_some_and(|(first, last)| first.is_same(&last)) =>
        {
            Err(EventTokenError::KeyNotFetched)
        }
        verified => Ok(verified?),
    }
}

fn try_verify(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &[u8],
    opened: Option<&Opened>,
    expected: &ExpectedEventToken<'_>,
) -> Result<Verification<EventToken>, InvalidToken> {
    let jws = Jws::split(token, AuthConfig::default().max_token_bytes)?;
    let header = jws.header()?;
    let document = document(jws.payload()?)?;
    let (claims, now) = (document.root(), clock.now());
    let iss = rules::issuer_of(claims)?;
    if expected.issuer.is_some_and(|issuer| issuer != iss) {
        return Err(InvalidToken::Issuer);
    }
    let issuer = match issuers.find(iss) {
        // A trust domain is not the `iss` of anything.
        IssuerLookup::Found(issuer) if !issuer.rules.config.is_trust_domain => issuer,
        IssuerLookup::NotOpen(template, tenant) => {
            // Checked first: only a token without other faults may cause a call of the resolver.
            check(claims, &header, opened, expected, iter::once(template.rules()), clock)?;
            let is_vouched = is_vouched(&template, &tenant, &jws, &header, now)?;
            return Ok(Verification::NeedsIssuer { template, tenant, is_vouched });
        }
        IssuerLookup::Found(_) | IssuerLookup::Unknown => return Err(InvalidToken::Issuer),
    };
    let issued_at = check(claims, &header, opened, expected, issuer.all_rules(), clock)?;
    let signature = jws.signature()?;
    let query = header.key_query(&issuer.name, &issuer.rules, now);
    let check = issuer.keys.verify(&query, header.algorithm, jws.signed, &signature);
    Verification::of_signature(check, &issuer, |_, _| {
        Ok(EventToken { issuer: issuer.clone(), issued_at, document })
    })
}

/// Checks every rule that needs no key, and returns `iat`.
fn check<'r>(
    claims: Value<'_>,
    header: &Header,
    opened: Option<&Opened>,
    expected: &ExpectedEventToken<'_>,
    rules: impl Iterator<Item = &'r Rules> + Clone,
    clock: &dyn Clock,
) -> Result<SystemTime, InvalidToken> {
    if !rules.clone().all(|it| it.config.algorithms.contains(&header.algorithm)) {
        return Err(InvalidToken::Algorithm);
    }
    // Many providers encrypt access tokens only, so a token that is only signed is no fault.
    if opened.is_some() {
        encrypted::check(opened, rules.clone(), clock)?;
    }
    let leeway = rules.clone().map(|it| it.config.leeway).min().unwrap_or_default().as_secs_f64();
    let now = unix_time(clock.now());
    let expires = numeric_date(claims.get("exp"), "exp")?;
    let issued = numeric_date(claims.get("iat"), "iat")?;
    let issued = issued.ok_or(InvalidToken::MissingClaim("iat"))?;
    if expires.is_some_and(|expires| now >= expires + leeway) {
        return Err(InvalidToken::Expired);
    }
    required_text(claims, "jti")?;
    let events = claims.get("events").ok_or(InvalidToken::MissingClaim("events"))?;
    let malformed = InvalidToken::MalformedClaim("events");
    if !events.is_object() || !events.children().all(Value::is_object) {
        return Err(malformed);
    }
    match expected.kind {
        EventTokenKind::Logout => {
            check_type(header.typ, &[Typ::Logout, Typ::Absent, Typ::Jwt])?;
            check_logout(claims, expected, rules)?;
            expires.ok_or(InvalidToken::MissingClaim("exp"))?;
            if issued > now + leeway {
                return Err(InvalidToken::NotYetValid);
            }
        }
        EventTokenKind::SecurityEvent => {
            check_type(header.typ, &[Typ::SecurityEvent])?;
            rules::names_one_of(audience(claims)?, expected.audiences)?;
            events.children().next().ok_or(malformed)?;
        }
    }
    let since = Duration::try_from_secs_f64(issued).ok();
    let issued_at = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    issued_at.ok_or(InvalidToken::MalformedClaim("iat"))
}

/// Checks the rules for a logout token only. `nonce` is forbidden, so that no ID token is one.
fn check_logout<'r>(
    claims: Value<'_>,
    expected: &ExpectedEventToken<'_>,
    rules: impl Iterator<Item = &'r Rules> + Clone,
) -> Result<(), InvalidToken> {
    let is_own = |name: &str| id_token::is_own_audience(rules.clone(), name);
    let is_for = |client_id: &String| {
        id_token::check_audience(claims, client_id, expected.audiences, &is_own).is_ok()
    };
    audience(claims)?;
    if !expected.audiences.iter().any(is_for) {
        return Err(InvalidToken::Audience);
    }
    if claims.get("nonce").is_some() {
        return Err(InvalidToken::MalformedClaim("nonce"));
    }
    if claims.get("events").and_then(|events| events.get(LOGOUT)).is_none() {
        return Err(InvalidToken::MalformedClaim("events"));
    }
    let [sub, sid] = ["sub", "sid"].map(|name| match claims.get(name) {
        Some(_) => required_text(claims, name).map(|()| true),
        None => Ok(false),
    });
    match sub? | sid? {
        true => Ok(()),
        false => Err(InvalidToken::MissingClaim("sub")),
    }
}

fn check_type(typ: Typ, allowed: &[Typ]) -> Result<(), InvalidToken> {
    if allowed.contains(&typ) { Ok(()) } else { Err(InvalidToken::Type) }
}

fn audience(claims: Value<'_>) -> Result<Value<'_>, InvalidToken> {
    claims.get("aud").ok_or(InvalidToken::MissingClaim("aud"))
}

/// Checks that a claim is a text, and not an empty one.
fn required_text(claims: Value<'_>, name: &'static str) -> Result<(), InvalidToken> {
    match text(claims.get(name), name)? {
        Some("") => Err(InvalidToken::MalformedClaim(name)),
        Some(_) => Ok(()),
        None => Err(InvalidToken::MissingClaim(name)),
    }
}

/// Returns whether a token is accepted but for its signature, whose key is unknown. For the fuzz targets: the issuers
/// have no keys.
#[cfg(all(feature = "testing", feature = "endpoints"))]
pub(crate) fn lacks_only_the_key(
    issuers: &Issuers,
    clock: &dyn Clock,
    token: &[u8],
    expected: &ExpectedEventToken<'_>,
) -> bool {
    let verification = try_verify(issuers, clock, token, None, expected);
    assert!(!matches!(verification, Ok(Verification::Done(Ok(_)))), "accepted without a key");
    matches!(verification, Ok(Verification::NeedsKeys { .. }))
}
