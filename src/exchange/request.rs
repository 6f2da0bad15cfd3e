//! The requests of the six grants, and [`TokenRequest`], the enum of all of them.

use std::borrow::Cow;

use url::Url;
use url::form_urlencoded::Serializer;

use super::builder::Settings;
use super::{ExchangeError, PkceVerifier};
use crate::identity::{Scopes, TenantId};
use crate::issuer::WorkloadToken;
use crate::support::secret::Secret;

/// A token type identifier (RFC 8693 §3), for `subject_token_type`, `requested_token_type` and
/// `issued_token_type`.
///
/// ```
/// use scaikey_auth::ExchangeRequest;
/// use scaikey_auth::exchange::TokenType;
///
/// let mut request = ExchangeRequest::new("the user's ID token", "scaivault");
/// request.subject_type = TokenType::IdToken;
/// assert_eq!(request.subject_type.as_str(), "urn:ietf:params:oauth:token-type:id_token");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenType {
    /// `urn:ietf:params:oauth:token-type:access_token`.
    AccessToken,
    /// `urn:ietf:params:oauth:token-type:refresh_token`.
    RefreshToken,
    /// `urn:ietf:params:oauth:token-type:id_token`.
    IdToken,
    /// `urn:ietf:params:oauth:token-type:jwt`.
    Jwt,
    /// Any other URI.
    Other(String),
}

impl TokenType {
    /// Returns the URI.
    pub fn as_str(&self) -> &str {
        match self {
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::RefreshToken => "urn:ietf:params:oauth:token-type:refresh_token",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::Other(uri) => uri,
        }
    }
}

/// A request to exchange one token for another (RFC 8693).
///
/// ```
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::exchange::AccessToken;
/// use scaikey_auth::{AuthContext, ExchangeRequest, TokenExchangeClient};
///
/// /// Returns a token of the caller that may only read the vault.
/// async fn for_vault(
///     client: &TokenExchangeClient,
///     caller: &AuthContext,
/// ) -> Result<AccessToken, BoxError> {
///     let incoming = caller.token().ok_or("a mock user has no token")?;
///     let request = ExchangeRequest::new(incoming, "scaivault").scopes("vault:read".parse()?);
///     Ok(client.exchange(&request).await?)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExchangeRequest {
    /// The token of the user on whose behalf the service acts. Of a request
    /// [of a workload](Self::of_workload) it is replaced by the workload's token.
    pub subject: Secret,
    /// The type of the subject token. Default: [`TokenType::AccessToken`].
    pub subject_type: TokenType,
    /// The actor token and its type (RFC 8693 §2.1). Default: none; the client itself acts.
    pub actor: Option<(Secret, TokenType)>,
    /// The target services, by name (`audience`). At first the one that [`new`](Self::new) got.
    pub audiences: Vec<String>,
    /// The target services, by URL (`resource`, RFC 8707). Default: none.
    pub resources: Vec<Url>,
    /// The requested scopes. Empty, the default: the provider decides.
    pub scopes: Scopes,
    /// The tenant of the subject. Replaces `{tenant_id}` in the client's `token_url`. If the new token is
    /// a JWT, it must have this tenant. Default: the tenant in the subject token, if that is a JWT of
    /// the client's issuer, read with the client's
    /// [`claims`](crate::exchange::TokenExchangeBuilder::claims). It is *not verified* here; the provider
    /// verifies the subject token.
    pub tenant: Option<TenantId>,
    /// The tenant in the subject token, if `tenant` is none and it is known.
    pub(crate) tenant_of_subject: Option<TenantId>,
    /// The source of the subject token, if it is a token of this workload.
    pub(super) workload: Option<Box<WorkloadToken>>,
    /// Whether another issuer issued the subject token. If so, its `sub` and tenant are not compared
    /// with the new token, and the new token must not have scopes beyond `scopes`, even if these are
    /// empty.
    pub(super) is_foreign: bool,
}

