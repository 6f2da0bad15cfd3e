//! [`EndpointsBuilder`]: selects and configures the endpoints.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::request::Parts;
use url::Url;

use super::body;
use super::events::{EventStream, Polling};
use super::identity_id::default_identity_id;
use super::proxies::{ClientAddress, TrustedProxies};
use super::report_limits::RefusedAddresses;
use super::response::Outages;
use super::seen_tokens::SeenTokens;
use super::session_settings;
use super::sign_in::{self, SignIn};
use super::throttle::{Throttle, ThrottleWithFallback, TokenBuckets};
use super::tokens::{PasswordAttempt, PasswordDecision, allow_everywhere};
#[cfg(feature = "trust")]
use super::trust_settings;
use super::{Endpoint, Endpoints, Inner};
use crate::auth::Auth;
use crate::config::{
    AuthConfig, AuthMode, ConfigError, EndpointsConfig, Fault, IdentitySource, Origin, PublicPaths,
    is_path_prefix,
};
use crate::error::{ErrorResponse, ProblemJson};
use crate::exchange::TokenExchangeClient;
use crate::guard::{Guard, scope};
use crate::identity::Identity;
use crate::issuer::IssuerLookup;
use crate::registrar::Registrar;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::registrar::SqlRegistrar;
use crate::session::Sessions;
use crate::support::seal::SealingKeys;
use crate::support::secret::Secret;
use crate::support::telemetry;

/// Default prefix of the paths.
const DEFAULT_PREFIX: &str = "/v1/auth";

/// The problem of a setting that needs a sign-in.
const NO_SIGN_IN: &str =
    "has no effect without a sign-in: set redirect_uri (`P_REDIRECT_URI`), or call `sign_in`";

/// A builder for [`Endpoints`], made by [`Auth::endpoints`].
///
/// ```
/// use scaikey_auth::endpoints::{Endpoints, SignIn};
/// use scaikey_auth::registrar::MemoryRegistrar;
/// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
///
/// fn endpoints(auth: &Auth, client: TokenExchangeClient) -> Result<Endpoints, ConfigError> {
///     auth.endpoints()
///         .client(client)
///         .sign_in(SignIn::new("https://wave.example/v1/auth/login"))
///         .registrar(MemoryRegistrar::new())
///         .build()
/// }
/// ```
#[must_use = "there are no endpoints before `build()`"]
pub struct EndpointsBuilder {
    /// The result, still without `enabled` and the keys of sign-ins.
    inner: Inner,
    /// Default [`DEFAULT_PREFIX`].
    prefix: Option<String>,
    without: Vec<Endpoint>,
    trusted_proxies: Option<TrustedProxies>,
    faults: Vec<Fault>,
    /// Whether logout tokens for the client are accepted.
    accepts_logout_tokens: bool,
    /// Where the settings come from, so that faults name environment variables.
    origin: Origin,
    /// The settings of the configuration that have an effect on a sign-in only.
    sign_in_settings: Vec<&'static str>,
    /// Whether the configuration has a setting that needs a client.
    needs_client: bool,
    /// Whether the sessions are built from the configuration.
    has_configured_sessions: bool,
    /// Whether the configured client has faults, which are already reported.
    has_client_faults: bool,
    /// Whether the configuration has a Redis server, and no revocation log there.
    has_redis_without_log: bool,
}

impl Auth {
    /// Returns a builder for the endpoints under `/v1/auth/` (feature `endpoints`, on by default).
    /// Without further settings they are `whoami`, `introspect` and, if
    /// [`AuthBuilder::resource`](crate::AuthBuilder::resource) is set, the metadata.
    pub fn endpoints(&self) -> EndpointsBuilder {
        let inner = Inner {
            auth: self.clone(),
            prefix: String::new(),
            enabled: Vec::new(),
            client: None,
            sign_in: None,
            sessions: None,
            provider_returns_to_logout: false,
            logout_audiences: Vec::new(),
            event_streams: Vec::new(),
            polling: Polling::default(),
            seen_tokens: SeenTokens::default(),
            refused_addresses: RefusedAddresses::default(),
            registrar: None,
            registers_at_sign_in: false,
            #[cfg(feature = "trust")]
            workloads: None,
            #[cfg(feature = "trust")]
            administration: None,
            password_rule: None,
            introspect_guard: Box::new(scope("admin")),
            introspects_all_tenants: false,
            session_admin: None,
            ends_sessions_in_all_tenants: false,
            identity_id: Arc::new(default_identity_id),
            wrap_in_data: false,
            respond: Arc::new(ProblemJson),
            throttle: Some(ThrottleWithFallback::new(TokenBuckets::new())),
            account_rule: Arc::new(|attempt| attempt.account()),
            client_address: ClientAddress::default(),
            body_timeout: body::TIMEOUT,
            outages: Outages::default(),
        };
        EndpointsBuilder {
            inner,
            prefix: None,
            without: Vec::new(),
            trusted_proxies: None,
            faults: Vec::new(),
            accepts_logout_tokens: false,
            origin: Origin::default(),
            sign_in_settings: Vec::new(),
            needs_client: false,
            has_configured_sessions: false,
            has_client_faults: false,
            has_redis_without_log: false,
        }
    }
}

