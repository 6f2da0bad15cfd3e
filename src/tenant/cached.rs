//! [`CachedTenants`]: a cache in front of another tenant store. It serves cached tenants while the store is
//! unavailable.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Tenant, TenantResolver};
use crate::clock::{Clock, SystemClock, jittered, with_timeout};
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::support::bounded::{Bounded, bounded};
use crate::support::retry::{Backoff, Failures};
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry::{self, Outage};

const SHARDS: usize = 64;
/// The limit of periods in the settings, so that adding them to a time cannot overflow.
const MAX_PERIOD: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A cache in front of another tenant store. Clones share the cache.
///
/// A tenant is served from the cache for its [time to live](Self::time_to_live). After that, a request waits
/// for the store, because a suspension must take effect. Concurrent requests for a tenant cause one call to
/// the store. Unknown tenants are cached separately, so that a flood of made-up ids cannot evict known
/// tenants.
///
/// While the store fails, requests get the last answer for a *known* tenant (active or suspended) without
/// waiting, for up to [`max_stale`](Self::max_stale). The cache calls the store again in the background,
/// every 250 ms to 5 s for each tenant. "Unknown" is never used as a stale answer, because it would turn an
/// outage into a refusal. Without a usable answer, requests get the store's error (503).
///
/// If the store returns a tenant other than the requested one, that counts as a failure of the store. The
/// cache is local to the process: call [`forget`](Self::forget) in each process.
///
/// Pass the cache to [`AuthBuilder::tenants`](crate::AuthBuilder::tenants), as a clone if the service calls
/// `forget` later:
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::tenant::{CachedTenants, MemoryTenants};
/// use scaikey_auth::{Auth, ConfigError, TenantId, TenantResolver};
///
/// fn protect<S: TenantResolver>(store: S) -> Result<(Auth, CachedTenants<S>), ConfigError> {
///     let tenants = CachedTenants::new(store).time_to_live(Duration::from_secs(30));
///     let auth = Auth::builder()
///         .issuer("https://scaikey.example")
///         .audience("scaiwave")
///         .tenants(tenants.clone())
///         .build()?;
///     Ok((auth, tenants))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A real service would pass a database or HTTP store.
/// let (auth, tenants) = protect(MemoryTenants::default())?;
/// // After a change of this tenant in the store: the next request reads the new row.
/// let id: TenantId = "acme".parse()?;
/// tenants.forget(&id);
/// # Ok(()) }
/// ```
pub struct CachedTenants<R> {
    store: Arc<R>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    cache: Arc<Cache>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    time_to_live: Duration,
    negative_time_to_live: Duration,
    max_stale: Duration,
    timeout: Duration,
}

impl<R: TenantResolver> CachedTenants<R> {
    /// Creates a cache for `store` with the default settings.
    pub fn new(store: R) -> Self {
        Self {
            store: Arc::new(store),
            clock: Arc::new(SystemClock::default()),
            limits: Limits {
                time_to_live: Duration::from_secs(60),
                negative_time_to_live: Duration::from_secs(5),
                max_stale: Duration::from_secs(600),
                timeout: Duration::from_secs(2),
            },
            cache: Arc::new(Cache::new(10_000)),
        }
    }

    /// Sets how long a known tenant is cached. Default: 60 s, varied by ±10% for each entry, so that
    /// processes that started together do not query the store together. A suspension takes effect within this
    /// time plus 10%. A shorter time causes more queries.
    #[must_use]
    pub fn time_to_live(mut self, period: Duration) -> Self {
        self.limits.time_to_live = period.min(MAX_PERIOD);
        self
    }

    /// Sets how long an unknown tenant is cached. Default: 5 s. A new tenant may be refused for this time. A
    /// shorter time lets made-up ids reach the store more often.
    #[must_use]
    pub fn negative_time_to_live(mut self, period: Duration) -> Self {
        self.limits.negative_time_to_live = period.min(MAX_PERIOD);
        self
    }

    /// Sets the time for which an expired entry is still used while the store fails. Default: 10 min. During
    /// an outage, a suspension may be ignored for this time. With zero, requests get 503 once the entry has
    /// expired.
    #[must_use]
    pub fn max_stale(mut self, period: Duration) -> Self {
        self.limits.max_stale = period.min(MAX_PERIOD);
        self
    }

