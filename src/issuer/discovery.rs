//! [`Discovery`]: fetches an issuer's metadata and finds its key set.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

use super::attempts::{AtomicInstant, Attempts};
use super::cached_key_set::NotRefreshed;
use super::health::{IssuerHealth, KeyState};
use super::http::{FetchError, Limits};
use super::key_sets::{KeySetId, KeySets};
use super::metadata::{self, Endpoints, well_known};
use super::source::{FetchFault, Source};
use crate::config::{
    Algorithm, IssuerConfig, JwksSettings, KeyAccess, KeySetForm, PlainHttp, Route,
};
use crate::support::single_flight::SingleFlight;
use crate::support::telemetry::{self, Outage};

/// The age at which metadata is fetched again.
const METADATA_TTL: Duration = Duration::from_secs(3600);

/// The minimum age at which metadata that lacks something is fetched again.
const CORRECTION_PERIOD: Duration = Duration::from_secs(60);

pub(super) type DiscoveryResult = Result<(), Arc<FetchFault>>;

/// The discovery of an issuer's key set URL.
#[derive(Debug)]
pub(super) struct Discovery {
    pub(super) issuer: Arc<str>,
    /// The possible URLs of the metadata.
    urls: Box<[Url]>,
    /// Whether the name of the issuer was set as `expected_issuer`.
    has_expected_issuer: bool,
    plain_http: PlainHttp,
    // The id of the key set consists of its URL, `access`, `algorithms` and `settings`.
    access: KeyAccess,
    algorithms: Vec<Algorithm>,
    pub(super) settings: JwksSettings,
    key_sets: Arc<KeySets>,
    /// Whether to keep the URLs of the token, authorization, revocation and end-session endpoints, which the service's own
    /// client needs.
    keeps_endpoints: bool,
    pub(super) single_flight: SingleFlight<(), DiscoveryResult>,
    /// The time of the next fetch.
    due: AtomicInstant,
    /// The time of the last successful fetch.
    fetched_at: AtomicInstant,
    /// Whether the metadata fetched last was invalid.
    has_bad_metadata: AtomicBool,
    history: Mutex<History>,
    /// One outage for all tenants of a template whose metadata was never fetched.
    template_outage: Option<Arc<Outage>>,
}

#[derive(Debug, Default)]
struct History {
    attempts: Attempts,
    /// The index of the URL that answered last. It is tried first.
    last_answered: Option<usize>,
    endpoints: Option<Arc<Endpoints>>,
}

pub(super) struct Metadata {
    pub(super) jwks_uri: Url,
    url_index: usize,
    endpoints: Option<Endpoints>,
}

impl Discovery {
    /// Creates the discovery of an issuer. Returns `None` if the keys or their URL are configured.
    pub(super) fn new(
        issuer: &Arc<str>,
        label: &str,
        config: &IssuerConfig,
        key_sets: &Arc<KeySets>,
        keeps_endpoints: bool,
    ) -> Result<Option<Self>, url::ParseError> {
        if config.has_key_source() {
            return Ok(None);
        }
        let urls = match &config.discovery_url {
            Some(url) => vec![Url::parse(url)?],
            None => well_known(&Url::parse(&config.issuer)?),
        };
        Ok(Some(Self {
            issuer: issuer.clone(),
            urls: urls.into(),
            has_expected_issuer: config.expected_issuer.is_some(),
            plain_http: config.plain_http(),
            access: config.key_access(),
            algorithms: config.algorithms.clone(),
            settings: config.jwks.clone(),
            key_sets: key_sets.clone(),
            keeps_endpoints,
            single_flight: SingleFlight::default(),
            due: AtomicInstant::default(),
            fetched_at: AtomicInstant::default(),
            has_bad_metadata: AtomicBool::new(false),
            history: Mutex::default(),
            template_outage: key_sets.outage_of_template("metadata", label),
        }))
    }

    /// Returns whether this discovery uses the same URLs, the same rule for `http` URLs, and the same route.
    pub(super) fn uses(&self, urls: &[Url], plain_http: &PlainHttp, route: &Route) -> bool {
        *self.urls == *urls && self.plain_http == *plain_http && self.access.route == *route
    }

