//! [`TokenExchangeBuilder`]: configures a [`TokenExchangeClient`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use url::Url;

use super::cache::{ClientFingerprint, MemoryCache, TokenCache};
use super::cached::CachedExchange;
use super::contract::{AnswerRules, Relaxed};
use super::end_session::EndSessionSearch;
use super::endpoint::{TokenEndpoint, TokenUrlSource, TokenUrls};
use super::{TokenExchangeClient, TokenType};
use crate::clock::{Clock, SystemClock};
use crate::config::{
    AuthConfig, ClientConfig, ConfigError, ExchangeGrant, Fault, IssuerConfig, MISSING_ISSUER,
    OTHER_PLACEHOLDER, Origin, PlainHttp, Route, TENANT_PLACEHOLDER, has_other_placeholder,
    has_user_information, problem_of_document,
};
use crate::identity::{ClaimsMapping, InvalidClaimPath};
use crate::issuer::{
    ClientAuth, HAS_OWN_CLIENT, Http, HttpClient, Issuers, SecretSource, check_ca_file, well_known,
};
use crate::revocation::Revocations;
use crate::support::breaker::Breakers;
use crate::support::seal::SealingKeys;
use crate::support::telemetry;

/// The settings of a client that several modules read. The setters of [`TokenExchangeBuilder`] document
/// them.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) exchange_grant: ExchangeGrant,
    pub(super) tenant_parameter: Option<String>,
    pub(super) allows_passwords: bool,
    pub(super) answer: AnswerRules,
    pub(super) trusted_audiences: Vec<String>,
    pub(super) plain_http: PlainHttp,
    pub(super) route: Route,
    pub(super) outlives_subject: bool,
    pub(super) default_lifetime: Option<Duration>,
    pub(super) cache_timeout: Duration,
    pub(super) spends_without_lock: bool,
    pub(super) timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            exchange_grant: ExchangeGrant::default(),
            tenant_parameter: None,
            allows_passwords: false,
            answer: AnswerRules::default(),
            trusted_audiences: Vec::new(),
            plain_http: PlainHttp::default(),
            route: Route::default(),
            outlives_subject: false,
            default_lifetime: None,
            cache_timeout: Duration::from_secs(5),
            spends_without_lock: false,
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// A builder for a [`TokenExchangeClient`], returned by [`TokenExchangeClient::builder`].
///
/// ```
/// use std::time::Duration;
/// use scaikey_auth::TokenExchangeClient;
/// use scaikey_auth::exchange::MemoryCache;
/// use scaikey_auth::issuer::ClientAuth;
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let client = TokenExchangeClient::builder("https://scaikey.example")
///     .client_auth(ClientAuth::basic("scaidrive", "secret"))
///     .timeout(Duration::from_secs(3))
///     .cache(MemoryCache::new(64 << 20))
///     .build()?;
/// assert_eq!(client.client_id(), "scaidrive");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `build` to get a client"]
pub struct TokenExchangeBuilder {
    issuer: String,
    expected_issuer: Option<String>,
    discovery_url: Option<String>,
    auth: Option<ClientAuth>,
    token_url: Option<String>,
    token_urls: Option<Arc<dyn TokenUrls>>,
    revocation_url: Option<String>,
    authorization_url: Option<String>,
    end_session_url: Option<String>,
    settings: Settings,
    cache: Option<Arc<dyn TokenCache>>,
    cache_keys: Option<SealingKeys>,
    issuers: Option<Issuers>,
    revocations: Option<Revocations>,
    http: Option<Arc<dyn HttpClient>>,
    /// The CA file of the issuer's configuration, unless the client has its own.
    ca_of_issuer: Option<PathBuf>,
    /// The name in faults of the setting that names the client's own CA file.
    ca_field: &'static str,
    /// The faults of the configuration, reported by `build`.
    faults: Vec<Fault>,
    /// Where the settings come from, so that faults name environment variables.
    origin: Origin,
}

