//! [`SignInRedirect`]: leads browsers that load a page without a session to the sign-in.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::config::{PublicPaths, is_local_path};
use crate::gate::ResponseBody;
use crate::layer::{HadQueryToken, RequestHead, has_access_token};

/// The headers that decide whether a browser is redirected.
const VARY: HeaderValue =
    HeaderValue::from_static("cookie, authorization, accept, sec-fetch-mode, sec-fetch-dest");

/// The redirect to the sign-in, set up by the endpoints.
#[derive(Debug)]
pub(crate) struct SignInRedirect {
    paths: PublicPaths,
    /// The path of the page after a failed sign-in.
    failure_page: Option<String>,
    /// The name of the cookie that records which sign-ins guards asked for.
    step_up_cookie: String,
}

/// The page to return to. `None`: the landing page.
pub(super) struct Page(pub(super) Option<String>);

/// The redirect that replaces a 401 of the inner service. Public because a public layer type names it, but not
/// exported.
#[derive(Debug)]
pub struct Redirect(HeaderValue);

impl SignInRedirect {
    pub(crate) fn new(
        paths: PublicPaths,
        failure_page: Option<&str>,
        step_up_cookie: String,
    ) -> Self {
        let path = |page: &str| page.split('?').next().unwrap_or_default().to_owned();
        Self { paths, failure_page: failure_page.map(path), step_up_cookie }
    }

    pub(super) fn step_up_cookie(&self) -> &str {
        &self.step_up_cookie
    }

    /// Returns the redirect for a request without a session, if a browser loads a page with it and brings no
    /// other credentials. The sign-in itself is not redirected, nor the page that reports that it failed:
    /// the browser would be redirected without end.
    pub(super) fn redirect(&self, head: RequestHead<'_>) -> Option<Redirect> {
        self.page_of(head).and_then(|page| self.to(page))
    }

    /// Returns the redirect to the sign-in that returns to a page.
    pub(super) fn to(&self, Page(page): Page) -> Option<Redirect> {
        HeaderValue::try_from(self.paths.sign_in_url(page.as_deref())).ok().map(Redirect)
    }

    /// Returns the redirect with sealed parameters for another sign-in.
    pub(super) fn step_up(&self, sealed: &str) -> Option<Redirect> {
        HeaderValue::try_from(self.paths.step_up_url(sealed)).ok().map(Redirect)
    }

    /// Returns the page that a browser loads, if it may be redirected.
    pub(super) fn page_of(&self, head: RequestHead<'_>) -> Option<Page> {
        let is_page = matches!(*head.method, Method::GET | Method::HEAD) && head.is_navigation();
        if !is_page || has_credentials(head) {
            return None;
        }
        let path = head.uri.path();
        if self.paths.is_login(path) || self.reports_failure(path, head.uri.query()) {
            return None;
        }
        let target = head.uri.path_and_query().map_or(path, |target| target.as_str());
        Some(Page(self.paths.public(target).filter(|page| is_local_path(page))))
    }

    fn reports_failure(&self, path: &str, query: Option<&str>) -> bool {
        let mut parameters = query.unwrap_or_default().split('&');
        let is_page = |page: &String| {
            page.ends_with(path) || self.paths.public(path).is_some_and(|path| path == *page)
        };
        parameters.any(|parameter| parameter.starts_with("error="))
            && self.failure_page.as_ref().is_some_and(is_page)
    }
}

impl Redirect {
    /// Replaces a response that asks for a sign-in.
    pub(super) fn replace<B>(self, response: &mut Response<ResponseBody<B>>) {
        // The redirect would have the token in its URL.
        let had_token = response.extensions().get::<HadQueryToken>().is_some();
        let asks = response.status() == StatusCode::UNAUTHORIZED;
        if had_token || !asks || !asks_for_token(response.headers()) {
            return;
        }
        self.send(response);
    }

    /// Replaces a response.
    pub(super) fn send<B>(self, response: &mut Response<ResponseBody<B>>) {
        let mut redirect = Response::new(bytes::Bytes::new());
        *redirect.status_mut() = StatusCode::SEE_OTHER;
        let headers = redirect.headers_mut();
        headers.insert(header::LOCATION, self.0);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, VARY);
        *response = redirect.map(ResponseBody::from);
    }
}

/// Returns whether a request has credentials other than `Basic`, which browsers also send to a proxy. A
/// layer that takes the token from another parameter marks its response.
fn has_credentials(head: RequestHead<'_>) -> bool {
    let is_basic = |value: &HeaderValue| {
        value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
    };
    let mut values = head.headers.get_all(header::AUTHORIZATION).iter();
    values.any(|value| !is_basic(value)) || has_access_token(head.uri)
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

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn sign_in_and_failure_are_not_redirected() {
        let redirects = |local_login: &str, failure_page, target: &str| {
            let uri = "https://host.example/app/v1/auth/login";
            let paths = PublicPaths::new(uri, local_login).unwrap();
            let request = Request::get(target).header("accept", "text/html").body(()).unwrap();
            let redirect = SignInRedirect::new(paths, failure_page, "__Host-x".to_owned());
            redirect.redirect(RequestHead::of(&request)).is_some()
        };
        let sorry = Some("/app/sorry?a=b");
        for (local_login, failure_page, target, expected) in [
            ("/v1/auth/login", sorry, "/notes", true),
            ("/v1/auth/login", sorry, "/v1/auth/login?x", false),
            ("/v1/auth/login", sorry, "/sorry?a=b&error=access_denied", false),
            ("/v1/auth/login", sorry, "/sorry?a=b", true),
            ("/v1/auth/login", sorry, "/notes?error=access_denied", true),
            ("/v1/auth/login", None, "/notes?error=access_denied", true),
            ("/app/v1/auth/login", sorry, "/app/sorry?error=x", false),
            ("/svc/v1/auth/login", sorry, "/svc/sorry?error=x", false),
            ("/svc/v1/auth/login", None, "/other?error=x", true),
            // A proxy and a router removed parts of the path.
            ("/login", sorry, "/sorry?error=x", false),
            ("/login", sorry, "/v1/auth/login", false),
        ] {
            let redirected = redirects(local_login, failure_page, target);
            assert_eq!(redirected, expected, "{local_login} {failure_page:?} {target}");
        }
    }
}
