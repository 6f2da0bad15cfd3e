//! [`CachedTenants`]: remembers what another resolver answered, and stands in while it is away.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Tenant, TenantResolver};
use crate::clock::{Clock, SystemClock, jittered, within};
use crate::error::BoxError;
use crate::identity::TenantId;
use crate::support::bounded::{Bounded, bounded};
use crate::support::retry::{Backoff, Failures};
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry::{self, Outage};

const GENERATIONS: usize = 64;
/// Periods are added up, and must not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A resolver in front of another one. Clones share what they remember.
///
/// A tenant within its [time to live](Self::time_to_live) is answered at once. After that a
/// request waits for the store, because a suspension must take effect; however many requests
/// wait, the store is asked once. Unknown tenants are remembered too, apart from the known ones,
/// so that a flood of invented names displaces nobody.
///
/// While the store fails, the last answer about a *known* tenant (active or suspended) stands in
/// for up to [`max_stale`](Self::max_stale), without waiting; the store is asked in the
/// background, 250 ms to 5 s apart for each tenant. "Unknown" never stands in: it would turn an
/// outage into a refusal. Without an answer to stand in, requests get the store's error (503).
///
/// An answer about another tenant than the one asked for counts as a failure of the store.
/// Several processes do not share what they remember: call [`forget`](Self::forget) in each.
///
/// Given to [`AuthBuilder::tenants`](crate::AuthBuilder::tenants), as a clone where the service forgets
/// tenants later:
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
/// // A store in a database or behind HTTP, in earnest.
/// let (auth, tenants) = protect(MemoryTenants::default())?;
/// // The row of this tenant has changed: the next request asks the store.
/// let id: TenantId = "acme".parse()?;
/// tenants.forget(&id);
/// # Ok(()) }
/// ```
pub struct CachedTenants<R> {
    store: Arc<R>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    memory: Arc<Memory>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    time_to_live: Duration,
    negative_time_to_live: Duration,
    max_stale: Duration,
    deadline: Duration,
}

impl<R: TenantResolver> CachedTenants<R> {
    /// Wraps `store`, with the defaults below.
    pub fn new(store: R) -> Self {
        Self {
            store: Arc::new(store),
            clock: Arc::new(SystemClock::default()),
            limits: Limits {
                time_to_live: Duration::from_secs(60),
                negative_time_to_live: Duration::from_secs(5),
                max_stale: Duration::from_secs(600),
                deadline: Duration::from_secs(2),
            },
            memory: Arc::new(Memory::new(10_000)),
        }
    }

    /// How long a known tenant is answered from memory: 60 s, ±10 % so that processes started
    /// together do not ask together. A suspension takes up to this long (and 10 %) to be seen;
    /// shorter costs more queries.
    #[must_use]
    pub fn time_to_live(mut self, period: Duration) -> Self {
        self.limits.time_to_live = period.min(LONGEST);
        self
    }

    /// How long an unknown tenant is answered from memory: 5 s. A tenant just created may be
    /// refused for this long; shorter lets invented names reach the store more often.
    #[must_use]
    pub fn negative_time_to_live(mut self, period: Duration) -> Self {
        self.limits.negative_time_to_live = period.min(LONGEST);
        self
    }

    /// How long past its time to live the last answer stands in while the store fails: 10 min.
    /// During an outage a suspension is not seen for this long; zero answers 503 instead.
    #[must_use]
    pub fn max_stale(mut self, period: Duration) -> Self {
        self.limits.max_stale = period.min(LONGEST);
        self
    }