impl ExchangeRequest {
    /// Returns a request that exchanges an access token for one with this audience.
    pub fn new(subject: impl Into<Secret>, audience: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            subject_type: TokenType::AccessToken,
            actor: None,
            audiences: vec![audience.into()],
            resources: Vec::new(),
            scopes: Scopes::new(),
            tenant: None,
            tenant_of_subject: None,
            workload: None,
            is_foreign: false,
        }
    }

    /// Returns a request that exchanges the token of this workload for one with this audience: the service
    /// acts as the workload that its platform knows. Each exchange asks the source for the token, with the
    /// issuer of the provider as audience (see [`WorkloadToken::audience`]).
    ///
    /// The type of the subject token is [`TokenType::Jwt`]. The provider chooses subject and tenant of the new
    /// token, so they are not compared. Name the scopes: without any, a token with scopes is refused.
    ///
    /// ```
    /// use scaikey_auth::ExchangeRequest;
    /// use scaikey_auth::issuer::WorkloadToken;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let request = ExchangeRequest::of_workload(WorkloadToken::gcp(), "scaivault")
    ///     .scopes("vault:read".parse()?);
    /// # Ok(()) }
    /// ```
    pub fn of_workload(token: WorkloadToken, audience: impl Into<String>) -> Self {
        Self {
            subject_type: TokenType::Jwt,
            workload: Some(Box::new(token)),
            is_foreign: true,
            ..Self::new("", audience)
        }
    }

    /// Sets the tenant of the subject.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Requests only these scopes.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    /// Sets the token of the acting party, and its type.
    pub fn actor(mut self, token: impl Into<Secret>, kind: TokenType) -> Self {
        self.actor = Some((token.into(), kind));
        self
    }

    /// Adds a target service by URL. A fragment is removed, because RFC 8707 allows none.
    pub fn resource(mut self, mut resource: Url) -> Self {
        resource.set_fragment(None);
        self.resources.push(resource);
        self
    }

    /// Returns the same request for the on-behalf-of flow.
    ///
    /// # Errors
    /// The flow cannot express the request.
    pub(super) fn on_behalf_of(&self) -> Result<OnBehalfOfRequest, ExchangeError> {
        if !matches!(self.subject_type, TokenType::AccessToken | TokenType::Jwt) {
            return Err(ExchangeError::NotConfigured(
                "the on-behalf-of grant needs an access token as subject token",
            ));
        }
        let ([audience], [], None) = (&*self.audiences, &*self.resources, &self.actor) else {
            return Err(ExchangeError::NotConfigured(
                "the on-behalf-of grant needs one audience, no resource and no actor: name the target in the scopes",
            ));
        };
        let request = OnBehalfOfRequest::new(self.subject.clone(), audience.as_str());
        let mut request = request.scopes(self.scopes.clone());
        request.tenant = self.tenant.clone();
        request.tenant_of_subject = self.tenant_of_subject.clone();
        Ok(request)
    }
}

/// A request for a token of another service on behalf of a user, in the on-behalf-of flow of Microsoft
/// Entra ID: the grant `urn:ietf:params:oauth:grant-type:jwt-bearer` (RFC 7523 §2.1) with
/// `requested_token_use=on_behalf_of`. It does what [`ExchangeRequest`] does at other providers.
///
/// Source: [OAuth 2.0 On-Behalf-Of flow][page].
///
/// [page]: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::exchange::{AccessToken, OnBehalfOfRequest};
///
/// /// `incoming` is the caller's token.
/// async fn for_graph(client: &TokenExchangeClient, incoming: &str) -> Result<AccessToken, BoxError> {
///     let request = OnBehalfOfRequest::new(incoming, "https://graph.microsoft.com")
///         .scopes("https://graph.microsoft.com/User.Read".parse()?);
///     Ok(client.on_behalf_of(&request).await?)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OnBehalfOfRequest {
    /// The user's access token, as this service received it. Its `aud` must be this service.
    pub assertion: Secret,
    /// The target service as in the `aud` of its tokens: the client id (a GUID) or the application ID
    /// URI. A JWT in the answer must have it in `aud`.
    pub audience: String,
    /// The requested scopes, each with the target: `api://vault/read`. Empty, the default: all consented
    /// scopes, by the scope `{audience}/.default`. Entra ID may grant other consented scopes of the
    /// target, too.
    pub scopes: Scopes,
    /// The tenant of the user. Replaces `{tenant_id}` in the client's `token_url`. Default: the tenant in
    /// the assertion, as for [`ExchangeRequest::tenant`].
    pub tenant: Option<TenantId>,
    /// The tenant in the assertion, if `tenant` is none and it is known.
    pub(super) tenant_of_subject: Option<TenantId>,
}

