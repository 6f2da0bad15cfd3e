//! [`RedisCache`]: tokens in Redis or Valkey, for all processes of a service.

mod commands;
mod line;
mod server;
mod slots;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{CacheKey, Fence, TokenCache};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::error::BoxError;
use crate::exchange::AccessToken;
use crate::replay::{ReplayKey, ReplayLog};
use crate::support::secret::Secret;
use commands::{Found, MAX_SINGLE_USE_VALUE, MAX_VALUE, names};
use line::{Line, Need, Settings};

/// Tokens in Redis 6 or later, or Valkey (feature `redis`): what one process gets, the others find.
///
/// Usually behind a [`MemoryCache`](super::MemoryCache), in a [`TieredCache`](super::TieredCache). Given to
/// [`TokenExchangeBuilder::cache`](crate::exchange::TokenExchangeBuilder::cache), together with the
/// [`SealingKeys`](crate::exchange::SealingKeys) for
/// [`cache_keys`](crate::exchange::TokenExchangeBuilder::cache_keys), which a shared cache needs.
///
/// Nothing connects before the first use, or [`connect`](Self::connect). All calls share one
/// connection. Calls for tokens that can be got again take no longer than the
/// [`budget`](Self::budget). Calls for what can be spent once only
/// ([`CacheKey::is_single_use`]) and for the [log of what was used](ReplayLog) take as long as the
/// [`write_timeout`](Self::write_timeout), and so does connecting.
///
/// After a failure the server is left alone for 0.25 to 5 seconds, longer each time: calls for
/// tokens that can be got again fail immediately meanwhile, and one task tries whether it is back;
/// the others wait for it. A server counts as back when it takes, keeps and gives back a value; so
/// one that is full, loading or a read-only replica is gone on without, like one that is down. Of a
/// cluster each node is left alone for itself: the keys of the others go on.
///
/// Tokens lie there sealed ([`CacheKey::seal`]) under `{prefix}:{tenant}:token:{digest}`, with
/// the braces around the digest, so that a token and its lock are in one slot of a cluster, and
/// with `-` for no tenant. What does not open (garbage, a value moved or changed) is a miss, is
/// counted and deleted. Values of more than 64 KiB are neither kept nor read; what was got for a
/// refresh token or a code may have as much as a provider may send, 1 MiB.
///
/// *Not* protected: what is stored may be deleted or held back by whoever can write there. That
/// costs requests to the provider; it gives nobody a token.
///
/// ```
/// use scaikey_auth::exchange::{TieredCache, MemoryCache, RedisCache, SealingKeys};
/// use scaikey_auth::issuer::ClientAuth;
/// use scaikey_auth::{ConfigError, Secret, TokenExchangeClient};
///
/// /// `keys`: made by `openssl rand -base64 32`, the same in all processes.
/// fn client(keys: &Secret) -> Result<TokenExchangeClient, ConfigError> {
///     let redis = RedisCache::open(&"redis://:password@cache.internal:6379".into())?.prefix("sw");
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
    line: Arc<Line>,
}

impl RedisCache {
    /// The server at this URL: `redis://user:password@host:port/database`, or `rediss://` for TLS,
    /// where only the host is needed. Several URLs, with a comma between them, are nodes of one
    /// cluster, which tell of the others; a cluster with only one address is written twice. What
    /// is no letter or digit in a password is percent-encoded, a comma as `%2C`.
    ///
    /// Does no I/O: a server that is away is noticed when it is needed.
    ///
    /// # Errors
    /// When one is not such a URL, or the nodes of a cluster differ in password, database or TLS.
    pub fn open(urls: &Secret) -> Result<Self, ConfigError> {
        Settings::new(urls).and_then(Self::of)
    }

    /// What all keys begin with. Default: `scaikey`.
    pub fn prefix(self, prefix: &str) -> Self {
        self.changed(|settings| settings.prefix = names(prefix).into_owned())
    }

    /// How long a call for a token that can be got again may take before it is gone on without.
    /// Default: 50 ms. It is what a server that hangs costs the calls under way then; those after
    /// it wait no more.
    pub fn budget(self, budget: Duration) -> Self {
        self.changed(|settings| settings.budget = budget)
    }

    /// How long connecting may take, and a call that must have an answer: for a refresh token or a
    /// code, or to note that a workload token was used. Default: 2 s. The first calls of a process
    /// wait so long for their connection; once the server has failed, only those wait that must
    /// have an answer.
    pub fn write_timeout(self, timeout: Duration) -> Self {
        self.changed(|settings| settings.write_timeout = timeout)
    }

    /// Connects now, so that no request waits for it. Not needed: the first call connects.
    ///
    /// # Errors
    /// When the server is not there within the [`write_timeout`](Self::write_timeout), or does not
    /// keep what it is given. Later calls try again.
    pub async fn connect(&self) -> Result<(), BoxError> {
        Ok(self.line.connect().await?)
    }

    /// Trusts the authorities in this PEM text and no others, for `rediss://`. Default: those the
    /// operating system trusts.
    ///
    /// # Errors
    /// When it holds no certificate, or a URL is not `rediss://`.
    pub fn root_certificates(self, pem: &[u8]) -> Result<Self, ConfigError> {
        self.line.settings.trusting(pem).and_then(Self::of)
    }

