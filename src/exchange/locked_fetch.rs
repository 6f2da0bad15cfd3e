//! [`Run`]: gets one token for all who want it in this process, in turn with other processes.

use std::time::Duration;

use super::cache::{CacheKey, Fence};
use super::cached::{CachedExchange, Outcome};
use super::request::TokenRequest;
use super::{AccessToken, CacheStatus, ExchangeError, Freshness};
use crate::clock::{jittered, pause, within};

/// How long a lock outlives the longest request, at least: for the look before it and the write after
/// it.
const LOCK_RESERVE: Duration = Duration::from_secs(4);

/// How long a caller waits for locks to be given back; what takes longer is done behind its back.
const UNLOCK_PATIENCE: Duration = Duration::from_millis(250);

/// How long what a refresh or a code gave is kept for those who come with the same one.
pub(super) const SUCCESSOR_LIFE: Duration = Duration::from_secs(60);

/// How often a process looks whether another one has got what both want, or asks again what was
/// not answered.
const POLL: Duration = Duration::from_millis(20);

/// How often the cache is told again what it did not take.
const AGAIN: Duration = Duration::from_millis(250);

/// How soon to come back when the shared cache is away.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Whose turn it is to ask the provider.
enum Turn {
    /// Nobody's: here is what another process got.
    Found(AccessToken),
    /// Ours, and no other process's, as far as the locks reach.
    Ours,
    /// Not known: the cache gives no answer.
    Unknown,
    /// Another process's, which has not come to an end.
    Theirs,
}

/// One request on its way: lock, look, ask, write, give back.
pub(super) struct Run<'r> {
    exchange: &'r CachedExchange,
    refused: Option<&'r AccessToken>,
    /// What the cache is looked into with.
    key: CacheKey<'r>,
    /// One for each key that the token is filed under, in an order that every process keeps, so that
    /// no two wait for each other.
    locks: Vec<Lock<'r>>,
    /// What the provider gave and the cache did not take.
    unwritten: Option<AccessToken>,
}

/// A lock. Its fence is known before it is asked for: one whose answer was lost is given back by it.
struct Lock<'r> {
    key: CacheKey<'r>,
    fence: Fence,
    may_be_held: bool,
}

impl<'r> Run<'r> {
    pub(super) fn new(
        exchange: &'r CachedExchange,
        request: &'r TokenRequest<'r>,
        refused: Option<&'r AccessToken>,
    ) -> Result<Self, ExchangeError> {
        let lock = |key| Some(Lock { key, fence: Fence::random().ok()?, may_be_held: false });
        let locks: Option<Vec<_>> = exchange.keys(request).map(lock).collect();
        let mut locks =
            locks.ok_or(ExchangeError::NotConfigured("the system has no random numbers"))?;
        locks.sort_unstable_by(|one, other| one.key.digest().cmp(other.key.digest()));
        let key = exchange.key(request)?;
        Ok(Self { exchange, refused, key, locks, unwritten: None })
    }

    /// Gets a fresh token, unless another caller just did. A cache without an answer is asked for
    /// `patience` whose turn it is.
    pub(super) async fn obtain(&mut self, patience: Duration) -> Outcome {
        if let Some(token) = self.exchange.near(&self.key)
            && self.is_fresh(&token)
        {
            return Ok(token.with_status(CacheStatus::Collapsed));
        }
        let outcome = match self.turn(patience).await {
            Turn::Found(token) => Ok(token.with_status(CacheStatus::Collapsed)),
            Turn::Unknown if self.key.is_single_use() => {
                return Err(ExchangeError::cache_unavailable(RETRY_AFTER));
            }
            Turn::Theirs if self.key.request().spends() => {
                let why = "another process is at it and does not come to an end";
                return Err(ExchangeError::unavailable(Some(RETRY_AFTER), why));
            }
            turn => self.ask(matches!(turn, Turn::Ours)).await,
        };
        // A token that is still to be written keeps its lock: whoever comes would spend it again.
        if self.unwritten.is_none() {
            within(UNLOCK_PATIENCE, self.unlock()).await;
        }
        outcome
    }

    /// Asks the provider, and keeps what it gave under every key. If `is_fenced`, the cache does not
    /// take it while another process holds the lock.
    async fn ask(&mut self, is_fenced: bool) -> Outcome {
        let token = self.exchange.ask(&self.key).await?;
        let spends = self.key.request().spends();
        if let Some(ttl) = if spends { Some(SUCCESSOR_LIFE) } else { token.cacheable_for() } {
            if spends {
                self.exchange.remember(&self.key, &token).await;
            }
            let is_written = self.write(&token, ttl, is_fenced).await;
            if !is_written && self.key.is_single_use() {
                self.unwritten = Some(token.clone());
            }
        }
        Ok(token)
    }

