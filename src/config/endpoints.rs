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
    /// The public URL of the endpoint `/v1/auth/login`, to which the provider redirects browsers. Default:
    /// none, so there is no sign-in.
    pub redirect_uri: Option<String>,
    /// The scopes that a sign-in requests. `None`, the default, means `openid profile email
    /// offline_access`.
    pub scopes: Option<Scopes>,
    /// The sealing keys for session cookies; for the format see `SealingKeys::parse`. Default: none, so
    /// sign-ins return tokens, and there are no sessions.
    pub session_keys: Option<Secret>,
    /// A file with `session_keys`, instead of it. White space at its end is ignored. The file must exist at
    /// the start. It is read again every 10 s while it is used; see `SealingKeys::file`.
    pub session_keys_file: Option<PathBuf>,
    /// Whether the endpoint `/v1/auth/token` accepts user names and passwords. Default false.
    pub password_grant: bool,
    /// A file with the trust policy for workload tokens of other platforms (feature `trust`). Default:
    /// none, so no such token is accepted.
    pub trust_file: Option<PathBuf>,
    /// The addresses and networks of proxies whose `X-Forwarded-For` is trusted, such as `10.0.0.0/8`.
    /// Default: none.
    pub trusted_proxies: Vec<String>,
}
