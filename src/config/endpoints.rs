//! [`EndpointsConfig`]: what the `/v1/auth/*` endpoints need to know.

use std::path::PathBuf;

use serde::Deserialize;

use crate::identity::Scopes;
use crate::support::secret::Secret;

/// Settings of the endpoints a service offers. Needed for `Auth::endpoints` only.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EndpointsConfig {
    /// Where the provider sends browsers back to: the public URL of `login`. None: nobody signs in
    /// here.
    pub redirect_uri: Option<String>,
    /// What sign-ins ask for. Default `openid profile email offline_access`.
    pub scopes: Option<Scopes>,
    /// The secrets under which sessions are sealed into cookies; see `SealingKeys::parse`. None:
    /// sign-ins give tokens, and there are no sessions.
    pub session_keys: Option<Secret>,
    /// Whether `token` takes passwords. Default false.
    pub password_grant: bool,
    /// A file with the trust policy for foreign tokens (feature `trust`). None: none is accepted.
    pub trust_file: Option<PathBuf>,
    /// Addresses and networks whose `X-Forwarded-For` is believed, such as `10.0.0.0/8`.
    pub trusted_proxies: Vec<String>,
}
