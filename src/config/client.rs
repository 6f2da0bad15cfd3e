//! [`ClientConfig`]: the service as an OAuth client of the provider.

use std::path::PathBuf;

use serde::Deserialize;

use super::Algorithm;
use crate::support::secret::Secret;

/// The service as an OAuth client of the provider. Only `TokenExchangeClient` needs it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ClientConfig {
    /// `client_id`.
    pub id: Option<String>,
    /// `client_secret`.
    pub secret: Option<Secret>,
    /// A file with the secret, instead of `secret`. It is read for every request to the provider, so that it
    /// can be replaced while the service runs.
    pub secret_file: Option<PathBuf>,
    /// The client authentication method. Default [`ClientAuthMethod::Basic`].
    pub auth: ClientAuthMethod,
    /// A file with the private key for `private_key_jwt`: PKCS #8 in PEM.
    pub key_file: Option<PathBuf>,
    /// The `kid` of the key at the provider. Default: none is sent.
    pub key_id: Option<String>,
    /// The signature algorithm of the key. Default RS256.
    pub key_algorithm: Algorithm,
    /// The token endpoint, if the metadata does not name it. `{tenant_id}` in it stands for the tenant.
    pub token_url: Option<String>,
    /// The authorization endpoint, if the metadata does not name it.
    pub authorization_url: Option<String>,
    /// The form parameter that names the tenant of a service token to the provider.
    pub tenant_parameter: Option<String>,
    /// A Redis or Valkey server in which all processes of the service share tokens (feature `redis`).
    /// Default: each process has its own cache.
    pub redis_url: Option<Secret>,
    /// The secrets that seal tokens in that server; see `SealingKeys::parse`.
    pub cache_keys: Option<Secret>,
    /// Uses refresh tokens and codes even while that server does not answer. This is safe for a service of one
    /// process; see `TokenExchangeBuilder::insecure_spend_without_lock`. Default false.
    pub insecure_spend_without_lock: bool,
}

/// A client authentication method (RFC 6749 §2.3, RFC 7523 §2.2), by its name in RFC 8414.
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
    /// `none`: no authentication.
    #[serde(rename = "none")]
    None,
}
