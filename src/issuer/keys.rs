//! The life of a key set: fetched, used, renewed, kept through outages, and given up.
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
use url::Url;

use super::attempts::{AtomicInstant, Attempts};
use super::health::{IssuerHealth, KeyState, list};
use super::http::{Answer, Http};
use super::jwk::KeyQuery;
use super::key_sets::{KeySetId, KeySets};
use super::lease::KeyLease;
use super::quota::Quota;
use super::set::KeySet;
use super::source::{FetchFault, Source};
use crate::clock::{self, Clock};
use crate::config::{Algorithm, JwksSettings};
use crate::error::AuthError;
use crate::support::retry::{Rate, TokenBucket};
use crate::support::single_flight::{SingleFlight, Waiter};
use crate::support::telemetry::{self, Outage};

/// What the provider's `Cache-Control` may ask for.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// The longest duration taken from the settings: moments are sums of durations, and `Duration::MAX`
/// for "never" must not make them overflow.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How many keys with one id, or without one, are tried for a token. Each costs 20 to 70 µs, also
/// for a forged token.
pub(super) const MAX_CANDIDATES: usize = 8;

/// What came of looking for a signature's key.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The signature verifies, on these lease, with a key that counts until then.
    Verified(KeyLease, Option<SystemTime>),
    /// The key named fits, and the signature does not verify with it. Another key may be published
    /// under its name by now.
    BadSignature(Seen),
    /// The key named is for other algorithms. The same holds.
    WrongAlgorithm(Seen),
    /// There is no usable set; or it has no such key; or no key is named and none verifies.
    NoKey(Seen),
}

/// The keys that a verdict was given by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// `None` where it was not known yet which set it is.
    pub(super) keys: Option<Arc<Keys>>,
    /// How many sets had come by then.
    pub(super) sets: u64,
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
#[derive(Debug, Clone)]
pub(crate) enum NoNewKeys {
    /// The provider's set is known, and may not be asked for again so soon.
    AskedEnough,
    /// The provider did not answer: the token may be good.
    Unavailable { retry_after: Duration, fault: Option<Arc<FetchFault>> },
}

impl NoNewKeys {
    /// What went wrong, if anything did.
    pub(super) fn fault(self) -> Option<Arc<FetchFault>> {
        match self {
            Self::AskedEnough => None,
            Self::Unavailable { fault, .. } => fault,
        }
    }
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

/// A key set, for all issuers that name its URL.
#[derive(Debug)]
pub(crate) struct Keys {
    id: KeySetId,
    /// As what log and metrics know it: the issuer that named it first, or the template of that.
    series: Box<str>,
    settings: JwksSettings,
    http: Arc<Http>,
    clock: Arc<dyn Clock>,
    held: ArcSwapOption<Held>,
    /// How many sets have come.
    sets: AtomicU64,
    /// When the set should next be asked for in the background.
    due: AtomicInstant,
    /// When it was last asked for, and when that last failed: zero if it succeeded since.
    fetched_at: AtomicInstant,
    failed_at: AtomicInstant,
    /// Until when signatures found good need not be verified again: the set is due then, or dead.
    valid_until: Arc<AtomicInstant>,
    /// Whether the log was told that tokens fit more keys than are tried.
    told_of_bound: AtomicBool,
    /// What the log was told of fetches: of this set's own, and of those of all sets of its template
    /// that never came.
    outage: Outage,
    never: Option<Arc<Outage>>,
    record: Mutex<Record>,
    flights: SingleFlight<(), Fetched>,
}

/// The set in force.
#[derive(Debug)]
struct Held {
    set: KeySet,
    fresh_until: Duration,
    dead_at: Duration,
}

/// What happened so far.
#[derive(Debug, Default)]
struct Record {
    attempts: Attempts,
    /// How often the set was purged: what was asked for before a purge is not used after it.
    purges: u64,
    /// How often an unknown key id may cause a fetch.
    misses: TokenBucket,
}

impl Keys {
    pub(super) fn new(id: KeySetId, series: &str, key_sets: &KeySets) -> Self {
        Self {
            settings: within_reason(&id.settings),
            held: ArcSwapOption::empty(),
            sets: AtomicU64::new(0),
            due: AtomicInstant::default(),
            fetched_at: AtomicInstant::default(),
            failed_at: AtomicInstant::default(),
            valid_until: Arc::default(),
            told_of_bound: AtomicBool::new(false),
            outage: Outage::default(),
            never: key_sets.outage_of_template("keys", series),
            record: Mutex::default(),
            flights: SingleFlight::default(),
            id,
            series: series.into(),
            http: key_sets.http.clone(),
            clock: key_sets.clock.clone(),
        }
    }

