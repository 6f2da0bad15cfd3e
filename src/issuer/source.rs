//! Where a key set comes from: a fixed URL, or wherever discovery says.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use url::Url;
use zeroize::Zeroizing;

use super::health::{UnusableKey, list};
use super::http::{Answer, FetchError, Http, Limits};
use super::metadata::{self, Metadata, MetadataError};
use crate::clock::Clock;
use crate::config::{IssuerConfig, JwksSettings, KeyAccess};
use crate::telemetry;

/// How long what discovery said is relied upon.
const METADATA_TTL: Duration = Duration::from_secs(3600);

/// Why a key set could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchFault {
    #[error("{url} {error}")]
    Fetch { url: Url, error: FetchError },
    #[error("{path} cannot be used: {error}")]
    File { path: String, error: String },
    #[error("the metadata at {url} {error}")]
    Metadata { url: Url, error: MetadataError },
    #[error("the key set is not a JSON object with a list of keys")]
    NotAKeySet,
    #[error("the key set has none of {} keys that can be used here{}", .0.len(), list(.0))]
    NoUsableKey(Vec<UnusableKey>),
    #[error("the key set has more than {0} keys")]
    TooManyKeys(usize),
    /// In keys that were configured.
    #[error("{0}")]
    Pem(&'static str),
}

