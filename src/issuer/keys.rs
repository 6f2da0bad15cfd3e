//! The life of one issuer's key set: fetched, used, renewed, kept through outages, and given up.
//!
//! ```text
//! Never ──fetched──▶ Fresh ──TTL──▶ Due ──fetch failed──▶ Stale ──max_stale──▶ Dead
//!                      ▲              └────────fetched───────┴───────────────────┘
//! ```
//! A request whose key is at hand only looks at the set and the clock. Fetching happens in tasks of
//! its own, one at a time; requests wait for one only if they cannot do without.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::http::{Answer, Http};
use super::jwk::Key;
use super::source::{FetchFault, Source};
use crate::clock::{self, Clock};
use crate::config::{Algorithm, IssuerConfig, JwksSettings};
use crate::error::AuthError;
use crate::flight::{Flights, Seat};
use crate::json::Document;
use crate::telemetry;

/// What the provider's `Cache-Control` may ask for.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// The pause after a failed fetch: 1 s, doubling up to 60 s, with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The longest duration taken from the settings: moments are sums of durations, and `Duration::MAX`
/// for "never" must not make them overflow.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How many unknown key ids may cause a fetch before the cool-down governs.
const MISS_BURST: f64 = 2.0;

/// How many keys with one id, or without one, are tried for a token.
const MAX_CANDIDATES: usize = 4;

/// What is known of an issuer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyState {
    /// No key set was ever fetched: tokens are answered with 503.
    Never,
    /// Fetched within the TTL.
    Fresh,
    /// The TTL has passed and nobody has asked yet, or the fetch is under way.
    Due,
    /// The last fetch failed; the set held is used.
    Stale,
    /// No fetch succeeded for `max_stale`: tokens are answered with 503.
    Dead,
}

/// The keys of one issuer, for readiness probes.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct IssuerHealth {
    /// What `iss` says.
    pub issuer: String,
    /// What is known of its keys.
    pub state: KeyState,
    /// How many keys can be used.
    pub keys: usize,
    /// How many published keys cannot be used, and were left out.
    pub unusable_keys: usize,
    /// When the key set was last asked for.
    pub last_attempt: Option<SystemTime>,
    /// Why that failed, if it did.
    pub last_error: Option<String>,
    /// When it will be asked for next, by the first request or health report from then on.
    pub next_attempt: SystemTime,
}

impl IssuerHealth {
    /// Whether tokens of this issuer can be verified.
    pub fn can_verify(&self) -> bool {
        !matches!(self.state, KeyState::Never | KeyState::Dead)
    }
}

/// What came of looking for a signature's key.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The signature verifies.
    Verified,
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
    source: Source,
    settings: JwksSettings,
    algorithms: Vec<Algorithm>,
    clock: Arc<dyn Clock>,
    held: ArcSwapOption<Held>,
    /// How many sets have come.
    sets: AtomicU64,
    /// When the set should next be asked for in the background, in milliseconds of the clock.
    due: AtomicU64,
    record: Mutex<Record>,
    flights: Flights<(), Fetched>,
}

/// A set as it arrived.
struct Published {
    keys: Vec<Arc<Key>>,
    unusable: usize,
    ttl: Duration,
}

/// The set in force.
#[derive(Debug)]
struct Held {
    by_kid: HashMap<Box<str>, Vec<Arc<Key>>>,
    all: Vec<Arc<Key>>,
    unusable: usize,
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
    last_attempt: Option<SystemTime>,
    last_fault: Option<Arc<FetchFault>>,
    /// How many unknown key ids may cause a fetch now, as of `counted_at`.
    misses_left: f64,
    counted_at: Duration,
}