    /// What measures how long the server is left alone. Default: the system. Deadlines are always
    /// measured in real time.
    pub fn clock(self, clock: impl Clock) -> Self {
        self.changed(|settings| settings.clock = Arc::new(clock))
    }

    #[expect(clippy::unnecessary_wraps, reason = "ends chains that can fail")]
    fn of(settings: Settings) -> Result<Self, ConfigError> {
        Ok(Self { line: Arc::new(Line::new(settings)) })
    }

    fn changed(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.line.settings.clone();
        change(&mut settings);
        Self { line: Arc::new(Line::new(settings)) }
    }

    /// What this is filed under.
    fn name(&self, key: &CacheKey<'_>) -> String {
        let prefix = &self.line.settings.prefix;
        match key.tenant() {
            Some(tenant) => {
                format!("{prefix}:{}:token:{{{}}}", names(tenant.as_str()), key.digest())
            }
            None => format!("{prefix}:-:token:{{{}}}", key.digest()),
        }
    }

    /// Notes the use of `key` for so long, and returns whether it is the first, for all processes.
    async fn note(&self, key: ReplayKey, life: Duration) -> Result<bool, BoxError> {
        let name = format!("{}:-:used:{key}", self.line.settings.prefix);
        let fence = Fence::random()?;
        let note = |link| commands::note(link, &name, &fence, life);
        Ok(self.line.call(Need::Certainty, &name, note).await?)
    }

    /// Forgets what cannot have been put there under this key.
    async fn discard(&self, name: &str) {
        self.line.found_garbage();
        // It is a miss all the same. If it stays, it is met again.
        let _ = self.line.call(Need::Speed, name, |link| commands::remove(link, name)).await;
    }
}

#[async_trait]
impl TokenCache for RedisCache {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let name = self.name(key);
        let get = |link| commands::get(link, &name, longest(key));
        let found = self.line.call(need(key), &name, get).await?;
        let token = match found {
            Found::Nothing => return Ok(None),
            Found::Value(sealed) => key.open(&sealed),
            Found::Garbage => None,
        };
        match &token {
            Some(_) => self.line.found_token(),
            None => self.discard(&name).await,
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
        let name = self.name(key);
        let sealed = key.seal(token, ttl).ok_or("the system has no random numbers")?;
        if sealed.len() > longest(key) && key.is_single_use() {
            return Err("what was got is too large to be kept".into());
        }
        if sealed.len() > longest(key) || ttl < commands::SHORTEST {
            return Ok(());
        }
        let put = |link| commands::put(link, &name, &sealed, ttl, fence);
        Ok(self.line.call(need(key), &name, put).await?)
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        let name = self.name(key);
        Ok(self.line.call(need(key), &name, |link| commands::remove(link, &name)).await?)
    }

    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        life: Duration,
    ) -> Result<bool, BoxError> {
        let name = self.name(key);
        Ok(self
            .line
            .call(need(key), &name, |link| commands::lock(link, &name, fence, life))
            .await?)
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        let name = self.name(key);
        Ok(self.line.call(need(key), &name, |link| commands::unlock(link, &name, fence)).await?)
    }
}

/// A log that all processes share: `SET … NX PX` under a digest, beside the tokens, or in another
/// server.
///
/// A server that is away, or does not answer within the
/// [`write_timeout`](RedisCache::write_timeout), denies. One that loses what it was told lets tokens be
/// used again: because it restarts empty, evicts, or hands over to a replica that had not heard yet.
/// Give it persistence and a `maxmemory-policy` of `noeviction`, and tokens a short life.
#[async_trait]
impl ReplayLog for RedisCache {
    async fn first_use(&self, key: ReplayKey, until: SystemTime) -> Result<bool, BoxError> {
        match until.duration_since(self.line.settings.clock.now()) {
            Ok(left) if left > LONGEST_USE => {
                Err("the token is to be remembered for too long".into())
            }
            Ok(left) if !left.is_zero() => self.note(key, left + LEEWAY).await,
            // It is over: nobody may use it.
            _ => Ok(false),
        }
    }
}

/// Clocks of servers differ; what is remembered a little longer does no harm.
const LEEWAY: Duration = Duration::from_secs(60);

/// What is kept in Redis is kept for a year at most. Policies do with a week.
const LONGEST_USE: Duration = Duration::from_secs(365 * 24 * 3600);

fn need(key: &CacheKey<'_>) -> Need {
    if key.is_single_use() { Need::Certainty } else { Need::Speed }
}

/// How many bytes may lie under this key.
fn longest(key: &CacheKey<'_>) -> usize {
    if key.is_single_use() { MAX_SINGLE_USE_VALUE } else { MAX_VALUE }
}

/// Without the URL, which holds a password.
impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("prefix", &self.line.settings.prefix)
            .field("budget", &self.line.settings.budget)
            .field("write_timeout", &self.line.settings.write_timeout)
            .field("is_connected", &self.line.is_connected())
            .finish_non_exhaustive()
    }
}
