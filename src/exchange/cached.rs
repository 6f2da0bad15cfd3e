//! [`CachedExchange`]: a token from the cache, or one request to the provider for all who want it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::cache::{CacheKey, ClientFingerprint, MemoryCache, TokenCache};
use super::endpoint::TokenEndpoint;
use super::request::{RefreshRequest, TokenRequest};
use super::run::{Run, SUCCESSOR_LIFE};
use super::setback::Setbacks;
use super::token::until_exp;
use super::{AccessToken, CacheStatus, ExchangeError, Freshness};
use crate::clock::{Clock, within};
use crate::error::BoxError;
use crate::support::mac::Mac;
use crate::support::seal::SealingKeys;
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry;

/// How many bytes of what refresh tokens and codes gave this process keeps beside its cache, which may
/// lose them. Half of a full memory belongs to what came last and the rest to what was asked for again, so about
/// the latest 8 MiB are there.
pub(super) const SUCCESSOR_BYTES: u64 = 16 << 20;

/// So many locks are given back at a time behind everybody's back; those beyond end by themselves.
const STRAYS: usize = 256;

/// A downstream service that refuses a token this young does not refuse it for its age.
const YOUNG: Duration = Duration::from_secs(10);

pub(super) type Outcome = Result<AccessToken, ExchangeError>;

/// What a shared cache has; the outer `None` without an answer.
type Look = Option<Option<AccessToken>>;

/// The endpoint, the cache in front of it, and what is under way between them.
#[derive(Debug)]
pub(super) struct CachedExchange {
    pub(super) endpoint: TokenEndpoint,
    pub(super) cache: Arc<dyn TokenCache>,
    keys: SealingKeys,
    fingerprint: ClientFingerprint,
    /// What this process got for refresh tokens and codes, whatever becomes of a shared cache.
    successors: MemoryCache,
    /// Places for runs that still have locks to give back when their callers are gone.
    pub(super) strays: Semaphore,
    /// Looks into a shared cache: one for all who want the same, or a herd would keep its own
    /// questions waiting until they are too late.
    lookups: SingleFlight<Mac, Look>,
    flights: SingleFlight<Mac, Outcome>,
    setbacks: Setbacks,
    cache_unavailable: AtomicBool,
}

impl CachedExchange {
    pub(super) fn new(
        endpoint: TokenEndpoint,
        cache: Arc<dyn TokenCache>,
        keys: SealingKeys,
        fingerprint: ClientFingerprint,
    ) -> Self {
        Self {
            endpoint,
            cache,
            keys,
            fingerprint,
            successors: MemoryCache::new(SUCCESSOR_BYTES),
            strays: Semaphore::new(STRAYS),
            lookups: SingleFlight::default(),
            flights: SingleFlight::default(),
            setbacks: Setbacks::default(),
            cache_unavailable: AtomicBool::new(false),
        }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.endpoint.settings.clock
    }

    /// A token for `request`. With `refused`, one that is not that: a service downstream did not
    /// take it.
    pub(super) async fn get(
        self: &Arc<Self>,
        request: &TokenRequest<'_>,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        let key = self.key(request)?;
        match self.peek(&key, refused) {
            Some(outcome) => outcome,
            // Boxed, so that the futures of callers that need not wait stay small.
            None => Box::pin(self.wait_for(&key, refused)).await,
        }
    }

    /// What can be said without waiting.
    fn peek(
        self: &Arc<Self>,
        key: &CacheKey<'_>,
        refused: Option<&AccessToken>,
    ) -> Option<Outcome> {
        if let Some(token) = refused.filter(|token| token.age(self.clock()) < YOUNG) {
            return Some(Ok(token.clone()));
        }
        if let Some(token) = self.near(key)
            && self.serves(key, &token, refused)
        {
            telemetry::token_cache("hit");
            return Some(Ok(token.with_status(CacheStatus::Hit)));
        }
        let error = self.setbacks.standing(key.mac(), self.clock().elapsed())?;
        telemetry::token_cache("refused");
        Some(Err(error))
    }

    /// What is in this process's memory.
    pub(super) fn near(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        let near = self.cache.peek(key);
        near.or_else(|| self.successors.peek(key).filter(|_| key.request().spends()))
    }

    async fn wait_for(
        self: &Arc<Self>,
        key: &CacheKey<'_>,
        refused: Option<&AccessToken>,
    ) -> Outcome {
        // A cache that is known to be away is waited for once: for the lock.
        let waits = key.is_single_use() && self.cache_unavailable.load(Ordering::Relaxed);
        let mut patience = self.endpoint.settings.cache_timeout;
        if self.cache.is_shared() && !waits {
            // Half of the time is for this look, the rest for the lock: together no more than was said.
            let half = patience / 2;
            match self.look_together(key, half).await {
                Some(Some(token)) if self.serves(key, &token, refused) => {
                    telemetry::token_cache("hit");
                    return Ok(token.with_status(CacheStatus::Hit));
                }
                Some(_) => {}
                None => patience = half,
            }
        }
        let waiter = self.join(key, refused, patience);
        let is_new = waiter.is_new();
        telemetry::token_cache(if is_new { "miss" } else { "collapsed" });
        let ended = || Err(ExchangeError::unavailable(None, "the request ended without an answer"));
        let token = waiter.wait().await.unwrap_or_else(ended)?;
        Ok(if is_new { token } else { token.with_status(CacheStatus::Collapsed) })
    }

