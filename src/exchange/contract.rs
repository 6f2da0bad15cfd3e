//! [`verify`]: whether the provider gave what was asked for.

use super::request::TokenRequest;
use super::token::claims_of;
use super::{AccessToken, ExchangeError, ExchangeRequest, TokenType};
use crate::identity::{ClaimsMapping, Scopes, read_scopes};
use crate::support::json::{Document, Fault, Value};

/// What is not compared, because of a provider that does it another way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Relaxed {
    pub(super) audience: bool,
    pub(super) subject: bool,
    pub(super) issued_type: bool,
    pub(super) token_type: bool,
}

type Verdict = Result<(), ExchangeError>;

fn refused(why: &'static str) -> Verdict {
    Err(ExchangeError::Answer(why))
}

/// Compares what the provider gave with what was asked for, as far as both tell. A token that is no
/// JWT cannot be looked into and passes; a JWT that cannot be read is refused.
pub(super) fn verify(request: &TokenRequest<'_>, token: &AccessToken, relaxed: Relaxed) -> Verdict {
    if !token.is_bearer() && !relaxed.token_type {
        return refused("is no access token");
    }
    if let (Some(asked), Some(got)) = (request.scopes(), token.scopes())
        && !asked.contains_all(got)
    {
        return refused("permits more than was asked for");
    }
    let claims = claims_of(token.secret()).or_else(unreadable)?;
    match request {
        TokenRequest::Exchange(exchange) => {
            verify_type(token, relaxed)?;
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

/// Others may read the token, and find another user in it than was asked for.
fn unreadable<T>(fault: Fault) -> Result<T, ExchangeError> {
    Err(ExchangeError::Answer(match fault {
        Fault::Duplicate => "is a token with a claim twice",
        Fault::Syntax | Fault::Limit => "is a token that cannot be looked into",
    }))
}

/// Whether what was issued is what was asked for, by its own name (RFC 8693 §2.2.1).
fn verify_type(token: &AccessToken, relaxed: Relaxed) -> Verdict {
    let expected = [TokenType::AccessToken, TokenType::Jwt];
    match token.issued_token_type() {
        Some(kind) if expected.iter().any(|known| known.as_str() == kind) => Ok(()),
        Some(_) => refused("has another issued_token_type than asked for"),
        None if relaxed.issued_type => Ok(()),
        None => refused("has no issued_token_type"),
    }
}

fn verify_claims(request: &ExchangeRequest, got: &Document, relaxed: Relaxed) -> Verdict {
    let resources = request.resources.iter().map(|url| url.as_str());
    let mut targets = request.audiences.iter().map(String::as_str).chain(resources);
    if !relaxed.audience && !targets.all(|target| names(got, target)) {
        return refused("is a token of another audience");
    }
    if !relaxed.subject && !request.is_foreign {
        verify_subject(request, got)?;
    }
    if request.is_foreign || !request.scopes.is_empty() {
        return verify_scopes(&request.scopes, got);
    }
    Ok(())
}

/// Whether a token is of the user and the tenant of the subject token.
fn verify_subject(request: &ExchangeRequest, got: &Document) -> Verdict {
    match claims_of(&request.subject) {
        Err(_) => refused("is for a subject token that cannot be looked into"),
        Ok(Some(had)) if !agree(&had, got, "sub") => refused("is a token of another subject"),
        Ok(Some(had)) if !agree(&had, got, "tenant_id") => refused("is a token of another tenant"),
        Ok(_) => Ok(()),
    }
}

/// Whether a token permits no more than this. An answer without `scope` says that it is what was asked
/// for (RFC 6749 §5.1); services believe the token.
fn verify_scopes(granted: &Scopes, got: &Document) -> Verdict {
    match read_scopes(got.root(), &ClaimsMapping::default()) {
        Ok(permitted) if granted.contains_all(&permitted) => Ok(()),
        Ok(_) => refused("is a token that permits more than was asked for"),
        Err(_) => refused("is a token with a malformed scope"),
    }
}

/// Whether a token is of the tenant that the request names.
fn verify_tenant(request: &TokenRequest<'_>, got: Option<&Document>) -> Verdict {
    let got = got.and_then(|got| got.root().get("tenant_id")).and_then(Value::as_str);
    match (request.tenant(), got) {
        (Some(asked), Some(got)) if asked.as_str() != got => {
            refused("is a token of another tenant")
        }
        _ => Ok(()),
    }
}

/// Whether `aud`, one string or a list of them, has this one.
fn names(claims: &Document, target: &str) -> bool {
    claims.root().get("aud").is_some_and(|aud| {
        aud.as_str() == Some(target)
            || (aud.is_list() && aud.children().any(|one| one.as_str() == Some(target)))
    })
}

/// Whether a claim that was there before is the same now.
fn agree(had: &Document, got: &Document, name: &str) -> bool {
    let before = had.root().get(name).and_then(Value::as_str);
    before.is_none() || got.root().get(name).and_then(Value::as_str) == before
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::clock::SystemClock;
    use crate::exchange::{RefreshRequest, ServiceTokenRequest};
    use crate::support::base64url;

    /// What others read as a token of another user, in another tenant, for another service.
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

    /// Claims that this crate does not read, and others do.
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
    fn answered_jwt_that_cannot_be_read_is_refused() {
        let subject = jwt(r#"{"sub":"alice","tenant_id":"acme"}"#);
        let service = ServiceTokenRequest::in_tenant("acme".parse().unwrap());
        let requests = [
            exchange(&subject),
            TokenRequest::Service(Cow::Owned(service)),
            TokenRequest::Refresh(Cow::Owned(RefreshRequest::new("refresh"))),
        ];
        for (request, claims) in requests
            .iter()
            .flat_map(|request| unreadable_claims().into_iter().map(move |it| (request, it)))
        {
            let verdict = verify(request, &answer(&jwt(&claims)), Relaxed::default());
            let told = verdict.expect_err(&claims).to_string();
            assert!(told.contains("cannot be looked into") || told.contains("twice"), "{told}");
        }
    }

    #[test]
    fn opaque_token_passes_unread() {
        // A JWE, too, whose second part may begin with any byte.
        let jwe = format!("e30.{}.AA.AA.AA", base64url::encode("{encrypted"));
        let random = format!("v1.{}.AA", base64url::encode("{random"));
        for token in ["opaque", "a.b.c", "ya29.a0AfH6", &jwe, &random] {
            let verdict = verify(&exchange("opaque"), &answer(token), Relaxed::default());
            assert!(verdict.is_ok(), "{token}");
        }
    }

    #[test]
    fn unreadable_subject_token_vouches_for_nobody() {
        let good = answer(&jwt(r#"{"sub":"mallory","aud":"vault","scope":"read"}"#));
        let subject = jwt(&format!(r#"{{"sub":"alice",{}}}"#, members(1025)));
        assert!(verify(&exchange(&subject), &good, Relaxed::default()).is_err());
        let relaxed = Relaxed { subject: true, ..Relaxed::default() };
        assert!(verify(&exchange(&subject), &good, relaxed).is_ok());
    }
}
