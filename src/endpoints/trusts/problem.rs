//! [`Problem`]: a refusal that only the administration has (RFC 9457).

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header};
use serde_json::{Value, json};

use super::super::response::{Failure, json_response};
use super::super::service::close_connection;
use super::policy_text::Fault;
use crate::error::AuthError;

/// A refusal of a request of an administrator.
#[derive(Debug)]
pub(super) enum Refused {
    /// A refusal that other endpoints have, too.
    Failure(Failure),
    Problem(Problem),
}

/// A problem document.
#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    /// The last part of the `type`.
    reason: &'static str,
    detail: Cow<'static, str>,
    /// Further members.
    members: Option<Box<serde_json::Map<String, Value>>>,
    /// A header of the response. Boxed, because problems are the errors of many functions.
    header: Option<Box<(header::HeaderName, HeaderValue)>>,
    /// Whether a part of the body was not read.
    has_unread_body: bool,
}

impl Problem {
    pub(super) const NOT_FOUND: Self =
        Self::new(404, "not_found", "The administration of trust has no such path.");
    pub(super) const NOT_UTF8: Self = Self::new(400, "request_malformed", "The body is not UTF-8.");

    pub(super) const fn new(status: u16, reason: &'static str, detail: &'static str) -> Self {
        let detail = Cow::Borrowed(detail);
        Self { status, reason, detail, members: None, header: None, has_unread_body: false }
    }

    /// Returns a 400 about this request.
    pub(super) fn malformed_by(detail: String) -> Self {
        Self { detail: detail.into(), ..Self::malformed("") }
    }

    /// Returns a 400.
    pub(super) const fn malformed(detail: &'static str) -> Self {
        Self::new(400, "request_malformed", detail)
    }

    /// Returns 405 with `Allow` (RFC 9110 §15.5.6).
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let header = Some(Box::new((header::ALLOW, HeaderValue::from_static(allow))));
        let detail = "This path does not have this method: see the header Allow.";
        Self { header, ..Self::new(405, "method_not_allowed", detail) }
    }

    /// Returns 415 for a body of another type.
    pub(super) const fn unsupported_media_type(detail: &'static str) -> Self {
        Self::new(415, "unsupported_media_type", detail)
    }

    /// Returns 415 for a compressed body, with `Accept-Encoding` (RFC 9110 §15.5.16).
    pub(super) fn compressed() -> Self {
        let header =
            Some(Box::new((header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))));
        let detail = "The body must not be compressed: leave out Content-Encoding.";
        Self { header, ..Self::unsupported_media_type(detail) }
    }

    /// Returns 422 with the faults of a policy.
    pub(super) fn faults(faults: &[Fault]) -> Self {
        let members = serde_json::Map::from_iter([("faults".to_owned(), json!(faults))]);
        let detail =
            "The policy has faults: see the member faults. The policy in force did not change.";
        Self { members: Some(Box::new(members)), ..Self::new(422, "policy_invalid", detail) }
    }

    /// Returns 412 with the tag of the version in force.
    pub(super) fn precondition_failed(tag: Option<HeaderValue>) -> Self {
        let detail =
            "Another version of the policy is in force: see the header ETag. Nothing was changed.";
        let header = tag.map(|tag| Box::new((header::ETAG, tag)));
        Self { header, ..Self::new(412, "precondition_failed", detail) }
    }

    /// Returns the problem of the parameters of a query.
    pub(super) fn of_parameters(failure: Failure) -> Refused {
        match failure {
            Failure::OAuth(_, detail) => Self::malformed(detail).into(),
            other => other.into(),
        }
    }

    /// Returns the problem of a body that could not be read.
    pub(super) fn of_body(failure: Failure, max_bytes: usize) -> Refused {
        let problem = match failure {
            Failure::Body(413, _) => {
                let detail = format!("The body is too large: the limit is {}.", size(max_bytes));
                Self { detail: detail.into(), ..Self::new(413, "too_large", "") }
            }
            Failure::Body(408, detail) => Self::new(408, "too_slow", detail),
            Failure::OAuth(_, detail) => Self::malformed(detail),
            other => return Refused::Failure(other),
        };
        Refused::Problem(Self { has_unread_body: true, ..problem })
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn into_response(self, version: Version) -> Response<Bytes> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut body = serde_json::Map::from_iter([
            ("type".to_owned(), json!(format!("urn:scaikey-auth:{}", self.reason))),
            ("title".to_owned(), json!(title(status))),
            ("status".to_owned(), json!(self.status)),
            ("detail".to_owned(), json!(self.detail)),
        ]);
        body.extend(self.members.into_iter().flat_map(|members| *members));
        let mut response = json_response(status, &body);
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        if self.has_unread_body {
            close_connection(version, &mut response);
        }
        response
    }
}

/// Returns a size in MiB if it is whole, otherwise in KiB.
fn size(bytes: usize) -> String {
    match bytes % (1 << 20) {
        0 => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

/// Returns the name of a status, as in RFC 9110.
fn title(status: StatusCode) -> &'static str {
    match status.as_u16() {
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        _ => status.canonical_reason().unwrap_or("Refused"),
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<AuthError> for Refused {
    fn from(error: AuthError) -> Self {
        Self::Failure(error.into())
    }
}
