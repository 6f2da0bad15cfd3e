//! [`EndpointsBuilder`]: which endpoints there are, and what they do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use super::body;
use super::identity_id::default_identity_id;
use super::proxies::{ClientAddress, TrustedProxies};
use super::response::Outages;
use super::sign_in::SignIn;
use super::throttle::{Throttle, ThrottleWithFallback, TokenBuckets};
use super::tokens::{PasswordAttempt, PasswordDecision, allow_everywhere};
use super::{Endpoint, Endpoints, Inner};
use crate::auth::Auth;
use crate::config::{AuthConfig, AuthMode, ConfigError, Fault};
use crate::error::{ErrorResponse, ProblemJson};
use crate::exchange::TokenExchangeClient;
use crate::guard::{Guard, scope};
use crate::identity::Identity;
use crate::registrar::Registrar;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::registrar::SqlRegistrar;
use crate::session::Sessions;
use crate::support::seal::SealingKeys;
use crate::support::telemetry;

/// Sets up [`Endpoints`]. Made by [`Auth::endpoints`].
#[must_use = "there are no endpoints before `build()`"]
pub struct EndpointsBuilder {
    /// What is built, complete but for `offered` and the keys of sign-ins.
    inner: Inner,
    without: Vec<Endpoint>,
    faults: Vec<Fault>,
    /// The prefix of the environment variables, so that faults name them.
    variables: Option<String>,
}

impl Auth {
    /// The endpoints under `/v1/auth/` (feature `endpoints`, on by default): with nothing added, `whoami`
    /// and `introspect`.
    pub fn endpoints(&self) -> EndpointsBuilder {
        let inner = Inner {
            auth: self.clone(),
            prefix: "/v1/auth".to_owned(),
            offered: Vec::new(),
            client: None,
            sign_in: None,
            sessions: None,
            registrar: None,
            #[cfg(feature = "trust")]
            workloads: None,
            password_rule: None,
            introspect_guard: Box::new(scope("admin")),
            introspects_all_tenants: false,
            identity_id: Arc::new(default_identity_id),
            in_data: false,
            respond: Arc::new(ProblemJson),
            throttle: Some(ThrottleWithFallback::new(TokenBuckets::new())),
            account_rule: Arc::new(|attempt| attempt.account()),
            client_address: ClientAddress::default(),
            body_timeout: body::TIMEOUT,
            outages: Outages::default(),
        };
        EndpointsBuilder { inner, without: Vec::new(), faults: Vec::new(), variables: None }
    }
}

