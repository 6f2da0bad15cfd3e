//! The life of one issuer's key set: fetched, used, renewed, kept through outages, and given up.
//!
//! ```text
//! Never ──fetched──▶ Fresh ──TTL──▶ Due ──fetch failed──▶ Stale ──max_stale──▶ Dead
//!                      ▲              └────────fetched───────┴───────────────────┘
//! ```
//! A request whose key is at hand only looks at the set and the clock. Fetching happens in tasks of
//! its own, one at a time; requests wait for one only if they cannot do without.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::budget::Budget;
use super::grounds::{Grounds, Reliance, millis};
use super::health::{IssuerHealth, KeyState, list};
use super::http::{Answer, Http};
use super::jwk::KeyQuery;
use super::set::KeySet;
use super::source::{FetchFault, Source};
use crate::clock::{self, Clock};
use crate::config::{Algorithm, IssuerConfig, JwksSettings};
use crate::error::AuthError;
use crate::flight::{Flights, Seat};
use crate::telemetry;

/// What the provider's `Cache-Control` may ask for.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// The pause after a failed fetch: 1 s, doubling up to 60 s, with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long `Retry-After` is kept to, while there are keys and while there are none: without keys
/// every request is refused, so the provider is asked again sooner than it may want.
const MAX_RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(60));

/// The longest duration taken from the settings: moments are sums of durations, and `Duration::MAX`
/// for "never" must not make them overflow.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How many unknown key ids may cause a fetch before the cool-down governs.
const MISS_BURST: f64 = 2.0;

/// How many keys with one id, or without one, are tried for a token. Each costs 20 to 70 µs, also
/// for a forged token.
const MAX_CANDIDATES: usize = 8;

/// What came of looking for a signature's key.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The signature verifies, on these grounds, with a key that counts until then.
    Verified(Grounds, Option<SystemTime>),
    /// The key named fits, and the signature does not verify with it.
    BadSignature,
    /// The key named is for other algorithms.
    WrongAlgorithm,
    /// There is no usable set; or it has no such key; or no key is named and none verifies.
    NoKey {
        /// How many sets had come by then.
        as_of: u64,
    },
}

/// Whose fetch brought the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// It began after the caller asked: what it did not bring is not published.
    ByOwnFetch,
    /// It was under way already, or came while we looked: a key published since may be missing.
    ByOthersFetch,
}

/// Why waiting for keys was no use.
#[derive(Debug)]
pub(crate) enum NoNewKeys {
    /// The provider's set is known, and may not be asked for again so soon.
    AskedEnough,
    /// The provider did not answer: the token may be good.
    Unavailable { retry_after: Duration, fault: Option<Arc<FetchFault>> },
}

impl From<NoNewKeys> for AuthError {
    fn from(reason: NoNewKeys) -> Self {
        match reason {
            NoNewKeys::AskedEnough => crate::error::InvalidToken::Key.into(),
            NoNewKeys::Unavailable { retry_after, fault } => Self::Unavailable {
                what: "keys",
                retry_after: Some(retry_after),
                source: fault.map(|fault| fault as _),
            },
        }
    }
}

type Fetched = Result<(), Arc<FetchFault>>;

/// The key set of one issuer.
#[derive(Debug)]
pub(crate) struct Keys {
    issuer: Arc<str>,
    /// As what metrics count the issuer.
    series: Box<str>,
    source: Source,
    settings: JwksSettings,
    algorithms: Vec<Algorithm>,
    clock: Arc<dyn Clock>,
    held: ArcSwapOption<Held>,
    /// How many sets have come.
    sets: AtomicU64,
    /// When the set should next be asked for in the background, in milliseconds of the clock.
    due: AtomicU64,
    /// Until when signatures found good need not be verified again: the set is due then, or dead.
    reliance: Reliance,
    /// Whether the log was told that tokens fit more keys than are tried.
    told_of_bound: AtomicBool,
    record: Mutex<Record>,
    flights: Flights<(), Fetched>,
}

