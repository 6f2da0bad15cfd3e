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

#[cfg(test)]
mod tests {
    use super::super::WorkloadToken;
    use super::super::tests::{AUDIENCE, NOW, Platform, answer, ask, jwt};
    use super::*;

    fn token(url: &str) -> WorkloadToken {
        let plain_http = PlainHttp { loopback: true, hosts: Vec::new() };
        let actions = GitHubActions::new(url, Secret::new("canary"), &plain_http).unwrap();
        WorkloadToken::of_service("GitHub Actions", actions, TIMEOUT)
    }

    #[tokio::test]
    async fn job_gets_a_token_for_the_audience() {
        let value = jwt(AUDIENCE, NOW + 300);
        let body = format!(r#"{{"count":{},"value":"{value}"}}"#, value.len());
        let platform = Platform::answering(answer("200 OK", "", &body)).await;
        let token = token(&format!("{}/token?api-version=2.0", platform.url));
        assert_eq!(ask(&token).await.unwrap().expose(), value);
        ask(&token).await.unwrap();
        let [request] = &platform.requests()[..] else { panic!("it is cached") };
        let target = "GET /token?api-version=2.0&audience=https%3A%2F%2Fidp.example HTTP/1.1";
        assert!(request.starts_with(target), "{request}");
        assert!(request.to_ascii_lowercase().contains("\r\nauthorization: bearer canary\r\n"));
        assert!(!format!("{token:?}").contains("canary") && !format!("{token:?}").contains("eyJ"));
    }

    #[tokio::test]
    async fn unusable_answers_of_the_job_are_refused() {
        let elsewhere = Platform::answering(answer("200 OK", "", "{}")).await;
        let redirect = format!("location: {}/\r\n", elsewhere.url);
        let other = format!(r#"{{"value":"{}"}}"#, jwt("other", NOW + 300));
        let expired = format!(r#"{{"value":"{}"}}"#, jwt(AUDIENCE, NOW));
        let huge = format!(r#"{{"value":"{}"}}"#, "a".repeat(40_000));
        let long = format!(r#"{{"value":"{}"}}"#, "a".repeat(17_000));
        for (sent, why) in [
            (answer("403 Forbidden", "", "canary"), "answered 403 Forbidden: give the job"),
            (answer("302 Found", &redirect, ""), "302"),
            (answer("200 OK", "", "<html>canary</html>"), "other than a JSON object"),
            (answer("200 OK", "", r#"{"count":1}"#), "no member `value`"),
            (answer("200 OK", "", r#"{"value":"a","value":"b"}"#), "other than a JSON object"),
            (answer("200 OK", "", r#"{"value":"a b"}"#), "visible characters"),
            (answer("200 OK", "", &huge), "more than"),
            (answer("200 OK", "", &long), "visible characters"),
            (answer("200 OK", "", &other), "not for \"https://idp.example\""),
            (answer("200 OK", "", &expired), "expired"),
        ] {
            let platform = Platform::answering(sent).await;
            let error = ask(&token(&platform.url)).await.unwrap_err();
            assert!(error.starts_with("GitHub Actions ") && error.contains(why), "{error}");
            assert!(!error.contains("canary") && !error.contains("eyJ"), "{error}");
        }
        assert!(elsewhere.requests().is_empty(), "redirects are not followed");
    }

    #[test]
    fn variables_of_the_job_are_checked() {
        let read = |url: &str, token: &str| {
            let value =
                |name: &str| [(URL, url), (TOKEN, token)].into_iter().find(|it| it.0 == name);
            let read = |name: &str| Some(value(name)?.1.to_owned()).filter(|it| !it.is_empty());
            GitHubActions::from_variables(read).map(drop)
        };
        read("https://pipelines.example/t?api-version=2.0", "canary").unwrap();
        for (url, token, why) in [
            ("", "canary", "ACTIONS_ID_TOKEN_REQUEST_URL is not set"),
            ("https://x.example", "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set"),
            ("http://x.example", "canary", "is not an https URL"),
            ("http://127.0.0.1:1", "canary", "is not an https URL"),
            ("canary", "canary", "is not a URL"),
        ] {
            let error = read(url, token).unwrap_err();
            assert!(error.contains(why) && !error.contains("canary"), "{error}");
        }
    }
}