impl OnBehalfOfRequest {
    /// Returns a request for a token with this audience and all consented scopes.
    pub fn new(assertion: impl Into<Secret>, audience: impl Into<String>) -> Self {
        let (assertion, audience) = (assertion.into(), audience.into());
        Self { assertion, audience, scopes: Scopes::new(), tenant: None, tenant_of_subject: None }
    }

    /// Requests only these scopes. Use it if the scopes name the target differently than `aud`: with a
    /// client id as audience, for example, the scope may be `api://vault/.default`.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    /// Sets the tenant of the user.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }
}

/// A request for a token of the service itself (client credentials, RFC 6749 §4.4).
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::exchange::{AccessToken, ServiceTokenRequest};
///
/// async fn for_search(client: &TokenExchangeClient) -> Result<AccessToken, BoxError> {
///     let request = ServiceTokenRequest::for_tenant("acme".parse()?)
///         .audience("scaisearch")
///         .scopes("index:write".parse()?);
///     Ok(client.service_token(request).await?)
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ServiceTokenRequest {
    /// The tenant of the token. Default: the provider decides. Needs one of the settings that
    /// [`service_token`](crate::TokenExchangeClient::service_token) lists.
    pub tenant: Option<TenantId>,
    /// The requested scopes. Empty, the default: the provider decides.
    pub scopes: Scopes,
    /// The target services, by name (`audience`). Empty, the default: the provider decides. Auth0 and
    /// Kinde require one.
    pub audiences: Vec<String>,
    /// The target services, by URL (`resource`, RFC 8707). Empty, the default: the provider decides. The
    /// v1.0 endpoint of Entra ID requires one.
    pub resources: Vec<Url>,
}

impl ServiceTokenRequest {
    /// Returns a request for a token in one tenant.
    pub fn for_tenant(tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..Self::default() }
    }

    /// Adds a target service by name. A JWT in the answer must have it in `aud`.
    pub fn audience(mut self, name: impl Into<String>) -> Self {
        self.audiences.push(name.into());
        self
    }

    /// Adds a target service by URL. A JWT in the answer must have it in `aud`. A fragment is removed,
    /// because RFC 8707 allows none.
    pub fn resource(mut self, mut resource: Url) -> Self {
        resource.set_fragment(None);
        self.resources.push(resource);
        self
    }

    /// Requests only these scopes.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }
}

impl From<TenantId> for ServiceTokenRequest {
    fn from(tenant: TenantId) -> Self {
        Self::for_tenant(tenant)
    }
}

impl From<&TenantId> for ServiceTokenRequest {
    fn from(tenant: &TenantId) -> Self {
        Self::for_tenant(tenant.clone())
    }
}

/// A request for a new access token, with a refresh token (RFC 6749 §6).
///
/// ```
/// use scaikey_auth::exchange::{ExchangeError, RefreshRequest};
/// use scaikey_auth::{Secret, TokenExchangeClient};
///
/// /// Returns a new access token, and the refresh token to store.
/// async fn renew(
///     client: &TokenExchangeClient,
///     stored: Secret,
/// ) -> Result<(Secret, Secret), ExchangeError> {
///     let token = client.refresh(&RefreshRequest::new(stored.clone())).await?;
///     // Without a new refresh token, the used one stays valid.
///     let next = token.refresh_token().cloned().unwrap_or(stored);
///     Ok((token.secret().clone(), next))
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefreshRequest {
    /// The refresh token. A provider that rotates refresh tokens accepts it only once.
    pub refresh_token: Secret,
    /// The requested scopes, a subset of the granted ones. Empty, the default: all of them. Calls with the
    /// same refresh token within a minute get the tokens of the first call; they fail if those tokens have
    /// scopes beyond the requested ones.
    pub scopes: Scopes,
    /// The tenant, for a `token_url` with `{tenant_id}`. Default: none.
    pub tenant: Option<TenantId>,
    by_anonymous_caller: bool,
}

