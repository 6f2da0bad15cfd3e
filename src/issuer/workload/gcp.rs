//! [`Gcp`]: the identity tokens of the metadata server of Google Cloud.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode};
use url::Url;

use super::super::http::{FetchError, Http, Limits};
use super::{MAX_BYTES, WorkloadTokenSource};
use crate::error::BoxError;
use crate::support::secret::Secret;

/// The time limit. The server is on the same machine.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// The link-local name of the metadata server, which has no TLS.
const SERVER: &str = "http://metadata.google.internal";

const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/identity";

/// A header that web browsers and other servers do not send.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// The metadata server of Google Cloud.
#[derive(Debug)]
pub(super) struct Gcp {
    server: String,
    http: Http,
}

impl Gcp {
    pub(super) fn new() -> Self {
        Self { server: SERVER.to_owned(), http: Http::default() }
    }
}

#[async_trait]
impl WorkloadTokenSource for Gcp {
    async fn token(&self, audience: &str) -> Result<Secret, BoxError> {
        let mut url = Url::parse(&self.server)?.join(PATH)?;
        url.query_pairs_mut().append_pair("audience", audience).append_pair("format", "full");
        let google = HeaderValue::from_static("Google");
        let limits = Limits { deadline: TIMEOUT, max_bytes: MAX_BYTES };
        let answer = self.http.get_token(&url, [(FLAVOR, google.clone())], limits).await;
        let answer = answer.map_err(|error| match error {
            FetchError::Status { status: StatusCode::NOT_FOUND, .. } => {
                "this machine has no service account".to_owned()
            }
            error => format!("it {error}"),
        })?;
        // Without this header, another server has answered.
        if answer.headers().get(FLAVOR) != Some(&google) {
            return Err(
                "the answer is not from the metadata server: it has no `Metadata-Flavor: Google`"
                    .into(),
            );
        }
        let token = String::from_utf8(answer.into_body()).map_err(|_| "the answer is no text")?;
        Ok(token.trim().into())
    }
}
