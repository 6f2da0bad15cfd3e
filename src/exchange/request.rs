//! The five requests for a token, and [`TokenRequest`], which all of them turn into.

use std::borrow::Cow;

use url::Url;
use url::form_urlencoded::Serializer;

use super::PkceVerifier;
use super::builder::Settings;
use crate::identity::{Scopes, TenantId};
use crate::support::secret::Secret;

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
    /// Whether the subject token is from another issuer: neither its `sub` nor its tenant say what the
    /// new one is to be, and nothing beyond `scopes` may be granted.
    pub(super) is_foreign: bool,
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
            is_foreign: false,
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
    by_anonymous_caller: bool,
}

impl RefreshRequest {
    /// The same scopes as before.
    pub fn new(refresh_token: impl Into<Secret>) -> Self {
        let (refresh_token, scopes) = (refresh_token.into(), Scopes::new());
        Self { refresh_token, scopes, tenant: None, by_anonymous_caller: false }
    }

    /// The refresh token is as an anonymous caller sent it: see [`TokenRequest::is_from_anonymous_caller`].
    pub(crate) fn by_anonymous_caller(mut self) -> Self {
        self.by_anonymous_caller = true;
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
    by_anonymous_caller: bool,
}

impl CodeRequest {
    /// All three belong together.
    pub fn new(
        code: impl Into<Secret>,
        redirect_uri: impl Into<String>,
        verifier: PkceVerifier,
    ) -> Self {
        Self { verifier: Some(verifier), ..Self::without_pkce(code, redirect_uri) }
    }

    /// A code that was asked for without a challenge, if the provider allows that. The price:
    /// whoever gets hold of such a code can use it (RFC 9700 §2.1.1).
    pub fn without_pkce(code: impl Into<Secret>, redirect_uri: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            redirect_uri: redirect_uri.into(),
            verifier: None,
            tenant: None,
            repeats: false,
            by_anonymous_caller: false,
        }
    }

    /// Fills `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// The code is as an anonymous caller sent it: see [`TokenRequest::is_from_anonymous_caller`].
    pub(crate) fn by_anonymous_caller(mut self) -> Self {
        self.by_anonymous_caller = true;
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
    by_anonymous_caller: bool,
}

impl PasswordRequest {
    /// All scopes the provider gives.
    pub fn new(username: impl Into<String>, password: impl Into<Secret>) -> Self {
        let (username, password) = (username.into(), password.into());
        Self {
            username,
            password,
            scopes: Scopes::new(),
            tenant: None,
            by_anonymous_caller: false,
        }
    }

    /// The password is as an anonymous caller sent it: see [`TokenRequest::is_from_anonymous_caller`].
    pub(crate) fn by_anonymous_caller(mut self) -> Self {
        self.by_anonymous_caller = true;
        self
    }

    /// Fills `{tenant_id}` in the client's `token_url`.
    pub fn in_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }
}

