//! [`EndpointsConfig`]: the settings of the endpoints under `/v1/auth/`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use url::form_urlencoded;

use super::jwks::optional_seconds;
use crate::identity::Scopes;
use crate::support::secret::Secret;

/// The settings of the endpoints under `/v1/auth/`. Only `Auth::endpoints` needs them.
///
/// ```
/// use scaikey_auth::AuthConfig;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The table `endpoints` of a file.
/// let config: AuthConfig = toml::from_str(
///     r#"
///     audience = ["scaiwave"]
///     issuers = [{ issuer = "https://scaikey.example" }]
///
///     [endpoints]
///     redirect_uri = "https://wave.example/v1/auth/login"
///     session_keys_file = "/etc/wave/session_keys"
///     trusted_proxies = ["10.0.0.0/8"]
///     "#,
/// )?;
/// assert!(config.endpoints.session_keys_file.is_some());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EndpointsConfig {
    /// The public URL of the endpoint `/v1/auth/login`, to which the provider redirects browsers. Default:
    /// none, so there is no sign-in.
    pub redirect_uri: Option<String>,
    /// The prefix of the endpoints' paths as this service sees them; see `EndpointsBuilder::prefix`. `None`,
    /// the default, means `/v1/auth`.
    pub prefix: Option<String>,
    /// The page after a sign-in without `return_to`, as browsers see it; see `SignIn::landing`. Default: the
    /// path under which the service stands, from `redirect_uri`.
    pub landing: Option<String>,
    /// The page after a failed sign-in, as browsers see it; see `SignIn::failure_page`. Default: none, the
    /// error is JSON.
    pub failure_page: Option<String>,
    /// Whether a browser that loads a page without a session is led to the sign-in; see
    /// `SignIn::redirect_navigation`. Needs session keys. Default false.
    pub redirect_navigation: bool,
    /// The name of the cookies, with at most 56 characters: `__Host-NAME-…` for sessions,
    /// `__Host-sign-in-NAME-…` for sign-ins. Services on one host need different names. Default: `session`
    /// and `sign-in`.
    pub cookie_name: Option<String>,
    /// The scopes that a sign-in requests. `None`, the default, means `openid profile email
    /// offline_access`.
    pub scopes: Option<Scopes>,
    /// Further parameters of the authorization request of a sign-in, such as `audience`, `resource`,
    /// `prompt` or `acr_values`; see `SignIn::parameter`. In files a table, in which a value may be a
    /// list, or a text as in the query of a URL: `audience=https://api.example&prompt=login`. Default:
    /// none.
    #[serde(deserialize_with = "sign_in_parameters")]
    pub sign_in_parameters: Vec<(String, String)>,
    /// Whether the provider answers sign-ins with a form that its page posts (`response_mode=form_post`); see
    /// `SignIn::form_post`. Default false.
    pub form_post: bool,
    /// The sealing keys for session cookies; for the format see `SealingKeys::parse`. Default: none, so
    /// sign-ins return tokens, and there are no sessions.
    pub session_keys: Option<Secret>,
    /// A file with `session_keys`, instead of it. White space at its end is ignored. The file must exist at
    /// the start. It is read again every 10 s while it is used; see `SealingKeys::file`. Default: none.
    pub session_keys_file: Option<PathBuf>,
    /// The token that names the user of a session; see `SessionsBuilder::identity_from`. Default
    /// [`IdentitySource::AccessToken`]. Needs session keys.
    pub session_identity: IdentitySource,
    /// Where the tokens of sessions are; see `SessionsBuilder::store`. Default: `None`, in the cookies. Needs session
    /// keys.
    pub session_store: Option<SessionStoreKind>,
    /// How long a session lasts without a request; see `SessionsBuilder::idle`. Needs a session store. Default: `None`,
    /// 30 minutes. In files, `session_idle_seconds` is a number of seconds.
    #[serde(rename = "session_idle_seconds", with = "optional_seconds")]
    pub session_idle: Option<Duration>,
    /// Whether each user who signs in is registered before the session starts; see
    /// `EndpointsBuilder::register_at_sign_in`. Needs a registrar, such as that of the database. Default
    /// false.
    pub register_at_sign_in: bool,
    /// The page to which the provider redirects a browser after sign-out (logout), as registered there. It
    /// makes sign-outs end the provider's session, too; see `SessionsBuilder::end_at_provider`. Needs
    /// sessions. Default: none, so a sign-out ends only the session of this service.
    pub post_logout_redirect_uri: Option<String>,
    /// Whether the provider may report ended sessions at `/v1/auth/backchannel_logout`; see
    /// `EndpointsBuilder::backchannel_logout`. Needs a client. Default false.
    pub backchannel_logout: bool,
    /// Whether the endpoint `/v1/auth/token` accepts user names and passwords. Default false.
    pub password_grant: bool,
    /// A file with the trust policy for workload tokens of other platforms (feature `trust`). Default:
    /// none, so no such token is accepted.
    pub trust_file: Option<PathBuf>,
    /// Where the trust policy is kept (feature `trust`). Default: `None`, which means [`PolicyStoreKind::File`] if
    /// there is a `trust_file`, and no policy otherwise.
    pub trust_store: Option<PolicyStoreKind>,
    /// The scopes that an administrator of the whole trust policy needs. They mount the administration under
    /// `/v1/auth/trusts` (feature `trust`). Default: none, so it is not mounted.
    pub trust_admin_scope: Option<Scopes>,
    /// The scopes with which the administrator of a tenant may change the rules of that tenant. Needs
    /// `trust_admin_scope`. Default: none, so tenants have no administrators.
    pub trust_tenant_admin_scope: Option<Scopes>,
    /// The addresses and networks of proxies whose `X-Forwarded-For` is trusted, such as `10.0.0.0/8`.
    /// Default: none.
    pub trusted_proxies: Vec<String>,
}

