//! [`PublicPaths`]: the paths of this service as browsers see them.

use url::Url;

/// The path of `login` with the default prefix.
const DEFAULT_LOGIN: &str = "/v1/auth/login";

/// Maximum number of characters of a page's path with its query: it is stored in a cookie.
const MAX_PAGE_LEN: usize = 2048;

/// The paths of this service as browsers see them. A proxy in front may remove a prefix of the path, add
/// one, or replace it. All paths derive from the redirect URI, because it is the public URL of `login`.
#[derive(Debug, Clone)]
pub(crate) struct PublicPaths {
    /// Scheme, host and port, as browsers write them.
    origin: String,
    /// The path of `login` in a browser.
    login: String,
    /// The path of `login` in this service.
    local_login: String,
    /// The URL that starts a sign-in. It has the host of the redirect URI, because the cookie of the
    /// sign-in must reach the callback.
    sign_in_url: String,
    /// The start of each path in this service that the proxy replaces, and its replacement.
    local_base: String,
    base: String,
    /// The path under which the service stands, without a slash at its end.
    home: String,
}

impl PublicPaths {
    /// Derives the paths from the redirect URI and the path of `login` in this service. Returns `None` if
    /// the redirect URI is not a URL.
    ///
    /// Both paths of `login` have a common end; what precedes it is what the proxy replaces. Without a
    /// common end, the redirect URI is another endpoint, and nothing is known of a proxy. If the prefix is
    /// empty, a router has removed the start of the path, and what the session layer sees is the whole path.
    pub(crate) fn new(redirect_uri: &str, local_login: &str) -> Option<Self> {
        let url = Url::parse(redirect_uri).ok()?;
        let login = url.path();
        let common = common_end(login, local_login);
        let is_login_public = common > 0;
        let is_nested = local_login.matches('/').count() == 1;
        let start_of = |path: &str| match is_login_public && !is_nested {
            true => path.get(..path.len().saturating_sub(common)).unwrap_or_default().to_owned(),
            false => String::new(),
        };
        let home = login.strip_suffix(DEFAULT_LOGIN);
        let home = home.or_else(|| login.strip_suffix(local_login).filter(|_| !is_nested));
        let [sign_in_url, login_path] = match is_login_public {
            true => [url.as_str(), login],
            false => [local_login; 2],
        };
        Some(Self {
            origin: url.origin().ascii_serialization(),
            login: login_path.to_owned(),
            local_login: local_login.to_owned(),
            sign_in_url: sign_in_url.to_owned(),
            local_base: start_of(local_login),
            base: start_of(login),
            home: home.unwrap_or_default().to_owned(),
        })
    }

    /// Returns the public path of `login`.
    pub(crate) fn login(&self) -> &str {
        &self.login
    }

    /// Returns the path under which the service stands, without a slash at its end: empty if the service
    /// has the whole host, or if the path is unknown.
    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    /// Returns the page at which the service begins. Behind a proxy that removes `/app`, `/app/` is the `/`
    /// of the service. Without such a proxy, axum nests a router at `/app`, and `/app/` does not exist.
    pub(crate) fn start_page(&self) -> String {
        match self.home.is_empty() || self.base == self.home {
            true => format!("{}/", self.home),
            false => self.home.clone(),
        }
    }

    /// Returns whether a page belongs to this service, as far as its path says.
    pub(crate) fn contains(&self, page: &str) -> bool {
        let path = page.split(['?', '#']).next().unwrap_or_default();
        path.strip_prefix(&self.home).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns the public path of a path in this service, if it is known.
    pub(crate) fn public(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.local_base)?;
        let is_inside = rest.is_empty() || rest.starts_with(['/', '?']);
        is_inside.then(|| format!("{}{rest}", self.base))
    }

