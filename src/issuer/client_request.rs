//! [`ClientRequest`]: a form, sent to an endpoint of the provider with client authentication.

use std::time::SystemTime;

use http::StatusCode;
use url::Url;
use url::form_urlencoded::Serializer;

use super::client_auth::{ClientAuth, ClientAuthError, ClientCredentials};
use super::http::{FetchError, Form, Http, Limits, Posted};
use super::workload::WorkloadTokenError;
use crate::clock::with_timeout;
use crate::config::Route;
use crate::support::json::{Document, Value};
use crate::support::telemetry;

/// A POST request to the token, revocation or introspection endpoint.
#[derive(Debug)]
pub(crate) struct ClientRequest<'r> {
    pub(crate) http: &'r Http,
    pub(crate) auth: &'r ClientAuth,
    /// The issuer identifier of the provider.
    pub(crate) issuer: &'r str,
    pub(crate) url: &'r Url,
    /// The value of the header `Accept`.
    pub(crate) accept: &'static str,
    pub(crate) limits: Limits,
    pub(crate) route: &'r Route,
    pub(crate) now: SystemTime,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The credentials could not be read or used, so nothing was sent.
    NoCredentials(ClientAuthError),
    NoAnswer(FetchError),
}

impl ClientRequest<'_> {
    /// Sends the form that `fill` writes, and returns an answer with any status.
    ///
    /// If the provider refuses a workload token, asks its source again, and sends the form once more if there
    /// is another token. The provider authenticates the client before it uses a code or refresh token, so
    /// that they can be sent again.
    pub(crate) async fn send(
        &self,
        fill: impl Fn(&mut Serializer<'_, String>),
    ) -> Result<Posted, RequestError> {
        let credentials = self.in_time(self.auth.credentials(self.issuer, self.now)).await;
        let credentials = credentials.map_err(RequestError::NoCredentials)?;
        let answer = self.send_with(&credentials, &fill).await?;
        if !is_client_refused(&answer) {
            return Ok(answer);
        }
        let others = self.auth.other_credentials(&credentials, self.issuer, self.now);
        match self.in_time(others).await {
            Ok(Some(others)) => {
                telemetry::token_request_repeated("other_assertion");
                self.send_with(&others, &fill).await
            }
            // The refusal says more than the failure to replace the token.
            Ok(None) | Err(_) => Ok(answer),
        }
    }

    /// Waits for credentials. The limit is half of that of the request: a slow source must not look like a
    /// slow endpoint.
    async fn in_time<T>(
        &self,
        credentials: impl Future<Output = Result<T, ClientAuthError>>,
    ) -> Result<T, ClientAuthError> {
        let limit = self.limits.deadline / 2;
        with_timeout(limit, credentials).await.unwrap_or_else(|| {
            let problem =
                format!("the source of the workload token did not answer within {limit:?}");
            Err(WorkloadTokenError::new(problem).into())
        })
    }

    async fn send_with(
        &self,
        credentials: &ClientCredentials,
        fill: impl Fn(&mut Serializer<'_, String>),
    ) -> Result<Posted, RequestError> {
        // In a block of its own, because a serializer must not live across an await.
        let body = {
            let mut form = Serializer::new(String::new());
            fill(&mut form);
            credentials.append_to(&mut form);
            form.finish()
        };
        let form = Form { accept: self.accept, authorization: credentials.header(), body };
        let sent = self.http.post_form(self.url, form, self.limits, self.route, self.now);
        sent.await.map_err(RequestError::NoAnswer)
    }
}

/// Returns whether the provider did not accept the credentials of the client (RFC 6749 §5.2, RFC 7662 §2.3).
fn is_client_refused(answer: &Posted) -> bool {
    let names_it = || {
        let body = Document::parse(answer.body.as_slice()).ok()?;
        Some(body.root().get("error").and_then(Value::as_str)? == "invalid_client")
    };
    answer.status == StatusCode::UNAUTHORIZED
        || (answer.status.is_client_error() && names_it() == Some(true))
}
