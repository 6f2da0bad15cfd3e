//! [`TieredCache`]: a near cache in front of a far one.

use std::time::Duration;

use async_trait::async_trait;

use super::{CacheKey, Fence, TokenCache};
use crate::error::BoxError;
use crate::exchange::{AccessToken, Freshness};

/// A near cache in front of a far one, as [`MemoryCache`](super::MemoryCache) in front of
/// [`RedisCache`](super::RedisCache): most calls are answered from memory, and a token got by one process is found by
/// the others. While the far one fails, the near one goes on.
#[derive(Debug, Clone)]
pub struct TieredCache<N, F> {
    near: N,
    far: F,
}

impl<N, F> TieredCache<N, F> {
    /// `near` is asked first, and keeps what came from `far`.
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

    /// A fresh token from the near cache, else what the far one has, else what the near one has.
    async fn get(&self, key: &CacheKey<'_>) -> Result<Option<AccessToken>, BoxError> {
        let near = self.near.get(key).await;
        if let Ok(Some(token)) = &near
            && key.freshness(token) == Freshness::Fresh
        {
            return near;
        }
        let Some(token) = self.far.get(key).await? else { return near };
        if let Some(left) = key.remaining_ttl(&token) {
            // It was found, and that counts; the next call may have to go as far again.
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
        life: Duration,
    ) -> Result<bool, BoxError> {
        self.far.lock(key, fence, life).await
    }

    async fn unlock(&self, key: &CacheKey<'_>, fence: &Fence) -> Result<(), BoxError> {
        self.far.unlock(key, fence).await
    }
}
