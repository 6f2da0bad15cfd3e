//! [`RedisCache`]: a token cache in Redis or Valkey, shared by all processes of a service.

mod commands;
#[cfg(feature = "endpoints")]
mod entries;
#[cfg(feature = "trust")]
mod list;
mod revocations;
mod server;
mod shared_connection;
mod slots;
mod stream;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{CacheKey, Fence, TokenCache};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::error::BoxError;
use crate::exchange::AccessToken;
use crate::replay::{ReplayKey, ReplayLog};
use crate::support::secret::{Secret, SecretSource};
#[cfg(feature = "endpoints")]
pub(crate) use entries::SharedEntries;
#[cfg(feature = "trust")]
pub(crate) use list::{Part, SharedList};
pub use revocations::RedisRevocations;

use commands::{Entry, MAX_SINGLE_USE_VALUE, MAX_VALUE, escape};
use shared_connection::{CallMode, Settings, SharedConnection};

/// A token cache in Redis 6 or later, or Valkey, shared by all processes of a service (feature `redis`).
///
/// It is usually the far cache of a [`TieredCache`](super::TieredCache), behind a
/// [`MemoryCache`](super::MemoryCache). Pass it to
/// [`TokenExchangeBuilder::cache`](crate::exchange::TokenExchangeBuilder::cache), and pass
/// [`SealingKeys`](crate::exchange::SealingKeys) to
/// [`cache_keys`](crate::exchange::TokenExchangeBuilder::cache_keys): a shared cache needs them.
///
/// The cache connects on the first use, or in [`connect`](Self::connect). All calls share one
/// connection. Two time limits apply:
///
/// * [`budget`](Self::budget) (50 ms) limits calls for exchanged tokens and service tokens, which the
///   provider can issue again.
/// * [`write_timeout`](Self::write_timeout) (2 s) limits connecting, calls under a [single-use
///   key](CacheKey::is_single_use), and the [replay log](ReplayLog).
///
/// After a failure the cache backs off for a random time, at most 0.25 seconds after the first failure
/// and up to 5 seconds after further ones. During the backoff, calls with a budget fail immediately.
/// The other calls try to connect until their time limit ends. After the backoff, the next call starts
/// a background task that probes the server: it locks, writes, reads and deletes a value. So a server
/// that is full, still loading, or a read-only replica counts as unavailable. In a cluster each node
/// has its own backoff.
///
/// Tokens are stored sealed ([`CacheKey::seal`]) under keys such as `scaikey:acme:token:{2bGw…}`:
/// prefix, tenant (`-` if there is none), and digest. The braces around the digest keep a token and its
/// lock in the same cluster slot. A value that cannot be decrypted, because it was copied from another
/// key or changed, is a miss. It is deleted, and counted by the metric
/// `scaikey_auth_token_cache_failures_total`. Values above 64 KiB are neither written nor read. Under a
/// single-use key the limit is 1 MiB, the largest answer of a provider, and a larger value is an error.
///
/// The cache does *not* protect against an attacker with write access, who can delete or withhold
/// entries. That costs requests to the provider, but reveals no token.
///
/// ```
/// use scaikey_auth::exchange::{TieredCache, MemoryCache, RedisCache, SealingKeys};
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::{ConfigError, Secret, TokenExchangeClient};
///
/// /// `keys` is the output of `openssl rand -base64 32`, the same in all processes.
/// fn client(keys: &Secret) -> Result<TokenExchangeClient, ConfigError> {
///     let redis = RedisCache::open(&"redis://:password@cache.internal:6379".into())?;
///     let redis = redis.prefix("scaidrive");
///     TokenExchangeClient::builder("https://scaikey.example")
///         .client_auth(ClientAuth::basic("scaidrive", "secret"))
///         .cache(TieredCache::new(MemoryCache::default(), redis))
///         .cache_keys(SealingKeys::parse(keys)?)
///         .build()
/// }
/// # client(&"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=".into()).unwrap();
/// ```
#[derive(Clone)]
pub struct RedisCache {
    connection: Arc<SharedConnection>,
}

