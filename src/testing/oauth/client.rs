//! Client authentication: by secret (RFC 6749 §2.3), by key (RFC 7523 §2.2), or none.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::super::clients::{Client, ClientCredential};
use super::super::endpoint::ReceivedRequest;
use super::super::issuer::TestIssuer;
use super::super::keys::SigningKey;
use super::{Form, OAuthError};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The assertion type of JWT-SVIDs.
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// The longest lifetime of a client assertion, in seconds.
const MAX_ASSERTION_LIFETIME: u64 = 60;

/// Returns the client, which must authenticate by exactly one method (RFC 6749 §2.3).
pub(super) fn authenticate(
    issuer: &TestIssuer,
    request: &ReceivedRequest,
    form: &Form,
) -> Result<Arc<Client>, OAuthError> {
    let header = request.headers.get(AUTHORIZATION);
    let methods = [header.is_some(), form.has("client_secret"), form.has("client_assertion")];
    if methods.into_iter().filter(|used| *used).count() > 1 {
        return Err(OAuthError::new("invalid_request", "two methods of client authentication"));
    }
    if let Some(value) = header {
        let refused = OAuthError::invalid_client_with_challenge;
        let (id, secret) = basic(value).ok_or_else(refused)?;
        return by_secret(issuer, &id, Some(&secret)).ok_or_else(refused);
    }
    if let Some(assertion) = form.get("client_assertion") {
        let client = match form.get("client_id").and_then(|id| issuer.registry().client(id)) {
            Some(client) if client.is_federated() => by_platform(issuer, client, form, assertion),
            _ => by_key(issuer, form, assertion),
        };
        return client.ok_or_else(OAuthError::invalid_client);
    }
    let id = form.get("client_id").ok_or_else(OAuthError::invalid_client)?;
    by_secret(issuer, id, form.get("client_secret")).ok_or_else(OAuthError::invalid_client)
}

fn by_secret(issuer: &TestIssuer, id: &str, secret: Option<&str>) -> Option<Arc<Client>> {
    let client = issuer.registry().client(id)?;
    let matches = match (&client.credential, secret) {
        (ClientCredential::None, None) => true,
        (ClientCredential::Secret(known), Some(secret)) => known.expose() == secret,
        _ => false,
    };
    matches.then_some(client)
}

/// Authenticates by an assertion that is for this issuer only, short-lived, and used once (RFC 7523
/// §3, with the rules of draft-ietf-oauth-rfc7523bis: `aud` is the issuer, `typ` is explicit).
fn by_key(issuer: &TestIssuer, form: &Form, assertion: &str) -> Option<Arc<Client>> {
    if form.get("client_assertion_type") != Some(JWT_BEARER) {
        return None;
    }
    let id = unverified_issuer(assertion)?;
    let client = issuer.registry().client(&id)?;
    let ClientCredential::Key(key) = &client.credential else { return None };
    let claims = verified(key, assertion)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let now = issuer.unix_now();
    let exp = claims.get("exp").and_then(Value::as_u64)?;
    let good = text("sub") == Some(&id)
        && text("aud") == Some(&issuer.issuer())
        && now < exp
        && exp <= now + MAX_ASSERTION_LIFETIME
        && form.get("client_id").is_none_or(|named| named == id)
        && issuer.grant_store().record_assertion(&id, text("jti")?);
    good.then_some(client)
}

/// Authenticates by a token of the client's platform, which may be used more than once.
fn by_platform(
    issuer: &TestIssuer,
    client: Arc<Client>,
    form: &Form,
    assertion: &str,
) -> Option<Arc<Client>> {
    let ClientCredential::Federated(platform, subject) = &client.credential else { return None };
    let claims = platform.own_claims(assertion)?;
    let has = |name: &str, value: &str| claims.get(name).is_some_and(|actual| actual == value);
    let audience = issuer.issuer();
    let is_for_issuer =
        has("aud", &audience) || claims.get("aud") == Some(&Value::from(vec![audience.as_str()]));
    // A JWT-SVID has no `iss`: the trust domain of its `sub` is the issuer.
    let is_of_platform = match form.get("client_assertion_type") {
        Some(JWT_BEARER) => has("iss", &platform.issuer()),
        Some(JWT_SPIFFE) => subject.starts_with("spiffe://"),
        _ => false,
    };
    let good = is_of_platform
        && has("sub", subject)
        && is_for_issuer
        && issuer.unix_now() < claims.get("exp").and_then(Value::as_u64)?;
    good.then_some(client)
}

fn unverified_issuer(assertion: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1)?).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
    Some(claims.get("iss")?.as_str()?.to_owned())
}

fn verified(key: &SigningKey, assertion: &str) -> Option<Map<String, Value>> {
    let header = URL_SAFE_NO_PAD.decode(assertion.split('.').next()?).ok()?;
    let header: Map<String, Value> = serde_json::from_slice(&header).ok()?;
    let has = |name: &str, value: &str| header.get(name).is_some_and(|actual| actual == value);
    let good = has("typ", "client-authentication+jwt") && has("alg", key.algorithm().as_str());
    good.then(|| key.claims_of(assertion)).flatten()
}

/// Parses HTTP Basic. Id and secret are form-encoded within it (RFC 6749 §2.3.1, Appendix B).
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::super::{Provider, SigningKey};
    use super::super::issuer::tests::{post, status_and_error};
    use super::*;
    use crate::config::Algorithm;

    #[tokio::test]
    async fn assertion_works_once_for_one_issuer() {
        let provider = Provider::start().await;
        let key = SigningKey::generate(Algorithm::ES256);
        provider.register_client(Client::with_key("svc", &key).scopes("read"));
        let assertion = || {
            let lifetime = Duration::from_secs(60);
            let token = provider.token().signed_by(&key).typ(Some("client-authentication+jwt"));
            let token = token.claim("iss", "svc").subject("svc").audience(&provider.issuer());
            token.expires_in(lifetime)
        };
        let send = async |assertion: &str| {
            let url = provider.token_endpoint();
            let form = [
                ("grant_type", "client_credentials"),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", assertion),
            ];
            post(&url, None, &form).await
        };
        let good = assertion().sign();
        assert_eq!(send(&good).await.1["scope"], "read");
        let stranger = SigningKey::generate(Algorithm::ES256);
        for (bad, why) in [
            (good, "used again"),
            (assertion().typ(Some("JWT")).sign(), "another typ"),
            (assertion().audience(&provider.token_endpoint()).sign(), "another audience"),
            (assertion().claim("aud", json!([provider.issuer()])).sign(), "a list"),
            (assertion().expires_in(Duration::from_secs(3600)).sign(), "too long a lifetime"),
            (assertion().expired().sign(), "expired"),
            (assertion().without("jti").sign(), "no jti"),
            (assertion().subject("other").sign(), "another subject"),
            (assertion().signed_by(&stranger).sign(), "another key"),
            ("x".to_owned(), "no JWT"),
        ] {
            assert_eq!(status_and_error(send(&bad).await), (401, "invalid_client".into()), "{why}");
        }
    }
}
