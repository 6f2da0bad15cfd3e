//! What is asked of the token endpoint: five grants, and the form members each becomes.

use url::Url;
use url::form_urlencoded::Serializer;

use super::PkceVerifier;
use crate::identity::{Scopes, TenantId};
use crate::secret::Secret;

/// What kind of token something is (RFC 8693 §3).
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
    /// Another URI.
    Other(String),
}

impl TokenType {
    /// The URI.
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

/// An exchange of one token for another (RFC 8693).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ExchangeRequest {
    /// On whose behalf.
    pub subject: Secret,
    /// What the subject's token is. Default [`TokenType::AccessToken`].
    pub subject_type: TokenType,
    /// Who acts, with what their token is. Default: nobody but the client.
    pub actor: Option<(Secret, TokenType)>,
    /// The services the new token is for, by name.
    pub audiences: Vec<String>,
    /// The services the new token is for, by URL (RFC 8707).
    pub resources: Vec<Url>,
    /// What the new token is to permit. Empty: what the provider gives.
    pub scopes: Scopes,
    /// The tenant of the subject. Fills `{tenant_id}` in the client's `token_url`; a JWT that
    /// comes back must be of this tenant.
    pub tenant: Option<TenantId>,
}

impl ExchangeRequest {
    /// An exchange of an access token for one for `audience`.
    pub fn new(subject: impl Into<Secret>, audience: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            subject_type: TokenType::AccessToken,
            actor: None,
            audiences: vec![audience.into()],
            resources: Vec::new(),
            scopes: Scopes::new(),
            tenant: None,
        }
    }

    /// Names the tenant of the subject.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Asks for these scopes only.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    /// Names who acts.
    pub fn actor(mut self, token: impl Into<Secret>, kind: TokenType) -> Self {
        self.actor = Some((token.into(), kind));
        self
    }

    /// Adds a target by its URL. A fragment is cut off: the RFC allows none.
    pub fn resource(mut self, mut resource: Url) -> Self {
        resource.set_fragment(None);
        self.resources.push(resource);
        self
    }
}

/// A token for the service itself (client credentials, RFC 6749 §4.4).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ServiceTokenRequest {
    /// In which tenant. Default: the provider's choice.
    pub tenant: Option<TenantId>,
    /// What it is to permit. Empty: what the provider gives.
    pub scopes: Scopes,
}

impl ServiceTokenRequest {
    /// A token for work in one tenant.
    pub fn in_tenant(tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), scopes: Scopes::new() }
    }

    /// Asks for these scopes only.
    pub fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }
}

impl From<TenantId> for ServiceTokenRequest {
    fn from(tenant: TenantId) -> Self {
        Self::in_tenant(tenant)
    }
}

impl From<&TenantId> for ServiceTokenRequest {
    fn from(tenant: &TenantId) -> Self {
        Self::in_tenant(tenant.clone())
    }
}

/// A new access token for a session (RFC 6749 §6).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefreshRequest {
    /// The refresh token. Where the provider rotates, it is spent by this request.
    pub refresh_token: Secret,
    /// Fewer scopes than before. Empty: the same.
    pub scopes: Scopes,
    /// The tenant, for a `token_url` with `{tenant_id}`.
    pub tenant: Option<TenantId>,
    /// Whether anybody may have brought the refresh token.
    of_anybody: bool,
}

impl RefreshRequest {
    /// The same scopes as before.
    pub fn new(refresh_token: impl Into<Secret>) -> Self {
        let (refresh_token, scopes) = (refresh_token.into(), Scopes::new());
        Self { refresh_token, scopes, tenant: None, of_anybody: false }
    }

    /// The refresh token is as an anonymous caller sent it: see [`Grant::is_of_anybody`].
    pub(crate) fn of_anybody(mut self) -> Self {
        self.of_anybody = true;
        self
    }

    /// Fills `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }
}

/// The second half of a sign-in with a browser (RFC 6749 §4.1.3, RFC 7636 §4.5).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CodeRequest {
    /// What the provider sent back with the user.
    pub code: Secret,
    /// The same as in the authorization request, byte for byte.
    pub redirect_uri: String,
    /// Whose challenge was in the authorization request.
    pub verifier: Option<PkceVerifier>,
    /// The tenant, for a `token_url` with `{tenant_id}`.
    pub tenant: Option<TenantId>,
    /// Whether a caller that repeats the request within a minute gets the same tokens.
    pub(super) repeats: bool,
    /// Whether anybody may have brought the code.
    of_anybody: bool,
}

impl CodeRequest {
    /// All three belong together.
    pub fn new(
        code: impl Into<Secret>,
        redirect_uri: impl Into<String>,
        verifier: PkceVerifier,
    ) -> Self {
        let (code, redirect_uri) = (code.into(), redirect_uri.into());
        let verifier = Some(verifier);
        Self { code, redirect_uri, verifier, tenant: None, repeats: false, of_anybody: false }
    }

    /// A code that was asked for without a challenge, if the provider allows that. The price:
    /// whoever gets hold of such a code can use it (RFC 9700 §2.1.1).
    pub fn unbound(code: impl Into<Secret>, redirect_uri: impl Into<String>) -> Self {
        let (code, redirect_uri) = (code.into(), redirect_uri.into());
        let verifier = None;
        Self { code, redirect_uri, verifier, tenant: None, repeats: false, of_anybody: false }
    }