    /// Sets the timeout of a call to the store, in real time. Default: 2 s. A longer timeout keeps requests
    /// waiting when the store hangs; a shorter one treats a slow store as failing.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits.timeout = limit.min(MAX_PERIOD);
        self
    }

    /// Sets the maximum number of cached known tenants, and the same number for unknown ones. Default: 10,000
    /// each. An entry takes about 200 bytes, plus its row. If `count` is 1,024 or more, the actual maximum
    /// may be up to 7% lower. If more tenants are in use, some requests wait for the store. Entries that were
    /// used only once are evicted first. Call this before the first request, because it clears the cache.
    #[must_use]
    pub fn max_tenants(mut self, count: u64) -> Self {
        self.cache = Arc::new(Cache::new(count));
        self
    }

    /// Sets the clock for the times above. The timeout of a call always uses real time.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl<R> CachedTenants<R> {
    /// Removes a tenant from the cache. Call this after you change the tenant, so that the next request sees
    /// the change. The results of lookups that began earlier are not cached.
    pub fn forget(&self, id: &TenantId) {
        let mut generation = self.cache.generation(id);
        *generation += 1;
        let removed = (self.cache.known.remove(id), self.cache.unknown.remove(id));
        drop(generation);
        // Dropped after the lock is released, because a row may run the store's code when it is dropped.
        drop(removed);
    }

    /// Removes all tenants, as [`forget`](Self::forget) does for one.
    pub fn clear(&self) {
        let mut generations: Vec<_> = self.cache.generations.iter().map(lock).collect();
        generations.iter_mut().for_each(|generation| **generation += 1);
        let removed: Vec<_> = self.cache.known.drain().chain(self.cache.unknown.drain()).collect();
        drop(generations);
        // Dropped after the lock is released, as in `forget`.
        drop(removed);
    }

    /// Looks the tenant up in the cache.
    fn lookup(&self, id: &TenantId) -> Lookup {
        let now = self.clock.elapsed();
        let Some(entry) = self.cache.get(id) else { return Lookup::Miss };
        let is_usable = now < entry.stale_until;
        match entry.outage {
            _ if now < entry.fresh_until => Lookup::Hit(Ok(entry.last)),
            Some(outage) if now < outage.failures.retry_at => {
                Lookup::Hit(if is_usable { Ok(entry.last) } else { Err(outage.failure) })
            }
            // An old failure does not show that the store still fails: the next request waits for the store.
            Some(outage)
                if is_usable
                    && now
                        < outage.failures.retry_at + self.limits.timeout + Backoff::STORE.cap =>
            {
                Lookup::Stale(entry.last)
            }
            _ => Lookup::Miss,
        }
    }
}

#[async_trait]
impl<R: TenantResolver> TenantResolver for CachedTenants<R> {
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        match self.lookup(id) {
            Lookup::Hit(answer) => Some(answer.map_err(BoxError::from)),
            Lookup::Stale(_) | Lookup::Miss => None,
        }
    }

    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        let refreshed = match self.lookup(id) {
            Lookup::Hit(answer) => return Ok(answer?),
            Lookup::Stale(last) => {
                drop(self.refresh(id));
                return Ok(last);
            }
            Lookup::Miss => self.refresh(id),
        };
        Ok(refreshed.await?)
    }
}

impl<R: TenantResolver> CachedTenants<R> {
    /// Calls the store once for all concurrent requests, and caches the answer. The call continues if the
    /// future is dropped.
    fn refresh(&self, id: &TenantId) -> impl Future<Output = Answer> + use<R> {
        let query = Query {
            id: id.clone(),
            generation: *self.cache.generation(id),
            started_at: self.clock.elapsed(),
        };
        let key = (query.id.clone(), query.generation);
        let waiter: Waiter<Answer> = self.cache.single_flight.run(key, || {
            let (this, query) = (self.clone(), query.clone());
            async move {
                // An earlier call may have finished between the lookup and this one.
                if let Lookup::Hit(answer) = this.lookup(&query.id) {
                    return answer;
                }
                let outcome = this.call_store(&query.id).await;
                this.cache_outcome(&query, outcome)
            }
        });
        let this = self.clone();
        async move {
            if let Some(answer) = waiter.wait().await {
                return answer;
            }
            match this.lookup(&query.id) {
                Lookup::Hit(answer) => answer, // another waiter has stored the failure
                _ => this.cache_outcome(&query, Err(Failure::Interrupted)),
            }
        }
    }

    async fn call_store(&self, id: &TenantId) -> Answer {
        match with_timeout(self.limits.timeout, self.store.resolve(id)).await {
            None => Err(Failure::TimedOut(self.limits.timeout)),
            Some(Err(why)) => Err(Failure::Store(why.into())),
            Some(Ok(Some(tenant))) if tenant.id() != id => Err(Failure::AnotherTenant),
            Some(Ok(answer)) => Ok(answer),
        }
    }

    /// Caches the outcome, unless `forget` was called since the query began. Returns the outcome, or the
    /// stale answer instead of a failure.
    fn cache_outcome(&self, query: &Query, outcome: Answer) -> Answer {
        let Query { id, generation, started_at } = query;
        // Locked until the cache is changed, so that a concurrent `forget` cannot run in between.
        let current = self.cache.generation(id);
        if *current != *generation {
            return outcome;
        }
        let (entry, answer) = match outcome {
            Ok(last) => {
                if self.cache.outage.record_success(|| self.clock.elapsed()) {
                    telemetry::store_recovered("tenant store");
                }
                (CachedTenant::new(last.clone(), *started_at, &self.limits), Ok(last))
            }
            Err(failure) => {
                let now = self.clock.elapsed();
                let mut entry = self.cache.get(id).unwrap_or_default();
                let is_usable = now < entry.stale_until;
                let is_new = self.cache.outage.record_failure(&failure, now);
                telemetry::tenant_store_failed(&failure, is_usable, is_new);
                entry.outage = Some(StoreOutage::after(entry.outage, failure.clone(), now));
                let answer = if is_usable { Ok(entry.last.clone()) } else { Err(failure) };
                (entry, answer)
            }
        };
        let removed = self.cache.insert(id, entry);
        drop(current);
        // Dropped after the lock is released, as in `forget`.
        drop(removed);
        answer
    }
}