impl Keys {
    pub(crate) fn new(
        issuer: Arc<str>,
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
            record: Mutex::new(Record {
                failures: 0,
                purges: 0,
                next_attempt: Duration::ZERO,
                last_attempt: None,
                last_fault: None,
                misses_left: MISS_BURST,
                counted_at: clock.elapsed(),
            }),
            flights: Flights::default(),
            issuer,
            clock,
        })
    }

    /// Judges a signature by the keys at hand. Takes no lock; starts a renewal in the background
    /// when one is due.
    pub(crate) fn verify(
        self: &Arc<Self>,
        kid: Option<&str>,
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
        let candidates = held.candidates(kid);
        if candidates.is_empty() {
            return no_key;
        }
        let mut fitting = candidates
            .iter()
            .filter_map(|key| key.prepared(algorithm))
            .take(MAX_CANDIDATES)
            .peekable();
        let some_fit = fitting.peek().is_some();
        match (fitting.any(|key| key.verify_sig(message, signature).is_ok()), kid) {
            (true, _) => Verdict::Verified,
            // Without a name, only the signature can tell that the key is a new one.
            (false, None) => no_key,
            (false, Some(_)) if some_fit => Verdict::BadSignature,
            (false, Some(_)) => Verdict::WrongAlgorithm,
        }
    }

    /// Waits for the fetch under way, or for a new one if it may be asked for. Tells which. Does
    /// neither if a set has come since `as_of`.
    pub(crate) async fn renew(self: &Arc<Self>, as_of: u64) -> Result<Renewed, NoNewKeys> {
        let keys = Arc::clone(self);
        let fetch = move || async move { keys.fetch().await };
        let permit = || match self.sets.load(Ordering::Acquire) == as_of {
            true => self.permit_fetch().map_err(Err),
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
            held.all.iter().for_each(|key| key.withdraw());
        }
        record.purges += 1;
        record.next_attempt = Duration::ZERO;
        self.due.store(0, Ordering::Relaxed);
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
            keys: usable.map_or(0, |held| held.all.len()),
            unusable_keys: usable.map_or(0, |held| held.unusable),
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

    /// Whether a request may cause a fetch: without a set, as soon as the back-off is over; with
    /// one, while the budget for unknown key ids lasts. The budget is charged here, at the attempt,
    /// so that neither failing nor hanging up earns another.
    fn permit_fetch(&self) -> Result<(), NoNewKeys> {
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
        let earned = now.saturating_sub(record.counted_at).div_duration_f64(self.settings.cooldown);
        record.misses_left = (record.misses_left + earned).min(MISS_BURST);
        record.counted_at = now;
        if record.misses_left >= 1.0 {
            record.misses_left -= 1.0;
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
        self.due.store(millis(self.clock.elapsed() + patience), Ordering::Relaxed);
        record.purges
    }

    fn read(&self, answer: &Answer) -> Result<Published, FetchFault> {
        let (keys, unusable) = read_set(&answer.body, &self.algorithms, self.settings.max_keys)?;
        let (floor, ceiling) = TTL_BOUNDS;
        let ttl = answer.max_age.map_or(self.settings.ttl, |age| age.clamp(floor, ceiling));
        Ok(Published { keys, unusable, ttl })
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
                telemetry::keys_refreshed(&self.issuer, published.keys.len(), published.unusable);
                let held = Held::new(published, before.as_deref(), now, self.settings.max_stale);
                record.failures = 0;
                record.next_attempt = held.fresh_until;
                self.held.store(Some(Arc::new(held)));
                self.sets.fetch_add(1, Ordering::Release);
                Ok(())
            }
            Err(fault) => {
                telemetry::keys_not_refreshed(&self.issuer, &fault, before.is_some());
                record.next_attempt = now + clock::backoff(BACKOFF.0, BACKOFF.1, record.failures);
                record.failures = record.failures.saturating_add(1);
                Err(fault)
            }
        };
        self.due.store(millis(record.next_attempt), Ordering::Relaxed);
        Some(fetched)
    }

    fn unavailable(&self, fault: Option<Arc<FetchFault>>) -> NoNewKeys {
        let wait = self.record().next_attempt.saturating_sub(self.clock.elapsed());
        let retry_after = wait.clamp(Duration::from_secs(1), BACKOFF.1);
        NoNewKeys::Unavailable { retry_after, fault }
    }
}

impl Held {
    /// The set from now on. It is due before it dies, whatever the provider and jitter say.
    fn new(
        published: Published,
        before: Option<&Held>,
        now: Duration,
        max_stale: Duration,
    ) -> Self {
        let Published { mut keys, unusable, ttl } = published;
        if let Some(before) = before {
            before.hand_over(&mut keys);
        }
        let mut by_kid: HashMap<Box<str>, Vec<Arc<Key>>> = HashMap::new();
        for key in &keys {
            if let Some(kid) = key.kid() {
                by_kid.entry(kid.into()).or_default().push(key.clone());
            }
        }
        let fresh_for = clock::jittered(ttl, 0.1).min(max_stale);
        Self { by_kid, all: keys, unusable, fresh_until: now + fresh_for, dead_at: now + max_stale }
    }

    /// The keys a token may have been signed with: those with its key id, else those without any.
    fn candidates(&self, kid: Option<&str>) -> &[Arc<Key>] {
        match kid {
            None => &self.all,
            Some(kid) => self.by_kid.get(kid).map_or(&[], Vec::as_slice),
        }
    }

    /// Keeps the prepared keys that are still published, and marks the others as withdrawn.
    fn hand_over(&self, keys: &mut [Arc<Key>]) {
        for old in &self.all {
            match keys.iter_mut().find(|new| new.is_same_as(old)) {
                Some(new) => *new = old.clone(),
                None => old.withdraw(),
            }
        }
    }
}