impl FetchFault {
    /// How long the provider wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fetch { error: FetchError::Status { retry_after, .. }, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Where an issuer's keys come from.
#[derive(Debug)]
pub(crate) struct Source {
    http: Arc<Http>,
    clock: Arc<dyn Clock>,
    issuer: Arc<str>,
    /// The set itself, where nobody is to be asked.
    inline: Option<Arc<str>>,
    access: KeyAccess,
    allow_loopback_http: bool,
    /// Where metadata may be; empty when the key set's URL is fixed.
    places: Vec<Url>,
    learned: Mutex<Option<Learned>>,
}

#[derive(Debug, Clone)]
struct Learned {
    jwks_uri: Url,
    /// The place that answered; asked first the next time.
    place: Option<Url>,
    until: Duration,
}

impl Source {
    pub(crate) fn new(
        config: &IssuerConfig,
        issuer: &Arc<str>,
        http: Arc<Http>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, url::ParseError> {
        let fixed = config.jwks_uri.as_deref().map(Url::parse).transpose()?;
        let places = match (&fixed, &config.discovery_url) {
            (Some(_), _) => Vec::new(),
            (None, Some(url)) => vec![Url::parse(url)?],
            (None, None) => metadata::well_known(&Url::parse(&config.issuer)?),
        };
        let learned = fixed.map(|jwks_uri| Learned { jwks_uri, place: None, until: Duration::MAX });
        Ok(Self {
            http,
            clock,
            issuer: issuer.clone(),
            inline: config.inline_keys.clone(),
            access: config.key_access.clone(),
            allow_loopback_http: config.allow_loopback_http,
            places,
            learned: Mutex::new(learned),
        })
    }

    /// Fetches the key set, finding out first where it is if need be.
    pub(crate) async fn fetch(&self, settings: &JwksSettings) -> Result<Answer, FetchFault> {
        if let Some(set) = &self.inline {
            return Ok(Answer { body: set.as_bytes().to_vec(), max_age: None, is_given: true });
        }
        let limits = Limits { deadline: settings.timeout, max_bytes: settings.max_bytes };
        let url = self.locate(limits).await?;
        let answer = match &self.access {
            KeyAccess { ca_file: None, bearer_file: None } => self.http.get(&url, limits).await,
            access => {
                let ca = access.ca_file.as_deref().map(contents).transpose()?;
                let bearer = access.bearer_file.as_deref().map(bearer).transpose()?;
                self.http.get_as(&url, limits, ca.as_deref(), bearer).await
            }
        };
        answer.map_err(|error| {
            self.forget();
            FetchFault::Fetch { url, error }
        })
    }

    async fn locate(&self, limits: Limits) -> Result<Url, FetchFault> {
        let known = self.learned().clone();
        match known {
            Some(known) if self.clock.elapsed() < known.until => Ok(known.jwks_uri),
            known => {
                let before = known.as_ref().map(|known| known.jwks_uri.clone());
                match (self.discover(known, limits).await, before) {
                    // Metadata that is away says nothing about keys that may not be.
                    (Err(fault @ FetchFault::Fetch { .. }), Some(before)) => {
                        self.postpone(fault.retry_after());
                        Ok(before)
                    }
                    (found, _) => found,
                }
            }
        }
    }

    /// Asks the places in turn, the one that answered last first.
    async fn discover(&self, before: Option<Learned>, limits: Limits) -> Result<Url, FetchFault> {
        let last = before.as_ref().and_then(|before| before.place.clone());
        let others = self.places.iter().filter(|place| Some(*place) != last.as_ref());
        let mut first_fault = None;
        for place in last.iter().chain(others) {
            match self.read_metadata(place, limits).await {
                Ok(Metadata { jwks_uri }) => {
                    self.learn(before, jwks_uri.clone(), place.clone());
                    return Ok(jwks_uri);
                }
                // The other places are on the same host, which wants to be left alone.
                Err(fault) if fault.retry_after().is_some() => return Err(fault),
                // Nobody there: the other places are on the same host.
                Err(
                    fault @ FetchFault::Fetch {
                        error:
                            FetchError::Unreachable(_)
                            | FetchError::Unconnected(_)
                            | FetchError::Deadline(_),
                        ..
                    },
                ) => {
                    return Err(fault);
                }
                // A document that is wrong tells more than one that is missing.
                Err(fault @ FetchFault::Metadata { .. }) => first_fault = Some(fault),
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        Err(first_fault.unwrap_or(FetchFault::NotAKeySet))
    }

    async fn read_metadata(&self, place: &Url, limits: Limits) -> Result<Metadata, FetchFault> {
        let answer = self.http.get(place, limits).await;
        let answer = answer.map_err(|error| FetchFault::Fetch { url: place.clone(), error })?;
        Metadata::parse(&answer.body, place, &self.issuer, self.allow_loopback_http)
            .map_err(|error| FetchFault::Metadata { url: place.clone(), error })
    }

    fn learn(&self, before: Option<Learned>, jwks_uri: Url, place: Url) {
        if let Some(before) = before.filter(|before| before.jwks_uri.host() != jwks_uri.host()) {
            telemetry::keys_moved(&self.issuer, before.jwks_uri.as_str(), jwks_uri.as_str());
        }
        let until = self.clock.elapsed() + METADATA_TTL;
        *self.learned() = Some(Learned { jwks_uri, place: Some(place), until });
    }

    /// Metadata is not asked for until the provider wants to be asked again.
    fn postpone(&self, retry_after: Option<Duration>) {
        if let (Some(learned), Some(wait)) = (self.learned().as_mut(), retry_after) {
            learned.until = self.clock.elapsed() + wait.min(METADATA_TTL);
        }
    }

    /// After a failure the keys may have moved: discover again, unless the URL is fixed.
    fn forget(&self) {
        if let Some(learned) = self.learned().as_mut().filter(|learned| learned.place.is_some()) {
            learned.until = Duration::ZERO;
        }
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, Option<Learned>> {
        // Only whole values are written, so a panic cannot leave it half done.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn contents(file: &Path) -> Result<Vec<u8>, FetchFault> {
    std::fs::read(file).map_err(|error| unusable(file, &error.to_string()))
}

/// The `Authorization` that shows the token in a file.
fn bearer(file: &Path) -> Result<HeaderValue, FetchFault> {
    let token = Zeroizing::new(contents(file)?);
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(token.trim_ascii());
    let value = HeaderValue::from_bytes(&header);
    let mut value = value.map_err(|_| unusable(file, "it holds no bearer token"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unusable(file: &Path, error: &str) -> FetchFault {
    FetchFault::File { path: file.display().to_string(), error: error.to_owned() }
}
