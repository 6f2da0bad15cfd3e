//! [`TokenExchangeClient`]: the right token for each call to another service.

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

/// Gets tokens from one provider: one method for each grant. Cheap to clone: clones share
/// everything.
///
/// [`exchange`](Self::exchange) and [`service_token`](Self::service_token) answer from a
/// [`TokenCache`](crate::TokenCache) when they can. However many callers want the same token at once, the provider is
/// asked once, and a caller that goes away disturbs nobody. From 80 % of its life on, a token is
/// still given out while its successor is sought; so a provider that is away for a while is not
/// noticed. [`refresh`](Self::refresh) spends a refresh token once, however many come with it, and
/// [`authorization_code`](Self::authorization_code) a code.
///
/// The password grant asks the provider for each call. A request that was not sent is tried twice,
/// and so are the ones above other than a refresh. After three failures in a row the endpoint is
/// left alone for 1 to 60 seconds, or as long as its `Retry-After` says, up to a minute: for all
/// grants if there was no connection or a gateway answered (502, 503, 504), else for the grant that
/// failed, because 429, 500 and silence may be due to what one caller sent.
///
/// An answer must be a bearer token, and must not permit more than was asked for. If what an
/// exchange gives is a JWT, its `aud` must name all that was asked for, its scopes must be among those
/// asked for, where any were, and `sub` and `tenant_id` must be those of the subject token, where that
/// is a JWT, too. A service token that is a JWT with
/// a `tenant_id` must be of the tenant asked for. Opaque tokens cannot be looked into; signatures
/// are *not* verified, because the token came from the provider itself.
///
/// ```no_run
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::{ExchangeRequest, TenantId, TokenExchangeClient};
///
/// # async fn example(incoming: &str, tenant: &TenantId) -> Result<(), Box<dyn std::error::Error>> {
/// // Or by a private key, or as the provider wants it: see `ClientAuth`.
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
    /// Begins to set one up for the provider with this issuer URL.
    pub fn builder(issuer: impl Into<String>) -> TokenExchangeBuilder {
        TokenExchangeBuilder::new(issuer.into())
    }

    /// [`issuers`](TokenExchangeBuilder::issuers), unless that was said when it was built.
    pub(crate) fn share_metadata(&self, issuers: &Issuers) {
        // Who comes second finds the same metadata with the first.
        let _ = self.cached.endpoint.issuers.set(issuers.clone());
    }

    /// Begins to set one up for the first issuer of this configuration, as the
    /// [`client`](crate::AuthConfig::client) it names.
    pub fn from_config(config: &AuthConfig) -> TokenExchangeBuilder {
        TokenExchangeBuilder::from_config(config)
    }

    /// Begins to set one up from environment variables: [`AuthConfig::from_env`]. What cannot be
    /// read is reported by [`build`](TokenExchangeBuilder::build).
    pub fn from_env(prefix: &str) -> TokenExchangeBuilder {
        Self::from_config(&AuthConfig::from_env(prefix))
    }

    /// Exchanges a token for one of another audience (RFC 8693), or gives the one it got before.
    ///
    /// It is kept for 30 seconds less than it lives, and no longer than the subject token. A
    /// refusal is repeated for ten seconds without asking again.
    ///
    /// # Errors
    /// [`ExchangeError`]; a target the provider has no tokens for is `invalid_target`, a subject
    /// token it does not accept is `invalid_request`.
    pub async fn exchange(&self, request: &ExchangeRequest) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Exchange(Cow::Borrowed(request)), None).await
    }

    /// Exchanges again, because the service downstream refused `refused`. Whoever comes with a
    /// token that was replaced meanwhile gets the new one. A token that came less than ten seconds
    /// ago is given back as it is: it was not refused for its age.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn exchange_replacing(
        &self,
        refused: &AccessToken,
        request: &ExchangeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Exchange(Cow::Borrowed(request)), Some(refused)).await
    }

    /// Gets a token for the service itself (client credentials, RFC 6749 §4.4), or gives the one
    /// it got before. A [`TenantId`](crate::TenantId) will do as a request.
    ///
    /// How the provider is told the tenant: `{tenant_id}` in
    /// [`token_url`](TokenExchangeBuilder::token_url), or
    /// [`token_urls`](TokenExchangeBuilder::token_urls), or a
    /// [`tenant_parameter`](TokenExchangeBuilder::tenant_parameter).
    ///
    /// # Errors
    /// [`ExchangeError`]; also when a tenant is named and the client does not know how to tell the
    /// provider, and when the answer is a JWT of another tenant.
    pub async fn service_token(
        &self,
        request: impl Into<ServiceTokenRequest>,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Service(Cow::Owned(request.into())), None).await
    }

    /// Gets another one, because the service downstream refused `refused`: as
    /// [`exchange_replacing`](Self::exchange_replacing).
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn service_token_replacing(
        &self,
        refused: &AccessToken,
        request: impl Into<ServiceTokenRequest>,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Service(Cow::Owned(request.into())), Some(refused)).await
    }

    /// Gets what is requested, or gives what it got before; not the one that was `refused`.
    pub(crate) async fn token(
        &self,
        request: &TokenRequest<'_>,
        refused: Option<&AccessToken>,
    ) -> Result<AccessToken, ExchangeError> {
        if let TokenRequest::Service(request) = request {
            self.can_serve(request)?;
        }
        self.cached.get(request, refused).await
    }

    fn can_serve(&self, request: &ServiceTokenRequest) -> Result<(), ExchangeError> {
        if self.cached.endpoint.auth.is_public() {
            return Err(ExchangeError::NotConfigured("a public client has no tokens of its own"));
        }
        let knows_how = self.cached.endpoint.settings.tenant_parameter.is_some()
            || self.cached.endpoint.is_per_tenant();
        if request.tenant.is_some() && !knows_how {
            return Err(ExchangeError::NotConfigured(
                "set tenant_parameter, or {tenant_id} in token_url, to ask for a tenant's token",
            ));
        }
        Ok(())
    }

    /// Gets a new access token for a session (RFC 6749 §6). [`SessionTokens`](super::SessionTokens) does it in time.
    ///
    /// Where the provider rotates refresh tokens, two grants with the same one end the session. So
    /// all who come with one within a minute get what the first of them got, in all processes that
    /// share a cache. While a shared cache does not answer, no refresh token is spent: the error is
    /// [`Unavailable`](ExchangeError::Unavailable) after a
    /// [while](TokenExchangeBuilder::cache_timeout). The request is not repeated when no answer
    /// came: it may have been granted.
    ///
    /// # Errors
    /// [`ExchangeError`]; `invalid_grant` means that the user has to sign in again.
    pub async fn refresh(&self, request: &RefreshRequest) -> Result<AccessToken, ExchangeError> {
        let request = TokenRequest::Refresh(Cow::Borrowed(request));
        let token = self.cached.get(&request, None).await?;
        // The first of those who came with this refresh token may have asked for more.
        contract::verify(&request, &token, self.cached.endpoint.settings.relaxed).map(|()| token)
    }

    /// Redeems an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// A provider that sees a code twice ends the session (RFC 6749 §4.1.2). So the first who comes
    /// with one redeems it, in all processes that share a cache. Whoever comes with the same code,
    /// verifier and redirect URI within a minute is refused with `invalid_grant` here, and the
    /// provider is not asked; with [`allow_repeats`](CodeRequest::allow_repeats) they get the same
    /// tokens.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn authorization_code(
        &self,
        request: &CodeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        let wanted = TokenRequest::Code(Cow::Borrowed(request));
        let token = self.cached.get(&wanted, None).await?;
        if request.allows_repeats || token.cache_status() == CacheStatus::Miss {
            return Ok(token);
        }
        Err(ExchangeError::Refused {
            status: StatusCode::BAD_REQUEST,
            error: Some(OAuthError::InvalidGrant),
            retry_after: None,
        })
    }

    /// Signs a user in with a password (RFC 6749 §4.3). Off unless
    /// [enabled](TokenExchangeBuilder::enable_password_grant).
    ///
    /// # Errors
    /// [`ExchangeError`].
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

    /// Ends a token before its time (RFC 7009). A token the provider does not know is a success.
    ///
    /// # Errors
    /// [`ExchangeError`]; also when neither metadata nor configuration name an endpoint.
    pub async fn revoke(&self, token: &Secret) -> Result<(), ExchangeError> {
        self.cached.endpoint.revoke(token.expose()).await
    }

    /// Tells the operator of a token that should have ended and lives on: warns of each cause once
    /// until revocation works, because anybody can ask for it.
    pub(crate) fn log_revocation(&self, what: &'static str, error: Option<&ExchangeError>) {
        let endpoint = &self.cached.endpoint;
        let outage = endpoint.breakers.of(&endpoint.name).outage(what);
        match error {
            Some(error) => {
                let is_new = outage.begins(error, self.cached.clock().elapsed());
                telemetry::not_revoked(what, error.kind(), error, is_new);
            }
            None => {
                outage.ends(|| self.cached.clock().elapsed());
            }
        }
    }
}
