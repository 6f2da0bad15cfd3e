//! [`TokenCache`]: where tokens are kept until they are due.

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
#[cfg(feature = "redis")]
pub use redis::RedisCache;
pub use tiered::TieredCache;

/// Keeps tokens between calls.
///
/// [`MemoryCache`] keeps them in this process, [`RedisCache`] (feature `redis`) where other
/// processes find them, [`TieredCache`] does both. To keep them elsewhere, implement this: store what
/// [`CacheKey::seal`] gives under [`CacheKey::digest`], and hand what was read to
/// [`CacheKey::open`]. [`testing::conformance::token_cache`](crate::testing::conformance::token_cache)
/// (feature `testing`) examines an implementation.
///
/// Calls may come at any time and again: one that gives no answer is repeated where that matters
/// ([`CacheKey::is_single_use`]), with the same fence.
///
/// Harmless mistakes: to forget a token early; to fail, which counts as not having it for tokens
/// that can be got again, and as "ask again" for those that cannot; to give back what was put under
/// another key or has since been tampered with, which `open` notices. Attacks: to keep an
/// [`AccessToken`] itself anywhere but in this process's memory; to say that a lock was taken that
/// another caller holds, or that there is nothing under a single-use key when the store did not
/// say so: a refresh token is spent twice then.
#[async_trait]
pub trait TokenCache: Debug + Send + Sync + 'static {
    /// Whether other processes see what is put here. Only then are [`SealingKeys`](crate::exchange::SealingKeys) needed and locks
    /// taken.
    fn is_shared(&self) -> bool;

    /// What is kept in this process's memory, without waiting. The default keeps nothing there.
    fn peek(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        let _ = key;
        None
    }

    /// What is kept. It may be about to expire: the caller looks.
    ///
    /// # Errors
    /// When it cannot be told right now.
    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError>;

    /// Keeps a token, for `ttl` at most. With a fence: not while a caller with another fence
    /// holds the lock, which may know better. A lock that nobody holds (it ended, was evicted, or
    /// was lost with a server) fences nobody off; then the token is kept if nothing else is.
    ///
    /// # Errors
    /// When it could not be kept, as far as one can tell. A fence that does not hold is no error.
    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError>;

    /// Forgets what is kept.
    ///
    /// # Errors
    /// When it may still be there.
    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError>;

    /// Takes the lock of this key, unless a caller with another fence holds it: whether it was
    /// taken. It ends by itself after `life`. The same fence takes it again, for another `life`:
    /// the first answer may have been lost. A cache that is not shared grants every lock: one
    /// process asks once anyway.
    ///
    /// # Errors
    /// When it cannot be told whether it was taken. The caller gives it back by its fence.
    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        life: Duration,
    ) -> Result<bool, BoxError>;

    /// Gives the lock back, if it is held with this fence.
    ///
    /// # Errors
    /// When that could not be done; it will end by itself.
    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError>;
}

/// Tells one holder of a lock from every other, for ever: 128 random bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence(String);

impl Fence {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, BoxError> {
        Ok(Self(crypto::random_id()?))
    }

    /// 22 characters, to be stored with the lock.
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
        life: Duration,
    ) -> Result<bool, BoxError> {
        (**self).lock(key, fence, life).await
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        (**self).unlock(key, fence).await
    }
}
