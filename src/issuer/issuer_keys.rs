//! [`IssuerKeys`]: an issuer's key set, once it is known where that is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::Generation;
use super::discovery::{Discovery, Read};
use super::health::{IssuerHealth, KeyState};
use super::jwk::KeyQuery;
use super::key_sets::{KeySetId, KeySets};
use super::keys::{Keys, NoNewKeys, Renewed, Seen, Verdict};
use super::metadata::Endpoints;
use super::quota::Quota;
use super::source::{FetchFault, Source};
use crate::clock;
use crate::config::{Algorithm, IssuerConfig};
use crate::support::single_flight::Waiter;
use crate::support::telemetry;

/// The keys of an issuer: a set that others may name, too, and the way to it.
#[derive(Debug)]
pub(crate) struct IssuerKeys {
    /// As what metrics count the issuer.
    series: Arc<str>,
    key_sets: Arc<KeySets>,
    /// `None` before discovery told where the set is.
    set: ArcSwapOption<Keys>,
    /// `None` where the set's URL is fixed.
    discovery: Option<Box<Discovery>>,
    /// What the issuers of a template share.
    quota: Option<Arc<Quota>>,
    /// Told when the issuer comes to have another set: what was verified with the one before may
    /// not hold any more, though that one lives on.
    generation: Generation,
}