/// A set as it arrived.
struct Published {
    set: KeySet,
    ttl: Duration,
}

/// The set in force.
#[derive(Debug)]
struct Held {
    set: KeySet,
    fresh_until: Duration,
    dead_at: Duration,
}

/// What happened so far.
#[derive(Debug)]
struct Record {
    failures: u32,
    /// How often the set was purged: what was asked for before a purge is not used after it.
    purges: u64,
    /// Not before this moment is a missing set asked for again.
    next_attempt: Duration,
    /// Not before this moment is any set asked for: the provider said so.
    left_alone_until: Duration,
    last_attempt: Option<SystemTime>,
    last_fault: Option<Arc<FetchFault>>,
    /// How often an unknown key id may cause a fetch.
    misses: Budget,
}

impl Keys {
    pub(crate) fn new(
        issuer: Arc<str>,
        series: Box<str>,
        config: &IssuerConfig,
        http: Arc<Http>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, url::ParseError> {
        Ok(Self {
            source: Source::new(config, &issuer, http, clock.clone())?,
            settings: within_reason(&config.jwks),
            algorithms: config.algorithms.clone(),
            held: ArcSwapOption::empty(),
            sets: AtomicU64::new(0),
            due: AtomicU64::new(0),
            reliance: Reliance::default(),
            told_of_bound: AtomicBool::new(false),
            record: Mutex::new(Record {
                failures: 0,
                purges: 0,
                next_attempt: Duration::ZERO,
                left_alone_until: Duration::ZERO,
                last_attempt: None,
                last_fault: None,
                misses: Budget::new(MISS_BURST, config.jwks.cooldown, clock.elapsed()),
            }),
            flights: Flights::default(),
            issuer,
            series,
            clock,
        })
    }

    /// Judges a signature by the keys at hand. Takes no lock; starts a renewal in the background
    /// when one is due.
    pub(crate) fn verify(
        self: &Arc<Self>,
        query: &KeyQuery<'_>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Verdict {
        let now = self.clock.elapsed();
        // Counted before looking: a set that comes in between is looked at the next time.
        let no_key = Verdict::NoKey { as_of: self.sets.load(Ordering::Acquire) };
        let held = self.held.load();
        let Some(held) = held.as_ref().filter(|held| now < held.dead_at) else {
            return no_key;
        };
        self.renew_if_due(now);
        let mut candidates = held.set.candidates(query).peekable();
        if candidates.peek().is_none() {
            return no_key;
        }
        let mut fitting =
            candidates.filter_map(|key| Some((key, key.prepared(algorithm)?))).peekable();
        let some_fit = fitting.peek().is_some();
        let mut tried = fitting.by_ref().take(MAX_CANDIDATES);
        let found = tried.find(|(_, key)| key.verifies(message, signature));
        if found.is_none() && fitting.next().is_some() {
            self.tell_of_bound();
        }
        match (found, query.kid) {
            (Some((key, _)), _) => {
                let grounds = Grounds { key: key.withdrawn().clone(), set: self.reliance.clone() };
                Verdict::Verified(grounds, key.ends(query.leeway))
            }
            // Without a name, only the signature can tell that the key is a new one.
            (None, None) => no_key,
            (None, Some(_)) if some_fit => Verdict::BadSignature,
            (None, Some(_)) => Verdict::WrongAlgorithm,
        }
    }

    fn tell_of_bound(&self) {
        if !self.told_of_bound.swap(true, Ordering::Relaxed) {
            telemetry::keys_not_all_tried(&self.issuer, MAX_CANDIDATES);
        }
    }

    /// Waits for the fetch under way, or for a new one if it may be asked for. Tells which. Does
    /// neither if a set has come since `as_of`.
    pub(crate) async fn renew(self: &Arc<Self>, as_of: u64) -> Result<Renewed, NoNewKeys> {
        let keys = Arc::clone(self);
        let fetch = move || async move { keys.fetch().await };
        let permit = || match self.sets.load(Ordering::Acquire) == as_of {
            true => self.permit_fetch(Budget::take).map_err(Err),
            false => Err(Ok(Renewed::ByOthersFetch)),
        };
        let seat = match self.flights.board_if((), permit, fetch) {
            Ok(seat) => seat,
            Err(answer) => return answer,
        };
        let renewed = if seat.is_new() { Renewed::ByOwnFetch } else { Renewed::ByOthersFetch };
        match clock::within(self.settings.wait, seat.landed()).await {
            Some(Some(Ok(()))) => Ok(renewed),
            Some(Some(Err(fault))) => Err(self.unavailable(Some(fault))),
            Some(None) | None => Err(self.unavailable(None)),
        }
    }

    /// Renews the set whatever its age, and waits for it.
    pub(crate) async fn refresh(self: &Arc<Self>) -> Result<(), NoNewKeys> {
        match self.start_fetch().landed().await {
            Some(Ok(())) => Ok(()),
            Some(Err(fault)) => Err(self.unavailable(Some(fault))),
            None => Err(self.unavailable(None)),
        }
    }

    /// Forgets the set: every token of the issuer waits for a new one, asked for from now on.
    pub(crate) fn purge(&self) {
        let mut record = self.record();
        if let Some(held) = self.held.swap(None) {
            held.set.all.iter().for_each(|key| key.withdraw());
        }
        record.purges += 1;
        record.next_attempt = Duration::ZERO;
        record.left_alone_until = Duration::ZERO;
        self.set_due(Duration::ZERO);
    }

    /// Whether the set is too old to be used. One that never was, or was purged, is not.
    pub(crate) fn is_dead(&self) -> bool {
        let now = self.clock.elapsed();
        self.held.load().as_ref().is_some_and(|held| now >= held.dead_at)
    }

    /// Reports, and asks for the set if it is due: a readiness probe keeps an idle service ready.
    pub(crate) fn health(self: &Arc<Self>) -> IssuerHealth {
        let now = self.clock.elapsed();
        self.renew_if_due(now);
        let held = self.held.load();
        let record = self.record();
        let state = match held.as_deref() {
            None => KeyState::Never,
            Some(held) if now >= held.dead_at => KeyState::Dead,
            Some(_) if record.failures > 0 => KeyState::Stale,
            Some(held) if now >= held.fresh_until => KeyState::Due,
            Some(_) => KeyState::Fresh,
        };
        let due = Duration::from_millis(self.due.load(Ordering::Relaxed));
        let usable = held.as_deref().filter(|held| now < held.dead_at);
        IssuerHealth {
            issuer: self.issuer.to_string(),
            state,
            keys: usable.map_or(0, |held| held.set.all.len()),
            unusable_keys: usable.map_or(0, |held| held.set.unusable.len()),
            unusable: usable.map_or_else(Vec::new, |held| held.set.unusable.clone()),
            last_attempt: record.last_attempt,
            last_error: record.last_fault.as_ref().map(ToString::to_string),
            next_attempt: self.clock.now() + due.saturating_sub(now),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Every write to the record is a plain assignment, so a panic cannot leave it half done.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew_if_due(self: &Arc<Self>, now: Duration) {
        if millis(now) >= self.due.load(Ordering::Relaxed) {
            drop(self.start_fetch());
        }
    }

    /// Why [`renew`](Self::renew) would bring nothing, if that is certain without waiting. It spares
    /// whoever floods a service with unknown key ids the price of a wait.
    pub(crate) fn no_new_keys(&self, as_of: u64) -> Option<NoNewKeys> {
        // In this order: a fetch that is over by now has been counted.
        if self.flights.is_under_way(&()) || self.sets.load(Ordering::Acquire) != as_of {
            return None;
        }
        self.permit_fetch(Budget::has_left).err()
    }

    /// Whether a request may cause a fetch: without a set, as soon as the back-off is over; with
    /// one, while the budget for unknown key ids lasts. The budget is charged at the attempt, so that
    /// neither failing nor hanging up earns another.
    fn permit_fetch(
        &self,
        of_budget: impl Fn(&mut Budget, Duration) -> bool,
    ) -> Result<(), NoNewKeys> {
        let now = self.clock.elapsed();
        let has_keys = self.held.load().as_ref().is_some_and(|held| now < held.dead_at);
        let mut record = self.record();
        if !has_keys {
            let wait = record.next_attempt.saturating_sub(now);
            if wait.is_zero() {
                return Ok(());
            }
            let fault = record.last_fault.clone();
            return Err(NoNewKeys::Unavailable { retry_after: wait, fault });
        }
        let left_alone = record.left_alone_until.saturating_sub(now);
        if !left_alone.is_zero() {
            let fault = record.last_fault.clone();
            return Err(NoNewKeys::Unavailable { retry_after: left_alone, fault });
        }
        if of_budget(&mut record.misses, now) {
            return Ok(());
        }
        match &record.last_fault {
            None => Err(NoNewKeys::AskedEnough),
            // We do not know the provider's present set, so we cannot call the key unknown.
            Some(fault) => Err(NoNewKeys::Unavailable {
                retry_after: self.settings.cooldown,
                fault: Some(fault.clone()),
            }),
        }
    }

    fn start_fetch(self: &Arc<Self>) -> Seat<Fetched> {
        let keys = Arc::clone(self);
        self.flights.board((), move || async move { keys.fetch().await })
    }

    /// One fetch, from asking to taking the answer. Only one runs at a time (they share a flight),
    /// so an older answer cannot overwrite a newer one.
    async fn fetch(&self) -> Fetched {
        loop {
            let purges = self.begin();
            let answer = self.source.fetch(&self.settings).await;
            let outcome = answer.and_then(|answer| self.read(&answer)).map_err(Arc::new);
            // Asked for before a purge, the set may hold the very key that was purged: ask again.
            if let Some(fetched) = self.conclude(outcome, purges) {
                return fetched;
            }
        }
    }

    /// Writes down that the set is asked for. Tells how many purges there were before.
    fn begin(&self) -> u64 {
        let mut record = self.record();
        record.last_attempt = Some(self.clock.now());
        // Should this task die, the next attempt is still due.
        let patience = self.settings.timeout * 4;
        self.set_due(self.clock.elapsed() + patience);
        record.purges
    }

    fn read(&self, answer: &Answer) -> Result<Published, FetchFault> {
        let (allowed, max_keys) = (&self.algorithms, self.settings.max_keys);
        let set = match std::str::from_utf8(&answer.body) {
            Ok(text) if answer.is_given => KeySet::read_given(text, allowed, max_keys)?,
            _ => KeySet::read(&answer.body, allowed, max_keys)?,
        };
        let (floor, ceiling) = TTL_BOUNDS;
        let ttl = answer.max_age.map_or(self.settings.ttl, |age| age.clamp(floor, ceiling));
        Ok(Published { set, ttl })
    }

    /// Puts the set into force, or notes why there is none, and when the next is due. `None` if the
    /// set was purged after the count of `purges`.
    fn conclude(
        &self,
        outcome: Result<Published, Arc<FetchFault>>,
        purges: u64,
    ) -> Option<Fetched> {
        let now = self.clock.elapsed();
        let mut record = self.record();
        if record.purges != purges {
            return None;
        }
        record.last_fault = outcome.as_ref().err().cloned();
        let before = self.held.load_full();
        let fetched = match outcome {
            Ok(published) => {
                telemetry::keys_refreshed(&self.issuer, &self.series, published.set.all.len());
                self.tell_of_unusable(&published.set, before.as_deref().map(|held| &held.set));
                let held = Held::new(published, before.as_deref(), now, self.settings.max_stale);
                record.failures = 0;
                record.left_alone_until = Duration::ZERO;
                record.next_attempt = held.fresh_until;
                self.held.store(Some(Arc::new(held)));
                self.sets.fetch_add(1, Ordering::Release);
                Ok(())
            }
            Err(fault) => {
                telemetry::keys_not_refreshed(&self.issuer, &self.series, &fault, before.is_some());
                let (with_keys, without) = MAX_RETRY_AFTER;
                let longest = if before.is_some() { with_keys } else { without };
                let asked_for = fault.retry_after().unwrap_or_default().min(longest);
                let pause = clock::backoff(BACKOFF.0, BACKOFF.1, record.failures);
                record.left_alone_until = now + asked_for;
                record.next_attempt = now + pause.max(asked_for);
                record.failures = record.failures.saturating_add(1);
                Err(fault)
            }
        };
        self.set_due(record.next_attempt);
        Some(fetched)
    }

    /// Logs the keys that are left out, once for each change of them.
    fn tell_of_unusable(&self, now: &KeySet, before: Option<&KeySet>) {
        if before.is_some_and(|before| before.unusable == now.unusable) {
            return;
        }
        let (broken, other): (Vec<_>, Vec<_>) =
            now.unusable.iter().cloned().partition(|key| key.is_fault);
        if !broken.is_empty() {
            telemetry::keys_broken(&self.issuer, &list(&broken));
        }
        if !other.is_empty() {
            telemetry::keys_of_others(&self.issuer, &list(&other));
        }
    }

    /// Notes when the set is to be asked for. Whoever calls this holds the record, and has changed
    /// the set before, so that due date and reliance are of the same set.
    fn set_due(&self, at: Duration) {
        let dead_at = self.held.load().as_ref().map_or(Duration::ZERO, |held| held.dead_at);
        self.due.store(millis(at), Ordering::Relaxed);
        self.reliance.set(at.min(dead_at));
    }

    fn unavailable(&self, fault: Option<Arc<FetchFault>>) -> NoNewKeys {
        let wait = self.record().next_attempt.saturating_sub(self.clock.elapsed());
        let retry_after = wait.clamp(Duration::from_secs(1), BACKOFF.1);
        NoNewKeys::Unavailable { retry_after, fault }
    }
}

impl Held {
    /// The set from now on. It is due before it dies, whatever the provider and jitter say.
    fn new(published: Published, before: Option<&Held>, now: Duration, stale: Duration) -> Self {
        let Published { mut set, ttl } = published;
        if let Some(before) = before {
            set.succeed(&before.set);
        }
        let fresh_for = clock::jittered(ttl, 0.1).min(stale);
        Self { set, fresh_until: now + fresh_for, dead_at: now + stale }
    }
}

fn within_reason(settings: &JwksSettings) -> JwksSettings {
    JwksSettings {
        ttl: settings.ttl.min(FOREVER),
        max_stale: settings.max_stale.min(FOREVER),
        timeout: settings.timeout.min(FOREVER),
        ..settings.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::jwk::CertificateHash;
    use super::*;

    #[tokio::test]
    async fn who_looked_before_a_set_came_looks_again_and_asks_for_no_other() {
        // Nobody is there: asking would fail.
        let config = IssuerConfig::new("http://127.0.0.1:1").allow_loopback_http(true);
        let clock = Arc::new(clock::SystemClock::default());
        let keys =
            Keys::new("issuer".into(), "issuer".into(), &config, Arc::default(), clock).unwrap();
        let keys = Arc::new(keys);
        let query = KeyQuery {
            kid: None,
            certificate: &CertificateHash::default(),
            issuer: "issuer",
            now: SystemTime::UNIX_EPOCH,
            leeway: Duration::ZERO,
        };
        let verdict = keys.verify(&query, Algorithm::ES256, b"", b"");
        assert!(matches!(verdict, Verdict::NoKey { as_of: 0 }), "{verdict:?}");
        keys.sets.store(1, Ordering::Release);
        assert!(matches!(keys.renew(0).await, Ok(Renewed::ByOthersFetch)));
        assert!(matches!(keys.renew(1).await, Err(NoNewKeys::Unavailable { .. })));
    }
}
