//! The exchange of workload tokens and the administration of its policy, from a configuration.

use std::path::Path;

use super::TrustAdmin;
use crate::auth::Auth;
use crate::config::{AuthConfig, ConfigError, EndpointsConfig, Fault, PolicyStoreKind};
use crate::exchange::TokenExchangeClient;
use crate::guard::scope;
use crate::identity::Scopes;
use crate::mint::{ForwardingMinter, WorkloadExchange};
#[cfg(feature = "redis")]
use crate::trust::RedisPolicies;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::trust::SqlPolicies;
use crate::trust::{PolicyError, TrustEvaluator, TrustEvaluatorBuilder};

/// Builds the exchange from a configuration that says where the policy is. The token client of the endpoints
/// forwards the tokens to the provider, which issues the new ones.
pub(super) fn workloads(
    config: &AuthConfig,
    auth: &Auth,
    client: Option<&TokenExchangeClient>,
) -> Result<Option<WorkloadExchange>, ConfigError> {
    let Some(source) = PolicySource::of(&config.endpoints)? else { return Ok(None) };
    let fault = |problem: String| ConfigError::one(Fault::new(source.field(), problem));
    let client = client.ok_or_else(|| {
        let problem = "needs an OAuth client to get tokens: set client.id (`P_CLIENT_ID`)";
        fault(problem.to_owned())
    })?;
    let own = config.issuers.first().and_then(|issuer| config.audience_of(issuer).first());
    let audience = own.ok_or_else(|| {
        fault("needs the audience of this service: set `audience` (`P_AUDIENCE`)".to_owned())
    })?;
    let evaluator = source.open(TrustEvaluator::builder().own_issuers(config), config)?;
    let evaluator = with_replay_log(evaluator, config)?;
    let evaluator = evaluator.build().map_err(|error| fault(unusable(&error)))?;
    let minter = ForwardingMinter::new(client.clone());
    let workloads = WorkloadExchange::new(evaluator, minter, audience);
    Ok(Some(match auth.resource() {
        Some(resource) => workloads.resource(&resource.identifier),
        None => workloads,
    }))
}

/// Describes an unusable policy. The setting is named before it.
fn unusable(error: &PolicyError) -> String {
    error
        .faults()
        .iter()
        .fold("cannot be used:".to_owned(), |text, fault| format!("{text}\n  {fault}"))
}

/// Where a configuration keeps the policy.
enum PolicySource<'a> {
    File(&'a Path),
    Database,
    Redis,
}

impl<'a> PolicySource<'a> {
    /// Returns the source, or `None` if the configuration has no policy.
    fn of(settings: &'a EndpointsConfig) -> Result<Option<Self>, ConfigError> {
        let other = match (settings.trust_store, &settings.trust_file) {
            (None, None) => return Ok(None),
            (None | Some(PolicyStoreKind::File), Some(file)) => return Ok(Some(Self::File(file))),
            (Some(PolicyStoreKind::File), None) => {
                let problem = "is `file`: set trust_file (`P_TRUST_FILE`), too";
                return Err(ConfigError::one(Fault::new(STORE, problem)));
            }
            (Some(PolicyStoreKind::Database), _) => Self::Database,
            (Some(PolicyStoreKind::Redis), _) => Self::Redis,
        };
        match settings.trust_file {
            None => Ok(Some(other)),
            Some(_) => {
                let problem = "is not read, because trust_store (`P_TRUST_STORE`) keeps the policy elsewhere: \
                               remove it, and store its policy with `PUT /v1/auth/trusts`";
                Err(ConfigError::one(Fault::new(FILE, problem)))
            }
        }
    }

    /// Returns the setting that faults name.
    fn field(&self) -> &'static str {
        match self {
            Self::File(_) => FILE,
            Self::Database | Self::Redis => STORE,
        }
    }

    fn open(
        &self,
        evaluator: TrustEvaluatorBuilder,
        config: &AuthConfig,
    ) -> Result<TrustEvaluatorBuilder, ConfigError> {
        match self {
            Self::File(file) => Ok(evaluator.file(*file)),
            Self::Database => in_database(evaluator, config),
            Self::Redis => in_redis(evaluator, config),
        }
    }
}