    /// How long one question to the store may take, in real time: 2 s. Longer keeps requests
    /// waiting when the store hangs; shorter mistakes a slow store for a failing one.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.limits.deadline = limit.min(LONGEST);
        self
    }

    /// How many known tenants are remembered, and how many unknown ones besides: 10,000 each,
    /// some 200 bytes and the row apiece; of 1,024 and more it may be 7 % fewer. With more tenants in
    /// use than this, some requests wait for the store. Those not asked for again make room first; a
    /// tenant not asked for any more is remembered until then. Forgets what is remembered so far.
    #[must_use]
    pub fn max_tenants(mut self, count: u64) -> Self {
        self.memory = Arc::new(Memory::new(count));
        self
    }

    /// Measures the periods above with `clock`; the deadline stays in real time.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl<R> CachedTenants<R> {
    /// Forgets one tenant: after a change to it, call this and the next request sees the change.
    /// Lookups that began earlier are not remembered.
    pub fn forget(&self, id: &TenantId) {
        let mut generation = self.memory.generation(id);
        *generation += 1;
        let gone = (self.memory.known.remove(id), self.memory.others.remove(id));
        drop(generation);
        // A row of the store's is dropped by the store's code, which no lock waits for.
        drop(gone);
    }

    /// Forgets everything, as [`forget`](Self::forget) does for one tenant.
    pub fn clear(&self) {
        let mut generations: Vec<_> = self.memory.generations.iter().map(lock).collect();
        generations.iter_mut().for_each(|generation| **generation += 1);
        let gone: Vec<_> = self.memory.known.drain().chain(self.memory.others.drain()).collect();
        drop(generations);
        // As in `forget`.
        drop(gone);
    }

    /// What memory says about `id` now.
    fn held(&self, id: &TenantId) -> Held {
        let now = self.clock.elapsed();
        let Some(entry) = self.memory.get(id) else { return Held::Nothing };
        let stands_in = now < entry.stale_until;
        match entry.trouble {
            _ if now < entry.fresh_until => Held::Answer(Ok(entry.last)),
            Some(trouble) if now < trouble.failures.retry_at => {
                Held::Answer(if stands_in { Ok(entry.last) } else { Err(trouble.failure) })
            }
            // Old trouble says nothing about the store now: after a pause, a request waits again.
            Some(trouble)
                if stands_in
                    && now
                        < trouble.failures.retry_at + self.limits.deadline + Backoff::STORE.cap =>
            {
                Held::StandIn(entry.last)
            }
            _ => Held::Nothing,
        }
    }
}

#[async_trait]
impl<R: TenantResolver> TenantResolver for CachedTenants<R> {
    fn try_resolve(&self, id: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        match self.held(id) {
            Held::Answer(answer) => Some(answer.map_err(BoxError::from)),
            Held::StandIn(_) | Held::Nothing => None,
        }
    }

    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        let asked = match self.held(id) {
            Held::Answer(answer) => return Ok(answer?),
            Held::StandIn(last) => {
                drop(self.ask(id));
                return Ok(last);
            }
            Held::Nothing => self.ask(id),
        };
        Ok(asked.await?)
    }
}

impl<R: TenantResolver> CachedTenants<R> {
    /// Has the store asked, once for all who want to know. Goes on when the future is dropped.
    fn ask(&self, id: &TenantId) -> impl Future<Output = Answer> + use<R> {
        let question = Question {
            id: id.clone(),
            generation: *self.memory.generation(id),
            asked_at: self.clock.elapsed(),
        };
        let key = (question.id.clone(), question.generation);
        let waiter: Waiter<Answer> = self.memory.flights.run(key, || {
            let (this, question) = (self.clone(), question.clone());
            async move {
                // An earlier flight may have wait between the look into memory and this one.
                if let Held::Answer(answer) = this.held(&question.id) {
                    return answer;
                }
                let outcome = this.ask_store(&question.id).await;
                this.learn(&question, outcome)
            }
        });
        let this = self.clone();
        async move {
            if let Some(answer) = waiter.wait().await {
                return answer;
            }
            match this.held(&question.id) {
                Held::Answer(answer) => answer, // another who waited has noted it
                _ => this.learn(&question, Err(Failure::Died)),
            }
        }
    }

    async fn ask_store(&self, id: &TenantId) -> Answer {
        match within(self.limits.deadline, self.store.resolve(id)).await {
            None => Err(Failure::TimedOut(self.limits.deadline)),
            Some(Err(why)) => Err(Failure::Store(why.into())),
            Some(Ok(Some(tenant))) if tenant.id() != id => Err(Failure::AnotherTenant),
            Some(Ok(answer)) => Ok(answer),
        }
    }

    /// Remembers the outcome, unless the tenant was forgotten after the question was asked, and
    /// turns a failure into the answer that stands in for it.
    fn learn(&self, question: &Question, outcome: Answer) -> Answer {
        let Question { id, generation, asked_at } = question;
        // Held until memory is changed, so that `forget` comes before or after, never between.
        let current = self.memory.generation(id);
        if *current != *generation {
            return outcome;
        }
        let (entry, answer) = match outcome {
            Ok(last) => {
                if self.memory.outage.ends(|| self.clock.elapsed()) {
                    telemetry::store_recovered("tenant store");
                }
                (Entry::new(last.clone(), *asked_at, &self.limits), Ok(last))
            }
            Err(failure) => {
                let now = self.clock.elapsed();
                let mut entry = self.memory.get(id).unwrap_or_default();
                let stands_in = now < entry.stale_until;
                let is_new = self.memory.outage.begins(&failure, now);
                telemetry::tenant_store_failed(&failure, stands_in, is_new);
                entry.trouble = Some(Trouble::after(entry.trouble, failure.clone(), now));
                let answer = if stands_in { Ok(entry.last.clone()) } else { Err(failure) };
                (entry, answer)
            }
        };
        let gone = self.memory.put(id, entry);
        drop(current);
        // As in `forget`.
        drop(gone);
        answer
    }
}