impl RedisCache {
    /// Returns a cache on the server at this URL: `redis://user:password@host:port/database`, or
    /// `rediss://` for TLS. Only the host is required. For a cluster, pass the URLs of several nodes,
    /// separated by commas; the other nodes are discovered. For a cluster with a single address, write
    /// the URL twice. In a password, percent-encode all characters except letters and digits (a comma
    /// is `%2C`).
    ///
    /// Does no I/O, so an unavailable server is not an error here.
    ///
    /// # Errors
    /// A URL is invalid, or the nodes of a cluster differ in password, database or TLS.
    pub fn open(urls: &Secret) -> Result<Self, ConfigError> {
        Settings::new(urls).and_then(Self::from_settings)
    }

    /// Returns a cache as [`open`](Self::open) does, with the URLs in a file. White space at its end is
    /// ignored. The file is read now, and again for each new connection: after a password was replaced, the
    /// next connection uses the new one. While the file cannot be used, connections use its first content,
    /// and a warning is logged.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the file cannot be read or is empty.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Settings::from_file(path.as_ref()).and_then(Self::from_settings)
    }

    pub(crate) fn open_source(urls: &SecretSource) -> Result<Self, ConfigError> {
        match urls {
            SecretSource::Value(urls) => Self::open(urls),
            SecretSource::File(path) => Self::open_file(path),
        }
    }

    /// Sets the prefix of all keys, which separates services that share a server. Default: `scaikey`.
    /// `%`, `{` and `}` are percent-encoded.
    pub fn prefix(self, prefix: &str) -> Self {
        self.with_settings(|settings| settings.prefix = escape(prefix).into_owned())
    }

    /// Limits the time of a call for a token that the provider can issue again. After that, the
    /// exchange continues without the cache. Default: 50 ms. When the server hangs, only the calls in
    /// progress wait this long; later calls fail immediately.
    pub fn budget(self, budget: Duration) -> Self {
        self.with_settings(|settings| settings.budget = budget)
    }

    /// Limits the time to connect, and the time of a call that the caller cannot continue without: for
    /// a refresh token, a code, or the replay log. Default: 2 s. The first calls of a process wait up
    /// to this long for a connection. After a failure, only these calls wait for a connection.
    pub fn write_timeout(self, timeout: Duration) -> Self {
        self.with_settings(|settings| settings.write_timeout = timeout)
    }

    /// Connects now, so that no request waits for the connection. Optional: the first call connects.
    ///
    /// # Errors
    /// The server did not pass the probe within the [`write_timeout`](Self::write_timeout). Later calls
    /// try again.
    pub async fn connect(&self) -> Result<(), BoxError> {
        Ok(self.connection.connect().await?)
    }

    /// Trusts only the certificate authorities in this PEM text, for `rediss://`. Default: the
    /// authorities of the operating system.
    ///
    /// # Errors
    /// `pem` contains no certificate, or a URL does not use TLS.
    pub fn root_certificates(self, pem: &[u8]) -> Result<Self, ConfigError> {
        self.connection.settings.with_roots(pem).and_then(Self::from_settings)
    }

    /// Sets the clock that measures backoffs. Default: the system clock. Time limits always use real
    /// time.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.shared_clock(Arc::new(clock))
    }

    pub(crate) fn shared_clock(self, clock: Arc<dyn Clock>) -> Self {
        self.with_settings(|settings| settings.clock = clock)
    }

    #[expect(clippy::unnecessary_wraps, reason = "ends chains that can fail")]
    fn from_settings(settings: Settings) -> Result<Self, ConfigError> {
        Ok(Self { connection: Arc::new(SharedConnection::new(settings)) })
    }

    fn with_settings(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.connection.settings.clone();
        change(&mut settings);
        Self { connection: Arc::new(SharedConnection::new(settings)) }
    }

    fn redis_key(&self, key: &CacheKey<'_>) -> String {
        let prefix = &self.connection.settings.prefix;
        match key.tenant() {
            Some(tenant) => {
                format!("{prefix}:{}:token:{{{}}}", escape(tenant.as_str()), key.digest())
            }
            None => format!("{prefix}:-:token:{{{}}}", key.digest()),
        }
    }

    /// Records the use of `key` for `lifetime`. Returns whether it is the first use in any process.
    async fn log_use(&self, key: ReplayKey, lifetime: Duration) -> Result<bool, BoxError> {
        let redis_key = format!("{}:-:used:{key}", self.connection.settings.prefix);
        let fence = Fence::random()?;
        let insert =
            |connection| commands::insert_if_absent(connection, &redis_key, &fence, lifetime);
        Ok(self.connection.call(CallMode::Required, &redis_key, insert).await?)
    }

    /// Counts and deletes a value that does not open.
    async fn discard(&self, redis_key: &str) {
        self.connection.note_invalid_entry();
        // If deleting fails, the next call tries again.
        let _ = self
            .connection
            .call(CallMode::BestEffort, redis_key, |connection| {
                commands::remove(connection, redis_key)
            })
            .await;
    }
}

