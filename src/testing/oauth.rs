//! The token endpoint: client authentication, grants, errors (RFC 6749 §2.3, §4.3, §4.4, §5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use url::form_urlencoded;

use super::clients::Client;
use super::issuer::Issuer;
use super::tokens::TokenBuilder;
use super::traffic::Received;

/// An answer before it is put on the wire.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) json: Value,
}

/// Answers a token request.
pub(super) fn answer(issuer: &Issuer, request: &Received) -> Answer {
    if request.method != Method::POST {
        let mut refusal = Refusal::new("invalid_request", "the method is POST");
        refusal.status = StatusCode::METHOD_NOT_ALLOWED;
        refusal.header = Some((ALLOW, "POST"));
        return refusal.into();
    }
    grant(issuer, request).unwrap_or_else(Answer::from)
}

fn grant(issuer: &Issuer, request: &Received) -> Result<Answer, Refusal> {
    let form = Form::read(request)?;
    let client = authenticate(issuer, request, &form)?;
    match form.require("grant_type")? {
        "client_credentials" => client_credentials(issuer, &client, &form),
        "password" => password(issuer, &client, &form),
        _ => Err(Refusal::new("unsupported_grant_type", "the grant is not supported")),
    }
}

fn client_credentials(issuer: &Issuer, client: &Client, form: &Form) -> Result<Answer, Refusal> {
    if client.secret.is_none() {
        return Err(Refusal::new("unauthorized_client", "a public client cannot use this grant"));
    }
    let scope = granted_scope(client, form)?;
    Ok(issue(issuer, issuer.service_token(&client.id), &scope, form))
}

fn password(issuer: &Issuer, client: &Client, form: &Form) -> Result<Answer, Refusal> {
    let (name, password) = (form.require("username")?, form.require("password")?);
    let user = issuer
        .registry()
        .user(name)
        .filter(|user| user.password.expose() == password)
        .ok_or(Refusal::new("invalid_grant", "the name or the password is wrong"))?;
    let scope = granted_scope(client, form)?;
    let token = issuer.token().claim("client_id", client.id.as_str());
    let token = user.claims.iter().fold(token, |token, (k, v)| token.claim(k, v.clone()));
    Ok(issue(issuer, token, &scope, form))
}

fn issue(issuer: &Issuer, mut token: TokenBuilder, scope: &str, form: &Form) -> Answer {
    if let Some(audience) = form.get("audience") {
        token = token.audience(audience);
    }
    if !scope.is_empty() {
        token = token.scope(scope);
    }
    let body = json!({
        "access_token": token.sign(),
        "token_type": "Bearer",
        "expires_in": issuer.token_lifetime().as_secs(),
        "scope": scope,
    });
    Answer { status: StatusCode::OK, headers: not_stored(), json: body }
}

/// What was asked for, if the client may have it; all it may have, if it did not ask.
fn granted_scope(client: &Client, form: &Form) -> Result<String, Refusal> {
    let Some(asked) = form.get("scope") else { return Ok(client.scopes.join(" ")) };
    let allowed = |scope: &str| client.scopes.iter().any(|known| known == scope);
    if asked.split_ascii_whitespace().all(allowed) {
        return Ok(asked.to_owned());
    }
    Err(Refusal::new("invalid_scope", "the client may not ask for this"))
}

/// Who calls, by HTTP Basic or by form members, but not by both (RFC 6749 §2.3).
fn authenticate(issuer: &Issuer, request: &Received, form: &Form) -> Result<Arc<Client>, Refusal> {
    let header = request.headers.get(AUTHORIZATION);
    let (id, secret) = match header {
        Some(_) if form.get("client_secret").is_some() => {
            return Err(Refusal::new("invalid_request", "two ways of client authentication"));
        }
        Some(value) => {
            let (id, secret) = basic(value).ok_or_else(Refusal::challenge)?;
            (id, Some(secret))
        }
        None => {
            let id = form.get("client_id").ok_or_else(Refusal::invalid_client)?;
            (id.to_owned(), form.get("client_secret").map(str::to_owned))
        }
    };
    let known = issuer
        .registry()
        .client(&id)
        .filter(|client| client.secret.as_ref().map(|known| known.expose()) == secret.as_deref());
    known.ok_or_else(|| match header {
        Some(_) => Refusal::challenge(),
        None => Refusal::invalid_client(),
    })
}

/// Both halves are form-encoded before they are joined (RFC 6749 §2.3.1, Appendix B).
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form_decoded(id), form_decoded(secret)))
}

fn form_decoded(text: &str) -> String {
    let named = format!("v={text}");
    form_urlencoded::parse(named.as_bytes()).next().map_or_else(String::new, |(_, v)| v.into())
}

/// The members of a request body. Empty ones count as absent (RFC 6749 §3.2).
struct Form(Vec<(String, String)>);

