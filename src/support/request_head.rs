//! [`RequestHead`]: method, URI and headers of a request.

use std::fmt;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

const GRPC: &[u8] = b"application/grpc";

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The headers of prefetches. `Purpose` is the older name.
const PREFETCH: [HeaderName; 2] =
    [HeaderName::from_static("sec-purpose"), HeaderName::from_static("purpose")];

/// The headers of web sockets.
const WEB_SOCKET: [HeaderName; 2] = [header::SEC_WEBSOCKET_KEY, header::UPGRADE];

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

/// What a client can do with a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// It reads the body of a response, if at all. Also scripts in pages.
    Program,
    /// It reads the status of gRPC.
    Grpc,
    /// It shows a page.
    Browser,
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

    /// Returns whether a browser loads a page with this request, in a tab or window: it can show a page to
    /// the user, or follow a redirect to a sign-in. `fetch`, frames, web sockets, prefetches and other
    /// clients get `false`.
    ///
    /// Current browsers say so: `Sec-Fetch-Mode: navigate` with `Sec-Fetch-Dest: document`, and no
    /// `Sec-Purpose` (Fetch Metadata). Without these headers, the `Accept` must prefer `text/html`, and the
    /// request must neither be an upgrade nor have `X-Requested-With`. Any client can send these headers, so
    /// never authorize by them.
    pub fn is_navigation(&self) -> bool {
        // Most clients are programs, which two look-ups recognise.
        let is_page_load = match self.headers.get(&SEC_FETCH_MODE) {
            Some(mode) => {
                let destination = self.headers.get(&SEC_FETCH_DEST);
                mode == "navigate" && destination.is_none_or(|it| it == "document")
            }
            None => self.prefers_html() && !self.has_any(&[SEC_FETCH_DEST, X_REQUESTED_WITH]),
        };
        is_page_load && !self.has_any(&PREFETCH) && !self.has_any(&WEB_SOCKET)
    }

    /// Returns whether a page of another origin loads this without the user: as an image, a script, a frame, by
    /// `fetch`, or as a prefetch (Fetch Metadata). Older browsers do not say it.
    pub(crate) fn is_loaded_by_foreign_page(&self) -> bool {
        let is_other =
            |name: &HeaderName, text: &str| self.headers.get(name).is_some_and(|it| it != text);
        let is_part =
            is_other(&SEC_FETCH_MODE, "navigate") || is_other(&SEC_FETCH_DEST, "document");
        // `none`: the user typed the address, and the browser may load it before it is complete.
        let is_prefetch = is_other(&SEC_FETCH_SITE, "none") && self.has_any(&PREFETCH);
        is_other(&SEC_FETCH_SITE, "same-origin") && (is_part || is_prefetch)
    }

    fn has_any(&self, names: &[HeaderName]) -> bool {
        names.iter().any(|name| self.headers.contains_key(name))
    }

    /// Returns the kind of client, which decides what a refusal looks like.
    pub(crate) fn client_kind(&self) -> ClientKind {
        match (self.is_grpc(), self.is_navigation()) {
            (true, _) => ClientKind::Grpc,
            (_, true) => ClientKind::Browser,
            _ => ClientKind::Program,
        }
    }

    fn prefers_html(&self) -> bool {
        self.prefers("text/html")
    }

    /// Returns whether `wanted` is the preferred media type (RFC 9110 §12.5.1). Of equal ones, the first.
    pub(crate) fn prefers(&self, wanted: &str) -> bool {
        let values = self.headers.get_all(header::ACCEPT).iter();
        let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
        let mut preferred = ("", 0.0);
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let quality = parts.find_map(|it| it.strip_prefix("q=").or(it.strip_prefix("Q=")));
            let quality = quality.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0));
            if quality > preferred.1 {
                preferred = (media_type, quality);
            }
        }
        preferred.0.eq_ignore_ascii_case(wanted)
    }

    /// Returns whether the request opens a web socket: `GET` with `Upgrade: websocket` (RFC 6455 §4.1), or the
    /// extended `CONNECT` of HTTP/2 (RFC 8441 §5), whose `:protocol` is not in the head. `CONNECT` with the
    /// header `Sec-WebSocket-Version` has no other meaning.
    pub(crate) fn opens_web_socket(&self) -> bool {
        let mut upgrades = self.headers.get_all(header::UPGRADE).iter();
        match *self.method {
            Method::GET => upgrades.any(|line| {
                let mut protocols = line.as_bytes().split(|byte| *byte == b',');
                protocols.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"))
            }),
            Method::CONNECT => self.headers.contains_key(header::SEC_WEBSOCKET_VERSION),
            _ => false,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_loads_are_navigations() {
        let navigate = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        let table: &[(&[(&str, &str)], bool)] = &[
            (&navigate, true),
            (&[navigate[0], navigate[1], ("accept", "application/json")], true),
            (&[navigate[0]], true),
            (&[navigate[1]], false),
            (&[navigate[0], ("sec-fetch-dest", "iframe")], false),
            (&[navigate[0], ("sec-fetch-dest", "frame")], false),
            (&[navigate[0], ("sec-fetch-dest", "object")], false),
            (&[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", chrome)], false),
            (&[("sec-fetch-mode", "websocket"), ("sec-fetch-dest", "websocket")], false),
            (&[navigate[0], navigate[1], ("sec-purpose", "prefetch")], false),
            (&[navigate[0], navigate[1], ("sec-purpose", "prefetch;prerender")], false),
            (&[("accept", chrome), ("purpose", "prefetch")], false),
            (&[("accept", chrome)], true),
            (&[("accept", "Text/HTML; charset=utf-8")], true),
            (&[("accept", "text/html;q=0.9, application/json;q=0.8")], true),
            (&[("accept", "application/json;q=0.8"), ("accept", "text/html")], true),
            (&[("accept", "application/json, text/html")], false),
            (&[("accept", "text/html;q=0.5, application/json")], false),
            (&[("accept", "text/html;q=0")], false),
            (&[("accept", "text/html;q=x")], false),
            (&[("accept", "*/*")], false),
            (&[("accept", "text/event-stream")], false),
            (&[("accept", chrome), ("x-requested-with", "XMLHttpRequest")], false),
            (&[("accept", chrome), ("upgrade", "websocket")], false),
            (&[], false),
        ];
        for (headers, expected) in table {
            let mut request = Request::new(());
            for (name, value) in *headers {
                let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                request.headers_mut().append(name, value.parse().unwrap());
            }
            assert_eq!(RequestHead::of(&request).is_navigation(), *expected, "{headers:?}");
        }
    }
}