impl IssuerKeys {
    pub(super) fn new(
        issuer: &Arc<str>,
        series: Arc<str>,
        config: &IssuerConfig,
        key_sets: Arc<KeySets>,
        quota: Option<Arc<Quota>>,
        generation: Generation,
    ) -> Result<Self, url::ParseError> {
        let id = |source| KeySetId {
            source,
            algorithms: config.algorithms.clone(),
            settings: config.jwks.clone(),
        };
        let fixed = match (&config.inline_keys, &config.jwks_uri) {
            (Some(keys), _) => Some(id(Source::Inline(keys.clone()))),
            (None, Some(url)) => Some(id(Source::at(url.parse()?, config.key_access.clone()))),
            (None, None) => None,
        };
        let discovery = Discovery::of(issuer, &series, config, &key_sets, quota.is_none())?;
        Ok(Self {
            set: ArcSwapOption::new(fixed.map(|id| key_sets.get(id, &series))),
            discovery: discovery.map(Box::new),
            series,
            key_sets,
            quota,
            generation,
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
        let set = self.set.load();
        let Some(set) = &*set else { return Verdict::NoKey(Seen::default()) };
        let verdict = set.verify(query, algorithm, message, signature);
        if set.is_usable() {
            self.tend(set);
        }
        verdict
    }

    /// The set, if it is known which.
    pub(super) fn set(&self) -> Option<Arc<Keys>> {
        self.set.load_full()
    }

    /// Waits for newer keys than those seen, if they may be asked for. Tells whose fetch brought
    /// them.
    pub(crate) async fn renew(self: &Arc<Self>, seen: &Seen) -> Result<Renewed, NoNewKeys> {
        let asked_at = self.now();
        let located = self.locate_if_needed().await?;
        let Some(set) = self.set() else { return Err(self.unavailable()) };
        let sets = match seen.is_of(&set) {
            true => seen.sets,
            false => set.sets(),
        };
        let renewed = match !seen.is_of(&set) && set.is_usable() {
            true => Renewed::ByOthersFetch,
            false => set.renew(sets, self.quota.as_deref()).await?,
        };
        // What the metadata led to was fetched for this caller.
        let is_own = located && set.fetched_at().as_millis() >= asked_at.as_millis();
        Ok(if is_own { Renewed::ByOwnFetch } else { renewed })
    }

    /// Why [`renew`](Self::renew) would bring nothing, if that is certain without waiting.
    pub(crate) fn no_new_keys(&self, seen: &Seen) -> Option<NoNewKeys> {
        if let Some(way) = self.discovery.as_deref() {
            if way.flights.is_running(&()) {
                return None;
            }
            if self.set.load().is_none() || way.is_misled() {
                let is_due = way.is_due(self.now());
                return (!is_due).then(|| way.unavailable());
            }
        }
        let set = self.set().filter(|set| seen.is_of(set))?;
        set.no_new_keys(seen.sets, self.quota.as_deref())
    }

    /// Waits until there are keys that can be used, however long that takes. `in_a_hurry` asks for
    /// them also while the last failure says to wait, unless the provider itself said so.
    pub(crate) async fn obtain(self: &Arc<Self>, in_a_hurry: bool) -> Result<(), NoNewKeys> {
        if let (Some(way), None) = (self.discovery.as_deref(), self.set()) {
            if !way.may_ask(in_a_hurry) && !way.flights.is_running(&()) {
                return Err(way.unavailable());
            }
            self.start_locating(way, false).wait().await;
        }
        let Some(set) = self.set() else { return Err(self.unavailable()) };
        set.obtain(in_a_hurry).await.map(drop)
    }

    /// The endpoints that the metadata name, if they are read for the keys' sake and nothing but
    /// waiting for them is needed.
    pub(super) async fn endpoints(self: &Arc<Self>) -> Option<Arc<Endpoints>> {
        let way = self.discovery.as_deref()?;
        if let Some(endpoints) = way.endpoints() {
            return Some(endpoints);
        }
        if way.flights.is_running(&()) || way.is_due(self.now()) {
            self.start_locating(way, false).wait().await;
        }
        way.endpoints()
    }

    /// Whether somebody who looks for metadata at these places looks where this does.
    pub(super) fn is_discovered_at(&self, places: &[url::Url], allow_loopback_http: bool) -> bool {
        let way = self.discovery.as_deref();
        way.is_some_and(|way| way.is_at(places, allow_loopback_http))
    }

    /// Forgets the set, for all who name it: every token waits for a new one, asked for from now on.
    pub(crate) fn purge(&self) {
        if let Some(set) = self.set() {
            set.purge();
        }
    }

    /// Whether the set is too old to be used. One that never was, or was purged, is not.
    pub(crate) fn is_dead(&self) -> bool {
        self.set.load().as_ref().is_some_and(|set| set.is_dead())
    }

    /// Reports, and asks for what is due: a readiness probe keeps an idle service ready.
    pub(crate) fn health(self: &Arc<Self>, issuer: &str) -> IssuerHealth {
        let set = self.set();
        match (&set, self.discovery.as_deref()) {
            (Some(set), _) => self.tend(set),
            (None, Some(way)) if way.is_due(self.now()) => {
                drop(self.start_locating(way, true));
            }
            (None, _) => {}
        }
        let mut health = match &set {
            Some(set) => set.health(issuer),
            None => never(issuer, self.key_sets.clock.now()),
        };
        if let Some(way) = self.discovery.as_deref() {
            way.report(&mut health, set.is_some());
        }
        health
    }

    fn now(&self) -> Duration {
        self.key_sets.clock.elapsed()
    }

    /// Starts what is due, in the background. Metadata come before keys, which may have moved.
    fn tend(self: &Arc<Self>, set: &Arc<Keys>) {
        let now = self.now();
        match self.discovery.as_deref() {
            Some(way) if self.must_locate(way, set, now) && self.may_locate(now) => {
                drop(self.start_locating(way, true));
            }
            // Where the metadata are wrong, what they said before is not insisted on.
            Some(way) if way.is_misled() => {}
            // Not before it is known where the keys are.
            Some(way) if set.is_due(now) && way.flights.is_running(&()) => {}
            _ => set.renew_if_due(now),
        }
    }

    /// Whether the metadata are to be read: they are old, or the keys are not where they said.
    fn must_locate(&self, way: &Discovery, set: &Keys, now: Duration) -> bool {
        let has_lost_keys = || set.is_due(now) && way.is_older_than(set.failed_at());
        way.is_due(now) || has_lost_keys()
    }

    fn may_locate(&self, now: Duration) -> bool {
        self.quota.as_ref().is_none_or(|quota| quota.take_metadata(now))
    }

    /// Waits for the metadata, where there is no set yet, or they are being read, or the set
    /// cannot be used and they may tell why. Tells whether that began with this. The keys follow,
    /// even if whoever waits goes away.
    async fn locate_if_needed(self: &Arc<Self>) -> Result<bool, NoNewKeys> {
        let Some(way) = self.discovery.as_deref() else { return Ok(false) };
        let mut is_new = false;
        let (set, now) = (self.set(), self.now());
        let is_needed = match &set {
            None => way.is_due(now),
            Some(set) => {
                !set.is_usable() && self.must_locate(way, set, now) && self.may_locate(now)
            }
        };
        if is_needed || way.flights.is_running(&()) {
            let waiter = self.start_locating(way, true);
            is_new = waiter.is_new();
            self.wait_for(waiter).await?;
        }
        match set.is_none() && self.set().is_none() || way.is_misled() {
            true => Err(way.unavailable()),
            false => Ok(is_new),
        }
    }

    async fn wait_for(&self, waiter: Waiter<Read>) -> Result<(), NoNewKeys> {
        let limit = self.discovery.as_deref().map_or(Duration::ZERO, |way| way.settings.wait);
        match clock::within(limit, waiter.wait()).await {
            Some(Some(Ok(()))) => Ok(()),
            _ => Err(self.unavailable()),
        }
    }

    fn unavailable(&self) -> NoNewKeys {
        let retry_after = Duration::from_secs(1);
        let none = NoNewKeys::Unavailable { retry_after, fault: None };
        self.discovery.as_deref().map_or(none, |way| way.unavailable())
    }

    fn start_locating(self: &Arc<Self>, way: &Discovery, then_renew: bool) -> Waiter<Read> {
        let keys = self.clone();
        way.flights.run((), move || async move {
            let Some(way) = keys.discovery.as_deref() else { return Ok(()) };
            let located = keys.locate(way).await;
            if let (true, true, Some(set)) = (then_renew, located.is_ok(), keys.set()) {
                set.renew_if_due(keys.now());
            }
            located
        })
    }

    /// Reads the metadata, and changes to the set that they name.
    async fn locate(self: &Arc<Self>, way: &Discovery) -> Read {
        let before = self.set();
        let found = match way.read().await {
            Ok(found) => found,
            Err(fault) => return self.not_located(way, fault, before.as_ref()),
        };
        let set = self.key_sets.get(way.key_set_at(found.jwks_uri.clone()), &self.series);
        match before {
            None => self.set.store(Some(set)),
            Some(before) if Arc::ptr_eq(&before, &set) => {}
            Some(before) => {
                way.tell_of_move(before.url(), &found.jwks_uri);
                // The set before serves until the other one is there.
                if let Err(reason) = set.obtain(true).await {
                    let fault = reason.fault().unwrap_or_else(|| Arc::new(FetchFault::Lost));
                    way.failed(fault.clone(), true, true);
                    return Err(fault);
                }
                self.set.store(Some(set));
                self.generation.bump();
            }
        }
        way.succeeded(found);
        Ok(())
    }

    fn not_located(&self, way: &Discovery, fault: FetchFault, before: Option<&Arc<Keys>>) -> Read {
        // Metadata that are away say nothing about keys that may not be.
        let is_away = matches!(fault, FetchFault::Fetch { .. });
        let fault = Arc::new(fault);
        let is_misled = before.is_some() && !is_away;
        let holds_keys = before.is_some();
        let is_new = way.failed(fault.clone(), is_misled, holds_keys);
        if is_new || before.is_none() {
            telemetry::keys_not_refreshed(&way.issuer, &self.series, &fault, holds_keys, is_new);
        }
        if before.is_some() && is_away { Ok(()) } else { Err(fault) }
    }
}

impl Seen {
    fn is_of(&self, set: &Arc<Keys>) -> bool {
        self.keys.as_ref().is_some_and(|keys| Arc::ptr_eq(keys, set))
    }
}

/// Of an issuer that nothing is known of yet.
fn never(issuer: &str, now: SystemTime) -> IssuerHealth {
    IssuerHealth {
        issuer: issuer.to_owned(),
        state: KeyState::Never,
        keys: 0,
        unusable_keys: 0,
        unusable: Vec::new(),
        last_attempt: None,
        last_error: None,
        next_attempt: now,
    }
}