impl TokenExchangeBuilder {
    pub(super) fn new(issuer: String) -> Self {
        Self {
            issuer,
            expected_issuer: None,
            discovery_url: None,
            auth: None,
            token_url: None,
            token_urls: None,
            revocation_url: None,
            authorization_url: None,
            end_session_url: None,
            settings: Settings::default(),
            cache: None,
            cache_keys: None,
            issuers: None,
            revocations: None,
            http: None,
            ca_of_issuer: None,
            ca_field: "ca_file",
            faults: Vec::new(),
            origin: Origin::default(),
        }
    }

    pub(super) fn from_config(config: &AuthConfig) -> Self {
        let issuer = config.issuers.first().cloned().unwrap_or_else(|| IssuerConfig::new(""));
        let plain_http = issuer.plain_http();
        let default_type = issuer.requested_token_type();
        let mut builder = Self::new(issuer.issuer);
        builder.settings.plain_http = plain_http;
        builder.expected_issuer = issuer.expected_issuer;
        builder.discovery_url = issuer.discovery_url;
        builder.ca_of_issuer = issuer.ca_file;
        builder.origin = config.origin.clone();
        builder.faults = config.unreadable.clone();
        builder.settings.allows_passwords = config.endpoints.password_grant;
        let client = &config.client;
        builder.token_url = client.token_url.clone();
        builder.authorization_url = client.authorization_url.clone();
        builder.settings.route.ca_file = client.ca_file.clone();
        if client.ca_file.is_some() {
            builder.ca_field = "client.ca_file";
        }
        builder.settings.tenant_parameter = client.tenant_parameter.clone();
        builder.revocation_url = client.revocation_url.clone();
        builder.end_session_url = client.end_session_url.clone();
        builder.settings.spends_without_lock = client.insecure_spend_without_lock;
        builder.settings.answer.claims = issuer.claims;
        builder.apply_answer_settings(client, default_type);
        let has_unreadable_auth = builder.faults.iter().any(|fault| fault.field == "client.auth");
        match ClientAuth::from_config(client) {
            Err(_) if has_unreadable_auth => {}
            Ok(auth) => builder.auth = Some(auth),
            Err(fault) => builder.faults.push(fault),
        }
        match client.sealing_keys() {
            Ok(keys) => builder.cache_keys = keys,
            Err(fault) => builder.faults.push(fault),
        }
        let urls = client.redis_urls().map_err(ConfigError::one);
        match urls.and_then(|urls| urls.as_ref().map(redis_cache).transpose()) {
            Ok(cache) => builder.cache = cache,
            Err(error) => builder.faults.extend_from_slice(error.faults()),
        }
        builder
    }

    /// Applies the settings for the provider's answers. `default_type` is the `requested_token_type` of the
    /// issuer's preset.
    fn apply_answer_settings(&mut self, client: &ClientConfig, default_type: Option<&str>) {
        let settings = &mut self.settings;
        match requested_type(client.requested_token_type.as_deref().or(default_type)) {
            Ok(kind) => settings.answer.requested_type = kind,
            Err(fault) => self.faults.push(fault),
        }
        settings.exchange_grant = client.exchange_grant;
        settings.default_lifetime = client.default_lifetime;
        settings.trusted_audiences.clone_from(&client.trusted_audiences);
        settings.outlives_subject = client.insecure_outlive_subject;
        settings.answer.relaxed = Relaxed {
            audience: client.insecure_any_audience,
            subject: client.insecure_any_subject,
            service_tenant: client.insecure_any_service_tenant,
            claims: client.insecure_unreadable_claims,
            issued_type: client.accept_untyped_tokens,
            token_type: client.accept_non_bearer_tokens,
            extra_scopes: client.accept_extra_scopes.clone(),
        };
    }

