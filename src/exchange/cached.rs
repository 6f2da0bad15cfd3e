//! [`CachedExchange`]: answers token requests from the cache, or with one request to the provider that
//! all callers share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::cache::{CacheKey, ClientFingerprint, MemoryCache, TokenCache};
use super::endpoint::TokenEndpoint;
use super::error::CacheUnavailable;
use super::failure_cache::FailureCache;
use super::locked_fetch::{LockedFetch, SUCCESSOR_TTL};
use super::request::{RefreshRequest, TokenRequest};
use super::subject_tenants::SubjectTenants;
use super::token::until_exp;
use super::{AccessToken, CacheStatus, ExchangeError, Freshness};
use crate::clock::{Clock, with_timeout};
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::support::mac::Mac;
use crate::support::seal::{SealingKey, SealingKeys};
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry;

/// The size, in bytes, of the memory cache for tokens obtained with refresh tokens and codes. Half of a
/// full cache holds the latest entries; about the latest 6.5 MiB are never evicted.
pub(super) const SUCCESSOR_BYTES: u64 = 16 << 20;

/// The maximum number of background tasks that release locks. Locks beyond that expire on their own.
const MAX_UNLOCK_TASKS: usize = 256;

/// The minimum age at which a rejected token is replaced. A younger token was not rejected because of
/// its age.
const MIN_REPLACED_AGE: Duration = Duration::from_secs(10);

pub(super) const NO_SEALING_KEYS: ExchangeError =
    ExchangeError::NotConfigured("there are no sealing keys: set cache_keys");

pub(super) type TokenResult = Result<AccessToken, ExchangeError>;

type CacheLookup = Result<Option<AccessToken>, CacheUnavailable>;

