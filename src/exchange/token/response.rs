//! The parser for answers of the token endpoint and for the claims of their JWTs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{AccessToken, CacheStatus, MAX_LIFETIME, TokenData, random_due_fraction};
use crate::clock::{Clock, unix_time};
use crate::exchange::ExchangeError;
use crate::identity::{ClaimsMapping, Identity, Provenance, Reading, first_text};
use crate::support::base64url;
use crate::support::json::{Document, Fault, Value};
use crate::support::secret::Secret;

impl AccessToken {
    /// Parses a successful answer. A `null` member counts as absent.
    pub(crate) fn parse(body: &[u8], clock: &dyn Clock) -> Result<Self, ExchangeError> {
        let invalid = ExchangeError::InvalidAnswer;
        let document = Document::parse(body).map_err(|fault| {
            invalid(match fault {
                Fault::Syntax => "is not a JSON object",
                Fault::Limit => "has too many members or is nested too deeply",
                Fault::Duplicate => "has a duplicate member",
            })
        })?;
        let member = |name| document.root().get(name).filter(|value| !value.is_null());
        let text = |name| match member(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(invalid("has a member of a wrong type")),
        };
        let token = text("access_token")?.filter(|token| !token.is_empty());
        let token = token.ok_or(invalid("has no access_token"))?;
        let kind = text("token_type")?.ok_or(invalid("has no token_type"))?;
        let bearer = kind.eq_ignore_ascii_case("bearer");
        if !bearer && !kind.eq_ignore_ascii_case("n_a") {
            return Err(invalid("has a token_type that is neither Bearer nor N_A"));
        }
        let scopes = text("scope")?.map(str::parse).transpose();
        let expires_in = member("expires_in")
            .map(|value| read_seconds(value).ok_or(invalid("has an invalid expires_in")));
        let refresh_token = text("refresh_token")?.filter(|token| !token.is_empty());
        let token = Secret::from(token);
        let lifetime = expires_in.transpose()?.or_else(|| until_exp(&token, clock.now()));
        let data = TokenData {
            token,
            bearer,
            issued_type: text("issued_token_type")?.map(str::to_owned),
            scopes: scopes.map_err(|_| invalid("has an invalid scope"))?,
            refresh_token: refresh_token.map(Secret::from),
            id_token: text("id_token")?.map(Secret::from),
            received: clock.elapsed(),
            age_when_received: Duration::ZERO,
            lifetime,
            max_ttl: MAX_LIFETIME,
            due_fraction: random_due_fraction(),
        };
        Ok(Self { data: Arc::new(data), status: CacheStatus::Miss, remaining_ttl: None })
    }

    /// Returns whether subject and tenant are equal, as far as both tokens have them. Returns false if a
    /// token is a JWT that cannot be read. A session must not change its user.
    pub(crate) fn has_same_subject_as(&self, other: &Self, mapping: &ClaimsMapping) -> bool {
        has_same_subject(self.secret(), other.secret(), mapping)
    }
}

/// Compares the subjects and tenants of two tokens, as [`AccessToken::has_same_subject_as`] does.
pub(crate) fn has_same_subject(one: &Secret, other: &Secret, mapping: &ClaimsMapping) -> bool {
    have_same(one, other, |one, other| {
        [&mapping.subject, &mapping.tenant_id].into_iter().all(|paths| {
            let (one, other) = (first_text(one, paths), first_text(other, paths));
            one.is_none() || other.is_none() || one == other
        })
    })
}

/// Returns whether a claim is equal, if both tokens have it.
#[cfg(feature = "endpoints")]
pub(crate) fn has_same_claim(one: &Secret, other: &Secret, name: &str) -> bool {
    have_same(one, other, |one, other| match (one.get(name), other.get(name)) {
        (Some(one), Some(other)) => one.as_str() == other.as_str(),
        _ => true,
    })
}

