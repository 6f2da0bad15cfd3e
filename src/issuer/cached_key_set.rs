//! [`CachedKeySet`]: the life cycle of a key set. It is fetched, used, refreshed, kept through outages, and
//! discarded when it is too old (dead).
//!
//! ```text
//! Never ──fetched──▶ Fresh ──TTL──▶ Due ──fetch failed──▶ Stale ──max_stale──▶ Dead
//!                      ▲              └────────fetched───────┴───────────────────┘
//! ```
//! A purge returns every state to Never. A set that is not fetched at all goes from Due to Dead.
//!
//! A request whose key is cached reads only the set and the clock. Fetches run in their own tasks, one at a
//! time per set. A request waits for a fetch only if no cached key fits.

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

/// The limits of the TTL that the provider's `Cache-Control`, or the refresh hint of a SPIFFE bundle, may set.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// The upper limit of durations in the settings, so that adding them to a time cannot overflow. Users may
/// write `Duration::MAX` for "never".
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The maximum number of keys tried for one token. Several keys can fit if they share a `kid`, or if the
/// token or the keys have none. Each costs 20 to 70 µs, even for a forged token.
pub(super) const MAX_CANDIDATES: usize = 8;

/// The result of verifying a signature with the cached keys.
#[derive(Debug)]
pub(crate) enum SignatureCheck {
    /// The signature is valid. The fields are the lease of the key, and the key's expiry, if it has one.
    Verified(KeyLease, Option<SystemTime>),
    /// The signature does not verify with the key that the token names. The issuer may have published another
    /// key with this key id since.
    BadSignature(KeySetVersion),
    /// The key that the token names is for other algorithms. The issuer may have published another key with
    /// this key id since.
    WrongAlgorithm(KeySetVersion),
    /// No key fits: there is no usable set, the set lacks the key that the token names, or the token names
    /// none and no key verifies it.
    NoKey(KeySetVersion),
}

/// The version of the key set that a signature was checked with.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySetVersion {
    /// `None` if the set's URL was not known yet.
    pub(super) set: Option<Arc<CachedKeySet>>,
    /// [`CachedKeySet::version`] when the signature was checked.
    pub(super) version: u64,
}

/// The fetch that returned the current set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refreshed {
    /// The fetch began after the call. A key that is not in the set is not published.
    ByNewFetch,
    /// The fetch began before the call. A key published since may be missing.
    ByEarlierFetch,
}

/// The reason why no newer keys are available.
#[derive(Debug, Clone)]
pub(crate) enum NotRefreshed {
    /// The set is known, and the budgets do not allow another fetch yet.
    RateLimited,
    /// The keys could not be fetched, or not in time, so the token may be valid.
    Unavailable { retry_after: Duration, fault: Option<Arc<FetchFault>> },
}

impl NotRefreshed {
    /// Returns the fault of the last fetch, if there was one.
    pub(super) fn fault(self) -> Option<Arc<FetchFault>> {
        match self {
            Self::RateLimited => None,
            Self::Unavailable { fault, .. } => fault,
        }
    }
}

impl From<NotRefreshed> for AuthError {
    fn from(reason: NotRefreshed) -> Self {
        match reason {
            NotRefreshed::RateLimited => crate::error::InvalidToken::Key.into(),
            NotRefreshed::Unavailable { retry_after, fault } => Self::Unavailable {
                component: "keys",
                retry_after: Some(retry_after),
                source: fault.map(|fault| fault as _),
            },
        }
    }
}

type Fetched = Result<(), Arc<FetchFault>>;

