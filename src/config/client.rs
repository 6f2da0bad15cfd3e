//! [`ClientConfig`]: the service as an OAuth client of the provider.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Algorithm;
use super::jwks::optional_seconds;
use crate::identity::Scopes;
use crate::support::secret::Secret;

/// The service as an OAuth client of the provider. `TokenExchangeClient` needs it, to get tokens for other
/// services and to sign users in. Everything has a default except `id`.
///
/// ```
/// use scaikey_auth::AuthConfig;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The table `client` of a file.
/// let config: AuthConfig = toml::from_str(
///     r#"
///     audience = ["scaiwave"]
///     issuers = [{ issuer = "https://scaikey.example" }]
///
///     [client]
///     id = "scaiwave"
///     secret_file = "/etc/wave/client_secret"
///     redis_url_file = "/etc/wave/redis_url"
///     cache_keys_file = "/etc/wave/cache_keys"
///     "#,
/// )?;
/// assert_eq!(config.client.id.as_deref(), Some("scaiwave"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The `client_id` of this service. Default: none; then no `TokenExchangeClient` can be built, and a
    /// configured trust policy is a fault, because the provider mints the tokens.
    pub id: Option<String>,
    /// The `client_secret`. Set this or `secret_file`, not both. Default: none.
    pub secret: Option<Secret>,
    /// A file with the secret, instead of `secret`. White space at its end is ignored. The file must exist at
    /// the start. It is read for every request to the provider, so that the secret can be replaced while the
    /// service runs. Default: none.
    pub secret_file: Option<PathBuf>,
    /// The client authentication method. Default [`ClientAuthMethod::Basic`], or, if there is a workload
    /// token, [`ClientAuthMethod::Assertion`].
    pub auth: ClientAuthMethod,
    /// A file with the private key: unencrypted PKCS #8 in PEM. Required for `private_key_jwt`. It is read for
    /// every request to the provider. Default: none.
    pub key_file: Option<PathBuf>,
    /// The `kid` of the key at the provider. Default: none is sent.
    pub key_id: Option<String>,
    /// The signature algorithm of the key. Default RS256.
    pub key_algorithm: Algorithm,
    /// A file with a token of this service's platform, such as a projected service account token of
    /// Kubernetes, which replaces the client secret (RFC 7523 §2.2): see `ClientAuth::assertion`. It is read
    /// for every request to the provider. Set this or `workload_token`, not both. Default: none.
    pub assertion_file: Option<PathBuf>,
    /// The source of that token: `kubernetes`, `azure`, `aws`, `github`, `gcp`, `spiffe` (feature `spiffe`) or
    /// `file:` and an absolute path; see `WorkloadToken`. Default: none.
    pub workload_token: Option<String>,
    /// The `aud` of assertions: of `private_key_jwt`, and of the workload token. Default: the issuer; with
    /// `azure` and `aws`, the one that the platform chooses.
    pub assertion_audience: Option<String>,
    /// The token endpoint. `{tenant_id}` in it stands for the tenant. Default: as in the metadata.
    pub token_url: Option<String>,
    /// The authorization endpoint. Default: as in the metadata.
    pub authorization_url: Option<String>,
    /// The revocation endpoint. Default: as in the metadata.
    pub revocation_url: Option<String>,
    /// The end-session endpoint, to which a sign-out leads the browser, if the metadata does not name it. It
    /// may have a query of its own. Only sessions with `EndpointsConfig::post_logout_redirect_uri` use it.
    pub end_session_url: Option<String>,
    /// The file with the CA certificates (PEM) for requests to the provider. No other CA is then trusted for
    /// them. The file is read for each request, and a change takes effect with the next one. Default: the
    /// issuer's [`ca_file`](field@super::IssuerConfig::ca_file).
    pub ca_file: Option<PathBuf>,
    /// The form parameter that names the tenant to the provider when the service requests a token for
    /// itself. Default: none.
    pub tenant_parameter: Option<String>,
    /// The URL of a Redis or Valkey server that stores tokens and the replay log for all processes of the
    /// service (feature `redis`), and the trust policy if `endpoints.trust_store` is `redis`. Several URLs,
    /// separated by commas, name the nodes of a cluster. Default: none; each process stores its own.
    pub redis_url: Option<Secret>,
    /// A file with `redis_url`, instead of it. White space at its end is ignored. The file must exist at the
    /// start. It is read again for each new connection to the server. Default: none.
    pub redis_url_file: Option<PathBuf>,
    /// The sealing keys for tokens in Redis; for the format see `SealingKeys::parse`. Required with
    /// `redis_url`. Default: none.
    pub cache_keys: Option<Secret>,
    /// A file with `cache_keys`, instead of it. White space at its end is ignored. The file must exist at the
    /// start. It is read again every 10 s while it is used; see `SealingKeys::file`. Default: none.
    pub cache_keys_file: Option<PathBuf>,
    /// Whether refresh tokens and authorization codes are used even while Redis does not answer. Safe only
    /// if the service is a single process; see `TokenExchangeBuilder::insecure_spend_without_lock`. Default
    /// false.
    pub insecure_spend_without_lock: bool,
    /// The grant that exchanges the caller's token. Default [`ExchangeGrant::TokenExchange`]; for Microsoft
    /// Entra ID, use [`ExchangeGrant::OnBehalfOf`].
    pub exchange_grant: ExchangeGrant,
    /// The `requested_token_type` of exchanges: `jwt`, `access_token`, another URI, or `none` to omit the
    /// parameter. Default `jwt`; with the preset for Keycloak `access_token`.
    pub requested_token_type: Option<String>,
    /// The lifetime of tokens of unknown lifetime, which are otherwise not cached. Default: none.
    #[serde(rename = "default_lifetime_seconds", with = "optional_seconds")]
    pub default_lifetime: Option<Duration>,
    /// Further audiences that an ID token of a sign-in may have, besides the client and this service's own
    /// audiences; see `TokenExchangeBuilder::trusted_audience`. Default: none.
    pub trusted_audiences: Vec<String>,
    /// Scopes that the provider may grant without being asked; see
    /// `TokenExchangeBuilder::accept_extra_scopes`. In files a text or a list. Default: none.
    pub accept_extra_scopes: Scopes,
    /// Whether exchanged tokens without `issued_token_type` are accepted; see
    /// `TokenExchangeBuilder::accept_untyped_tokens`. Default false.
    pub accept_untyped_tokens: bool,
    /// Whether tokens with the `token_type` `N_A` are accepted; see
    /// `TokenExchangeBuilder::accept_non_bearer_tokens`. Default false.
    pub accept_non_bearer_tokens: bool,
    /// Whether tokens with any `aud` are accepted; see `TokenExchangeBuilder::insecure_any_audience`. Default
    /// false.
    pub insecure_any_audience: bool,
    /// Whether tokens of any user and tenant are accepted; see `TokenExchangeBuilder::insecure_any_subject`.
    /// Default false.
    pub insecure_any_subject: bool,
    /// Whether service tokens of any tenant are accepted; see
    /// `TokenExchangeBuilder::insecure_any_service_tenant`. Default false.
    pub insecure_any_service_tenant: bool,
    /// Whether JWTs whose claims cannot be read are accepted; see
    /// `TokenExchangeBuilder::insecure_unreadable_claims`. Default false.
    pub insecure_unreadable_claims: bool,
    /// Whether exchanged tokens are cached longer than their subject tokens live; see
    /// `TokenExchangeBuilder::insecure_outlive_subject`. Default false.
    pub insecure_outlive_subject: bool,
}