    /// Sets the issuer in the provider's metadata and tokens, if it differs from the issuer URL of the
    /// builder. Default: the issuer URL of the builder.
    pub fn expected_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.expected_issuer = Some(issuer.into());
        self
    }

    /// Sets the URL of the metadata document. Default: the well-known URLs of the issuer (RFC 8414 and
    /// OpenID Connect Discovery), tried in order.
    pub fn discovery_url(mut self, url: impl Into<String>) -> Self {
        self.discovery_url = Some(url.into());
        self
    }

    /// Sets the client authentication. Required.
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Sets the token endpoint. Default: the one in the issuer's metadata, which is read again every
    /// hour. `{tenant_id}` in the URL (not in the host) is replaced by the tenant of the request; then
    /// every request must name a tenant.
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = Some(url.into());
        self
    }

    /// Sets a lookup for the token endpoint of each tenant, if the URL does not follow from the tenant's
    /// id. Replaces [`token_url`](Self::token_url).
    pub fn token_urls(mut self, urls: impl TokenUrls) -> Self {
        self.token_urls = Some(Arc::new(urls));
        self
    }

    /// Sets the revocation endpoint. Default: the one in the issuer's metadata.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.revocation_url = Some(url.into());
        self
    }

    /// Sets the authorization endpoint, where users sign in. Default: the one in the issuer's metadata.
    pub fn authorization_url(mut self, url: impl Into<String>) -> Self {
        self.authorization_url = Some(url.into());
        self
    }

    /// Sets the end-session endpoint, where a browser signs out at the provider: see
    /// [`end_session_url`](TokenExchangeClient::end_session_url). Default: the one in the issuer's
    /// metadata. The URL may have a query, which is kept. Some providers need it: Amazon Cognito, for
    /// example, takes its own `logout_uri`.
    pub fn end_session_url(mut self, url: impl Into<String>) -> Self {
        self.end_session_url = Some(url.into());
        self
    }

    /// Sets the `requested_token_type` of exchanges. Default: [`TokenType::Jwt`]. `None` omits the
    /// parameter, for providers that do not accept it. Keycloak needs [`TokenType::AccessToken`]. A
    /// response with this `issued_token_type` is accepted, as are an access token and a JWT.
    pub fn requested_token_type(mut self, kind: Option<TokenType>) -> Self {
        self.settings.answer.requested_type = kind;
        self
    }

    /// Sets the grant of [`exchange`](TokenExchangeClient::exchange) and of
    /// [`OutboundToken::on_behalf_of_caller`](crate::outbound::OutboundToken::on_behalf_of_caller).
    /// Default: token exchange (RFC 8693). With [`ExchangeGrant::OnBehalfOf`], for Microsoft Entra ID, an
    /// exchange is sent as an [`OnBehalfOfRequest`](super::OnBehalfOfRequest): with the scopes of the
    /// request, or without any, with the scope `{audience}/.default`. It must have an access token as
    /// subject token, one audience, no resource and no actor. Workload tokens are still exchanged by RFC 8693.
    pub fn exchange_grant(mut self, grant: ExchangeGrant) -> Self {
        self.settings.exchange_grant = grant;
        self
    }

    /// Sets the form parameter that carries the tenant of a service token. Default: none; a request
    /// that names a tenant then fails, unless the URL of the token endpoint depends on the tenant.
    pub fn tenant_parameter(mut self, name: impl Into<String>) -> Self {
        self.settings.tenant_parameter = Some(name.into());
        self
    }

    /// Allows [`TokenExchangeClient::password`]. Default: not allowed.
    pub fn enable_password_grant(mut self) -> Self {
        self.settings.allows_passwords = true;
        self
    }

    /// Allows `http://` URLs on loopback addresses, `localhost` and names under it, for development. Default:
    /// not allowed.
    pub fn allow_loopback_http(mut self, allow: bool) -> Self {
        self.settings.plain_http.loopback = allow;
        self
    }

    /// Allows `http://` URLs with this host (`host` or `host:port`), and no other, for all endpoints and
    /// the metadata. May be repeated. Use it only where the network encrypts and authenticates all
    /// traffic, such as a service mesh: otherwise an attacker in the network can read the client's
    /// credentials and the users' tokens. Such URLs are requested without a proxy. Default: not allowed.
    pub fn insecure_http_host(mut self, host: impl Into<String>) -> Self {
        self.settings.plain_http.hosts.push(host.into());
        self
    }

    /// Sets the file with the CA certificates (PEM) for requests to the provider. No other CA is then
    /// trusted for them. The file is read for each request, and a change takes effect with the next
    /// one. Default: [`client.ca_file`](field@crate::config::ClientConfig::ca_file) of the configuration, or
    /// else the issuer's [`ca_file`](field@IssuerConfig::ca_file), or else the system's certificates.
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.route.ca_file = Some(file.into());
        self.ca_field = "ca_file";
        self
    }

    /// Sends all requests to the provider with this client, for example a [`reqwest::Client`]. Then its
    /// certificates, proxies and redirects count: see [`HttpClient`] for the checks that remain. Do not
    /// let it follow redirects, because the requests have credentials. Excludes
    /// [`ca_file`](Self::ca_file). Default: a client of this crate.
    pub fn http_client(mut self, client: impl HttpClient) -> Self {
        self.http = Some(Arc::new(client));
        self
    }

    /// Sets the claims that hold the subject, the tenant and the scopes of the provider's tokens, which
    /// the client compares with the request. Default: the mapping of the issuer with
    /// [`from_config`](TokenExchangeClient::from_config) and
    /// [`from_env`](TokenExchangeClient::from_env), otherwise [`ClaimsMapping::default`]. With a
    /// provider whose tenant claim has another name, such as `tid`, the tenant is compared only if the
    /// mapping names it.
    pub fn claims(mut self, mapping: ClaimsMapping) -> Self {
        self.settings.answer.claims = mapping;
        self
    }

    /// Sets the claims that name the services a token is for, of which the first one that is present is
    /// compared with the requested audiences. Default: `aud`. The
    /// [`audience_claims`](field@IssuerConfig::audience_claims) of the issuer are about the tokens of callers,
    /// and do not count here: `azp`, for example, names this client in every token that it gets.
    pub fn audience_claims(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let paths = paths.into_iter().map(|path| path.as_ref().parse()).collect();
        match paths {
            Ok(paths) => self.settings.answer.audience_claims = paths,
            Err(InvalidClaimPath) => {
                let problem = InvalidClaimPath.to_string();
                self.faults.push(Fault::new("audience_claims", problem));
            }
        }
        self
    }

    /// Adds an audience that an ID token of a [sign-in](crate::endpoints::SignIn) may have besides the
    /// client and this service's own audiences. The own ones count only if the issuer's
    /// [`audience_claims`](field@IssuerConfig::audience_claims) is `aud`; otherwise they may be other
    /// clients. May be repeated. Default: none, so an ID token with another audience is rejected (OpenID
    /// Connect Core §3.1.3.7). With more than one audience, `azp`
    /// must be the client. The price: the other service receives the same ID token, so trust only
    /// services that could not use it to sign in as the user.
    pub fn trusted_audience(mut self, name: impl Into<String>) -> Self {
        self.settings.trusted_audiences.push(name.into());
        self
    }

    /// Accepts tokens with these scopes although they were not requested; separated by spaces. May be
    /// repeated. Default: none. Use it for the scopes that a provider adds to every token: Keycloak, for
    /// example, adds `profile email`. A token with any other additional scope is still rejected. The
    /// price: a service that receives the token can use these scopes, too.
    pub fn accept_extra_scopes(mut self, scopes: &str) -> Self {
        if self.settings.answer.relaxed.extra_scopes.insert(scopes).is_err() {
            self.faults.push(Fault::new("accept_extra_scopes", "are not valid scopes"));
        }
        self
    }

    /// Accepts exchanged tokens with any `aud`, or without one, for providers that do not put the
    /// requested audiences into their tokens. Also applies to service tokens with an audience. The
    /// price: a token for one service may be sent to another.
    pub fn insecure_any_audience(mut self) -> Self {
        self.settings.answer.relaxed.audience = true;
        self
    }

    /// Accepts exchanged tokens of any user and tenant, for providers that use a different user id for
    /// each service (pairwise subjects). Also accepts tokens for codes and passwords of another tenant
    /// than the requested one, and sign-ins whose access token and ID token have different subjects. The
    /// price: a provider that confuses users or tenants is not detected.
    pub fn insecure_any_subject(mut self) -> Self {
        self.settings.answer.relaxed.subject = true;
        self
    }

    /// Accepts service tokens of another tenant than the requested one, for providers whose tenant claim
    /// has another meaning. The price: a token for one tenant may be used in another, and its data may
    /// get into the wrong tenant.
    pub fn insecure_any_service_tenant(mut self) -> Self {
        self.settings.answer.relaxed.service_tenant = true;
        self
    }

    /// Accepts JWTs whose claims this crate cannot read: with a repeated name, more than 1,024 members in
    /// an object, or more than 16 levels. The price: nothing in such a token is compared with the
    /// request. Another service may read a different user, tenant or audience in it. Without
    /// `expires_in` it is not cached. The claims of a subject token must still be readable; see
    /// [`insecure_any_subject`](Self::insecure_any_subject).
    pub fn insecure_unreadable_claims(mut self) -> Self {
        self.settings.answer.relaxed.claims = true;
        self
    }

    /// Accepts exchanged tokens without `issued_token_type`, for providers that omit this required
    /// member (RFC 8693 §2.2.1). The price: the client may take a token of another type for an access
    /// token.
    pub fn accept_untyped_tokens(mut self) -> Self {
        self.settings.answer.relaxed.issued_type = true;
        self
    }

    /// Accepts tokens whose `token_type` is `N_A` (RFC 8693 §2.2.1), for downstream services that do
    /// not expect the token in the `Authorization` header. [`is_bearer`](super::AccessToken::is_bearer)
    /// returns false for them.
    pub fn accept_non_bearer_tokens(mut self) -> Self {
        self.settings.answer.relaxed.token_type = true;
        self
    }

    /// Allows the cache to keep an exchanged token after its subject token has expired. Default: not
    /// allowed. The price: a user who signed out can still reach downstream services.
    pub fn insecure_outlive_subject(mut self) -> Self {
        self.settings.outlives_subject = true;
        self
    }

    /// Sets the lifetime of tokens without `expires_in` that are not JWTs with an `exp`. Default:
    /// unknown, so such tokens are not cached.
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.default_lifetime = Some(lifetime);
        self
    }

    /// Sets the cache. Default: a new [`MemoryCache`].
    pub fn cache(mut self, cache: impl TokenCache) -> Self {
        self.cache = Some(Arc::new(cache));
        self
    }

    /// Sets the keys that seal tokens in a shared cache and derive their cache keys. Required for a
    /// shared cache; unused without one.
    pub fn cache_keys(mut self, keys: SealingKeys) -> Self {
        self.cache_keys = Some(keys);
        self
    }

    /// Sets how long the client waits for a cache that does not answer. Default: 5 seconds. After that,
    /// an exchange or a request for a service token continues without the cache
    /// ([`RedisCache`](super::RedisCache) has a shorter limit). A request with a refresh token or code
    /// retries the cache for this long, and then fails with
    /// [`Unavailable`](super::ExchangeError::Unavailable).
    pub fn cache_timeout(mut self, timeout: Duration) -> Self {
        self.settings.cache_timeout = timeout;
        self
    }

    /// Uses refresh tokens and codes even while a shared cache does not answer. Default: not allowed.
    /// Safe for a service with one process. The price with more processes: while the cache is
    /// unavailable, two processes may spend the same refresh token, and the provider then ends the
    /// session (RFC 9700 §4.14.2).
    pub fn insecure_spend_without_lock(mut self) -> Self {
        self.settings.spends_without_lock = true;
        self
    }

    /// Limits the time of a request with its retry, from connecting to the last byte. Default: 10
    /// seconds. The same limit applies to reading metadata and to each lookup of
    /// [`token_urls`](Self::token_urls).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Shares the issuer's metadata with `issuers` ([`Auth::issuers`](crate::Auth::issuers)), so that
    /// it is read only once. Endpoints and sessions call this for you. Nothing is shared if `issuers`
    /// does not contain this issuer, reads its metadata from another URL, or does not need its
    /// metadata. Default: the client reads the metadata itself.
    pub fn issuers(mut self, issuers: &Issuers) -> Self {
        self.issuers = Some(issuers.clone());
        self
    }

    /// Sets the [revocations](crate::Auth::revocations) that the subject token and the actor token of a request are
    /// judged by, before a cached token is returned. Endpoints and sessions set those of their [`Auth`](crate::Auth),
    /// unless they are set. Default: none; a caller who holds a token that was revoked after its request began still
    /// gets cached tokens.
    ///
    /// A revoked token is refused with [`ExchangeError::Revoked`](super::ExchangeError::Revoked). *Not* judged are
    /// tokens whose claims cannot be read here: opaque and encrypted ones. An
    /// [`OutboundLayer`](crate::outbound::OutboundLayer) judges its caller, whatever the token.
    ///
    /// ```
    /// use scaikey_auth::issuer::ClientAuth;
    /// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
    ///
    /// fn client(auth: &Auth) -> Result<TokenExchangeClient, ConfigError> {
    ///     TokenExchangeClient::builder("https://scaikey.example")
    ///         .client_auth(ClientAuth::basic("docs", "the secret"))
    ///         .revocations(auth.revocations())
    ///         .build()
    /// }
    /// ```
    pub fn revocations(mut self, revocations: &Revocations) -> Self {
        self.revocations = Some(revocations.clone());
        self
    }

    /// Sets the clock. Default: the system clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = Arc::new(clock);
        self
    }

    /// Builds the client. Reads the [`ca_file`](Self::ca_file), to check it, and does no other I/O.
    ///
    /// # Errors
    /// All faults together:
    ///
    /// * [`client_auth`](Self::client_auth) is missing or cannot be used;
    /// * a URL is invalid, or is neither `https` nor allowed by
    ///   [`allow_loopback_http`](Self::allow_loopback_http) or
    ///   [`insecure_http_host`](Self::insecure_http_host);
    /// * the [`ca_file`](Self::ca_file) cannot be used, or there is an
    ///   [`http_client`](Self::http_client), too;
    /// * [`token_url`](Self::token_url) has `{tenant_id}` in its host, or another placeholder;
    /// * the configuration of [`from_config`](TokenExchangeClient::from_config) or
    ///   [`from_env`](TokenExchangeClient::from_env) is invalid;
    /// * a shared cache has no [`cache_keys`](Self::cache_keys);
    /// * the issuer has `{tenant_id}`, and none of [`token_url`](Self::token_url),
    ///   [`token_urls`](Self::token_urls) and [`discovery_url`](Self::discovery_url) is set;
    /// * [`discovery_url`](Self::discovery_url), [`revocation_url`](Self::revocation_url),
    ///   [`authorization_url`](Self::authorization_url) or [`end_session_url`](Self::end_session_url)
    ///   has `{tenant_id}`;
    /// * [`authorization_url`](Self::authorization_url) or [`end_session_url`](Self::end_session_url), which
    ///   browsers see, has a user name or password;
    /// * a [`trusted_audience`](Self::trusted_audience) is empty, or
    ///   [`accept_extra_scopes`](Self::accept_extra_scopes) is no list of scopes;
    /// * the [`timeout`](Self::timeout) is 0.
    pub fn build(self) -> Result<TokenExchangeClient, ConfigError> {
        let origin = self.origin.clone();
        self.build_checked().map_err(|error| error.named_by(&origin))
    }

    fn build_checked(mut self) -> Result<TokenExchangeClient, ConfigError> {
        let mut faults = std::mem::take(&mut self.faults);
        let metadata_urls = self.metadata_urls(&mut faults);
        let token_url_source = self.token_url_source(&mut faults);
        let revocation_url =
            self.tenantless_url("revocation_url", self.revocation_url.as_ref(), &mut faults);
        let authorization_url =
            self.browser_url("authorization_url", self.authorization_url.as_ref(), &mut faults);
        let end_session_url =
            self.browser_url("end_session_url", self.end_session_url.as_ref(), &mut faults);
        if self.settings.trusted_audiences.iter().any(String::is_empty) {
            faults.push(Fault::new("trusted_audiences", "has an empty entry: name an audience"));
        }
        if let Some(problem) = self.settings.plain_http.problem_of_hosts() {
            faults.push(Fault::new("insecure_http_hosts", problem));
        }
        if let Err(problem) = self.choose_ca_file() {
            faults.push(Fault::new(self.ca_field, problem));
        }
        if self.settings.timeout.is_zero() {
            faults.push(Fault::new("timeout", "is 0: set a positive timeout"));
        }
        if self.auth.is_none() && !faults.iter().any(|fault| fault.field.starts_with("client")) {
            faults.push(Fault::new("client_auth", "is missing: set the client authentication"));
        }
        if let Some(Err(problem)) = self.auth.as_ref().map(ClientAuth::check) {
            faults.push(Fault::new("client_auth", problem));
        }
        let cache = self.cache.take().unwrap_or_else(|| Arc::new(MemoryCache::default()));
        let keys = match self.cache_keys.take() {
            Some(keys) => {
                if !cache.is_shared() {
                    telemetry::cache_keys_unused();
                }
                Some(keys)
            }
            None if faults.iter().any(|fault| fault.field.contains("cache_keys")) => None,
            None if cache.is_shared() => {
                faults.push(Fault::new(
                    "cache_keys",
                    "is missing: a shared cache needs sealing keys (cache_keys, `P_CACHE_KEYS`)",
                ));
                None
            }
            None => Some(SealingKeys::random()?),
        };
        let (Some(auth), Some(keys), true) = (self.auth.take(), keys, faults.is_empty()) else {
            return Err(ConfigError::from_faults(faults).err().unwrap_or_else(|| {
                ConfigError::one(Fault::new("issuer", "is not a usable issuer URL"))
            }));
        };
        if !self.settings.plain_http.hosts.is_empty() {
            telemetry::insecure_http_hosts(&self.issuer, &self.settings.plain_http.hosts);
        }
        let fingerprint = self.fingerprint(&auth);
        let endpoint = TokenEndpoint {
            http: Http::new(self.http),
            settings: self.settings,
            metadata_urls,
            name: self.expected_issuer.unwrap_or(self.issuer),
            auth,
            token_url_source,
            revocation_url,
            authorization_url,
            end_session_url,
            breakers: Breakers::default(),
            metadata: Mutex::new(None),
            end_session: EndSessionSearch::default(),
            issuers: self.issuers.map(OnceLock::from).unwrap_or_default(),
            revocations: self.revocations.map(OnceLock::from).unwrap_or_default(),
        };
        let cached = CachedExchange::new(endpoint, cache, keys, fingerprint);
        Ok(TokenExchangeClient { cached: Arc::new(cached) })
    }

    fn metadata_urls(&self, faults: &mut Vec<Fault>) -> Vec<Url> {
        if self.discovery_url.is_some() {
            return self
                .tenantless_url("discovery_url", self.discovery_url.as_ref(), faults)
                .into_iter()
                .collect();
        }
        if self.issuer.contains(TENANT_PLACEHOLDER) {
            if !self.has_token_url() {
                let problem = "has {tenant_id}, so there is no single metadata document: \
                               set token_url (`P_TOKEN_URL`), token_urls (in code), or discovery_url \
                               (`P_DISCOVERY_URL`)";
                faults.push(Fault::new("issuer", problem));
            }
            return Vec::new();
        }
        self.url("issuer", &self.issuer, faults).map(|url| well_known(&url)).unwrap_or_default()
    }

    fn has_token_url(&self) -> bool {
        self.token_url.is_some() || self.token_urls.is_some()
    }

    fn token_url_source(&self, faults: &mut Vec<Fault>) -> TokenUrlSource {
        if let Some(urls) = &self.token_urls {
            return TokenUrlSource::PerTenant(urls.clone());
        }
        let Some(url) = &self.token_url else { return TokenUrlSource::Metadata };
        let filled = |tenant| url.replace(TENANT_PLACEHOLDER, tenant);
        let Some(one) = self.url("token_url", &filled("x"), faults) else {
            return TokenUrlSource::Metadata;
        };
        if !url.contains(TENANT_PLACEHOLDER) {
            return TokenUrlSource::Fixed(one);
        }
        if Url::parse(&filled("y")).is_ok_and(|other| one.origin() != other.origin()) {
            // A tenant must not choose the host that receives the credentials.
            faults.push(Fault::new("token_url", "may have {tenant_id} only in its path"));
        }
        TokenUrlSource::Template(url.clone())
    }

    /// Returns the fingerprint of all settings that affect the obtained tokens. Clients with different
    /// fingerprints share no cache entries.
    fn fingerprint(&self, auth: &ClientAuth) -> ClientFingerprint {
        let settings = &self.settings;
        let lifetime = settings.default_lifetime.map(|life| life.as_millis().to_string());
        let rules = settings.answer.fingerprint();
        let texts = [
            // The version of this list and of the encoding of cache keys.
            "4",
            self.expected_issuer.as_deref().unwrap_or(&self.issuer),
            auth.client_id(),
            self.token_url.as_deref().unwrap_or_default(),
            self.discovery_url.as_deref().unwrap_or_default(),
            lifetime.as_deref().unwrap_or_default(),
            settings.tenant_parameter.as_deref().unwrap_or_default(),
            settings.answer.requested_type.as_ref().map_or("", TokenType::as_str),
            if settings.outlives_subject { "yes" } else { "no" },
        ];
        let texts = texts.into_iter().chain(rules.iter().map(String::as_str));
        ClientFingerprint::new(texts, settings.spends_without_lock)
    }

    /// Parses a URL that must not have `{tenant_id}`.
    fn tenantless_url(
        &self,
        field: &str,
        text: Option<&String>,
        faults: &mut Vec<Fault>,
    ) -> Option<Url> {
        let text = text?;
        if text.contains(TENANT_PLACEHOLDER) {
            let problem =
                "has {tenant_id}, which only token_url may have: set one URL for all tenants";
            faults.push(Fault::new(field, problem));
            return None;
        }
        self.url(field, text, faults)
    }

    /// Parses a URL to which browsers are redirected, so that it must have no secret.
    fn browser_url(
        &self,
        field: &str,
        text: Option<&String>,
        faults: &mut Vec<Fault>,
    ) -> Option<Url> {
        let url = self.tenantless_url(field, text, faults)?;
        if has_user_information(&url) {
            let problem = "has a user name or password, which every browser would see: remove it";
            faults.push(Fault::new(field, problem));
            return None;
        }
        Some(url)
    }

    fn url(&self, field: &str, text: &str, faults: &mut Vec<Fault>) -> Option<Url> {
        let problem = match field {
            "issuer" if text.is_empty() => Some(MISSING_ISSUER.to_owned()),
            _ if has_other_placeholder(text) => Some(OTHER_PLACEHOLDER.to_owned()),
            _ => problem_of_document(field, text),
        };
        if let Some(problem) = problem {
            faults.push(Fault::new(field, problem));
            return None;
        }
        let url =
            Url::parse(text).map_err(|_| "is not a URL: write it as https://host/path".to_owned());
        let url = url.and_then(|url| self.settings.plain_http.check(&url).map(|()| url));
        url.map_err(|problem| faults.push(Fault::new(field, problem))).ok()
    }

    /// Sets the CA file to that of the issuer if the client has none, and checks it.
    fn choose_ca_file(&mut self) -> Result<(), String> {
        let file = &mut self.settings.route.ca_file;
        match (&self.http, &file) {
            (Some(_), Some(_)) => return Err(HAS_OWN_CLIENT.to_owned()),
            (Some(_), None) => return Ok(()),
            (None, Some(_)) => {}
            (None, None) => *file = self.ca_of_issuer.take(),
        }
        file.as_deref().map_or(Ok(()), check_ca_file)
    }
}

