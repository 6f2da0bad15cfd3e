//! [`SignIn`]: settings for signing users in through the provider.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use super::response::{Failure, invalid_request};
use super::{Endpoint, Inner};
use crate::config::{EndpointsConfig, Fault, Origin, PublicPaths, is_local_path, is_public_url};
use crate::error::AuthError;
use crate::exchange::reserved_parameter;
use crate::identity::Scopes;
use crate::session::{SameSite, Sessions, SignInRedirect, is_cookie_name};
use crate::support::seal::SealingKeys;
use crate::support::telemetry;

/// Default scopes: an ID token, the user's profile and address, and a refresh token (OpenID Connect
/// Core §5.4, §11).
const SCOPES: &str = "openid profile email offline_access";

/// Default part of the cookie names after `__Host-`.
const COOKIE_PREFIX: &str = "sign-in";

/// Maximum length of the configured name of the cookies: `sign-in-NAME` has at most 64 characters.
const MAX_COOKIE_NAME: usize = 56;

pub(super) const RETURN_TO_ELSEWHERE: Failure =
    invalid_request("The parameter return_to must be a page of this host, other than login.");

/// Time between two warnings with the same cause.
const WARNING_INTERVAL: Duration = Duration::from_secs(3600);

/// Settings for sign-in with the authorization code flow and PKCE (RFC 6749 §4.1, RFC 7636, OpenID
/// Connect Core §3.1). Pass them to
/// [`EndpointsBuilder::sign_in`](super::EndpointsBuilder::sign_in).
///
/// `GET login` redirects a browser to the provider. From pages of other origins it accepts links and
/// redirects only: an image, a frame, a `fetch` or a prefetch of such a page fails with `invalid_request`,
/// because each sign-in may clear the cookie of an older one. *Not* checked for browsers that do not say
/// what they load (Fetch Metadata; Safari before 16.4). A sealed cookie binds state, nonce and PKCE
/// verifier to this browser for ten minutes. Any process with the same keys can complete the
/// sign-in.
///
/// When the browser returns, the endpoint checks state, `iss` (RFC 9207) and the ID token. It then
/// starts a session and redirects to `return_to`. Without
/// [`sessions`](super::EndpointsBuilder::sessions), it returns the tokens as JSON.
///
/// A session needs an access token that this service accepts. If it does not accept the token
/// (because of its audience, for example), the sign-in fails with `server_error`, and a warning in
/// the log names the reason. A sign-in does *not* check whether the token's tenant may use the
/// service, unless it [registers](super::EndpointsBuilder::register_at_sign_in) its user:
/// [`Auth::layer`](crate::Auth::layer) checks the tenant of each request with the session.
///
/// The refresh token of a failed sign-in is revoked, unless the sign-in failed because something
/// was unavailable: then the cookie stays, too, and the browser may repeat the callback, which works within
/// a minute (by a reload or, from the failure page, by the Back button).
///
/// If a sign-in was already completed, has expired or was started in another browser, the browser
/// is redirected to [`landing`](Self::landing) if it has a session, and otherwise to the
/// [`failure_page`](Self::failure_page).
///
/// `POST login` is for clients that ran the flow themselves. They send `code`, `code_verifier`,
/// `redirect_uri` if it is not the first one here, and `nonce` if they used one. They must verify
/// `state` themselves, and get tokens instead of a session.
///
/// ```
/// use scaikey_auth::endpoints::SignIn;
///
/// let sign_in = SignIn::new("https://wave.example/v1/auth/login")
///     .scopes("openid profile email offline_access docs:read")
///     .parameter("audience", "https://api.wave.example")
///     .landing("/home")
///     .failure_page("/sorry");
/// ```
#[derive(Debug, Clone)]
#[must_use = "does nothing before it is given to the endpoints"]
pub struct SignIn {
    pub(super) redirect_uris: Vec<String>,
    pub(super) scopes: Scopes,
    landing: Option<String>,
    pub(super) failure_page: Option<String>,
    pub(super) redirect_navigation: bool,
    pub(super) extra: Vec<(String, String)>,
    pub(super) keys: Option<SealingKeys>,
    pub(super) codes_without_pkce: bool,
    pub(super) form_post: bool,
    pub(super) token_warnings: Arc<TokenWarnings>,
    /// Set by `build()`.
    pub(super) paths: Option<PublicPaths>,
    cookie_prefix: String,
    /// Whether the settings come from a configuration.
    is_configured: bool,
    faults: Vec<Fault>,
}