#[async_trait]
impl TokenCache for RedisCache {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let redis_key = self.redis_key(key);
        let get = |connection| commands::get(connection, &redis_key, max_value_bytes(key));
        let found = self.connection.call(call_mode(key), &redis_key, get).await?;
        let token = match found {
            Entry::Missing => return Ok(None),
            Entry::Value(sealed) => key.open(&sealed),
            Entry::Invalid => None,
        };
        match &token {
            Some(_) => self.connection.note_valid_entry(),
            None => self.discard(&redis_key).await,
        }
        Ok(token)
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        let redis_key = self.redis_key(key);
        let sealed =
            key.seal(token, ttl).ok_or("the operating system cannot supply random bytes")?;
        if sealed.len() > max_value_bytes(key) && key.is_single_use() {
            return Err("the token is larger than the cache allows (1 MiB)".into());
        }
        if sealed.len() > max_value_bytes(key) || ttl < commands::MIN_TTL {
            return Ok(());
        }
        let put = |connection| commands::put(connection, &redis_key, &sealed, ttl, fence);
        Ok(self.connection.call(call_mode(key), &redis_key, put).await?)
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        let redis_key = self.redis_key(key);
        Ok(self
            .connection
            .call(call_mode(key), &redis_key, |connection| commands::remove(connection, &redis_key))
            .await?)
    }

    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        lifetime: Duration,
    ) -> Result<bool, BoxError> {
        let redis_key = self.redis_key(key);
        Ok(self
            .connection
            .call(call_mode(key), &redis_key, |connection| {
                commands::lock(connection, &redis_key, fence, lifetime)
            })
            .await?)
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        let redis_key = self.redis_key(key);
        Ok(self
            .connection
            .call(call_mode(key), &redis_key, |connection| {
                commands::unlock(connection, &redis_key, fence)
            })
            .await?)
    }
}

/// A replay log that all processes share: `SET … NX PX` under a digest.
///
/// the token is denied. If the server loses data, tokens can be used again: after a restart without
/// persistence, an eviction, or a failover to a replica that lags behind. Configure persistence and a
/// `maxmemory-policy` of `noeviction`, and issue tokens with a short lifetime.
#[async_trait]
impl ReplayLog for RedisCache {
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError> {
        match until.duration_since(self.connection.settings.clock.now()) {
            Ok(left) if left > MAX_USE_LIFETIME => {
                Err("the token expires more than a year from now".into())
            }
            Ok(left) if !left.is_zero() => self.log_use(key, left + LEEWAY).await,
            // The token has expired.
            _ => Ok(false),
        }
    }
}

/// The time that entries of the replay log outlive their tokens, because the clocks of processes
/// differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// The longest time for which a use is recorded. Trust policies allow at most a week.
const MAX_USE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

fn call_mode(key: &CacheKey<'_>) -> CallMode {
    if key.is_single_use() { CallMode::Required } else { CallMode::BestEffort }
}

fn max_value_bytes(key: &CacheKey<'_>) -> usize {
    if key.is_single_use() { MAX_SINGLE_USE_VALUE } else { MAX_VALUE }
}

/// The output omits the URL, which may contain a password.
impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("prefix", &self.connection.settings.prefix)
            .field("budget", &self.connection.settings.budget)
            .field("write_timeout", &self.connection.settings.write_timeout)
            .field("is_connected", &self.connection.is_connected())
            .finish_non_exhaustive()
    }
}
