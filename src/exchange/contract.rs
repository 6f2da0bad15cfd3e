//! [`verify`]: checks that the provider's token is the requested one.

use super::request::TokenRequest;
use super::token::claims_of;
use super::{AccessToken, ExchangeError, ExchangeRequest, TokenType};
use crate::identity::{ClaimsMapping, Scopes, read_scopes};
use crate::support::json::{Document, Fault, Value};

/// The checks that are switched off (`true`), for providers that deviate from the standards.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Relaxed {
    pub(super) audience: bool,
    pub(super) subject: bool,
    pub(super) issued_type: bool,
    pub(super) token_type: bool,
}

type Verification = Result<(), ExchangeError>;

fn mismatch(problem: &'static str) -> Verification {
    Err(ExchangeError::InvalidAnswer(problem))
}

/// Verifies that the token matches the request, for each property that both of them state. An opaque
/// token passes, because it has no readable claims; a JWT whose claims cannot be read is rejected.
///
/// # Errors
/// The token does not match: [`ExchangeError::InvalidAnswer`].
pub(super) fn verify(
    request: &TokenRequest<'_>,
    token: &AccessToken,
    relaxed: Relaxed,
) -> Verification {
    if !token.is_bearer() && !relaxed.token_type {
        return mismatch("has a token_type other than Bearer");
    }
    if let (Some(requested), Some(granted)) = (request.scopes(), token.scopes())
        && !requested.contains_all(granted)
    {
        return mismatch("grants scopes that were not requested");
    }
    let claims = claims_of(token.secret()).or_else(reject_unreadable)?;
    match request {
        TokenRequest::Exchange(exchange) => {
            verify_issued_type(token, relaxed)?;
            if let Some(claims) = &claims {
                verify_claims(exchange, claims, relaxed)?;
            }
            if relaxed.subject && !exchange.is_foreign {
                Ok(())
            } else {
                verify_tenant(request, claims.as_ref())
            }
        }
        TokenRequest::Refresh(_) => Ok(()),
        _ => verify_tenant(request, claims.as_ref()),
    }
}

/// Rejects a JWT whose claims this crate cannot read. Another service may be able to read them, and may
/// see a different user.
fn reject_unreadable<T>(fault: Fault) -> Result<T, ExchangeError> {
    Err(ExchangeError::InvalidAnswer(match fault {
        Fault::Duplicate => "contains a token with a duplicate claim",
        Fault::Syntax | Fault::Limit => "contains a JWT whose claims cannot be read",
    }))
}

/// Verifies `issued_token_type` (RFC 8693 §2.2.1).
fn verify_issued_type(token: &AccessToken, relaxed: Relaxed) -> Verification {
    let expected = [TokenType::AccessToken, TokenType::Jwt];
    match token.issued_token_type() {
        Some(kind) if expected.iter().any(|known| known.as_str() == kind) => Ok(()),
        Some(_) => mismatch("has an issued_token_type that is neither access_token nor jwt"),
        None if relaxed.issued_type => Ok(()),
        None => mismatch("has no issued_token_type (accept_untyped_tokens allows this)"),
    }
}

fn verify_claims(request: &ExchangeRequest, claims: &Document, relaxed: Relaxed) -> Verification {
    let resources = request.resources.iter().map(|url| url.as_str());
    let mut targets = request.audiences.iter().map(String::as_str).chain(resources);
    if !relaxed.audience && !targets.all(|target| has_audience(claims, target)) {
        return mismatch("contains a token for another audience");
    }
    if !relaxed.subject && !request.is_foreign {
        verify_subject(request, claims)?;
    }
    if request.is_foreign || !request.scopes.is_empty() {
        return verify_scopes(&request.scopes, claims);
    }
    Ok(())
}

/// Verifies that the token is for the user and the tenant of the subject token.
fn verify_subject(request: &ExchangeRequest, claims: &Document) -> Verification {
    match claims_of(&request.subject) {
        Err(_) => mismatch("cannot be verified: the claims of the subject token cannot be read"),
        Ok(Some(subject)) if !keeps_claim(&subject, claims, "sub") => {
            mismatch("contains a token for another subject")
        }
        Ok(Some(subject)) if !keeps_claim(&subject, claims, "tenant_id") => {
            mismatch("contains a token for another tenant")
        }
        Ok(_) => Ok(()),
    }
}

/// Verifies that the claims of the token contain no scopes beyond the requested ones. An answer without
/// a `scope` member states that the requested scopes were granted (RFC 6749 §5.1), but services read
/// the claims.
fn verify_scopes(requested: &Scopes, claims: &Document) -> Verification {
    match read_scopes(claims.root(), &ClaimsMapping::default()) {
        Ok(granted) if requested.contains_all(&granted) => Ok(()),
        Ok(_) => mismatch("contains a token with scopes that were not requested"),
        Err(_) => mismatch("contains a token with a malformed scope"),
    }
}

