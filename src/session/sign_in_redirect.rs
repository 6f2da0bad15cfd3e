//! [`SignInRedirect`]: leads browsers that load a page without a session to the sign-in.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::config::{PublicPaths, is_local_path};
use crate::gate::ResponseBody;
use crate::layer::RequestHead;

/// The headers that decide whether a browser is redirected.
const VARY: HeaderValue =
    HeaderValue::from_static("cookie, authorization, accept, sec-fetch-mode, sec-fetch-dest");

/// The redirect to the sign-in, set up by the endpoints.
#[derive(Debug)]
pub(crate) struct SignInRedirect {
    paths: PublicPaths,
    /// The path of the page after a failed sign-in.
    failure_page: Option<String>,
}

/// The redirect that replaces a 401 of the inner service. Public because a public layer type names it, but not
/// exported.
#[derive(Debug)]
pub struct Redirect(HeaderValue);

impl SignInRedirect {
    pub(crate) fn new(paths: PublicPaths, failure_page: Option<&str>) -> Self {
        let path = |page: &str| page.split('?').next().unwrap_or_default().to_owned();
        Self { paths, failure_page: failure_page.map(path) }
    }

    /// Returns the redirect for a request without a session, if a browser loads a page with it and brings no
    /// other credentials. The sign-in itself is not redirected, nor the page that reports that it failed:
    /// the browser would be redirected without end.
    pub(super) fn redirect(&self, head: RequestHead<'_>) -> Option<Redirect> {
        let is_page = matches!(*head.method, Method::GET | Method::HEAD) && head.is_navigation();
        if !is_page || has_credentials(head.headers) {
            return None;
        }
        let path = head.uri.path();
        if self.paths.is_login(path) || self.reports_failure(path, head.uri.query()) {
            return None;
        }
        let target = head.uri.path_and_query().map_or(path, |target| target.as_str());
        let page = self.paths.public(target).filter(|page| is_local_path(page));
        HeaderValue::try_from(self.paths.sign_in_url(page.as_deref())).ok().map(Redirect)
    }

    fn reports_failure(&self, path: &str, query: Option<&str>) -> bool {
        let mut parameters = query.unwrap_or_default().split('&');
        parameters.any(|parameter| parameter.starts_with("error="))
            && self.paths.public(path) == self.failure_page
    }
}

impl Redirect {
    /// Replaces a response that asks for a sign-in.
    pub(super) fn replace<B>(self, response: &mut Response<ResponseBody<B>>) {
        if response.status() != StatusCode::UNAUTHORIZED || !asks_for_token(response.headers()) {
            return;
        }
        let mut redirect = Response::new(bytes::Bytes::new());
        *redirect.status_mut() = StatusCode::SEE_OTHER;
        let headers = redirect.headers_mut();
        headers.insert(header::LOCATION, self.0);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, VARY);
        *response = redirect.map(ResponseBody::from);
    }
}

/// Returns whether a request has credentials other than `Basic`, which browsers also send to a proxy.
fn has_credentials(headers: &HeaderMap) -> bool {
    let is_basic = |value: &HeaderValue| {
        value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
    };
    headers.get_all(header::AUTHORIZATION).iter().any(|value| !is_basic(value))
}

/// Returns whether a 401 asks for a token, and does not refuse one (RFC 6750 §3.1). A handler that answers 401
/// without a challenge asks for a token, too.
fn asks_for_token(headers: &HeaderMap) -> bool {
    let challenges = headers.get_all(header::WWW_AUTHENTICATE);
    let challenges: Vec<_> =
        challenges.iter().map(|value| value.as_bytes().to_ascii_lowercase()).collect();
    let has =
        |text: &[u8]| challenges.iter().any(|value| memchr::memmem::find(value, text).is_some());
    challenges.is_empty() || (has(b"bearer") && !has(b"error="))
}
