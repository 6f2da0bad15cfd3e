//! [`Discovery`]: where an issuer's metadata are, and what they said.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use url::Url;

use super::grounds::millis;
use super::http::{FetchError, Http, Limits};
use super::keys::{NoNewKeys, left_alone_for};
use super::metadata::{Endpoints, Metadata, well_known};
use super::source::FetchFault;
use crate::clock::Clock;
use crate::config::IssuerConfig;
use crate::support::retry::Backoff;
use crate::telemetry::{self, Outage};

/// How long what discovery said is relied upon.
const METADATA_TTL: Duration = Duration::from_secs(3600);

/// Where an issuer's metadata may be.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The document itself.
    At(Url),
    /// Under the issuer's URL, at one of the well-known places.
    Under(Url),
}

impl Place {
    /// `None` where the key set's URL is fixed.
    pub(super) fn of(config: &IssuerConfig) -> Result<Option<Self>, url::ParseError> {
        match (&config.inline_keys, &config.jwks_uri, &config.discovery_url) {
            (Some(_), ..) | (_, Some(_), _) => Ok(None),
            (None, None, Some(url)) => Ok(Some(Self::At(Url::parse(url)?))),
            (None, None, None) => Ok(Some(Self::Under(Url::parse(&config.issuer)?))),
        }
    }

    fn all(&self) -> Vec<Url> {
        match self {
            Self::At(url) => vec![url.clone()],
            Self::Under(issuer) => well_known(issuer),
        }
    }
}

/// Finds out where an issuer's keys are.
#[derive(Debug)]
pub(super) struct Discovery {
    issuer: Arc<str>,
    place: Place,
    allow_loopback_http: bool,
    limits: Limits,
    clock: Arc<dyn Clock>,
    http: Arc<Http>,
    /// Whether the other endpoints are kept, too, for the service's own client.
    keeps_endpoints: bool,
    /// When the metadata should next be read, in milliseconds of the clock.
    due: AtomicU64,
    /// Not before this moment is anybody asked, in milliseconds of the clock: a place said so.
    left_alone_until: AtomicU64,
    /// When they were last read, in milliseconds of the clock.
    read_at: AtomicU64,
    /// Whether they were read and are wrong.
    is_misled: AtomicBool,
    record: Mutex<Record>,
    /// What the log was told of metadata of its template's tenants that never came.
    never: Option<Arc<Outage>>,
}

#[derive(Debug, Default)]
struct Record {
    failures: u32,
    last_attempt: Option<SystemTime>,
    last_fault: Option<Arc<FetchFault>>,
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
    pub(super) fn new(
        issuer: Arc<str>,
        place: Place,
        config: &IssuerConfig,
        keeps_endpoints: bool,
        http: Arc<Http>,
        clock: Arc<dyn Clock>,
        never: Option<Arc<Outage>>,
    ) -> Self {
        Self {
            issuer,
            place,
            allow_loopback_http: config.allow_loopback_http,
            limits: Limits { deadline: config.jwks.timeout, max_bytes: config.jwks.max_bytes },
            clock,
            http,
            keeps_endpoints,
            due: AtomicU64::new(0),
            left_alone_until: AtomicU64::new(0),
            read_at: AtomicU64::new(0),
            is_misled: AtomicBool::new(false),
            record: Mutex::default(),
            never,
        }
    }

