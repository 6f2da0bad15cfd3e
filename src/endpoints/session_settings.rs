//! Browser sessions from a configuration.

use crate::auth::Auth;
use crate::config::{AuthConfig, ConfigError, Fault, SessionStoreKind};
use crate::exchange::TokenExchangeClient;
#[cfg(feature = "redis")]
use crate::session::RedisSessions;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::session::SqlSessions;
use crate::session::{MemorySessions, Sessions, SessionsBuilder};

const STORE: &str = "endpoints.session_store";

/// Builds the sessions, if the configuration has keys for them.
pub(super) fn sessions(
    config: &AuthConfig,
    auth: &Auth,
    client: &TokenExchangeClient,
    cookie_name: Option<&str>,
) -> Result<Option<Sessions>, ConfigError> {
    let settings = &config.endpoints;
    let Some(keys) = settings.sealing_keys().map_err(ConfigError::one)? else { return Ok(None) };
    let mut sessions = Sessions::builder(auth, client.clone(), keys);
    if let Some(name) = cookie_name {
        sessions = sessions.cookie_name(name);
    }
    if let Some(uri) = &settings.post_logout_redirect_uri {
        sessions = sessions.end_at_provider(uri);
    }
    if let Some(idle) = settings.session_idle {
        sessions = sessions.idle(idle);
    }
    sessions = match settings.session_store {
        None => sessions,
        Some(SessionStoreKind::Memory) => sessions.store(MemorySessions::new()),
        Some(SessionStoreKind::Database) => in_database(sessions, config)?,
        Some(SessionStoreKind::Redis) => in_redis(sessions, config)?,
    };
    sessions.identity_from(settings.session_identity).build().map(Some)
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn in_database(
    sessions: SessionsBuilder,
    config: &AuthConfig,
) -> Result<SessionsBuilder, ConfigError> {
    let url = config.database().map_err(ConfigError::one)?.ok_or_else(|| {
        let problem = "is `database`: set database_url (`P_DATABASE_URL`), too";
        ConfigError::one(Fault::new(STORE, problem))
    })?;
    let store = SqlSessions::connect_lazy(&url).map_err(|error| {
        ConfigError::one(Fault::new("database_url", format!("cannot be used: {error}")))
    })?;
    Ok(sessions.store(store))
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn in_database(_: SessionsBuilder, _: &AuthConfig) -> Result<SessionsBuilder, ConfigError> {
    let problem = "needs the cargo feature `sqlite` or `postgres` of scaikey-auth";
    Err(ConfigError::one(Fault::new(STORE, problem)))
}

#[cfg(feature = "redis")]
fn in_redis(
    sessions: SessionsBuilder,
    config: &AuthConfig,
) -> Result<SessionsBuilder, ConfigError> {
    let urls = config.client.redis_urls().map_err(ConfigError::one)?.ok_or_else(|| {
        let problem = "is `redis`: set client.redis_url (`P_REDIS_URL`), too";
        ConfigError::one(Fault::new(STORE, problem))
    })?;
    let redis = crate::exchange::RedisCache::open_source(&urls)?;
    Ok(sessions.store(RedisSessions::new(&redis)))
}

#[cfg(not(feature = "redis"))]
fn in_redis(_: SessionsBuilder, _: &AuthConfig) -> Result<SessionsBuilder, ConfigError> {
    let problem = "needs the cargo feature `redis` of scaikey-auth";
    Err(ConfigError::one(Fault::new(STORE, problem)))
}
