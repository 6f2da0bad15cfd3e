//! [`TokenExchangeClient`]: the right token for each call to another service.

mod authorize;
mod breaker;
mod builder;
mod cache;
mod contract;
mod endpoint;
mod error;
mod grant;
mod kept;
mod locks;
mod pkce;
mod session;
mod setback;
mod token;

use std::sync::Arc;

use crate::config::AuthConfig;
use crate::issuer::Issuers;
use crate::secret::Secret;
use crate::telemetry;
use contract::check_tenant;
use grant::Grant;
use http::StatusCode;
use kept::{Kept, Wanted};

pub use authorize::AuthorizationRequest;
pub use builder::TokenExchangeBuilder;
#[cfg(feature = "redis")]
pub use cache::RedisCache;
pub use cache::{CacheKey, CacheKeys, Fence, Layered, MemoryCache, TokenCache};
#[cfg(feature = "testing")]
pub(crate) use cache::{Ground, Question};
pub use endpoint::TokenUrls;
pub use error::{ExchangeError, OAuthError};
pub use grant::{
    CodeRequest, ExchangeRequest, PasswordRequest, RefreshRequest, ServiceTokenRequest, TokenType,
};
pub use pkce::PkceVerifier;
pub use session::SessionTokens;
pub use token::{AccessToken, CacheStatus, Freshness};

/// Gets tokens from one provider: one method for each grant. Cheap to clone: clones share
/// everything.
///
/// [`exchange`](Self::exchange) and [`service_token`](Self::service_token) answer from a
/// [`TokenCache`] when they can. However many callers want the same token at once, the provider is
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
/// use scaikey_auth::{ClientAuth, ExchangeRequest, TenantId, TokenExchangeClient};
///
/// # async fn example(incoming: &str, tenant: &TenantId) -> Result<(), Box<dyn std::error::Error>> {
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
    kept: Arc<Kept>,
    allows_passwords: bool,
}

impl TokenExchangeClient {
    /// Begins to set one up for the provider with this issuer URL.
    pub fn builder(issuer: impl Into<String>) -> TokenExchangeBuilder {
        TokenExchangeBuilder::new(issuer.into())
    }

    /// [`issuers`](TokenExchangeBuilder::issuers), unless that was said when it was built.
    pub(crate) fn share_metadata(&self, issuers: &Issuers) {
        // Who comes second finds the same metadata with the first.
        let _ = self.kept.endpoint.issuers.set(issuers.clone());
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
        self.kept.get(Wanted::Exchange(request), None).await
    }

    /// Exchanges again, because the service downstream refused `refused`. Whoever comes with a
    /// token that was replaced meanwhile gets the new one. A token that came less than ten seconds
    /// ago is given back as it is: it was not refused for its age.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn exchange_instead_of(
        &self,
        refused: &AccessToken,
        request: &ExchangeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        self.kept.get(Wanted::Exchange(request), Some(refused)).await
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
        let request = request.into();
        self.can_serve(&request)?;
        self.kept.get(Wanted::Service(&request), None).await
    }

    /// Gets another one, because the service downstream refused `refused`: as
    /// [`exchange_instead_of`](Self::exchange_instead_of).
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub async fn service_token_instead_of(
        &self,
        refused: &AccessToken,
        request: impl Into<ServiceTokenRequest>,
    ) -> Result<AccessToken, ExchangeError> {
        let request = request.into();
        self.can_serve(&request)?;
        self.kept.get(Wanted::Service(&request), Some(refused)).await
    }

    fn can_serve(&self, request: &ServiceTokenRequest) -> Result<(), ExchangeError> {
        if self.kept.endpoint.auth.is_public() {
            return Err(ExchangeError::NotConfigured("a public client has no tokens of its own"));
        }
        let knows_how = self.kept.tenant_parameter.is_some() || self.kept.endpoint.is_per_tenant();
        if request.tenant.is_some() && !knows_how {
            return Err(ExchangeError::NotConfigured(
                "set tenant_parameter, or {tenant_id} in token_url, to ask for a tenant's token",
            ));
        }
        Ok(())
    }

    /// Gets a new access token for a session (RFC 6749 §6). [`SessionTokens`] does it in time.
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
        let token = self.kept.get(Wanted::Refresh(request), None).await?;
        match token.scopes() {
            // The first of those who came with this refresh token asked for more.
            Some(got) if !request.scopes.is_empty() && !request.scopes.contains_all(got) => {
                Err(ExchangeError::Answer("permits more than was asked for"))
            }
            _ => Ok(token),
        }
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
        let token = self.kept.get(Wanted::Code(request), None).await?;
        if request.repeats || token.cache_status() == CacheStatus::Miss {
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
        if !self.allows_passwords {
            return Err(ExchangeError::NotConfigured("the password grant is not enabled"));
        }
        self.granted(&Grant::Password(request)).await
    }

    /// Exchanges a token of another issuer's, of which neither `sub` nor tenant say what the new one
    /// is. It is not kept: whether the foreign token still counts, its judge says each time.
    #[cfg(feature = "trust")]
    pub(crate) async fn exchange_foreign(
        &self,
        request: &ExchangeRequest,
    ) -> Result<AccessToken, ExchangeError> {
        let kept = &self.kept;
        let grant = Grant::Exchange(request, kept.requested_type.as_ref());
        let relaxed = contract::Relaxed { subject: true, ..kept.relaxed };
        let check = |token: AccessToken| {
            contract::check_type(&token, relaxed)?;
            contract::check(request, &token, relaxed)?;
            contract::check_scopes(&request.scopes, &token)?;
            check_tenant(request.tenant.as_ref(), &token).map(|()| token)
        };
        kept.endpoint.ask(&grant, check).await
    }

    pub(crate) fn allows_passwords(&self) -> bool {
        self.allows_passwords
    }

    async fn granted(&self, grant: &Grant<'_>) -> Result<AccessToken, ExchangeError> {
        let check = |token| check_tenant(grant.tenant(), &token).map(|()| token);
        self.kept.endpoint.ask(grant, check).await
    }

    /// Ends a token before its time (RFC 7009). A token the provider does not know is a success.
    ///
    /// # Errors
    /// [`ExchangeError`]; also when neither metadata nor configuration name an endpoint.
    pub async fn revoke(&self, token: &Secret) -> Result<(), ExchangeError> {
        self.kept.endpoint.revoke(token.expose()).await
    }

    /// Tells the operator of a token that should have ended and lives on: warns of each cause once
    /// until revocation works, because anybody can ask for it.
    pub(crate) fn tell_of_revocation(&self, what: &'static str, error: Option<&ExchangeError>) {
        let endpoint = &self.kept.endpoint;
        let outage = endpoint.breakers.of(&endpoint.name).outage(what);
        match error {
            Some(error) => {
                let is_new = outage.begins(error, endpoint.clock.elapsed());
                telemetry::not_revoked(what, error.kind(), error, is_new);
            }
            None => {
                outage.ends(|| endpoint.clock.elapsed());
            }
        }
    }
}
