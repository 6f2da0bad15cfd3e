//! [`RequestHead`]: method, URI and headers of a request.

use std::fmt;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};

const GRPC: &[u8] = b"application/grpc";

/// The method, URI and headers of a request: the input of custom token sources, tenant sources and guards.
/// `Debug` prints neither headers nor the query, because they may contain tokens.
///
/// ```
/// use http::{Request, header};
/// use scaikey_auth::layer::{RequestHead, TenantSource};
///
/// /// Returns the first label of the host: `acme` of `acme.wave.example`.
/// fn subdomain(head: RequestHead<'_>) -> Option<String> {
///     let host = head.headers.get(header::HOST)?.to_str().ok()?;
///     host.strip_suffix(".wave.example").map(str::to_owned)
/// }
///
/// let request = Request::get("/").header("host", "acme.wave.example").body(()).unwrap();
/// assert_eq!(subdomain(RequestHead::of(&request)).as_deref(), Some("acme"));
/// let source = TenantSource::custom(subdomain);
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'r> {
    /// The method.
    pub method: &'r Method,
    /// The request target. A router outside of the layer may have stripped a prefix.
    pub uri: &'r Uri,
    /// The headers.
    pub headers: &'r HeaderMap,
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .finish_non_exhaustive()
    }
}

impl<'r> RequestHead<'r> {
    /// Returns the head of a request.
    pub fn of<B>(request: &'r Request<B>) -> Self {
        Self { method: request.method(), uri: request.uri(), headers: request.headers() }
    }

    pub(crate) fn of_parts(parts: &'r Parts) -> Self {
        Self { method: &parts.method, uri: &parts.uri, headers: &parts.headers }
    }

    /// Returns whether this is a gRPC request: `POST` with the content type `application/grpc`, optionally
    /// followed by a format (`+proto`) or parameters (gRPC over HTTP/2, section "Requests"). Only gRPC
    /// clients understand a refusal with status 200.
    pub fn is_grpc(&self) -> bool {
        let content_type = self.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let parts = content_type.and_then(|value| value.split_at_checked(GRPC.len()));
        *self.method == Method::POST
            && parts.is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+' | b';', ..])
            })
    }

    /// Returns whether the method and headers are those of a CORS preflight (Fetch §4.8). A preflight
    /// carries no credentials, and announces neither content nor a protocol upgrade.
    #[inline]
    pub(crate) fn is_preflight(&self) -> bool {
        *self.method == Method::OPTIONS
            && self.headers.contains_key(header::ORIGIN)
            && self.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && !self.headers.contains_key(header::TRANSFER_ENCODING)
            && !self.headers.contains_key(header::UPGRADE)
            && self.headers.get_all(header::CONTENT_LENGTH).iter().all(|length| *length == "0")
    }
}
