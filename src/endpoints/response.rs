//! Responses: JSON, redirects, and the errors of RFC 6749 §5.2.

use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::{Endpoint, Inner};
use crate::error::{AuthError, Refusal, retry_after_value};
use crate::exchange::{ExchangeError, OAuthError};
use crate::layer::{RequestHead, refuse};
use crate::support::telemetry::{self, Outage};

/// Failures that have been logged, so that each is logged once until it ends.
#[derive(Debug, Default)]
pub(super) struct Outages {
    pub(super) registrar: Outage,
    pub(super) event_handler: Outage,
    /// One per endpoint.
    misconfigured: [Outage; Endpoint::ALL.len()],
}

impl Outages {
    /// Logs that an endpoint is misconfigured, once until it works again.
    fn report_misconfigured(&self, endpoint: Endpoint, problem: &str, now: Duration) {
        let outage = self.misconfigured.get(endpoint as usize);
        if outage.is_some_and(|outage| outage.record_failure(&problem, now)) {
            telemetry::endpoint_misconfigured(endpoint.as_str(), &problem);
        }
    }

    /// Records that an endpoint succeeded.
    pub(super) fn record_success(&self, endpoint: Endpoint, now: impl FnOnce() -> Duration) {
        if let Some(outage) = self.misconfigured.get(endpoint as usize) {
            outage.record_success(now);
        }
    }
}

/// The reason why an endpoint rejects a request.
#[derive(Debug)]
pub(super) enum Failure {
    /// The caller is not authorized, or the check is unavailable.
    Auth(AuthError),
    /// An OAuth error code and a fixed description.
    OAuth(&'static str, &'static str),
    /// The body is not accepted: a status and a fixed description.
    Body(u16, &'static str),
    Throttled(Duration),
    /// An error from the provider, or from the connection to it.
    Exchange(ExchangeError),
    /// A fault of this service or its configuration. The text is logged, and the response is 500.
    NotConfigured(&'static str),
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        Self::Exchange(error)
    }
}

impl Failure {
    /// Returns whether the request may succeed later.
    pub(super) fn is_unavailable(&self) -> bool {
        match self {
            Self::Exchange(error) => matches!(error, ExchangeError::Unavailable { .. }),
            Self::Auth(error) => error.is_unavailable(),
            _ => false,
        }
    }
}

/// Returns whether the endpoint reports errors like the authentication layer.
fn is_like_layer(endpoint: Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::Register
            | Endpoint::Whoami
            | Endpoint::Introspect
            | Endpoint::Sessions
            | Endpoint::Trusts
    )
}

pub(super) const INVALID_REQUEST: &str = "invalid_request";

/// Returns whether a browser that loads a page from the endpoint is led to the failure page. Only providers use the
/// others, or pages with scripts.
fn has_failure_page(endpoint: Endpoint) -> bool {
    !is_like_layer(endpoint) && !matches!(endpoint, Endpoint::BackchannelLogout | Endpoint::Events)
}

/// Returns an `invalid_request` error with a fixed description.
pub(super) const fn invalid_request(problem: &'static str) -> Failure {
    Failure::OAuth(INVALID_REQUEST, problem)
}

impl Inner {
    /// Returns the response to a failure: the failure page for a browser that loads a page, or the error.
    /// Endpoints that report errors like the layer keep their status, because the session layer acts on a 401.
    pub(super) fn failure_response(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        failure: Failure,
    ) -> Response<Bytes> {
        match has_failure_page(endpoint) && RequestHead::of_parts(head).is_navigation() {
            true => self.browser_failure_response(endpoint, head, failure),
            false => self.error_response(endpoint, head, failure),
        }
    }

    /// Returns the redirect to the failure page, or the error if there is no such page.
    pub(super) fn browser_failure_response(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        failure: Failure,
    ) -> Response<Bytes> {
        let page = self.failure_page(error_code(&failure));
        let error = self.error_response(endpoint, head, failure);
        page.unwrap_or(error)
    }

    /// Returns the redirect to the failure page, if there is one.
    pub(super) fn failure_page(&self, code: &str) -> Option<Response<Bytes>> {
        let page = self.sign_in.as_ref()?.failure_page.as_deref()?;
        let separator = if page.contains('?') { '&' } else { '?' };
        see_other(&format!("{page}{separator}error={code}"))
    }

    fn error_response(
        &self,
        endpoint: Endpoint,
        head: &Parts,
        failure: Failure,
    ) -> Response<Bytes> {
        if let Failure::NotConfigured(problem)
        | Failure::Exchange(ExchangeError::NotConfigured(problem)) = &failure
        {
            self.outages.report_misconfigured(endpoint, problem, self.auth.clock().elapsed());
        }
        match is_like_layer(endpoint) {
            true => {
                let status = match failure {
                    Failure::Body(status, _) => StatusCode::from_u16(status).ok(),
                    _ => None,
                };
                let respond = self.respond.clone();
                let respond_with_status = move |refusal: &Refusal<'_>| {
                    let status = status.unwrap_or(refusal.status);
                    respond.respond(&Refusal { status, ..*refusal })
                };
                let client = RequestHead::of_parts(head).client_kind();
                refuse(&self.auth, &respond_with_status, &as_auth_error(failure), client)
            }
            false => self.oauth_failure_response(endpoint, failure),
        }
    }

    fn oauth_failure_response(&self, endpoint: Endpoint, failure: Failure) -> Response<Bytes> {
        let (status, code, description, wait) = match failure {
            Failure::OAuth(code, description) => (400, code, description, None),
            Failure::Body(status, description) => (status, INVALID_REQUEST, description, None),
            Failure::Throttled(wait) => {
                (429, "temporarily_unavailable", "Too many attempts. Try again later.", Some(wait))
            }
            Failure::Auth(error) => {
                let (wait, description) = (error.retry_after(), error.public_message());
                telemetry::refused(error.reason(), &error);
                match error.status().as_u16() {
                    503 => (503, "temporarily_unavailable", description, wait),
                    _ => (400, "invalid_grant", description, None),
                }
            }
            Failure::Exchange(error) => return token_request_failure_response(&error),
            Failure::NotConfigured(_) => {
                (500, "server_error", "The service is misconfigured.", None)
            }
        };
        match endpoint {
            Endpoint::Events => event_error(status, code, description, wait),
            _ => oauth_error(status, code, description, wait),
        }
    }
}

