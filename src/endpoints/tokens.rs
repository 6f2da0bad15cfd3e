//! `POST token` and `POST refresh`, and the token response (RFC 6749 §5.1).

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use super::accounts::fold;
use super::parameters::{BodyFormat, Parameters};
use super::response::{Failure, invalid_request};
use super::{Endpoint, EndpointRequest, Inner};
use crate::clock::Clock;
use crate::exchange::{AccessToken, PasswordRequest, RefreshRequest};
use crate::identity::Scopes;
use crate::layer::RequestHead;
use crate::support::telemetry;

/// An attempt to sign in with a password.
///
/// ```
/// use scaikey_auth::endpoints::PasswordAttempt;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // One account for all spellings of a user name, for each host.
/// let builder = auth.endpoints().account_of(|attempt: &PasswordAttempt<'_>| {
///     let host = attempt.head.headers.get("host").and_then(|host| host.to_str().ok());
///     let tenant = ["acme.example", "umbrella.example"].into_iter().find(|own| host == Some(*own));
///     format!("{}/{}", tenant.unwrap_or_default(), attempt.account())
/// });
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct PasswordAttempt<'a> {
    /// Method, URI and headers of the request. The host may name the tenant.
    pub head: RequestHead<'a>,
    /// The user name as sent, with at most 1,024 bytes.
    pub username: &'a str,
}

impl PasswordAttempt<'_> {
    /// Returns the user name in a normalised form that is equal for equivalent spellings: it
    /// ignores case, compatibility forms (NFKC), invisible characters, and outer or repeated
    /// spaces, as directories compare names (RFC 4518 §2). Accents and punctuation are kept.
    pub fn account(&self) -> String {
        fold(self.username)
    }
}

/// Maximum length of a user name. Principal names of directories have up to 1,024 characters.
const MAX_USERNAME_BYTES: usize = 1024;

/// Maximum length of `scope`.
const MAX_SCOPE_BYTES: usize = 4096;

/// The decision about a password attempt.
///
/// ```
/// use scaikey_auth::endpoints::{PasswordAttempt, PasswordDecision};
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // Only the automation of one tenant has passwords.
/// let builder = auth.endpoints().password_grant(|attempt: &PasswordAttempt<'_>| {
///     match attempt.head.headers.get("host") {
///         Some(host) if host == "acme.example" => PasswordDecision::Allow,
///         _ => PasswordDecision::NotInThisTenant,
///     }
/// });
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordDecision {
    /// The password is sent to the provider.
    Allow,
    /// The tenant does not allow passwords. The response is `unauthorized_client`.
    NotInThisTenant,
    /// The service does not allow passwords. The response is `unsupported_grant_type`.
    NotInThisService,
}

pub(super) type PasswordRule = Arc<dyn Fn(&PasswordAttempt<'_>) -> PasswordDecision + Send + Sync>;

#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

impl Inner {
    /// Handles the password grant (RFC 6749 §4.3), for automation that has no other way to get
    /// tokens (RFC 9700 §2.4).
    pub(super) async fn token(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let known = ["grant_type", "username", "password", "scope"];
        let parameters = Parameters::from_body(incoming, BodyFormat::Form, &known)?;
        let unsupported =
            Failure::OAuth("unsupported_grant_type", "This grant type is not supported.");
        match parameters.required("grant_type", "The parameter grant_type is missing.")? {
            "password" => {}
            _ => return Err(unsupported),
        }
        let Some(rule) = &self.password_rule else { return Err(unsupported) };
        let username = parameters.required("username", "The parameter username is missing.")?;
        if username.len() > MAX_USERNAME_BYTES {
            return Err(invalid_request("The username has more than 1024 bytes."));
        }
        let password = parameters.required("password", "The parameter password is missing.")?;
        let attempt = PasswordAttempt { head: RequestHead::of_parts(&incoming.head), username };
        match rule(&attempt) {
            PasswordDecision::Allow => {}
            PasswordDecision::NotInThisService => return Err(unsupported),
            PasswordDecision::NotInThisTenant => {
                let problem = "Passwords are not accepted in this tenant.";
                return Err(Failure::OAuth("unauthorized_client", problem));
            }
        }
        let account = (self.account_rule)(&attempt);
        self.admit(Endpoint::Token, &incoming.head, Some(&account)).await?;
        let mut request = PasswordRequest::new(username, password).by_anonymous_caller();
        request.scopes = scopes(&parameters)?;
        let token = self.client()?.password(&request).await?;
        Ok(self.token_response(&token))
    }

    /// Refreshes tokens. `grant_type` is optional, but must be `refresh_token` if present.
    pub(super) async fn refresh(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let known = ["grant_type", "refresh_token", "scope"];
        let parameters = Parameters::from_body(incoming, BodyFormat::Form, &known)?;
        if parameters.get("grant_type").is_some_and(|grant| grant != "refresh_token") {
            let problem = "The grant_type must be refresh_token.";
            return Err(Failure::OAuth("unsupported_grant_type", problem));
        }
        let missing = "The parameter refresh_token is missing.";
        let refresh_token = parameters.required("refresh_token", missing)?;
        let mut request = RefreshRequest::new(refresh_token).by_anonymous_caller();
        request.scopes = scopes(&parameters)?;
        let token = self.client()?.refresh(&request).await?;
        Ok(self.token_response(&token))
    }

    /// Returns the tokens of the provider, except the ID token, which is addressed to this service.
    pub(super) fn token_response(&self, token: &AccessToken) -> Response<Bytes> {
        let clock: &dyn Clock = &**self.auth.clock();
        self.ok(&TokenResponse {
            access_token: token.secret().expose(),
            token_type: "Bearer",
            // Rounded, because a few milliseconds passed since the provider answered.
            expires_in: token.remaining(clock).map(|left| left.as_secs_f64().round() as u64),
            refresh_token: token.refresh_token().map(|token| token.expose()),
            scope: token.scopes().map(Scopes::as_str).filter(|scope| !scope.is_empty()),
        })
    }
}

pub(super) fn scopes(parameters: &Parameters) -> Result<Scopes, Failure> {
    let list = parameters.get("scope");
    if list.is_some_and(|list| list.len() > MAX_SCOPE_BYTES) {
        return Err(Failure::OAuth("invalid_scope", "The scope has more than 4096 bytes."));
    }
    let scopes = list.map(str::parse).transpose();
    let malformed = |_| Failure::OAuth("invalid_scope", "The scope is malformed.");
    scopes.map(Option::unwrap_or_default).map_err(malformed)
}

/// Returns the rule that allows all passwords. Logs a warning, since RFC 9700 §2.4 forbids this
/// grant.
pub(super) fn allow_everywhere() -> PasswordRule {
    telemetry::password_grant_enabled();
    Arc::new(|_| PasswordDecision::Allow)
}
