//! [`RedisCache`]: tokens in Redis or Valkey, for all processes of a service.

mod commands;
mod line;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{CacheKey, Fence, TokenCache};
use crate::clock::Clock;
use crate::config::ConfigError;
use crate::error::BoxError;
use crate::exchange::AccessToken;
use crate::secret::Secret;
use commands::{Found, MAX_VALUE, names};
use line::{Line, Settings};

/// Tokens in Redis 6 or later, or Valkey: what one process gets, the others find. Usually behind a
/// [`MemoryCache`](super::MemoryCache), in a [`Layered`](super::Layered).
///
/// Nothing connects before the first use. All calls share one connection, and none of them takes
/// longer than the [`budget`](Self::budget), connecting included. After a failure the server is
/// left alone for 0.25 to 5 seconds, longer each time: calls fail at once meanwhile, and one task
/// tries whether it is back. A server counts as back when it takes, keeps and gives back a value;
/// so one that is full, loading or a read-only replica is gone on without, like one that is down.
///
/// Tokens lie there sealed ([`CacheKey::seal`]) under `{prefix}:{tenant}:token:{digest}`, with
/// the braces around the digest, so that a token and its lock are in one slot of a cluster, and
/// with `-` for no tenant. What does not open (garbage, a value moved or changed) is a miss, is
/// counted and deleted. Values of more than 64 KiB are neither kept nor read.
///
/// *Not* protected: what is stored may be deleted or held back by whoever can write there. That
/// costs requests to the provider; it gives nobody a token.
///
/// ```
/// use scaikey_auth::{Layered, MemoryCache, RedisCache};
///
/// let redis = RedisCache::open(&"redis://:password@cache.internal:6379".into())?.prefix("sw");
/// let cache = Layered::new(MemoryCache::default(), redis);
/// # Ok::<(), scaikey_auth::ConfigError>(())
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

    /// How long a call may take, connecting included, before it is gone on without. Default: 50 ms.
    /// It is what a server that hangs costs the calls under way then; those after it wait no more.
    pub fn budget(self, budget: Duration) -> Self {
        self.changed(|settings| settings.budget = budget)
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

    #[cfg(feature = "trust")]
    pub(crate) fn now(&self) -> std::time::SystemTime {
        self.line.settings.clock.now()
    }

    /// Notes that `what` was used, for so long; whether that was the first time, for all processes.
    #[cfg(feature = "trust")]
    pub(crate) async fn note(&self, what: &str, life: Duration) -> Result<bool, BoxError> {
        let name = format!("{}:-:used:{what}", self.line.settings.prefix);
        Ok(self.line.call(|link| commands::note(link, &name, life)).await?)
    }

    /// Forgets what cannot have been put there under this key.
    async fn discard(&self, name: &str) {
        self.line.found_garbage();
        // It is a miss all the same. If it stays, it is met again.
        let _ = self.line.call(|link| commands::remove(link, name)).await;
    }
}

#[async_trait]
impl TokenCache for RedisCache {
    fn is_shared(&self) -> bool {
        true
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let name = self.name(key);
        let found = self.line.call(|link| commands::get(link, &name)).await?;
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
        keep_for: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        let name = self.name(key);
        let sealed = key.seal(token, keep_for).ok_or("the system has no random numbers")?;
        if sealed.len() > MAX_VALUE || keep_for < commands::SHORTEST {
            return Ok(());
        }
        self.line.call(|link| commands::put(link, &name, &sealed, keep_for, fence)).await?;
        Ok(())
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        let name = self.name(key);
        self.line.call(|link| commands::remove(link, &name)).await?;
        Ok(())
    }

    async fn lock(&self, key: &CacheKey<'_>, life: Duration) -> Result<Option<Fence>, BoxError> {
        let (name, fence) = (self.name(key), Fence::random()?);
        let taken = self.line.call(|link| commands::lock(link, &name, &fence, life)).await?;
        Ok(taken.then_some(fence))
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        let name = self.name(key);
        self.line.call(|link| commands::unlock(link, &name, fence)).await?;
        Ok(())
    }
}

/// Without the URL, which holds a password.
impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("prefix", &self.line.settings.prefix)
            .field("budget", &self.line.settings.budget)
            .field("is_connected", &self.line.is_connected())
            .finish_non_exhaustive()
    }
}