    /// Whether these are the places where somebody else would look, and what they say would mean
    /// the same.
    pub(super) fn is_at(&self, places: &[Url], allow_loopback_http: bool) -> bool {
        self.allow_loopback_http == allow_loopback_http && self.place.all() == places
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Logs that the keys are on another host than before.
    pub(super) fn tell_of_move(&self, from: Option<&Url>, to: &Url) {
        if let Some(from) = from.filter(|from| from.host() != to.host()) {
            telemetry::keys_moved(&self.issuer, from.as_str(), to.as_str());
        }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        millis(now) >= self.due.load(Ordering::Relaxed)
    }

    /// Whether a place said that it wants not to be asked.
    pub(super) fn is_left_alone(&self, now: Duration) -> bool {
        millis(now) < self.left_alone_until.load(Ordering::Relaxed)
    }

    /// Whether the metadata were read before a failure, after which the keys may have moved.
    pub(super) fn is_older_than(&self, failure: Option<Duration>) -> bool {
        failure.is_some_and(|failure| millis(failure) > self.read_at.load(Ordering::Relaxed))
    }

    /// Whether the metadata cannot be used as they are now.
    pub(super) fn is_misled(&self) -> bool {
        self.is_misled.load(Ordering::Relaxed)
    }

    /// Why there is nothing to wait for.
    pub(super) fn unavailable(&self) -> NoNewKeys {
        let due = Duration::from_millis(self.due.load(Ordering::Relaxed));
        let wait = due.saturating_sub(self.clock.elapsed());
        let retry_after = wait.clamp(Duration::from_secs(1), Backoff::PROVIDER.cap);
        NoNewKeys::Unavailable { retry_after, fault: self.last_fault() }
    }

    pub(super) fn last_fault(&self) -> Option<Arc<FetchFault>> {
        self.record().last_fault.clone()
    }

    pub(super) fn last_attempt(&self) -> Option<SystemTime> {
        self.record().last_attempt
    }

    /// When the metadata are read next.
    pub(super) fn next_attempt(&self) -> SystemTime {
        let due = Duration::from_millis(self.due.load(Ordering::Relaxed));
        self.clock.now() + due.saturating_sub(self.clock.elapsed())
    }

    /// The endpoints that the metadata named, while that is relied upon.
    pub(super) fn endpoints(&self) -> Option<Arc<Endpoints>> {
        let read_at = Duration::from_millis(self.read_at.load(Ordering::Relaxed));
        let is_old = self.clock.elapsed().saturating_sub(read_at) >= METADATA_TTL;
        self.record().endpoints.clone().filter(|_| !is_old)
    }

    /// Reads the metadata.
    pub(super) async fn read(&self) -> Result<Found, FetchFault> {
        let answered = {
            let mut record = self.record();
            record.last_attempt = Some(self.clock.now());
            record.answered
        };
        // Should this task die, the next attempt is still due.
        self.set_due(self.clock.elapsed() + self.limits.deadline.saturating_mul(4));
        self.ask(answered).await
    }

    /// Writes down that what was read is used.
    pub(super) fn succeeded(&self, found: Found) {
        let now = self.clock.elapsed();
        let mut record = self.record();
        record.failures = 0;
        record.last_fault = None;
        let is_first = record.answered.replace(found.answered).is_none();
        if let Some(never) = self.never.as_ref().filter(|_| is_first) {
            never.ends(|| now);
        }
        record.endpoints = found.endpoints.map(Arc::new);
        self.is_misled.store(false, Ordering::Relaxed);
        self.left_alone_until.store(0, Ordering::Relaxed);
        self.read_at.store(millis(now), Ordering::Relaxed);
        self.set_due(now + METADATA_TTL);
    }

    /// Writes down why nothing can be used, and whether there are keys to go on with. Returns
    /// whether that is new.
    pub(super) fn failed(&self, fault: Arc<FetchFault>, is_misled: bool, holds_keys: bool) -> bool {
        let now = self.clock.elapsed();
        let mut record = self.record();
        let pause = Backoff::PROVIDER.wait(record.failures);
        let asked_for = left_alone_for(&fault, pause, holds_keys);
        let is_new = match &self.never {
            Some(never) if record.answered.is_none() => never.begins(&fault, now),
            _ => record.failures == 0,
        };
        record.failures = record.failures.saturating_add(1);
        record.last_fault = Some(fault);
        self.is_misled.store(is_misled, Ordering::Relaxed);
        self.left_alone_until.store(millis(now + asked_for), Ordering::Relaxed);
        self.set_due(now + pause.max(asked_for));
        is_new
    }

    /// Asks the places in turn, the one that answered last first.
    async fn ask(&self, answered: Option<usize>) -> Result<Found, FetchFault> {
        let places = self.place.all();
        let last = answered.and_then(|nth| Some((nth, places.get(nth)?)));
        let others = places.iter().enumerate().filter(|(nth, _)| Some(*nth) != answered);
        let mut first_fault = None;
        for (nth, place) in last.into_iter().chain(others) {
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
        let answer = self.http.get(place, self.limits).await;
        let answer = answer.map_err(|error| FetchFault::Fetch { url: place.clone(), error })?;
        let (issuer, loopback) = (&*self.issuer, self.allow_loopback_http);
        let Metadata { jwks_uri } = Metadata::parse(&answer.body, place, issuer, loopback)
            .map_err(|error| FetchFault::Metadata { url: place.clone(), error })?;
        let endpoints = || Endpoints::parse(&answer.body, place, issuer, loopback).ok();
        let endpoints = if self.keeps_endpoints { endpoints() } else { None };
        Ok(Found { jwks_uri, answered: nth, endpoints })
    }

    fn set_due(&self, at: Duration) {
        self.due.store(millis(at), Ordering::Relaxed);
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