impl<R> Clone for CachedTenants<R> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            clock: self.clock.clone(),
            limits: self.limits,
            memory: self.memory.clone(),
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

struct Memory {
    /// Tenants that the store knew when last asked.
    known: Bounded<TenantId, Entry, RandomState>,
    /// Those it did not, or that it could not be asked about yet.
    others: Bounded<TenantId, Entry, RandomState>,
    /// How often the tenants that share a slot were forgotten. Part of a flight's key, so that
    /// nobody who comes after a `forget` joins a lookup from before it.
    generations: Vec<Mutex<u64>>,
    slot: RandomState,
    flights: SingleFlight<(TenantId, u64), Answer>,
    /// What the log was told of the store.
    outage: Outage,
}

impl Memory {
    fn new(max_tenants: u64) -> Self {
        let max_tenants = usize::try_from(max_tenants).unwrap_or(usize::MAX);
        Self {
            known: bounded(max_tenants),
            others: bounded(max_tenants),
            generations: (0..GENERATIONS).map(|_| Mutex::default()).collect(),
            slot: RandomState::new(),
            flights: SingleFlight::default(),
            outage: Outage::default(),
        }
    }

    fn get(&self, id: &TenantId) -> Option<Entry> {
        self.known.get(id).or_else(|| self.others.get(id))
    }

    /// Returns what had to go.
    fn put(&self, id: &TenantId, entry: Entry) -> Gone {
        let (into, out_of) = match entry.last {
            Some(_) => (&self.known, &self.others),
            None => (&self.others, &self.known),
        };
        let (moved, mut displaced) = (out_of.remove(id), Displaced::default());
        into.insert_with_lifecycle(id.clone(), entry, &mut displaced);
        Gone { _moved: moved, _displaced: displaced }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is less than its divisor")]
    fn generation(&self, id: &TenantId) -> MutexGuard<'_, u64> {
        lock(&self.generations[self.slot.hash_one(id) as usize % GENERATIONS])
    }
}

/// What an insertion takes out of a map: the entry of the same name, and one that made room.
type Displaced = [Option<(TenantId, Entry)>; 2];

/// Entries that are in memory no more, to be dropped.
#[must_use = "to be dropped after the lock"]
struct Gone {
    _moved: Option<(TenantId, Entry)>,
    _displaced: Displaced,
}

type Answer = Result<Option<Tenant>, Failure>;

/// Whether the log was told of this error here.
pub(crate) fn is_told(error: &BoxError) -> bool {
    error.is::<Failure>()
}

enum Held {
    Answer(Answer),
    /// The store is due to be asked, but failed a moment ago: nobody waits for it.
    StandIn(Option<Tenant>),
    Nothing,
}

#[derive(Clone)]
struct Question {
    id: TenantId,
    generation: u64,
    asked_at: Duration,
}

/// What the store said last, and how it has failed since.
#[derive(Clone, Default)]
struct Entry {
    last: Option<Tenant>,
    fresh_until: Duration,
    stale_until: Duration,
    trouble: Option<Trouble>,
}

impl Entry {
    fn new(last: Option<Tenant>, asked_at: Duration, limits: &Limits) -> Self {
        let (fresh, stale) = match last {
            Some(_) => (jittered(limits.time_to_live, 0.1), limits.max_stale),
            None => (limits.negative_time_to_live, Duration::ZERO),
        };
        let fresh_until = asked_at + fresh;
        Self { last, fresh_until, stale_until: fresh_until + stale, trouble: None }
    }
}

/// The store's latest failures in a row.
#[derive(Clone)]
struct Trouble {
    failure: Failure,
    failures: Failures,
}

impl Trouble {
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
    #[error("the tenant store gave no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the tenant store answered with another tenant")]
    AnotherTenant,
    #[error("the lookup of the tenant died")]
    Died,
}

/// A panic while the lock is held leaves the number whole, so poisoning carries no information.
fn lock(generation: &Mutex<u64>) -> MutexGuard<'_, u64> {
    generation.lock().unwrap_or_else(PoisonError::into_inner)
}