/// One request for a token, of whichever grant: borrowed from its caller, or taken along by the task
/// that sends it.
#[derive(Debug, Clone)]
pub(crate) enum TokenRequest<'r> {
    Exchange(Cow<'r, ExchangeRequest>),
    Service(Cow<'r, ServiceTokenRequest>),
    Refresh(Cow<'r, RefreshRequest>),
    Code(Cow<'r, CodeRequest>),
    Password(Cow<'r, PasswordRequest>),
}

impl TokenRequest<'_> {
    /// Returns a copy that borrows nothing.
    pub(super) fn owned(&self) -> TokenRequest<'static> {
        match self {
            Self::Exchange(request) => TokenRequest::Exchange(Cow::Owned((**request).clone())),
            Self::Service(request) => TokenRequest::Service(Cow::Owned((**request).clone())),
            Self::Refresh(request) => TokenRequest::Refresh(Cow::Owned((**request).clone())),
            Self::Code(request) => TokenRequest::Code(Cow::Owned((**request).clone())),
            Self::Password(request) => TokenRequest::Password(Cow::Owned((**request).clone())),
        }
    }

    /// Its name in metrics and logs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Exchange(_) => "exchange",
            Self::Service(_) => "client_credentials",
            Self::Refresh(_) => "refresh",
            Self::Code(_) => "code",
            Self::Password(_) => "password",
        }
    }

    pub(super) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Exchange(request) => request.tenant.as_ref(),
            Self::Service(request) => request.tenant.as_ref(),
            Self::Refresh(request) => request.tenant.as_ref(),
            Self::Code(request) => request.tenant.as_ref(),
            Self::Password(request) => request.tenant.as_ref(),
        }
    }

    /// The scopes asked for, if any were.
    pub(super) fn scopes(&self) -> Option<&Scopes> {
        let scopes = match self {
            Self::Exchange(request) => &request.scopes,
            Self::Service(request) => &request.scopes,
            Self::Refresh(request) => &request.scopes,
            Self::Password(request) => &request.scopes,
            Self::Code(_) => return None,
        };
        (!scopes.is_empty()).then_some(scopes)
    }

    /// The token, code or password that the new token is got for.
    pub(super) fn credential(&self) -> Option<&Secret> {
        match self {
            Self::Exchange(request) => Some(&request.subject),
            Self::Service(_) => None,
            Self::Refresh(request) => Some(&request.refresh_token),
            Self::Code(request) => Some(&request.code),
            Self::Password(request) => Some(&request.password),
        }
    }

    /// Whether asking twice does no harm: what a code, a refresh token or a password does is done
    /// once, and the first request may have done it although no answer came.
    pub(super) fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Exchange(_) | Self::Service(_))
    }

    /// Whether its credential can be spent once only.
    pub(super) fn spends(&self) -> bool {
        matches!(self, Self::Refresh(_) | Self::Code(_))
    }

    /// Whether its credential is as an anonymous caller sent it, and may be made up. What the provider
    /// thinks of that one says nothing about the next.
    pub(super) fn is_from_anonymous_caller(&self) -> bool {
        match self {
            Self::Exchange(_) | Self::Service(_) => false,
            Self::Refresh(request) => request.by_anonymous_caller,
            Self::Code(request) => request.by_anonymous_caller,
            Self::Password(request) => request.by_anonymous_caller,
        }
    }

    /// Everything that tells it from another request of the same client, with `credential` in the place
    /// of its own. The name comes first and says which parts follow; a set ends with `None`.
    pub(super) fn parts<'p>(&'p self, credential: Option<&'p [u8]>) -> Vec<Option<&'p [u8]>> {
        let tenant = self.tenant().map(|tenant| tenant.as_str().as_bytes());
        // Room for what most requests have.
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
            }
            Self::Service(request) => push_set(&mut parts, request.scopes.iter()),
            // Whatever scopes are asked for, the refresh token is spent once.
            Self::Refresh(_) => {}
            // All that has to be right for the code to be redeemed.
            Self::Code(request) => {
                let verifier = request.verifier.as_ref();
                parts.push(verifier.map(|verifier| verifier.secret().expose().as_bytes()));
                parts.push(Some(request.redirect_uri.as_bytes()));
            }
            Self::Password(request) => {
                parts.push(Some(request.username.as_bytes()));
                push_set(&mut parts, request.scopes.iter());
            }
        }
        parts
    }

    /// Writes the members of its form, but for the client's proof.
    pub(super) fn write(&self, form: &mut Serializer<'_, String>, settings: &Settings) {
        match self {
            Self::Exchange(request) => {
                form.extend_pairs([
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("subject_token", request.subject.expose()),
                    ("subject_token_type", request.subject_type.as_str()),
                ]);
                let requested = settings.requested_type.as_ref();
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
            Self::Service(request) => {
                form.append_pair("grant_type", "client_credentials");
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

/// Adds a set, in whatever order it comes: each member once, and its end.
fn push_set<'p>(parts: &mut Vec<Option<&'p [u8]>>, members: impl Iterator<Item = &'p str>) {
    let mut members = members.map(|member| Some(member.as_bytes())).peekable();
    // A set of one, as most are, needs no room to be sorted in.
    parts.extend(members.next());
    if members.peek().is_some() {
        let mut set: Vec<_> = parts.pop().into_iter().chain(members).collect();
        set.sort_unstable();
        set.dedup();
        parts.append(&mut set);
    }
    parts.push(None);
}