/// Times of the last warning per cause, so that each cause is logged once an hour.
#[derive(Debug, Default)]
pub(super) struct TokenWarnings(
    Mutex<HashMap<(&'static str, &'static str, &'static str), Duration>>,
);

impl TokenWarnings {
    /// Warns that a token of a sign-in is missing or rejected. Reasons and claims come from fixed
    /// lists, so the map is bounded.
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
    /// Creates the settings with the public URL of `login`, as registered at the provider: `https`, or `http`
    /// for loopback. Over `http`, use `localhost`, because the cookies are `Secure`.
    pub fn new(redirect_uri: impl Into<String>) -> Self {
        Self {
            redirect_uris: vec![redirect_uri.into()],
            scopes: SCOPES.parse().unwrap_or_default(),
            landing: None,
            failure_page: None,
            redirect_navigation: false,
            extra: Vec::new(),
            keys: None,
            codes_without_pkce: false,
            form_post: false,
            token_warnings: Arc::default(),
            paths: None,
            cookie_prefix: COOKIE_PREFIX.to_owned(),
            is_configured: false,
            faults: Vec::new(),
        }
    }

    /// Creates the settings from a configuration.
    pub(super) fn configured(
        redirect_uri: &str,
        settings: &EndpointsConfig,
        cookie_name: Option<&str>,
    ) -> Self {
        let mut sign_in = Self { is_configured: true, ..Self::new(redirect_uri) };
        if let Some(scopes) = &settings.scopes {
            sign_in = sign_in.scopes(scopes.as_str());
        }
        sign_in.landing.clone_from(&settings.landing);
        sign_in.failure_page.clone_from(&settings.failure_page);
        sign_in.redirect_navigation = settings.redirect_navigation;
        sign_in.form_post = settings.form_post;
        if let Some(name) = cookie_name {
            sign_in.cookie_prefix = format!("{COOKIE_PREFIX}-{name}");
        }
        sign_in.extra.clone_from(&settings.sign_in_parameters);
        sign_in
    }

    /// Adds a redirect URI whose codes clients may send to `POST login`. May be repeated.
    pub fn add_redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uris.push(uri.into());
        self
    }

    /// Sets the requested scopes. Default `openid profile email offline_access`. Without `openid`
    /// there is no ID token, so the sign-in is not checked with `nonce`.
    pub fn scopes(mut self, scopes: &str) -> Self {
        match scopes.parse() {
            Ok(scopes) => self.scopes = scopes,
            Err(_) => self.faults.push(Fault::new("scopes", "are not valid scopes")),
        }
        self
    }

    /// Sets the page after a sign-in without `return_to`: a path of this host as browsers see it,
    /// other than `login`. It begins with one `/`, and has at most 2,048 characters: printable ASCII
    /// without `\`.
    ///
    /// Default: the path under which the service stands, derived from the redirect URI. For
    /// `https://host.example/v1/auth/login` that is `/`. For
    /// `https://host.example/app/v1/auth/login` it is `/app/` if a proxy removes `/app`, and `/app`
    /// otherwise, where axum nests a router. A page outside that path is accepted with a warning.
    pub fn landing(mut self, path: impl Into<String>) -> Self {
        self.landing = Some(path.into());
        self
    }

    /// Leads a browser that loads a page without a session to the sign-in, and back to that page.
    /// Needs [`sessions`](super::EndpointsBuilder::sessions). Default: off; the browser shows the 401
    /// of the inner service.
    ///
    /// The [session layer](crate::session::SessionLayer) replaces the 401 with a 303 to `login`, whose
    /// `return_to` is the public path and query of the request; if that is longer than 2,048
    /// characters or unknown, the sign-in ends at [`landing`](Self::landing). `fetch`, frames, web
    /// sockets, prefetches and other methods than `GET` and `HEAD` still get 401
    /// ([`is_navigation`](crate::layer::RequestHead::is_navigation)).
    ///
    /// Every 401 of the inner service counts, also one that it makes itself, with two exceptions: a
    /// 401 that asks only for other credentials, such as `Basic`, and one that refuses a token of the
    /// request. A request with a session is redirected only if a guard asks for another sign-in
    /// ([`StepUpRequired`](crate::AuthError::StepUpRequired)): see
    /// [the manual](crate::manual::endpoints#pages-that-need-another-sign-in). A request with an `Authorization`
    /// other than `Basic` or a token in the query is never redirected, nor one for `login` or for the
    /// [`failure_page`](Self::failure_page) after a failed sign-in. If a session cannot be used within a minute after its sign-in (for example because
    /// processes have different keys), the browser gets 401 instead of an endless redirect.
    pub fn redirect_navigation(mut self) -> Self {
        self.redirect_navigation = true;
        self
    }

    /// Sets the page after a failed sign-in: a path as for [`landing`](Self::landing), without a
    /// fragment, and not the path of an endpoint. Default: none; the error is returned as JSON.
    ///
    /// All failures of a browser at `login` lead there. Failures of other endpoints do so only if a
    /// browser loads a page with the request, for example by a form that signs out
    /// ([`is_navigation`](crate::layer::RequestHead::is_navigation)); `register`, `whoami` and
    /// `introspect` use [`respond_with`](super::EndpointsBuilder::respond_with) instead. The
    /// parameter `error` is added with one of these codes:
    ///
    /// - `invalid_request`: the request is malformed; or the sign-in was already completed, was
    ///   started in another browser, took more than ten minutes, or was answered by another
    ///   provider
    /// - `temporarily_unavailable`: the provider is unavailable, or there were too many attempts
    /// - `invalid_grant`: the provider or this service rejected the code or a token
    /// - `access_denied`, `invalid_scope`, `login_required`, `consent_required`,
    ///   `interaction_required`, `account_selection_required`, `unauthorized_client`: the
    ///   provider's own error; `access_denied` also if this service cannot
    ///   [register](super::EndpointsBuilder::register_at_sign_in) the user. To distinguish such a user from
    ///   one who cancels, register every user, and refuse on the pages, with a guard for example
    /// - `unmet_authentication_requirements`: the user did not sign in as a guard requires
    /// - `server_error`: any other cause
    ///
    /// Other endpoints have further codes, such as `unsupported_grant_type`, all from the error
    /// responses of RFC 6749 §5.2.
    pub fn failure_page(mut self, path: impl Into<String>) -> Self {
        self.failure_page = Some(path.into());
        self
    }

    /// Adds a parameter to the authorization request, such as `prompt`, `acr_values`, or the `audience`
    /// or `resource` that some providers need to issue tokens for this service. A name may be repeated.
    /// The parameters that the sign-in sets itself (`state`, `nonce`, `redirect_uri`, `scope` …), and
    /// `response_mode`, `request` and `request_uri`, are a fault. The effect of a parameter is *not*
    /// checked. To enforce `acr_values` or a `max_age`, use the guards [`acr`](crate::guard::acr) and
    /// [`signed_in_within`](crate::guard::signed_in_within). A sign-in that a guard asks for has its own `acr_values`,
    /// `max_age` and `prompt` instead of these.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Asks the provider to answer sign-ins with a form that its page posts to `login`
    /// (`response_mode=form_post`, OAuth 2.0 Form Post Response Mode), so that code and state are in no URL.
    /// Default: off; the answer is in the query of a redirect. Only for providers that need it, such as
    /// Apple with the scopes `name` or `email`.
    ///
    /// ```
    /// use scaikey_auth::endpoints::SignIn;
    ///
    /// let sign_in = SignIn::new("https://wave.example/v1/auth/login")
    ///     .scopes("openid name email")
    ///     .form_post();
    /// ```
    ///
    /// What it costs: browsers send the cookie of a sign-in with posts of another site only if it is
    /// `SameSite=None`. For ten minutes, each request that any site causes therefore carries it. It is
    /// sealed, works once, and only together with its own random `state`. Session cookies stay
    /// `SameSite=Lax`.
    ///
    /// A form with `state` or `error`, and without `code_verifier`, is then the provider's answer. All
    /// other bodies are those of clients, as before; one that uses
    /// [`insecure_allow_codes_without_pkce`](Self::insecure_allow_codes_without_pkce) must not send
    /// `state`. An answer in the query is still accepted. Other parameters, such as `id_token` and Apple's
    /// `user`, are ignored.
    pub fn form_post(mut self) -> Self {
        self.form_post = true;
        self
    }

    /// Sets the prefix of the sign-in cookies. A name is `__Host-`, this prefix, `-` and a random
    /// text. Default `sign-in`. At most six sign-ins with one prefix can be pending in a browser,
    /// fewer with a long `return_to`; the oldest are cleared. Services on one host need different
    /// prefixes, or they clear each other's cookies.
    pub fn cookie_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.cookie_prefix = prefix.into();
        self
    }

    /// Sets the keys that seal the cookie of a sign-in. Default: the keys of the sessions. Without
    /// sessions: random keys, so that only the process that started a sign-in can complete it.
    pub fn keys(mut self, keys: SealingKeys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Accepts codes at `POST login` without `code_verifier`. Risk: an attacker who obtains a code
    /// can use it, or can inject it into another user's sign-in (RFC 9700 §2.1.1).
    pub fn insecure_allow_codes_without_pkce(mut self) -> Self {
        self.codes_without_pkce = true;
        self
    }

    pub(super) fn redirect_uri(&self) -> &str {
        self.redirect_uris.first().map_or("", String::as_str)
    }

    /// Returns when browsers send the cookie of a sign-in.
    pub(super) fn same_site(&self) -> SameSite {
        if self.form_post { SameSite::None } else { SameSite::Lax }
    }

    /// Returns the prefix of the cookie names.
    pub(super) fn full_cookie_prefix(&self) -> String {
        format!("__Host-{}-", self.cookie_prefix)
    }

    /// Returns the name of the cookie that records which sign-ins guards asked for.
    pub(super) fn step_up_cookie(&self) -> String {
        format!("{}step-up", self.full_cookie_prefix())
    }

    /// Returns the page after a sign-in without `return_to`.
    pub(super) fn landing_page(&self) -> String {
        let start = || self.paths.as_ref().map_or("/".to_owned(), PublicPaths::start_page);
        self.landing.clone().unwrap_or_else(start)
    }

    /// Returns the page to return to, if it is one of this host.
    pub(super) fn page<'t>(&self, return_to: &'t str) -> Option<&'t str> {
        self.paths.as_ref().and_then(|paths| paths.page(return_to))
    }

    /// Derives the public paths. `login` is the path of the endpoint in this service.
    pub(super) fn set_paths(&mut self, login: &str) {
        self.paths = PublicPaths::new(self.redirect_uri(), login);
    }

    /// Lets the session layer redirect browsers to this sign-in, if that is on.
    pub(super) fn set_up_sessions(&self, sessions: &Sessions) {
        if let (true, Some(paths)) = (self.redirect_navigation, &self.paths) {
            let redirect = SignInRedirect::new(
                paths.clone(),
                self.failure_page.as_deref(),
                self.step_up_cookie(),
            );
            sessions.set_sign_in(redirect);
        }
    }

    /// Warns of settings that are doubtful, but right behind some proxies. Names them by their variables
    /// if they come from the environment.
    ///
    /// `session_setting` names the setting of the sessions' cookie name, if it has its default.
    pub(super) fn warn_of_paths(
        &self,
        login: &str,
        session_setting: Option<String>,
        origin: &Origin,
    ) {
        let (Some(paths), Ok(url)) = (&self.paths, Url::parse(self.redirect_uri())) else { return };
        let name = |field: &str| {
            let variable = origin.variable(field).filter(|_| self.is_configured);
            variable.unwrap_or_else(|| field.to_owned())
        };
        if !url.path().ends_with(login) {
            telemetry::redirect_elsewhere(&name("redirect_uri"), url.path(), login);
        }
        let pages = [("landing", &self.landing), ("failure_page", &self.failure_page)];
        for (field, page) in pages {
            if let Some(page) = page.as_ref().filter(|page| !paths.contains(page)) {
                telemetry::page_elsewhere(&name(field), page, paths.home());
            }
        }
        if paths.home().is_empty() {
            return;
        }
        // One variable sets both.
        let mut defaults = Vec::new();
        defaults.extend((self.cookie_prefix == COOKIE_PREFIX).then(|| name("cookie_prefix")));
        defaults.extend(session_setting);
        defaults.dedup();
        for setting in defaults {
            telemetry::shared_cookie_name(&setting, paths.home());
        }
    }

    /// Reports invalid settings. `login` is the path of the endpoint in this service, `others` are the
    /// other enabled endpoints.
    pub(super) fn check(&self, login: &str, others: &[Endpoint], faults: &mut Vec<Fault>) {
        faults.extend(self.faults.iter().cloned());
        if !is_cookie_name(&self.cookie_prefix) {
            let problem = "must have 1 to 64 characters: ASCII letters, digits, `-`, `_` and `.`";
            faults.push(Fault::new("cookie_prefix", problem));
        }
        for (name, _) in &self.extra {
            let reserved = reserved_parameter(name);
            let problem = match reserved {
                // The callback must know where the answer is.
                _ if name == "response_mode" => {
                    "has `response_mode`: remove it; for form_post, set form_post (`P_FORM_POST`)"
                        .to_owned()
                }
                Some(name) => format!("has `{name}`, which the sign-in itself sets: remove it"),
                None if name.is_empty() => "has a parameter without a name".to_owned(),
                None => continue,
            };
            faults.push(Fault::new("sign_in_parameters", problem));
        }
        for uri in &self.redirect_uris {
            if !is_public_url(uri) {
                let problem = "must be an https URL without user information, fragment and braces (http for loopback only): \
                               set it to the public URL of `login`";
                faults.push(Fault::new("redirect_uri", problem));
            }
        }
        let landing = self.landing.as_ref();
        if landing.is_some_and(|page| !is_local_path(page)) {
            faults.push(Fault::new("landing", "must be a path of this host, such as /home"));
        }
        // Browsers do not send a fragment, nor an error code that is appended to it.
        let failure_page = self.failure_page.as_ref();
        if failure_page.is_some_and(|page| !is_local_path(page) || page.contains('#')) {
            let problem = "must be a path of this host without a fragment, such as /sorry";
            faults.push(Fault::new("failure_page", problem));
        }
        let paths = PublicPaths::new(self.redirect_uri(), login);
        for (field, page) in [("landing", landing), ("failure_page", failure_page)] {
            let is_login = |page| paths.as_ref().is_some_and(|paths| paths.leads_to_login(page));
            if page.is_some_and(|page| is_login(page)) {
                let problem =
                    "is the path of `login`, which would start another sign-in: set another path";
                faults.push(Fault::new(field, problem));
            }
        }
        let name = failure_page.and_then(|page| paths.as_ref()?.beside_login(page));
        if name.is_some_and(|name| others.iter().any(|endpoint| endpoint.as_str() == name)) {
            let problem = "is the path of an endpoint, whose failures would lead to it again: set another path";
            faults.push(Fault::new("failure_page", problem));
        }
    }
}