/// Reads a key set (RFC 7517 §5) key by key, so that one strange key costs only itself.
fn read_set(
    body: &[u8],
    allowed: &[Algorithm],
    max_keys: usize,
) -> Result<(Vec<Arc<Key>>, usize), FetchFault> {
    let sent = KeysMember::parse(body)?;
    if sent.keys.len() > max_keys {
        return Err(FetchFault::TooManyKeys(max_keys));
    }
    let read = |jwk: &&serde_json::value::RawValue| {
        let document = Document::parse(jwk.get().as_bytes()).ok()?;
        Key::read(document.root(), allowed).ok().map(Arc::new)
    };
    let keys: Vec<_> = sent.keys.iter().filter_map(read).collect();
    let unusable = sent.keys.len() - keys.len();
    if keys.is_empty() {
        return Err(FetchFault::NoUsableKey { published: unusable });
    }
    Ok((keys, unusable))
}

/// A key set with its keys not yet looked into: a duplicate member in one must not spoil the rest.
#[derive(serde::Deserialize)]
struct KeysMember<'a> {
    #[serde(borrow)]
    keys: Vec<&'a serde_json::value::RawValue>,
}

impl<'a> KeysMember<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, FetchFault> {
        serde_json::from_slice(body).map_err(|_| FetchFault::NotAKeySet)
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

fn millis(moment: Duration) -> u64 {
    u64::try_from(moment.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}"#;

    #[tokio::test]
    async fn who_looked_before_a_set_came_looks_again_and_asks_for_no_other() {
        // Nobody is there: asking would fail.
        let config = IssuerConfig::new("http://127.0.0.1:1").allow_loopback_http(true);
        let clock = Arc::new(clock::SystemClock::default());
        let keys = Keys::new("issuer".into(), &config, Arc::default(), clock).unwrap();
        let keys = Arc::new(keys);
        let verdict = keys.verify(None, Algorithm::ES256, b"", b"");
        assert!(matches!(verdict, Verdict::NoKey { as_of: 0 }), "{verdict:?}");
        keys.sets.store(1, Ordering::Release);
        assert!(matches!(keys.renew(0).await, Ok(Renewed::ByOthersFetch)));
        assert!(matches!(keys.renew(1).await, Err(NoNewKeys::Unavailable { .. })));
    }

    #[test]
    fn one_strange_key_costs_only_itself() {
        let strange = [
            r#"{"kty":"AKP","alg":"ML-DSA-65","pub":"AA","kid":"b"}"#,
            r#"{"kty":"OKP","kty":"OKP","crv":"Ed25519","x":"AA"}"#,
            r#"{"kty":"RSA","e":"AQAB"}"#,
            "7",
            "null",
            "[]",
            r#"{"kid":{"deep":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}"#,
        ];
        for jwk in strange {
            let body = format!(r#"{{"keys":[{jwk},{KEY}],"more":1}}"#);
            let (keys, unusable) = read_set(body.as_bytes(), &Algorithm::ALL, 100).unwrap();
            assert_eq!((keys.len(), unusable), (1, 1), "{jwk}");
        }
    }

    #[test]
    fn what_is_no_set_or_has_no_usable_key_is_refused_whole() {
        for body in
            ["", "<html>", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[7]}"#]
        {
            assert!(read_set(body.as_bytes(), &Algorithm::ALL, 100).is_err(), "{body}");
        }
        let many = format!(r#"{{"keys":[{KEY},{KEY},{KEY}]}}"#);
        assert!(matches!(
            read_set(many.as_bytes(), &Algorithm::ALL, 2),
            Err(FetchFault::TooManyKeys(2))
        ));
    }

    #[test]
    fn a_key_that_left_the_set_is_marked_and_one_that_stayed_is_kept() {
        let read = |body: String| read_set(body.as_bytes(), &Algorithm::ALL, 100).unwrap().0;
        let both = read(format!(r#"{{"keys":[{KEY},{}]}}"#, KEY.replace("\"a\"", "\"b\"")));
        let held = Held {
            by_kid: HashMap::new(),
            all: both.clone(),
            unusable: 0,
            fresh_until: Duration::ZERO,
            dead_at: Duration::ZERO,
        };
        let mut next = read(format!(r#"{{"keys":[{KEY}]}}"#));
        held.hand_over(&mut next);
        assert!(Arc::ptr_eq(&next[0], &both[0]), "the prepared key is used on");
        assert!(!both[0].is_withdrawn() && both[1].is_withdrawn());
    }
}
