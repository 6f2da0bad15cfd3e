//! The files of the page *Access → Token Exchange*. They contain no data, so they need no token: the page asks
//! the API, with the session of the browser or a token that the administrator pastes.

mod files;

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::conditions::names_tag;
use crate::support::crypto;

/// Scripts, styles and data from this service only, and no frames: a page around this one could lead clicks to it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug)]
pub(super) struct PageFile {
    media_type: &'static str,
    text: &'static str,
    tag: String,
}

/// The files by the path below `trusts`.
static FILES: LazyLock<HashMap<String, PageFile>> = LazyLock::new(|| {
    let page = [("/ui".to_owned(), PageFile::new(files::PAGE))];
    let others = files::FILES.iter().map(|file| (format!("/ui/{}", file.0), PageFile::new(*file)));
    page.into_iter().chain(others).collect()
});

impl PageFile {
    fn new((_, media_type, text): (&str, &'static str, &'static str)) -> Self {
        let digest: String = crypto::sha256_hex(text).chars().take(16).collect();
        Self { media_type, text, tag: format!("\"{digest}\"") }
    }

    pub(super) fn find(path: &str) -> Option<&'static Self> {
        FILES.get(path)
    }

    /// Returns the file, or 304 if the browser has it. Browsers ask each time, so that an update of the service is
    /// seen immediately.
    pub(super) fn respond(&'static self, request: &HeaderMap) -> Response<Bytes> {
        let is_known = names_tag(request, &self.tag);
        let mut response = Response::new(match is_known {
            true => Bytes::new(),
            false => Bytes::from_static(self.text.as_bytes()),
        });
        let fixed: [(HeaderName, &'static str); 5] = [
            (header::CONTENT_TYPE, self.media_type),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::ETAG, &self.tag),
        ];
        for (name, value) in fixed {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
        response
    }
}
