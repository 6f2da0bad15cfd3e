//! [`Discovery`]: where an issuer's metadata are, and what they said.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use url::Url;

use super::attempts::{AtomicInstant, Attempts};
use super::health::{IssuerHealth, KeyState};
use super::http::{FetchError, Limits};
use super::key_sets::{KeySetId, KeySets};
use super::keys::NoNewKeys;
use super::metadata::{self, Endpoints, well_known};
use super::source::{FetchFault, Source};
use crate::config::{Algorithm, IssuerConfig, JwksSettings, KeyAccess};
use crate::support::single_flight::SingleFlight;
use crate::support::telemetry::{self, Outage};

/// How long what discovery said is relied upon.
const METADATA_TTL: Duration = Duration::from_secs(3600);

pub(super) type Read = Result<(), Arc<FetchFault>>;

/// Finds out where an issuer's keys are.
#[derive(Debug)]
pub(super) struct Discovery {
    pub(super) issuer: Arc<str>,
    /// Where the metadata may be.
    places: Box<[Url]>,
    allow_loopback_http: bool,
    /// What the key set is but for its URL.
    access: KeyAccess,
    algorithms: Vec<Algorithm>,
    pub(super) settings: JwksSettings,
    key_sets: Arc<KeySets>,
    /// Whether the other endpoints are kept, too, for the service's own client.
    keeps_endpoints: bool,
    pub(super) flights: SingleFlight<(), Read>,
    /// When the metadata should next be read.
    due: AtomicInstant,
    /// When they were last read.
    read_at: AtomicInstant,
    /// Whether they were read and are wrong.
    is_misled: AtomicBool,
    record: Mutex<Record>,
    /// What the log was told of metadata of its template's tenants that never came.
    never: Option<Arc<Outage>>,
}

#[derive(Debug, Default)]
struct Record {
    attempts: Attempts,
    /// Which of the places answered; it is asked first the next time.
    answered: Option<usize>,
    endpoints: Option<Arc<Endpoints>>,
}

/// What metadata said.
pub(super) struct Found {
    pub(super) jwks_uri: Url,
    answered: usize,
    endpoints: Option<Endpoints>,
}

impl Discovery {
    /// `None` where the key set's URL is fixed.
    pub(super) fn of(
        issuer: &Arc<str>,
        series: &str,
        config: &IssuerConfig,
        key_sets: &Arc<KeySets>,
        keeps_endpoints: bool,
    ) -> Result<Option<Self>, url::ParseError> {
        let places = match (&config.inline_keys, &config.jwks_uri, &config.discovery_url) {
            (Some(_), ..) | (_, Some(_), _) => return Ok(None),
            (None, None, Some(url)) => vec![Url::parse(url)?],
            (None, None, None) => well_known(&Url::parse(&config.issuer)?),
        };
        Ok(Some(Self {
            issuer: issuer.clone(),
            places: places.into(),
            allow_loopback_http: config.allow_loopback_http,
            access: config.key_access.clone(),
            algorithms: config.algorithms.clone(),
            settings: config.jwks.clone(),
            key_sets: key_sets.clone(),
            keeps_endpoints,
            flights: SingleFlight::default(),
            due: AtomicInstant::default(),
            read_at: AtomicInstant::default(),
            is_misled: AtomicBool::new(false),
            record: Mutex::default(),
            never: key_sets.outage_of_template("metadata", series),
        }))
    }

    /// Whether these are the places where somebody else would look, and what they say would mean
    /// the same.
    pub(super) fn is_at(&self, places: &[Url], allow_loopback_http: bool) -> bool {
        self.allow_loopback_http == allow_loopback_http && *self.places == *places
    }