/// The token endpoint with a cache in front of it, and the requests in progress.
#[derive(Debug)]
pub(super) struct CachedExchange {
    pub(super) endpoint: TokenEndpoint,
    pub(super) cache: Arc<dyn TokenCache>,
    keys: SealingKeys,
    fingerprint: ClientFingerprint,
    /// The successors: the tokens that this process obtained with refresh tokens and codes. They are
    /// kept outside of the cache, which may fail or evict them: a second request with the same
    /// credential must find its successor.
    successors: MemoryCache,
    pub(super) unlock_permits: Semaphore,
    /// The running lookups in a shared cache. Callers share them, because many simultaneous lookups would
    /// delay each other beyond the time limit.
    lookups: SingleFlight<Mac, CacheLookup>,
    fetches: SingleFlight<Mac, TokenResult>,
    failures: FailureCache,
    subject_tenants: SubjectTenants,
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
            unlock_permits: Semaphore::new(MAX_UNLOCK_TASKS),
            lookups: SingleFlight::default(),
            fetches: SingleFlight::default(),
            failures: FailureCache::default(),
            subject_tenants: SubjectTenants::default(),
            cache_unavailable: AtomicBool::new(false),
        }
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.endpoint.settings.clock
    }

    /// Returns a token for `request`. If a downstream service rejected the token `rejected`, returns
    /// another one, unless `rejected` is younger than [`MIN_REPLACED_AGE`].
    pub(super) async fn get(
        self: &Arc<Self>,
        request: &TokenRequest<'_>,
        rejected: Option<&AccessToken>,
    ) -> TokenResult {
        match self.try_get(&self.key(request)?, rejected) {
            Some(result) => result,
            // Boxed, so that the futures of callers that need not wait stay small.
            None => Box::pin(self.get_or_fetch(request, rejected)).await,
        }
    }

    /// Returns the request without a named tenant, if it names that of its subject token. Requests for one
    /// user then share their tokens.
    pub(super) fn without_tenant_of_subject(
        &self,
        request: &TokenRequest<'_>,
    ) -> Option<TokenRequest<'static>> {
        let named = request.named_tenant()?;
        let tenant = self.tenant_of_subject(request).filter(|tenant| tenant == named)?;
        Some(request.in_tenant_of_subject(tenant))
    }

    /// Returns the request with the tenant of its subject token, if it has no tenant yet. A hit in memory does
    /// not need it.
    fn with_tenant_of_subject(&self, request: &TokenRequest<'_>) -> Option<TokenRequest<'static>> {
        let is_missing = request.tenant().is_none();
        let tenant = is_missing.then(|| self.tenant_of_subject(request)).flatten()?;
        Some(request.in_tenant_of_subject(tenant))
    }

    fn tenant_of_subject(&self, request: &TokenRequest<'_>) -> Option<TenantId> {
        let mapping = &self.endpoint.settings.answer.claims;
        self.subject_tenants.of(request.subject()?, &self.endpoint.name, mapping)
    }

    /// Answers from the memory of this process, without waiting.
    fn try_get(
        self: &Arc<Self>,
        key: &CacheKey<'_>,
        rejected: Option<&AccessToken>,
    ) -> Option<TokenResult> {
        if let Some(token) = rejected.filter(|token| token.age(self.clock()) < MIN_REPLACED_AGE) {
            return Some(Ok(token.clone()));
        }
        if let Some(token) = self.peek(key)
            && self.accept_and_renew(key, &token, rejected)
        {
            telemetry::token_cache("hit");
            return Some(Ok(token.with_status(CacheStatus::Hit)));
        }
        let error = self.failures.get(key.mac(), self.clock().elapsed())?;
        telemetry::token_cache("refused");
        Some(Err(error))
    }

    /// Returns the token in the memory of this process.
    pub(super) fn peek(&self, key: &CacheKey<'_>) -> Option<AccessToken> {
        let cached = self.cache.peek(key);
        cached.or_else(|| {
            self.successors.peek(key).filter(|_| key.request().has_single_use_credential())
        })
    }

    async fn get_or_fetch(
        self: &Arc<Self>,
        request: &TokenRequest<'_>,
        rejected: Option<&AccessToken>,
    ) -> TokenResult {
        let completed = self.with_tenant_of_subject(request);
        let key = &self.key(completed.as_ref().unwrap_or(request))?;
        // Under a single-use key the fetch waits for the lock. If the cache is known to be unavailable,
        // a lookup before that would only double the wait.
        let skips_lookup = key.is_single_use() && self.cache_unavailable.load(Ordering::Relaxed);
        let mut lock_timeout = self.endpoint.settings.cache_timeout;
        if self.cache.is_shared() && !skips_lookup {
            // Half of the time limit is for the lookup and half for the lock.
            let half = lock_timeout / 2;
            match self.shared_lookup(key, half).await {
                Ok(Some(token)) if self.accept_and_renew(key, &token, rejected) => {
                    telemetry::token_cache("hit");
                    return Ok(token.with_status(CacheStatus::Hit));
                }
                Ok(_) => {}
                Err(CacheUnavailable) => lock_timeout = half,
            }
        }
        let waiter = self.fetch_once(key, rejected, lock_timeout);
        let is_new = waiter.is_new();
        telemetry::token_cache(if is_new { "miss" } else { "collapsed" });
        let aborted = || {
            Err(ExchangeError::unavailable(None, "the task that requested the token was aborted"))
        };
        let token = waiter.wait().await.unwrap_or_else(aborted)?;
        Ok(if is_new { token } else { token.with_status(CacheStatus::Collapsed) })
    }

    /// Joins the fetch for `key` that is running, or starts one in a task of its own. The task
    /// continues after it has published its result, until the token is written to the cache and the
    /// locks are released.
    fn fetch_once(
        self: &Arc<Self>,
        key: &CacheKey<'_>,
        rejected: Option<&AccessToken>,
        lock_timeout: Duration,
    ) -> Waiter<TokenResult> {
        self.fetches.run_with_leader(key.mac(), |leader| {
            let (exchange, rejected) = (self.clone(), rejected.cloned());
            let request = self.with_tenant_of_subject(key.request());
            let request = request.unwrap_or_else(|| key.request().owned());
            async move {
                match LockedFetch::new(&exchange, &request, rejected.as_ref()) {
                    Ok(mut fetch) => {
                        leader.publish(fetch.run(lock_timeout).await);
                        fetch.finish().await;
                    }
                    Err(error) => leader.publish(Err(error)),
                }
            }
        })
    }

    /// Returns whether a cached token may be used. If the token is due, also starts a fetch in the
    /// background.
    fn accept_and_renew(
        self: &Arc<Self>,
        key: &CacheKey<'_>,
        token: &AccessToken,
        rejected: Option<&AccessToken>,
    ) -> bool {
        let freshness = self.freshness(key, token, rejected);
        if freshness == Freshness::Due
            && self.failures.permits_renewal(key.mac(), self.clock().elapsed())
        {
            drop(self.fetch_once(key, None, self.endpoint.settings.cache_timeout));
        }
        freshness != Freshness::Expired
    }

    /// Returns the freshness of a cached token with respect to this request: a rejected token counts as
    /// expired, and a successor as fresh.
    pub(super) fn freshness(
        &self,
        key: &CacheKey<'_>,
        token: &AccessToken,
        rejected: Option<&AccessToken>,
    ) -> Freshness {
        match key.request() {
            _ if rejected.is_some_and(|rejected| rejected.secret() == token.secret()) => {
                Freshness::Expired
            }
            TokenRequest::Refresh(request) if !self.is_successor(request, token) => {
                Freshness::Expired
            }
            TokenRequest::Refresh(_) | TokenRequest::Code(_) => Freshness::Fresh,
            _ => key.freshness(token),
        }
    }

    /// Returns whether the cached token is the final result of this refresh token: the provider has
    /// rotated the refresh token, or the access token is still fresh.
    fn is_successor(&self, request: &RefreshRequest, token: &AccessToken) -> bool {
        let is_spent = token.refresh_token().is_some_and(|next| *next != request.refresh_token);
        is_spent || token.freshness_until_expiry(self.clock()) == Freshness::Fresh
    }

    /// Requests a token from the provider. An exchanged token is cached no longer than its subject token
    /// lives.
    pub(super) async fn fetch(&self, key: &CacheKey<'_>) -> TokenResult {
        let request = key.request();
        let result = self.endpoint.fetch(request).await;
        self.failures.record(key.mac(), &result, self.clock().elapsed());
        let mut token = result?;
        if request.is_idempotent() {
            token = token.with_refresh_token(None);
        }
        if let Some(subject) = request.subject()
            && !self.endpoint.settings.outlives_subject
            && let Some(left) = until_exp(subject, self.clock().now())
        {
            token = token.cacheable_at_most(left);
        }
        Ok(token)
    }

    /// Stores the result of a single-use credential in the memory of this process.
    pub(super) async fn insert_successor(&self, key: &CacheKey<'_>, token: &AccessToken) {
        // A memory cache does not fail.
        let _ = self.successors.put(key, token, SUCCESSOR_TTL, None).await;
    }

    /// Looks the token up in the shared cache, once for all callers. `limit` counts from the start of
    /// the shared lookup. A caller that arrives after the limit starts a new lookup.
    async fn shared_lookup(self: &Arc<Self>, key: &CacheKey<'_>, limit: Duration) -> CacheLookup {
        let waiter = self.lookups.run(key.mac(), || {
            let (exchange, request) = (self.clone(), key.request().owned());
            async move {
                let key = exchange.key(&request).map_err(|_| CacheUnavailable)?;
                with_timeout(limit, exchange.lookup(&key)).await.unwrap_or(Err(CacheUnavailable))
            }
        });
        waiter.wait().await.unwrap_or(Err(CacheUnavailable))
    }

    pub(super) async fn lookup(&self, key: &CacheKey<'_>) -> CacheLookup {
        self.call_cache(self.cache.get(key)).await
    }

    /// Awaits a call to the cache. Logs when the cache becomes unavailable and when it recovers.
    pub(super) async fn call_cache<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, CacheUnavailable> {
        let answer = self.with_cache_timeout(call).await;
        let was_unavailable = self.cache_unavailable.swap(answer.is_err(), Ordering::Relaxed);
        match &answer {
            Ok(_) if was_unavailable => telemetry::token_cache_recovered(),
            Ok(_) => {}
            Err(error) => {
                let spends_without_lock = self.endpoint.settings.spends_without_lock;
                telemetry::token_cache_failed(error, !was_unavailable, spends_without_lock);
            }
        }
        answer.map_err(|_| CacheUnavailable)
    }

    pub(super) async fn with_cache_timeout<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        let answer = with_timeout(self.endpoint.settings.cache_timeout, call).await;
        answer.unwrap_or_else(|| Err("the cache did not answer in time".into()))
    }

    /// Returns the cache key for lookups, made with the first sealing key.
    pub(super) fn key<'k>(
        &'k self,
        request: &'k TokenRequest<'k>,
    ) -> Result<CacheKey<'k>, ExchangeError> {
        let sealing_keys = self.sealing_keys();
        let first = sealing_keys.first().ok_or(NO_SEALING_KEYS)?;
        Ok(self.key_under(request, first))
    }

    /// Returns the sealing keys in force. The first one is for lookups, and all are for writes.
    pub(super) fn sealing_keys(&self) -> impl Deref<Target = Arc<Vec<Arc<SealingKey>>>> {
        self.keys.current(self.clock())
    }

    /// Returns the cache key under one of the sealing keys.
    pub(super) fn key_under<'k>(
        &'k self,
        request: &'k TokenRequest<'k>,
        sealing_key: &Arc<SealingKey>,
    ) -> CacheKey<'k> {
        CacheKey::new(&self.fingerprint, request, sealing_key.clone(), self.clock())
    }
}
