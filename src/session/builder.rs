//! [`SessionsBuilder`]: the settings of [`Sessions`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::cookie::CookiePrefix;
use super::origin::Origins;
use super::store::SessionStore;
use super::stored::{DEFAULT_IDLE, MIN_IDLE, StoredSessions};
use super::{DEFAULT_COOKIE_NAME, Inner, Sessions};
use crate::auth::Auth;
use crate::config::{ConfigError, Fault, IdentitySource, is_public_url};
use crate::exchange::TokenExchangeClient;
use crate::support::bounded::bounded;
use crate::support::seal::SealingKeys;
use crate::support::single_flight::SingleFlight;
use crate::validator::SessionIdTokens;

/// Default lifetime of a session, with all its renewals.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Default time that a response waits for new cookies.
const DEFAULT_RENEWAL_WAIT: Duration = Duration::from_secs(3);

/// Maximum lifetime: browsers do not keep cookies longer (RFC 6265bis §5.5).
const MAX_LIFETIME: Duration = Duration::from_secs(400 * 86_400);

/// The number of sessions in cookies whose owners are remembered: one or two megabytes.
const MAX_OWNERS: usize = 4096;

/// The problem of an idle limit for sessions in cookies.
const NO_STORE: &str =
    "needs a session store: set session_store (`P_SESSION_STORE`), or call `store`";

/// A builder for [`Sessions`], made by [`Sessions::builder`].
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::exchange::SealingKeys;
/// use scaikey_auth::session::Sessions;
/// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
///
/// fn sessions(auth: &Auth, client: TokenExchangeClient) -> Result<Sessions, ConfigError> {
///     let keys = SealingKeys::random()?; // with several processes: read them from a file
///     Sessions::builder(auth, client, keys)
///         .cookie_name("wave")
///         .lifetime(Duration::from_secs(8 * 3600))
///         .trusted_origin("https://admin.wave.example")
///         .build()
/// }
/// ```
#[derive(Debug)]
#[must_use = "there are no sessions before `build()`"]
pub struct SessionsBuilder {
    auth: Auth,
    client: TokenExchangeClient,
    keys: SealingKeys,
    name: String,
    lifetime: Duration,
    renewal_wait: Duration,
    origins: Vec<String>,
    post_logout_redirect_uri: Option<String>,
    identity_source: IdentitySource,
    store: Option<Arc<dyn SessionStore>>,
    idle: Option<Duration>,
}

impl SessionsBuilder {
    pub(super) fn new(auth: &Auth, client: TokenExchangeClient, keys: SealingKeys) -> Self {
        client.join_service(auth.issuers(), auth.revocations());
        Self {
            auth: auth.clone(),
            client,
            keys,
            name: DEFAULT_COOKIE_NAME.to_owned(),
            lifetime: DEFAULT_LIFETIME,
            renewal_wait: DEFAULT_RENEWAL_WAIT,
            origins: Vec::new(),
            post_logout_redirect_uri: None,
            identity_source: IdentitySource::AccessToken,
            store: None,
            idle: None,
        }
    }