    /// Returns the path of a page to return to: a path of this host, or a URL that begins with the own
    /// origin exactly as browsers write it. `login` itself is refused, because it would start another
    /// sign-in.
    pub(crate) fn page<'t>(&self, text: &'t str) -> Option<&'t str> {
        let page = match text.strip_prefix(&self.origin) {
            Some("") => "/",
            Some(path) => path,
            None => text,
        };
        (is_local_path(page) && !self.leads_to_login(page)).then_some(page)
    }

    /// Returns whether a browser that is redirected to `page` requests `login`. Browsers resolve dot
    /// segments. The query is not compared.
    pub(crate) fn leads_to_login(&self, page: &str) -> bool {
        resolved(page).is_some_and(|url| url.path() == self.login)
    }

    /// Returns whether an absolute URL is that of `login`. The query is not compared.
    pub(crate) fn is_login_url(&self, url: &str) -> bool {
        let url = Url::parse(url).ok();
        url.is_some_and(|url| {
            url.origin().ascii_serialization() == self.origin && url.path() == self.login
        })
    }

    /// Resolves `page` as a browser does. Returns the rest of its path after the directory of `login`, if it is
    /// in there, as the other endpoints are.
    pub(crate) fn beside_login(&self, page: &str) -> Option<String> {
        let (start, _) = self.login.rsplit_once('/')?;
        let url = resolved(page)?;
        url.path().strip_prefix(start)?.strip_prefix('/').map(str::to_owned)
    }

    /// Returns whether `path`, as this service sees it, may be the path of `login`.
    pub(crate) fn is_login(&self, path: &str) -> bool {
        path == self.local_login || self.login.ends_with(path)
    }

    /// Returns the URL that starts a sign-in and returns to `page`.
    pub(crate) fn sign_in_url(&self, page: Option<&str>) -> String {
        page.map_or_else(
            || self.sign_in_url.clone(),
            |page| self.sign_in_url_with("return_to", page),
        )
    }

    /// Returns the URL that starts a sign-in with these sealed parameters.
    pub(crate) fn step_up_url(&self, sealed: &str) -> String {
        self.sign_in_url_with("step_up", sealed)
    }

    fn sign_in_url_with(&self, name: &str, value: &str) -> String {
        let separator = if self.sign_in_url.contains('?') { '&' } else { '?' };
        let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        format!("{}{separator}{name}={value}", self.sign_in_url)
    }
}

/// Returns whether `prefix` can stand before a path: empty, or segments that a URL keeps as they are.
pub(crate) fn is_path_prefix(prefix: &str) -> bool {
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
    let mut segments = prefix.trim_end_matches('/').split('/');
    segments.next() == Some("")
        && segments.all(is_segment)
        && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&b))
}

/// Returns the length of the common end of two paths, in whole segments.
fn common_end(one: &str, other: &str) -> usize {
    let segments = one.rsplit('/').zip(other.rsplit('/'));
    segments.take_while(|(one, other)| one == other).map(|(one, _)| one.len() + 1).sum()
}

/// Resolves `page` as a browser does that follows a redirect: without dot segments.
fn resolved(page: &str) -> Option<Url> {
    Url::parse("https://here.invalid").ok()?.join(page).ok()
}