/// The token that names the user of a browser session. In files it is `access_token` or `id_token`.
///
/// ```
/// use scaikey_auth::AuthConfig;
/// use scaikey_auth::config::IdentitySource;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// // P_SESSION_IDENTITY=id_token
/// let file = r#"{ "endpoints": { "session_identity": "id_token" } }"#;
/// let config: AuthConfig = serde_json::from_str(file)?;
/// assert_eq!(config.endpoints.session_identity, IdentitySource::IdToken);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IdentitySource {
    /// The access token. This service must accept it: as a JWT, or by introspection.
    #[default]
    AccessToken,
    /// The ID token, which the sign-in and each renewal verify. For providers whose access tokens only the
    /// provider can read.
    IdToken,
}

/// Where the tokens of browser sessions are. In files it is `memory`, `database` or `redis`.
///
/// ```
/// use scaikey_auth::AuthConfig;
/// use scaikey_auth::config::SessionStoreKind;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// // P_SESSION_STORE=redis
/// let file = r#"{ "endpoints": { "session_store": "redis" } }"#;
/// let config: AuthConfig = serde_json::from_str(file)?;
/// assert_eq!(config.endpoints.session_store, Some(SessionStoreKind::Redis));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionStoreKind {
    /// The memory of this process.
    Memory,
    /// The database of [`AuthConfig::database_url`](crate::AuthConfig::database_url).
    Database,
    /// The Redis or Valkey server of the token cache.
    Redis,
}

/// Where the trust policy is kept, with its history. In files it is `file`, `database` or `redis`.
///
/// ```
/// use scaikey_auth::AuthConfig;
/// use scaikey_auth::config::PolicyStoreKind;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// // P_TRUST_STORE=database
/// let file = r#"{ "endpoints": { "trust_store": "database" } }"#;
/// let config: AuthConfig = serde_json::from_str(file)?;
/// assert_eq!(config.endpoints.trust_store, Some(PolicyStoreKind::Database));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyStoreKind {
    /// The file [`trust_file`](EndpointsConfig::trust_file).
    File,
    /// The database of [`AuthConfig::database_url`](crate::AuthConfig::database_url).
    Database,
    /// The Redis or Valkey server of the token cache, which must keep its data.
    Redis,
}

/// The problem of parameters that are not pairs.
const NOT_PAIRS: &str = "must be pairs as in the query of a URL, such as \
                         `audience=https://api.example&prompt=login`";

/// Reads form-encoded pairs.
pub(super) fn parse_parameters(text: &str) -> Result<Vec<(String, String)>, String> {
    let has_names = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    if !text.split('&').all(has_names) {
        return Err(NOT_PAIRS.to_owned());
    }
    Ok(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
}

fn sign_in_parameters<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<(String, String)>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Parameters {
        Text(String),
        Table(BTreeMap<String, Values>),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values {
        One(String),
        Many(Vec<String>),
    }
    match Parameters::deserialize(from)? {
        Parameters::Text(text) => parse_parameters(&text).map_err(serde::de::Error::custom),
        Parameters::Table(table) => {
            let pairs = table.into_iter().flat_map(|(name, values)| {
                let values = match values {
                    Values::One(value) => vec![value],
                    Values::Many(values) => values,
                };
                values.into_iter().map(move |value| (name.clone(), value))
            });
            Ok(pairs.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_parameters_are_text_or_table() {
        let read = |json: &str| {
            let config = serde_json::from_str::<EndpointsConfig>(json);
            config.map(|config| config.sign_in_parameters).map_err(|error| error.to_string())
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = [pair("audience", "https://api.example"), pair("prompt", "a b")];
        for text in [
            r#"{"sign_in_parameters":"audience=https://api.example&prompt=a+b"}"#,
            r#"{"sign_in_parameters":{"prompt":"a b","audience":"https://api.example"}}"#,
        ] {
            assert_eq!(read(text).unwrap(), both, "{text}");
        }
        let list = read(r#"{"sign_in_parameters":{"resource":["https://a","https://b"]}}"#);
        assert_eq!(list.unwrap(), [pair("resource", "https://a"), pair("resource", "https://b")]);
        for text in ["audience", "=x", "a=b&", "a=b&&c=d", ""] {
            assert!(parse_parameters(text).is_err(), "{text}");
        }
        assert!(read(r#"{"sign_in_parameters":7}"#).is_err());
    }
}
