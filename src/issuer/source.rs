//! [`Source`]: the source of a key set, and its fetch.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use url::Url;
use zeroize::Zeroizing;

use super::health::{UnusableKey, list};
use super::http::{Answer, FetchError, Http, Limits};
use super::metadata::MetadataError;
use crate::config::{JwksSettings, KeyAccess};

/// The reason why a key set or metadata could not be fetched or used.
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
    #[error("the key set is empty")]
    Empty,
    #[error("none of the {} keys in the key set can be used{}", .0.len(), list(.0))]
    NoUsableKey(Vec<UnusableKey>),
    #[error("the key set has more than {0} keys")]
    TooManyKeys(usize),
    /// The task that fetched the set panicked or was dropped.
    #[error("the fetch of the key set was interrupted")]
    Lost,
    /// Inline keys are invalid PEM.
    #[error("{0}")]
    Pem(&'static str),
}

impl FetchFault {
    /// Returns whether the provider answered 429 (too many requests).
    pub(crate) fn is_too_many_requests(&self) -> bool {
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        matches!(self, Self::Fetch { error: FetchError::Status { status, .. }, .. } if *status == too_many)
    }

    /// Returns the provider's `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fetch { error: FetchError::Status { retry_after, .. }, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The source of a key set. Equal sources name the same set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Url {
        url: Url,
        access: KeyAccess,
    },
    /// Keys in the configuration, which are not fetched.
    Inline(Arc<str>),
}

impl Source {
    pub(crate) fn at(url: Url, access: KeyAccess) -> Self {
        Self::Url { url, access }
    }

    pub(super) async fn fetch(
        &self,
        http: &Http,
        settings: &JwksSettings,
    ) -> Result<Answer, FetchFault> {
        let (url, access) = match self {
            Self::Url { url, access } => (url, access),
            Self::Inline(set) => {
                return Ok(Answer {
                    body: set.as_bytes().to_vec(),
                    max_age: None,
                    is_inline: true,
                });
            }
        };
        let limits = Limits::of(settings);
        let answer = match access {
            KeyAccess { ca_file: None, bearer_file: None } => http.get(url, limits).await,
            access => {
                let ca = access.ca_file.as_deref().map(contents).transpose()?;
                let bearer = access.bearer_file.as_deref().map(bearer).transpose()?;
                http.get_with_credentials(url, limits, ca.as_deref(), bearer).await
            }
        };
        answer.map_err(|error| FetchFault::Fetch { url: url.clone(), error })
    }
}

fn contents(file: &Path) -> Result<Vec<u8>, FetchFault> {
    std::fs::read(file).map_err(|error| unusable(file, &error.to_string()))
}

/// Reads a bearer token from a file into an `Authorization` header.
fn bearer(file: &Path) -> Result<HeaderValue, FetchFault> {
    let token = Zeroizing::new(contents(file)?);
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(token.trim_ascii());
    let value = HeaderValue::from_bytes(&header);
    let mut value =
        value.map_err(|_| unusable(file, "it contains characters that a header cannot have"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unusable(file: &Path, error: &str) -> FetchFault {
    FetchFault::File { path: file.display().to_string(), error: error.to_owned() }
}
