//! [`verify`]: checks that the provider's token is the requested one.

use url::Url;

use super::request::TokenRequest;
use super::token::claims_of;
use super::{AccessToken, ExchangeError, ExchangeRequest, OnBehalfOfRequest, TokenType};
use crate::config::IssuerConfig;
use crate::identity::{ClaimPath, ClaimsMapping, Scopes, first_text, read_scopes};
use crate::support::json::{Document, Fault, Value};

/// The checks that are switched off (`true`), for providers that deviate from the standards. The setters
/// of [`TokenExchangeBuilder`](super::TokenExchangeBuilder) document them.
#[derive(Debug, Clone, Default)]
pub(super) struct Relaxed {
    pub(super) audience: bool,
    pub(super) subject: bool,
    pub(super) service_tenant: bool,
    /// Accepts JWTs whose claims cannot be read.
    pub(super) claims: bool,
    pub(super) issued_type: bool,
    pub(super) token_type: bool,
    /// The scopes that need not be requested.
    pub(super) extra_scopes: Scopes,
}

/// The rules for the provider's answers.
#[derive(Debug, Clone)]
pub(super) struct AnswerRules {
    pub(super) relaxed: Relaxed,
    /// The `requested_token_type` of exchanges.
    pub(super) requested_type: Option<TokenType>,
    /// The claims that hold subject, tenant and scopes.
    pub(super) claims: ClaimsMapping,
    /// The claims that name the services a token is for. The first one that is present counts.
    pub(super) audience_claims: Vec<ClaimPath>,
}

impl Default for AnswerRules {
    fn default() -> Self {
        let IssuerConfig { audience_claims, claims, .. } = IssuerConfig::new("");
        let requested_type = Some(TokenType::Jwt);
        Self { relaxed: Relaxed::default(), requested_type, claims, audience_claims }
    }
}

impl AnswerRules {
    /// Returns the subject in the claims of a token, if it is a string.
    fn subject<'d>(&self, claims: &'d Document) -> Option<&'d str> {
        first_text(claims.root(), &self.claims.subject)
    }

    /// Returns the tenant in the claims of a token, if it is a string.
    fn tenant<'d>(&self, claims: &'d Document) -> Option<&'d str> {
        first_text(claims.root(), &self.claims.tenant_id)
    }

    /// Returns whether the audience, a string or a list of strings, contains the target.
    fn has_audience(&self, claims: &Document, target: &str) -> bool {
        let mut present =
            self.audience_claims.iter().filter_map(|path| claims.root().follow(path.steps()));
        present.find(|value| !value.is_null()).is_some_and(|audience| {
            audience.as_str() == Some(target)
                || (audience.is_list() && audience.children().any(|it| it.as_str() == Some(target)))
        })
    }

    /// Returns texts that differ if the rules differ. A client must not return a token that another
    /// client accepted under weaker rules.
    pub(super) fn fingerprint(&self) -> Vec<String> {
        let Relaxed { audience, subject, service_tenant, claims, issued_type, token_type, .. } =
            self.relaxed;
        let flags = [audience, subject, service_tenant, claims, issued_type, token_type];
        let mut extra_scopes: Vec<_> = self.relaxed.extra_scopes.iter().collect();
        extra_scopes.sort_unstable();
        let mut texts: Vec<_> = flags.iter().map(bool::to_string).collect();
        texts.push(extra_scopes.join(" "));
        let ClaimsMapping { subject, tenant_id, scopes, .. } = &self.claims;
        let paths = [subject, tenant_id, scopes, &self.audience_claims];
        texts.extend(paths.map(|paths| format!("{paths:?}")));
        texts
    }

    /// Returns whether all granted scopes were requested, or need not be.
    fn permits(&self, requested: &Scopes, granted: &Scopes) -> bool {
        let extra = &self.relaxed.extra_scopes;
        granted.iter().all(|scope| requested.contains(scope) || extra.contains(scope))
    }
}

