//! [`IssuerKeys`]: an issuer's key set, and the discovery of its URL.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;

use super::Generation;
use super::cached_key_set::{CachedKeySet, KeySetVersion, NotRefreshed, Refreshed, SignatureCheck};
use super::discovery::{Discovery, DiscoveryResult};
use super::health::{IssuerHealth, KeyState};
use super::jwk::KeyQuery;
use super::key_sets::{KeySetId, KeySets};
use super::metadata::Endpoints;
use super::quota::Quota;
use super::source::{FetchFault, Source};
use crate::clock;
use crate::config::{Algorithm, IssuerConfig, PlainHttp, Route};
use crate::support::single_flight::Waiter;
use crate::support::telemetry;

/// The keys of an issuer: a key set, which other issuers may share, and the discovery of its URL.
#[derive(Debug)]
pub(crate) struct IssuerKeys {
    /// The label of the issuer in logs and metrics: its name, or that of its template.
    label: Arc<str>,
    key_sets: Arc<KeySets>,
    /// `None` until discovery has found the set's URL.
    set: ArcSwapOption<CachedKeySet>,
    /// `None` if the set's URL is configured.
    discovery: Option<Box<Discovery>>,
    /// The fetch limits that all issuers from one [template](super::IssuerTemplate) share.
    quota: Option<Arc<Quota>>,
    /// Begins a new generation when discovery finds another set: tokens verified with the previous set must
    /// be verified again, even if other issuers still use that set.
    generation: Generation,
}

impl IssuerKeys {
    pub(super) fn new(
        issuer: &Arc<str>,
        label: Arc<str>,
        config: &IssuerConfig,
        key_sets: Arc<KeySets>,
        quota: Option<Arc<Quota>>,
        generation: Generation,
    ) -> Result<Self, url::ParseError> {
        let id = |source| KeySetId {
            source,
            form: config.key_set_form,
            algorithms: config.algorithms.clone(),
            settings: config.jwks.clone(),
        };
        let fixed = match (&config.inline_keys, &config.keys_file, &config.jwks_uri) {
            (Some(keys), ..) => Some(id(Source::Inline(keys.clone()))),
            (None, Some(file), _) => Some(id(Source::File(file.clone()))),
            (None, None, Some(url)) => Some(id(Source::at(url.parse()?, config.key_access()))),
            (None, None, None) => None,
        };
        let discovery = Discovery::new(issuer, &label, config, &key_sets, quota.is_none())?;
        Ok(Self {
            set: ArcSwapOption::new(fixed.map(|id| key_sets.get(id, &label))),
            discovery: discovery.map(Box::new),
            label,
            key_sets,
            quota,
            generation,
        })
    }

    /// Verifies a signature with the cached keys, without a lock. Starts a background refresh if one is due.
    pub(crate) fn verify(
        self: &Arc<Self>,
        query: &KeyQuery<'_>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> SignatureCheck {
        let set = self.set.load();
        let Some(set) = &*set else { return SignatureCheck::NoKey(KeySetVersion::default()) };
        let check = set.verify(query, algorithm, message, signature);
        if set.is_usable() {
            self.refresh_if_due(set);
        }
        check
    }

    /// Returns the key set, if its URL is known.
    pub(super) fn set(&self) -> Option<Arc<CachedKeySet>> {
        self.set.load_full()
    }

