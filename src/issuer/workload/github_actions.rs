//! [`GitHubActions`]: the OIDC tokens of a job.

use async_trait::async_trait;
use http::{HeaderValue, header};
use url::Url;

use super::super::http::{FetchError, Http, Limits};
use super::{MAX_BYTES, TIMEOUT, WorkloadTokenSource};
use crate::config::PlainHttp;
use crate::error::BoxError;
use crate::support::json::{Document, Value};
use crate::support::secret::Secret;

const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// The token service of GitHub Actions.
#[derive(Debug)]
pub(super) struct GitHubActions {
    url: Url,
    bearer: Secret,
    http: Http,
}

impl GitHubActions {
    /// Reads URL and credentials of the service from the variables that the runner sets.
    pub(super) fn from_variables(read: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let read = |name: &str| {
            let problem =
                "is not set: run in a job of GitHub Actions with the permission `id-token: write`";
            read(name).ok_or_else(|| format!("{name} {problem}"))
        };
        Self::new(&read(URL)?, read(TOKEN)?.into(), &PlainHttp::default())
    }

    /// Uses the service at `url`, which may be `http` only where `plain_http` allows it, in tests.
    fn new(url: &str, bearer: Secret, plain_http: &PlainHttp) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|_| format!("{URL} is not a URL"))?;
        match plain_http.allows(&url) {
            true => Ok(Self { url, bearer, http: Http::default() }),
            false => Err(format!("{URL} is not an https URL")),
        }
    }
}

#[async_trait]
impl WorkloadTokenSource for GitHubActions {
    async fn token(&self, audience: &str) -> Result<Secret, BoxError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("audience", audience);
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.bearer.expose()))
            .map_err(|_| format!("{TOKEN} cannot be sent in a header"))?;
        bearer.set_sensitive(true);
        let limits = Limits { deadline: TIMEOUT, max_bytes: 2 * MAX_BYTES };
        let answer = self.http.get_token(&url, [(header::AUTHORIZATION, bearer)], limits).await;
        let answer = answer.map_err(|error| match error {
            FetchError::Status { status, .. } => {
                format!("it answered {status}: give the job the permission `id-token: write`")
            }
            error => format!("it {error}"),
        })?;
        let document = Document::parse(answer.into_body());
        let document =
            document.map_err(|_| "it answered with something other than a JSON object")?;
        let token = document.root().get("value").and_then(Value::as_str);
        Ok(token.ok_or("its answer has no member `value`")?.into())
    }
}