/// Verifies that the token is for the tenant of the request, if both name one.
fn verify_tenant(request: &TokenRequest<'_>, claims: Option<&Document>) -> Verification {
    let tenant = claims.and_then(|claims| claims.root().get("tenant_id")).and_then(Value::as_str);
    match (request.tenant(), tenant) {
        (Some(requested), Some(tenant)) if requested.as_str() != tenant => {
            mismatch("contains a token for another tenant")
        }
        _ => Ok(()),
    }
}

/// Returns whether `aud`, a string or a list of strings, contains the target.
fn has_audience(claims: &Document, target: &str) -> bool {
    claims.root().get("aud").is_some_and(|aud| {
        aud.as_str() == Some(target)
            || (aud.is_list() && aud.children().any(|one| one.as_str() == Some(target)))
    })
}

/// Returns whether the claim `name` is the same in both tokens. Returns true if the subject token does
/// not have it.
fn keeps_claim(subject: &Document, claims: &Document, name: &str) -> bool {
    let before = subject.root().get(name).and_then(Value::as_str);
    before.is_none() || claims.root().get(name).and_then(Value::as_str) == before
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::clock::SystemClock;
    use crate::exchange::{RefreshRequest, ServiceTokenRequest};
    use crate::support::base64url;

    /// Claims of another user, in another tenant, for another service.
    const FOREIGN: &str =
        r#""sub":"mallory","aud":"elsewhere","tenant_id":"other","scope":"admin""#;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.AA", base64url::encode(claims))
    }

    fn answer(token: &str) -> AccessToken {
        let kind = TokenType::Jwt;
        let body = format!(
            r#"{{"access_token":"{token}","token_type":"Bearer","issued_token_type":"{}"}}"#,
            kind.as_str()
        );
        AccessToken::parse(body.as_bytes(), &SystemClock::default()).unwrap()
    }

    fn exchange(subject: &str) -> TokenRequest<'static> {
        let request = ExchangeRequest::new(subject, "vault").scopes("read".parse().unwrap());
        TokenRequest::Exchange(Cow::Owned(request))
    }

    fn members(count: u32) -> String {
        (0..count).map(|nth| format!("\"{nth}\":0")).collect::<Vec<_>>().join(",")
    }

    /// Claims that this crate rejects and other JSON parsers read.
    fn unreadable_claims() -> Vec<String> {
        let deep = format!("{}1{}", "[".repeat(20), "]".repeat(20));
        let more = [
            format!(r#""x":{{{}}}"#, members(1025)),
            members(1025),
            format!(r#""x":{deep}"#),
            r#""x":1e999"#.to_owned(),
            r#""x":"\ud800""#.to_owned(),
            r#""sub":"alice""#.to_owned(),
        ];
        more.map(|more| format!("{{{FOREIGN},{more}}}")).into()
    }

    #[test]
    fn unreadable_jwt_is_rejected() {
        let subject = jwt(r#"{"sub":"alice","tenant_id":"acme"}"#);
        let service = ServiceTokenRequest::for_tenant("acme".parse().unwrap());
        let requests = [
            exchange(&subject),
            TokenRequest::Service(Cow::Owned(service)),
            TokenRequest::Refresh(Cow::Owned(RefreshRequest::new("refresh"))),
        ];
        for (request, claims) in requests
            .iter()
            .flat_map(|request| unreadable_claims().into_iter().map(move |it| (request, it)))
        {
            let verification = verify(request, &answer(&jwt(&claims)), Relaxed::default());
            let error = verification.expect_err(&claims).to_string();
            assert!(error.contains("cannot be read") || error.contains("duplicate"), "{error}");
        }
    }

    #[test]
    fn opaque_token_passes() {
        // The second part of a JWE is an encrypted key, which may begin with any byte.
        let jwe = format!("e30.{}.AA.AA.AA", base64url::encode("{encrypted"));
        let random = format!("v1.{}.AA", base64url::encode("{random"));
        for token in ["opaque", "a.b.c", "ya29.a0AfH6", &jwe, &random] {
            let verification = verify(&exchange("opaque"), &answer(token), Relaxed::default());
            assert!(verification.is_ok(), "{token}");
        }
    }

    #[test]
    fn unreadable_subject_token_is_rejected() {
        let good = answer(&jwt(r#"{"sub":"mallory","aud":"vault","scope":"read"}"#));
        let subject = jwt(&format!(r#"{{"sub":"alice",{}}}"#, members(1025)));
        assert!(verify(&exchange(&subject), &good, Relaxed::default()).is_err());
        let relaxed = Relaxed { subject: true, ..Relaxed::default() };
        assert!(verify(&exchange(&subject), &good, relaxed).is_ok());
    }
}