/// Returns the configured name of the cookies, if there is one.
pub(super) fn cookie_name(settings: &EndpointsConfig) -> Result<Option<&str>, Fault> {
    let name = settings.cookie_name.as_deref();
    match name.is_none_or(|name| is_cookie_name(name) && name.len() <= MAX_COOKIE_NAME) {
        true => Ok(name),
        false => Err(Fault::new(
            "endpoints.cookie_name",
            "must have 1 to 56 characters: ASCII letters, digits, `-`, `_` and `.`",
        )),
    }
}

/// Returns the fields that are set, and have an effect on a sign-in only.
pub(super) fn fields_of_sign_in(settings: &EndpointsConfig) -> Vec<&'static str> {
    let fields = [
        ("endpoints.landing", settings.landing.is_some()),
        ("endpoints.failure_page", settings.failure_page.is_some()),
        ("endpoints.redirect_navigation", settings.redirect_navigation),
        ("endpoints.form_post", settings.form_post),
        ("endpoints.sign_in_parameters", !settings.sign_in_parameters.is_empty()),
        ("endpoints.cookie_name", settings.cookie_name.is_some() && !settings.has_sessions()),
    ];
    fields.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field).collect()
}

impl Inner {
    pub(super) fn sign_in(&self) -> Result<&SignIn, Failure> {
        self.sign_in.as_ref().ok_or(Failure::NotConfigured("sign-in is not configured"))
    }
}