impl RefreshRequest {
    /// Returns a request for the same scopes as before.
    pub fn new(refresh_token: impl Into<Secret>) -> Self {
        let (refresh_token, scopes) = (refresh_token.into(), Scopes::new());
        Self { refresh_token, scopes, tenant: None, by_anonymous_caller: false }
    }

    /// Marks the refresh token as sent by an anonymous caller: see
    /// [`TokenRequest::is_from_anonymous_caller`].
    pub(crate) fn by_anonymous_caller(mut self) -> Self {
        self.by_anonymous_caller = true;
        self
    }

    /// Sets the tenant, which replaces `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }
}

/// A request to redeem an authorization code: the second half of a sign-in (RFC 6749 §4.1.3,
/// RFC 7636 §4.5).
///
/// ```
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::exchange::{AccessToken, CodeRequest, ExchangeError, PkceVerifier};
///
/// /// `code` is from the query of the callback, whose `state` was compared with that of the session.
/// async fn redeem(
///     client: &TokenExchangeClient,
///     code: &str,
///     verifier: PkceVerifier,
/// ) -> Result<AccessToken, ExchangeError> {
///     let request = CodeRequest::new(code, "https://drive.example/callback", verifier);
///     client.authorization_code(&request.allow_repeats()).await
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CodeRequest {
    /// The authorization code that the provider sent to the redirect URI.
    pub code: Secret,
    /// The redirect URI, exactly as in the authorization request.
    pub redirect_uri: String,
    /// The verifier whose challenge was in the authorization request; `None` after
    /// [`without_pkce`](Self::without_pkce).
    pub verifier: Option<PkceVerifier>,
    /// The tenant, for a `token_url` with `{tenant_id}`. Default: none.
    pub tenant: Option<TenantId>,
    pub(super) allows_repeats: bool,
    by_anonymous_caller: bool,
}

impl CodeRequest {
    /// Returns a request with the PKCE verifier of the authorization request.
    pub fn new(
        code: impl Into<Secret>,
        redirect_uri: impl Into<String>,
        verifier: PkceVerifier,
    ) -> Self {
        Self { verifier: Some(verifier), ..Self::without_pkce(code, redirect_uri) }
    }

    /// Returns a request for a code whose authorization request had no PKCE challenge. The provider
    /// must allow this. The price: an attacker who obtains the code can use it (RFC 9700 §2.1.1).
    pub fn without_pkce(code: impl Into<Secret>, redirect_uri: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            redirect_uri: redirect_uri.into(),
            verifier: None,
            tenant: None,
            allows_repeats: false,
            by_anonymous_caller: false,
        }
    }

    /// Sets the tenant, which replaces `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Marks the code as one that an anonymous caller sent: see
    /// [`TokenRequest::is_from_anonymous_caller`].
    pub(crate) fn by_anonymous_caller(mut self) -> Self {
        self.by_anonymous_caller = true;
        self
    }

    /// Makes [`authorization_code`](crate::TokenExchangeClient::authorization_code) return the same
    /// tokens to every caller with this code, verifier and redirect URI for one minute. Default: only
    /// the first caller gets tokens. Use this method for a browser callback whose `state` was verified,
    /// because a browser may send the callback twice. Do not use it for a code that an anonymous caller
    /// may send.
    pub fn allow_repeats(mut self) -> Self {
        self.allows_repeats = true;
        self
    }
}

