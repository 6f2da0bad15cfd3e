//! [`TokenCache`]: the trait for caches of tokens, and its implementations.

mod key;
mod memory;
#[cfg(feature = "redis")]
mod redis;
mod tiered;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::AccessToken;
use crate::error::BoxError;
use crate::support::crypto;

pub use key::CacheKey;
pub(crate) use key::ClientFingerprint;
pub use memory::MemoryCache;
#[cfg(all(feature = "redis", feature = "endpoints"))]
pub(crate) use redis::SharedEntries;
#[cfg(all(feature = "redis", feature = "trust"))]
pub(crate) use redis::{Part, SharedList};
#[cfg(feature = "redis")]
pub use redis::{RedisCache, RedisRevocations};
pub use tiered::TieredCache;

/// A cache for tokens.
///
/// [`MemoryCache`] stores tokens in this process, [`RedisCache`] (feature `redis`) stores them for all
/// processes, and [`TieredCache`] combines both. To implement another cache, store the output of
/// [`CacheKey::seal`] under [`CacheKey::digest`], and pass the stored value to [`CacheKey::open`].
/// [`testing::conformance::token_cache`](crate::testing::conformance::token_cache) (feature `testing`)
/// tests an implementation.
///
/// Under a [single-use key](CacheKey::is_single_use) the client repeats calls that failed, with the
/// same fence.
///
/// Harmless mistakes:
///
/// * The cache loses a token early.
/// * A call fails. The client then requests a token from the provider, or retries under a single-use key.
/// * [`get`](Self::get) returns the value of another key, or a changed value: `open` detects it.
///
/// Mistakes that let an attacker in:
///
/// * The cache stores an unsealed [`AccessToken`] outside of the process.
/// * [`lock`](Self::lock) returns true although another caller holds the lock, or `get` returns `None`
///   instead of an error under a single-use key although the store did not answer. A refresh token may
///   then be used twice.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
/// use scaikey_auth::TokenCache;
/// use scaikey_auth::error::BoxError;
/// use scaikey_auth::exchange::{AccessToken, CacheKey, Fence};
///
/// /// A cache that counts the tokens that the inner cache did not have.
/// #[derive(Debug)]
/// struct Counted<C> {
///     inner: C,
///     misses: AtomicU64,
/// }
///
/// #[async_trait::async_trait]
/// impl<C: TokenCache> TokenCache for Counted<C> {
///     fn is_shared(&self) -> bool {
///         self.inner.is_shared()
///     }
///
///     async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
///         let found = self.inner.get(key).await?;
///         self.misses.fetch_add(u64::from(found.is_none()), Ordering::Relaxed);
///         Ok(found)
///     }
///
///     async fn put(
///         &self,
///         key: &CacheKey<'_>,
///         token: &AccessToken,
///         ttl: Duration,
///         fence: Option<&Fence>,
///     ) -> Result<(), BoxError> {
///         self.inner.put(key, token, ttl, fence).await
///     }
///
///     async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
///         self.inner.remove(key).await
///     }
///
///     async fn lock(
///         &self,
///         key: &CacheKey<'_>,
///         fence: &Fence,
///         lifetime: Duration,
///     ) -> Result<bool, BoxError> {
///         self.inner.lock(key, fence, lifetime).await
///     }
///
///     async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
///         self.inner.unlock(key, fence).await
///     }
/// }
/// ```
#[async_trait]
pub trait TokenCache: Debug + Send + Sync + 'static {
    /// Returns whether other processes use the same store. If they do, the client takes locks and needs
    /// [`SealingKeys`](crate::exchange::SealingKeys).
    fn is_shared(&self) -> bool;

    /// Returns the token in the memory of this process, without waiting. The default returns `None`.
    fn peek(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        let _ = key;
        None
    }

    /// Returns the stored token. It may have expired: the caller checks.
    ///
    /// # Errors
    /// The store did not answer.
    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError>;

    /// Stores a token for at most `ttl`. Without a fence, the token replaces the stored one. With a
    /// fence, it is stored only if the fence holds the lock, or if the lock is free and no token is
    /// stored. A lock becomes free when it is released, expires, is evicted, or is lost with a server.
    ///
    /// # Errors
    /// The token may not have been stored. A fence that does not hold the lock is not an error.
    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError>;

    /// Removes the stored token.
    ///
    /// # Errors
    /// The token may still be stored.
    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError>;

    /// Takes the lock of this key for `lifetime`. Returns false if another fence holds it. The same
    /// fence may take the lock again, because the first answer may have been lost; this starts a new
    /// `lifetime`. A cache that is not shared returns true, because one process sends each request only
    /// once anyway.
    ///
    /// # Errors
    /// It is unknown whether the lock is held. The caller then calls [`unlock`](Self::unlock) with the
    /// same fence.
    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        lifetime: Duration,
    ) -> Result<bool, BoxError>;

    /// Releases the lock, if this fence holds it.
    ///
    /// # Errors
    /// The lock may still be held, until it expires.
    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError>;
}

/// A random value that identifies one holder of a lock (128 bits).
///
/// ```
/// use std::collections::HashMap;
/// use scaikey_auth::exchange::Fence;
///
/// /// The locks of a store, each with its holder.
/// fn lock(holders: &mut HashMap<String, String>, name: &str, fence: &Fence) -> bool {
///     let holder = holders.entry(name.to_owned()).or_insert_with(|| fence.as_str().to_owned());
///     holder == fence.as_str()
/// }
///
/// # fn main() -> Result<(), scaikey_auth::error::BoxError> {
/// let (mut holders, mine, other) = (HashMap::new(), Fence::random()?, Fence::random()?);
/// assert!(lock(&mut holders, "a", &mine) && lock(&mut holders, "a", &mine));
/// assert!(!lock(&mut holders, "a", &other));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence(String);

impl Fence {
    /// Returns a new random fence.
    ///
    /// # Errors
    /// The operating system cannot supply random bytes.
    pub fn random() -> Result<Self, BoxError> {
        Ok(Self(crypto::random_id()?))
    }

    /// Returns the fence as 22 characters, to be stored as the value of the lock.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[async_trait]
impl<C: TokenCache + ?Sized> TokenCache for Arc<C> {
    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn peek(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        (**self).peek(key)
    }

    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        (**self).get(key).await
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        (**self).put(key, token, ttl, fence).await
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        (**self).remove(key).await
    }

    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        lifetime: Duration,
    ) -> Result<bool, BoxError> {
        (**self).lock(key, fence, lifetime).await
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        (**self).unlock(key, fence).await
    }
}
