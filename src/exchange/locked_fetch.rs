//! [`LockedFetch`]: one request to the provider, while holding a lock in the shared cache.

use std::time::Duration;

use super::cache::{CacheKey, Fence};
use super::cached::{CachedExchange, NO_SEALING_KEYS, TokenResult};
use super::error::CacheUnavailable;
use super::request::TokenRequest;
use super::{AccessToken, CacheStatus, ExchangeError, Freshness};
use crate::clock::{jittered, sleep, with_timeout};

/// The minimum time that a lock is held beyond the longest request: for the lookup before it and the
/// write after it.
pub(super) const LOCK_RESERVE: Duration = Duration::from_secs(4);

/// The time that a caller waits for the locks to be released. After that, a background task releases
/// them.
const UNLOCK_WAIT: Duration = Duration::from_millis(250);

/// The time for which a successor, the token obtained with a refresh token or code, is cached for
/// further requests with the same credential.
pub(super) const SUCCESSOR_TTL: Duration = Duration::from_secs(60);

/// The mean delay between two attempts to take the locks.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The mean delay between two attempts to write to a cache that failed.
const WRITE_RETRY: Duration = Duration::from_millis(250);

/// The `retry_after` of the error that is returned while the shared cache is unavailable or another
/// process holds the lock.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The outcome of an attempt to take the locks.
enum LockOutcome {
    /// Another process got a token meanwhile.
    Found(AccessToken),
    /// This process holds the locks.
    Acquired,
    /// The cache does not answer.
    CacheUnavailable,
    /// Another process holds a lock.
    HeldElsewhere,
}

/// One fetch: takes the locks, looks the token up, requests it, writes it, and releases the locks.
pub(super) struct LockedFetch<'r> {
    exchange: &'r CachedExchange,
    rejected: Option<&'r AccessToken>,
    /// The key for lookups.
    key: CacheKey<'r>,
    /// One lock for each sealing key, sorted by digest: all processes lock in the same order, so they
    /// cannot deadlock.
    locks: Vec<Lock<'r>>,
    /// The token that could not be written to the cache yet.
    unwritten: Option<AccessToken>,
}

/// A lock, and the fence that releases it even if the answer to the `lock` call was lost.
struct Lock<'r> {
    key: CacheKey<'r>,
    fence: Fence,
    may_be_held: bool,
}

impl<'r> LockedFetch<'r> {
    pub(super) fn new(
        exchange: &'r CachedExchange,
        request: &'r TokenRequest<'r>,
        rejected: Option<&'r AccessToken>,
    ) -> Result<Self, ExchangeError> {
        // Read once, so that the key for lookups is among the locked ones while the sealing keys change.
        let sealing_keys = exchange.sealing_keys();
        let key = exchange.key_under(request, sealing_keys.first().ok_or(NO_SEALING_KEYS)?);
        let lock = |sealing_key| {
            let key = exchange.key_under(request, sealing_key);
            Some(Lock { key, fence: Fence::random().ok()?, may_be_held: false })
        };
        let locks: Option<Vec<_>> = sealing_keys.iter().map(lock).collect();
        let mut locks = locks.ok_or(ExchangeError::NotConfigured(
            "the operating system cannot supply random bytes",
        ))?;
        locks.sort_unstable_by(|one, other| one.key.digest().cmp(other.key.digest()));
        Ok(Self { exchange, rejected, key, locks, unwritten: None })
    }

    /// Returns a fresh token: from the cache if another caller or process has just obtained one,
    /// otherwise from the provider. Waits up to `lock_timeout` for a cache that does not answer.
    pub(super) async fn run(&mut self, lock_timeout: Duration) -> TokenResult {
        if let Some(token) = self.exchange.peek(&self.key)
            && self.is_fresh(&token)
        {
            return Ok(token.with_status(CacheStatus::Collapsed));
        }
        let result = match self.wait_for_locks(lock_timeout).await {
            LockOutcome::Found(token) => Ok(token.with_status(CacheStatus::Collapsed)),
            LockOutcome::CacheUnavailable if self.key.is_single_use() => {
                return Err(ExchangeError::cache_unavailable(RETRY_AFTER));
            }
            LockOutcome::HeldElsewhere if self.key.request().has_single_use_credential() => {
                let problem = "another process is using this refresh token or code; retry later";
                return Err(ExchangeError::unavailable(Some(RETRY_AFTER), problem));
            }
            outcome => self.fetch(matches!(outcome, LockOutcome::Acquired)).await,
        };
        // The locks are held until the token is written: otherwise another process would use the
        // credential again.
        if self.unwritten.is_none() {
            with_timeout(UNLOCK_WAIT, self.unlock()).await;
        }
        result
    }

    /// Requests a token from the provider and writes it under every key. If `is_fenced`, the cache
    /// ignores the write when another process holds the lock.
    async fn fetch(&mut self, is_fenced: bool) -> TokenResult {
        let token = self.exchange.fetch(&self.key).await?;
        let is_successor = self.key.request().has_single_use_credential();
        let ttl = if is_successor { Some(SUCCESSOR_TTL) } else { token.cacheable_for() };
        if let Some(ttl) = ttl {
            if is_successor {
                self.exchange.insert_successor(&self.key, &token).await;
            }
            let is_written = self.write(&token, ttl, is_fenced).await;
            if !is_written && self.key.is_single_use() {
                self.unwritten = Some(token.clone());
            }
        }
        Ok(token)
    }