    /// The key set at this place.
    pub(super) fn key_set_at(&self, jwks_uri: Url) -> KeySetId {
        KeySetId {
            source: Source::at(jwks_uri, self.access.clone()),
            algorithms: self.algorithms.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Logs that the keys are on another host than before.
    pub(super) fn tell_of_move(&self, from: Option<&Url>, to: &Url) {
        if let Some(from) = from.filter(|from| from.host() != to.host()) {
            telemetry::keys_moved(&self.issuer, from.as_str(), to.as_str());
        }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.due.get()
    }

    /// Whether the metadata may be asked for where there are none. `in_a_hurry` also while the last
    /// failure says to wait, unless a place itself said so.
    pub(super) fn may_ask(&self, in_a_hurry: bool) -> bool {
        self.record().attempts.wait(in_a_hurry, self.now()).is_zero()
    }

    /// Whether the metadata were read before a failure, after which the keys may have moved.
    pub(super) fn is_older_than(&self, failure: Duration) -> bool {
        failure > self.read_at.get()
    }

    /// Whether the metadata cannot be used as they are now.
    pub(super) fn is_misled(&self) -> bool {
        self.is_misled.load(Ordering::Relaxed)
    }

    /// Why there is nothing to wait for.
    pub(super) fn unavailable(&self) -> NoNewKeys {
        let attempts = &self.record().attempts;
        attempts.unavailable(attempts.last_fault.clone(), self.now())
    }

    /// Adds to the report of the keys how reading the metadata went. Where there are no keys, or the
    /// metadata are wrong, that comes first.
    pub(super) fn report(&self, health: &mut IssuerHealth, has_keys: bool) {
        let attempts = &self.record().attempts;
        health.last_attempt = health.last_attempt.max(attempts.last);
        if has_keys && !self.is_misled() {
            return;
        }
        health.last_error = attempts.last_fault.as_ref().map(ToString::to_string);
        health.next_attempt = self.key_sets.clock.now() + self.due.get().saturating_sub(self.now());
        if matches!(health.state, KeyState::Fresh | KeyState::Due) {
            health.state = KeyState::Stale;
        }
    }

    /// The endpoints that the metadata named, while that is relied upon.
    pub(super) fn endpoints(&self) -> Option<Arc<Endpoints>> {
        let is_old = self.now().saturating_sub(self.read_at.get()) >= METADATA_TTL;
        self.record().endpoints.clone().filter(|_| !is_old)
    }

    /// Reads the metadata.
    pub(super) async fn read(&self) -> Result<Found, FetchFault> {
        let answered = {
            let mut record = self.record();
            record.attempts.last = Some(self.key_sets.clock.now());
            // Should this task die, the next attempt is still due.
            record.attempts.next = self.now() + self.settings.timeout.saturating_mul(4);
            self.due.set(record.attempts.next);
            record.answered
        };
        self.ask(answered).await
    }

    /// Writes down that what was read is used.
    pub(super) fn succeeded(&self, found: Found) {
        let now = self.now();
        let mut record = self.record();
        let is_first = record.answered.replace(found.answered).is_none();
        if let Some(never) = self.never.as_ref().filter(|_| is_first) {
            never.ends(|| now);
        }
        record.endpoints = found.endpoints.map(Arc::new);
        record.attempts.succeeded(now + METADATA_TTL);
        self.is_misled.store(false, Ordering::Relaxed);
        self.read_at.set(now);
        self.due.set(record.attempts.next);
    }

    /// Writes down why nothing can be used, and whether there are keys to go on with. Returns
    /// whether that is new.
    pub(super) fn failed(&self, fault: Arc<FetchFault>, is_misled: bool, holds_keys: bool) -> bool {
        let now = self.now();
        let mut record = self.record();
        let is_new = match &self.never {
            Some(never) if record.answered.is_none() => never.begins(&fault, now),
            _ => !record.attempts.are_failing(),
        };
        record.attempts.failed(fault, holds_keys, now);
        self.is_misled.store(is_misled, Ordering::Relaxed);
        self.due.set(record.attempts.next);
        is_new
    }

    /// Asks the places in turn, the one that answered last first.
    async fn ask(&self, answered: Option<usize>) -> Result<Found, FetchFault> {
        let mut places: Vec<_> = self.places.iter().enumerate().collect();
        places.sort_by_key(|(nth, _)| Some(*nth) != answered);
        let mut first_fault = None;
        for (nth, place) in places {
            match self.ask_at(nth, place).await {
                Ok(found) => return Ok(found),
                // Nobody there: the other places are on the same host.
                Err(fault) if fault.is_of_the_host() => return Err(fault),
                // A document that is wrong tells more than one that is missing.
                Err(fault @ FetchFault::Metadata { .. }) => first_fault = Some(fault),
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        Err(first_fault.unwrap_or(FetchFault::NotAKeySet))
    }

    async fn ask_at(&self, nth: usize, place: &Url) -> Result<Found, FetchFault> {
        let answer = self.key_sets.http.get(place, Limits::of(&self.settings)).await;
        let answer = answer.map_err(|error| FetchFault::Fetch { url: place.clone(), error })?;
        let (issuer, loopback) = (&*self.issuer, self.allow_loopback_http);
        let jwks_uri = metadata::jwks_uri(&answer.body, place, issuer, loopback)
            .map_err(|error| FetchFault::Metadata { url: place.clone(), error })?;
        let endpoints = || Endpoints::parse(&answer.body, place, issuer, loopback).ok();
        let endpoints = if self.keeps_endpoints { endpoints() } else { None };
        Ok(Found { jwks_uri, answered: nth, endpoints })
    }

    fn now(&self) -> Duration {
        self.key_sets.clock.elapsed()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Every write to the record is a plain assignment, so a panic cannot leave it half done.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchFault {
    /// Whether asking for another document of the same host would be of no use.
    fn is_of_the_host(&self) -> bool {
        let Self::Fetch { error, .. } = self else { return false };
        let is_away = matches!(
            error,
            FetchError::Unreachable(_) | FetchError::Unconnected(_) | FetchError::Deadline(_)
        );
        is_away || self.retry_after().is_some() || self.is_of_too_many_requests()
    }
}