    /// Whether a key at hand made a signature. Each that is tried takes one of `tries`. Takes no
    /// lock, and asks nobody.
    pub(super) fn has_made(
        &self,
        query: &KeyQuery<'_>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
        tries: &mut usize,
    ) -> bool {
        let now = self.clock.elapsed();
        let held = self.held.load();
        let Some(held) = held.as_ref().filter(|held| now < held.dead_at) else { return false };
        let fitting = held.set.candidates(query).filter_map(|key| key.prepared(algorithm));
        for key in fitting.take(*tries) {
            *tries -= 1;
            if key.verifies(message, signature) {
                return true;
            }
        }
        false
    }

    /// Judges a signature by the keys at hand. Takes no lock, and asks nobody.
    pub(crate) fn verify(
        self: &Arc<Self>,
        query: &KeyQuery<'_>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Verdict {
        let now = self.clock.elapsed();
        // Counted before looking: a set that comes in between is looked at the next time.
        let sets = self.sets.load(Ordering::Acquire);
        let seen = || Seen { keys: Some(self.clone()), sets };
        let held = self.held.load();
        let Some(held) = held.as_ref().filter(|held| now < held.dead_at) else {
            return Verdict::NoKey(seen());
        };
        let mut candidates = held.set.candidates(query).peekable();
        if candidates.peek().is_none() {
            return Verdict::NoKey(seen());
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
                let lease = KeyLease {
                    removed: key.removed().clone(),
                    valid_until: self.valid_until.clone(),
                };
                Verdict::Verified(lease, key.ends(query.leeway))
            }
            // Without a name, only the signature can tell that the key is a new one.
            (None, None) => Verdict::NoKey(seen()),
            (None, Some(_)) if some_fit => Verdict::BadSignature(seen()),
            (None, Some(_)) => Verdict::WrongAlgorithm(seen()),
        }
    }

    fn tell_of_bound(&self) {
        if !self.told_of_bound.swap(true, Ordering::Relaxed) {
            telemetry::keys_not_all_tried(&self.series, MAX_CANDIDATES);
        }
    }

    /// Waits for the fetch under way, or for a new one if it may be asked for. Tells which. Does
    /// neither if a set has come since there were so many.
    pub(crate) async fn renew(
        self: &Arc<Self>,
        sets: u64,
        quota: Option<&Quota>,
    ) -> Result<Renewed, NoNewKeys> {
        let mut others = Vec::new();
        let waiter = self.run_if(|| match self.sets() == sets {
            true => self.permit_fetch(quota, &mut others).map_err(Err),
            false => Err(Ok(Renewed::ByOthersFetch)),
        });
        // Not before: two sets that ask for each other would wait for each other.
        others.iter().for_each(|other| drop(other.start_fetch()));
        match waiter {
            Ok(waiter) => self.wait(waiter).await,
            Err(answer) => answer,
        }
    }

    /// Waits until there are keys that can be used, however long that takes. `in_a_hurry` asks for
    /// them also while the last failure says to wait, unless the provider itself said so.
    pub(crate) async fn obtain(self: &Arc<Self>, in_a_hurry: bool) -> Result<Renewed, NoNewKeys> {
        let waiter = self.run_if(|| match self.is_usable() {
            true => Err(Ok(Renewed::ByOthersFetch)),
            false => self.permit_first_fetch(in_a_hurry).map_err(Err),
        });
        match waiter {
            Ok(waiter) => self.outcome(waiter).await,
            Err(answer) => answer,
        }
    }

