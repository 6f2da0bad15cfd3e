//! Checks that a state-changing request with a session comes from a page of the service or of a
//! trusted origin.
//!
//! Current browsers send `Sec-Fetch-Site` (Fetch Metadata §2.4). Older browsers send `Origin` with
//! requests that may change state (Fetch §3.2). Such a request with neither header is refused: it
//! does not come from a browser, and other clients have no need for cookies.

use http::{HeaderMap, Method, Uri, header};
use url::Url;

use crate::config::Fault;

/// Other origins whose pages may send requests with a session.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins(Vec<String>);

impl Origins {
    /// Creates the list, and reports texts that are not origins.
    pub(super) fn new(origins: &[String], faults: &mut Vec<Fault>) -> Self {
        for origin in origins {
            let parsed = Url::parse(origin).ok();
            let is_origin = |url: Url| url.origin().ascii_serialization() == *origin;
            if !parsed.is_some_and(is_origin) {
                faults.push(Fault::new(
                    "trusted_origin",
                    "is not an origin: write it as browsers send it, such as https://app.example \
                     (lower case, no path, no default port)",
                ));
            }
        }
        Self(origins.to_vec())
    }

    fn contains(&self, origin: &str) -> bool {
        self.0.iter().any(|trusted| trusted == origin)
    }
}

/// Returns whether a request may change state (RFC 9110 §9.2.1) or opens a web socket. Browsers let
/// pages of any site open web sockets.
pub(super) fn is_unsafe(method: &Method, headers: &HeaderMap) -> bool {
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    !safe || headers.contains_key(header::UPGRADE) || headers.contains_key("sec-websocket-key")
}

/// Returns whether a page of the service or of a trusted origin caused the request.
pub(super) fn is_from_trusted_page(uri: &Uri, headers: &HeaderMap, trusted: &Origins) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text("origin");
    if origin.is_some_and(|origin| trusted.contains(origin)) {
        return true;
    }
    match text("sec-fetch-site") {
        // `none`: the user typed the address or opened a bookmark.
        Some(site) => matches!(site, "same-origin" | "none"),
        None => origin.is_some_and(|origin| is_request_host(origin, uri, headers)),
    }
}

/// Returns whether an origin names the request's host. The scheme is not compared: behind a proxy
/// that terminates TLS, the service sees `http`. Browsers send `__Host-` cookies over TLS only. The
/// default port of the scheme may be present or not (RFC 6454 §5): browsers omit it, and some
/// proxies add it to `Host`.
fn is_request_host(origin: &str, uri: &Uri, headers: &HeaderMap) -> bool {
    let requested_host = uri.authority().map(|authority| authority.as_str());
    let requested_host = requested_host.or_else(|| headers.get(header::HOST)?.to_str().ok());
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let bare = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    requested_host
        .is_some_and(|requested_host| !host.is_empty() && bare(requested_host) == bare(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_and_trusted_origins_pass() {
        let trusted = Origins::new(&["https://spa.example".to_owned()], &mut Vec::new());
        let passes = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            is_from_trusted_page(&Uri::from_static("/x"), &headers, &trusted)
        };
        let host = ("host", "app.example");
        let table: &[(&[(&'static str, &str)], bool)] = &[
            (&[host, ("sec-fetch-site", "same-origin")], true),
            (&[host, ("sec-fetch-site", "none")], true),
            (&[host, ("sec-fetch-site", "same-site")], false),
            (&[host, ("sec-fetch-site", "cross-site")], false),
            (&[host, ("sec-fetch-site", "")], false),
            (&[host, ("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], false),
            (&[host, ("sec-fetch-site", "same-site"), ("origin", "https://spa.example")], true),
            (&[host, ("origin", "https://spa.example")], true),
            (&[host, ("origin", "https://app.example")], true),
            (&[host, ("origin", "https://APP.example")], true),
            (&[host, ("origin", "https://app.example:443")], true),
            (&[("host", "app.example:443"), ("origin", "https://app.example")], true),
            (&[("host", "app.example:443"), ("origin", "https://app.example:443")], true),
            (&[("host", "app.example:80"), ("origin", "http://app.example")], true),
            (&[("host", "[::1]:443"), ("origin", "https://[::1]")], true),
            (&[("host", "app.example:80"), ("origin", "https://app.example")], false),
            (&[("host", "app.example:443"), ("origin", "http://app.example")], false),
            (&[("host", "app.example:4443"), ("origin", "https://app.example")], false),
            (&[("host", ":443"), ("origin", "https://")], false),
            (&[host, ("origin", "https://app.example:8443")], false),
            (&[host, ("origin", "https://app.example.evil.example")], false),
            (&[host, ("origin", "https://evil.example")], false),
            (&[host, ("origin", "null")], false),
            (&[host, ("origin", "")], false),
            (&[("origin", "https://app.example")], false),
            (&[host], false),
        ];
        for (headers, expected) in table {
            assert_eq!(passes(headers), *expected, "{headers:?}");
        }
    }

    #[test]
    fn state_changes_and_web_sockets_are_unsafe() {
        let (none, mut socket) = (HeaderMap::new(), HeaderMap::new());
        socket.insert("upgrade", "websocket".parse().unwrap());
        for safe in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert!(!is_unsafe(&safe, &none) && is_unsafe(&safe, &socket), "{safe}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(is_unsafe(&method, &none), "{method}");
        }
    }

    #[test]
    fn trusted_origins_must_be_serialised_origins() {
        for bad in ["https://a.example/", "a.example", "https://A.example", "*", "https://a:443"] {
            let mut faults = Vec::new();
            Origins::new(&[bad.to_owned()], &mut faults);
            assert_eq!(faults.len(), 1, "{bad}");
        }
    }
}
