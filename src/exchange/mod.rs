//! [`TokenExchangeClient`]: gets tokens from the provider's token endpoint.

mod builder;
mod client_auth;
mod contract;
mod error;
mod grant;
mod pkce;
mod token;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::OnceCell;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::clock::Clock;
use crate::config::TENANT_PLACEHOLDER;
use crate::identity::TenantId;
use crate::issuer::Http;
use crate::secret::Secret;
use grant::Grant;

pub use builder::TokenExchangeBuilder;
pub use client_auth::{ClientAuth, SecretSource};
pub use error::{ExchangeError, OAuthError};
pub use grant::{
    CodeRequest, ExchangeRequest, PasswordRequest, RefreshRequest, ServiceTokenRequest, TokenType,
};
pub use pkce::PkceVerifier;
pub use token::{AccessToken, Freshness};

/// No answer of a token endpoint is larger.
const MAX_BYTES: usize = 1 << 20;

/// Gets tokens from one provider: one method for each grant, one request for each call.
///
/// Nothing is kept and nothing is tried again: every call asks the provider once (and, the first
/// time, its metadata). An answer must be a bearer token, and must not permit more than was asked
/// for. If what an exchange gives is a JWT, its `aud` must name all that was asked for, and `sub`
/// and `tenant_id` must be those of the subject token, where that is a JWT, too. A service token
/// that is a JWT with a `tenant_id` must be of the tenant asked for. Opaque tokens cannot be
/// looked into; signatures are *not* verified, because the token came from the provider itself.
///
/// ```no_run
/// use scaikey_auth::{ClientAuth, ExchangeRequest, TokenExchangeClient};
///
/// # async fn example(incoming: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let client = TokenExchangeClient::builder("https://scaikey.example")
///     .client_auth(ClientAuth::basic("scaidrive", "secret"))
///     .build()?;
/// let token = client.exchange(&ExchangeRequest::new(incoming, "scaivault")).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TokenExchangeClient {
    http: Http,
    clock: Arc<dyn Clock>,
    issuer: Url,
    /// The issuer as its metadata spells it.
    name: String,
    auth: ClientAuth,
    token_url: Option<String>,
    revocation_url: Option<Url>,
    requested_type: Option<TokenType>,
    tenant_parameter: Option<String>,
    allows_passwords: bool,
    allow_loopback_http: bool,
    relaxed: contract::Relaxed,
    timeout: Duration,
    learned: OnceCell<(Url, Option<Url>)>,
}

impl TokenExchangeClient {
    /// Begins to set one up for the provider with this issuer URL.
    pub fn builder(issuer: impl Into<String>) -> TokenExchangeBuilder {
        TokenExchangeBuilder::new(issuer.into())
    }

    /// Exchanges a token for one of another audience (RFC 8693).
    ///
    /// # Errors
    /// [`ExchangeError`]; a target the provider has no tokens for is `invalid_target`, a subject
    /// token it does not accept is `invalid_request`.
    pub async fn exchange(&self, request: &ExchangeRequest) -> Result<AccessToken, ExchangeError> {
        let token =
            self.grant(&Grant::Exchange(request, self.requested_type.as_ref()), None).await?;
        let expected = [TokenType::AccessToken, TokenType::Jwt];
        match token.issued_token_type() {
            Some(kind) if expected.iter().any(|known| known.as_str() == kind) => {
                contract::check(request, &token, self.relaxed).map(|()| token)
            }
            Some(_) => Err(ExchangeError::Answer("has another issued_token_type than asked for")),
            None => Err(ExchangeError::Answer("has no issued_token_type")),
        }
    }

    /// Gets a token for the service itself (client credentials). A refresh token that comes along
    /// is not for use (RFC 6749 §4.4.3).
    ///
    /// # Errors
    /// [`ExchangeError`]; also when a tenant is named and the client does not know how to tell the
    /// provider, and when the answer is a JWT of another tenant.
    pub async fn service_token(
        &self,
        request: &ServiceTokenRequest,
    ) -> Result<AccessToken, ExchangeError> {
        if self.auth.is_public() {
            return Err(ExchangeError::NotConfigured("a public client has no tokens of its own"));
        }
        if request.tenant.is_some() && self.tenant_parameter.is_none() && !self.is_templated() {
            return Err(ExchangeError::NotConfigured(
                "set tenant_parameter, or {tenant_id} in token_url, to ask for a tenant's token",
            ));
        }
        let grant = Grant::Service(request, self.tenant_parameter.as_deref());
        let token = self.grant(&grant, request.tenant.as_ref()).await?;
        match (&request.tenant, token.claim("tenant_id")) {
            (Some(asked), Some(got)) if asked.as_str() != got => {
                Err(ExchangeError::Answer("is a token of another tenant"))
            }
            _ => Ok(token),
        }
    }

