//! [`ClientConfig`]: what the service is to the provider when it asks for tokens itself.

use std::path::PathBuf;

use serde::Deserialize;

use super::Algorithm;
use crate::support::secret::Secret;

/// The service as a client of the provider. Needed for `TokenExchangeClient` only.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ClientConfig {
    /// `client_id`.
    pub id: Option<String>,
    /// `client_secret`.
    pub secret: Option<Secret>,
    /// A file with the secret instead. Read for every request to the provider, so that it may be
    /// replaced.
    pub secret_file: Option<PathBuf>,
    /// How the service proves itself. Default [`ClientAuthMethod::Basic`].
    pub auth: ClientAuthMethod,
    /// A file with the private key for `private_key_jwt`: PKCS #8 in PEM.
    pub key_file: Option<PathBuf>,
    /// The `kid` the provider knows the key by. Default: none is sent.
    pub key_id: Option<String>,
    /// What the key signs with. Default RS256.
    pub key_algorithm: Algorithm,
    /// The token endpoint, when metadata does not name it; `{tenant_id}` in it stands for the
    /// tenant.
    pub token_url: Option<String>,
    /// The authorization endpoint, when metadata does not name it.
    pub authorization_url: Option<String>,
    /// The form member that tells the provider the tenant of a service token.
    pub tenant_parameter: Option<String>,
    /// A Redis or Valkey server in which all processes of the service share tokens (feature
    /// `redis`). Default: each process keeps its own.
    pub redis_url: Option<Secret>,
    /// The secrets under which they are sealed there; see `SealingKeys::parse`.
    pub cache_keys: Option<Secret>,
    /// Spends refresh tokens and codes also while that server gives no answer: right for a service
    /// of one process; see `TokenExchangeBuilder::insecure_spend_without_lock`. Default: no.
    pub insecure_spend_without_lock: bool,
}

/// How a client proves itself (RFC 6749 §2.3, RFC 7523 §2.2), by the names of RFC 8414.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[non_exhaustive]
pub enum ClientAuthMethod {
    /// `client_secret_basic`: in a header.
    #[default]
    #[serde(rename = "client_secret_basic", alias = "basic")]
    Basic,
    /// `client_secret_post`: in the form.
    #[serde(rename = "client_secret_post", alias = "post")]
    Post,
    /// `private_key_jwt`: by a signature.
    #[serde(rename = "private_key_jwt")]
    PrivateKeyJwt,
    /// `none`: not at all.
    #[serde(rename = "none")]
    None,
}