const UNREADABLE_SUBJECT: &str =
    "cannot be verified: the claims of the subject token cannot be read";
const OTHER_SUBJECT: &str = "contains a token for another subject";
const OTHER_TENANT: &str = "contains a token for another tenant";

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
    rules: &AnswerRules,
) -> Verification {
    if !token.is_bearer() && !rules.relaxed.token_type {
        return mismatch("has a token_type other than Bearer");
    }
    if !matches!(request, TokenRequest::OnBehalfOf(_))
        && let (Some(requested), Some(granted)) = (request.scopes(), token.scopes())
        && !rules.permits(requested, granted)
    {
        return mismatch(
            "grants scopes that were not requested (accept_extra_scopes allows some by name)",
        );
    }
    let claims = match claims_of(token.secret()) {
        Err(_) if rules.relaxed.claims => None,
        claims => claims.or_else(reject_unreadable)?,
    };
    if matches!(request, TokenRequest::Exchange(_)) {
        verify_issued_type(token, rules)?;
    }
    let Some(claims) = claims else { return Ok(()) };
    match request {
        TokenRequest::Exchange(exchange) => verify_exchange(exchange, &claims, rules)?,
        TokenRequest::OnBehalfOf(request) => verify_on_behalf_of(request, &claims, rules)?,
        TokenRequest::Service(service) => {
            verify_audience(&service.audiences, &service.resources, &claims, rules)?;
        }
        _ => {}
    }
    let ignores_tenant = match request {
        TokenRequest::Refresh(_) => true,
        TokenRequest::Service(_) => rules.relaxed.service_tenant,
        TokenRequest::Exchange(exchange) => rules.relaxed.subject && !exchange.is_foreign,
        TokenRequest::OnBehalfOf(_) | TokenRequest::Code(_) | TokenRequest::Password(_) => {
            rules.relaxed.subject
        }
    };
    if ignores_tenant { Ok(()) } else { verify_tenant(request, &claims, rules) }
}

/// Rejects a JWT whose claims this crate cannot read. Another service may be able to read them, and may
/// see a different user.
fn reject_unreadable<T>(fault: Fault) -> Result<T, ExchangeError> {
    Err(ExchangeError::InvalidAnswer(match fault {
        Fault::Duplicate => "contains a token with a duplicate claim",
        Fault::Syntax | Fault::Limit => "contains a JWT whose claims cannot be read",
    }))
}

/// Verifies `issued_token_type` (RFC 8693 §2.2.1). The configured type is accepted, too.
fn verify_issued_type(token: &AccessToken, rules: &AnswerRules) -> Verification {
    let usual = [TokenType::AccessToken, TokenType::Jwt];
    let mut expected = usual.iter().chain(&rules.requested_type);
    match token.issued_token_type() {
        Some(kind) if expected.any(|known| known.as_str() == kind) => Ok(()),
        Some(_) => mismatch(
            "has an issued_token_type that is neither access_token nor jwt (requested_token_type allows another)",
        ),
        None if rules.relaxed.issued_type => Ok(()),
        None => mismatch("has no issued_token_type (accept_untyped_tokens allows this)"),
    }
}

fn verify_exchange(
    request: &ExchangeRequest,
    claims: &Document,
    rules: &AnswerRules,
) -> Verification {
    verify_audience(&request.audiences, &request.resources, claims, rules)?;
    if !rules.relaxed.subject && !request.is_foreign {
        verify_subject(request, claims, rules)?;
    }
    if request.is_foreign || !request.scopes.is_empty() {
        return verify_scopes(&request.scopes, claims, rules);
    }
    Ok(())
}

/// Verifies that the token is for every requested service.
fn verify_audience(
    audiences: &[String],
    resources: &[Url],
    claims: &Document,
    rules: &AnswerRules,
) -> Verification {
    let resources = resources.iter().map(Url::as_str);
    let mut targets = audiences.iter().map(String::as_str).chain(resources);
    if !rules.relaxed.audience && !targets.all(|target| rules.has_audience(claims, target)) {
        return mismatch("contains a token for another audience");
    }
    Ok(())
}