    /// Waits for keys newer than those in `tried`, if a fetch is allowed. Returns whether a fetch that began
    /// after the call brought them.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        tried: &KeySetVersion,
    ) -> Result<Refreshed, NotRefreshed> {
        let called_at = self.now();
        let has_discovered = self.discover_if_needed().await?;
        let Some(set) = self.set() else { return Err(self.unavailable()) };
        let version = match tried.is_of(&set) {
            true => tried.version,
            false => set.version(),
        };
        let refreshed = match !tried.is_of(&set) && set.is_usable() {
            true => Refreshed::ByEarlierFetch,
            false => set.refresh(version, self.quota.as_deref()).await?,
        };
        // If this call started the discovery, the fetch that followed it is new, too.
        let is_new = has_discovered && set.fetch_began_at().as_millis() >= called_at.as_millis();
        Ok(if is_new { Refreshed::ByNewFetch } else { refreshed })
    }

    /// Returns the reason why [`refresh`](Self::refresh) would bring no newer keys; `None` if that is not
    /// certain without waiting.
    pub(crate) fn refusal_to_refresh(&self, tried: &KeySetVersion) -> Option<NotRefreshed> {
        if let Some(discovery) = self.discovery.as_deref() {
            if discovery.single_flight.is_running(&()) {
                return None;
            }
            if self.set.load().is_none() || discovery.has_bad_metadata() {
                let is_due = discovery.is_due(self.now());
                return (!is_due).then(|| discovery.unavailable());
            }
        }
        let set = self.set().filter(|set| tried.is_of(set))?;
        set.refusal_to_refresh(tried.version, self.quota.as_deref())
    }

    /// Waits until there are usable keys, without a time limit. An urgent call ignores the back-off after a
    /// failure, but not the provider's `Retry-After`.
    pub(crate) async fn wait_until_usable(
        self: &Arc<Self>,
        is_urgent: bool,
    ) -> Result<(), NotRefreshed> {
        if let (Some(discovery), None) = (self.discovery.as_deref(), self.set()) {
            if !discovery.may_fetch(is_urgent) && !discovery.single_flight.is_running(&()) {
                return Err(discovery.unavailable());
            }
            self.start_discovery(discovery, false).wait().await;
        }
        let Some(set) = self.set() else { return Err(self.unavailable()) };
        set.wait_until_usable(is_urgent).await.map(drop)
    }

    /// Returns the endpoints in the metadata. Waits for the metadata if it is being fetched, or due. Returns
    /// `None` if this issuer keeps no endpoints.
    pub(crate) async fn endpoints(self: &Arc<Self>) -> Option<Arc<Endpoints>> {
        let discovery = self.discovery.as_deref()?;
        if let Some(endpoints) = discovery.endpoints() {
            return Some(endpoints);
        }
        if discovery.single_flight.is_running(&()) || discovery.is_due(self.now()) {
            self.start_discovery(discovery, false).wait().await;
        }
        discovery.endpoints()
    }

    /// Returns the endpoints in the metadata, as [`endpoints`](Self::endpoints) does. If these lack something,
    /// which the provider may add at any time, the metadata is fetched again, at most once a minute.
    pub(crate) async fn endpoints_with(
        self: &Arc<Self>,
        is_complete: impl Fn(&Endpoints) -> bool,
    ) -> Option<Arc<Endpoints>> {
        let endpoints = self.endpoints().await;
        let discovery = self.discovery.as_deref()?;
        if endpoints.as_deref().is_some_and(is_complete) || !discovery.may_be_corrected() {
            return endpoints;
        }
        self.start_discovery(discovery, false).wait().await;
        discovery.endpoints()
    }

    /// Returns whether discovery uses these metadata URLs, rule for `http` URLs, and route.
    pub(super) fn is_discovered_at(
        &self,
        urls: &[url::Url],
        plain_http: &PlainHttp,
        route: &Route,
    ) -> bool {
        let discovery = self.discovery.as_deref();
        discovery.is_some_and(|discovery| discovery.uses(urls, plain_http, route))
    }

    /// Discards the key set, for all issuers that share it. Every token then waits for a new fetch.
    pub(crate) fn purge(&self) {
        if let Some(set) = self.set() {
            set.purge();
        }
    }

    /// Returns whether the key set is too old to be used. A set that was never fetched, or was purged, is
    /// not dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.set.load().as_ref().is_some_and(|set| set.is_dead())
    }

    /// Reports the state of the keys, and starts fetches that are due.
    pub(crate) fn health(self: &Arc<Self>, issuer: &str) -> IssuerHealth {
        let set = self.set();
        match (&set, self.discovery.as_deref()) {
            (Some(set), _) => self.refresh_if_due(set),
            (None, Some(discovery)) if discovery.is_due(self.now()) => {
                drop(self.start_discovery(discovery, true));
            }
            (None, _) => {}
        }
        let mut health = match &set {
            Some(set) => set.health(issuer),
            None => never_fetched(issuer, self.key_sets.clock.now()),
        };
        if let Some(discovery) = self.discovery.as_deref() {
            discovery.add_to_health(&mut health, set.is_some());
        }
        health
    }

    fn now(&self) -> Duration {
        self.key_sets.clock.elapsed()
    }

    /// Starts fetches that are due, in the background. Metadata is fetched before keys, because the keys may
    /// have moved.
    fn refresh_if_due(self: &Arc<Self>, set: &Arc<CachedKeySet>) {
        let now = self.now();
        match self.discovery.as_deref() {
            Some(discovery)
                if self.needs_discovery(discovery, set, now) && self.may_discover(now) =>
            {
                drop(self.start_discovery(discovery, true));
            }
            // The metadata is invalid now, so the URL of the key set may be wrong, too.
            Some(discovery) if discovery.has_bad_metadata() => {}
            // The keys are fetched after the discovery.
            Some(discovery) if set.is_due(now) && discovery.single_flight.is_running(&()) => {}
            _ => set.refresh_if_due(now),
        }
    }

    /// Returns whether the metadata must be fetched: it is old, or the last fetch of the keys failed.
    fn needs_discovery(&self, discovery: &Discovery, set: &CachedKeySet, now: Duration) -> bool {
        let may_have_moved = || set.is_due(now) && discovery.is_older_than(set.failed_at());
        discovery.is_due(now) || may_have_moved()
    }

    fn may_discover(&self, now: Duration) -> bool {
        self.quota.as_ref().is_none_or(|quota| quota.take_metadata(now))
    }

    /// Waits for the metadata if there is no key set yet, if it is being fetched, or if the set is unusable
    /// and newer metadata may help. Returns whether this call started the discovery. A fetch of the keys
    /// follows, even if the caller stops waiting.
    async fn discover_if_needed(self: &Arc<Self>) -> Result<bool, NotRefreshed> {
        let Some(discovery) = self.discovery.as_deref() else { return Ok(false) };
        let mut is_new = false;
        let (set, now) = (self.set(), self.now());
        let is_needed = match &set {
            None => discovery.is_due(now),
            Some(set) => {
                !set.is_usable()
                    && self.needs_discovery(discovery, set, now)
                    && self.may_discover(now)
            }
        };
        if is_needed || discovery.single_flight.is_running(&()) {
            let waiter = self.start_discovery(discovery, true);
            is_new = waiter.is_new();
            self.wait_within_limit(waiter).await?;
        }
        match set.is_none() && self.set().is_none() || discovery.has_bad_metadata() {
            true => Err(discovery.unavailable()),
            false => Ok(is_new),
        }
    }

    async fn wait_within_limit(&self, waiter: Waiter<DiscoveryResult>) -> Result<(), NotRefreshed> {
        let discovery = self.discovery.as_deref();
        let limit = discovery.map_or(Duration::ZERO, |discovery| discovery.settings.wait);
        match clock::with_timeout(limit, waiter.wait()).await {
            Some(Some(Ok(()))) => Ok(()),
            _ => Err(self.unavailable()),
        }
    }

    fn unavailable(&self) -> NotRefreshed {
        let retry_after = Duration::from_secs(1);
        let none = NotRefreshed::Unavailable { retry_after, fault: None };
        self.discovery.as_deref().map_or(none, |discovery| discovery.unavailable())
    }

    fn start_discovery(
        self: &Arc<Self>,
        discovery: &Discovery,
        then_refresh: bool,
    ) -> Waiter<DiscoveryResult> {
        let keys = self.clone();
        discovery.single_flight.run((), move || async move {
            let Some(discovery) = keys.discovery.as_deref() else { return Ok(()) };
            let result = keys.discover(discovery).await;
            if let (true, true, Some(set)) = (then_refresh, result.is_ok(), keys.set()) {
                set.refresh_if_due(keys.now());
            }
            result
        })
    }

    /// Fetches the metadata, and switches to the key set that they name.
    async fn discover(self: &Arc<Self>, discovery: &Discovery) -> DiscoveryResult {
        let before = self.set();
        let metadata = match discovery.fetch().await {
            Ok(metadata) => metadata,
            Err(fault) => return self.discovery_failed(discovery, fault, before.is_some()),
        };
        let id = discovery.key_set_at(metadata.jwks_uri.clone());
        let set = self.key_sets.get(id, &self.label);
        match before {
            None => self.set.store(Some(set)),
            Some(before) if Arc::ptr_eq(&before, &set) => {}
            Some(before) => {
                discovery.log_move(before.url(), &metadata.jwks_uri);
                // The previous set stays in use until the new one has keys.
                if let Err(reason) = set.wait_until_usable(true).await {
                    let fault = reason.fault().unwrap_or_else(|| Arc::new(FetchFault::Lost));
                    discovery.failed(fault.clone(), true, true);
                    return Err(fault);
                }
                self.set.store(Some(set));
                self.generation.bump();
            }
        }
        discovery.succeeded(metadata);
        Ok(())
    }

    fn discovery_failed(
        &self,
        discovery: &Discovery,
        fault: FetchFault,
        has_keys: bool,
    ) -> DiscoveryResult {
        // Unreachable metadata do not make the keys invalid; bad metadata may.
        let is_unreachable = matches!(fault, FetchFault::Fetch { .. });
        let fault = Arc::new(fault);
        let is_bad = has_keys && !is_unreachable;
        let is_new = discovery.failed(fault.clone(), is_bad, has_keys);
        if is_new || !has_keys {
            let issuer = &discovery.issuer;
            telemetry::keys_not_refreshed(issuer, &self.label, &fault, has_keys, is_new);
        }
        if has_keys && is_unreachable { Ok(()) } else { Err(fault) }
    }
}

impl KeySetVersion {
    /// Returns whether no fetch has ended between the two.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same_set = match (&self.set, &other.set) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_same_set && self.version == other.version
    }

    fn is_of(&self, set: &Arc<CachedKeySet>) -> bool {
        self.set.as_ref().is_some_and(|own| Arc::ptr_eq(own, set))
    }
}

/// Returns the health of an issuer whose key set was never fetched.
fn never_fetched(issuer: &str, now: SystemTime) -> IssuerHealth {
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