    /// Sets the name of the cookies, which follows `__Host-`: 1 to 64 ASCII letters, digits, `-`,
    /// `_` or `.`. Default `session`. Services on one host need different names, and different
    /// [prefixes](crate::endpoints::SignIn::cookie_prefix) for sign-ins.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how long a session lasts after sign-in, with all its renewals. Default 12 hours; at
    /// most 400 days.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Keeps the tokens of the sessions in a store. Default: in the cookies, and the server stores nothing.
    ///
    /// With a store, the browser has one cookie of about 100 bytes, whatever the size of the tokens. The server can
    /// list sessions and end them, a copy of the cookie is worthless after sign-out, and processes renew a session
    /// once without a shared cache. In return, each request with a session needs the store: while it does not answer,
    /// requests that need an identity get 503, and no user is signed out. A user has at most 100 sessions in each
    /// tenant: soon after another starts, the one used longest ago ends. See
    /// [manual::sessions](crate::manual::sessions).
    ///
    /// ```
    /// use scaikey_auth::exchange::SealingKeys;
    /// use scaikey_auth::session::{SessionStore, Sessions};
    /// use scaikey_auth::{Auth, ConfigError, Secret, TokenExchangeClient};
    ///
    /// fn sessions(
    ///     auth: &Auth,
    ///     client: TokenExchangeClient,
    ///     keys: &Secret,
    ///     store: impl SessionStore, // such as `MemorySessions::new()`
    /// ) -> Result<Sessions, ConfigError> {
    ///     Sessions::builder(auth, client, SealingKeys::parse(keys)?).store(store).build()
    /// }
    /// ```
    pub fn store(mut self, store: impl SessionStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Sets how long a session in a [`store`](Self::store) lasts without a request. Default 30 minutes; at least one
    /// minute. A request renews the limit at most once a minute (for a limit below four minutes, once in a quarter of
    /// it), so a session may end that much earlier. A limit above the [`lifetime`](Self::lifetime) has no effect.
    /// Without a store, it is a fault of [`build`](Self::build).
    pub fn idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Sets how long a response is delayed for the renewal that its request started. Default 3
    /// seconds. The result of a slower renewal is cached for one minute and sent with a later
    /// response. Without a request in that minute, the user has to sign in again. No effect with a
    /// [`store`](Self::store), because no response has to bring new cookies.
    pub fn renewal_wait(mut self, wait: Duration) -> Self {
        self.renewal_wait = wait;
        self
    }

    /// Sets the token that names the user of a session. Default [`IdentitySource::AccessToken`]: the session's
    /// access token must be one that this service accepts, a JWT or an opaque token whose issuer has an
    /// introspection endpoint.
    ///
    /// Use [`IdentitySource::IdToken`] for providers whose access tokens only the provider can read, such
    /// as Google. What it means: the page [`endpoints`](crate::manual::endpoints) explains it. In short:
    ///
    /// - The sign-in must request the scope `openid`. The identity has the claims of the ID token, so it has no
    ///   scopes, and roles and groups only if the provider puts them there.
    /// - The audience is the client, whatever [`audience`](crate::AuthBuilder::audience) says. Algorithms,
    ///   leeway, tenants and names of claims are those of the issuer. Admission checks and guards apply.
    /// - The session must be renewed before the ID token expires. If the provider sends no new ID token with
    ///   the new access token, the session ends when the old one expires. A new one must have the same user.
    /// - [`AuthContext::token`](crate::AuthContext::token) is the access token, to call the provider's APIs.
    /// - A caller can still not use an ID token as a bearer token. Only the session layer, in the same
    ///   process, can use one.
    ///
    /// ```
    /// use scaikey_auth::config::IdentitySource;
    /// use scaikey_auth::exchange::SealingKeys;
    /// use scaikey_auth::session::Sessions;
    /// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
    ///
    /// fn sessions(auth: &Auth, client: TokenExchangeClient) -> Result<Sessions, ConfigError> {
    ///     Sessions::builder(auth, client, SealingKeys::random()?)
    ///         .identity_from(IdentitySource::IdToken)
    ///         .build()
    /// }
    /// ```
    pub fn identity_from(mut self, source: IdentitySource) -> Self {
        self.identity_source = source;
        self
    }

    /// Also accepts requests from pages of another origin, such as `https://app.example`: scheme,
    /// host and port exactly as browsers send them, without a path. May be repeated. Browsers send
    /// the session cookies only from origins of the same site.
    pub fn trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins.push(origin.into());
        self
    }

    /// Makes sign-outs (`POST logout`) also end the provider's session, which otherwise signs the next
    /// user of the browser in without a question (OpenID Connect RP-Initiated Logout 1.0). Default: a
    /// sign-out ends only the session of this service.
    ///
    /// `post_logout_redirect_uri` is the page to which the provider then redirects the browser: an https
    /// URL without user information and fragment (http for loopback only), exactly as registered at the
    /// provider. It is a public page of the service, or the public URL of the endpoint `logout` (that of
    /// `login` would start the next sign-in, and is a fault). In the second case a sign-out
    /// may name a page of this host with `return_to`, and otherwise leads to
    /// [`landing`](crate::endpoints::SignIn::landing).
    ///
    /// The session keeps the newest ID token for this: in a [`store`](Self::store) always, and in cookies if they
    /// then have at most 7.6 kB. Without it, the request names the user by nothing but the provider's own cookie. Some
    /// providers then ask the user for confirmation, refuse the request, or do not redirect back. A warning
    /// in the log says so once.
    ///
    /// *Not* checked: whether the provider ended its session. Its end-session endpoint comes from its
    /// metadata, or from [`end_session_url`](crate::exchange::TokenExchangeBuilder::end_session_url).
    /// If there is none, a sign-out ends only the session of this service, and a warning is logged. If that
    /// is unknown, because the metadata cannot be read, the session of this service ends, and the browser
    /// gets an error.
    ///
    /// ```
    /// use scaikey_auth::exchange::SealingKeys;
    /// use scaikey_auth::session::Sessions;
    /// use scaikey_auth::{Auth, ConfigError, Secret, TokenExchangeClient};
    ///
    /// fn sessions(
    ///     auth: &Auth,
    ///     client: TokenExchangeClient,
    ///     keys: &Secret,
    /// ) -> Result<Sessions, ConfigError> {
    ///     Sessions::builder(auth, client, SealingKeys::parse(keys)?)
    ///         .end_at_provider("https://wave.example/v1/auth/logout")
    ///         .build()
    /// }
    /// ```
    pub fn end_at_provider(mut self, post_logout_redirect_uri: impl Into<String>) -> Self {
        self.post_logout_redirect_uri = Some(post_logout_redirect_uri.into());
        self
    }

