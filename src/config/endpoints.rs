//! [`EndpointsConfig`]: the settings of the endpoints under `/v1/auth/`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::identity::Scopes;
use crate::support::secret::Secret;

/// The settings of the endpoints under `/v1/auth/`. Only `Auth::endpoints` needs them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EndpointsConfig {
    /// The public URL of `login`, to which the provider sends browsers back. Default: none, so there is no
    /// sign-in.
    pub redirect_uri: Option<String>,
    /// The scopes that sign-ins request. Default `openid profile email offline_access`.
    pub scopes: Option<Scopes>,
    /// The secrets that seal sessions into cookies; see `SealingKeys::parse`. Default: none, so sign-ins return
    /// tokens, and there are no sessions.
    pub session_keys: Option<Secret>,
    /// Whether `token` accepts passwords. Default false.
    pub password_grant: bool,
    /// A file with the trust policy for foreign tokens (feature `trust`). Default: none, so no foreign token is
    /// accepted.
    pub trust_file: Option<PathBuf>,
    /// Addresses and networks whose `X-Forwarded-For` is trusted, such as `10.0.0.0/8`.
    pub trusted_proxies: Vec<String>,
}
