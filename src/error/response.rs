//! [`ErrorResponse`]: how a refusal looks on the wire, and the four looks that come with the crate.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::AuthError;

/// A refusal about to be answered.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Refusal<'a> {
    /// Why: never [`Extended`](AuthError::Extended), whose challenges and headers the layer adds.
    pub error: &'a AuthError,
    /// Whether the request is gRPC: `POST` with the content type `application/grpc`, alone or followed
    /// by `+` or `;`.
    pub grpc: bool,
    /// The status of the answer: [`AuthError::status`], unless the layer was told otherwise (for
    /// instance 404 for an unknown tenant).
    pub status: StatusCode,
}

impl<'a> Refusal<'a> {
    pub(crate) fn new(error: &'a AuthError, grpc: bool) -> Self {
        Self { error: error.plain(), grpc, status: error.status() }
    }
}

/// Turns a refusal into an answer.
///
/// Any `Fn(&Refusal) -> Response<B>` is one, whose bodies become [`Bytes`]: `String`, `Vec<u8>`,
/// `&'static str`, and [`Bytes`] themselves.
///
/// ```
/// use http::Response;
/// use scaikey_auth::Auth;
/// use scaikey_auth::error::Refusal;
///
/// # fn example(auth: &Auth) {
/// let layer = auth.layer().respond_with(|refusal: &Refusal<'_>| {
///     let mut response = Response::new(format!("no: {}\n", refusal.error.public_message()));
///     *response.status_mut() = refusal.status;
///     response
/// });
/// # }
/// ```
///
/// The layer adds `WWW-Authenticate` to a 400, 401 or 403, `Retry-After` to a 429 or 503 and
/// `Cache-Control: no-store` to all afterwards, so an implementation cannot forget them.
/// Harmless mistake: an ugly body. Attack: a status of 2xx for anything but gRPC tells the client
/// that the request was served.
pub trait ErrorResponse: Send + Sync + 'static {
    /// Builds the answer.
    fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes>;
}

impl<F, B> ErrorResponse for F
where
    F: Fn(&Refusal<'_>) -> Response<B> + Send + Sync + 'static,
    B: Into<Bytes>,
{
    fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
        self(refusal).map(Into::into)
    }
}

/// `application/problem+json` (RFC 9457): the default.
///
/// `type` is `urn:scaikey-auth:` and [`AuthError::public_reason`]. gRPC requests get a gRPC status
/// instead, so that one layer serves both.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemJson;

impl ErrorResponse for ProblemJson {
    fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
        if refusal.grpc {
            return trailers_only(refusal.error);
        }
        let (error, status) = (refusal.error, refusal.status);
        let body = match error {
            AuthError::InsufficientScope { required } => {
                problem(error, status, format!(",\"required_scope\":{}", text(required)))
            }
            _ if status == error.status() => Bytes::from_static(error.public().problem.as_bytes()),
            _ => problem(error, status, String::new()),
        };
        answer(status, PROBLEM, body)
    }
}

/// An RFC 9457 document that is not ready-made: with a member more, or another status.
fn problem(error: &AuthError, status: StatusCode, extension: String) -> Bytes {
    let (reason, message) = (error.public_reason(), text(error.public_message()));
    let title = status.canonical_reason().unwrap_or("Refused");
    let status = status.as_u16();
    Bytes::from(format!(
        r#"{{"type":"urn:scaikey-auth:{reason}","title":"{title}","status":{status},"detail":{message}{extension}}}"#
    ))
}

/// `{"error":{"code":"…","message":"…"}}`, as products with an envelope answer.
///
/// The code is [`AuthError::public_reason`] in capitals behind the prefix: with `SW_AUTH_`, an
/// expired token is `SW_AUTH_TOKEN_EXPIRED`. For a catalogue of codes of your own, use a closure.
#[derive(Debug, Clone)]
pub struct Envelope {
    prefix: String,
}

impl Envelope {
    /// Codes will begin with `prefix`.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }
}

