//! [`verify`]: whether the provider gave what was asked for.

use super::request::TokenRequest;
use super::token::claims_of;
use super::{AccessToken, ExchangeError, ExchangeRequest, TokenType};
use crate::identity::{ClaimsMapping, Scopes, read_scopes};
use crate::json::{Document, Fault, Value};

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
/// JWT cannot be looked into and passes.
pub(super) fn verify(request: &TokenRequest<'_>, token: &AccessToken, relaxed: Relaxed) -> Verdict {
    if !token.is_bearer() && !relaxed.token_type {
        return refused("is no access token");
    }
    if let (Some(asked), Some(got)) = (request.scopes(), token.scopes())
        && !asked.contains_all(got)
    {
        return refused("permits more than was asked for");
    }
    match request {
        TokenRequest::Exchange(exchange) => {
            verify_type(token, relaxed)?;
            verify_claims(exchange, token, relaxed)?;
            if relaxed.subject && !exchange.is_foreign {
                Ok(())
            } else {
                verify_tenant(request, token)
            }
        }
        TokenRequest::Refresh(_) => Ok(()),
        _ => verify_tenant(request, token),
    }
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

fn verify_claims(request: &ExchangeRequest, token: &AccessToken, relaxed: Relaxed) -> Verdict {
    let got = match claims_of(token.secret()) {
        Ok(got) => got,
        Err(Fault::Syntax) => return Ok(()),
        // It says two things at once, and others may read the other one.
        Err(Fault::Duplicate) => return refused("is a token with a claim twice"),
    };
    let resources = request.resources.iter().map(|url| url.as_str());
    let mut targets = request.audiences.iter().map(String::as_str).chain(resources);
    if !relaxed.audience && !targets.all(|target| names(&got, target)) {
        return refused("is a token of another audience");
    }
    if !relaxed.subject
        && !request.is_foreign
        && let Ok(had) = claims_of(&request.subject)
    {
        if !agree(&had, &got, "sub") {
            return refused("is a token of another subject");
        }
        if !agree(&had, &got, "tenant_id") {
            return refused("is a token of another tenant");
        }
    }
    if request.is_foreign || !request.scopes.is_empty() {
        return verify_scopes(&request.scopes, &got);
    }
    Ok(())
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
fn verify_tenant(request: &TokenRequest<'_>, token: &AccessToken) -> Verdict {
    match (request.tenant(), token.claim("tenant_id")) {
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