    /// Builds the sessions.
    ///
    /// # Errors
    /// Reports an invalid cookie name, an invalid origin or page after sign-out, a lifetime out of range,
    /// or a client that has no single end-session endpoint, if sign-outs need it.
    pub fn build(self) -> Result<Sessions, ConfigError> {
        let mut faults = Vec::new();
        let name = CookiePrefix::new(&self.name);
        if name.is_none() {
            faults.push(Fault::new(
                "cookie_name",
                "must have 1 to 64 characters: ASCII letters, digits, `-`, `_` and `.`",
            ));
        }
        if self.lifetime.is_zero() || self.lifetime > MAX_LIFETIME {
            faults.push(Fault::new("lifetime", "must be more than zero and at most 400 days"));
        }
        match self.idle {
            Some(_) if self.store.is_none() => {
                faults.push(Fault::new("session_idle", NO_STORE));
            }
            Some(idle) if idle < MIN_IDLE => {
                faults.push(Fault::new("session_idle", "must be at least one minute"));
            }
            _ => {}
        }
        let origins = Origins::new(&self.origins, &mut faults);
        if let Some(uri) = &self.post_logout_redirect_uri {
            if !is_public_url(uri) {
                let problem = "must be an https URL without user information, fragment and braces (http for loopback only): \
                               set it to a page of this service that is registered at the provider";
                faults.push(Fault::new("post_logout_redirect_uri", problem));
            }
            faults.extend(self.client.sign_out_faults());
        }
        let id_tokens = match self.identity_source {
            IdentitySource::AccessToken => None,
            IdentitySource::IdToken => Some(self.id_tokens()),
        };
        if id_tokens.as_ref().is_some_and(|id_tokens| !id_tokens.has_issuer()) {
            let problem = "is `id_token`, but the issuer of the client is none of the issuers whose tokens are accepted: add it";
            faults.push(Fault::new("session_identity", problem));
        }
        let Some(name) = name.filter(|_| faults.is_empty()) else {
            let none = || ConfigError::one(Fault::new("sessions", "cannot be set up"));
            return Err(ConfigError::from_faults(faults).err().unwrap_or_else(none));
        };
        if id_tokens.is_some() {
            self.auth.enable_id_token_sessions();
        }
        let (idle, clock) = (self.idle.unwrap_or(DEFAULT_IDLE), self.auth.clock().clone());
        let sessions = Sessions(Arc::new(Inner {
            stored: self.store.map(|store| StoredSessions::new(store, idle, clock)),
            auth: self.auth,
            client: self.client,
            keys: self.keys,
            cookies: name,
            lifetime: self.lifetime,
            renewal_wait: self.renewal_wait,
            origins,
            id_tokens: id_tokens.map(Arc::new),
            post_logout_redirect_uri: self.post_logout_redirect_uri,
            renewals: SingleFlight::default(),
            owners: bounded(MAX_OWNERS),
            form_post_path: OnceLock::new(),
            sign_in: OnceLock::new(),
        }));
        sessions.follow_revocations();
        Ok(sessions)
    }

    /// Returns the validator of the ID tokens of the client.
    fn id_tokens(&self) -> SessionIdTokens {
        let (auth, client) = (&self.auth, &self.client);
        SessionIdTokens::new(
            auth.issuers().clone(),
            auth.clock().clone(),
            auth.verified_tokens().stats().max_bytes,
            client.issuer(),
            client.client_id(),
            client.trusted_audiences(),
        )
    }
}
