//! [`TieredCache`]: a near cache in front of a far one.

use std::time::Duration;

use async_trait::async_trait;

use super::{CacheKey, Fence, TokenCache};
use crate::error::BoxError;
use crate::exchange::{AccessToken, Freshness};

/// A near cache in front of a far one, usually a [`MemoryCache`](super::MemoryCache) in front of a
/// [`RedisCache`](super::RedisCache). The near cache answers most calls. The far cache shares tokens
/// between processes and holds the locks. While the far cache is unavailable, tokens in the near cache
/// are still returned.
///
/// ```
/// use scaikey_auth::exchange::{MemoryCache, TieredCache};
/// use scaikey_auth::{TokenCache, TokenExchangeClient};
///
/// /// `shared` is a `RedisCache`, for example.
/// fn builder(shared: impl TokenCache) -> scaikey_auth::exchange::TokenExchangeBuilder {
///     let cache = TieredCache::new(MemoryCache::default(), shared);
///     TokenExchangeClient::builder("https://scaikey.example").cache(cache)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct TieredCache<N, F> {
    near: N,
    far: F,
}

impl<N, F> TieredCache<N, F> {
    /// Returns a cache that reads `near` first, and copies tokens from `far` to `near`.
    pub fn new(near: N, far: F) -> Self {
        Self { near, far }
    }
}

#[async_trait]
impl<N: TokenCache, F: TokenCache> TokenCache for TieredCache<N, F> {
    fn is_shared(&self) -> bool {
        self.near.is_shared() || self.far.is_shared()
    }

    fn peek(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        self.near.peek(key).or_else(|| self.far.peek(key))
    }

    /// Returns the token in the near cache if it is fresh, otherwise the one in the far cache, and if
    /// there is none, the one in the near cache.
    ///
    /// # Errors
    /// The near cache has no fresh token, and the far cache did not answer.
    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let near = self.near.get(key).await;
        if let Ok(Some(token)) = &near
            && key.freshness(token) == Freshness::Fresh
        {
            return near;
        }
        let Some(token) = self.far.get(key).await? else { return near };
        if let Some(left) = key.remaining_ttl(&token) {
            // If the near cache fails, the next call reads the far cache again.
            let _ = self.near.put(key, &token, left, None).await;
        }
        Ok(Some(token))
    }

    async fn put(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) -> Result<(), BoxError> {
        let near = self.near.put(key, token, ttl, None).await;
        self.far.put(key, token, ttl, fence).await.and(near)
    }

    async fn remove(&self, key: &CacheKey<'_>) -> Result<(), BoxError> {
        let near = self.near.remove(key).await;
        self.far.remove(key).await.and(near)
    }

    async fn lock(
        &self,
        key: &CacheKey<'_>,
        fence: &Fence,
        lifetime: Duration,
    ) -> Result<bool, BoxError> {
        self.far.lock(key, fence, lifetime).await
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        self.far.unlock(key, fence).await
    }
}
