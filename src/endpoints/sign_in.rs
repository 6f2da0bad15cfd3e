//! [`SignIn`]: how users sign in here, by way of the provider.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use super::Inner;
use super::response::Failure;
use crate::config::{Fault, is_loopback};
use crate::error::AuthError;
use crate::identity::Scopes;
use crate::session::is_cookie_name;
use crate::support::seal::SealingKeys;
use crate::support::telemetry;

/// What sign-ins ask for unless told otherwise: an ID token, who it is, and a refresh token
/// (OpenID Connect Core §5.4, §11).
const SCOPES: &str = "openid profile email offline_access";

/// What the cookies of sign-ins are named after, behind `__Host-`.
const COOKIE_PREFIX: &str = "sign-in";

/// A cause that stays is told again after so long.
const WARNING_INTERVAL: Duration = Duration::from_secs(3600);

/// Sign-in with the authorization code flow and PKCE (RFC 6749 §4.1, RFC 7636, OpenID Connect Core
/// §3.1). For [`EndpointsBuilder::sign_in`](super::EndpointsBuilder::sign_in).
///
/// `GET login` sends a browser to the provider, with state, nonce and code challenge that a sealed
/// cookie of its own ties to this browser, for ten minutes; so any process with the same keys ends
/// what another began. When the browser comes back there, state, `iss` (RFC 9207) and the ID token
/// are checked, and it gets a session and goes on to `return_to`; or, without
/// [`sessions`](super::EndpointsBuilder::sessions), the tokens as JSON. A session begins only with an
/// access token that this service takes: where the provider makes it for another audience, say, the
/// sign-in fails with `server_error`, and a warning in the log names the claim. Whether the token's
/// *tenant* may use the service is not asked at sign-in. Tokens of a sign-in that fails are revoked,
/// but for one that fails because the provider is away after it gave them: browsers may send a callback
/// twice, and the other one may begin a session with them.
///
/// A browser that comes back with a sign-in that is spent, expired or of another browser goes on to
/// [`landing`](Self::landing) if it has a session, and otherwise to the
/// [`failure_page`](Self::failure_page).
///
/// `POST login` is for clients that began by themselves: `code`, `code_verifier`, `redirect_uri`
/// if it is not the first one here, and `nonce` if they sent one. They compare `state` themselves.
/// They get tokens, and no session.
#[derive(Debug, Clone)]
#[must_use = "does nothing before it is given to the endpoints"]
pub struct SignIn {
    pub(super) redirect_uris: Vec<String>,
    pub(super) scopes: Scopes,
    pub(super) landing: String,
    pub(super) failure_page: Option<String>,
    pub(super) extra: Vec<(String, String)>,
    pub(super) keys: Option<SealingKeys>,
    pub(super) unbound_codes: bool,
    pub(super) refused_tokens: Arc<RefusedTokens>,
    cookie_prefix: String,
    faults: Vec<Fault>,
}