/// A request to sign a user in with a password (RFC 6749 §4.3). RFC 9700 §2.4 forbids this grant.
///
/// ```
/// use scaikey_auth::exchange::{AccessToken, ExchangeError, PasswordRequest};
/// use scaikey_auth::{Secret, TokenExchangeClient};
///
/// /// `client` was built with `enable_password_grant`.
/// async fn sign_in(
///     client: &TokenExchangeClient,
///     name: &str,
///     password: Secret,
/// ) -> Result<AccessToken, ExchangeError> {
///     client.password(&PasswordRequest::new(name, password)).await
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PasswordRequest {
    /// The name of the user.
    pub username: String,
    /// The password of the user.
    pub password: Secret,
    /// The requested scopes. Empty, the default: the provider decides.
    pub scopes: Scopes,
    /// The tenant, for a `token_url` with `{tenant_id}`. Default: none.
    pub tenant: Option<TenantId>,
    by_anonymous_caller: bool,
}

impl PasswordRequest {
    /// Returns a request without scopes: the provider decides which ones it grants.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        let (username, password) = (username.into(), password.into());
        Self { username, password, scopes: Scopes::new(), tenant: None, by_anonymous_caller: false }
    }

    /// Marks the password as one that an anonymous caller sent: see
    /// [`TokenRequest::is_from_anonymous_caller`].
    pub(crate) fn by_anonymous_caller(mut self) -> Self {
        self.by_anonymous_caller = true;
        self
    }

    /// Sets the tenant, which replaces `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }
}