    /// Returns the id of the key set at this URL.
    pub(super) fn key_set_at(&self, jwks_uri: Url) -> KeySetId {
        KeySetId {
            source: Source::at(jwks_uri, self.access.clone()),
            form: KeySetForm::Jwks,
            algorithms: self.algorithms.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Logs that the key set moved to another host.
    pub(super) fn log_move(&self, from: Option<&Url>, to: &Url) {
        if let Some(from) = from.filter(|from| from.host() != to.host()) {
            telemetry::keys_moved(&self.issuer, from.as_str(), to.as_str());
        }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.due.get()
    }

    /// Returns whether a fetch is allowed while there is no metadata. An urgent fetch ignores the back-off
    /// after a failure, but not the provider's `Retry-After`.
    pub(super) fn may_fetch(&self, is_urgent: bool) -> bool {
        self.history().attempts.wait(is_urgent, self.now()).is_zero()
    }

    /// Returns whether the metadata is older than a failed fetch of the keys: the keys may have moved since.
    pub(super) fn is_older_than(&self, failure: Duration) -> bool {
        failure > self.fetched_at.get()
    }

    /// Returns whether the metadata fetched last was invalid.
    pub(super) fn has_bad_metadata(&self) -> bool {
        self.has_bad_metadata.load(Ordering::Relaxed)
    }

    /// Creates the error for metadata that is not available.
    pub(super) fn unavailable(&self) -> NotRefreshed {
        let attempts = &self.history().attempts;
        attempts.unavailable(attempts.last_fault.clone(), self.now())
    }

    /// Adds the state of the metadata to the health of the keys. Without keys, or with bad metadata, the
    /// metadata's error and next attempt replace those of the keys.
    pub(super) fn add_to_health(&self, health: &mut IssuerHealth, has_keys: bool) {
        let attempts = &self.history().attempts;
        health.last_attempt = health.last_attempt.max(attempts.last);
        if has_keys && !self.has_bad_metadata() {
            return;
        }
        health.last_error = attempts.last_fault.as_ref().map(ToString::to_string);
        health.next_attempt = self.key_sets.clock.now() + self.due.get().saturating_sub(self.now());
        if matches!(health.state, KeyState::Fresh | KeyState::Due) {
            health.state = KeyState::Stale;
        }
    }

    /// Returns whether metadata that lacks something may be fetched again: the last fetch succeeded at least a
    /// minute ago.
    pub(super) fn may_be_corrected(&self) -> bool {
        let age = self.now().saturating_sub(self.fetched_at.get());
        age >= CORRECTION_PERIOD && !self.history().attempts.are_failing()
    }

    /// Returns the endpoints in the metadata, unless the metadata is too old.
    pub(super) fn endpoints(&self) -> Option<Arc<Endpoints>> {
        let is_old = self.now().saturating_sub(self.fetched_at.get()) >= METADATA_TTL;
        self.history().endpoints.clone().filter(|_| !is_old)
    }

    /// Fetches the metadata.
    pub(super) async fn fetch(&self) -> Result<Metadata, FetchFault> {
        let last_answered = {
            let mut history = self.history();
            history.attempts.last = Some(self.key_sets.clock.now());
            // If this task panics or is dropped, another fetch becomes due.
            history.attempts.next = self.now() + self.settings.timeout.saturating_mul(4);
            self.due.set(history.attempts.next);
            history.last_answered
        };
        self.fetch_first(last_answered).await
    }

    /// Records that the metadata was fetched and is now used.
    pub(super) fn succeeded(&self, metadata: Metadata) {
        let now = self.now();
        let mut history = self.history();
        let is_first = history.last_answered.replace(metadata.url_index).is_none();
        if let Some(outage) = self.template_outage.as_ref().filter(|_| is_first) {
            outage.record_success(|| now);
        }
        history.endpoints = metadata.endpoints.map(Arc::new);
        history.attempts.succeeded(now + METADATA_TTL);
        self.has_bad_metadata.store(false, Ordering::Relaxed);
        self.fetched_at.set(now);
        self.due.set(history.attempts.next);
    }

    /// Records a failure. `is_bad`: the metadata was fetched, but is invalid. Returns whether an outage
    /// begins with it.
    pub(super) fn failed(&self, fault: Arc<FetchFault>, is_bad: bool, has_keys: bool) -> bool {
        let now = self.now();
        let mut history = self.history();
        let is_new = match &self.template_outage {
            Some(outage) if history.last_answered.is_none() => outage.record_failure(&fault, now),
            _ => !history.attempts.are_failing(),
        };
        history.attempts.failed(fault, has_keys, now);
        self.has_bad_metadata.store(is_bad, Ordering::Relaxed);
        self.due.set(history.attempts.next);
        is_new
    }

    /// Tries the URLs in turn, beginning with the one that answered last.
    async fn fetch_first(&self, last_answered: Option<usize>) -> Result<Metadata, FetchFault> {
        let mut urls: Vec<_> = self.urls.iter().enumerate().collect();
        urls.sort_by_key(|(nth, _)| Some(*nth) != last_answered);
        let mut best_fault = None;
        for (nth, url) in urls {
            match self.fetch_from(nth, url).await {
                Ok(metadata) => return Ok(metadata),
                // The other URLs are on the same host.
                Err(fault) if fault.concerns_host() => return Err(fault),
                // A wrong document explains more than a missing one.
                Err(fault @ FetchFault::Metadata { .. }) => best_fault = Some(fault),
                Err(fault) => best_fault = best_fault.or(Some(fault)),
            }
        }
        Err(best_fault.unwrap_or(FetchFault::NotAKeySet))
    }

    async fn fetch_from(&self, nth: usize, url: &Url) -> Result<Metadata, FetchFault> {
        let (limits, route) = (Limits::of(&self.settings), &self.access.route);
        let answer = self.key_sets.http.get(url, limits, route, None).await;
        let answer = answer.map_err(|error| FetchFault::Fetch { url: url.clone(), error })?;
        let (issuer, plain_http) = (&*self.issuer, &self.plain_http);
        let jwks_uri = metadata::jwks_uri(&answer.body, url, issuer, plain_http)
            .map_err(|error| error.with_expected_issuer(self.has_expected_issuer))
            .map_err(|error| FetchFault::Metadata { url: url.clone(), error })?;
        let endpoints = || Endpoints::parse(&answer.body, url, issuer, plain_http).ok();
        let endpoints = if self.keeps_endpoints { endpoints() } else { None };
        Ok(Metadata { jwks_uri, url_index: nth, endpoints })
    }

    fn now(&self) -> Duration {
        self.key_sets.clock.elapsed()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // Every write is a plain assignment, so a panic cannot leave the history half written.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchFault {
    /// Returns whether another document of the same host would fail, too.
    fn concerns_host(&self) -> bool {
        let Self::Fetch { error, .. } = self else { return false };
        let is_unreachable = matches!(
            error,
            FetchError::Unreachable(_) | FetchError::Unconnected(_) | FetchError::Deadline(_)
        );
        is_unreachable || self.retry_after().is_some() || self.is_too_many_requests()
    }
}
