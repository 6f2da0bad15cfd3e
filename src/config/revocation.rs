//! [`RevocationLogKind`]: where the processes of a service share revocations.

use std::time::Duration;

use serde::Deserialize;

use super::{AuthConfig, AuthMode, Fault};

/// Where the processes of a service share revocations. In files it is `redis`.
///
/// ```
/// use scaikey_auth::AuthConfig;
/// use scaikey_auth::config::RevocationLogKind;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// // P_REVOCATION_LOG=redis
/// let config: AuthConfig = serde_json::from_str(r#"{ "revocation_log": "redis" }"#)?;
/// assert_eq!(config.revocation_log, Some(RevocationLogKind::Redis));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RevocationLogKind {
    /// The Redis or Valkey server of the token cache, which must keep its data.
    Redis,
}

const LOG: &str = "revocation_log";
const REFUSE_AFTER: &str = "revocation_refuse_after_seconds";

impl AuthConfig {
    /// Reports settings of the revocation log that lack another one, or have no effect.
    pub(super) fn check_revocations(&self, faults: &mut Vec<Fault>) {
        let mut fault = |field, problem: &str| faults.push(Fault::new(field, problem));
        match (self.revocation_log, self.revocation_refuse_after) {
            (None, Some(_)) => {
                fault(REFUSE_AFTER, "needs a log: set revocation_log (`P_REVOCATION_LOG`), too");
            }
            (Some(_), Some(limit)) if limit < Duration::from_secs(5) => {
                fault(
                    REFUSE_AFTER,
                    "must be at least 5 s: two reads of the log may be seconds apart",
                );
            }
            _ => {}
        }
        if self.revocation_log.is_some() && self.has_own_revocations {
            fault(
                LOG,
                "has no effect on revocations that are built in code: call `log` on their builder",
            );
        }
        let client = &self.client;
        let has_keys = client.cache_keys.is_some() || client.cache_keys_file.is_some();
        let is_missing = !(self.has_redis() && has_keys) && self.mode != AuthMode::Mock;
        if self.revocation_log.is_some() && is_missing {
            fault(
                LOG,
                "is `redis`: set client.redis_url (`P_REDIS_URL`) and client.cache_keys (`P_CACHE_KEYS`), too",
            );
        }
    }

    /// Doubts that reports of the provider should count in one process only, although there is a server to share them.
    pub(super) fn doubt_local_revocations(&self, doubt: &mut dyn FnMut(&str, &str)) {
        let is_local = self.revocation_log.is_none() && !self.has_own_revocations;
        if self.endpoints.backchannel_logout && self.has_redis() && is_local {
            doubt(
                "endpoints.backchannel_logout",
                "counts in the process that gets a report only, although there is a Redis server: set revocation_log = redis (`P_REVOCATION_LOG=redis`)",
            );
        }
    }

    fn has_redis(&self) -> bool {
        self.client.redis_url.is_some() || self.client.redis_url_file.is_some()
    }
}