impl Form {
    fn read(request: &Received) -> Result<Self, Refusal> {
        let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::new("invalid_request", "the body is not a form"));
        }
        let mut members = request.form();
        members.retain(|(_, value)| !value.is_empty());
        // RFC 8693 §2.1 lets these two repeat, and no others.
        let mut names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| !matches!(*name, "audience" | "resource"));
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Refusal::new("invalid_request", "a parameter is repeated"));
        }
        Ok(Self(members))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn require(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or(Refusal::new("invalid_request", "a parameter is missing"))
    }
}

/// An error answer (RFC 6749 §5.2).
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
    header: Option<(http::HeaderName, &'static str)>,
}

impl Refusal {
    const fn new(error: &'static str, description: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description, header: None }
    }

    fn invalid_client() -> Self {
        let mut refusal = Self::new("invalid_client", "unknown client or wrong secret");
        refusal.status = StatusCode::UNAUTHORIZED;
        refusal
    }

    /// A client that tried the `Authorization` header is told which scheme to use.
    fn challenge() -> Self {
        let mut refusal = Self::invalid_client();
        refusal.header = Some((WWW_AUTHENTICATE, r#"Basic realm="token endpoint""#));
        refusal
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut headers = not_stored();
        if let Some((name, value)) = refusal.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let json = json!({ "error": refusal.error, "error_description": refusal.description });
        Self { status: refusal.status, headers, json }
    }
}

/// RFC 6749 §5.1 asks for both.
fn not_stored() -> HeaderMap {
    HeaderMap::from_iter([
        (http::header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (http::header::PRAGMA, HeaderValue::from_static("no-cache")),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::{Endpoint, Provider, User};
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn request(authorization: Option<&str>, body: &str) -> Received {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        if let Some(pair) = authorization {
            let value = format!("basic {}", STANDARD.encode(pair));
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let body = body.to_owned().into();
        Received { method: Method::POST, target: "/oauth/token".into(), headers, body }
    }

    async fn provider() -> Provider {
        let provider = Provider::start().await;
        provider.register_client(Client::new("a:b c", "p%+").scopes("read write"));
        provider.register_client(Client::public("app"));
        provider.register_user(User::new("bob", "hunter2"));
        provider
    }

    #[tokio::test]
    async fn credentials_are_form_decoded_and_scopes_are_bounded() {
        let provider = provider().await;
        let pair = Some("a%3Ab+c:p%25%2B");
        let cases = [
            (pair, "grant_type=client_credentials", 200, "read write"),
            (pair, "grant_type=client_credentials&scope=read&foo=1", 200, "read"),
            (pair, "grant_type=client_credentials&scope=", 200, "read write"),
            (pair, "grant_type=client_credentials&scope=Read", 400, "invalid_scope"),
            (pair, "grant_type=client_credentials&grant_type=password", 400, "invalid_request"),
            (pair, "grant_type=client_credentials&client_secret=x", 400, "invalid_request"),
            (pair, "grant_type=implicit", 400, "unsupported_grant_type"),
            (pair, "scope=read", 400, "invalid_request"),
            (pair, "grant_type=password&username=bob&password=wrong", 400, "invalid_grant"),
            (pair, "grant_type=password&username=bob&password=hunter2", 200, "read write"),
            (Some("a:b c:p%+"), "grant_type=client_credentials", 401, "invalid_client"),
            (None, "grant_type=client_credentials", 401, "invalid_client"),
            (None, "grant_type=client_credentials&client_id=app", 400, "unauthorized_client"),
            (None, "grant_type=password&client_id=app&username=bob&password=hunter2", 200, ""),
            (
                None,
                "grant_type=client_credentials&client_id=a:b+c&client_secret=p%25%2B",
                200,
                "read write",
            ),
        ];
        for (authorization, body, status, says) in cases {
            let answer = answer(&provider, &request(authorization, body));
            assert_eq!(answer.status, status, "{body}: {answer:?}");
            let said = if status == 200 { "scope" } else { "error" };
            assert_eq!(answer.json[said], says, "{body}");
            assert_eq!(answer.headers["cache-control"], "no-store", "{body}");
            let challenged = answer.headers.contains_key(WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401 && authorization.is_some(), "{body}");
        }
        assert_eq!(provider.requests(Endpoint::Token), 0);
    }

    #[tokio::test]
    async fn only_forms_by_post_are_read() {
        let provider = provider().await;
        let mut get = request(None, "");
        get.method = Method::GET;
        let refused = answer(&provider, &get);
        assert_eq!(
            (refused.status.as_u16(), &refused.headers[ALLOW]),
            (405, &"POST".parse().unwrap())
        );
        let mut json = request(None, r#"{"grant_type":"client_credentials"}"#);
        json.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(answer(&provider, &json).json["error"], "invalid_request");
    }
}