    fn run_if<E>(
        self: &Arc<Self>,
        permit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Waiter<Fetched>, E> {
        let keys = Arc::clone(self);
        self.flights.run_if((), permit, move || async move { keys.fetch().await })
    }

    /// Waits for a fetch as long as a request may.
    async fn wait(&self, waiter: Waiter<Fetched>) -> Result<Renewed, NoNewKeys> {
        let waited = clock::within(self.settings.wait, self.outcome(waiter)).await;
        waited.unwrap_or_else(|| Err(self.unavailable(None)))
    }

    async fn outcome(&self, waiter: Waiter<Fetched>) -> Result<Renewed, NoNewKeys> {
        let renewed = if waiter.is_new() { Renewed::ByOwnFetch } else { Renewed::ByOthersFetch };
        match waiter.wait().await {
            Some(Ok(())) => Ok(renewed),
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
        record.attempts.next = Duration::ZERO;
        record.attempts.left_alone_until = Duration::ZERO;
        self.set_due(Duration::ZERO);
    }

    /// Where it is fetched from, if it is.
    pub(super) fn url(&self) -> Option<&Url> {
        match &self.id.source {
            Source::Url { url, .. } => Some(url),
            Source::Inline(_) => None,
        }
    }

    /// How many sets have come.
    pub(super) fn sets(&self) -> u64 {
        self.sets.load(Ordering::Acquire)
    }

    /// When it was last asked for.
    pub(super) fn fetched_at(&self) -> Duration {
        self.fetched_at.get()
    }

    /// When asking for it last failed; zero if it succeeded since.
    pub(super) fn failed_at(&self) -> Duration {
        self.failed_at.get()
    }

    /// Whether there are keys to verify with.
    pub(crate) fn is_usable(&self) -> bool {
        let now = self.clock.elapsed();
        self.held.load().as_ref().is_some_and(|held| now < held.dead_at)
    }

    /// Whether the set is too old to be used. One that never was, or was purged, is not.
    pub(crate) fn is_dead(&self) -> bool {
        let now = self.clock.elapsed();
        self.held.load().as_ref().is_some_and(|held| now >= held.dead_at)
    }

    /// How it is doing, for an issuer that names it.
    pub(crate) fn health(&self, issuer: &str) -> IssuerHealth {
        let now = self.clock.elapsed();
        let held = self.held.load();
        let record = self.record();
        let state = match held.as_deref() {
            None => KeyState::Never,
            Some(held) if now >= held.dead_at => KeyState::Dead,
            Some(_) if record.attempts.are_failing() => KeyState::Stale,
            Some(held) if now >= held.fresh_until => KeyState::Due,
            Some(_) => KeyState::Fresh,
        };
        let usable = held.as_deref().filter(|held| now < held.dead_at);
        IssuerHealth {
            issuer: issuer.to_owned(),
            state,
            keys: usable.map_or(0, |held| held.set.all.len()),
            unusable_keys: usable.map_or(0, |held| held.set.unusable.len()),
            unusable: usable.map_or_else(Vec::new, |held| held.set.unusable.clone()),
            last_attempt: record.attempts.last,
            last_error: record.attempts.last_fault.as_ref().map(ToString::to_string),
            next_attempt: self.clock.now() + self.due.get().saturating_sub(now),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Every write to the record is a plain assignment, so a panic cannot leave it half done.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.due.get()
    }

    /// Asks for the set in the background, if it is due.
    pub(super) fn renew_if_due(self: &Arc<Self>, now: Duration) {
        if self.is_due(now) {
            drop(self.start_fetch());
        }
    }

    /// Why [`renew`](Self::renew) would bring nothing, if that is certain without waiting. It spares
    /// whoever floods a service with unknown key ids the price of a wait.
    pub(crate) fn no_new_keys(
        self: &Arc<Self>,
        sets: u64,
        quota: Option<&Quota>,
    ) -> Option<NoNewKeys> {
        // In this order: a fetch that is over by now has been counted.
        if self.flights.is_running(&()) || self.sets() != sets {
            return None;
        }
        if !self.is_usable() {
            return self.permit_first_fetch(false).err();
        }
        let now = self.clock.elapsed();
        let may_ask = !self.is_left_alone(now)
            && self.has_misses_left(now)
            && quota.is_none_or(|quota| quota.has_left(self, now));
        if may_ask { None } else { Some(self.asked_enough(now)) }
    }

    /// Whether a request may cause a fetch: without a set, as soon as the back-off is over; with
    /// one, while the budgets for unknown key ids last, its own and that of its template. They are
    /// charged at the attempt, so that neither failing nor hanging up earns another.
    fn permit_fetch(
        self: &Arc<Self>,
        quota: Option<&Quota>,
        others: &mut Vec<Arc<Self>>,
    ) -> Result<(), NoNewKeys> {
        if !self.is_usable() {
            return self.permit_first_fetch(false);
        }
        let now = self.clock.elapsed();
        let permitted = !self.is_left_alone(now)
            && self.has_misses_left(now)
            && quota.is_none_or(|quota| quota.take(self, now, others));
        match permitted && self.take_miss(now) {
            true => Ok(()),
            false => Err(self.asked_enough(now)),
        }
    }

    /// Without a usable set: whether it may be asked for yet.
    fn permit_first_fetch(&self, in_a_hurry: bool) -> Result<(), NoNewKeys> {
        let now = self.clock.elapsed();
        let attempts = &self.record().attempts;
        match attempts.wait(in_a_hurry, now) {
            Duration::ZERO => Ok(()),
            retry_after => {
                Err(NoNewKeys::Unavailable { retry_after, fault: attempts.last_fault.clone() })
            }
        }
    }

    /// Why a set that is held is not asked for.
    fn asked_enough(&self, now: Duration) -> NoNewKeys {
        let attempts = &self.record().attempts;
        match &attempts.last_fault {
            None => NoNewKeys::AskedEnough,
            // We do not know the provider's present set, so we cannot call the key unknown.
            Some(fault) => NoNewKeys::Unavailable {
                retry_after: attempts.wait(true, now).max(self.settings.cooldown),
                fault: Some(fault.clone()),
            },
        }
    }

    /// Whether the provider said that it wants not to be asked.
    fn is_left_alone(&self, now: Duration) -> bool {
        now < self.record().attempts.left_alone_until
    }

    /// Whether an unknown key id may cause a fetch.
    pub(super) fn has_misses_left(&self, now: Duration) -> bool {
        self.record().misses.has_one(self.miss_rate(), now)
    }

    /// Charges a fetch that an unknown key id causes.
    pub(super) fn take_miss(&self, now: Duration) -> bool {
        self.record().misses.take(self.miss_rate(), now).is_ok()
    }

    fn miss_rate(&self) -> Rate {
        Rate::new(Rate::MISS_BURST, self.settings.cooldown)
    }

    pub(super) fn start_fetch(self: &Arc<Self>) -> Waiter<Fetched> {
        let keys = Arc::clone(self);
        self.flights.run((), move || async move { keys.fetch().await })
    }

    /// One fetch, from asking to taking the answer. Only one runs at a time (they share a flight),
    /// so an older answer cannot overwrite a newer one.
    async fn fetch(&self) -> Fetched {
        loop {
            let purges = self.begin();
            let answer = self.id.source.fetch(&self.http, &self.settings).await;
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
        let now = self.clock.elapsed();
        record.attempts.last = Some(self.clock.now());
        self.fetched_at.set(now);
        // Should this task die, the next attempt is still due.
        self.set_due(now + self.settings.timeout * 4);
        record.purges
    }

    fn read(&self, answer: &Answer) -> Result<(KeySet, Duration), FetchFault> {
        let (allowed, max_keys) = (&self.id.algorithms, self.settings.max_keys);
        let set = match std::str::from_utf8(&answer.body) {
            Ok(text) if answer.is_given => KeySet::read_given(text, allowed, max_keys)?,
            _ => KeySet::read(&answer.body, allowed, max_keys)?,
        };
        let (floor, ceiling) = TTL_BOUNDS;
        let ttl = answer.max_age.map_or(self.settings.ttl, |age| age.clamp(floor, ceiling));
        Ok((set, ttl))
    }

    /// Puts the set into force, or notes why there is none, and when the next is due. `None` if the
    /// set was purged after the count of `purges`.
    fn conclude(
        &self,
        outcome: Result<(KeySet, Duration), Arc<FetchFault>>,
        purges: u64,
    ) -> Option<Fetched> {
        let now = self.clock.elapsed();
        let mut record = self.record();
        if record.purges != purges {
            return None;
        }
        let before = self.held.load_full();
        let fetched = match outcome {
            Ok((set, ttl)) => {
                telemetry::keys_refreshed(&self.series, &self.series, set.all.len());
                if self.outage().ends(|| now) {
                    telemetry::keys_can_be_fetched(&self.series);
                }
                self.tell_of_unusable(&set, before.as_deref().map(|held| &held.set));
                let held = self.held_from(now, set, ttl, before.as_deref());
                self.failed_at.set(Duration::ZERO);
                record.attempts.succeeded(held.fresh_until);
                self.held.store(Some(Arc::new(held)));
                self.sets.fetch_add(1, Ordering::Release);
                Ok(())
            }
            Err(fault) => {
                let (series, holds_keys) = (&self.series, before.is_some());
                let is_new = self.outage().begins(&fault, now);
                telemetry::keys_not_refreshed(series, series, &fault, holds_keys, is_new);
                record.attempts.failed(fault.clone(), holds_keys, now);
                self.failed_at.set(now.max(Duration::from_millis(1)));
                Err(fault)
            }
        };
        self.set_due(record.attempts.next);
        Some(fetched)
    }

    /// The set from now on. It is due before it dies, whatever the provider and jitter say.
    fn held_from(
        &self,
        now: Duration,
        mut set: KeySet,
        ttl: Duration,
        before: Option<&Held>,
    ) -> Held {
        if let Some(before) = before {
            set.succeed(&before.set);
        }
        let stale = self.settings.max_stale;
        let fresh_for = clock::jittered(ttl, 0.1).min(stale);
        Held { set, fresh_until: now + fresh_for, dead_at: now + stale }
    }

    fn outage(&self) -> &Outage {
        match &self.never {
            Some(never) if self.sets() == 0 => never,
            _ => &self.outage,
        }
    }

    /// Logs the keys that are left out, once for each change of them.
    fn tell_of_unusable(&self, now: &KeySet, before: Option<&KeySet>) {
        if before.is_some_and(|before| before.unusable == now.unusable) {
            return;
        }
        let (broken, other): (Vec<_>, Vec<_>) =
            now.unusable.iter().cloned().partition(|key| key.is_fault);
        if !broken.is_empty() {
            telemetry::keys_broken(&self.series, &list(&broken));
        }
        if !other.is_empty() {
            telemetry::keys_of_others(&self.series, &list(&other));
        }
    }

    /// Notes when the set is to be asked for. Whoever calls this holds the record, and has changed
    /// the set before, so that due date and reliance are of the same set.
    fn set_due(&self, at: Duration) {
        let dead_at = self.held.load().as_ref().map_or(Duration::ZERO, |held| held.dead_at);
        self.due.set(at);
        self.valid_until.set(at.min(dead_at));
    }

    fn unavailable(&self, fault: Option<Arc<FetchFault>>) -> NoNewKeys {
        self.record().attempts.unavailable(fault, self.clock.elapsed())
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
    use crate::config::KeyAccess;

    #[tokio::test]
    async fn who_looked_before_a_set_came_looks_again_and_asks_for_no_other() {
        // Nobody is there: asking would fail.
        let id = KeySetId {
            source: Source::at("http://127.0.0.1:1".parse().unwrap(), KeyAccess::default()),
            algorithms: vec![Algorithm::ES256],
            settings: JwksSettings::default(),
        };
        let keys = KeySets::default().get(id, "issuer");
        let query = KeyQuery {
            kid: None,
            certificate: &CertificateHash::default(),
            issuer: "issuer",
            now: SystemTime::UNIX_EPOCH,
            leeway: Duration::ZERO,
        };
        let verdict = keys.verify(&query, Algorithm::ES256, b"", b"");
        assert!(matches!(verdict, Verdict::NoKey(Seen { sets: 0, .. })), "{verdict:?}");
        keys.sets.store(1, Ordering::Release);
        assert!(matches!(keys.renew(0, None).await, Ok(Renewed::ByOthersFetch)));
        assert!(matches!(keys.renew(1, None).await, Err(NoNewKeys::Unavailable { .. })));
    }
}
