//! The OAuth endpoints: authorization and tokens (RFC 6749), revocation (RFC 7009), introspection
//! (RFC 7662), and sign-out.

mod authorize;
mod client;
mod exchange;
mod form;
mod grant_store;
mod grants;
mod issuer;
mod pages;
mod revoke_and_introspect;
mod sign_ins;

use http::header::{ALLOW, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::endpoint::{ProviderEndpoint, ReceivedRequest};
use super::issuer::TestIssuer;
use super::keys::SigningKey;
use form::Form;
pub(super) use grant_store::GrantStore;

/// The media type of a signed introspection answer (RFC 9701 §5).
pub(super) const SIGNED_INTROSPECTION: &str = "application/token-introspection+jwt";

/// An answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The JSON body. `null` means an empty body.
    pub(super) json: Value,
    /// An HTML body instead of JSON.
    pub(super) page: Option<String>,
    /// The key that signs the JSON body, which is then the payload of a JWT (RFC 9701 §5).
    pub(super) signed_by: Option<SigningKey>,
}

/// Answers a request to an OAuth endpoint.
pub(super) fn answer(
    issuer: &TestIssuer,
    endpoint: ProviderEndpoint,
    request: &ReceivedRequest,
) -> Answer {
    if endpoint == ProviderEndpoint::Authorization {
        return authorize::answer(issuer, request);
    }
    if endpoint == ProviderEndpoint::EndSession {
        return sign_ins::answer(issuer, request);
    }
    let answer = || {
        let form = Form::read(request)?;
        let client = client::authenticate(issuer, request, &form)?;
        match endpoint {
            ProviderEndpoint::Revocation => revoke_and_introspect::revoke(issuer, &client, &form),
            ProviderEndpoint::Introspection => {
                revoke_and_introspect::introspect(issuer, &client, request, &form)
            }
            _ => grants::grant(issuer, &client, &form),
        }
    };
    answer().unwrap_or_else(Answer::from)
}

/// An error answer (RFC 6749 §5.2).
#[derive(Debug)]
pub(super) struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
    header: Option<(http::HeaderName, &'static str)>,
}

impl OAuthError {
    pub(super) const fn new(error: &'static str, description: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description, header: None }
    }

    fn wrong_method() -> Self {
        let mut error = Self::new("invalid_request", "the method must be POST");
        error.status = StatusCode::METHOD_NOT_ALLOWED;
        error.header = Some((ALLOW, "POST"));
        error
    }

    fn invalid_client() -> Self {
        let mut error = Self::new("invalid_client", "unknown client or wrong credential");
        error.status = StatusCode::UNAUTHORIZED;
        error
    }

    /// Returns `invalid_client` with a challenge, for a client that used the `Authorization`
    /// header.
    fn invalid_client_with_challenge() -> Self {
        let mut error = Self::invalid_client();
        error.header = Some((WWW_AUTHENTICATE, r#"Basic realm="token endpoint""#));
        error
    }
}

impl Answer {
    fn ok(json: Value) -> Self {
        Self {
            status: StatusCode::OK,
            headers: no_store_headers(),
            json,
            page: None,
            signed_by: None,
        }
    }

    fn signed_by(mut self, key: SigningKey) -> Self {
        self.signed_by = Some(key);
        self
    }
}

impl From<OAuthError> for Answer {
    fn from(error: OAuthError) -> Self {
        let mut headers = no_store_headers();
        if let Some((name, value)) = error.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let json = json!({ "error": error.error, "error_description": error.description });
        Self { status: error.status, headers, json, page: None, signed_by: None }
    }
}

/// Returns the headers that RFC 6749 §5.1 requires.
fn no_store_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (http::header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (http::header::PRAGMA, HeaderValue::from_static("no-cache")),
    ])
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::Method;
    use http::header::{AUTHORIZATION, CONTENT_TYPE};

    use super::super::{Client, Provider, ProviderEndpoint, User};
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    fn request(authorization: Option<&str>, body: &str) -> ReceivedRequest {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
        if let Some(pair) = authorization {
            let value = format!("basic {}", STANDARD.encode(pair));
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        let body = body.to_owned().into();
        ReceivedRequest { method: Method::POST, target: "/oauth/token".into(), headers, body }
    }

    async fn provider() -> Provider {
        let provider = Provider::start().await;
        provider.register_client(Client::new("a:b c", "p%+").scopes("read write"));
        provider.register_client(Client::public("app"));
        provider.register_user(User::new("bob", "hunter2"));
        provider
    }

    #[tokio::test]
    async fn token_requests_are_checked() {
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
        for (authorization, body, status, expected) in cases {
            let answer = answer(&provider, ProviderEndpoint::Token, &request(authorization, body));
            assert_eq!(answer.status, status, "{body}: {answer:?}");
            let member = if status == 200 { "scope" } else { "error" };
            assert_eq!(answer.json[member], expected, "{body}");
            assert_eq!(answer.headers["cache-control"], "no-store", "{body}");
            let challenged = answer.headers.contains_key(WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401 && authorization.is_some(), "{body}");
        }
        assert_eq!(provider.requests(ProviderEndpoint::Token), 0);
    }

    #[tokio::test]
    async fn only_posted_forms_are_accepted() {
        let provider = provider().await;
        let mut get = request(None, "");
        get.method = Method::GET;
        let refused = answer(&provider, ProviderEndpoint::Token, &get);
        assert_eq!(
            (refused.status.as_u16(), &refused.headers[ALLOW]),
            (405, &"POST".parse().unwrap())
        );
        let mut json = request(None, r#"{"grant_type":"client_credentials"}"#);
        json.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert_eq!(
            answer(&provider, ProviderEndpoint::Token, &json).json["error"],
            "invalid_request"
        );
    }
}