/// Returns the error code for the browser, from a fixed list. Errors that the provider reports
/// about this service become `server_error`.
fn error_code(failure: &Failure) -> &'static str {
    match failure {
        Failure::OAuth(code, _) => code,
        Failure::Body(..) => INVALID_REQUEST,
        Failure::Throttled(_) => "temporarily_unavailable",
        failure if failure.is_unavailable() => "temporarily_unavailable",
        Failure::Auth(_) => "invalid_grant",
        Failure::Exchange(error) if error.oauth_error() == Some(&OAuthError::InvalidGrant) => {
            "invalid_grant"
        }
        _ => "server_error",
    }
}

/// Converts a failure for the endpoints that report errors like the authentication layer.
fn as_auth_error(failure: Failure) -> AuthError {
    match failure {
        Failure::Auth(error) => error,
        Failure::Throttled(retry_after) => AuthError::TooManyRequests { retry_after },
        Failure::OAuth(_, problem) | Failure::Body(_, problem) => {
            AuthError::MalformedRequest(problem)
        }
        Failure::NotConfigured(problem) => AuthError::unavailable(problem, None, problem),
        Failure::Exchange(error) => {
            let retry_after = error.retry_after();
            AuthError::unavailable(error.unavailable_component(), retry_after, error)
        }
    }
}

/// Reports the provider's errors that the caller can act on. If the provider rejects this
/// *service*, returns 502 without details.
fn token_request_failure_response(error: &ExchangeError) -> Response<Bytes> {
    use OAuthError::{InvalidGrant, InvalidRequest, InvalidScope, InvalidTarget};
    match error {
        ExchangeError::Refused { error: Some(code), .. } => {
            let description = match code {
                InvalidGrant => "The code, password or refresh token is not valid (any more).",
                // The service builds the rest of the request, so the caller's value must be
                // malformed.
                InvalidRequest => "The code, password or refresh token is malformed.",
                InvalidScope => "The scope cannot be granted.",
                InvalidTarget => "The identity provider issues no tokens for this target.",
                _ => return provider_failure_response(),
            };
            oauth_error(400, code.as_str(), description, None)
        }
        ExchangeError::Unavailable { retry_after, .. } => {
            let wait = retry_after.unwrap_or(Duration::from_secs(1));
            let description = match error.is_cache_unavailable() {
                true => "The service's token store is unavailable. Try again later.",
                false => "The identity provider is unavailable. Try again later.",
            };
            oauth_error(503, "temporarily_unavailable", description, Some(wait))
        }
        _ => provider_failure_response(),
    }
}

/// Returns 502. The token client already logged the cause.
fn provider_failure_response() -> Response<Bytes> {
    oauth_error(502, "server_error", "The identity provider issued no token.", None)
}

/// Returns an error response as in RFC 6749 §5.2.
pub(super) fn oauth_error(
    status: u16,
    code: &str,
    description: &'static str,
    wait: Option<Duration>,
) -> Response<Bytes> {
    error_response(status, &json!({ "error": code, "error_description": description }), wait)
}

/// Returns an error response as in RFC 8935 §2.3.
fn event_error(
    status: u16,
    code: &str,
    description: &'static str,
    wait: Option<Duration>,
) -> Response<Bytes> {
    let body = json!({ "err": code, "description": description });
    let mut response = error_response(status, &body, wait);
    response.headers_mut().insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    response
}

fn error_response(status: u16, body: &impl Serialize, wait: Option<Duration>) -> Response<Bytes> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(status, body);
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after_value(wait));
    }
    response
}

impl Inner {
    /// Returns 200 with a JSON body, wrapped in `{"data": …}` if configured.
    pub(super) fn ok(&self, body: &impl Serialize) -> Response<Bytes> {
        self.success(StatusCode::OK, body)
    }

    pub(super) fn success(&self, status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
        if self.wrap_in_data {
            return json_response(status, &json!({ "data": body }));
        }
        json_response(status, body)
    }
}

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // The bodies are structs and maps with string keys, so serialization cannot fail.
    let mut response = Response::new(serde_json::to_vec(body).unwrap_or_default().into());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

pub(super) fn no_content() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Returns 303, so that the browser follows with GET after any method (RFC 9700 §4.12).
pub(super) fn see_other(to: &str) -> Option<Response<Bytes>> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(header::LOCATION, HeaderValue::try_from(to).ok()?);
    Some(response)
}

/// Forbids caching; RFC 6749 §5.1 requires both headers.
pub(super) fn set_no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
}
