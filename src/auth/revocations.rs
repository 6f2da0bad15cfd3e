//! Revocations from a configuration.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{AuthConfig, AuthMode, ConfigError, RevocationLogKind};
#[cfg(feature = "redis")]
use crate::exchange::{RedisCache, RedisRevocations};
use crate::revocation::{Revocations, RevocationsBuilder};

/// Builds the revocations of a configuration. In mock mode they are in memory: it runs without servers.
pub(super) fn configured(
    config: &AuthConfig,
    clock: &Arc<dyn Clock>,
) -> Result<Revocations, ConfigError> {
    let builder = Revocations::builder().shared_clock(clock.clone());
    let log = config.revocation_log.filter(|_| config.mode != AuthMode::Mock);
    let builder = match log {
        None => builder,
        Some(RevocationLogKind::Redis) => in_redis(builder, config, clock)?,
    };
    let limit = config.revocation_refuse_after.filter(|_| log.is_some());
    Ok(limit.into_iter().fold(builder, RevocationsBuilder::refuse_after).build())
}

/// Sets the log. If the URL or the keys are missing, the check of the configuration reports that.
#[cfg(feature = "redis")]
fn in_redis(
    builder: RevocationsBuilder,
    config: &AuthConfig,
    clock: &Arc<dyn Clock>,
) -> Result<RevocationsBuilder, ConfigError> {
    let urls = config.client.redis_urls().map_err(ConfigError::one)?;
    let keys = config.client.sealing_keys().map_err(ConfigError::one)?;
    let Some((urls, keys)) = urls.zip(keys) else { return Ok(builder) };
    let redis = RedisCache::open_source(&urls)?.shared_clock(clock.clone());
    Ok(builder.log(RedisRevocations::new(&redis, keys)))
}

#[cfg(not(feature = "redis"))]
fn in_redis(
    _: RevocationsBuilder,
    _: &AuthConfig,
    _: &Arc<dyn Clock>,
) -> Result<RevocationsBuilder, ConfigError> {
    let problem = "needs the cargo feature `redis` of scaikey-auth";
    Err(ConfigError::one(crate::config::Fault::new("revocation_log", problem)))
}