/// A key set with its life cycle, shared by all issuers with the same URL.
#[derive(Debug)]
pub(crate) struct CachedKeySet {
    id: KeySetId,
    /// The label of the set in logs and metrics: the first issuer that used it, or the template of that
    /// issuer.
    label: Box<str>,
    settings: JwksSettings,
    http: Arc<Http>,
    clock: Arc<dyn Clock>,
    current: ArcSwapOption<Current>,
    /// The number of successful fetches so far.
    version: AtomicU64,
    /// The time of the next background refresh.
    due: AtomicInstant,
    /// The start of the last fetch.
    fetch_began_at: AtomicInstant,
    /// The time of the last failed fetch; zero after a success.
    failed_at: AtomicInstant,
    /// The time up to which verified tokens stay cached: when the set becomes due for a refresh, or dead.
    valid_until: Arc<AtomicInstant>,
    /// Whether the warning about keys that are not tried was logged.
    has_logged_key_limit: AtomicBool,
    /// Logs when fetches begin to fail, and when they succeed again.
    outage: Outage,
    /// The same for sets of a template that were never fetched, in one outage for all of them.
    template_outage: Option<Arc<Outage>>,
    history: Mutex<History>,
    single_flight: SingleFlight<(), Fetched>,
}

/// The current keys.
#[derive(Debug)]
struct Current {
    set: KeySet,
    fresh_until: Duration,
    dead_at: Duration,
}

#[derive(Debug, Default)]
struct History {
    attempts: Attempts,
    /// The number of purges. The result of a fetch that began before a purge is discarded.
    purges: u64,
    /// The budget for fetches that unknown key ids cause.
    extra_fetches: TokenBucket,
}

impl CachedKeySet {
    pub(super) fn new(id: KeySetId, label: &str, key_sets: &KeySets) -> Self {
        Self {
            settings: with_finite_durations(&id.settings),
            current: ArcSwapOption::empty(),
            version: AtomicU64::new(0),
            due: AtomicInstant::default(),
            fetch_began_at: AtomicInstant::default(),
            failed_at: AtomicInstant::default(),
            valid_until: Arc::default(),
            has_logged_key_limit: AtomicBool::new(false),
            outage: Outage::default(),
            template_outage: key_sets.outage_of_template("keys", label),
            history: Mutex::default(),
            single_flight: SingleFlight::default(),
            id,
            label: label.into(),
            http: key_sets.http.clone(),
            clock: key_sets.clock.clone(),
        }
    }

    /// Returns whether a cached key made the signature. Subtracts the number of keys tried from `tries`.
    /// Needs no lock, and starts no fetch.
    pub(super) fn has_signed(
        &self,
        query: &KeyQuery<'_>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
        tries: &mut usize,
    ) -> bool {
        let now = self.clock.elapsed();
        let current = self.current.load();
        let Some(current) = current.as_ref().filter(|it| now < it.dead_at) else { return false };
        let fitting = current.set.candidates(query).filter_map(|key| key.verifier(algorithm));
        for key in fitting.take(*tries) {
            *tries -= 1;
            if key.verifies(message, signature) {
                return true;
            }
        }
        false
    }

    /// Verifies a signature with the cached keys. Needs no lock, and starts no fetch.
    pub(crate) fn verify(
        self: &Arc<Self>,
        query: &KeyQuery<'_>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> SignatureCheck {
        let now = self.clock.elapsed();
        // Read before the set. If a newer set arrives in between, `refresh` sees the old version, and the
        // caller checks again.
        let version = self.version();
        let tried = || KeySetVersion { set: Some(self.clone()), version };
        let current = self.current.load();
        let Some(current) = current.as_ref().filter(|it| now < it.dead_at) else {
            return SignatureCheck::NoKey(tried());
        };
        let mut candidates = current.set.candidates(query).peekable();
        if candidates.peek().is_none() {
            return SignatureCheck::NoKey(tried());
        }
        let mut fitting =
            candidates.filter_map(|key| Some((key, key.verifier(algorithm)?))).peekable();
        let some_fit = fitting.peek().is_some();
        let mut limited = fitting.by_ref().take(MAX_CANDIDATES);
        let found = limited.find(|(_, key)| key.verifies(message, signature));
        if found.is_none() && fitting.next().is_some() {
            self.log_key_limit();
        }
        match (found, query.kid) {
            (Some((key, _)), _) => {
                let lease = KeyLease {
                    removed: key.removed().clone(),
                    valid_until: self.valid_until.clone(),
                };
                SignatureCheck::Verified(lease, key.expires_at(query.leeway))
            }
            // The token names no key, so a bad signature may mean an unknown key.
            (None, None) => SignatureCheck::NoKey(tried()),
            (None, Some(_)) if some_fit => SignatureCheck::BadSignature(tried()),
            (None, Some(_)) => SignatureCheck::WrongAlgorithm(tried()),
        }
    }

