//! [`TokenExchangeClient`]: obtains, refreshes and revokes tokens.

use std::borrow::Cow;
use std::sync::Arc;
#[cfg(feature = "endpoints")]
use std::time::Duration;

use http::StatusCode;

use super::cached::CachedExchange;
use super::contract;
#[cfg(feature = "endpoints")]
use super::locked_fetch::LOCK_RESERVE;
use super::request::TokenRequest;
use super::{
    AccessToken, CacheStatus, CodeRequest, ExchangeError, ExchangeRequest, OAuthError,
    OnBehalfOfRequest, PasswordRequest, RefreshRequest, ServiceTokenRequest, TokenExchangeBuilder,
};
use crate::config::{AuthConfig, ExchangeGrant};
use crate::identity::ClaimsMapping;
use crate::issuer::Issuers;
use crate::revocation::Revocations;
use crate::support::secret::Secret;
use crate::support::telemetry;

/// A client for the token endpoint of one provider, with one method for each grant. Cheap to clone;
/// clones share the cache and the circuit breakers.
///
/// # Caching
///
/// [`exchange`](Self::exchange), [`on_behalf_of`](Self::on_behalf_of) and
/// [`service_token`](Self::service_token) return a token from the [`TokenCache`](crate::TokenCache) if it
/// has one. Concurrent calls for the same token share one request to the provider, which continues even if
/// the first caller is dropped. After 80 % of its
/// lifetime a token is still returned while a background task requests the next one, so an outage of
/// the provider that is shorter than the rest of the lifetime does not affect cached tokens. Concurrent
/// calls of [`refresh`](Self::refresh) or [`authorization_code`](Self::authorization_code) use a
/// refresh token or code only once; the result is cached for a minute. The password grant is never
/// cached.
///
/// # Retries and circuit breaker
///
/// A request is retried once if the connection failed. Exchanges and requests for service tokens are
/// also retried once if no answer arrived, or if the answer is 429 or 5xx without `Retry-After`. A
/// circuit breaker opens after three failures in a row, for 0.5 to 60 seconds, or after one failure
/// with `Retry-After`, for that time, at most a minute. It opens for all grants after a failed
/// connection or an answer of a gateway (502, 503, 504). After 429, 500 or a timeout it opens for one
/// grant, because a single caller may have caused the failure. Failures caused by codes, passwords and
/// refresh tokens that callers send to the [endpoints](crate::endpoints) do not count.
///
/// # Verification
///
/// The answer must contain a bearer token, and must not grant a scope that was not requested. The
/// `issued_token_type` of an exchange must be an access token or a JWT. A JWT whose claims cannot be
/// read is rejected. If an exchange returns a JWT:
///
/// * its `aud` must contain every requested audience and resource;
/// * its scopes must be a subset of the requested ones, if any were requested;
/// * its subject and tenant must equal those of the subject token, if that is a JWT with these claims, and
///   its tenant must be that of the request, if the request names one. The client's
///   [`claims`](TokenExchangeBuilder::claims) say where they are.
///
/// A JWT of the other grants, except a refresh, must have the tenant of the request, if both name one. A
/// service token that is a JWT must also have the requested audiences and resources in `aud`.
/// [`on_behalf_of`](Self::on_behalf_of) states its checks. The claims of opaque and encrypted tokens
/// cannot be compared. Signatures are *not* verified, because the token came directly from the
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

    /// Sets [`issuers`](TokenExchangeBuilder::issuers) and [`revocations`](TokenExchangeBuilder::revocations), unless
    /// the builder or another service set them.
    pub(crate) fn join_service(&self, issuers: &Issuers, revocations: &Revocations) {
        // An error means that it is already set, which is fine.
        let _ = self.cached.endpoint.issuers.set(issuers.clone());
        let _ = self.cached.endpoint.revocations.set(revocations.clone());
    }

    /// Returns a builder for the first issuer of `config`, with the settings in
    /// [`client`](crate::AuthConfig::client). Without an issuer, `build` fails.
    pub fn from_config(config: &AuthConfig) -> TokenExchangeBuilder {
        TokenExchangeBuilder::from_config(config)
    }

    /// Returns a builder configured from environment variables: see [`AuthConfig::from_env`].
    /// [`build`](TokenExchangeBuilder::build) reports variables with invalid values.
    ///
    /// The mode does not matter: tokens for other services come from a provider, so `P_ISSUER` (unless the
    /// preset knows it) and `P_CLIENT_ID` are required in mock mode, too.
    pub fn from_env(prefix: &str) -> TokenExchangeBuilder {
        Self::from_config(&AuthConfig::from_env(prefix))
    }

    /// Exchanges a token for a token with another audience (RFC 8693), or returns the cached one.
    ///
    /// A token is cached until 30 seconds before it expires, and no longer than the subject token
    /// lives. A refusal is cached for ten seconds; `invalid_client` and invalid answers are cached for
    /// one.
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`]. `invalid_target` means that the provider
    /// issues no tokens for the target, and `invalid_request` that it does not accept the subject
    /// token. [`Revoked`](ExchangeError::Revoked) if the subject token or the actor token is
    /// [revoked](TokenExchangeBuilder::revocations).
    pub async fn exchange(&self, request: &ExchangeRequest) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Exchange(Cow::Borrowed(request)), None).await
    }

    /// Exchanges again after a downstream service rejected the token `rejected`. If the token was
    /// replaced in the meantime, returns the cached replacement. A token younger than ten seconds is
    /// returned unchanged, because its age was not the reason for the rejection.
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`].
    pub async fn exchange_replacing(
        &self,
        rejected: &AccessToken,
        request: &ExchangeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Exchange(Cow::Borrowed(request)), Some(rejected)).await
    }

    /// Obtains a token of another service on behalf of a user at Microsoft Entra ID, or returns the cached
    /// one. It is cached like an [`exchange`](Self::exchange). For a client whose exchanges all use this
    /// flow, set [`exchange_grant`](TokenExchangeBuilder::exchange_grant).
    ///
    /// If the assertion and the new token are JWTs, the claims `oid`, `tid` and the tenant of the
    /// client's [`claims`](TokenExchangeBuilder::claims) must be equal, as far as the assertion has them,
    /// and `aud` must be the request's audience. *Not* checked: `sub`, which Entra ID chooses for each
    /// application; and the scopes, because Entra ID also grants other scopes that were consented to.
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`]. If the user must sign in again, for example with
    /// a second factor, [`claims_challenge`](ExchangeError::claims_challenge) is set.
    pub async fn on_behalf_of(
        &self,
        request: &OnBehalfOfRequest,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::OnBehalfOf(Cow::Borrowed(request)), None).await
    }

    /// Obtains another token after a downstream service rejected the token `rejected`. Works like
    /// [`exchange_replacing`](Self::exchange_replacing).
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`].
    pub async fn on_behalf_of_replacing(
        &self,
        rejected: &AccessToken,
        request: &OnBehalfOfRequest,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::OnBehalfOf(Cow::Borrowed(request)), Some(rejected)).await
    }

    /// Obtains a token for the service itself (client credentials, RFC 6749 §4.4), or returns the
    /// cached one. A [`TenantId`](crate::TenantId) can be passed as the request.
    ///
    /// To request a token in a tenant, configure one of these: `{tenant_id}` in
    /// [`token_url`](TokenExchangeBuilder::token_url),
    /// [`token_urls`](TokenExchangeBuilder::token_urls), or a
    /// [`tenant_parameter`](TokenExchangeBuilder::tenant_parameter).
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`].
    /// [`NotConfigured`](ExchangeError::NotConfigured) if the request names a tenant and none of the
    /// three settings above is set, and [`InvalidAnswer`](ExchangeError::InvalidAnswer) if the token is a JWT for
    /// another tenant.
    pub async fn service_token(
        &self,
        request: impl Into<ServiceTokenRequest>,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Service(Cow::Owned(request.into())), None).await
    }

    /// Obtains another service token after a downstream service rejected the token `rejected`. Works
    /// like [`exchange_replacing`](Self::exchange_replacing).
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`].
    pub async fn service_token_replacing(
        &self,
        rejected: &AccessToken,
        request: impl Into<ServiceTokenRequest>,
    ) -> Result<AccessToken, ExchangeError> {
        self.token(&TokenRequest::Service(Cow::Owned(request.into())), Some(rejected)).await
    }

    /// Returns the cached token, unless it is `rejected`, or else obtains a new one.
    pub(crate) async fn token(
        &self,
        request: &TokenRequest<'_>,
        rejected: Option<&AccessToken>,
    ) -> Result<AccessToken, ExchangeError> {
        self.refuse_revoked(request).await?;
        let of_workload = match request {
            TokenRequest::Exchange(request) => self.with_workload_token(request).await?,
            _ => None,
        };
        let request = of_workload.as_ref().unwrap_or(request);
        let on_behalf_of = match request {
            TokenRequest::Service(request) => {
                self.check_service_request(request)?;
                None
            }
            TokenRequest::Exchange(request) if self.uses_on_behalf_of() && !request.is_foreign => {
                Some(TokenRequest::OnBehalfOf(Cow::Owned(request.on_behalf_of()?)))
            }
            _ => None,
        };
        let request = on_behalf_of.as_ref().unwrap_or(request);
        let outcome = match self.cached.without_tenant_of_subject(request) {
            Some(request) => self.cached.get(&request, rejected).await,
            None => self.cached.get(request, rejected).await,
        };
        if let (Some(TokenRequest::Exchange(request)), Err(error)) = (&of_workload, &outcome) {
            Self::forget_refused(request, error);
        }
        outcome
    }

    /// Returns the request with the token of this workload as subject token, if it is of a workload. The
    /// token is a part of the cache key, so the exchanged token is not used for longer than it.
    async fn with_workload_token(
        &self,
        request: &ExchangeRequest,
    ) -> Result<Option<TokenRequest<'static>>, ExchangeError> {
        let Some(workload) = &request.workload else { return Ok(None) };
        let endpoint = &self.cached.endpoint;
        let token = workload.token(&endpoint.name, self.cached.clock().now());
        let mut request = request.clone();
        request.subject = token.await?;
        Ok(Some(TokenRequest::Exchange(Cow::Owned(request))))
    }

    /// Forgets the token of a workload that the provider refused as subject token, so that the next call asks for
    /// another one.
    fn forget_refused(request: &ExchangeRequest, error: &ExchangeError) {
        let is_refused = matches!(
            error.oauth_error(),
            Some(OAuthError::InvalidGrant | OAuthError::InvalidRequest)
        );
        if let (Some(workload), true) = (&request.workload, is_refused) {
            workload.forget(&request.subject);
        }
    }

    /// Returns whether exchanges use the on-behalf-of flow.
    fn uses_on_behalf_of(&self) -> bool {
        self.cached.endpoint.settings.exchange_grant == ExchangeGrant::OnBehalfOf
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
                "to request a token in a tenant, set tenant_parameter, token_urls, or {tenant_id} in token_url",
            ));
        }
        Ok(())
    }

    /// Obtains a new access token for a session (RFC 6749 §6). [`SessionTokens`](super::SessionTokens)
    /// calls this before the token expires.
    ///
    /// A provider that rotates refresh tokens ends the session when a refresh token is used twice. So
    /// every call with the same refresh token within a minute returns the result of the first call, in
    /// all processes that share a cache. While a shared cache does not answer, no refresh token is used
    /// (unless [`insecure_spend_without_lock`](TokenExchangeBuilder::insecure_spend_without_lock) is
    /// set): the call fails with [`Unavailable`](ExchangeError::Unavailable) after the
    /// [`cache_timeout`](TokenExchangeBuilder::cache_timeout). A request without an answer is not
    /// retried, because the provider may have granted it.
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`]. `invalid_grant` means that the user has to sign
    /// in again.
    pub async fn refresh(&self, request: &RefreshRequest) -> Result<AccessToken, ExchangeError> {
        let request = TokenRequest::Refresh(Cow::Borrowed(request));
        let token = self.cached.get(&request, None).await?;
        // The first call with this refresh token may have requested more scopes.
        contract::verify(&request, &token, &self.cached.endpoint.settings.answer).map(|()| token)
    }

    /// Returns the time for which another process waits for a refresh: the longest request, and two calls to
    /// a store.
    #[cfg(feature = "endpoints")]
    pub(crate) fn refresh_lease(&self) -> Duration {
        self.cached.endpoint.max_duration().saturating_add(LOCK_RESERVE)
    }

    /// Redeems an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).
    ///
    /// A provider that receives a code twice may revoke the tokens issued for it (RFC 6749 §4.1.2). So
    /// among all processes that share a cache, only the first call sends the code. While the cache does
    /// not answer, no code is sent, as for [`refresh`](Self::refresh). A call with the same code,
    /// verifier and redirect URI within a minute fails with `invalid_grant` without a request to the
    /// provider. With [`allow_repeats`](CodeRequest::allow_repeats) it returns the same tokens instead.
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`].
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
            claims: None,
        })
    }

    /// Signs a user in with a password (RFC 6749 §4.3).
    ///
    /// # Errors
    /// No token could be obtained: see [`ExchangeError`].
    /// [`NotConfigured`](ExchangeError::NotConfigured) unless
    /// [`enable_password_grant`](TokenExchangeBuilder::enable_password_grant) was called.
    pub async fn password(&self, request: &PasswordRequest) -> Result<AccessToken, ExchangeError> {
        if !self.allows_passwords() {
            return Err(ExchangeError::NotConfigured("the password grant is not enabled"));
        }
        self.cached.endpoint.fetch(&TokenRequest::Password(Cow::Borrowed(request))).await
    }

    /// Exchanges a token from a foreign issuer. The subject and tenant of the result are not compared
    /// with it. The result is not cached, because the policy decides on every call.
    #[cfg(feature = "trust")]
    pub(crate) async fn exchange_foreign(
        &self,
        mut request: ExchangeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        request.is_foreign = true;
        self.cached.endpoint.fetch(&TokenRequest::Exchange(Cow::Owned(request))).await
    }

    /// Returns the claims that hold subject and tenant of the provider's tokens.
    pub(crate) fn claims_mapping(&self) -> &ClaimsMapping {
        &self.cached.endpoint.settings.answer.claims
    }

    /// Returns whether tokens of any subject are accepted.
    pub(crate) fn accepts_any_subject(&self) -> bool {
        self.cached.endpoint.settings.answer.relaxed.subject
    }

    /// Returns the audiences that an ID token may have besides the client and this service.
    pub(crate) fn trusted_audiences(&self) -> &[String] {
        &self.cached.endpoint.settings.trusted_audiences
    }

    pub(crate) fn has_shared_cache(&self) -> bool {
        self.cached.cache.is_shared()
    }

    pub(crate) fn allows_passwords(&self) -> bool {
        self.cached.endpoint.settings.allows_passwords
    }

    /// Revokes a token (RFC 7009). Succeeds even if the provider does not know the token.
    ///
    /// # Errors
    /// The token could not be revoked: see [`ExchangeError`].
    /// [`NotConfigured`](ExchangeError::NotConfigured) if neither the configuration nor the metadata
    /// names a revocation endpoint.
    pub async fn revoke(&self, token: &Secret) -> Result<(), ExchangeError> {
        self.cached.endpoint.revoke(token.expose()).await
    }

    /// Logs that a token could not be revoked, or, without an error, records a success. Warns only once
    /// until a revocation succeeds, because anonymous callers can cause the failure.
    pub(crate) fn log_revocation(&self, token_kind: &'static str, error: Option<&ExchangeError>) {
        let endpoint = &self.cached.endpoint;
        let outage = endpoint.breakers.of(&endpoint.name).outage(token_kind);
        match error {
            Some(error) => {
                let is_new = outage.record_failure(error, self.cached.clock().elapsed());
                telemetry::not_revoked(token_kind, error.kind(), error, is_new);
            }
            None => {
                outage.record_success(|| self.cached.clock().elapsed());
            }
        }
    }
}