/// Verifies that the token is for the user of the assertion and for the requested service. `sub` is
/// different for each application (pairwise), so `oid`, the user in the tenant, is compared
/// (<https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>).
fn verify_on_behalf_of(
    request: &OnBehalfOfRequest,
    claims: &Document,
    rules: &AnswerRules,
) -> Verification {
    verify_audience(std::slice::from_ref(&request.audience), &[], claims, rules)?;
    if rules.relaxed.subject {
        return Ok(());
    }
    match &claims_of(&request.assertion) {
        Err(_) => mismatch(UNREADABLE_SUBJECT),
        Ok(Some(before)) if !keeps(text(before, "oid"), text(claims, "oid")) => {
            mismatch(OTHER_SUBJECT)
        }
        Ok(Some(before)) if !keeps(text(before, "tid"), text(claims, "tid")) => {
            mismatch(OTHER_TENANT)
        }
        Ok(_) => Ok(()),
    }
}

/// Verifies that the token is for the user and the tenant of the subject token.
fn verify_subject(
    request: &ExchangeRequest,
    claims: &Document,
    rules: &AnswerRules,
) -> Verification {
    match &claims_of(&request.subject) {
        Err(_) => mismatch(UNREADABLE_SUBJECT),
        Ok(Some(before)) if !keeps(rules.subject(before), rules.subject(claims)) => {
            mismatch(OTHER_SUBJECT)
        }
        Ok(Some(before)) if !keeps(rules.tenant(before), rules.tenant(claims)) => {
            mismatch(OTHER_TENANT)
        }
        Ok(_) => Ok(()),
    }
}

/// Verifies that the claims of the token contain no scopes beyond the requested ones. An answer without
/// a `scope` member states that the requested scopes were granted (RFC 6749 §5.1), but services read
/// the claims.
fn verify_scopes(requested: &Scopes, claims: &Document, rules: &AnswerRules) -> Verification {
    match read_scopes(claims.root(), &rules.claims) {
        Ok(granted) if rules.permits(requested, &granted) => Ok(()),
        Ok(_) => mismatch(
            "contains a token with scopes that were not requested (accept_extra_scopes allows some by name)",
        ),
        Err(_) => mismatch("contains a token with a malformed scope"),
    }
}

/// Verifies that the token is for the tenant of the request, if both name one.
fn verify_tenant(
    request: &TokenRequest<'_>,
    claims: &Document,
    rules: &AnswerRules,
) -> Verification {
    match (request.tenant(), rules.tenant(claims)) {
        (Some(requested), Some(tenant)) if requested.as_str() != tenant => mismatch(OTHER_TENANT),
        _ => Ok(()),
    }
}

fn text<'d>(claims: &'d Document, name: &str) -> Option<&'d str> {
    claims.root().get(name).and_then(Value::as_str)
}

/// Returns whether a claim is the same in the subject token (`before`) and the new token. Returns true
/// if the subject token does not have it.
fn keeps(before: Option<&str>, after: Option<&str>) -> bool {
    before.is_none() || before == after
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
            let verification = verify(request, &answer(&jwt(&claims)), &AnswerRules::default());
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
            let verification = verify(&exchange("opaque"), &answer(token), &AnswerRules::default());
            assert!(verification.is_ok(), "{token}");
        }
    }

    #[test]
    fn unreadable_subject_token_is_rejected() {
        let good = answer(&jwt(r#"{"sub":"mallory","aud":"vault","scope":"read"}"#));
        let subject = jwt(&format!(r#"{{"sub":"alice",{}}}"#, members(1025)));
        assert!(verify(&exchange(&subject), &good, &AnswerRules::default()).is_err());
        let relaxed = Relaxed { subject: true, ..Relaxed::default() };
        let rules = AnswerRules { relaxed, ..AnswerRules::default() };
        assert!(verify(&exchange(&subject), &good, &rules).is_ok());
    }
}
