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

#[cfg(test)]
mod tests {
    use super::super::WorkloadToken;
    use super::super::tests::{AUDIENCE, NOW, Platform, answer, ask, jwt};
    use super::*;

    const GOOGLE: &str = "Metadata-Flavor: Google\r\n";

    fn token(server: &str) -> WorkloadToken {
        let gcp = Gcp { server: server.to_owned(), http: Http::default() };
        WorkloadToken::of_service("the metadata server of Google Cloud", gcp, TIMEOUT)
    }

    #[tokio::test]
    async fn metadata_server_gives_an_identity_token() {
        let value = jwt(AUDIENCE, NOW + 3600);
        let platform = Platform::answering(answer("200 OK", GOOGLE, &value)).await;
        let token = token(&platform.url);
        assert_eq!(ask(&token).await.unwrap().expose(), value);
        let [request] = &platform.requests()[..] else { panic!("one request") };
        let target = format!("GET {PATH}?audience=https%3A%2F%2Fidp.example&format=full HTTP/1.1");
        assert!(request.starts_with(&target), "{request}");
        assert!(request.contains("metadata-flavor: Google\r\n"), "{request}");
    }

    #[tokio::test]
    async fn other_servers_are_not_believed() {
        let elsewhere =
            Platform::answering(answer("200 OK", GOOGLE, &jwt(AUDIENCE, NOW + 9))).await;
        let redirect = format!("{GOOGLE}location: {}/\r\n", elsewhere.url);
        let good = jwt(AUDIENCE, NOW + 3600);
        for (sent, why) in [
            (answer("200 OK", "", &good), "not from the metadata server"),
            (answer("200 OK", "Metadata-Flavor: Evil\r\n", &good), "not from the metadata server"),
            (answer("404 Not Found", GOOGLE, ""), "no service account"),
            (answer("302 Found", &redirect, ""), "302"),
            (answer("200 OK", GOOGLE, "<html> </html>"), "visible characters"),
            (answer("200 OK", GOOGLE, &"a".repeat(17_000)), "more than 16384 bytes"),
            (answer("200 OK", GOOGLE, &jwt("other", NOW + 9)), "not for"),
            (None, "did not answer within 1s"),
        ] {
            let platform = Platform::answering(sent).await;
            let error = ask(&token(&platform.url)).await.unwrap_err();
            assert!(error.contains(why) && !error.contains("eyJ"), "{error}");
        }
        assert!(elsewhere.requests().is_empty(), "redirects are not followed");
    }
}