/// Compares the claims of two tokens. Only JWTs have any; one that cannot be read is equal to none.
fn have_same(
    one: &Secret,
    other: &Secret,
    are_same: impl FnOnce(Value<'_>, Value<'_>) -> bool,
) -> bool {
    match (claims_of(one), claims_of(other)) {
        (Ok(Some(one)), Ok(Some(other))) => are_same(one.root(), other.root()),
        (one, other) => one.is_ok() && other.is_ok(),
    }
}

/// Returns whether a token is a JWT whose claims can be read without keys or questions: it is neither opaque nor
/// encrypted.
#[cfg(feature = "endpoints")]
pub(crate) fn has_readable_claims(token: &Secret) -> bool {
    let parts: Vec<_> = token.expose().split('.').collect();
    let header = parts.first().and_then(|part| Document::parse(base64url::decode(part)?).ok());
    parts.len() == 3 && header.is_some() && matches!(claims_of(token), Ok(Some(_)))
}

/// Returns the subject of a JWT, *not verified*: the token came directly from the provider.
pub(crate) fn subject_of(token: &Secret, mapping: &ClaimsMapping) -> Option<String> {
    let claims = claims_of(token).ok()??;
    first_text(claims.root(), &mapping.subject).map(str::to_owned)
}

/// Returns a claim of a JWT that is a text, *not verified*.
#[cfg(feature = "endpoints")]
pub(crate) fn text_claim(token: &Secret, name: &str) -> Option<String> {
    claims_of(token).ok()??.root().get(name)?.as_str().map(str::to_owned)
}

/// Returns the identity in a token that was verified before. `None` if its claims cannot be read.
#[cfg(feature = "endpoints")]
pub(crate) fn identity_of(token: &Secret, mapping: &ClaimsMapping) -> Option<Identity> {
    let claims = claims_of(token).ok()??;
    let issuer = claims.root().get("iss")?.as_str()?.into();
    let provenance = Provenance::Verified;
    Reading { issuer, mapping, provenance, legacy_service_tokens: false, logged: None }
        .identity(claims)
        .ok()
}

/// Returns the identity that a JWT claims, *not verified*, to look for its revocation. Read leniently, as the validator
/// of any service may: without `exp`, and with the client as subject if there is no other.
pub(crate) fn claimed_identity(token: &Secret, mapping: &ClaimsMapping) -> Option<Identity> {
    let claims = claims_of(token).ok()??;
    let issuer = claims.root().get("iss")?.as_str()?.into();
    let provenance = Provenance::Introspected;
    Reading { issuer, mapping, provenance, legacy_service_tokens: true, logged: None }
        .identity_until(claims, Some(SystemTime::UNIX_EPOCH))
        .ok()
}

/// Returns the claims of a JWT, *not verified*, or `None` for a token of another kind.
///
/// # Errors
/// The token is a JWT whose claims this crate cannot read. Another service may be able to read them.
pub(crate) fn claims_of(token: &Secret) -> Result<Option<Document>, Fault> {
    let text = token.expose();
    let mut parts = text.split('.').map(base64url::decode);
    let (header, payload) = (parts.next().flatten(), parts.next().flatten());
    let Some(payload) = payload else { return Ok(None) };
    let is_object = |part: &[u8]| part.trim_ascii_start().starts_with(b"{");
    // A JWE has five parts; its second part is an encrypted key, which may begin with any byte.
    let is_jwt = text.split('.').count() == 3
        && is_object(&payload)
        && header.is_some_and(|header| is_object(&header));
    match Document::parse(payload) {
        Ok(claims) => Ok(Some(claims)),
        Err(Fault::Duplicate) => Err(Fault::Duplicate),
        Err(fault) if is_jwt => Err(fault),
        Err(_) => Ok(None),
    }
}

/// Reads a number of seconds. Some servers send it as a string.
fn read_seconds(value: Value<'_>) -> Option<Duration> {
    let number: f64 = match value.as_str() {
        Some(text) => text.trim().parse().ok()?,
        None => value.as_f64()?,
    };
    number.is_finite().then(|| Duration::from_secs_f64(number.clamp(0.0, 1e9)))
}