impl EndpointsBuilder {
    /// Sets the prefix of the paths as this service sees them, after a proxy or router in front has
    /// changed them. Default `/v1/auth`. Behind a proxy that does not remove its sub-path `/app`, set
    /// `/app/v1/auth`. Leave it empty where a router removes the whole prefix, as
    /// [`Endpoints::service`] in `Router::nest_service` does.
    ///
    /// The paths that browsers see derive from the redirect URI: see the
    /// [manual](crate::manual::endpoints).
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Disables an endpoint. May be repeated.
    pub fn without(mut self, endpoint: Endpoint) -> Self {
        self.without.push(endpoint);
        self
    }

    /// Sets the token client, which requests tokens from the provider. Enables `token`, `refresh`
    /// and `logout`.
    pub fn client(mut self, client: TokenExchangeClient) -> Self {
        self.inner.client = Some(client);
        self
    }

    /// Lets users sign in. Enables `login` and `config`. Needs a [`client`](Self::client).
    pub fn sign_in(mut self, sign_in: SignIn) -> Self {
        self.inner.sign_in = Some(sign_in);
        self
    }

    /// Makes browser sign-ins start a session instead of returning tokens. Place the
    /// [layer](Sessions::layer) of the sessions outside the endpoints.
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.inner.sessions = Some(sessions);
        self
    }

    /// Lets the provider report that a user signed out there, or that an administrator ended a session: enables
    /// `backchannel_logout` (OpenID Connect Back-Channel Logout 1.0). Default: off. Needs a
    /// [`client`](Self::client), whose id is the audience of the logout tokens; without one, or for further clients,
    /// name it by [`backchannel_logout_for`](Self::backchannel_logout_for).
    ///
    /// Register the public URL of `/v1/auth/backchannel_logout` at the provider, as the `backchannel_logout_uri` of
    /// the client. The provider sends the request itself, so the URL must be reachable from there.
    ///
    /// A logout token with `sid` revokes the session, and with `sub` also the subject's tokens without a `sid` that
    /// were issued before. With `sub` only, it revokes all tokens of the subject that were issued before. See
    /// [`Revocations`](crate::revocation::Revocations), and [the manual](crate::manual::revocation). The answer is
    /// 200, also for a token that was sent before; 400 for a token that is refused; and 503 if the revocation could
    /// not be stored, so that the provider sends it again.
    ///
    /// A logout token must be of an [issuer](crate::Auth::issuers) of this service, signed by its keys with one of
    /// its algorithms. It can be encrypted. *Not* checked: that there was such a session or user.
    ///
    /// ```
    /// use scaikey_auth::endpoints::Endpoints;
    /// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
    ///
    /// fn endpoints(auth: &Auth, client: TokenExchangeClient) -> Result<Endpoints, ConfigError> {
    ///     auth.endpoints().client(client).backchannel_logout().build()
    /// }
    /// ```
    pub fn backchannel_logout(mut self) -> Self {
        self.accepts_logout_tokens = true;
        self
    }

    /// Enables `backchannel_logout` as [`backchannel_logout`](Self::backchannel_logout) does, for logout tokens whose
    /// audience is this client id. May be repeated.
    ///
    /// ```
    /// use scaikey_auth::endpoints::Endpoints;
    /// use scaikey_auth::{Auth, ConfigError};
    ///
    /// /// An API without a client of its own: `wave` is the client of its browser application.
    /// fn endpoints(auth: &Auth) -> Result<Endpoints, ConfigError> {
    ///     auth.endpoints().backchannel_logout_for("wave").build()
    /// }
    /// ```
    pub fn backchannel_logout_for(mut self, client_id: impl Into<String>) -> Self {
        self.inner.logout_audiences.push(client_id.into());
        self
    }

    /// Accepts the security events of a provider. Default: none. May be repeated, for streams of other issuers. A
    /// stream that is [pushed](EventStream::push) enables `events` (RFC 8935); all share the path, whose public URL is
    /// registered at the provider. One that is [polled](EventStream::poll) needs no endpoint (RFC 8936).
    ///
    /// These events refuse tokens, in the whole service:
    ///
    /// | event | refused are |
    /// |---|---|
    /// | CAEP `session-revoked` | the session; without one, all tokens of the user, or of the tenant |
    /// | CAEP `credential-change` with `revoke` or `delete`, `token-claims-change`, `assurance-level-change` with `decrease` | all tokens of the user |
    /// | RISC `account-disabled`, `account-purged`, `sessions-revoked` | all tokens of the user |
    ///
    /// Refused are the tokens that were issued before the event; of a session that has ended, whenever they were
    /// issued. The subject must be of the format `iss_sub` with the issuer of the event, `opaque`, `jwt_id`, which
    /// revokes this token only, `aliases`, of which each is a subject, or `complex` with a user, session or tenant of
    /// these formats. The ids must be those in tokens. For `session-revoked`, `opaque` is the id of a session or a
    /// user. Other events, and other subjects, revoke nothing: an e-mail address is no identity. All events go to the
    /// [handler](EventStream::handler), also those that the provider sends to verify the stream.
    ///
    /// The answer is 202, also for a token that was sent before; 400 with a code of RFC 8935 §2.4; and 503 if the
    /// revocation could not be stored, the handler failed, or the key is unknown and keys may not be fetched again yet,
    /// so that the provider sends the token again. A token
    /// whose `iat` is in the future is accepted, as of now. *Not* checked: that there was such a session or user.
    pub fn security_events(mut self, stream: EventStream) -> Self {
        self.inner.event_streams.push(stream);
        self
    }

    /// Sets the registrar, which stores the users and workloads that this service knows. Enables
    /// `register`. A registration that takes more than 5 s of real time is dropped, and fails with 503 or,
    /// at a sign-in, `temporarily_unavailable`.
    pub fn registrar(mut self, registrar: impl Registrar) -> Self {
        self.inner.registrar = Some(Arc::new(registrar));
        self
    }

    /// Registers each user who signs in at `login`, before the session starts, or before `login`
    /// returns tokens. Default: off; users are registered by `register` only. Needs a
    /// [`registrar`](Self::registrar) and a [`sign_in`](Self::sign_in).
    ///
    /// ```
    /// use scaikey_auth::endpoints::{Endpoint, Endpoints, SignIn};
    /// use scaikey_auth::registrar::Registrar;
    /// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
    ///
    /// fn endpoints(
    ///     auth: &Auth,
    ///     client: TokenExchangeClient,
    ///     users: impl Registrar,
    /// ) -> Result<Endpoints, ConfigError> {
    ///     auth.endpoints()
    ///         .client(client)
    ///         .sign_in(SignIn::new("https://wave.example/v1/auth/login"))
    ///         .registrar(users)
    ///         .register_at_sign_in()
    ///         .without(Endpoint::Register) // if users come only by sign-in
    ///         .build()
    /// }
    /// ```
    ///
    /// The registered identity is that of the access token, so it is the one that handlers see. Its
    /// name and e-mail address are taken from the ID token if the access token has none, and if both
    /// tokens have the same issuer, subject and tenant (or the ID token names no tenant).
    ///
    /// If the store does not answer, the sign-in fails with `temporarily_unavailable` and can be
    /// repeated. If the registrar refuses the identity
    /// ([`RegistrarError::InvalidIdentity`](crate::registrar::RegistrarError::InvalidIdentity)), the
    /// sign-in fails with `access_denied`, as it does for a user whose tenant `register` refuses: an
    /// unknown or suspended tenant, or none where one is required. This service must accept the access token, as
    /// for a session; otherwise the sign-in fails with `server_error`. Passwords (`token`) and refreshes
    /// register no user.
    pub fn register_at_sign_in(mut self) -> Self {
        self.inner.registers_at_sign_in = true;
        self
    }

    /// Enables `exchange` for workload tokens of other platforms that a [trust
    /// policy](crate::trust) accepts (feature `trust`).
    #[cfg(feature = "trust")]
    pub fn workloads(mut self, workloads: crate::mint::WorkloadExchange) -> Self {
        self.inner.workloads = Some(workloads);
        self
    }

    /// Lets administrators read, check, change and observe the trust policy of `exchange`: enables `trusts`, with
    /// the page *Access → Token Exchange* at `trusts/ui` (feature `trust`). Default: off. Needs
    /// [`workloads`](Self::workloads).
    ///
    /// ```
    /// use scaikey_auth::endpoints::{Endpoints, TrustAdmin};
    /// use scaikey_auth::mint::WorkloadExchange;
    /// use scaikey_auth::{Auth, ConfigError, scope};
    ///
    /// fn endpoints(auth: &Auth, workloads: WorkloadExchange) -> Result<Endpoints, ConfigError> {
    ///     let admin = TrustAdmin::new(scope("trust:admin"));
    ///     auth.endpoints().workloads(workloads).trust_admin(admin).build()
    /// }
    /// ```
    #[cfg(feature = "trust")]
    pub fn trust_admin(mut self, admin: super::TrustAdmin) -> Self {
        self.inner.administration = Some(super::trusts::Administration::new(admin));
        self
    }

    /// Accepts passwords at `token` if `rule` allows the attempt. Default: never. RFC 9700 §2.4
    /// forbids this grant: the service sees the password, and there is no second factor. The client
    /// must have [the grant enabled](crate::exchange::TokenExchangeBuilder::enable_password_grant),
    /// too.
    pub fn password_grant(
        mut self,
        rule: impl Fn(&PasswordAttempt<'_>) -> PasswordDecision + Send + Sync + 'static,
    ) -> Self {
        self.inner.password_rule = Some(Arc::new(rule));
        self
    }

    /// Sets the guard that callers of `introspect` must pass. Default [`scope("admin")`](scope); a
    /// scope such as `admin:read` is not sufficient.
    pub fn introspection_requires(mut self, guard: impl Guard) -> Self {
        self.inner.introspect_guard = Box::new(guard);
        self
    }

    /// Lets callers of `introspect` see tokens of other tenants. By default these tokens are
    /// reported as inactive.
    pub fn introspect_all_tenants(mut self) -> Self {
        self.inner.introspects_all_tenants = true;
        self
    }

    /// Lets callers who pass the guard end the sessions of other users of their tenant, with
    /// `DELETE sessions?issuer=…&subject=…`. Default: no caller may. Needs [sessions](Self::sessions) with a
    /// [store](crate::session::SessionsBuilder::store).
    ///
    /// The caller has a session or a bearer token. `issuer` and `subject` are those of the user, as `whoami` reports
    /// them. The answer is `{"ended": 2}`, also if there were no sessions.
    ///
    /// ```
    /// use scaikey_auth::endpoints::{Endpoints, SignIn};
    /// use scaikey_auth::session::Sessions;
    /// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient, role};
    ///
    /// fn endpoints(
    ///     auth: &Auth,
    ///     client: TokenExchangeClient,
    ///     sessions: Sessions, // with a store
    /// ) -> Result<Endpoints, ConfigError> {
    ///     auth.endpoints()
    ///         .client(client)
    ///         .sign_in(SignIn::new("https://wave.example/v1/auth/login"))
    ///         .sessions(sessions)
    ///         .session_admin(role("tenant-admin"))
    ///         .build()
    /// }
    /// ```
    pub fn session_admin(mut self, guard: impl Guard) -> Self {
        self.inner.session_admin = Some(Box::new(guard));
        self
    }

    /// Lets the [administrators](Self::session_admin) end sessions in all tenants. By default, they end those of the
    /// users of their own tenant only.
    pub fn session_admin_in_all_tenants(mut self) -> Self {
        self.inner.ends_sessions_in_all_tenants = true;
        self
    }

    /// Sets the function that computes `identity_id` in the responses of `whoami` and `introspect`.
    ///
    /// Default: `user:` with the verified email address, or with `sub` if there is none; `sa:` or
    /// `workload:` with `sub`. In a user's `sub`, `@` becomes `%40`, so that no `sub` looks like an
    /// address. In every `sub`, `%`, spaces, control characters and invisible characters are
    /// percent-encoded. `preferred_username` is not used: users choose it, and two users may have
    /// the same (OpenID Connect Core §5.7).
    ///
    /// Not checked: two issuers, or two tenants, may verify the same address or assign the same
    /// `sub`. To authorize, use `tenant_id`, which both responses have, and `issuer` and `subject`
    /// of `whoami`.
    pub fn identity_ids(
        mut self,
        rule: impl Fn(&Identity) -> String + Send + Sync + 'static,
    ) -> Self {
        self.inner.identity_id = Arc::new(rule);
        self
    }

    /// Wraps successful responses in `{"data": …}`. Errors and the metadata of RFC 9728 are not
    /// wrapped.
    pub fn wrap_in_data(mut self) -> Self {
        self.inner.wrap_in_data = true;
        self
    }

    /// Sets the error format of `register`, `whoami`, `introspect`, `sessions` and, for errors that concern the caller,
    /// `trusts`. Default [`ProblemJson`]. The
    /// other endpoints always use the error format of RFC 6749 §5.2, or lead browsers to the
    /// [`failure_page`](SignIn::failure_page).
    pub fn respond_with(mut self, respond: impl ErrorResponse) -> Self {
        self.inner.respond = Arc::new(respond);
        self
    }

    /// Sets the rate limits. Default [`TokenBuckets`].
    pub fn throttle(mut self, throttle: impl Throttle) -> Self {
        self.inner.throttle = Some(ThrottleWithFallback::new(throttle));
        self
    }

    /// Removes the rate limits, for services behind a gateway that has its own.
    pub fn unthrottled(mut self) -> Self {
        self.inner.throttle = None;
        self
    }

    /// Sets the function that returns the account of a password attempt, for the
    /// [throttle](Self::throttle). Attempts with equal accounts share a limit. Default
    /// [`PasswordAttempt::account`], which ignores case, outer and repeated spaces, compatibility
    /// forms and invisible characters.
    ///
    /// The default does not know aliases of the provider, such as `bob+x@…`, `DOMAIN\bob` or a
    /// number instead of a name. It does not know tenants either: if two tenants may each have a
    /// `bob`, prefix the account with the tenant. Otherwise attempts on one user also use up the
    /// limit of the other. Take the tenant from a fixed list: a value that the caller can invent
    /// gives a new limit for each attempt.
    pub fn account_of(
        mut self,
        rule: impl Fn(&PasswordAttempt<'_>) -> String + Send + Sync + 'static,
    ) -> Self {
        self.inner.account_rule = Arc::new(rule);
        self
    }

    /// Sets how long a body may take to arrive after its head. Default 10 seconds; after that the
    /// response is 408 (RFC 9110 §15.5.9). The timeout for the *head* is a setting of the server:
    /// see the [manual](crate::manual::operating).
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.inner.body_timeout = timeout;
        self
    }

    /// Sets the function that returns the peer address of the connection. The default looks in the
    /// request's extensions: first for axum's `ConnectInfo<SocketAddr>` (feature `axum`), which
    /// `into_make_service_with_connect_info` inserts; then for a [`std::net::SocketAddr`], which
    /// other servers can insert. If there is no address, attempts are not limited by address, and a
    /// warning is logged once.
    pub fn peer_address(
        mut self,
        peer: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.inner.client_address.peer = Arc::new(peer);
        self
    }

    /// Sets the proxies whose `X-Forwarded-For` is trusted. Default: none.
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.trusted_proxies = Some(proxies);
        self
    }

    /// Applies a configuration, for example one from environment variables
    /// ([`AuthConfig::from_env`](crate::AuthConfig::from_env)): client, sign-in, sessions,
    /// passwords, registrar, trusted proxies, workloads and the administration of their policy. Values already set on
    /// the builder are kept, so a client that the service has is not built twice.
    ///
    /// If the client's token endpoint depends on the tenant, and the configuration has neither
    /// sign-in, sessions nor passwords, then `token`, `refresh` and `logout` are disabled, because
    /// their requests name no tenant. This is logged.
    pub fn configured(mut self, config: &AuthConfig) -> Self {
        self.origin.clone_from(&config.origin);
        self.inner.client_address.variables = config.origin.prefix().map(str::to_owned);
        let settings = &config.endpoints;
        let has_redis = config.client.redis_url.is_some() || config.client.redis_url_file.is_some();
        self.has_redis_without_log = has_redis && config.revocation_log.is_none();
        if has_redis && self.inner.client.as_ref().is_some_and(|client| !client.has_shared_cache())
        {
            telemetry::redis_unused();
        }
        if self.inner.client.is_none() && config.client.id.is_some() {
            let client = TokenExchangeClient::from_config(config).build();
            let needs_one_token_endpoint = settings.redirect_uri.is_some()
                || settings.has_sessions()
                || settings.password_grant;
            self.has_client_faults = client.is_err();
            self.inner.client = self.collect_faults(client);
            // A client with a token endpoint per tenant only exchanges tokens, unless more is
            // configured.
            if !needs_one_token_endpoint
                && self.inner.client.as_ref().is_some_and(|client| client.is_per_tenant())
            {
                telemetry::endpoints_omitted();
                self.without.extend([Endpoint::Token, Endpoint::Refresh, Endpoint::Logout]);
            }
        }
        let cookie_name = sign_in::cookie_name(settings);
        let cookie_name = self.collect_faults(cookie_name.map_err(ConfigError::one)).flatten();
        if let (None, Some(uri)) = (&self.inner.sign_in, &settings.redirect_uri) {
            self.inner.sign_in = Some(SignIn::configured(uri, settings, cookie_name));
        }
        self.sign_in_settings = sign_in::fields_of_sign_in(settings);
        self.prefix = self.prefix.or_else(|| settings.prefix.clone());
        if let (None, true, Some(client)) =
            (&self.inner.sessions, settings.has_sessions(), &self.inner.client)
        {
            let sessions =
                session_settings::sessions(config, &self.inner.auth, client, cookie_name);
            self.inner.sessions = self.collect_faults(sessions).flatten();
            self.has_configured_sessions = true;
        } else {
            if settings.post_logout_redirect_uri.is_some() {
                self.check_sign_out(settings.has_sessions());
            }
            self.check_session_identity(settings);
            self.check_session_store(settings);
        }
        self.needs_client = settings.has_sessions();
        self.inner.registers_at_sign_in |= settings.register_at_sign_in;
        self.accepts_logout_tokens |= settings.backchannel_logout;
        if self.inner.password_rule.is_none() && settings.password_grant {
            self.inner.password_rule = Some(allow_everywhere());
        }
        match TrustedProxies::new(&settings.trusted_proxies) {
            Ok(_) if settings.trusted_proxies.is_empty() => {}
            Ok(proxies) => {
                self.trusted_proxies.get_or_insert(proxies);
            }
            Err(error) => {
                self.faults.push(Fault::new("endpoints.trusted_proxies", error.to_string()));
            }
        }
        self.with_database(config).with_workloads(config)
    }

    /// Reports a page after sign-out that has no effect, because the configuration makes no sessions.
    fn check_sign_out(&mut self, has_sessions: bool) {
        let ends_at_provider = |sessions: &Sessions| sessions.post_logout_redirect_uri().is_some();
        let problem = match &self.inner.sessions {
            Some(sessions) if ends_at_provider(sessions) => return,
            Some(_) => {
                "has no effect on sessions that are built in code: call end_at_provider on their builder"
            }
            None if has_sessions => return, // The client is missing, which is another fault.
            None => "needs sessions: set session_keys (`P_SESSION_KEYS`), or remove it",
        };
        self.faults.push(Fault::new("endpoints.post_logout_redirect_uri", problem));
    }

    /// Reports a source of identities that has no effect, because the configuration makes no sessions.
    fn check_session_identity(&mut self, settings: &EndpointsConfig) {
        let problem = match &self.inner.sessions {
            _ if settings.session_identity == IdentitySource::AccessToken => return,
            Some(sessions) if sessions.id_tokens().is_some() => return,
            Some(_) => {
                "has no effect on sessions that are built in code: call identity_from on their builder"
            }
            None if settings.has_sessions() => return, // The client is missing, which is another fault.
            None => "needs sessions: set session_keys (`P_SESSION_KEYS`), or remove it",
        };
        self.faults.push(Fault::new("endpoints.session_identity", problem));
    }

    /// Reports settings of a session store that have no effect, because the configuration makes no sessions.
    fn check_session_store(&mut self, settings: &EndpointsConfig) {
        let problem = match &self.inner.sessions {
            Some(_) => {
                "has no effect on sessions that are built in code: call store and idle on their builder"
            }
            None if settings.has_sessions() => return, // The client is missing, which is another fault.
            None => "needs sessions: set session_keys (`P_SESSION_KEYS`), or remove it",
        };
        for (field, is_set) in [
            ("endpoints.session_store", settings.session_store.is_some()),
            ("endpoints.session_idle_seconds", settings.session_idle.is_some()),
        ] {
            if is_set {
                self.faults.push(Fault::new(field, problem));
            }
        }
    }

    /// Returns the page after sign-out, and the public URL of `logout`, which is beside that of `login`.
    fn pages_after_sign_out(&self) -> Option<(Url, Url)> {
        let page = self.inner.sessions.as_ref().and_then(Sessions::post_logout_redirect_uri)?;
        let login = Url::parse(self.inner.sign_in.as_ref()?.redirect_uri()).ok()?;
        Some((Url::parse(page).ok()?, login.join(Endpoint::Logout.as_str()).ok()?))
    }

    /// Returns whether the provider redirects browsers to `logout` after a sign-out.
    fn provider_returns_to_logout(&self) -> bool {
        self.pages_after_sign_out().is_some_and(|(page, logout)| page == logout)
    }

    /// Returns the name of a setting of the sessions: a variable only if they are built from variables.
    fn session_setting(&self, field: &str) -> String {
        let variable = self.origin.variable(field).filter(|_| self.has_configured_sessions);
        variable.unwrap_or_else(|| field.to_owned())
    }

    /// Warns of a page after sign-out that looks like `logout`, which then answers 405.
    fn warn_of_page_after_sign_out(&self) {
        let Some((page, logout)) = self.pages_after_sign_out() else { return };
        let local =
            format!("{}/{}", self.local_prefix().trim_end_matches('/'), Endpoint::Logout.as_str());
        if page != logout && page.path().trim_end_matches('/').ends_with(&local) {
            let setting = self.session_setting("post_logout_redirect_uri");
            telemetry::nearly_logout(&setting, page.as_str(), logout.as_str());
        }
    }

    /// Warns that polled events count in one process only, although there is a server to share them.
    fn warn_of_local_events(&self) {
        let Inner { auth, event_streams: streams, .. } = &self.inner;
        // Revocations with a log are not idle before its history is read, and have a lag later.
        let (revocations, health) = (auth.revocations(), auth.revocations().health());
        let is_local = revocations.is_idle() && !health.is_away && health.lag.is_zero();
        if self.has_redis_without_log && is_local {
            let polled = streams.iter().filter(|stream| stream.url.is_some());
            polled.for_each(|stream| telemetry::polled_events_are_local(&stream.issuer));
        }
    }

    /// Stores participants in the database of the tenants, if one is configured.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn with_database(mut self, config: &AuthConfig) -> Self {
        if self.inner.registrar.is_some() {
            return self;
        }
        let url = self.collect_faults(config.database().map_err(ConfigError::one)).flatten();
        if let Some(url) = url {
            let fault = |error| {
                ConfigError::one(Fault::new("database_url", format!("cannot be used: {error}")))
            };
            let registrar = SqlRegistrar::connect_lazy(&url).map_err(fault);
            self.inner.registrar =
                self.collect_faults(registrar).map(|it| Arc::new(it) as Arc<dyn Registrar>);
        }
        self
    }

    #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
    fn with_database(self, _: &AuthConfig) -> Self {
        self
    }

    #[cfg(feature = "trust")]
    fn with_workloads(mut self, config: &AuthConfig) -> Self {
        if self.has_client_faults {
            return self;
        }
        let faults = self.faults.len();
        if self.inner.workloads.is_none() {
            let (auth, client) = (&self.inner.auth, self.inner.client.as_ref());
            let workloads = trust_settings::workloads(config, auth, client);
            self.inner.workloads = self.collect_faults(workloads).flatten();
        }
        let admin = self.collect_faults(trust_settings::trust_admin(&config.endpoints)).flatten();
        match admin {
            // Another fault says already why there is no policy.
            Some(_) if self.faults.len() > faults => {}
            Some(_) if self.inner.workloads.is_none() => {
                let problem = "needs a trust policy: set trust_file (`P_TRUST_FILE`) or trust_store \
                               (`P_TRUST_STORE`)";
                self.faults.push(Fault::new("endpoints.trust_admin_scope", problem));
            }
            Some(admin) if self.inner.administration.is_none() => return self.trust_admin(admin),
            _ => {}
        }
        self
    }

    #[cfg(not(feature = "trust"))]
    fn with_workloads(mut self, config: &AuthConfig) -> Self {
        let settings = &config.endpoints;
        for (field, is_set) in [
            ("endpoints.trust_file", settings.trust_file.is_some()),
            ("endpoints.trust_store", settings.trust_store.is_some()),
            ("endpoints.trust_admin_scope", settings.trust_admin_scope.is_some()),
            ("endpoints.trust_tenant_admin_scope", settings.trust_tenant_admin_scope.is_some()),
        ] {
            if is_set {
                let problem = "needs the cargo feature `trust` of scaikey-auth";
                self.faults.push(Fault::new(field, problem));
            }
        }
        self
    }

    fn collect_faults<T>(&mut self, outcome: Result<T, ConfigError>) -> Option<T> {
        outcome.map_err(|error| self.faults.extend_from_slice(error.faults())).ok()
    }

    /// Builds the endpoints.
    ///
    /// # Errors
    /// Reports all faults together: a sign-in or sessions without a client, invalid URLs, a
    /// password grant that the client has not enabled, a prefix that is not a path, a trust policy that cannot be
    /// used, an administration without a policy.
    pub fn build(mut self) -> Result<Endpoints, ConfigError> {
        let mut faults = std::mem::take(&mut self.faults);
        self.check(&mut faults);
        ConfigError::from_faults(faults).map_err(|error| error.named_by(&self.origin))?;
        let login = self.login_path();
        let sessions = self.inner.sessions.as_ref();
        let has_default = sessions.is_some_and(Sessions::has_default_cookie_name);
        let default_cookie_name = has_default.then(|| self.session_setting("cookie_name"));
        if let Some(sign_in) = &mut self.inner.sign_in {
            sign_in.set_paths(&login);
            sign_in.warn_of_paths(&login, default_cookie_name, &self.origin);
        }
        if let (Some(sign_in), Some(sessions)) = (&self.inner.sign_in, &self.inner.sessions) {
            sign_in.set_up_sessions(sessions);
        }
        if let (Some(SignIn { form_post: true, .. }), Some(sessions)) =
            (&self.inner.sign_in, &self.inner.sessions)
        {
            sessions.allow_form_post(&self.login_path());
        }
        self.inner.client_address.proxies = self.trusted_proxies.take().unwrap_or_default();
        if let Some(sign_in @ SignIn { keys: None, .. }) = &mut self.inner.sign_in {
            sign_in.keys = Some(match &self.inner.sessions {
                Some(sessions) => sessions.keys().clone(),
                None => SealingKeys::random()?,
            });
        }
        if let Some(client) = &self.inner.client {
            client.join_service(self.inner.auth.issuers(), self.inner.auth.revocations());
            if self.accepts_logout_tokens {
                self.inner.logout_audiences.push(client.client_id().to_owned());
            }
        }
        self.inner.provider_returns_to_logout = self.provider_returns_to_logout();
        self.warn_of_page_after_sign_out();
        self.warn_of_local_events();
        let enabled =
            Endpoint::ALL.into_iter().filter(|endpoint| self.is_enabled(*endpoint)).collect();
        let prefix = self.local_prefix().trim_end_matches('/').to_owned();
        let endpoints = Endpoints(Arc::new(Inner { enabled, prefix, ..self.inner }));
        endpoints.prepare_polling();
        Ok(endpoints)
    }

    fn check(&self, faults: &mut Vec<Fault>) {
        let mut wrong = |field: &str, problem: &str| faults.push(Fault::new(field, problem));
        if !is_path_prefix(self.local_prefix()) {
            wrong(
                "prefix",
                "is not a path: write it as this service sees it, such as `/v1/auth`, or leave it empty",
            );
        }
        let needs_client = self.needs_client
            || self.inner.sign_in.is_some()
            || self.inner.sessions.is_some()
            || self.inner.password_rule.is_some();
        if needs_client && self.inner.client.is_none() && !self.has_client_faults {
            wrong("client.id", "is missing: sign-ins, sessions and passwords need an OAuth client");
        }
        if self.inner.sign_in.is_some() && self.inner.auth.mode() == AuthMode::Mock {
            wrong("endpoints.redirect_uri", "cannot be used in mock mode: there is no provider");
        }
        let refuses_passwords =
            self.inner.client.as_ref().is_some_and(|client| !client.allows_passwords());
        if self.inner.password_rule.is_some() && refuses_passwords {
            wrong(
                "endpoints.password_grant",
                "needs a client that may send passwords: call enable_password_grant on its builder",
            );
        }
        if let Some(sign_in) = &self.inner.sign_in {
            let mut others = Endpoint::ALL.to_vec();
            others.retain(|endpoint| *endpoint != Endpoint::Login && self.is_enabled(*endpoint));
            sign_in.check(&self.login_path(), &others, faults);
            let has_sessions = self.inner.sessions.is_some() || self.needs_client;
            let has_login = !self.without.contains(&Endpoint::Login);
            let needs_id_token =
                self.inner.sessions.as_ref().is_some_and(|it| it.id_tokens().is_some());
            if needs_id_token && !sign_in.scopes.contains("openid") {
                let problem = "lack `openid`, but the ID token names the users of sessions (`P_SESSION_IDENTITY`): add it";
                faults.push(Fault::new("endpoints.scopes", problem));
            }
            if sign_in.redirect_navigation && !(has_sessions && has_login) {
                let problem = "leads browsers to a sign-in that starts a session: set up sessions \
                               (`P_SESSION_KEYS`), and keep the endpoint `login`";
                faults.push(Fault::new("redirect_navigation", problem));
            }
        }
        if self.inner.sign_in.is_none() {
            let fault = |field: &&str| Fault::new(*field, NO_SIGN_IN);
            faults.extend(self.sign_in_settings.iter().map(fault));
        }
        if self.inner.session_admin.is_some() && !self.has_session_store() {
            let problem = "needs sessions on the server: call `store` on their builder";
            faults.push(Fault::new("session_admin", problem));
        }
        self.check_page_after_sign_out(faults);
        self.check_logout_tokens(faults);
        self.check_event_streams(faults);
        self.check_client(faults);
        self.check_registration(faults);
        #[cfg(feature = "trust")]
        if self.inner.administration.is_some() && self.inner.workloads.is_none() {
            let problem = "needs a trust policy: call `workloads`, or set trust_file \
                           (`P_TRUST_FILE`) or trust_store (`P_TRUST_STORE`)";
            faults.push(Fault::new("endpoints.trust_admin", problem));
        }
    }

    fn check_page_after_sign_out(&self, faults: &mut Vec<Fault>) {
        let page = self.inner.sessions.as_ref().and_then(Sessions::post_logout_redirect_uri);
        let login = self.inner.sign_in.as_ref().map(SignIn::redirect_uri);
        let paths = login.and_then(|login| PublicPaths::new(login, &self.login_path()));
        if page.zip(paths).is_some_and(|(page, paths)| paths.is_login_url(page)) {
            let problem = "is the URL of `login`, which would start another sign-in: set it to the URL of \
                           `logout` beside it, or to a public page";
            faults.push(Fault::new("post_logout_redirect_uri", problem));
        }
    }

    fn check_logout_tokens(&self, faults: &mut Vec<Fault>) {
        let has_audience = self.inner.client.is_some()
            || self.has_client_faults
            || !self.inner.logout_audiences.is_empty();
        if self.accepts_logout_tokens && !has_audience {
            let problem = "needs a client, whose id is the audience of logout tokens: set client.id \
                           (`P_CLIENT_ID`), or call `backchannel_logout_for`";
            faults.push(Fault::new("endpoints.backchannel_logout", problem));
        }
        if self.inner.logout_audiences.iter().any(String::is_empty) {
            faults.push(Fault::new("endpoints.backchannel_logout", "has an empty client id"));
        }
    }

    fn check_event_streams(&self, faults: &mut Vec<Fault>) {
        let Inner { auth, event_streams: streams, .. } = &self.inner;
        for (nth, stream) in streams.iter().enumerate() {
            let mut wrong = |problem: &str| {
                let issuer = &stream.issuer;
                faults.push(Fault::new(format!("security_events of `{issuer}`"), problem));
            };
            let is_unknown = matches!(auth.issuers().find(&stream.issuer), IssuerLookup::Unknown);
            if is_unknown && auth.mode() != AuthMode::Mock {
                wrong(
                    "is not an issuer of this service, so there are no keys for its events: add it",
                );
            }
            if stream.audience.is_empty() {
                wrong("has no audience: set the `aud` of its tokens");
            }
            let is_header = |value: &Secret| HeaderValue::from_str(value.expose()).is_ok();
            if stream
                .authorization
                .as_ref()
                .is_some_and(|it| !is_header(it) || it.expose().is_empty())
            {
                wrong("has an authorization that no header can have");
            }
            if let Some(url) = &stream.url {
                stream.url_problems(url).for_each(&mut wrong);
            } else if stream.token.is_some() {
                wrong("has a service token, which only a polled stream uses");
            }
            if streams.iter().take(nth).any(|other| other.issuer == stream.issuer) {
                wrong("is set twice");
            }
        }
    }

    fn check_registration(&self, faults: &mut Vec<Fault>) {
        if !self.inner.registers_at_sign_in {
            return;
        }
        let has_database_fault = faults.iter().any(|fault| fault.field.starts_with("database"));
        let mut wrong = |problem| faults.push(Fault::new("endpoints.register_at_sign_in", problem));
        if self.inner.registrar.is_none() && !has_database_fault {
            wrong("needs a registrar: call `registrar`, or set `P_DATABASE_URL`");
        }
        if self.inner.sign_in.is_none() {
            wrong(NO_SIGN_IN);
        }
    }

    fn local_prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or(DEFAULT_PREFIX)
    }

    /// Returns the path of the endpoint `login` in this service.
    fn login_path(&self) -> String {
        format!("{}/{}", self.local_prefix().trim_end_matches('/'), Endpoint::Login.as_str())
    }

    /// Checks that the client can serve the enabled endpoints, whose requests name no tenant.
    fn check_client(&self, faults: &mut Vec<Fault>) {
        let Some(client) = &self.inner.client else { return };
        let needs_one_token_endpoint = self.inner.sign_in.is_some()
            || self.inner.sessions.is_some()
            || self.is_enabled(Endpoint::Refresh)
            || (self.is_enabled(Endpoint::Token) && self.inner.password_rule.is_some());
        if needs_one_token_endpoint && client.is_per_tenant() {
            let problem = "depends on the tenant, but sign-ins, sessions and refreshes name no \
                           tenant: use a client with one token endpoint, or disable them (in code: \
                           `without`; in the environment: set no `P_REDIRECT_URI`, \
                           `P_SESSION_KEYS` or `P_PASSWORD_GRANT`)";
            faults.push(Fault::new("token_url", problem));
        }
        if let Some(sign_in) = &self.inner.sign_in {
            faults.extend(client.sign_in_faults(sign_in.scopes.contains("openid")));
        }
    }

    fn has_session_store(&self) -> bool {
        self.inner.sessions.as_ref().is_some_and(Sessions::has_store)
    }

    fn is_enabled(&self, endpoint: Endpoint) -> bool {
        let possible = match endpoint {
            Endpoint::Login | Endpoint::Config => self.inner.sign_in.is_some(),
            Endpoint::Token | Endpoint::Refresh | Endpoint::Logout => self.inner.client.is_some(),
            Endpoint::Sessions => self.has_session_store(),
            Endpoint::BackchannelLogout => {
                self.accepts_logout_tokens || !self.inner.logout_audiences.is_empty()
            }
            Endpoint::Events => self.inner.event_streams.iter().any(|it| it.url.is_none()),
            Endpoint::Register => self.inner.registrar.is_some(),
            Endpoint::Whoami | Endpoint::Introspect => true,
            #[cfg(feature = "trust")]
            Endpoint::Exchange => self.inner.workloads.is_some(),
            #[cfg(not(feature = "trust"))]
            Endpoint::Exchange | Endpoint::Trusts => false,
            #[cfg(feature = "trust")]
            Endpoint::Trusts => self.inner.administration.is_some(),
            #[cfg(feature = "jwe")]
            Endpoint::Keys => {
                let sets = self.inner.auth.issuers().decryption_keys();
                sets.iter().any(|set| set.has_public_key())
            }
            #[cfg(not(feature = "jwe"))]
            Endpoint::Keys => false,
            Endpoint::Metadata => self.inner.auth.resource().is_some(),
        };
        possible && !self.without.contains(&endpoint)
    }
}

impl std::fmt::Debug for EndpointsBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointsBuilder")
            .field("prefix", &self.local_prefix())
            .finish_non_exhaustive()
    }
}