/// Returns whether a redirect to `path` stays on this host. Browsers read `\` as `/`, drop tabs and
/// line ends, and take the text after two slashes for a host. Nor may the resolved path begin with two
/// slashes: a server that redirects to it would lead to another host.
pub(crate) fn is_local_path(path: &str) -> bool {
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let has_host = |path: &str| path.starts_with("//");
    path.len() <= MAX_PAGE_LEN
        && plain
        && path.starts_with('/')
        && !has_host(path)
        && resolved(path).is_some_and(|url| !has_host(url.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "/v1/auth/login";

    fn paths(redirect_path: &str, local_login: &str) -> PublicPaths {
        PublicPaths::new(&format!("https://host.example{redirect_path}"), local_login).unwrap()
    }

    #[test]
    fn paths_derive_from_the_redirect_uri() {
        // The redirect URI's path, `login` in the service; the start page, and the public path of `/notes`.
        for (redirect_path, local_login, start, notes) in [
            (LOCAL, LOCAL, "/", Some("/notes")),
            ("/app/v1/auth/login", LOCAL, "/app/", Some("/app/notes")),
            ("/a/b/v1/auth/login", LOCAL, "/a/b/", Some("/a/b/notes")),
            // Not stripped: the service sees the public path.
            ("/app/v1/auth/login", "/app/v1/auth/login", "/app", Some("/notes")),
            ("/app/auth/login", "/auth/login", "/app/", Some("/app/notes")),
            ("/auth/login", "/auth/login", "/", Some("/notes")),
            // Added and replaced by the proxy.
            (LOCAL, "/svc/v1/auth/login", "/", None),
            ("/app/v1/auth/login", "/svc/v1/auth/login", "/app/", None),
            // A router removed the start.
            (LOCAL, "/login", "/", Some("/notes")),
            ("/app/v1/auth/login", "/login", "/app", Some("/notes")),
            ("/auth/login", "/login", "/", Some("/notes")),
            // Not `login`.
            ("/callback", LOCAL, "/", Some("/notes")),
            ("/", LOCAL, "/", Some("/notes")),
        ] {
            let paths = paths(redirect_path, local_login);
            let case = format!("{redirect_path} {local_login}");
            assert_eq!(paths.start_page(), start, "{case}");
            assert_eq!(paths.public("/notes").as_deref(), notes, "{case}");
        }
        let replaced = paths("/app/v1/auth/login", "/svc/v1/auth/login");
        let public = |path| replaced.public(path);
        assert_eq!(public("/svc/a?b=/c").as_deref(), Some("/app/a?b=/c"));
        assert_eq!(public("/svc?b").as_deref(), Some("/app?b"));
        assert_eq!(public("/svcs/a"), None);
    }

    #[test]
    fn other_redirect_uri_leaves_login_local() {
        let other = paths("/callback", LOCAL);
        assert_eq!((other.login(), other.sign_in_url(None)), (LOCAL, LOCAL.to_owned()));
        let public = paths("/app/v1/auth/login", LOCAL);
        assert_eq!(public.login(), "/app/v1/auth/login");
        let url = "https://host.example/app/v1/auth/login";
        assert_eq!(public.sign_in_url(None), url);
        let expected = format!("{url}?return_to=%2Fapp%2Fa%3Fb%3Dc%2526");
        assert_eq!(public.sign_in_url(Some("/app/a?b=c%26")), expected);
        let queried = paths("/v1/auth/login?x=y", LOCAL).sign_in_url(Some("/a"));
        assert_eq!(queried, "https://host.example/v1/auth/login?x=y&return_to=%2Fa");
    }

    #[test]
    fn pages_of_the_own_origin_are_accepted() {
        let paths = paths("/app/v1/auth/login", LOCAL);
        for (text, page) in [
            ("/app/notes?a=b#c", "/app/notes?a=b#c"),
            ("https://host.example/app/notes?a=b#c", "/app/notes?a=b#c"),
            ("https://host.example/", "/"),
            ("https://host.example", "/"),
            ("/app/v1/auth/login/more", "/app/v1/auth/login/more"),
        ] {
            assert_eq!(paths.page(text), Some(page), "{text}");
        }
        let long = format!("https://host.example/{}", "a".repeat(MAX_PAGE_LEN));
        for text in [
            "http://host.example/app",
            "https://host.example:8443/app",
            "https://host.example:443/app",
            "https://host.example.evil.example/app",
            "https://host.exampleevil.example",
            "https://host.example@evil.example/app",
            "https://host.example:pw@evil.example/app",
            "https://user@host.example/app",
            "https://host.example//evil.example",
            "https://host.example/\\evil.example",
            "https://host.example\\@evil.example",
            "https://host.example\\evil.example",
            "https://host.example/\t/evil.example",
            "https://host.example?a",
            "https://host.example#a",
            "https://host.example.",
            "https://host.example./app",
            "https:host.example/app",
            "https:/host.example/app",
            "https:///host.example/app",
            "HTTPS://host.example/app",
            "https://HOST.example/app",
            "https://%68ost.example/app",
            " https://host.example/app",
            "https://host.example /app",
            "//host.example/app",
            "///host.example/app",
            "blob:https://host.example/app",
            "view-source:https://host.example/app",
            "javascript:https://host.example/app",
            "https://evil.example/https://host.example/app",
            "https://evil.example?https://host.example/app",
            "app",
            "",
            &long,
            // Another sign-in.
            "/app/v1/auth/login",
            "/app/v1/auth/login?return_to=/app",
            "/app/./x/../v1/auth/login",
            "/app/%2e%2E/app/v1/auth/login",
            "https://host.example/app/v1/auth/login",
        ] {
            assert_eq!(paths.page(text), None, "{text:?}");
        }
    }

    #[test]
    fn login_is_recognised_behind_proxies() {
        for (redirect_path, local_login, path, expected) in [
            ("/app/v1/auth/login", LOCAL, LOCAL, true),
            ("/app/v1/auth/login", LOCAL, "/app/v1/auth/login", true),
            ("/app/v1/auth/login", "/login", LOCAL, true),
            ("/app/v1/auth/login", "/svc/v1/auth/login", "/svc/v1/auth/login", true),
            ("/app/v1/auth/login", LOCAL, "/app/notes", false),
        ] {
            assert_eq!(paths(redirect_path, local_login).is_login(path), expected, "{path}");
        }
    }

    #[test]
    fn prefixes_are_plain_paths() {
        for good in ["", "/", "/v1/auth", "/v1/auth/", "/a.b/c-d"] {
            assert!(is_path_prefix(good), "{good}");
        }
        for bad in
            ["v1", "//a", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/a b", "/%61", "https://a"]
        {
            assert!(!is_path_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn local_paths_stay_on_this_host() {
        for good in ["/", "/a/b?c=d&e=%2F#f", "/a//b", "/@x", "/:x"] {
            assert!(is_local_path(good), "{good}");
        }
        let long = format!("/{}", "a".repeat(2048));
        for bad in [
            "",
            "a",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/a\\b",
            "/\t/evil.example",
            "/\n/evil.example",
            "/a b",
            "/ä",
            "https://evil.example",
            "javascript:alert(1)",
            " /a",
            "?a",
            "#a",
            &long,
        ] {
            assert!(!is_local_path(bad), "{bad:?}");
        }
        // The same as resolved by a browser.
        let here = Url::parse("https://app.example/login").unwrap();
        for path in ["/", "/a/b?c=d#f", "/a//b", "/@evil.example", "/:80"] {
            assert_eq!(here.join(path).unwrap().origin(), here.origin(), "{path}");
        }
    }
}