    /// One task for all who want the same. It goes on after its callers have what they want, where the
    /// cache has to be told something.
    fn join(
        self: &Arc<Self>,
        key: &CacheKey<'_>,
        refused: Option<&AccessToken>,
        cache_patience: Duration,
    ) -> Waiter<Outcome> {
        self.flights.run_with_leader(key.mac(), |leader| {
            let (exchange, request, refused) =
                (self.clone(), key.request().owned(), refused.cloned());
            async move {
                match Run::new(&exchange, &request, refused.as_ref()) {
                    Ok(mut run) => {
                        leader.publish(run.obtain(cache_patience).await);
                        run.finish().await;
                    }
                    Err(error) => leader.publish(Err(error)),
                }
            }
        })
    }

    /// Whether this token will do. If it is due, its successor is sought meanwhile.
    fn serves(
        self: &Arc<Self>,
        key: &CacheKey<'_>,
        token: &AccessToken,
        refused: Option<&AccessToken>,
    ) -> bool {
        let freshness = self.judge(key, token, refused);
        if freshness == Freshness::Due
            && self.setbacks.permits_renewal(key.mac(), self.clock().elapsed())
        {
            drop(self.join(key, None, self.endpoint.settings.cache_timeout));
        }
        freshness != Freshness::Expired
    }

    /// Where a token is in its life for those who make this request.
    pub(super) fn judge(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        refused: Option<&AccessToken>,
    ) -> Freshness {
        match key.request() {
            _ if refused.is_some_and(|refused| refused.secret() == token.secret()) => {
                Freshness::Expired
            }
            TokenRequest::Refresh(request) if !self.succeeds(request, token) => Freshness::Expired,
            TokenRequest::Refresh(_) | TokenRequest::Code(_) => Freshness::Fresh,
            _ => key.freshness(token),
        }
    }

    /// Whether this is what the next refresh would have to give: always when the refresh token is
    /// spent, and while the access token is fresh when it is not.
    fn succeeds(&self, request: &RefreshRequest, token: &AccessToken) -> bool {
        let is_spent = token.refresh_token().is_some_and(|next| *next != request.refresh_token);
        is_spent || token.freshness_until_expiry(self.clock()) == Freshness::Fresh
    }

    /// Asks the provider. What an exchange gives is kept no longer than its subject token lives.
    pub(super) async fn ask(&self, key: &CacheKey<'_>) -> Outcome {
        let request = key.request();
        let outcome = self.endpoint.ask(request).await;
        self.setbacks.note(key.mac(), &outcome, self.clock().elapsed());
        let mut token = outcome?;
        if request.may_be_repeated() {
            token = token.with_refresh_token(None);
        }
        if let TokenRequest::Exchange(exchange) = request
            && !self.endpoint.settings.subjects_are_outlived
            && let Some(left) = until_exp(&exchange.subject, self.clock().now())
        {
            token = token.kept_at_most(left);
        }
        Ok(token)
    }

    /// Keeps what was got for what can be spent once in this process, too.
    pub(super) async fn remember(&self, key: &CacheKey<'_>, token: &AccessToken) {
        // It is memory, which does not fail.
        let _ = self.successors.put(key, token, SUCCESSOR_LIFE, None).await;
    }

    /// What the shared cache has, for all who ask for it now. A look that takes too long ends for all, so
    /// that whoever comes next looks anew.
    async fn look_together(self: &Arc<Self>, key: &CacheKey<'_>, limit: Duration) -> Look {
        let waiter = self.lookups.run(key.mac(), || {
            let (exchange, request) = (self.clone(), key.request().owned());
            async move {
                let key = exchange.key(&request).ok()?;
                within(limit, exchange.look(&key)).await.flatten()
            }
        });
        waiter.wait().await.flatten()
    }

    /// What the cache has.
    pub(super) async fn look(&self, key: &CacheKey<'_>) -> Look {
        self.cached(self.cache.get(key)).await
    }

    /// What the cache answers. That there is no answer is told.
    pub(super) async fn cached<T>(
        &self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Option<T> {
        let answer = self.in_time(answer).await;
        let was_away = self.cache_unavailable.swap(answer.is_err(), Ordering::Relaxed);
        match &answer {
            Ok(_) if was_away => telemetry::token_cache_recovered(),
            Ok(_) => {}
            Err(error) => {
                let alone = self.endpoint.settings.spends_without_lock;
                telemetry::token_cache_failed(error, !was_away, alone);
            }
        }
        answer.ok()
    }

    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let answer = within(self.endpoint.settings.cache_timeout, answer).await;
        answer.unwrap_or_else(|| Err("gave no answer in time".into()))
    }

    /// What to look for a token under.
    pub(super) fn key<'k>(
        &'k self,
        request: &'k TokenRequest<'k>,
    ) -> Result<CacheKey<'k>, ExchangeError> {
        self.keys(request).next().ok_or(ExchangeError::NotConfigured("there are no cache keys"))
    }

    /// What to file a token under.
    pub(super) fn keys<'k>(
        &'k self,
        request: &'k TokenRequest<'k>,
    ) -> impl Iterator<Item = CacheKey<'k>> {
        let key = |key| CacheKey::new(&self.fingerprint, request, key, self.clock());
        self.keys.iter().map(key)
    }
}
