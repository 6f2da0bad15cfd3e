//! [`TokenExchangeClient`]: obtains tokens for calls to other services.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;

use super::cached::CachedExchange;
use super::contract;
use super::request::TokenRequest;
use super::{
    AccessToken, CacheStatus, CodeRequest, ExchangeError, ExchangeRequest, OAuthError,
    PasswordRequest, RefreshRequest, ServiceTokenRequest, TokenExchangeBuilder,
};
use crate::config::AuthConfig;
use crate::issuer::Issuers;
use crate::support::secret::Secret;
use crate::support::telemetry;

/// Obtains tokens from one provider, with one method for each grant. Cheap to clone; clones share the
/// cache and the circuit breakers.
///
/// # Caching
///
/// [`exchange`](Self::exchange) and [`service_token`](Self::service_token) answer from a
/// [`TokenCache`](crate::TokenCache) if they can. Concurrent calls for the same token share one request
/// to the provider, which continues even if the first caller is dropped. After 80 % of its lifetime a
/// token is still returned while a background task requests the next one, so a short outage of the
/// provider has no effect. Concurrent calls of [`refresh`](Self::refresh) or
/// [`authorization_code`](Self::authorization_code) spend a refresh token or code only once. The password
/// grant is never cached.
///
/// # Retries and circuit breaker
///
/// A request that was not sent is retried once. Exchanges and requests for service tokens are also
/// retried once if no answer arrived. After three failures in a row a circuit breaker opens for 1 to 60
/// seconds, or for the `Retry-After` of the answer, at most a minute. It opens for all grants after a
/// failed connection or an answer of a gateway (502, 503, 504). After 429, 500 or a timeout it opens for
/// one grant, because a single caller may have caused the failure.
///
/// # Verification
///
/// The answer must be a bearer token without scopes that were not requested. If an exchange returns a
/// JWT:
///
/// * its `aud` must contain every requested audience and resource;
/// * its scopes must be a subset of the requested ones, if any were requested;
/// * its `sub` and `tenant_id` must equal those of the subject token, if that is a JWT with these claims.
///
/// A service token that is a JWT with a `tenant_id` must have the requested tenant. Claims of opaque
/// tokens cannot be verified. Signatures are *not* verified, because the token came directly from the
/// provider.
///
/// ```no_run
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::{ExchangeRequest, TenantId, TokenExchangeClient};
///
/// # async fn example(incoming: &str, tenant: &TenantId) -> Result<(), Box<dyn std::error::Error>> {
/// // Other methods, such as a private key: see `ClientAuth`.
/// let client = TokenExchangeClient::builder("https://scaikey.example")
///     .client_auth(ClientAuth::basic("scaidrive", "secret"))
///     .tenant_parameter("tenant_id")
///     .build()?;
/// let for_the_user = client.exchange(&ExchangeRequest::new(incoming, "scaivault")).await?;
/// let for_the_service = client.service_token(tenant).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TokenExchangeClient {
    pub(super) cached: Arc<CachedExchange>,
}

impl TokenExchangeClient {
    /// Returns a builder for the provider with this issuer URL.
    pub fn builder(issuer: impl Into<String>) -> TokenExchangeBuilder {
        TokenExchangeBuilder::new(issuer.into())
    }

    /// Sets [`issuers`](TokenExchangeBuilder::issuers), unless the builder set it.
    pub(crate) fn share_metadata(&self, issuers: &Issuers) {
        // Fails if it is set, which is as good.
        let _ = self.cached.endpoint.issuers.set(issuers.clone());
    }

    /// Returns a builder for the first issuer of this configuration, with the configured
    /// [`client`](crate::AuthConfig::client).
    pub fn from_config(config: &AuthConfig) -> TokenExchangeBuilder {
        TokenExchangeBuilder::from_config(config)
    }

    /// Returns a builder configured from environment variables: see [`AuthConfig::from_env`].
    /// [`build`](TokenExchangeBuilder::build) reports variables that cannot be read.
    pub fn from_env(prefix: &str) -> TokenExchangeBuilder {
        Self::from_config(&AuthConfig::from_env(prefix))
    }