    fn is_fresh(&self, token: &AccessToken) -> bool {
        self.exchange.freshness(&self.key, token, self.rejected) == Freshness::Fresh
    }

    /// Waits until this process holds the locks, or another one has obtained the token. Two requests
    /// for the same token are wasteful; using a refresh token twice ends the session.
    async fn wait_for_locks(&mut self, lock_timeout: Duration) -> LockOutcome {
        if !self.exchange.cache.is_shared() {
            return LockOutcome::Acquired;
        }
        let endpoint = &self.exchange.endpoint;
        let limit = match self.key.request().has_single_use_credential() {
            true => endpoint.max_duration(),
            false => endpoint.settings.timeout,
        };
        let waiting = async {
            loop {
                let outcome = match self.key.is_single_use() {
                    true => with_timeout(lock_timeout, self.retry_until_answered())
                        .await
                        .unwrap_or(LockOutcome::CacheUnavailable),
                    false => self.try_locks().await,
                };
                match outcome {
                    LockOutcome::HeldElsewhere => sleep(jittered(LOCK_POLL, 0.5)).await,
                    outcome => return outcome,
                }
            }
        };
        with_timeout(limit, waiting).await.unwrap_or(LockOutcome::HeldElsewhere)
    }

    /// Repeats the attempt to take the locks until the cache answers.
    async fn retry_until_answered(&mut self) -> LockOutcome {
        loop {
            match self.try_locks().await {
                LockOutcome::CacheUnavailable => sleep(jittered(LOCK_POLL, 0.5)).await,
                outcome => return outcome,
            }
        }
    }

    /// Takes the locks, and looks for a token that the previous holder wrote.
    async fn try_locks(&mut self) -> LockOutcome {
        let Ok(is_acquired) = self.lock_all().await else { return LockOutcome::CacheUnavailable };
        match (self.exchange.lookup(&self.key).await, is_acquired) {
            (Ok(Some(token)), _) if self.is_fresh(&token) => LockOutcome::Found(token),
            (_, false) => LockOutcome::HeldElsewhere,
            (Ok(_), true) => LockOutcome::Acquired,
            (Err(CacheUnavailable), true) => LockOutcome::CacheUnavailable,
        }
    }

    /// Takes all locks or none, and returns whether they were taken.
    ///
    /// # Errors
    /// The cache did not answer: some locks may be held.
    async fn lock_all(&mut self) -> Result<bool, CacheUnavailable> {
        let (exchange, lifetime) = (self.exchange, self.lock_lifetime());
        for lock in &mut self.locks {
            lock.may_be_held = true;
            if !exchange.call_cache(exchange.cache.lock(&lock.key, &lock.fence, lifetime)).await? {
                lock.may_be_held = false;
                self.unlock().await;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the lifetime of a lock: the time of the longest request and of two calls to the cache,
    /// which count for at least [`LOCK_RESERVE`].
    fn lock_lifetime(&self) -> Duration {
        let endpoint = &self.exchange.endpoint;
        let reserve = endpoint.settings.cache_timeout.saturating_mul(2).max(LOCK_RESERVE);
        endpoint.max_duration().saturating_add(reserve)
    }

    /// Writes the token under every key. Writes the token under every key. Returns whether the cache
    /// answered every call, even if it ignored a write because of the fence.
    async fn write(&self, token: &AccessToken, ttl: Duration, is_fenced: bool) -> bool {
        let mut all_answered = true;
        for lock in &self.locks {
            let fence = is_fenced.then_some(&lock.fence);
            let put = self.exchange.cache.put(&lock.key, token, ttl, fence);
            all_answered &= self.exchange.call_cache(put).await.is_ok();
        }
        all_answered
    }

    /// Releases all locks that may be held. Returns whether all are released.
    async fn unlock(&mut self) -> bool {
        let exchange = self.exchange;
        for lock in self.locks.iter_mut().filter(|lock| lock.may_be_held) {
            // Not `call_cache`: nothing depends on this call, and the next one logs an outage.
            let unlock = exchange.with_cache_timeout(exchange.cache.unlock(&lock.key, &lock.fence));
            lock.may_be_held = unlock.await.is_err();
        }
        !self.may_hold_locks()
    }

    fn may_hold_locks(&self) -> bool {
        self.locks.iter().any(|lock| lock.may_be_held)
    }

    /// Continues in the background what [`run`](Self::run) could not complete: writes the token and
    /// releases the locks. After a time limit, gives up and lets the locks expire.
    pub(super) async fn finish(mut self) {
        let permit = self.exchange.unlock_permits.try_acquire();
        let limit = match self.unwritten {
            // Needs no permit: an unwritten token may cost a session, an unreleased lock only time.
            Some(_) => SUCCESSOR_TTL,
            None if permit.is_ok() && self.may_hold_locks() => self.lock_lifetime(),
            None => return,
        };
        let clock = &*self.exchange.endpoint.settings.clock;
        let since = clock.elapsed();
        let retrying = async {
            loop {
                sleep(jittered(WRITE_RETRY, 0.5)).await;
                let left = SUCCESSOR_TTL.saturating_sub(clock.elapsed().saturating_sub(since));
                let is_written = match &self.unwritten {
                    Some(token) => self.write(token, left, true).await,
                    None => true,
                };
                if is_written && self.unlock().await {
                    return;
                }
            }
        };
        with_timeout(limit, retrying).await;
    }
}