    /// Fills `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// The code is as an anonymous caller sent it: see [`Grant::is_of_anybody`].
    pub(crate) fn of_anybody(mut self) -> Self {
        self.of_anybody = true;
        self
    }

    /// Gives the same tokens to all who come with this code, verifier and redirect URI within a
    /// minute. Default: only the first gets tokens. For callbacks of browsers whose `state` was
    /// compared: a browser may send the same one twice. Not for codes that anyone may bring.
    pub fn allow_repeats(mut self) -> Self {
        self.repeats = true;
        self
    }
}

/// A sign-in with a password that passes through this service (RFC 6749 §4.3). RFC 9700 §2.4
/// forbids it for new designs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PasswordRequest {
    /// Who signs in.
    pub username: String,
    /// Their password.
    pub password: Secret,
    /// What the token is to permit. Empty: what the provider gives.
    pub scopes: Scopes,
    /// The tenant, for a `token_url` with `{tenant_id}`.
    pub tenant: Option<TenantId>,
    /// Whether anybody may have brought the password.
    of_anybody: bool,
}

impl PasswordRequest {
    /// All scopes the provider gives.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        let (username, password) = (username.into(), password.into());
        Self { username, password, scopes: Scopes::new(), tenant: None, of_anybody: false }
    }

    /// The password is as an anonymous caller sent it: see [`Grant::is_of_anybody`].
    pub(crate) fn of_anybody(mut self) -> Self {
        self.of_anybody = true;
        self
    }

    /// Fills `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }
}

/// A request as the client sees it.
#[derive(Debug)]
pub(super) enum Grant<'a> {
    Exchange(&'a ExchangeRequest, Option<&'a TokenType>),
    Service(&'a ServiceTokenRequest, Option<&'a str>),
    Refresh(&'a RefreshRequest),
    Code(&'a CodeRequest),
    Password(&'a PasswordRequest),
}

impl Grant<'_> {
    /// What was asked for.
    pub(super) fn scopes(&self) -> Option<&Scopes> {
        let scopes = match self {
            Self::Exchange(request, _) => &request.scopes,
            Self::Service(request, _) => &request.scopes,
            Self::Refresh(request) => &request.scopes,
            Self::Password(request) => &request.scopes,
            Self::Code(_) => return None,
        };
        (!scopes.is_empty()).then_some(scopes)
    }

    pub(super) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Exchange(request, _) => request.tenant.as_ref(),
            Self::Service(request, _) => request.tenant.as_ref(),
            Self::Refresh(request) => request.tenant.as_ref(),
            Self::Code(request) => request.tenant.as_ref(),
            Self::Password(request) => request.tenant.as_ref(),
        }
    }

    /// Its name in metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Exchange(..) => "exchange",
            Self::Service(..) => "client_credentials",
            Self::Refresh(_) => "refresh",
            Self::Code(_) => "code",
            Self::Password(_) => "password",
        }
    }

    /// Whether asking twice does no harm: what a code, a refresh token or a password does is done
    /// once, and the first request may have done it although no answer came.
    pub(super) fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Exchange(..) | Self::Service(..))
    }

    /// Whether its credential is as an anonymous caller sent it, and may be made up. What the provider
    /// thinks of that one says nothing about the next.
    pub(super) fn is_of_anybody(&self) -> bool {
        match self {
            Self::Exchange(..) | Self::Service(..) => false,
            Self::Refresh(request) => request.of_anybody,
            Self::Code(request) => request.of_anybody,
            Self::Password(request) => request.of_anybody,
        }
    }

    pub(super) fn write(&self, form: &mut Serializer<'_, String>) {
        match self {
            Self::Exchange(request, requested) => exchange(request, *requested, form),
            Self::Service(request, parameter) => {
                form.append_pair("grant_type", "client_credentials");
                if let (Some(name), Some(tenant)) = (parameter, &request.tenant) {
                    form.append_pair(name, tenant.as_str());
                }
            }
            Self::Refresh(request) => {
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("refresh_token", request.refresh_token.expose());
            }
            Self::Code(request) => {
                form.append_pair("grant_type", "authorization_code");
                form.append_pair("code", request.code.expose());
                form.append_pair("redirect_uri", &request.redirect_uri);
                if let Some(verifier) = &request.verifier {
                    form.append_pair("code_verifier", verifier.secret().expose());
                }
            }
            Self::Password(request) => {
                form.append_pair("grant_type", "password");
                form.append_pair("username", &request.username);
                form.append_pair("password", request.password.expose());
            }
        }
        if let Some(scopes) = self.scopes() {
            form.append_pair("scope", scopes.as_str());
        }
    }
}

fn exchange(
    request: &ExchangeRequest,
    requested: Option<&TokenType>,
    form: &mut Serializer<'_, String>,
) {
    form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    form.append_pair("subject_token", request.subject.expose());
    form.append_pair("subject_token_type", request.subject_type.as_str());
    if let Some(requested) = requested {
        form.append_pair("requested_token_type", requested.as_str());
    }
    for audience in &request.audiences {
        form.append_pair("audience", audience);
    }
    for resource in &request.resources {
        form.append_pair("resource", resource.as_str());
    }
    if let Some((token, kind)) = &request.actor {
        form.append_pair("actor_token", token.expose());
        form.append_pair("actor_token_type", kind.as_str());
    }
}
