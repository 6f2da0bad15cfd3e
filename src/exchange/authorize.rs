//! [`AuthorizationRequest`]: the request that starts a browser sign-in (RFC 6749 §4.1.1, OpenID Connect
//! Core §3.1.2.1).

use url::Url;

use super::{ExchangeError, PkceVerifier, TokenExchangeClient};
use crate::config::{Fault, TENANT_PLACEHOLDER};
use crate::identity::Scopes;

/// The parameters that a sign-in sets itself, and those that would replace them (RFC 9101).
const RESERVED: [&str; 10] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];

/// Returns the reserved parameter of this name: one that a further parameter must not replace.
pub(crate) fn reserved_parameter(name: &str) -> Option<&'static str> {
    RESERVED.into_iter().find(|reserved| *reserved == name)
}

/// The parameters of an authorization request, which sends a browser to the provider's sign-in page.
///
/// The request always uses PKCE with S256 (RFC 7636 §4.3). The caller must store the verifier, the
/// state and the nonce in the browser's session. In the callback, compare the state, send the verifier
/// with the code, and compare the nonce with that of the ID token.
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::exchange::{AuthorizationRequest, PkceVerifier};
///
/// /// Returns the URL of the sign-in page, and the verifier for the session of the browser.
/// async fn begin(
///     client: &TokenExchangeClient,
///     state: &str,
///     nonce: &str,
/// ) -> Result<(String, PkceVerifier), BoxError> {
///     let verifier = PkceVerifier::generate()?;
///     let request = AuthorizationRequest::new("https://drive.example/callback", &verifier, state)
///         .scopes("openid profile".parse()?)
///         .nonce(nonce)
///         .parameter("prompt", "select_account");
///     Ok((client.authorization_url(&request).await?.to_string(), verifier))
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AuthorizationRequest {
    /// The URL to which the provider redirects the browser after the sign-in. It must be registered at
    /// the provider, and must be exactly the same in the [`CodeRequest`](super::CodeRequest).
    pub redirect_uri: String,
    /// The requested scopes. With `openid` the provider returns an ID token. Empty, the default: the provider
    /// decides.
    pub scopes: Scopes,
    /// The `state`: a random value that the provider returns in the callback, as protection against
    /// CSRF (RFC 6749 §10.12).
    pub state: String,
    /// The `nonce`: a random value that the provider copies into the ID token (OpenID Connect Core
    /// §3.1.2.1). Default: none, so the ID token is not bound to this sign-in.
    pub nonce: Option<String>,
    /// The `code_challenge`: the result of [`PkceVerifier::challenge`].
    pub challenge: String,
    /// Further parameters, such as `prompt` or `login_hint`. A name may be repeated, as that of
    /// `resource` (RFC 8707). The parameters of the request itself, `request` and `request_uri` are not
    /// allowed. Default: none.
    pub extra: Vec<(String, String)>,
}

impl AuthorizationRequest {
    /// Returns a request without scopes and without a nonce.
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

    /// Requests these scopes.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    /// Sets the nonce, which binds the ID token to this sign-in.
    pub fn nonce(mut self, nonce: impl Into<String>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }

    /// Adds a parameter, such as `prompt` or `login_hint`. A parameter that the request itself has, such as
    /// `state` or `scope`, makes
    /// [`authorization_url`](crate::TokenExchangeClient::authorization_url) fail.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    fn write(&self, client_id: &str, mut url: Url) -> Url {
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", &self.redirect_uri),
            ("state", &self.state),
            ("code_challenge", &self.challenge),
            ("code_challenge_method", "S256"),
        ];
        if !self.scopes.is_empty() {
            parameters.push(("scope", self.scopes.as_str()));
        }
        if let Some(nonce) = &self.nonce {
            parameters.push(("nonce", nonce));
        }
        parameters.extend(self.extra.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }
}

impl TokenExchangeClient {
    /// Returns the URL that a browser must open to sign in.
    ///
    /// # Errors
    /// A further parameter of the request has the name of one that the request itself sets; or the
    /// authorization endpoint is not configured, and the metadata cannot be read, does not name the
    /// endpoint, or lists code challenge methods without S256.
    pub async fn authorization_url(
        &self,
        request: &AuthorizationRequest,
    ) -> Result<Url, ExchangeError> {
        if request.extra.iter().any(|(name, _)| reserved_parameter(name).is_some()) {
            return Err(ExchangeError::NotConfigured(
                "an additional parameter of the authorization request is one that the request itself sets, such as state or scope: remove it",
            ));
        }
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
                "the provider's code_challenge_methods_supported does not list S256",
            ));
        }
        known.authorization.clone().ok_or(ExchangeError::NotConfigured(
            "the provider's metadata has no authorization_endpoint; set authorization_url",
        ))
    }

    /// Returns the service's `client_id`.
    pub fn client_id(&self) -> &str {
        self.cached.endpoint.auth.client_id()
    }

    /// Returns the provider's issuer, as in the claim `iss`.
    pub fn issuer(&self) -> &str {
        &self.cached.endpoint.name
    }

    /// Returns whether the token endpoint depends on the tenant. Then every request must name one.
    pub(crate) fn is_per_tenant(&self) -> bool {
        self.cached.endpoint.is_per_tenant()
    }

    /// Returns the configuration faults that would make every sign-in fail.
    pub(crate) fn sign_in_faults(&self, with_id_token: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        let endpoint = &self.cached.endpoint;
        if endpoint.authorization_url.is_none() && endpoint.metadata_urls.is_empty() {
            let problem = "is missing, and an issuer with {tenant_id} has no single metadata document: set it \
                           (`P_AUTHORIZATION_URL`), or discovery_url (`P_DISCOVERY_URL`)";
            faults.push(Fault::new("authorization_url", problem));
        }
        if with_id_token && endpoint.name.contains(TENANT_PLACEHOLDER) {
            let problem = "has {tenant_id}, but an ID token names one issuer: use a client for a single issuer \
                           (`TokenExchangeClient::builder`), or remove the scope openid (scopes, `P_SCOPES`)";
            faults.push(Fault::new("issuer", problem));
        }
        faults
    }

    /// Returns whether the provider adds `iss` to authorization responses (RFC 9207 §2.4). Returns
    /// false if all endpoints are configured and there is no metadata.
    ///
    /// # Errors
    /// The metadata is needed and cannot be read.
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
    fn request_has_its_parameters_and_more() {
        let verifier = PkceVerifier::parse(&"a".repeat(43)).unwrap();
        let request = AuthorizationRequest::new("https://app.example/cb?x=1", &verifier, "s t")
            .scopes("openid email".parse().unwrap())
            .nonce("n")
            .parameter("prompt", "login")
            .parameter("resource", "https://one.example")
            .parameter("resource", "https://two.example");
        let url = request.write("app", "https://id.example/auth?tenant=acme".parse().unwrap());
        let parameters: Vec<_> = url.query_pairs().into_owned().collect();
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
            ("resource", "https://one.example"),
            ("resource", "https://two.example"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parameters, expected);
    }
}