/// Reads the `requested_token_type` from the configuration. `None` omits the parameter.
fn requested_type(text: Option<&str>) -> Result<Option<TokenType>, Fault> {
    match text {
        None | Some("jwt") => Ok(Some(TokenType::Jwt)),
        Some("access_token") => Ok(Some(TokenType::AccessToken)),
        Some("none") => Ok(None),
        Some(uri) if Url::parse(uri).is_ok() => Ok(Some(TokenType::Other(uri.to_owned()))),
        Some(_) => {
            let problem = "must be `jwt`, `access_token`, `none` or a URI";
            Err(Fault::new("client.requested_token_type", problem))
        }
    }
}

/// Returns a memory cache in front of the Redis server at these URLs.
#[cfg(feature = "redis")]
fn redis_cache(urls: &SecretSource) -> Result<Arc<dyn TokenCache>, ConfigError> {
    let redis = super::RedisCache::open_source(urls)?;
    Ok(Arc::new(super::TieredCache::new(MemoryCache::default(), redis)))
}

#[cfg(not(feature = "redis"))]
fn redis_cache(_: &SecretSource) -> Result<Arc<dyn TokenCache>, ConfigError> {
    Err(ConfigError::one(Fault::new("redis_url", "needs the cargo feature `redis`")))
}