impl<R> Clone for CachedTenants<R> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            clock: self.clock.clone(),
            limits: self.limits,
            cache: self.cache.clone(),
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for CachedTenants<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedTenants")
            .field("store", &self.store)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

struct Cache {
    /// Tenants that exist according to the store.
    known: Bounded<TenantId, CachedTenant, RandomState>,
    /// Tenants that do not exist, or for which the store has only failed so far.
    unknown: Bounded<TenantId, CachedTenant, RandomState>,
    /// Number of `forget` calls, by shard of tenants. It is part of the single-flight key, so that a request after
    /// `forget` never joins a lookup that began before.
    generations: Vec<Mutex<u64>>,
    hasher: RandomState,
    single_flight: SingleFlight<(TenantId, u64), Answer>,
    /// Logs when the store begins to fail, and when it answers again.
    outage: Outage,
}

impl Cache {
    fn new(max_tenants: u64) -> Self {
        let max_tenants = usize::try_from(max_tenants).unwrap_or(usize::MAX);
        Self {
            known: bounded(max_tenants),
            unknown: bounded(max_tenants),
            generations: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            single_flight: SingleFlight::default(),
            outage: Outage::default(),
        }
    }

    fn get(&self, id: &TenantId) -> Option<CachedTenant> {
        self.known.get(id).or_else(|| self.unknown.get(id))
    }

    /// Inserts an entry, and returns the entries that it replaced or evicted.
    fn insert(&self, id: &TenantId, entry: CachedTenant) -> RemovedEntries {
        let (target, other) = match entry.last {
            Some(_) => (&self.known, &self.unknown),
            None => (&self.unknown, &self.known),
        };
        let (moved, mut evicted) = (other.remove(id), Evicted::default());
        target.insert_with_lifecycle(id.clone(), entry, &mut evicted);
        RemovedEntries { _moved: moved, _evicted: evicted }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is less than its divisor")]
    fn generation(&self, id: &TenantId) -> MutexGuard<'_, u64> {
        lock(&self.generations[self.hasher.hash_one(id) as usize % SHARDS])
    }
}

/// The entries that an insertion removes: the replaced entry of the same tenant, and an evicted one.
type Evicted = [Option<(TenantId, CachedTenant)>; 2];

/// Entries that were removed from the cache and are not dropped yet.
#[must_use = "drop the entries after the lock is released"]
struct RemovedEntries {
    _moved: Option<(TenantId, CachedTenant)>,
    _evicted: Evicted,
}

type Answer = Result<Option<Tenant>, Failure>;

/// Returns whether the error comes from this cache, which has already logged it.
pub(crate) fn is_logged(error: &BoxError) -> bool {
    error.is::<Failure>()
}

enum Lookup {
    Hit(Answer),
    /// A call to the store is due, but the last one failed. The request does not wait for it.
    Stale(Option<Tenant>),
    Miss,
}

/// A call to the store.
#[derive(Clone)]
struct Query {
    id: TenantId,
    generation: u64,
    started_at: Duration,
}

/// The last answer of the store, and its failures since.
#[derive(Clone, Default)]
struct CachedTenant {
    last: Option<Tenant>,
    fresh_until: Duration,
    stale_until: Duration,
    outage: Option<StoreOutage>,
}

impl CachedTenant {
    fn new(last: Option<Tenant>, started_at: Duration, limits: &Limits) -> Self {
        let (fresh, stale) = match last {
            Some(_) => (jittered(limits.time_to_live, 0.1), limits.max_stale),
            None => (limits.negative_time_to_live, Duration::ZERO),
        };
        let fresh_until = started_at + fresh;
        Self { last, fresh_until, stale_until: fresh_until + stale, outage: None }
    }
}

/// The last failure of the store, and the back-off.
#[derive(Clone)]
struct StoreOutage {
    failure: Failure,
    failures: Failures,
}

impl StoreOutage {
    fn after(before: Option<Self>, failure: Failure, now: Duration) -> Self {
        let mut failures = before.map(|before| before.failures).unwrap_or_default();
        failures.add(Backoff::STORE, None, now);
        Self { failure, failures }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
enum Failure {
    #[error("the tenant store failed: {0}")]
    Store(#[source] Arc<dyn std::error::Error + Send + Sync>),
    #[error("the tenant store did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the tenant store returned another tenant")]
    AnotherTenant,
    #[error(
        "the lookup of the tenant was interrupted: the store panicked, or the tokio runtime is missing or shutting down"
    )]
    Interrupted,
}

/// A panic cannot leave a number half written, so poisoning is ignored.
fn lock(generation: &Mutex<u64>) -> MutexGuard<'_, u64> {
    generation.lock().unwrap_or_else(PoisonError::into_inner)
}