/// A token request of any grant. It is borrowed from the caller, or owned by the task that sends it.
#[derive(Debug, Clone)]
pub(crate) enum TokenRequest<'r> {
    Exchange(Cow<'r, ExchangeRequest>),
    OnBehalfOf(Cow<'r, OnBehalfOfRequest>),
    Service(Cow<'r, ServiceTokenRequest>),
    Refresh(Cow<'r, RefreshRequest>),
    Code(Cow<'r, CodeRequest>),
    Password(Cow<'r, PasswordRequest>),
}

impl TokenRequest<'_> {
    /// Returns an owned copy.
    pub(super) fn owned(&self) -> TokenRequest<'static> {
        match self {
            Self::Exchange(request) => TokenRequest::Exchange(Cow::Owned((**request).clone())),
            Self::OnBehalfOf(request) => TokenRequest::OnBehalfOf(Cow::Owned((**request).clone())),
            Self::Service(request) => TokenRequest::Service(Cow::Owned((**request).clone())),
            Self::Refresh(request) => TokenRequest::Refresh(Cow::Owned((**request).clone())),
            Self::Code(request) => TokenRequest::Code(Cow::Owned((**request).clone())),
            Self::Password(request) => TokenRequest::Password(Cow::Owned((**request).clone())),
        }
    }

    /// Returns the label of the grant in metrics and logs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Exchange(_) => "exchange",
            Self::OnBehalfOf(_) => "on_behalf_of",
            Self::Service(_) => "client_credentials",
            Self::Refresh(_) => "refresh",
            Self::Code(_) => "code",
            Self::Password(_) => "password",
        }
    }

    /// Returns the tenant of the request: the one that it names, or else that of the subject token.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        let tenant_of_subject = match self {
            Self::Exchange(request) => request.tenant_of_subject.as_ref(),
            Self::OnBehalfOf(request) => request.tenant_of_subject.as_ref(),
            _ => None,
        };
        self.named_tenant().or(tenant_of_subject)
    }

    /// Returns the tenant that the request names.
    pub(super) fn named_tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Exchange(request) => request.tenant.as_ref(),
            Self::OnBehalfOf(request) => request.tenant.as_ref(),
            Self::Service(request) => request.tenant.as_ref(),
            Self::Refresh(request) => request.tenant.as_ref(),
            Self::Code(request) => request.tenant.as_ref(),
            Self::Password(request) => request.tenant.as_ref(),
        }
    }

    /// Returns the requested scopes, or `None` if the provider decides.
    pub(super) fn scopes(&self) -> Option<&Scopes> {
        let scopes = match self {
            Self::Exchange(request) => &request.scopes,
            Self::OnBehalfOf(request) => &request.scopes,
            Self::Service(request) => &request.scopes,
            Self::Refresh(request) => &request.scopes,
            Self::Password(request) => &request.scopes,
            Self::Code(_) => return None,
        };
        (!scopes.is_empty()).then_some(scopes)
    }

    /// Returns the token of the user on whose behalf the service acts.
    pub(super) fn subject(&self) -> Option<&Secret> {
        match self {
            Self::Exchange(request) => Some(&request.subject),
            Self::OnBehalfOf(request) => Some(&request.assertion),
            _ => None,
        }
    }

    /// Returns the token of the acting party.
    pub(super) fn actor(&self) -> Option<&Secret> {
        match self {
            Self::Exchange(request) => request.actor.as_ref().map(|(token, _)| token),
            _ => None,
        }
    }

    /// Returns the request without a named tenant, in this tenant of its subject token. Only for requests
    /// on behalf of a user.
    pub(super) fn in_tenant_of_subject(&self, tenant: TenantId) -> TokenRequest<'static> {
        let mut request = self.owned();
        match &mut request {
            TokenRequest::Exchange(request) => {
                let request = request.to_mut();
                (request.tenant, request.tenant_of_subject) = (None, Some(tenant));
            }
            TokenRequest::OnBehalfOf(request) => {
                let request = request.to_mut();
                (request.tenant, request.tenant_of_subject) = (None, Some(tenant));
            }
            _ => {}
        }
        request
    }

    /// Returns the credential of the request: the subject token, refresh token, code or password.
    pub(super) fn credential(&self) -> Option<&Secret> {
        match self {
            Self::Exchange(_) | Self::OnBehalfOf(_) => self.subject(),
            Self::Service(_) => None,
            Self::Refresh(request) => Some(&request.refresh_token),
            Self::Code(request) => Some(&request.code),
            Self::Password(request) => Some(&request.password),
        }
    }

    /// Returns whether the request may be sent twice. A request with a code, refresh token or password
    /// may not: the provider may have accepted the first request although no answer arrived.
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(self, Self::Exchange(_) | Self::OnBehalfOf(_) | Self::Service(_))
    }

    /// Returns whether the provider accepts the credential only once.
    pub(super) fn has_single_use_credential(&self) -> bool {
        matches!(self, Self::Refresh(_) | Self::Code(_))
    }

    /// Returns whether the credential came from an anonymous caller, who may have invented it. Failures
    /// of such requests must not affect other callers.
    pub(super) fn is_from_anonymous_caller(&self) -> bool {
        match self {
            Self::Exchange(_) | Self::OnBehalfOf(_) | Self::Service(_) => false,
            Self::Refresh(request) => request.by_anonymous_caller,
            Self::Code(request) => request.by_anonymous_caller,
            Self::Password(request) => request.by_anonymous_caller,
        }
    }

    /// Returns the parts of the cache key. `credential` replaces the request's own credential, so that
    /// a digest of it can be used. The first part is the label of the grant, which determines the
    /// others. Every set ends with `None`.
    pub(super) fn parts<'p>(&'p self, credential: Option<&'p [u8]>) -> Vec<Option<&'p [u8]>> {
        // The tenant of the subject token is left out: the subject token, which is a part, determines it.
        let tenant = self.named_tenant().map(|tenant| tenant.as_str().as_bytes());
        // Enough for most requests.
        let mut parts = Vec::with_capacity(16);
        parts.extend([Some(self.name().as_bytes()), tenant, credential]);
        match self {
            Self::Exchange(request) => {
                let actor = request.actor.as_ref();
                parts.extend([
                    Some(request.subject_type.as_str().as_bytes()),
                    actor.map(|(token, _)| token.expose().as_bytes()),
                    actor.map(|(_, kind)| kind.as_str().as_bytes()),
                ]);
                push_set(&mut parts, request.audiences.iter().map(String::as_str));
                push_set(&mut parts, request.resources.iter().map(Url::as_str));
                push_set(&mut parts, request.scopes.iter());
                // The answer is checked by other rules. Other requests keep their keys.
                parts.extend(request.is_foreign.then_some(Some(&b"foreign"[..])));
            }
            Self::OnBehalfOf(request) => {
                parts.push(Some(request.audience.as_bytes()));
                push_set(&mut parts, request.scopes.iter());
            }
            Self::Service(request) => {
                push_set(&mut parts, request.audiences.iter().map(String::as_str));
                push_set(&mut parts, request.resources.iter().map(Url::as_str));
                push_set(&mut parts, request.scopes.iter());
            }
            // Without scopes: a refresh token can be used only once, whatever the requested scopes.
            Self::Refresh(_) => {}
            Self::Code(request) => {
                let verifier = request.verifier.as_ref();
                parts.push(verifier.map(|verifier| verifier.secret().expose().as_bytes()));
                parts.push(Some(request.redirect_uri.as_bytes()));
            }
            // Never cached. The parts are complete nevertheless, so that two users could never share a
            // key.
            Self::Password(request) => {
                parts.push(Some(request.username.as_bytes()));
                push_set(&mut parts, request.scopes.iter());
            }
        }
        parts
    }

    /// Writes the form parameters, without client authentication.
    pub(super) fn write(&self, form: &mut Serializer<'_, String>, settings: &Settings) {
        match self {
            Self::Exchange(request) => {
                form.extend_pairs([
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("subject_token", request.subject.expose()),
                    ("subject_token_type", request.subject_type.as_str()),
                ]);
                let requested = settings.answer.requested_type.as_ref();
                form.extend_pairs(requested.map(|kind| ("requested_token_type", kind.as_str())));
                form.extend_pairs(request.audiences.iter().map(|name| ("audience", name)));
                form.extend_pairs(request.resources.iter().map(|url| ("resource", url)));
                if let Some((token, kind)) = &request.actor {
                    form.extend_pairs([
                        ("actor_token", token.expose()),
                        ("actor_token_type", kind.as_str()),
                    ]);
                }
            }
            Self::OnBehalfOf(request) => {
                form.extend_pairs([
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", request.assertion.expose()),
                    ("requested_token_use", "on_behalf_of"),
                ]);
                if request.scopes.is_empty() {
                    form.append_pair("scope", &format!("{}/.default", request.audience));
                }
            }
            Self::Service(request) => {
                form.append_pair("grant_type", "client_credentials");
                form.extend_pairs(request.audiences.iter().map(|name| ("audience", name)));
                form.extend_pairs(request.resources.iter().map(|url| ("resource", url)));
                let tenant = settings.tenant_parameter.as_ref().zip(request.tenant.as_ref());
                form.extend_pairs(tenant.map(|(name, tenant)| (name, tenant.as_str())));
            }
            Self::Refresh(request) => {
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("refresh_token", request.refresh_token.expose());
            }
            Self::Code(request) => {
                form.extend_pairs([
                    ("grant_type", "authorization_code"),
                    ("code", request.code.expose()),
                    ("redirect_uri", &request.redirect_uri),
                ]);
                let verifier = request.verifier.as_ref();
                form.extend_pairs(verifier.map(|it| ("code_verifier", it.secret().expose())));
            }
            Self::Password(request) => {
                form.extend_pairs([
                    ("grant_type", "password"),
                    ("username", &request.username),
                    ("password", request.password.expose()),
                ]);
            }
        }
        form.extend_pairs(self.scopes().map(|scopes| ("scope", scopes.as_str())));
    }
}

/// Appends the members of a set in sorted order, without duplicates, and then `None`.
fn push_set<'p>(parts: &mut Vec<Option<&'p [u8]>>, members: impl Iterator<Item = &'p str>) {
    let mut members = members.map(|member| Some(member.as_bytes())).peekable();
    // Most sets have one member, which needs no allocation for sorting.
    parts.extend(members.next());
    if members.peek().is_some() {
        let mut set: Vec<_> = parts.pop().into_iter().chain(members).collect();
        set.sort_unstable();
        set.dedup();
        parts.append(&mut set);
    }
    parts.push(None);
}