/// Returns the time until the `exp` of a JWT, if it has one. Returns zero for a JWT that cannot be
/// read: another service may read an `exp` in the past.
pub(crate) fn until_exp(token: &Secret, now: SystemTime) -> Option<Duration> {
    let Ok(claims) = claims_of(token) else { return Some(Duration::ZERO) };
    let left = claims?.root().get("exp")?.as_f64()? - unix_time(now);
    left.is_finite().then(|| Duration::from_secs_f64(left.clamp(0.0, 1e9)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn valid_answers_are_parsed_and_invalid_rejected() {
        let cases = [
            (r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#, Some(3600), true),
            (r#"{"access_token":"a","token_type":"BEARER","expires_in":"60"}"#, Some(60), true),
            (r#"{"access_token":"a","token_type":"N_A","x":[1],"scope":null}"#, None, false),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":null}"#, None, true),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":-5}"#, Some(0), true),
        ];
        for (body, lifetime, bearer) in cases {
            let token = parse(body).unwrap();
            assert_eq!(token.lifetime().map(|life| life.as_secs()), lifetime, "{body}");
            assert_eq!(token.is_bearer(), bearer, "{body}");
        }
        for body in [
            "",
            "<html>",
            r#"{"token_type":"Bearer"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","token_type":"Bearer","expires_in":"abc"}"#,
            r#"{"access_token":"a","token_type":"Bearer","expires_in":"NaN x"}"#,
            r#"{"access_token":7,"token_type":"Bearer"}"#,
        ] {
            parse(body).expect_err(body);
        }
    }

    #[test]
    fn unreadable_jwt_is_expired_without_subject() {
        let jwt = |claims: &str| format!("e30.{}.AA", base64url::encode(claims));
        let token = |token: String| {
            parse(&format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#)).unwrap()
        };
        let alice = token(jwt(r#"{"sub":"alice","exp":3600}"#));
        let left = |token: &AccessToken| until_exp(token.secret(), SystemTime::UNIX_EPOCH);
        assert_eq!(left(&alice), Some(Duration::from_secs(3600)));
        assert_eq!(left(&token("opaque".to_owned())), None);
        let mapping = ClaimsMapping::default();
        assert!(alice.has_same_subject_as(&token("opaque".to_owned()), &mapping));
        for claims in [
            format!(r#"{{"sub":"alice","exp":3600,"x":{}1{}}}"#, "[".repeat(20), "]".repeat(20)),
            r#"{"sub":"alice","exp":3600,"sub":"mallory"}"#.to_owned(),
        ] {
            let token = token(jwt(&claims));
            assert_eq!(left(&token), Some(Duration::ZERO), "{claims}");
            assert!(!token.has_same_subject_as(&alice, &mapping), "{claims}");
            assert!(!alice.has_same_subject_as(&token, &mapping), "{claims}");
        }
    }
    #[test]
    fn mapping_names_subject_and_tenant() {
        let token = |claims: &str| {
            let jwt = format!("e30.{}.AA", base64url::encode(claims));
            parse(&format!(r#"{{"access_token":"{jwt}","token_type":"Bearer"}}"#)).unwrap()
        };
        let entra = ClaimsMapping::default().subject(["oid"]).tenant_id(["tid"]);
        let before = token(r#"{"sub":"a","tenant_id":"t","oid":"o","tid":"1"}"#);
        for (claims, default, mapped) in [
            (r#"{"sub":"a","tenant_id":"t","oid":"o","tid":"1"}"#, true, true),
            (r#"{"sub":"b","tenant_id":"t","oid":"o","tid":"1"}"#, false, true),
            (r#"{"sub":"a","tenant_id":"u","oid":"o","tid":"1"}"#, false, true),
            (r#"{"sub":"a","tenant_id":"t","oid":"p","tid":"1"}"#, true, false),
            (r#"{"sub":"a","tenant_id":"t","oid":"o","tid":"2"}"#, true, false),
            (r#"{"sub":7,"oid":null}"#, true, true),
        ] {
            let after = token(claims);
            for (mapping, expected) in [(&ClaimsMapping::default(), default), (&entra, mapped)] {
                assert_eq!(after.has_same_subject_as(&before, mapping), expected, "{claims}");
            }
        }
    }
}
