//! [`ErrorResponse`]: the format of a refusal on the wire, and the four formats of this crate.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::AuthError;
use crate::support::request_head::ClientKind;

/// The input of an [`ErrorResponse`]: the error, and the status of the response.
///
/// An [`ErrorResponse`] of your own reads it, for example to change only some responses:
///
/// ```
/// use bytes::Bytes;
/// use http::{Response, header};
/// use scaikey_auth::error::{ErrorResponse, ProblemJson, Refusal};
///
/// /// Shows browsers a page, and all others the default.
/// struct Page;
///
/// impl ErrorResponse for Page {
///     fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
///         let mut response = ProblemJson.respond(refusal);
///         if !refusal.grpc && refusal.status == 403 {
///             *response.body_mut() = "<h1>Your account has no access to this page.</h1>".into();
///             let html = http::HeaderValue::from_static("text/html; charset=utf-8");
///             response.headers_mut().insert(header::CONTENT_TYPE, html);
///         }
///         response
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Refusal<'a> {
    /// The reason. It is never [`Extended`](AuthError::Extended): the layer adds the additional challenges and
    /// headers after the response is built.
    pub error: &'a AuthError,
    /// Whether the request is gRPC: `POST` with the content type `application/grpc`, alone or followed
    /// by `+` or `;`. gRPC-Web is not included.
    pub grpc: bool,
    /// Whether a browser loads a page, so that the user sees the body:
    /// [`RequestHead::is_navigation`](crate::layer::RequestHead::is_navigation).
    pub navigation: bool,
    /// The status of the response: [`AuthError::status`], unless the layer is configured otherwise (for
    /// example, 404 for an unknown tenant).
    pub status: StatusCode,
}

impl<'a> Refusal<'a> {
    pub(crate) fn new(error: &'a AuthError, client: ClientKind) -> Self {
        Self {
            error: error.plain(),
            grpc: client == ClientKind::Grpc,
            navigation: client == ClientKind::Browser,
            status: error.status(),
        }
    }
}

/// A format for refusals.
///
/// Any `Fn(&Refusal) -> Response<B>` implements it, if `B` converts into [`Bytes`]: `String`, `Vec<u8>`,
/// `&'static str`, and [`Bytes`] itself.
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
/// A page for browsers, and JSON for scripts and programs. One function serves all layers:
///
/// ```
/// use bytes::Bytes;
/// use http::{HeaderValue, Response, header};
/// use scaikey_auth::Auth;
/// use scaikey_auth::error::{ErrorResponse, ProblemJson, Refusal};
/// use scaikey_auth::session::Sessions;
///
/// fn page(refusal: &Refusal<'_>) -> Response<Bytes> {
///     if !refusal.navigation {
///         return ProblemJson.respond(refusal);
///     }
///     // `public_message()` speaks of tokens, which the users of a page do not know.
///     let message = match refusal.error.public_reason() {
///         "credentials_missing" | "token_expired" => "Please sign in.",
///         "forbidden" | "insufficient_scope" => "You may not see this page.",
///         "foreign_origin" => "Please send this form from our own page.",
///         "unavailable" => "We cannot check who you are. Please try again in a minute.",
///         _ => "This did not work.",
///     };
///     let html = format!("<!doctype html><title>Sorry</title><h1>Sorry</h1><p>{message}</p>");
///     let mut response = Response::new(Bytes::from(html));
///     *response.status_mut() = refusal.status;
///     let html = HeaderValue::from_static("text/html; charset=utf-8");
///     response.headers_mut().insert(header::CONTENT_TYPE, html);
///     response
/// }
///
/// # fn example(auth: &Auth, sessions: &Sessions) {
/// let (protected, sessions) = (auth.layer().respond_with(page), sessions.layer().respond_with(page));
/// # }
/// ```
///
/// The layer then adds `Cache-Control: no-store`, `Retry-After` to a 429 or 503, and `WWW-Authenticate` to a
/// 400, 401 or 403 that has none. Harmless mistake: an ugly body. Security hole: a 2xx status for a request
/// other than gRPC, which makes the client believe that the request succeeded.
pub trait ErrorResponse: Send + Sync + 'static {
    /// Builds the response.
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

/// `application/problem+json` (RFC 9457), the default format.
///
/// `type` is `urn:scaikey-auth:` followed by [`AuthError::public_reason`]. A gRPC request gets a gRPC status
/// instead, so that one layer serves both.
///
/// ```
/// use scaikey_auth::Auth;
/// use scaikey_auth::error::{ErrorResponse, ProblemJson, Refusal};
///
/// # fn example(auth: &Auth) {
/// // The default, and a line of your own in the log.
/// let layer = auth.layer().respond_with(|refusal: &Refusal<'_>| {
///     println!("{} refused", refusal.error.reason());
///     ProblemJson.respond(refusal)
/// });
/// # }
/// ```
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
            AuthError::StepUpRequired(step_up) if !step_up.is_empty() => {
                problem(error, status, step_up.json_members())
            }
            _ if status == error.status() => Bytes::from_static(error.public().problem.as_bytes()),
            _ => problem(error, status, String::new()),
        };
        response(status, PROBLEM, body)
    }
}