    /// Exchanges a token for a token with another audience (RFC 8693), or returns the cached one.
    ///
    /// A token is cached until 30 seconds before it expires, and no longer than the subject token lives.
    /// A refusal is cached for ten seconds.
    ///
    /// # Errors
    /// [`ExchangeError`]. `invalid_target` means that the provider issues no tokens for the target,
    /// `invalid_request` that it does not accept the subject token.
    pub async fn exchange(&self, request: &ExchangeRequest) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Exchange(Cow::Borrowed(request)), None).await
    }

    /// Exchanges again, because a downstream service rejected a token. If the token was replaced in the
    /// meantime, returns the cached replacement. A token younger than ten seconds is returned unchanged,
    /// because its age was not the reason for the rejection.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn exchange_replacing(
        &self,
        rejected: &AccessToken,
        request: &ExchangeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Exchange(Cow::Borrowed(request)), Some(rejected)).await
    }

    /// Obtains a token for the service itself (client credentials, RFC 6749 §4.4), or returns the cached
    /// one. A [`TenantId`](crate::TenantId) converts into a request.
    ///
    /// To request a token in a tenant, configure one of these: `{tenant_id}` in
    /// [`token_url`](TokenExchangeBuilder::token_url),
    /// [`token_urls`](TokenExchangeBuilder::token_urls), or a
    /// [`tenant_parameter`](TokenExchangeBuilder::tenant_parameter).
    ///
    /// # Errors
    /// [`ExchangeError`]. Also if the request names a tenant and none of these is configured, or if the
    /// answer is a JWT of another tenant.
    pub async fn service_token(
        &self,
        request: impl Into<ServiceTokenRequest>,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Service(Cow::Owned(request.into())), None).await
    }

    /// Obtains another token, because a downstream service rejected one. Works like
    /// [`exchange_replacing`](Self::exchange_replacing).
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn service_token_replacing(
        &self,
        rejected: &AccessToken,
        request: impl Into<ServiceTokenRequest>,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Service(Cow::Owned(request.into())), Some(rejected)).await
    }

    /// Obtains a token, or returns the cached one, unless that one was `rejected`.
    pub(crate) async fn token(
        &self,
        request: &TokenRequest<'_>,
        rejected: Option<&AccessToken>,
    ) -> Result<AccessToken, ExchangeError> {
        if let TokenRequest::Service(request) = request {
            self.check_service_request(request)?;
        }
        self.cached.get(request, rejected).await
    }

    fn check_service_request(&self, request: &ServiceTokenRequest) -> Result<(), ExchangeError> {
        if self.cached.endpoint.auth.is_public() {
            return Err(ExchangeError::NotConfigured(
                "a public client cannot request service tokens",
            ));
        }
        let sends_tenant = self.cached.endpoint.settings.tenant_parameter.is_some()
            || self.cached.endpoint.is_per_tenant();
        if request.tenant.is_some() && !sends_tenant {
            return Err(ExchangeError::NotConfigured(
                "set tenant_parameter, or {tenant_id} in token_url, to request a token in a tenant",
            ));
        }
        Ok(())
    }

    /// Obtains a new access token for a session (RFC 6749 §6). [`SessionTokens`](super::SessionTokens)
    /// calls this before the token expires.
    ///
    /// If the provider rotates refresh tokens, it ends the session when one is used twice. So every call
    /// with the same refresh token within a minute returns the result of the first call, in all processes
    /// that share a cache. While a shared cache does not answer, no refresh token is spent: the call
    /// fails with [`Unavailable`](ExchangeError::Unavailable) after the
    /// [`cache_timeout`](TokenExchangeBuilder::cache_timeout). A request without an answer is not
    /// retried, because the provider may have granted it.
    ///
    /// # Errors
    /// [`ExchangeError`]. `invalid_grant` means that the user has to sign in again.
    pub async fn refresh(&self, request: &RefreshRequest) -> Result<AccessToken, ExchangeError> {
        let request = TokenRequest::Refresh(Cow::Borrowed(request));
        let token = self.cached.get(&request, None).await?;
        // The first call with this refresh token may have requested more scopes.
        contract::verify(&request, &token, self.cached.endpoint.settings.relaxed).map(|()| token)
    }

    /// Redeems an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// A provider that receives a code twice ends the session (RFC 6749 §4.1.2). So only the first call
    /// sends the code, in all processes that share a cache. A call with the same code, verifier and
    /// redirect URI within a minute fails with `invalid_grant` without a request to the provider. With
    /// [`allow_repeats`](CodeRequest::allow_repeats) it returns the same tokens instead.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn authorization_code(
        &self,
        request: &CodeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        let token = self.cached.get(&TokenRequest::Code(Cow::Borrowed(request)), None).await?;
        if request.allows_repeats || token.cache_status() == CacheStatus::Miss {
            return Ok(token);
        }
        Err(ExchangeError::Refused {
            status: StatusCode::BAD_REQUEST,
            error: Some(OAuthError::InvalidGrant),
            retry_after: None,
        })
    }

    /// Signs a user in with a password (RFC 6749 §4.3).
    ///
    /// # Errors
    /// [`ExchangeError`]. Also unless
    /// [`enable_password_grant`](TokenExchangeBuilder::enable_password_grant) was called.
    pub async fn password(&self, request: &PasswordRequest) -> Result<AccessToken, ExchangeError> {
        if !self.allows_passwords() {
            return Err(ExchangeError::NotConfigured("the password grant is not enabled"));
        }
        self.cached.endpoint.fetch(&TokenRequest::Password(Cow::Borrowed(request))).await
    }

    /// Exchanges a token from a foreign issuer. Its subject and tenant are not compared with the
    /// result, and the result is not cached, because the policy decides on every call.
    #[cfg(feature = "trust")]
    pub(crate) async fn exchange_foreign(
        &self,
        mut request: ExchangeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        request.is_foreign = true;
        self.cached.endpoint.fetch(&TokenRequest::Exchange(Cow::Owned(request))).await
    }

    pub(crate) fn allows_passwords(&self) -> bool {
        self.cached.endpoint.settings.allows_passwords
    }

    /// Revokes a token (RFC 7009). Revoking a token that the provider does not know succeeds.
    ///
    /// # Errors
    /// [`ExchangeError`]. Also if neither metadata nor configuration names a revocation endpoint.
    pub async fn revoke(&self, token: &Secret) -> Result<(), ExchangeError> {
        self.cached.endpoint.revoke(token.expose()).await
    }

    /// Logs a token that should have been revoked and was not. Warns only once until revocation works
    /// again, because anonymous callers can cause the failure.
    pub(crate) fn log_revocation(&self, token_kind: &'static str, error: Option<&ExchangeError>) {
        let endpoint = &self.cached.endpoint;
        let outage = endpoint.breakers.of(&endpoint.name).outage(token_kind);
        match error {
            Some(error) => {
                let is_new = outage.begins(error, self.cached.clock().elapsed());
                telemetry::not_revoked(token_kind, error.kind(), error, is_new);
            }
            None => {
                outage.ends(|| self.cached.clock().elapsed());
            }
        }
    }
}
