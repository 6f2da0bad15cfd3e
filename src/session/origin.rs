//! Whether a request with a cookie comes from the service's own pages.
//!
//! Browsers of the last years say so with `Sec-Fetch-Site` (Fetch Metadata §2.4); before, they sent
//! `Origin` with all requests that may change something (Fetch §3.2). One that says neither is
//! refused: programs have no cookies.

use http::{HeaderMap, Method, Uri, header};
use url::Url;

use crate::config::Fault;

/// Origins whose pages may send requests with a session, beside the service's own.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins(Vec<String>);

impl Origins {
    pub(super) fn new(origins: &[String], faults: &mut Vec<Fault>) -> Self {
        for origin in origins {
            let parsed = Url::parse(origin).ok();
            let is_origin = |url: Url| url.origin().ascii_serialization() == *origin;
            if !parsed.is_some_and(is_origin) {
                faults.push(Fault::new(
                    "trusted_origin",
                    "is no origin: write it like https://app.example, without a path",
                ));
            }
        }
        Self(origins.to_vec())
    }

    fn contains(&self, origin: &str) -> bool {
        self.0.iter().any(|trusted| trusted == origin)
    }
}

/// Whether a request may change something (RFC 9110 §9.2.1), or opens a web socket, which browsers
/// let every page do.
pub(super) fn is_unsafe(method: &Method, headers: &HeaderMap) -> bool {
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    !safe || headers.contains_key(header::UPGRADE) || headers.contains_key("sec-websocket-key")
}

/// Whether the page that caused a request is one of the service's own, or trusted.
pub(super) fn is_from_trusted_page(uri: &Uri, headers: &HeaderMap, trusted: &Origins) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let origin = text("origin");
    if origin.is_some_and(|origin| trusted.contains(origin)) {
        return true;
    }
    match text("sec-fetch-site") {
        // `none`: typed by the user, or opened by a bookmark.
        Some(site) => matches!(site, "same-origin" | "none"),
        None => origin.is_some_and(|origin| is_request_host(origin, uri, headers)),
    }
}

/// Whether an origin is the host that was asked. Its scheme cannot be compared: behind a proxy the
/// request has lost it. A `__Host-` cookie is never sent without TLS. The port that the scheme implies
/// may be written or not (RFC 6454 §5): browsers leave it out, some proxies put it into `Host`.
fn is_request_host(origin: &str, uri: &Uri, headers: &HeaderMap) -> bool {
    let asked = uri.authority().map(|authority| authority.as_str());
    let asked = asked.or_else(|| headers.get(header::HOST)?.to_str().ok());
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return false,
    };
    let bare = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    asked.is_some_and(|asked| !host.is_empty() && bare(asked) == bare(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_other_origins_are_told_from_our_own() {
        let trusted = Origins::new(&["https://spa.example".to_owned()], &mut Vec::new());
        let own = |pairs: &[(&'static str, &str)]| {
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
            assert_eq!(own(headers), *expected, "{headers:?}");
        }
    }

    #[test]
    fn what_may_change_something_is_unsafe() {
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
    fn a_trusted_origin_is_written_as_browsers_write_it() {
        for bad in ["https://a.example/", "a.example", "https://A.example", "*", "https://a:443"] {
            let mut faults = Vec::new();
            Origins::new(&[bad.to_owned()], &mut faults);
            assert_eq!(faults.len(), 1, "{bad}");
        }
    }
}