/// Formats an RFC 9457 document that was not built at compile time: one with an extension member or another
/// status.
fn problem(error: &AuthError, status: StatusCode, extension: String) -> Bytes {
    let (reason, message) = (error.public_reason(), text(error.public_message()));
    let title = status.canonical_reason().unwrap_or("Refused");
    let status = status.as_u16();
    Bytes::from(format!(
        r#"{{"type":"urn:scaikey-auth:{reason}","title":"{title}","status":{status},"detail":{message}{extension}}}"#
    ))
}

/// A JSON envelope: `{"error":{"code":"…","message":"…"}}`.
///
/// The code is the prefix, followed by [`AuthError::public_reason`] in capitals. With the prefix `SW_AUTH_`, an
/// expired token is `SW_AUTH_TOKEN_EXPIRED`. For your own codes, use a closure.
///
/// ```
/// use scaikey_auth::error::Envelope;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // {"error":{"code":"SW_AUTH_TOKEN_EXPIRED","message":"…"}}
/// let layer = auth.layer().respond_with(Envelope::new("SW_AUTH_"));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Envelope {
    prefix: String,
}

impl Envelope {
    /// Creates an envelope whose codes begin with `prefix`.
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
        response(refusal.status, JSON, Bytes::from(body))
    }
}

/// A response without a body: only the status and the headers.
///
/// ```
/// use scaikey_auth::error::EmptyBody;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// let layer = auth.layer().respond_with(EmptyBody);
/// # }
/// ```
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

/// A gRPC status without messages ("trailers-only") for every request, gRPC or not.
///
/// You rarely need it: the other formats of this crate already answer gRPC requests
/// ([`RequestHead::is_grpc`](crate::layer::RequestHead::is_grpc)) with a gRPC status. Use it if clients send
/// gRPC requests that are not recognised as such.
///
/// The status is [`AuthError::grpc_code`], such as 16 `UNAUTHENTICATED`, 7 `PERMISSION_DENIED` or
/// 14 `UNAVAILABLE`.
///
/// ```
/// use scaikey_auth::error::Grpc;
/// use scaikey_auth::scope;
/// use tower::ServiceBuilder;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// let stack = ServiceBuilder::new()
///     .layer(auth.layer().respond_with(Grpc))
///     .layer(auth.require(scope("orders:read")).respond_with(Grpc));
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Grpc;

impl ErrorResponse for Grpc {
    fn respond(&self, refusal: &Refusal<'_>) -> Response<Bytes> {
        trailers_only(refusal.error)
    }
}

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Builds a gRPC response: HTTP status 200, with the result in `grpc-status`. There is no body, so the headers
/// serve as the trailers.
fn trailers_only(error: &AuthError) -> Response<Bytes> {
    let mut response = self::response(StatusCode::OK, GRPC, Bytes::new());
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(error.grpc_code()));
    // The fixed sentences are ASCII without `%`, so they need no percent-encoding.
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(error.public_message()));
    response
}

/// The `Cache-Control` of every refusal. Without it, caches may store a 404 (RFC 9110 §15.1), and a gRPC
/// status, because its HTTP status is 200.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Formats a `Retry-After`: whole seconds, rounded up, at least 1.
pub(crate) fn retry_after_value(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

fn response(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// Returns `value` as a JSON string.
fn text(value: &str) -> serde_json::Value {
    serde_json::Value::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{InvalidToken, StepUp};

    fn body(format: impl ErrorResponse, error: AuthError) -> String {
        String::from_utf8(
            format.respond(&Refusal::new(&error, ClientKind::Program)).into_body().into(),
        )
        .unwrap()
    }

    #[test]
    fn bodies_follow_their_formats() {
        let problem = body(ProblemJson, InvalidToken::Expired.into());
        assert_eq!(
            problem,
            r#"{"type":"urn:scaikey-auth:token_expired","title":"Unauthorized","status":401,"detail":"The token has expired."}"#
        );
        let scope = AuthError::InsufficientScope { required: "a\"b c".into() };
        let parsed: serde_json::Value = serde_json::from_str(&body(ProblemJson, scope)).unwrap();
        assert_eq!(parsed["required_scope"], "a\"b c");
        let step_up = StepUp::default().acr_values(["gold", "x\"y"]);
        let step_up = step_up.max_age(Duration::from_secs(300)).scope("a b");
        assert_eq!(
            body(ProblemJson, step_up.into()),
            r#"{"type":"urn:scaikey-auth:step_up_required","title":"Unauthorized","status":401,"detail":"A more recent or a stronger sign-in is needed.","acr_values":["gold","x\"y"],"max_age":300,"required_scope":"a b"}"#
        );
        assert_eq!(
            body(Envelope::new("SW_AUTH_"), InvalidToken::Expired.into()),
            r#"{"error":{"code":"SW_AUTH_TOKEN_EXPIRED","message":"The token has expired."}}"#
        );
        assert_eq!(body(EmptyBody, AuthError::TenantMissing), "");
    }

    #[test]
    fn grpc_request_gets_a_grpc_status() {
        let table = [
            (AuthError::MissingCredentials, "16"),
            (StepUp::default().acr_values(["gold"]).into(), "16"),
            (AuthError::TenantMissing, "7"),
            (AuthError::Unavailable { component: "keys", retry_after: None, source: None }, "14"),
        ];
        for (error, code) in table {
            let refusal = Refusal::new(&error, ClientKind::Grpc);
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