/// What was told of refused tokens, and when: one warning for each cause in an hour.
#[derive(Debug, Default)]
pub(super) struct RefusedTokens(
    Mutex<HashMap<(&'static str, &'static str, &'static str), Duration>>,
);

impl RefusedTokens {
    /// Tells the operator that a sign-in has no such token, or one that was refused. Reasons and claims
    /// are of fixed lists, so the memory of them is bounded.
    pub(super) fn warn(&self, token: &'static str, refused: Option<&AuthError>, now: Duration) {
        let (reason, claim) = match refused {
            None => ("missing", ""),
            Some(AuthError::InvalidToken(invalid)) => (invalid.reason(), invalid.claim()),
            Some(error) => (error.reason(), ""),
        };
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = warned.get(&(token, reason, claim));
        let is_new = last.is_none_or(|at| now.saturating_sub(*at) >= WARNING_INTERVAL);
        if is_new {
            warned.insert((token, reason, claim), now);
        }
        drop(warned);
        telemetry::sign_in_token_refused(token, reason, claim, is_new);
    }
}

impl SignIn {
    /// Comes back to this URL: the public one of `login`, as it is registered at the provider.
    pub fn new(redirect_uri: impl Into<String>) -> Self {
        Self {
            redirect_uris: vec![redirect_uri.into()],
            scopes: SCOPES.parse().unwrap_or_default(),
            landing: "/".to_owned(),
            failure_page: None,
            extra: Vec::new(),
            keys: None,
            unbound_codes: false,
            refused_tokens: Arc::default(),
            cookie_prefix: COOKIE_PREFIX.to_owned(),
            faults: Vec::new(),
        }
    }

    /// Takes codes that clients got with this redirect URI, too (`POST login`). May be repeated.
    pub fn also_redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uris.push(uri.into());
        self
    }

    /// What is asked for. Default `openid profile email offline_access`. Without `openid` there is
    /// no ID token, and who signed in is not checked before the access token is used.
    pub fn scopes(mut self, scopes: &str) -> Self {
        match scopes.parse() {
            Ok(scopes) => self.scopes = scopes,
            Err(_) => self.faults.push(Fault::new("scopes", "are no scopes")),
        }
        self
    }

    /// Where a browser goes after its sign-in if `return_to` does not say: a path of this host.
    /// Default `/`. It cannot be `login`.
    pub fn landing(mut self, path: impl Into<String>) -> Self {
        self.landing = path.into();
        self
    }

    /// Where a browser goes after a sign-in that failed, for whatever reason: a path of this host, to
    /// which `error` is added with a code of a fixed list (`invalid_request` where this sign-in was
    /// not begun in this browser or took more than ten minutes, `temporarily_unavailable` where the
    /// provider is away or there were too many attempts, what the provider said where that is a code
    /// of RFC 6749 §4.1.2.1 or OpenID Connect Core §3.1.2.6, `invalid_grant`, and `server_error` for
    /// the rest). Default: it is shown the error as JSON. It cannot be `login`.
    pub fn failure_page(mut self, path: impl Into<String>) -> Self {
        self.failure_page = Some(path.into());
        self
    }

    /// Adds a parameter of the provider's own to its sign-in page: `prompt`, `acr_values`. What comes
    /// of it is *not* checked: that a `max_age` was kept, say, tells the guard
    /// [`mfa_within`](crate::guard::mfa_within), or `auth_time` among the claims.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Names the cookies of sign-ins: each is `__Host-`, this, `-` and a random text. Default
    /// `sign-in`. Of one prefix, a browser keeps the newest six: services on one host need different
    /// ones, or they clear each other's.
    pub fn cookie_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.cookie_prefix = prefix.into();
        self
    }

    /// Under which secret the cookie of a sign-in is sealed. Default: the one of the sessions; and
    /// without those one of this process, so that a sign-in ends where it began.
    pub fn keys(mut self, keys: SealingKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Takes codes at `POST login` without `code_verifier`. The price: whoever gets hold of a code
    /// can use it, and can have somebody else use it (RFC 9700 §2.1.1).
    pub fn insecure_allow_unbound_codes(mut self) -> Self {
        self.unbound_codes = true;
        self
    }

    pub(super) fn redirect_uri(&self) -> &str {
        self.redirect_uris.first().map_or("", String::as_str)
    }

    /// What the name of a sign-in's cookie begins with.
    pub(super) fn cookie_name(&self) -> String {
        format!("__Host-{}-", self.cookie_prefix)
    }

    /// `login` is the path of the endpoint.
    pub(super) fn check(&self, login: &str, faults: &mut Vec<Fault>) {
        faults.extend(self.faults.iter().cloned());
        if !is_cookie_name(&self.cookie_prefix) {
            let problem = "has characters a cookie's name cannot have, or none, or more than 64";
            faults.push(Fault::new("cookie_prefix", problem));
        }
        for uri in &self.redirect_uris {
            let url = Url::parse(uri).ok();
            let secure =
                |url: &Url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url));
            if !url.is_some_and(|url| secure(&url) && url.fragment().is_none()) {
                let problem = "is no https URL: give the public one of `login`";
                faults.push(Fault::new("redirect_uri", problem));
            }
        }
        if !is_local_path(&self.landing) {
            faults.push(Fault::new("landing", "is no path of this host"));
        }
        // Behind a fragment, nobody would read the code.
        let failure_page = self.failure_page.as_ref();
        if failure_page.is_some_and(|page| !is_local_path(page) || page.contains('#')) {
            faults.push(Fault::new("failure_page", "is no path of this host without a fragment"));
        }
        let pages = [("landing", Some(&self.landing)), ("failure_page", failure_page)];
        for (field, page) in pages {
            if page.is_some_and(|page| resolves_to(login, page)) {
                let problem = "is `login` itself, which would begin the next sign-in: give a page";
                faults.push(Fault::new(field, problem));
            }
        }
    }
}

/// Whether a browser that is sent to `page` asks for `path`: it takes dots out, and the query is another
/// matter.
fn resolves_to(path: &str, page: &str) -> bool {
    let here = Url::parse("https://here.invalid").ok();
    here.and_then(|here| here.join(page).ok()).is_some_and(|url| url.path() == path)
}

impl Inner {
    pub(super) fn sign_in(&self) -> Result<&SignIn, Failure> {
        self.sign_in.as_ref().ok_or(Failure::NotConfigured("there is no sign-in"))
    }
}

/// Whether a browser stays on this host when it is sent there. Browsers take `\` for `/`, drop
/// tabs and line ends, and see a host behind two slashes.
pub(super) fn is_local_path(path: &str) -> bool {
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    path.len() <= 2048 && plain && path.starts_with('/') && !path.starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_to_paths_of_this_host_only() {
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
        // As a browser reads them.
        let here = Url::parse("https://app.example/login").unwrap();
        for path in ["/", "/a/b?c=d#f", "/a//b", "/@evil.example", "/:80"] {
            assert_eq!(here.join(path).unwrap().origin(), here.origin(), "{path}");
        }
    }
}