    /// Gets a new access token for a session (RFC 6749 §6). Where the provider rotates refresh
    /// tokens, two calls with the same one end the session: the caller sees to it that there is
    /// one.
    ///
    /// # Errors
    /// [`ExchangeError`]; `invalid_grant` means that the user has to sign in again.
    pub async fn refresh(&self, request: &RefreshRequest) -> Result<AccessToken, ExchangeError> {
        self.grant(&Grant::Refresh(request), None).await
    }

    /// Redeems an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn authorization_code(
        &self,
        request: &CodeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        self.grant(&Grant::Code(request), None).await
    }

    /// Signs a user in with a password (RFC 6749 §4.3). Off unless
    /// [enabled](TokenExchangeBuilder::enable_password_grant).
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn password(&self, request: &PasswordRequest) -> Result<AccessToken, ExchangeError> {
        if !self.allows_passwords {
            return Err(ExchangeError::NotConfigured("the password grant is not enabled"));
        }
        self.grant(&Grant::Password(request), None).await
    }

    /// Ends a token before its time (RFC 7009). A token the provider does not know is a success.
    ///
    /// # Errors
    /// [`ExchangeError`]; also when neither metadata nor configuration name an endpoint.
    pub async fn revoke(&self, token: &Secret) -> Result<(), ExchangeError> {
        let url = match &self.revocation_url {
            Some(url) => url.clone(),
            None => self.learned().await?.1.clone().ok_or(ExchangeError::NotConfigured(
                "the provider names no revocation_endpoint; set revocation_url",
            ))?,
        };
        let mut form = Serializer::new(String::new());
        form.append_pair("token", token.expose());
        self.post(&url, form).await.map(drop)
    }

    async fn grant(
        &self,
        grant: &Grant<'_>,
        tenant: Option<&TenantId>,
    ) -> Result<AccessToken, ExchangeError> {
        let url = self.token_url(tenant).await?;
        let mut form = Serializer::new(String::new());
        grant.write(&mut form);
        let body = self.post(&url, form).await?;
        let token = AccessToken::parse(&body, &*self.clock)?;
        if !token.is_bearer() {
            return Err(ExchangeError::Answer("is no access token"));
        }
        match (grant.scopes(), token.scopes()) {
            (Some(asked), Some(got)) if !asked.contains_all(got) => {
                Err(ExchangeError::Answer("permits more than was asked for"))
            }
            _ => Ok(token),
        }
    }

    /// POSTs a form with the client's proof; the body of a 200.
    async fn post(
        &self,
        url: &Url,
        mut form: Serializer<'_, String>,
    ) -> Result<Vec<u8>, ExchangeError> {
        let header = self.auth.prove(&mut form, &self.name, self.clock.now())?;
        let sent = self.http.post_form(url, header, form.finish(), self.timeout, MAX_BYTES).await;
        match sent {
            Ok(answer) if answer.status == StatusCode::OK => Ok(answer.body),
            Ok(answer) => Err(ExchangeError::of(answer.status, answer.retry_after, &answer.body)),
            Err(error) => Err(unavailable(format!("{url} {error}"))),
        }
    }

    fn is_templated(&self) -> bool {
        self.token_url.as_deref().is_some_and(|url| url.contains(TENANT_PLACEHOLDER))
    }

    async fn token_url(&self, tenant: Option<&TenantId>) -> Result<Url, ExchangeError> {
        let Some(template) = &self.token_url else { return Ok(self.learned().await?.0.clone()) };
        let refused = ExchangeError::NotConfigured;
        let url = match (tenant, self.is_templated()) {
            (Some(tenant), true) => template.replace(TENANT_PLACEHOLDER, &segment(tenant)?),
            (None, true) => return Err(refused("token_url needs a tenant")),
            (_, false) => template.clone(),
        };
        Url::parse(&url).map_err(|_| refused("token_url is not a URL"))
    }

    /// What metadata said. It is asked once, when it is first needed.
    async fn learned(&self) -> Result<&(Url, Option<Url>), ExchangeError> {
        let learn = async || {
            let (issuer, plain) = (&self.issuer, self.allow_loopback_http);
            let asked = self.http.endpoints(issuer, &self.name, plain, self.timeout, MAX_BYTES);
            let endpoints = asked.await.map_err(unavailable)?;
            Ok((endpoints.token, endpoints.revocation))
        };
        self.learned.get_or_try_init(learn).await
    }
}

/// A tenant as one segment of a path. Dots alone would lead elsewhere.
fn segment(tenant: &TenantId) -> Result<String, ExchangeError> {
    if tenant.as_str().bytes().all(|b| b == b'.') {
        return Err(ExchangeError::NotConfigured("this tenant cannot be part of a URL"));
    }
    Ok(byte_serialize(tenant.as_str().as_bytes()).collect())
}

fn unavailable(problem: String) -> ExchangeError {
    ExchangeError::Unavailable { retry_after: None, source: problem.into() }
}