    fn is_fresh(&self, token: &AccessToken) -> bool {
        self.exchange.judge(&self.key, token, self.refused) == Freshness::Fresh
    }

    /// Waits until it is this process's turn, or another one has brought what is wanted. To ask twice
    /// for the same is a waste; to spend a refresh token twice ends a session.
    async fn turn(&mut self, patience: Duration) -> Turn {
        if !self.exchange.cache.is_shared() {
            return Turn::Ours;
        }
        let endpoint = &self.exchange.endpoint;
        let limit = match self.key.request().spends() {
            true => endpoint.longest(),
            false => endpoint.settings.timeout,
        };
        let waiting = async {
            loop {
                let turn = match self.key.is_single_use() {
                    true => within(patience, self.known_turn()).await.unwrap_or(Turn::Unknown),
                    false => self.try_turn().await,
                };
                match turn {
                    Turn::Theirs => pause(jittered(POLL, 0.5)).await,
                    turn => return turn,
                }
            }
        };
        within(limit, waiting).await.unwrap_or(Turn::Theirs)
    }

    /// Asks the cache until it answers.
    async fn known_turn(&mut self) -> Turn {
        loop {
            match self.try_turn().await {
                Turn::Unknown => pause(jittered(POLL, 0.5)).await,
                turn => return turn,
            }
        }
    }

    /// Takes the locks, and looks whether their holder before left what is wanted.
    async fn try_turn(&mut self) -> Turn {
        let Some(is_taken) = self.lock().await else { return Turn::Unknown };
        match (self.exchange.look(&self.key).await, is_taken) {
            (Some(Some(token)), _) if self.is_fresh(&token) => Turn::Found(token),
            (_, false) => Turn::Theirs,
            (Some(_), true) => Turn::Ours,
            (None, true) => Turn::Unknown,
        }
    }

    /// Takes all locks or none: whether they were taken. `None` without an answer: some may be.
    async fn lock(&mut self) -> Option<bool> {
        let (exchange, life) = (self.exchange, self.lock_life());
        for lock in &mut self.locks {
            lock.may_be_held = true;
            if !exchange.cached(exchange.cache.lock(&lock.key, &lock.fence, life)).await? {
                lock.may_be_held = false;
                self.unlock().await;
                return Some(false);
            }
        }
        Some(true)
    }

    /// A lock lasts through a look, the longest request and a write: each call to the cache takes as
    /// long as it may.
    fn lock_life(&self) -> Duration {
        let endpoint = &self.exchange.endpoint;
        let reserve = endpoint.settings.cache_timeout.saturating_mul(2).max(LOCK_RESERVE);
        endpoint.longest().saturating_add(reserve)
    }

    /// Whether the cache answered that it has the token now, or that it is not to have it.
    async fn write(&self, token: &AccessToken, ttl: Duration, is_fenced: bool) -> bool {
        let mut all = true;
        for lock in &self.locks {
            let fence = is_fenced.then_some(&lock.fence);
            let put = self.exchange.cache.put(&lock.key, token, ttl, fence);
            all &= self.exchange.cached(put).await.is_some();
        }
        all
    }

    /// Gives back what is held, or may be: whether nothing is any more.
    async fn unlock(&mut self) -> bool {
        let exchange = self.exchange;
        for lock in self.locks.iter_mut().filter(|lock| lock.may_be_held) {
            // Nobody waits for it, and the next call tells whether the cache is away.
            let unlock = exchange.in_time(exchange.cache.unlock(&lock.key, &lock.fence));
            lock.may_be_held = unlock.await.is_err();
        }
        !self.may_hold_locks()
    }

    fn may_hold_locks(&self) -> bool {
        self.locks.iter().any(|lock| lock.may_be_held)
    }

    /// Tells the cache, when nobody waits any more, what it did not take: the token that was got, and
    /// that the locks are free. They end by themselves, too.
    pub(super) async fn finish(mut self) {
        let place = self.exchange.strays.try_acquire();
        let limit = match self.unwritten {
            // A token is written whatever else goes on: it was paid for.
            Some(_) => SUCCESSOR_LIFE,
            None if place.is_ok() && self.may_hold_locks() => self.lock_life(),
            None => return,
        };
        let clock = &*self.exchange.endpoint.settings.clock;
        let since = clock.elapsed();
        let telling = async {
            loop {
                pause(jittered(AGAIN, 0.5)).await;
                let left = SUCCESSOR_LIFE.saturating_sub(clock.elapsed().saturating_sub(since));
                let is_written = match &self.unwritten {
                    Some(token) => self.write(token, left, true).await,
                    None => true,
                };
                if is_written && self.unlock().await {
                    return;
                }
            }
        };
        within(limit, telling).await;
    }
}
