//! [`JwksSettings`]: the settings for fetching and caching a key set.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The settings for fetching and caching a key set. Every default is suitable for production. In files, the
/// names of durations end in `_seconds`, as in `ttl_seconds`; the values are numbers and may have a
/// fraction.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::IssuerConfig;
/// use scaikey_auth::config::JwksSettings;
///
/// let settings = JwksSettings::default().ttl(Duration::from_secs(60)).max_keys(20);
/// let issuer = IssuerConfig::new("https://scaikey.example").jwks(settings);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[must_use]
#[non_exhaustive]
pub struct JwksSettings {
    /// The age at which a key set is refreshed in the background, if the provider's `Cache-Control` does
    /// not set it. Default 5 min, ±10 % so that replicas spread out. A value from the provider is limited
    /// to 1 min to 1 h. With a shorter TTL, removed keys are noticed sooner, and the provider gets more
    /// requests.
    #[serde(rename = "ttl_seconds", with = "seconds")]
    pub ttl: Duration,
    /// The minimum time between extra fetches. An unknown key id, or a bad signature under a known key id,
    /// causes an extra fetch. Two in a row are allowed. Default 5 s. It is also the time for which valid
    /// tokens are refused if the provider changes its keys while an attacker sends unknown key ids. A
    /// longer time means less load on the provider.
    #[serde(rename = "cooldown_seconds", with = "seconds")]
    pub cooldown: Duration,
    /// The age up to which keys are used while the provider is unavailable. Default 24 h. With a longer
    /// time, the service survives longer outages, and trusts removed keys longer. The TTL cannot be longer
    /// than this.
    #[serde(rename = "max_stale_seconds", with = "seconds")]
    pub max_stale: Duration,
    /// The maximum time that a request waits for keys. Default 2 s. After that it is answered with 503.
    #[serde(rename = "wait_seconds", with = "seconds")]
    pub wait: Duration,
    /// The timeout of one fetch. Connecting may take at most 2 s of it. Default 5 s.
    #[serde(rename = "timeout_seconds", with = "seconds")]
    pub timeout: Duration,
    /// The maximum size of a response, in bytes. Default 256 KiB.
    pub max_bytes: usize,
    /// The maximum number of keys. Default 100. A set with more keys is rejected as a whole.
    pub max_keys: usize,
}

impl Default for JwksSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            cooldown: Duration::from_secs(5),
            max_stale: Duration::from_secs(24 * 3600),
            wait: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
            max_bytes: 256 * 1024,
            max_keys: 100,
        }
    }
}

impl JwksSettings {
    /// Sets [`ttl`](field@Self::ttl).
    pub fn ttl(mut self, age: Duration) -> Self {
        self.ttl = age;
        self
    }

    /// Sets [`cooldown`](field@Self::cooldown).
    pub fn cooldown(mut self, interval: Duration) -> Self {
        self.cooldown = interval;
        self
    }

    /// Sets [`max_stale`](field@Self::max_stale).
    pub fn max_stale(mut self, age: Duration) -> Self {
        self.max_stale = age;
        self
    }

    /// Sets [`wait`](field@Self::wait).
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// Sets [`timeout`](field@Self::timeout).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Sets [`max_bytes`](field@Self::max_bytes).
    pub fn max_bytes(mut self, limit: usize) -> Self {
        self.max_bytes = limit;
        self
    }

    /// Sets [`max_keys`](field@Self::max_keys).
    pub fn max_keys(mut self, limit: usize) -> Self {
        self.max_keys = limit;
        self
    }

    pub(super) fn check(&self, fault: &mut impl FnMut(&str, &str)) {
        let durations = [
            ("jwks.ttl_seconds", self.ttl),
            ("jwks.cooldown_seconds", self.cooldown),
            ("jwks.wait_seconds", self.wait),
            ("jwks.timeout_seconds", self.timeout),
        ];
        for (field, duration) in durations {
            if duration.is_zero() {
                fault(field, "must not be 0");
            }
        }
        if self.max_stale < self.ttl {
            fault(
                "jwks.max_stale_seconds",
                "is shorter than the TTL: keys would expire before they are refreshed",
            );
        }
        for (field, limit) in [("jwks.max_bytes", self.max_bytes), ("jwks.max_keys", self.max_keys)]
        {
            if limit == 0 {
                fault(field, "must not be 0");
            }
        }
    }
}

/// Durations as seconds, fractions allowed.
pub(super) mod seconds {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

/// Optional durations as seconds, fractions allowed.
pub(super) mod optional_seconds {
    use super::*;

    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(to)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(from)?
            .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom))
            .transpose()
    }
}
