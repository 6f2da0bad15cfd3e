//! [`AuthorizationRequest`]: where a browser is sent to sign in (RFC 6749 §4.1.1, OpenID Connect
//! Core §3.1.2.1).

use url::Url;

use super::{ExchangeError, PkceVerifier, TokenExchangeClient};
use crate::config::{Fault, TENANT_PLACEHOLDER};
use crate::identity::Scopes;

/// What the provider's sign-in page is asked for.
///
/// Always with PKCE and S256 (RFC 7636 §4.3). Whoever sends a browser there keeps verifier, state
/// and nonce where that browser alone can bring them back from, and compares.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuthorizationRequest {
    /// Where the provider sends the browser afterwards; registered there, and the same in the
    /// [`CodeRequest`](super::CodeRequest), byte for byte.
    pub redirect_uri: String,
    /// What the tokens are to permit. With `openid` an ID token comes along.
    pub scopes: Scopes,
    /// Comes back with the browser (RFC 6749 §10.12).
    pub state: String,
    /// Comes back in the ID token (OpenID Connect Core §3.1.2.1).
    pub nonce: Option<String>,
    /// `code_challenge`.
    pub challenge: String,
    /// Members of the provider's own, such as `prompt` or `login_hint`. One that the request has
    /// anyway is left out.
    pub extra: Vec<(String, String)>,
}

impl AuthorizationRequest {
    /// A request without scopes and nonce.
    pub fn new(
        redirect_uri: impl Into<String>,
        verifier: &PkceVerifier,
        state: impl Into<String>,
    ) -> Self {
        Self {
            redirect_uri: redirect_uri.into(),
            scopes: Scopes::new(),
            state: state.into(),
            nonce: None,
            challenge: verifier.challenge(),
            extra: Vec::new(),
        }
    }

    /// Asks for these scopes.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    /// Binds the ID token to this sign-in.
    pub fn nonce(mut self, nonce: impl Into<String>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }

    /// Adds a member of the provider's own.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    fn write(&self, client_id: &str, mut url: Url) -> Url {
        let mut members = vec![
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", &self.redirect_uri),
            ("state", &self.state),
            ("code_challenge", &self.challenge),
            ("code_challenge_method", "S256"),
        ];
        if !self.scopes.is_empty() {
            members.push(("scope", self.scopes.as_str()));
        }
        if let Some(nonce) = &self.nonce {
            members.push(("nonce", nonce));
        }
        for (name, value) in &self.extra {
            if members.iter().all(|(known, _)| known != name) {
                members.push((name, value));
            }
        }
        url.query_pairs_mut().extend_pairs(members);
        url
    }
}

impl TokenExchangeClient {
    /// Where to send a browser, so that its user signs in.
    ///
    /// # Errors
    /// When metadata is needed and cannot be read, or names no authorization endpoint, or says
    /// that the provider has no S256.
    pub async fn authorization_url(
        &self,
        request: &AuthorizationRequest,
    ) -> Result<Url, ExchangeError> {
        Ok(request.write(self.client_id(), self.authorization_endpoint().await?))
    }

    pub(crate) async fn authorization_endpoint(&self) -> Result<Url, ExchangeError> {
        let endpoint = &self.cached.endpoint;
        if let Some(url) = &endpoint.authorization_url {
            return Ok(url.clone());
        }
        let known = endpoint.endpoints().await?;
        if known.lacks_s256 {
            return Err(ExchangeError::NotConfigured(
                "the provider's code_challenge_methods_supported lack S256",
            ));
        }
        known.authorization.clone().ok_or(ExchangeError::NotConfigured(
            "the provider names no authorization_endpoint; set authorization_url",
        ))
    }

    /// The service's `client_id`.
    pub fn client_id(&self) -> &str {
        self.cached.endpoint.auth.client_id()
    }

    /// The provider's name, as `iss` says it.
    pub fn issuer(&self) -> &str {
        &self.cached.endpoint.name
    }

    /// Whether the token endpoint depends on the tenant, which every request must name then.
    pub(crate) fn is_per_tenant(&self) -> bool {
        self.cached.endpoint.is_per_tenant()
    }

    /// Why no sign-in could ever succeed, with an ID token or without.
    pub(crate) fn sign_in_faults(&self, with_id_token: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        let endpoint = &self.cached.endpoint;
        if endpoint.authorization_url.is_none() && endpoint.metadata_urls.is_empty() {
            let problem = "is missing: where there is one issuer per tenant, no metadata names it";
            faults.push(Fault::new("authorization_url", problem));
        }
        if with_id_token && endpoint.name.contains(TENANT_PLACEHOLDER) {
            let problem = "stands for many, and ID tokens name one issuer: sign in with a client of one issuer \
                           (`TokenExchangeClient::builder`), or without the scope openid (scopes, `P_SCOPES`)";
            faults.push(Fault::new("issuer", problem));
        }
        faults
    }

    /// Whether the provider's authorization responses carry `iss` (RFC 9207 §2.4). Where all
    /// endpoints are configured there may be no metadata, and not known counts as no.
    ///
    /// # Errors
    /// When metadata is needed and cannot be read.
    pub(crate) async fn supports_iss_parameter(&self) -> Result<bool, ExchangeError> {
        let endpoint = &self.cached.endpoint;
        match endpoint.endpoints().await {
            Ok(known) => Ok(known.supports_iss_parameter),
            Err(error) if endpoint.needs_metadata() => Err(error),
            Err(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_each_member_once_and_s256() {
        let verifier = PkceVerifier::parse(&"a".repeat(43)).unwrap();
        let request = AuthorizationRequest::new("https://app.example/cb?x=1", &verifier, "s t")
            .scopes("openid email".parse().unwrap())
            .nonce("n")
            .with("prompt", "login")
            .with("code_challenge_method", "plain");
        let url = request.write("app", "https://id.example/auth?tenant=acme".parse().unwrap());
        let members: Vec<_> = url.query_pairs().into_owned().collect();
        let expected = [
            ("tenant", "acme"),
            ("response_type", "code"),
            ("client_id", "app"),
            ("redirect_uri", "https://app.example/cb?x=1"),
            ("state", "s t"),
            ("code_challenge", &verifier.challenge()),
            ("code_challenge_method", "S256"),
            ("scope", "openid email"),
            ("nonce", "n"),
            ("prompt", "login"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(members, expected);
    }
}