/// The grant that exchanges the caller's token for a token of another service. In files it is
/// `token_exchange` or `on_behalf_of`.
///
/// ```
/// use scaikey_auth::config::ExchangeGrant;
/// use scaikey_auth::{AuthConfig, TokenExchangeClient};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let mut config = AuthConfig::from_env("SCAIWAVE");
/// config.client.exchange_grant = ExchangeGrant::OnBehalfOf; // P_EXCHANGE_GRANT=on_behalf_of
/// let builder = TokenExchangeClient::from_config(&config);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExchangeGrant {
    /// Token exchange (RFC 8693).
    #[default]
    TokenExchange,
    /// The on-behalf-of flow of Microsoft Entra ID; see `OnBehalfOfRequest`.
    OnBehalfOf,
}

/// A client authentication method (RFC 6749 §2.3, RFC 7523 §2.2). In files it has its registered name, such
/// as `client_secret_basic`; `basic` and `post` are short forms.
///
/// ```
/// use scaikey_auth::AuthConfig;
/// use scaikey_auth::config::ClientAuthMethod;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let file = r#"{ "client": { "id": "scaiwave", "auth": "private_key_jwt",
///                             "key_file": "/run/secrets/scaiwave.pem" } }"#;
/// let config: AuthConfig = serde_json::from_str(file)?;
/// assert_eq!(config.client.auth, ClientAuthMethod::PrivateKeyJwt);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[non_exhaustive]
pub enum ClientAuthMethod {
    /// `client_secret_basic`: the secret in a header.
    #[default]
    #[serde(rename = "client_secret_basic", alias = "basic")]
    Basic,
    /// `client_secret_post`: the secret in the form.
    #[serde(rename = "client_secret_post", alias = "post")]
    Post,
    /// `private_key_jwt`: a signed assertion.
    #[serde(rename = "private_key_jwt")]
    PrivateKeyJwt,
    /// `assertion`: a token of this service's platform instead of a secret. It follows from
    /// [`assertion_file`](field@ClientConfig::assertion_file) or
    /// [`workload_token`](field@ClientConfig::workload_token), so it need not be set.
    #[serde(rename = "assertion")]
    Assertion,
    /// `none`: no authentication.
    #[serde(rename = "none")]
    None,
}
