//! Whether an exchange gave what was asked for: the audience, and the same subject and tenant.

use super::{AccessToken, ExchangeError, ExchangeRequest, TokenType};
use crate::base64url;
use crate::identity::{ClaimsMapping, Scopes, TenantId, read_scopes};
use crate::json::{Document, Fault, Value};
use crate::secret::Secret;

/// What is not compared, because of a provider that does it another way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Relaxed {
    pub(super) audience: bool,
    pub(super) subject: bool,
    pub(super) issued_type: bool,
    pub(super) token_type: bool,
}

impl Relaxed {
    /// One letter for each, to tell tokens taken under different rules apart.
    pub(super) fn name(self) -> String {
        let letters = [
            (self.audience, 'a'),
            (self.subject, 's'),
            (self.issued_type, 'i'),
            (self.token_type, 't'),
        ];
        letters.into_iter().filter_map(|(on, letter)| on.then_some(letter)).collect()
    }
}

/// Whether a service token is of the tenant asked for, as far as it tells.
pub(super) fn check_tenant(
    tenant: Option<&TenantId>,
    token: &AccessToken,
) -> Result<(), ExchangeError> {
    match (tenant, token.claim("tenant_id")) {
        (Some(asked), Some(got)) if asked.as_str() != got => {
            Err(ExchangeError::Answer("is a token of another tenant"))
        }
        _ => Ok(()),
    }
}

/// Whether a token permits no more than this, as far as it tells. An answer without `scope` says
/// that it is what was asked for (RFC 6749 §5.1); services believe the token.
pub(super) fn check_scopes(granted: &Scopes, token: &AccessToken) -> Result<(), ExchangeError> {
    let Some(payload) = payload(token.secret()) else { return Ok(()) };
    let Ok(claims) = Document::parse(payload) else { return Ok(()) };
    match read_scopes(claims.root(), &ClaimsMapping::default()) {
        Ok(permitted) if granted.contains_all(&permitted) => Ok(()),
        Ok(_) => Err(ExchangeError::Answer("is a token that permits more than was asked for")),
        Err(_) => Err(ExchangeError::Answer("is a token with a malformed scope")),
    }
}

/// Whether what was issued is what was asked for, by its own name (RFC 8693 §2.2.1).
pub(super) fn check_type(token: &AccessToken, relaxed: Relaxed) -> Result<(), ExchangeError> {
    let expected = [TokenType::AccessToken, TokenType::Jwt];
    match token.issued_token_type() {
        Some(kind) if expected.iter().any(|known| known.as_str() == kind) => Ok(()),
        Some(_) => Err(ExchangeError::Answer("has another issued_token_type than asked for")),
        None if relaxed.issued_type => Ok(()),
        None => Err(ExchangeError::Answer("has no issued_token_type")),
    }
}

/// Compares the claims of what came with what was asked for. A token that is no JWT cannot be
/// looked into and passes.
pub(super) fn check(
    request: &ExchangeRequest,
    token: &AccessToken,
    relaxed: Relaxed,
) -> Result<(), ExchangeError> {
    let Some(payload) = payload(token.secret()) else { return Ok(()) };
    let got = match Document::parse(payload) {
        Ok(got) => got,
        Err(Fault::Syntax) => return Ok(()),
        // It says two things at once, and others may read the other one.
        Err(Fault::Duplicate) => {
            return Err(ExchangeError::Answer("is a token with a claim twice"));
        }
    };
    let resources = request.resources.iter().map(|url| url.as_str());
    let mut targets = request.audiences.iter().map(String::as_str).chain(resources);
    if !relaxed.audience && !targets.all(|target| names(&got, target)) {
        return Err(ExchangeError::Answer("is a token of another audience"));
    }
    if relaxed.subject {
        return Ok(());
    }
    let Some(payload) = self::payload(&request.subject) else { return Ok(()) };
    let Ok(had) = Document::parse(payload) else { return Ok(()) };
    if !agree(&had, &got, "sub") {
        return Err(ExchangeError::Answer("is a token of another subject"));
    }
    if !agree(&had, &got, "tenant_id") {
        return Err(ExchangeError::Answer("is a token of another tenant"));
    }
    Ok(())
}

fn payload(token: &Secret) -> Option<Vec<u8>> {
    base64url::decode(token.expose().split('.').nth(1)?)
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
