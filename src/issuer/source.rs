//! [`Source`]: the source of a key set, and its fetch.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use url::Url;
use zeroize::Zeroizing;

use super::health::{UnusableKey, list};
use super::http::{Answer, FetchError, Http, Limits};
use super::metadata::MetadataError;
use crate::config::{JwksSettings, KeyAccess};
use crate::support::secret::path_for_errors;

/// The reason why a key set or metadata could not be fetched or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchFault {
    #[error("{url} {error}")]
    Fetch { url: Url, error: FetchError },
    #[error("{path} {error}")]
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
    /// Keys in the configuration or a file are invalid PEM.
    #[error("{0}")]
    Pem(&'static str),
    /// Keys in the configuration or a file include a private or symmetric one.
    #[error(
        "has a private or symmetric key: keep only public keys here, and replace the exposed key"
    )]
    HasSecret,
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

    /// Adds the name of the file that the keys come from.
    pub(super) fn in_file(self, file: &Path) -> Self {
        match self {
            fault @ Self::File { .. } => fault,
            // These texts continue a sentence that begins with the source.
            fault @ (Self::Pem(_) | Self::HasSecret) => {
                Self::File { path: path_for_errors(file), error: fault.to_string() }
            }
            fault => unusable(file, &fault.to_string()),
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
    /// A file with keys.
    File(PathBuf),
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
        let local = |text: String| Answer { body: text.into(), max_age: None, is_inline: true };
        let (url, access) = match self {
            Self::Url { url, access } => (url, access),
            Self::File(file) => return read_keys(file, settings.max_bytes).map(local),
            Self::Inline(set) => return Ok(local(set.to_string())),
        };
        let bearer = access.bearer_file.as_deref().map(bearer).transpose()?;
        let answer = http.get(url, Limits::of(settings), &access.route, bearer).await;
        answer.map_err(|error| FetchFault::Fetch { url: url.clone(), error })
    }
}

/// Reads a file with keys. It is small and local, so that it is read synchronously.
pub(super) fn read_keys(file: &Path, max_bytes: usize) -> Result<String, FetchFault> {
    let failed = |error: std::io::Error| unusable(file, &error.to_string());
    let (mut text, limit) = (String::new(), max_bytes as u64);
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(limit.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
    match text.len() > max_bytes {
        true => Err(unusable(file, &format!("it has more than {max_bytes} bytes"))),
        false => Ok(text),
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
    FetchFault::File { path: path_for_errors(file), error: format!("cannot be used: {error}") }
}