    fn log_key_limit(&self) {
        if !self.has_logged_key_limit.swap(true, Ordering::Relaxed) {
            telemetry::too_many_candidate_keys(&self.label, MAX_CANDIDATES);
        }
    }

    /// Waits for the running fetch, or starts one if that is allowed, and waits for it up to `settings.wait`.
    /// Returns immediately if the set is newer than `version`, or if no fetch is allowed.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        version: u64,
        quota: Option<&Quota>,
    ) -> Result<Refreshed, NotRefreshed> {
        let mut others = Vec::new();
        let waiter = self.fetch_if(|| match self.version() == version {
            true => self.permit_fetch(quota, &mut others).map_err(Err),
            false => Err(Ok(Refreshed::ByEarlierFetch)),
        });
        // Outside of `fetch_if`: otherwise two sets that start each other's fetch would deadlock.
        others.iter().for_each(|other| drop(other.start_fetch()));
        match waiter {
            Ok(waiter) => self.outcome_within_limit(waiter).await,
            Err(result) => result,
        }
    }

    /// Waits until there are usable keys, without a time limit. An urgent call ignores the back-off after a
    /// failure, but not the provider's `Retry-After`.
    pub(crate) async fn wait_until_usable(
        self: &Arc<Self>,
        is_urgent: bool,
    ) -> Result<Refreshed, NotRefreshed> {
        let waiter = self.fetch_if(|| match self.is_usable() {
            true => Err(Ok(Refreshed::ByEarlierFetch)),
            false => self.permit_first_fetch(is_urgent).map_err(Err),
        });
        match waiter {
            Ok(waiter) => self.outcome(waiter).await,
            Err(result) => result,
        }
    }

    /// Joins the running fetch, or starts one if `permit` allows it.
    fn fetch_if<E>(
        self: &Arc<Self>,
        permit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Waiter<Fetched>, E> {
        let keys = Arc::clone(self);
        self.single_flight.run_if((), permit, move || async move { keys.fetch().await })
    }

    /// Waits for a fetch, at most as long as a request may wait.
    async fn outcome_within_limit(
        &self,
        waiter: Waiter<Fetched>,
    ) -> Result<Refreshed, NotRefreshed> {
        let outcome = clock::with_timeout(self.settings.wait, self.outcome(waiter)).await;
        outcome.unwrap_or_else(|| Err(self.unavailable(None)))
    }

    async fn outcome(&self, waiter: Waiter<Fetched>) -> Result<Refreshed, NotRefreshed> {
        let refreshed =
            if waiter.is_new() { Refreshed::ByNewFetch } else { Refreshed::ByEarlierFetch };
        match waiter.wait().await {
            Some(Ok(())) => Ok(refreshed),
            Some(Err(fault)) => Err(self.unavailable(Some(fault))),
            None => Err(self.unavailable(None)),
        }
    }

    /// Discards the keys. Every token then waits for a fetch that begins after this call.
    pub(crate) fn purge(&self) {
        let mut history = self.history();
        if let Some(current) = self.current.swap(None) {
            current.set.all.iter().for_each(|key| key.mark_removed());
        }
        history.purges += 1;
        history.attempts.next = Duration::ZERO;
        history.attempts.blocked_until = Duration::ZERO;
        self.set_due(Duration::ZERO);
    }

    /// Returns the set's URL, unless the keys are in the configuration or a file.
    pub(super) fn url(&self) -> Option<&Url> {
        match &self.id.source {
            Source::Url { url, .. } => Some(url),
            Source::File(_) | Source::Inline(_) => None,
        }
    }

    /// Returns the number of successful fetches so far.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Returns the start of the last fetch.
    pub(super) fn fetch_began_at(&self) -> Duration {
        self.fetch_began_at.get()
    }

    /// Returns the time of the last failed fetch; zero after a success.
    pub(super) fn failed_at(&self) -> Duration {
        self.failed_at.get()
    }

    /// Returns whether there are keys to verify with.
    pub(crate) fn is_usable(&self) -> bool {
        let now = self.clock.elapsed();
        self.current.load().as_ref().is_some_and(|current| now < current.dead_at)
    }

    /// Returns whether the set is too old to be used. A set that was never fetched, or was purged, is not dead.
    pub(crate) fn is_dead(&self) -> bool {
        let now = self.clock.elapsed();
        self.current.load().as_ref().is_some_and(|current| now >= current.dead_at)
    }

    /// Reports the state of the set for an issuer that uses it.
    pub(crate) fn health(&self, issuer: &str) -> IssuerHealth {
        let now = self.clock.elapsed();
        let current = self.current.load();
        let history = self.history();
        let state = match current.as_deref() {
            None => KeyState::Never,
            Some(current) if now >= current.dead_at => KeyState::Dead,
            Some(_) if history.attempts.are_failing() => KeyState::Stale,
            Some(current) if now >= current.fresh_until => KeyState::Due,
            Some(_) => KeyState::Fresh,
        };
        let usable = current.as_deref().filter(|current| now < current.dead_at);
        IssuerHealth {
            issuer: issuer.to_owned(),
            state,
            keys: usable.map_or(0, |current| current.set.all.len()),
            unusable_keys: usable.map_or(0, |current| current.set.unusable.len()),
            unusable: usable.map_or_else(Vec::new, |current| current.set.unusable.clone()),
            last_attempt: history.attempts.last,
            last_error: history.attempts.last_fault.as_ref().map(ToString::to_string),
            next_attempt: self.clock.now() + self.due.get().saturating_sub(now),
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // Every write is a plain assignment, so a panic cannot leave the history half written.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.due.get()
    }

    /// Starts a background fetch, if one is due.
    pub(super) fn refresh_if_due(self: &Arc<Self>, now: Duration) {
        if self.is_due(now) {
            drop(self.start_fetch());
        }
    }

    /// Returns the reason why [`refresh`](Self::refresh) would bring no newer keys; `None` if that is not
    /// certain without waiting. This keeps a flood of unknown key ids cheap.
    pub(crate) fn refusal_to_refresh(
        self: &Arc<Self>,
        version: u64,
        quota: Option<&Quota>,
    ) -> Option<NotRefreshed> {
        // In this order: a fetch that ended before the first check has raised the version.
        if self.single_flight.is_running(&()) || self.version() != version {
            return None;
        }
        if !self.is_usable() {
            return self.permit_first_fetch(false).err();
        }
        let now = self.clock.elapsed();
        let may_fetch = !self.is_blocked(now)
            && self.has_extra_fetch_left(now)
            && quota.is_none_or(|quota| quota.has_left_or_queue(self, now));
        if may_fetch { None } else { Some(self.not_fetched(now)) }
    }

    /// Decides whether a request may cause a fetch. If there are no keys, the back-off must be over. If there
    /// are keys, both budgets for unknown key ids must allow it: that of the set, and that of its template.
    /// The budgets are charged before the fetch, so a failed or abandoned fetch counts, too.
    fn permit_fetch(
        self: &Arc<Self>,
        quota: Option<&Quota>,
        others: &mut Vec<Arc<Self>>,
    ) -> Result<(), NotRefreshed> {
        if !self.is_usable() {
            return self.permit_first_fetch(false);
        }
        let now = self.clock.elapsed();
        let permitted = !self.is_blocked(now)
            && self.has_extra_fetch_left(now)
            && quota.is_none_or(|quota| quota.take(self, now, others));
        match permitted && self.take_extra_fetch(now) {
            true => Ok(()),
            false => Err(self.not_fetched(now)),
        }
    }

    /// Decides whether a fetch is allowed while there is no usable set.
    fn permit_first_fetch(&self, is_urgent: bool) -> Result<(), NotRefreshed> {
        let now = self.clock.elapsed();
        let attempts = &self.history().attempts;
        match attempts.wait(is_urgent, now) {
            Duration::ZERO => Ok(()),
            retry_after => {
                Err(NotRefreshed::Unavailable { retry_after, fault: attempts.last_fault.clone() })
            }
        }
    }

    /// Returns the reason why a usable set is not fetched again.
    fn not_fetched(&self, now: Duration) -> NotRefreshed {
        let attempts = &self.history().attempts;
        match &attempts.last_fault {
            None => NotRefreshed::RateLimited,
            // The last fetch failed, so the provider may have published the key since.
            Some(fault) => NotRefreshed::Unavailable {
                retry_after: attempts.wait(true, now).max(self.settings.cooldown),
                fault: Some(fault.clone()),
            },
        }
    }

    /// Returns whether the provider's `Retry-After` forbids a fetch.
    fn is_blocked(&self, now: Duration) -> bool {
        now < self.history().attempts.blocked_until
    }

    /// Returns whether the budget allows a fetch for an unknown key id.
    pub(super) fn has_extra_fetch_left(&self, now: Duration) -> bool {
        self.history().extra_fetches.has_one(self.extra_fetch_rate(), now)
    }

    /// Charges the budget for unknown key ids. Returns whether it had one fetch left.
    pub(super) fn take_extra_fetch(&self, now: Duration) -> bool {
        self.history().extra_fetches.take(self.extra_fetch_rate(), now).is_ok()
    }

    fn extra_fetch_rate(&self) -> Rate {
        Rate::new(Rate::EXTRA_FETCH_BURST, self.settings.cooldown)
    }

    pub(super) fn start_fetch(self: &Arc<Self>) -> Waiter<Fetched> {
        let keys = Arc::clone(self);
        self.single_flight.run((), move || async move { keys.fetch().await })
    }

    /// Fetches the set and stores it. Only one fetch runs at a time, so an older answer cannot overwrite a
    /// newer one.
    async fn fetch(&self) -> Fetched {
        loop {
            let purges = self.begin();
            let answer = self.id.source.fetch(&self.http, &self.settings).await;
            let outcome = answer.and_then(|answer| self.parse(&answer)).map_err(Arc::new);
            // A set requested before a purge may contain the purged key: fetch again.
            if let Some(fetched) = self.conclude(outcome, purges) {
                return fetched;
            }
        }
    }

    /// Records the start of a fetch. Returns the number of purges so far.
    fn begin(&self) -> u64 {
        let mut history = self.history();
        let now = self.clock.elapsed();
        history.attempts.last = Some(self.clock.now());
        self.fetch_began_at.set(now);
        // If this task panics or is dropped, another fetch becomes due.
        self.set_due(now + self.settings.timeout * 4);
        history.purges
    }

    fn parse(&self, answer: &Answer) -> Result<(KeySet, Duration), FetchFault> {
        let (allowed, max_keys) = (&self.id.algorithms, self.settings.max_keys);
        let set = match std::str::from_utf8(&answer.body) {
            Ok(text) if answer.is_inline => {
                KeySet::parse_local(text, self.id.form, allowed, max_keys)
            }
            _ => KeySet::parse_fetched(&answer.body, self.id.form, allowed, max_keys),
        };
        let set = set.map_err(|fault| match &self.id.source {
            Source::File(file) => fault.in_file(file),
            _ => fault,
        })?;
        let (floor, ceiling) = TTL_BOUNDS;
        let stated = set.refresh_hint.or(answer.max_age);
        let ttl = stated.map_or(self.settings.ttl, |age| age.clamp(floor, ceiling));
        // A file is a copy, which may be older than its hint says, and costs little to read.
        let ttl = if answer.is_inline { ttl.min(self.settings.ttl) } else { ttl };
        Ok((set, ttl))
    }

    /// Stores the new set, or records the failure, and sets the time of the next refresh. Returns `None` if
    /// the set was purged since `purges` was read.
    fn conclude(
        &self,
        outcome: Result<(KeySet, Duration), Arc<FetchFault>>,
        purges: u64,
    ) -> Option<Fetched> {
        let now = self.clock.elapsed();
        let mut history = self.history();
        if history.purges != purges {
            return None;
        }
        let before = self.current.load_full();
        let fetched = match outcome {
            Ok((set, ttl)) => {
                telemetry::keys_refreshed(&self.label, &self.label, set.all.len());
                if self.outage().record_success(|| now) {
                    telemetry::keys_recovered(&self.label);
                }
                self.log_unusable_keys(&set, before.as_deref().map(|before| &before.set));
                self.log_bundle(&set, before.as_deref().map(|before| &before.set));
                let current = self.successor(now, set, ttl, before.as_deref());
                self.failed_at.set(Duration::ZERO);
                history.attempts.succeeded(current.fresh_until);
                self.current.store(Some(Arc::new(current)));
                self.version.fetch_add(1, Ordering::Release);
                Ok(())
            }
            Err(fault) => {
                let (label, has_keys) = (&self.label, before.is_some());
                let is_new = self.outage().record_failure(&fault, now);
                telemetry::keys_not_refreshed(label, label, &fault, has_keys, is_new);
                history.attempts.failed(fault.clone(), has_keys, now);
                self.failed_at.set(now.max(Duration::from_millis(1)));
                Err(fault)
            }
        };
        self.set_due(history.attempts.next);
        Some(fetched)
    }

    /// Creates the state that replaces `before`. It becomes due no later than it becomes dead, even if the
    /// TTL with its jitter is longer.
    fn successor(
        &self,
        now: Duration,
        mut set: KeySet,
        ttl: Duration,
        before: Option<&Current>,
    ) -> Current {
        if let Some(before) = before {
            set.replace(&before.set);
        }
        let stale = self.settings.max_stale;
        let fresh_for = clock::jittered(ttl, 0.1).min(stale);
        Current { set, fresh_until: now + fresh_for, dead_at: now + stale }
    }

    fn outage(&self) -> &Outage {
        match &self.template_outage {
            Some(outage) if self.version() == 0 => outage,
            _ => &self.outage,
        }
    }

    /// Logs the unusable keys, once for each change of them.
    fn log_unusable_keys(&self, now: &KeySet, before: Option<&KeySet>) {
        if before.is_some_and(|before| before.unusable == now.unusable) {
            return;
        }
        let (broken, other): (Vec<_>, Vec<_>) =
            now.unusable.iter().cloned().partition(|key| key.is_fault);
        if !broken.is_empty() {
            telemetry::keys_broken(&self.label, &list(&broken));
        }
        if !other.is_empty() {
            telemetry::keys_unused(&self.label, &list(&other));
        }
    }

    /// Logs that a bundle has no key, or replaces a newer one. Both are used: an empty bundle revokes all keys,
    /// and a control plane that was restored, or set up again, counts from the start.
    fn log_bundle(&self, now: &KeySet, before: Option<&KeySet>) {
        if now.all.is_empty() && before.is_none_or(|before| !before.all.is_empty()) {
            telemetry::bundle_is_empty(&self.label);
        }
        let sequences = now.sequence.zip(before.and_then(|before| before.sequence));
        if let Some((now, before)) = sequences.filter(|(now, before)| now < before) {
            telemetry::bundle_is_older(&self.label, now, before);
        }
    }

    /// Sets the time of the next refresh, and with it the end of all leases. The caller holds the lock of
    /// the history and has already changed the set, so that both times belong to the same set.
    fn set_due(&self, at: Duration) {
        let current = self.current.load();
        let dead_at = current.as_ref().map_or(Duration::ZERO, |current| current.dead_at);
        self.due.set(at);
        self.valid_until.set(at.min(dead_at));
    }

    fn unavailable(&self, fault: Option<Arc<FetchFault>>) -> NotRefreshed {
        self.history().attempts.unavailable(fault, self.clock.elapsed())
    }
}

fn with_finite_durations(settings: &JwksSettings) -> JwksSettings {
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
    async fn refresh_uses_set_fetched_after_check() {
        // No server listens there: a fetch would fail.
        let id = KeySetId {
            source: Source::at("http://127.0.0.1:1".parse().unwrap(), KeyAccess::default()),
            form: Default::default(),
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
        let check = keys.verify(&query, Algorithm::ES256, b"", b"");
        let expected = matches!(&check, SignatureCheck::NoKey(KeySetVersion { version: 0, .. }));
        assert!(expected, "{check:?}");
        keys.version.store(1, Ordering::Release);
        assert!(matches!(keys.refresh(0, None).await, Ok(Refreshed::ByEarlierFetch)));
        assert!(matches!(keys.refresh(1, None).await, Err(NotRefreshed::Unavailable { .. })));
    }
}