impl EndpointsBuilder {
    /// What stands in front of the paths. Default `/v1/auth`; empty where a router takes it away.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inner.prefix = prefix.into();
        self
    }

    /// Leaves one out. May be repeated.
    pub fn without(mut self, endpoint: Endpoint) -> Self {
        self.without.push(endpoint);
        self
    }

    /// Gets tokens from the provider by this client: offers `token`, `refresh` and `logout`.
    pub fn client(mut self, client: TokenExchangeClient) -> Self {
        self.inner.client = Some(client);
        self
    }

    /// Lets users sign in: offers `login` and `config`. Needs a [`client`](Self::client).
    pub fn sign_in(mut self, sign_in: SignIn) -> Self {
        self.inner.sign_in = Some(sign_in);
        self
    }

    /// Ends sign-ins of browsers in a session instead of tokens. Their
    /// [layer](Sessions::layer) belongs outside of the endpoints.
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.inner.sessions = Some(sessions);
        self
    }

    /// Offers `register`.
    pub fn registrar(mut self, registrar: impl Registrar) -> Self {
        self.inner.registrar = Some(Arc::new(registrar));
        self
    }

    /// Offers `exchange`, for foreign workload tokens that a policy trusts (feature `trust`).
    #[cfg(feature = "trust")]
    pub fn workloads(mut self, workloads: crate::mint::WorkloadExchange) -> Self {
        self.inner.workloads = Some(workloads);
        self
    }

    /// Takes passwords at `token` where `rule` says so. Default: nowhere. RFC 9700 §2.4 says never:
    /// the service sees the password, and no second factor is asked for. The client must have
    /// [the grant enabled](crate::exchange::TokenExchangeBuilder::enable_password_grant), too.
    pub fn password_grant(
        mut self,
        rule: impl Fn(&PasswordAttempt<'_>) -> PasswordDecision + Send + Sync + 'static,
    ) -> Self {
        self.inner.password_rule = Some(Arc::new(rule));
        self
    }

    /// Who may introspect. Default [`scope("admin")`](scope), letter for letter.
    pub fn introspection_requires(mut self, guard: impl Guard) -> Self {
        self.inner.introspect_guard = Box::new(guard);
        self
    }

    /// Tells callers of `introspect` about tokens of tenants that are not theirs. Default: those
    /// are inactive to them.
    pub fn introspect_all_tenants(mut self) -> Self {
        self.inner.introspects_all_tenants = true;
        self
    }

    /// What `identity_id` says at `whoami` and `introspect`. Default: `user:` with the verified
    /// address, else `sub`; `sa:` and `workload:` with `sub`. In a user's `sub`, `@` is written `%40`, so
    /// no `sub` looks like an address, and in every `sub` `%`, spaces, control characters and signs that
    /// are not seen are percent-encoded. The name to sign in with (`preferred_username`) is not used:
    /// users choose it, and two may have the same (OpenID Connect Core §5.7).
    ///
    /// Not checked: that two issuers, or two tenants, do not verify the same address or give the same
    /// `sub`. Beside `identity_id` the answers have `tenant_id`, and `whoami` has `issuer` and
    /// `subject`: decide by those.
    pub fn identity_ids(
        mut self,
        name: impl Fn(&Identity) -> String + Send + Sync + 'static,
    ) -> Self {
        self.inner.identity_id = Arc::new(name);
        self
    }

    /// Answers `{"data": …}` in place of the bare object. Errors, and the metadata of RFC 9728,
    /// stay as they are.
    pub fn answers_in_data(mut self) -> Self {
        self.inner.in_data = true;
        self
    }

    /// How `register`, `whoami` and `introspect` refuse. Default [`ProblemJson`]. Where tokens are
    /// asked for, errors are those of RFC 6749 §5.2 always.
    pub fn respond_with(mut self, respond: impl ErrorResponse) -> Self {
        self.inner.respond = Arc::new(respond);
        self
    }

    /// How often endpoints may be tried. Default [`TokenBuckets`].
    pub fn throttle(mut self, throttle: impl Throttle) -> Self {
        self.inner.throttle = Some(ThrottleWithFallback::new(throttle));
        self
    }

    /// Lets endpoints be tried without end, where something in front counts.
    pub fn unthrottled(mut self) -> Self {
        self.inner.throttle = None;
        self
    }

    /// Names the account that a password is tried on, for the [throttle](Self::throttle). Names that
    /// come out alike share a count. Default [`PasswordAttempt::account`]: case, outer and repeated
    /// space, compatibility forms and invisible characters make no difference.
    ///
    /// Not known here are aliases that only the provider knows, such as `bob+x@…`, `DOMAIN\bob` or a
    /// number instead of a name, and tenants: where two tenants may each have a `bob`, put the tenant in
    /// front, or a flood on one makes the other wait. Take it from a fixed list: whatever the caller can
    /// invent gives a new count for each try.
    pub fn account_of(
        mut self,
        rule: impl Fn(&PasswordAttempt<'_>) -> String + Send + Sync + 'static,
    ) -> Self {
        self.inner.account_rule = Arc::new(rule);
        self
    }

    /// Sets how long a body may take to arrive, from its head on. Default 10 seconds; then the answer
    /// is 408 (RFC 9110 §15.5.9). How long a *head* may take, the server must be told: see the
    /// [manual](crate::manual::operating).
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.inner.body_timeout = timeout;
        self
    }

    /// Where the address of the connection is found. Default: axum's `ConnectInfo<SocketAddr>`
    /// (feature `axum`), which `into_make_service_with_connect_info` puts among the request's
    /// extensions; else a [`std::net::SocketAddr`] there, which a server of your own may insert. While
    /// attempts are throttled and no address is found, the log says so once.
    pub fn client_address(
        mut self,
        peer: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.inner.client_address.peer = Arc::new(peer);
        self
    }

    /// Whose `X-Forwarded-For` is believed. Default: nobody's.
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.inner.client_address.proxies = proxies;
        self
    }

    /// Adds what a configuration names, as the environment variables `P_REDIRECT_URI` and others do:
    /// client, sign-in, sessions, passwords, registrar, trusted proxies, workloads. What was set
    /// before stays, so a client that the service has already is not made twice. Where the client's
    /// token endpoint depends on the tenant, and neither sign-in, sessions nor passwords are named,
    /// `token`, `refresh` and `logout` are left out, with a line in the log: they name no tenant.
    pub fn configured(mut self, config: &AuthConfig) -> Self {
        self.variables.clone_from(&config.prefix);
        let wanted = &config.endpoints;
        if self.inner.client.is_none() && config.client.id.is_some() {
            let client = TokenExchangeClient::from_config(config).build();
            let asked_for = wanted.redirect_uri.is_some()
                || wanted.session_keys.is_some()
                || wanted.password_grant;
            self.inner.client = self.collect_faults(client);
            // One with a token endpoint for each tenant is there for exchanges, unless more is asked for.
            if !asked_for && self.inner.client.as_ref().is_some_and(|client| client.is_per_tenant())
            {
                telemetry::endpoints_omitted();
                self.without.extend([Endpoint::Token, Endpoint::Refresh, Endpoint::Logout]);
            }
        }
        if let (None, Some(uri)) = (&self.inner.sign_in, &wanted.redirect_uri) {
            let sign_in = SignIn::new(uri.as_str());
            let scopes = wanted.scopes.as_ref();
            self.inner.sign_in = Some(match scopes {
                Some(scopes) => sign_in.scopes(scopes.as_str()),
                None => sign_in,
            });
        }
        if let (None, Some(keys), Some(client)) =
            (&self.inner.sessions, &wanted.session_keys, &self.inner.client)
        {
            let client = client.clone();
            let sessions = SealingKeys::parse(keys)
                .map_err(|why| ConfigError::one(Fault::new("session_keys", why.to_string())))
                .and_then(|keys| Sessions::builder(&self.inner.auth, client, keys).build());
            self.inner.sessions = self.collect_faults(sessions);
        }
        if wanted.session_keys.is_some() && self.inner.client.is_none() && self.faults.is_empty() {
            let problem = "is missing: sessions need a client of the provider";
            self.faults.push(Fault::new("client.id", problem));
        }
        if self.inner.password_rule.is_none() && wanted.password_grant {
            self.inner.password_rule = Some(allow_everywhere());
        }
        match TrustedProxies::new(&wanted.trusted_proxies) {
            Ok(_) if wanted.trusted_proxies.is_empty() => {}
            Ok(proxies) => self.inner.client_address.proxies = proxies,
            Err(error) => {
                self.faults.push(Fault::new("endpoints.trusted_proxies", error.to_string()));
            }
        }
        self.with_database(config).with_workloads(config)
    }

    /// The participants live beside the tenants.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn with_database(mut self, config: &AuthConfig) -> Self {
        if let (None, Some(url)) = (&self.inner.registrar, &config.database_url) {
            let unusable = |error| {
                ConfigError::one(Fault::new("database_url", format!("cannot be used: {error}")))
            };
            let registrar = SqlRegistrar::connect_lazy(url).map_err(unusable);
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
        if let (None, Some(file)) = (&self.inner.workloads, &config.endpoints.trust_file) {
            let workloads = super::exchange::from_file(
                file,
                config,
                &self.inner.auth,
                self.inner.client.as_ref(),
            );
            self.inner.workloads = self.collect_faults(workloads);
        }
        self
    }

    #[cfg(not(feature = "trust"))]
    fn with_workloads(mut self, config: &AuthConfig) -> Self {
        if config.endpoints.trust_file.is_some() {
            let problem = "needs the cargo feature `trust` of scaikey-auth";
            self.faults.push(Fault::new("endpoints.trust_file", problem));
        }
        self
    }

    fn collect_faults<T>(&mut self, outcome: Result<T, ConfigError>) -> Option<T> {
        outcome.map_err(|error| self.faults.extend_from_slice(error.faults())).ok()
    }

    /// Checks everything.
    ///
    /// # Errors
    /// All faults at once: a sign-in or sessions without a client, URLs that are none, passwords
    /// that the client does not take, a prefix that is no path.
    pub fn build(mut self) -> Result<Endpoints, ConfigError> {
        let mut faults = std::mem::take(&mut self.faults);
        self.check(&mut faults);
        ConfigError::from_faults(faults).map_err(|error| error.named(self.variables.as_deref()))?;
        if let Some(sign_in @ SignIn { keys: None, .. }) = &mut self.inner.sign_in {
            sign_in.keys = Some(match &self.inner.sessions {
                Some(sessions) => sessions.keys().clone(),
                None => SealingKeys::random()?,
            });
        }
        if let Some(client) = &self.inner.client {
            client.share_metadata(self.inner.auth.issuers());
        }
        let offered = Endpoint::ALL.into_iter().filter(|endpoint| self.offers(*endpoint)).collect();
        let prefix = self.inner.prefix.trim_end_matches('/').to_owned();
        Ok(Endpoints(Arc::new(Inner { offered, prefix, ..self.inner })))
    }

    fn check(&self, faults: &mut Vec<Fault>) {
        let mut wrong = |field: &str, problem: &str| faults.push(Fault::new(field, problem));
        if !self.inner.prefix.is_empty() && !self.inner.prefix.starts_with('/') {
            wrong("prefix", "is no path: begin it with `/`, or leave it empty");
        }
        if self.inner.client.is_none()
            && (self.inner.sign_in.is_some() || self.inner.sessions.is_some())
        {
            wrong("client.id", "is missing: sign-ins need a client of the provider");
        }
        if self.inner.sign_in.is_some() && self.inner.auth.mode() == AuthMode::Mock {
            wrong("endpoints.redirect_uri", "is of no use in mock mode: there is no provider");
        }
        let takes_passwords =
            self.inner.client.as_ref().is_some_and(|client| client.allows_passwords());
        if self.inner.password_rule.is_some() && !takes_passwords {
            wrong(
                "endpoints.password_grant",
                "needs a client with enable_password_grant: nothing could be asked",
            );
        }
        if let Some(sign_in) = &self.inner.sign_in {
            let prefix = self.inner.prefix.trim_end_matches('/');
            sign_in.check(&format!("{prefix}/{}", Endpoint::Login.as_str()), faults);
        }
        self.check_client(faults);
    }

    /// Whether the client can do what the endpoints will ask of it, which name no tenant.
    fn check_client(&self, faults: &mut Vec<Fault>) {
        let Some(client) = &self.inner.client else { return };
        let asks = self.inner.sign_in.is_some()
            || self.inner.sessions.is_some()
            || self.offers(Endpoint::Refresh)
            || (self.offers(Endpoint::Token) && self.inner.password_rule.is_some());
        if asks && client.is_per_tenant() {
            let problem = "depends on the tenant, and sign-ins, sessions and refreshes here name none: \
                           give a client with one token endpoint, or leave them out (in code `without`, \
                           by environment no `P_REDIRECT_URI`, `P_SESSION_KEYS`, `P_PASSWORD_GRANT`)";
            faults.push(Fault::new("token_url", problem));
        }
        if let Some(sign_in) = &self.inner.sign_in {
            faults.extend(client.sign_in_faults(sign_in.scopes.contains("openid")));
        }
    }

    fn offers(&self, endpoint: Endpoint) -> bool {
        let possible = match endpoint {
            Endpoint::Login | Endpoint::Config => self.inner.sign_in.is_some(),
            Endpoint::Token | Endpoint::Refresh | Endpoint::Logout => self.inner.client.is_some(),
            Endpoint::Register => self.inner.registrar.is_some(),
            Endpoint::Whoami | Endpoint::Introspect => true,
            #[cfg(feature = "trust")]
            Endpoint::Exchange => self.inner.workloads.is_some(),
            #[cfg(not(feature = "trust"))]
            Endpoint::Exchange => false,
            Endpoint::Metadata => self.inner.auth.resource().is_some(),
        };
        possible && !self.without.contains(&endpoint)
    }
}

impl std::fmt::Debug for EndpointsBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointsBuilder")
            .field("prefix", &self.inner.prefix)
            .finish_non_exhaustive()
    }
}