const FILE: &str = "endpoints.trust_file";
const STORE: &str = "endpoints.trust_store";

#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn in_database(
    evaluator: TrustEvaluatorBuilder,
    config: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    let url = config.database().map_err(ConfigError::one)?.ok_or_else(|| {
        let problem = "is `database`: set database_url (`P_DATABASE_URL`), too";
        ConfigError::one(Fault::new(STORE, problem))
    })?;
    let policies = SqlPolicies::connect_lazy(&url).map_err(|error| {
        ConfigError::one(Fault::new("database_url", format!("cannot be used: {error}")))
    })?;
    Ok(evaluator.store(policies))
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
fn in_database(
    _: TrustEvaluatorBuilder,
    _: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    let problem = "needs the cargo feature `sqlite` or `postgres` of scaikey-auth";
    Err(ConfigError::one(Fault::new(STORE, problem)))
}

#[cfg(feature = "redis")]
fn in_redis(
    evaluator: TrustEvaluatorBuilder,
    config: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    let urls = config.client.redis_urls().map_err(ConfigError::one)?;
    let keys = config.client.sealing_keys().map_err(ConfigError::one)?;
    let (urls, keys) = urls.zip(keys).ok_or_else(|| {
        let problem = "is `redis`: set client.redis_url (`P_REDIS_URL`) and client.cache_keys (`P_CACHE_KEYS`), too";
        ConfigError::one(Fault::new(STORE, problem))
    })?;
    let cache = crate::exchange::RedisCache::open_source(&urls)?;
    Ok(evaluator.store(RedisPolicies::new(&cache, keys)))
}

#[cfg(not(feature = "redis"))]
fn in_redis(
    _: TrustEvaluatorBuilder,
    _: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    let problem = "needs the cargo feature `redis` of scaikey-auth";
    Err(ConfigError::one(Fault::new(STORE, problem)))
}

/// Sets the replay log: processes that share a token cache in Redis also share it.
#[cfg(feature = "redis")]
fn with_replay_log(
    evaluator: TrustEvaluatorBuilder,
    config: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    let urls = config.client.redis_urls().map_err(ConfigError::one)?;
    Ok(match &urls {
        Some(urls) => evaluator.replay_log(crate::exchange::RedisCache::open_source(urls)?),
        None => evaluator,
    })
}

/// Sets no replay log: without the feature `redis`, the token client already reports the URL as a
/// fault.
#[cfg(not(feature = "redis"))]
#[expect(clippy::unnecessary_wraps, reason = "fails with the feature `redis`")]
fn with_replay_log(
    evaluator: TrustEvaluatorBuilder,
    _: &AuthConfig,
) -> Result<TrustEvaluatorBuilder, ConfigError> {
    Ok(evaluator)
}

/// Builds the administration for callers with the configured scopes, if there are any.
pub(super) fn trust_admin(settings: &EndpointsConfig) -> Result<Option<TrustAdmin>, ConfigError> {
    let fault = |problem| Err(ConfigError::one(Fault::new(TENANT_ADMIN, problem)));
    let admin = |owners: &Scopes| TrustAdmin::new(scope(owners.as_str()));
    match (&settings.trust_admin_scope, &settings.trust_tenant_admin_scope) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            fault("has no effect alone: set trust_admin_scope (`P_TRUST_ADMIN_SCOPE`), too")
        }
        (Some(owners), None) => Ok(Some(admin(owners))),
        (Some(owners), Some(tenants)) if tenants.contains_all(owners) => fault(
            "would make these callers administrators of the whole policy: set other scopes than those in trust_admin_scope (`P_TRUST_ADMIN_SCOPE`)",
        ),
        (Some(owners), Some(tenants)) => {
            Ok(Some(admin(owners).tenant_guard(scope(tenants.as_str()))))
        }
    }
}

const TENANT_ADMIN: &str = "endpoints.trust_tenant_admin_scope";
