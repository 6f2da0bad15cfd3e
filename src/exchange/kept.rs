//! [`Kept`]: a token from the cache, or one request to the provider for all who want it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cache::{
    CODE_GRANT, CacheKey, CacheKeys, Ground, MemoryCache, Question, TokenCache, in_order,
};
use super::contract::{self, Relaxed};
use super::endpoint::TokenEndpoint;
use super::grant::Grant;
use super::locks::Locks;
use super::setback::Setbacks;
use super::token::until_exp;
use super::{
    AccessToken, CacheStatus, CodeRequest, ExchangeError, ExchangeRequest, Freshness,
    RefreshRequest, ServiceTokenRequest, TokenType,
};
use crate::clock::{jittered, pause, within};
use crate::error::BoxError;
use crate::flight::{Flights, Lead, Seat};
use crate::mark::Mark;
use crate::telemetry;

/// How long a lock outlives the longest request, at least: for the look before it and the write after
/// it.
const LOCK_RESERVE: Duration = Duration::from_secs(4);

/// How long a caller waits for locks to be given back; what takes longer is done behind its back.
const UNLOCK_PATIENCE: Duration = Duration::from_millis(250);

/// How long what a refresh or a code gave is kept for those who come with the same one.
const SUCCESSOR_LIFE: Duration = Duration::from_secs(60);

/// How many bytes of them this process keeps beside its cache, which may lose them.
const SUCCESSOR_BYTES: u64 = 8 << 20;

/// How often a process looks whether another one has got what both want, or asks again what was
/// not answered.
const POLL: Duration = Duration::from_millis(20);

/// How often the cache is told again what it did not take.
const AGAIN: Duration = Duration::from_millis(250);

/// So many locks are given back at a time behind everybody's back; those beyond end by themselves.
const STRAYS: usize = 256;

/// How soon to come back when the shared cache is away.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A downstream service that refuses a token this young does not refuse it for its age.
const YOUNG: Duration = Duration::from_secs(10);

type Outcome = Result<AccessToken, ExchangeError>;

/// The endpoint, the cache in front of it, and what is under way between them.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) endpoint: TokenEndpoint,
    pub(super) cache: Arc<dyn TokenCache>,
    pub(super) keys: CacheKeys,
    pub(super) ground: Ground,
    pub(super) requested_type: Option<TokenType>,
    pub(super) tenant_parameter: Option<String>,
    pub(super) relaxed: Relaxed,
    pub(super) subjects_are_outlived: bool,
    /// How long an answer of the cache is waited for, and how long it is asked again for what can be
    /// spent once.
    pub(super) cache_timeout: Duration,
    /// Whether that is spent without an answer, too.
    pub(super) spends_without_lock: bool,
    /// What this process got for refresh tokens and codes, whatever becomes of a shared cache.
    pub(super) successors: MemoryCache,
    /// Locks being given back.
    pub(super) strays: Arc<Semaphore>,
    /// Looks into a shared cache: one for all who want the same, or a herd would keep its own
    /// questions waiting until they are too late.
    pub(super) lookups: Flights<Mark, Option<Option<AccessToken>>>,
    pub(super) flights: Flights<Mark, Outcome>,
    pub(super) setbacks: Setbacks,
    pub(super) cache_is_away: AtomicBool,
}