impl ErrorResponse for Envelope {
    fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
        if refusal.grpc {
            return trailers_only(refusal.error);
        }
        let code = format!("{}{}", self.prefix, refusal.error.public_reason().to_uppercase());
        let body = format!(
            "{{\"error\":{{\"code\":{},\"message\":{}}}}}",
            text(&code),
            text(refusal.error.public_message())
        );
        answer(refusal.status, JSON, Bytes::from(body))
    }
}

/// The status and its headers, without a body.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyBody;

impl ErrorResponse for EmptyBody {
    fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
        if refusal.grpc {
            return trailers_only(refusal.error);
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = refusal.status;
        response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
        response
    }
}

/// A gRPC status without a message stream ("trailers-only"), for every request.
///
/// Rarely needed: every [`ErrorResponse`] of this crate answers a gRPC request
/// ([`RequestHead::is_grpc`](crate::layer::RequestHead::is_grpc)) with a gRPC status. This type gives
/// that answer to requests, too, that are not recognised as gRPC.
///
/// The status is [`AuthError::grpc_code`]: 16 `UNAUTHENTICATED` when the caller is not known, 7
/// `PERMISSION_DENIED` when it is, 14 `UNAVAILABLE` when that cannot be told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grpc;

impl ErrorResponse for Grpc {
    fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
        trailers_only(refusal.error)
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// gRPC answers 200 and puts the verdict into `grpc-status`; the headers are the trailers when
/// nothing follows them.
fn trailers_only(error: &AuthError) -> Response<Bytes> {
    let mut response = answer(StatusCode::OK, GRPC, Bytes::new());
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(error.grpc_code()));
    // The fixed sentences are ASCII without `%`, so percent-encoding would change nothing.
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(error.public_message()));
    response
}

/// No refusal may be kept: a 404 may be, where nothing is said (RFC 9110 §15.1), and so may a gRPC status,
/// which comes with 200.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A `Retry-After`: whole seconds, rounded up, one at least.
pub(crate) fn in_seconds(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

fn answer(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// A JSON string.
fn text(value: &str) -> serde_json::Value {
    serde_json::Value::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InvalidToken;

    fn body(look: impl ErrorResponse, error: AuthError) -> String {
        String::from_utf8(look.respond(&Refusal::new(&error, false)).into_body().into()).unwrap()
    }

    #[test]
    fn the_bodies_are_as_their_formats_want_them() {
        let problem = body(ProblemJson, InvalidToken::Expired.into());
        assert_eq!(
            problem,
            r#"{"type":"urn:scaikey-auth:token_expired","title":"Unauthorized","status":401,"detail":"The token has expired."}"#
        );
        let scope = AuthError::InsufficientScope { required: "a\"b c".into() };
        let parsed: serde_json::Value = serde_json::from_str(&body(ProblemJson, scope)).unwrap();
        assert_eq!(parsed["required_scope"], "a\"b c");
        assert_eq!(
            body(Envelope::new("SW_AUTH_"), InvalidToken::Expired.into()),
            r#"{"error":{"code":"SW_AUTH_TOKEN_EXPIRED","message":"The token has expired."}}"#
        );
        assert_eq!(body(EmptyBody, AuthError::TenantMissing), "");
    }

    #[test]
    fn a_grpc_request_is_answered_with_a_grpc_status() {
        let table = [
            (AuthError::MissingCredentials, "16"),
            (AuthError::TenantMissing, "7"),
            (AuthError::Unavailable { what: "keys", retry_after: None, source: None }, "14"),
        ];
        for (error, code) in table {
            let refusal = Refusal::new(&error, true);
            for response in [
                ProblemJson.respond(&refusal),
                Envelope::new("X_").respond(&refusal),
                EmptyBody.respond(&refusal),
                Grpc.respond(&refusal),
            ] {
                assert_eq!(response.status(), StatusCode::OK);
                assert_eq!(response.headers()["grpc-status"], code);
                assert!(response.body().is_empty());
            }
        }
    }
}