/// What a caller wants.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'r> {
    Exchange(&'r ExchangeRequest),
    Service(&'r ServiceTokenRequest),
    Refresh(&'r RefreshRequest),
    Code(&'r CodeRequest),
}

impl Wanted<'_> {
    /// Whether it is got for a credential that can be spent once only.
    fn spends(self) -> bool {
        matches!(self, Self::Refresh(_) | Self::Code(_))
    }
}

/// The same, to be taken along by a task.
enum Held {
    Exchange(ExchangeRequest),
    Service(ServiceTokenRequest),
    Refresh(RefreshRequest),
    Code(CodeRequest),
}

impl Held {
    fn of(wanted: Wanted<'_>) -> Self {
        match wanted {
            Wanted::Exchange(request) => Self::Exchange(request.clone()),
            Wanted::Service(request) => Self::Service(request.clone()),
            Wanted::Refresh(request) => Self::Refresh(request.clone()),
            Wanted::Code(request) => Self::Code(request.clone()),
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        match self {
            Self::Exchange(request) => Wanted::Exchange(request),
            Self::Service(request) => Wanted::Service(request),
            Self::Refresh(request) => Wanted::Refresh(request),
            Self::Code(request) => Wanted::Code(request),
        }
    }
}

/// Whose turn it is to ask the provider.
enum Turn {
    /// Nobody's: here is what another process got.
    Found(AccessToken),
    /// Ours, and no other process's, as far as the locks reach.
    Ours,
    /// Not known: the cache gives no answer.
    Unknown,
    /// Another process's, which does not come to an end.
    Theirs,
}

/// A token that the provider gave, to be written to the cache.
struct Found<'t> {
    token: &'t AccessToken,
    keep_for: Duration,
    /// Whether it is held back when another process holds the lock.
    is_fenced: bool,
}

impl Kept {
    /// A token for `wanted`. With `refused`, one that is not that: a service downstream did not
    /// take it.
    pub(super) async fn get(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        let server_key = self.keys.first().ok_or_else(no_key)?;
        let key = CacheKey::new(self.question(wanted), server_key, &*self.endpoint.clock);
        match self.at_once(wanted, &key, refused) {
            Some(outcome) => outcome,
            // Boxed, so that the futures of callers that need not wait stay small.
            None => Box::pin(self.wait_for(wanted, key, refused)).await,
        }
    }

    /// What can be said without waiting.
    fn at_once(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        key: &CacheKey<'_>,
        refused: Option<&AccessToken>,
    ) -> Option<Outcome> {
        let clock = &*self.endpoint.clock;
        if let Some(token) = refused.filter(|token| token.age(clock) < YOUNG) {
            return Some(Ok(token.clone()));
        }
        if let Some(token) = self.near(wanted, key)
            && self.serves(wanted, key, &token, refused)
        {
            telemetry::token_cache("hit");
            return Some(Ok(token.with_status(CacheStatus::Hit)));
        }
        let error = self.setbacks.standing(key.mark(), clock.elapsed())?;
        telemetry::token_cache("refused");
        Some(Err(error))
    }

    /// What is in this process's memory.
    fn near(&self, wanted: Wanted<'_>, key: &CacheKey<'_>) -> Option<AccessToken> {
        let near = self.cache.at_once(key);
        near.or_else(|| self.successors.at_once(key).filter(|_| wanted.spends()))
    }

    async fn wait_for(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        key: CacheKey<'_>,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        // A cache that is known to be away is waited for once: for the lock.
        let waits = key.is_single_use() && self.cache_is_away.load(Ordering::Relaxed);
        let mut left = self.cache_timeout;
        if self.cache.is_shared() && !waits {
            // Half of the time is for this look, the rest for the lock: together no more than was said.
            let half = self.cache_timeout / 2;
            match within(half, self.look_together(&key)).await.flatten() {
                Some(Some(token)) if self.serves(wanted, &key, &token, refused) => {
                    telemetry::token_cache("hit");
                    return Ok(token.with_status(CacheStatus::Hit));
                }
                Some(_) => {}
                None => left = half,
            }
        }
        self.board_and_wait(wanted, key.mark(), refused, left).await
    }

    async fn board_and_wait(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        mark: Mark,
        refused: Option<&AccessToken>,
        cache_patience: Duration,
    ) -> Outcome {
        let seat = self.board(wanted, mark, refused, cache_patience);
        let is_new = seat.is_new();
        telemetry::token_cache(if is_new { "miss" } else { "collapsed" });
        let ended = || Err(ExchangeError::unavailable(None, "the request ended without an answer"));
        let token = seat.landed().await.unwrap_or_else(ended)?;
        Ok(if is_new { token } else { token.with_status(CacheStatus::Collapsed) })
    }

    /// One task for all who want the same.
    fn board(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        mark: Mark,
        refused: Option<&AccessToken>,
        cache_patience: Duration,
    ) -> Seat<Outcome> {
        self.flights.board(mark, || {
            let (kept, held, refused) = (self.clone(), Held::of(wanted), refused.cloned());
            async move { kept.obtain(held.wanted(), mark, refused.as_ref(), cache_patience).await }
        })
    }

    /// Whether this token will do. If it is due, its successor is sought meanwhile.
    fn serves(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        key: &CacheKey<'_>,
        token: &AccessToken,
        refused: Option<&AccessToken>,
    ) -> bool {
        if refused.is_some_and(|refused| refused.secret() == token.secret()) {
            return false;
        }
        match wanted {
            Wanted::Refresh(request) => return self.succeeds(request, token),
            Wanted::Code(_) => return true,
            Wanted::Exchange(_) | Wanted::Service(_) => {}
        }
        match key.freshness(token) {
            Freshness::Fresh => true,
            Freshness::Due => {
                let now = self.endpoint.clock.elapsed();
                if self.setbacks.permits_renewal(key.mark(), now) {
                    drop(self.board(wanted, key.mark(), None, self.cache_timeout));
                }
                true
            }
            Freshness::Expired => false,
        }
    }

    /// Whether this is what the next refresh would have to give: always when the refresh token is
    /// spent, and while the access token is fresh when it is not.
    fn succeeds(&self, request: &RefreshRequest, token: &AccessToken) -> bool {
        let is_spent = token.refresh_token().is_some_and(|next| *next != request.refresh_token);
        is_spent || token.freshness_to_the_end(&*self.endpoint.clock) == Freshness::Fresh
    }

    /// Gets a fresh token, unless another caller just did. With `cache_patience` the cache is asked
    /// whose turn it is.
    async fn obtain(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        mark: Mark,
        refused: Option<&AccessToken>,
        cache_patience: Duration,
    ) -> Outcome {
        let keys: Vec<_> = self.cache_keys(wanted).collect();
        let Some(key) = keys.first() else { return Err(no_key()) };
        let is_new = |token: &AccessToken| match wanted {
            Wanted::Refresh(request) => self.succeeds(request, token),
            Wanted::Code(_) => true,
            _ if refused.is_some_and(|refused| refused.secret() == token.secret()) => false,
            _ => key.freshness(token) == Freshness::Fresh,
        };
        if let Some(token) = self.near(wanted, key).filter(&is_new) {
            return Ok(token.with_status(CacheStatus::Collapsed));
        }
        // To ask twice for the same is a waste; to spend a refresh token twice ends a session.
        let patience =
            if wanted.spends() { self.endpoint.longest() } else { self.endpoint.timeout };
        let locks = Locks::new(keys.len()).ok_or_else(no_random)?;
        let turn = self.turn(&keys, &locks, &is_new, patience, cache_patience).await;
        let error = match turn {
            Turn::Found(token) => {
                self.give_back(wanted, &keys, locks).await;
                return Ok(token.with_status(CacheStatus::Collapsed));
            }
            Turn::Unknown if key.is_single_use() => ExchangeError::cache_is_away(RETRY_AFTER),
            Turn::Theirs if wanted.spends() => {
                let why = "another process is at it and does not come to an end";
                ExchangeError::unavailable(Some(RETRY_AFTER), why)
            }
            Turn::Ours | Turn::Unknown | Turn::Theirs => {
                let outcome = self.ask(wanted).await;
                self.setbacks.note(mark, &outcome, self.endpoint.clock.elapsed());
                let is_fenced = matches!(turn, Turn::Ours);
                self.keep(wanted, &keys, locks, outcome.as_ref().ok(), is_fenced).await;
                return outcome;
            }
        };
        self.finish_later(wanted, locks, None);
        Err(error)
    }

    /// Waits until it is this process's turn, or another one has brought what is wanted.
    async fn turn(
        &self,
        keys: &[CacheKey<'_>],
        locks: &Locks,
        is_new: &impl Fn(&AccessToken) -> bool,
        patience: Duration,
        cache_patience: Duration,
    ) -> Turn {
        if !self.cache.is_shared() {
            return Turn::Ours;
        }
        let wait = async {
            loop {
                match self.answered_turn(keys, locks, is_new, cache_patience).await {
                    None => return Turn::Unknown,
                    Some(Some(turn)) => return turn,
                    Some(None) => pause(jittered(POLL, 0.5)).await,
                }
            }
        };
        within(patience, wait).await.unwrap_or(Turn::Theirs)
    }

    /// Whose turn it is now: `Some(None)`: another process's. `None` without an answer. For what
    /// can be spent once, the cache is asked until it answers.
    async fn answered_turn(
        &self,
        keys: &[CacheKey<'_>],
        locks: &Locks,
        is_new: &impl Fn(&AccessToken) -> bool,
        cache_patience: Duration,
    ) -> Option<Option<Turn>> {
        if !keys.first()?.is_single_use() {
            return self.try_turn(keys, locks, is_new).await;
        }
        let asking = async {
            loop {
                if let Some(answer) = self.try_turn(keys, locks, is_new).await {
                    return answer;
                }
                pause(jittered(POLL, 0.5)).await;
            }
        };
        within(cache_patience, asking).await
    }

    /// Takes the locks, and looks whether their holder before left what is wanted.
    async fn try_turn(
        &self,
        keys: &[CacheKey<'_>],
        locks: &Locks,
        is_new: &impl Fn(&AccessToken) -> bool,
    ) -> Option<Option<Turn>> {
        let is_taken = self.lock(keys, locks).await?;
        match (self.look(keys.first()?).await, is_taken) {
            (Some(Some(token)), _) if is_new(&token) => Some(Some(Turn::Found(token))),
            (Some(_), true) => Some(Some(Turn::Ours)),
            (None, true) => None,
            (_, false) => Some(None),
        }
    }

    /// A lock lasts through a look, the longest request and a write: each call to the cache takes as
    /// long as it may.
    fn lock_life(&self) -> Duration {
        let reserve = self.cache_timeout.saturating_mul(2).max(LOCK_RESERVE);
        self.endpoint.longest().saturating_add(reserve)
    }

    /// Whether the locks of all these keys were taken; if not, none of them is. `None` without an
    /// answer: they may be.
    async fn lock(&self, keys: &[CacheKey<'_>], locks: &Locks) -> Option<bool> {
        let life = self.lock_life();
        for (key, lock) in in_order(keys).into_iter().zip(locks.iter()) {
            lock.is_asked_for();
            if !self.cached(self.cache.lock(key, lock.fence(), life)).await? {
                lock.is_free();
                self.unlock(keys, locks).await;
                return Some(false);
            }
        }
        Some(true)
    }

    /// Gives back what is held, or may be; whether that was answered.
    async fn unlock(&self, keys: &[CacheKey<'_>], locks: &Locks) -> bool {
        let mut all = true;
        for (key, lock) in in_order(keys).into_iter().zip(locks.iter()) {
            if lock.may_be_held() {
                // Nobody waits for it, and the next call tells whether the cache is away.
                match self.answer(self.cache.unlock(key, lock.fence())).await {
                    Ok(()) => lock.is_free(),
                    Err(_) => all = false,
                }
            }
        }
        all
    }

    async fn give_back(self: &Arc<Self>, wanted: Wanted<'_>, keys: &[CacheKey<'_>], locks: Locks) {
        let is_answered = within(UNLOCK_PATIENCE, self.unlock(keys, &locks)).await;
        if is_answered != Some(true) {
            self.finish_later(wanted, locks, None);
        }
    }

    /// Keeps what was got, under every key, and gives the locks back.
    async fn keep(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        keys: &[CacheKey<'_>],
        locks: Locks,
        token: Option<&AccessToken>,
        is_fenced: bool,
    ) {
        let keep_for = |token: &AccessToken| match wanted.spends() {
            true => Some(SUCCESSOR_LIFE),
            false => token.keep_for(),
        };
        if let Some((token, keep_for)) = token.and_then(|token| Some((token, keep_for(token)?))) {
            self.remember(wanted, keys, token).await;
            let found = Found { token, keep_for, is_fenced };
            let is_kept = self.publish(keys, &locks, &found).await;
            if !is_kept && keys.first().is_some_and(CacheKey::is_single_use) {
                // Whoever comes when the lock is over would spend it again.
                return self.finish_later(wanted, locks, Some(token.clone()));
            }
        }
        self.give_back(wanted, keys, locks).await;
    }

    /// Keeps what was got for what can be spent once in this process, too.
    async fn remember(&self, wanted: Wanted<'_>, keys: &[CacheKey<'_>], token: &AccessToken) {
        if let Some(key) = keys.first().filter(|_| wanted.spends()) {
            // It is memory, which does not fail.
            let _ = self.successors.put(key, token, SUCCESSOR_LIFE, None).await;
        }
    }

    /// Whether the cache answered that it has the token now, or that it is not to have it.
    async fn publish(&self, keys: &[CacheKey<'_>], locks: &Locks, found: &Found<'_>) -> bool {
        let mut all = true;
        for (key, lock) in in_order(keys).into_iter().zip(locks.iter()) {
            let fence = found.is_fenced.then(|| lock.fence());
            let put = self.cache.put(key, found.token, found.keep_for, fence);
            all &= self.cached(put).await.is_some();
        }
        all
    }

    /// Tells the cache behind everybody's back what it did not take: the token that was got, and
    /// that the locks are free.
    fn finish_later(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        locks: Locks,
        token: Option<AccessToken>,
    ) {
        if token.is_none() && !locks.iter().any(|lock| lock.may_be_held()) {
            return;
        }
        let permit = self.strays.clone().try_acquire_owned().ok();
        // A token is written whatever else goes on: it was paid for.
        let (Ok(runtime), true) = (Handle::try_current(), token.is_some() || permit.is_some())
        else {
            return;
        };
        let (kept, held) = (self.clone(), Held::of(wanted));
        runtime.spawn(async move { kept.finish(held, locks, token, permit).await });
    }

    async fn finish(
        &self,
        held: Held,
        locks: Locks,
        token: Option<AccessToken>,
        _permit: Option<OwnedSemaphorePermit>,
    ) {
        let keys: Vec<_> = self.cache_keys(held.wanted()).collect();
        let since = self.endpoint.clock.elapsed();
        let telling = async {
            loop {
                pause(jittered(AGAIN, 0.5)).await;
                let age = self.endpoint.clock.elapsed().saturating_sub(since);
                let found = token.as_ref().map(|token| Found {
                    token,
                    keep_for: SUCCESSOR_LIFE.saturating_sub(age),
                    is_fenced: true,
                });
                let is_told = match &found {
                    Some(found) => self.publish(&keys, &locks, found).await,
                    None => true,
                };
                if is_told && self.unlock(&keys, &locks).await {
                    return;
                }
            }
        };
        let limit = match token {
            Some(_) => SUCCESSOR_LIFE,
            None => self.lock_life(),
        };
        within(limit, telling).await;
    }

    /// Asks the provider, and compares what it gave with what was wanted.
    async fn ask(&self, wanted: Wanted<'_>) -> Outcome {
        let grant = match wanted {
            Wanted::Exchange(request) => Grant::Exchange(request, self.requested_type.as_ref()),
            Wanted::Service(request) => Grant::Service(request, self.tenant_parameter.as_deref()),
            Wanted::Refresh(request) => Grant::Refresh(request),
            Wanted::Code(request) => Grant::Code(request),
        };
        self.endpoint.ask(&grant, |token| self.check(wanted, token)).await
    }

    /// What the provider gave, if it is what was wanted.
    fn check(&self, wanted: Wanted<'_>, token: AccessToken) -> Outcome {
        match wanted {
            Wanted::Refresh(_) => Ok(token),
            Wanted::Code(request) => {
                contract::check_tenant(request.tenant.as_ref(), &token).map(|()| token)
            }
            Wanted::Service(request) => {
                contract::check_tenant(request.tenant.as_ref(), &token)?;
                Ok(token.with_refresh_token(None))
            }
            Wanted::Exchange(request) => {
                contract::check_type(&token, self.relaxed)?;
                contract::check(request, &token, self.relaxed)?;
                if !request.scopes.is_empty() {
                    contract::check_scopes(&request.scopes, &token)?;
                }
                if !self.relaxed.subject {
                    contract::check_tenant(request.tenant.as_ref(), &token)?;
                }
                let token = token.with_refresh_token(None);
                let now = self.endpoint.clock.now();
                Ok(match until_exp(request.subject.expose(), now) {
                    Some(left) if !self.subjects_are_outlived => token.kept_at_most(left),
                    _ => token,
                })
            }
        }
    }

    /// What the shared cache has, for all who ask for it now; `None` without an answer.
    async fn look_together(&self, key: &CacheKey<'_>) -> Option<Option<AccessToken>> {
        match self.lookups.lead(key.mark()) {
            Lead::First(leader) => {
                let found = self.look(key).await;
                leader.land(found.clone());
                found
            }
            Lead::Joined(seat) => match seat.landed().await {
                Some(found) => found,
                None => self.look(key).await,
            },
        }
    }

    /// What the cache has; `None` without an answer.
    async fn look(&self, key: &CacheKey<'_>) -> Option<Option<AccessToken>> {
        self.cached(self.cache.get(key)).await
    }

    async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let answer = within(self.cache_timeout, answer).await;
        answer.unwrap_or_else(|| Err("gave no answer in time".into()))
    }

    /// What the cache answers. That there is no answer is told.
    async fn cached<T>(&self, answer: impl Future<Output = Result<T, BoxError>>) -> Option<T> {
        match self.answer(answer).await {
            Ok(answer) => {
                if self.cache_is_away.swap(false, Ordering::Relaxed) {
                    telemetry::token_cache_is_back();
                }
                Some(answer)
            }
            Err(error) => {
                let is_new = !self.cache_is_away.swap(true, Ordering::Relaxed);
                telemetry::token_cache_failed(&error, is_new, self.spends_without_lock);
                None
            }
        }
    }

    /// What to file `wanted` under: first what to look for it under.
    fn cache_keys<'k>(&'k self, wanted: Wanted<'k>) -> impl Iterator<Item = CacheKey<'k>> {
        let question = self.question(wanted);
        self.keys.iter().map(move |key| CacheKey::new(question, key, &*self.endpoint.clock))
    }

    fn question<'q>(&'q self, wanted: Wanted<'q>) -> Question<'q> {
        let question = |grant| Question {
            ground: &self.ground,
            grant,
            tenant: None,
            subject: None,
            actor: None,
            audiences: &[],
            resources: &[],
            scopes: "",
            single_use: wanted.spends() && !self.spends_without_lock,
        };
        match wanted {
            Wanted::Exchange(request) => Question {
                tenant: request.tenant.as_ref(),
                subject: Some((request.subject.expose(), request.subject_type.as_str())),
                actor: request.actor.as_ref().map(|(token, kind)| (token.expose(), kind.as_str())),
                audiences: &request.audiences,
                resources: &request.resources,
                scopes: request.scopes.as_str(),
                ..question("exchange")
            },
            Wanted::Service(request) => Question {
                tenant: request.tenant.as_ref(),
                scopes: request.scopes.as_str(),
                ..question("client_credentials")
            },
            // Whatever scopes are asked for, the refresh token is spent once.
            Wanted::Refresh(request) => Question {
                tenant: request.tenant.as_ref(),
                subject: Some((request.refresh_token.expose(), TokenType::RefreshToken.as_str())),
                ..question("refresh_token")
            },
            // All that has to be right for the code to be redeemed.
            Wanted::Code(request) => Question {
                tenant: request.tenant.as_ref(),
                subject: Some((request.code.expose(), CODE_GRANT)),
                actor: Some((
                    request.verifier.as_ref().map_or("", |it| it.secret().expose()),
                    &request.redirect_uri,
                )),
                ..question(CODE_GRANT)
            },
        }
    }
}

fn no_key() -> ExchangeError {
    ExchangeError::NotConfigured("there are no cache keys")
}

fn no_random() -> ExchangeError {
    ExchangeError::NotConfigured("the system has no random numbers")
}

/// Where this process keeps what it got for refresh tokens and codes.
pub(super) fn successors() -> MemoryCache {
    MemoryCache::of_the_latest(SUCCESSOR_BYTES)
}

pub(super) fn strays() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STRAYS))
}
