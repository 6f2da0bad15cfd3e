//! [`TokenExchangeBuilder`]: how a [`TokenExchangeClient`] is to be.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use url::Url;

use super::breaker::Breakers;
use super::cache::{ClientFingerprint, MemoryCache, TokenCache};
use super::cached::CachedExchange;
use super::contract::Relaxed;
use super::endpoint::{TokenEndpoint, TokenUrlSource, TokenUrls, may_receive_credentials};
use super::{TokenExchangeClient, TokenType};
use crate::clock::{Clock, SystemClock};
use crate::config::{
    AuthConfig, ClientAuthMethod, ClientConfig, ConfigError, Fault, IssuerConfig,
    OTHER_PLACEHOLDER, TENANT_PLACEHOLDER, has_other_placeholder,
};
use crate::issuer::{ClientAuth, Http, Issuers, SecretSource, well_known};
use crate::support::seal::SealingKeys;
use crate::support::secret::Secret;

/// What the parts of a client go by, as the setters say it.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) requested_type: Option<TokenType>,
    pub(super) tenant_parameter: Option<String>,
    pub(super) allows_passwords: bool,
    pub(super) allow_loopback_http: bool,
    pub(super) relaxed: Relaxed,
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
            requested_type: Some(TokenType::Jwt),
            tenant_parameter: None,
            allows_passwords: false,
            allow_loopback_http: false,
            relaxed: Relaxed::default(),
            outlives_subject: false,
            default_lifetime: None,
            cache_timeout: Duration::from_secs(5),
            spends_without_lock: false,
            timeout: Duration::from_secs(10),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// Sets up a [`TokenExchangeClient`]. Made by [`TokenExchangeClient::builder`].
#[derive(Debug, Clone)]
#[must_use = "a client exists only once it is built"]
pub struct TokenExchangeBuilder {
    issuer: String,
    expected_issuer: Option<String>,
    discovery_url: Option<String>,
    auth: Option<ClientAuth>,
    token_url: Option<String>,
    token_urls: Option<Arc<dyn TokenUrls>>,
    revocation_url: Option<String>,
    authorization_url: Option<String>,
    settings: Settings,
    cache: Option<Arc<dyn TokenCache>>,
    cache_keys: Option<SealingKeys>,
    issuers: Option<Issuers>,
    /// What could not be read on the way here.
    faults: Vec<Fault>,
    /// The prefix of the environment variables this came from, so that faults name them.
    prefix: Option<String>,
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
            settings: Settings::default(),
            cache: None,
            cache_keys: None,
            issuers: None,
            faults: Vec::new(),
            prefix: None,
        }
    }

    pub(super) fn from_config(config: &AuthConfig) -> Self {
        let issuer = config.issuers.first().cloned().unwrap_or_else(|| IssuerConfig::new(""));
        let mut builder = Self::new(issuer.issuer);
        builder.expected_issuer = issuer.expected_issuer;
        builder.discovery_url = issuer.discovery_url;
        builder.settings.allow_loopback_http = issuer.allow_loopback_http;
        builder.prefix = config.prefix.clone();
        builder.faults = config.unreadable.clone();
        builder.settings.allows_passwords = config.endpoints.password_grant;
        let client = &config.client;
        builder.token_url = client.token_url.clone();
        builder.authorization_url = client.authorization_url.clone();
        builder.settings.tenant_parameter = client.tenant_parameter.clone();
        builder.settings.spends_without_lock = client.insecure_spend_without_lock;
        match client_auth(client) {
            Ok(auth) => builder.auth = Some(auth),
            Err(fault) => builder.faults.push(fault),
        }
        match client.cache_keys.as_ref().map(SealingKeys::parse).transpose() {
            Ok(keys) => builder.cache_keys = keys,
            Err(error) => builder.faults.push(Fault::new("cache_keys", error.to_string())),
        }
        match client.redis_url.as_ref().map(redis_cache).transpose() {
            Ok(cache) => builder.cache = cache,
            Err(error) => builder.faults.extend_from_slice(error.faults()),
        }
        builder
    }

    /// How the provider's metadata spells its issuer, when it is not the URL it is found under.
    pub fn expected_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.expected_issuer = Some(issuer.into());
        self
    }

    /// The metadata document. Default: the well-known metadata_urls under the issuer's URL.
    pub fn discovery_url(mut self, url: impl Into<String>) -> Self {
        self.discovery_url = Some(url.into());
        self
    }

    /// How the service proves itself. Needed.
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// The token endpoint. Default: what the issuer's metadata names, read again every hour.
    /// `{tenant_id}` in it stands for the tenant of the request, which must name one then.
    pub fn token_url(mut self, url: impl Into<String>) -> Self {
        self.token_url = Some(url.into());
        self
    }

    /// The token endpoint of each tenant, where the id alone does not tell. Takes the token_url_source of
    /// [`token_url`](Self::token_url).
    pub fn token_urls(mut self, urls: impl TokenUrls) -> Self {
        self.token_urls = Some(Arc::new(urls));
        self
    }

    /// The revocation endpoint. Default: what the issuer's metadata names.
    pub fn revocation_url(mut self, url: impl Into<String>) -> Self {
        self.revocation_url = Some(url.into());
        self
    }

    /// The authorization endpoint, where users sign in. Default: what the issuer's metadata names.
    pub fn authorization_url(mut self, url: impl Into<String>) -> Self {
        self.authorization_url = Some(url.into());
        self
    }

    /// `requested_token_type` of exchanges. Default [`TokenType::Jwt`]; `None` leaves it out, for
    /// providers that refuse it.
    pub fn requested_token_type(mut self, kind: Option<TokenType>) -> Self {
        self.settings.requested_type = kind;
        self
    }

    /// The form member that tells the provider the tenant of a service token. Default: none.
    pub fn tenant_parameter(mut self, name: impl Into<String>) -> Self {
        self.settings.tenant_parameter = Some(name.into());
        self
    }

    /// Allows [`TokenExchangeClient::password`]. Default: off.
    pub fn enable_password_grant(mut self) -> Self {
        self.settings.allows_passwords = true;
        self
    }

    /// Allows `http://` on the loopback interface, for development. Default: no.
    pub fn allow_loopback_http(mut self, allow: bool) -> Self {
        self.settings.allow_loopback_http = allow;
        self
    }

    /// Takes what an exchange gives whatever its `aud`, for providers whose tokens name none or
    /// call the service something else. The price: a token meant for one service may be sent to
    /// another.
    pub fn insecure_any_audience(mut self) -> Self {
        self.settings.relaxed.audience = true;
        self
    }

    /// Takes what an exchange gives whatever its `sub` and `tenant_id`, for providers that call a
    /// user something else at each service. The price: a provider that mixes up users or tenants
    /// is not noticed.
    pub fn insecure_any_subject(mut self) -> Self {
        self.settings.relaxed.subject = true;
        self
    }

    /// Takes what an exchange gives without `issued_token_type`, for providers that leave it out
    /// although RFC 8693 §2.2.1 requires it. The price: something that is no access token may be
    /// taken for one.
    pub fn accept_untyped_tokens(mut self) -> Self {
        self.settings.relaxed.issued_type = true;
        self
    }

    /// Takes what an exchange gives with a `token_type` of `N_A`, for services downstream that want
    /// such tokens elsewhere than in `Authorization` (RFC 8693 §2.2.1):
    /// [`is_bearer`](super::AccessToken::is_bearer) tells.
    pub fn accept_other_token_types(mut self) -> Self {
        self.settings.relaxed.token_type = true;
        self
    }

    /// Keeps a token beyond the end of the subject token it was exchanged for. Default: no. The
    /// price: a user who has signed out goes on downstream.
    pub fn insecure_outlive_subject(mut self) -> Self {
        self.settings.outlives_subject = true;
        self
    }

    /// How long a token lives that comes without `expires_in` and is no JWT with an `exp`. Default:
    /// unknown, so it is not kept.
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.default_lifetime = Some(lifetime);
        self
    }

    /// Where tokens are kept. Default: a [`MemoryCache`] of its own.
    pub fn cache(mut self, cache: impl TokenCache) -> Self {
        self.cache = Some(Arc::new(cache));
        self
    }

    /// Under which secrets tokens are sealed and filed in a cache that other processes share.
    /// Needed for such a cache, and of no use without one.
    pub fn cache_keys(mut self, keys: SealingKeys) -> Self {
        self.cache_keys = Some(keys);
        self
    }

    /// How long a cache that gives no answer is waited for. Default: 5 seconds. Each call of an
    /// exchange or for a service token takes no longer, and goes on without; [`RedisCache`](super::RedisCache) gives up
    /// sooner by itself. A refresh or a code asks again for so long, and fails then with
    /// [`Unavailable`](super::ExchangeError::Unavailable).
    pub fn cache_timeout(mut self, timeout: Duration) -> Self {
        self.settings.cache_timeout = timeout;
        self
    }

    /// Spends refresh tokens and codes also while a shared cache gives no answer: once in each
    /// process. Default: no, they are not spent. Right for a service of one process. The price
    /// with more: while the cache is away two processes may spend the same refresh token, and the
    /// provider ends that session (RFC 9700 §4.14.2).
    pub fn insecure_spend_without_lock(mut self) -> Self {
        self.settings.spends_without_lock = true;
        self
    }

    /// How long a request may take, from connecting to the last byte. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Shares the issuer's metadata with those who verify its tokens (`Auth::issuers`), so that they
    /// are read once for both. Endpoints and sessions do so by themselves. Nothing else is shared,
    /// and nothing at all where `issuers` does not list this issuer, looks for its metadata
    /// elsewhere, or needs none. Default: the client reads them for itself.
    pub fn issuers(mut self, issuers: &Issuers) -> Self {
        self.issuers = Some(issuers.clone());
        self
    }

    /// Where the time comes from. Default: the system.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = Arc::new(clock);
        self
    }

    /// The client. Does no I/O.
    ///
    /// # Errors
    /// All faults at once: no [`client_auth`](Self::client_auth), a URL that is none or that is
    /// neither `https` nor an allowed loopback one, a shared cache without
    /// [`cache_keys`](Self::cache_keys), an issuer with `{tenant_id}` without
    /// [`token_url`](Self::token_url) or [`token_urls`](Self::token_urls), `{tenant_id}` in another URL
    /// than that, a [`timeout`](Self::timeout) of 0.
    pub fn build(self) -> Result<TokenExchangeClient, ConfigError> {
        let prefix = self.prefix.clone();
        self.build_checked().map_err(|error| error.named(prefix.as_deref()))
    }

    fn build_checked(mut self) -> Result<TokenExchangeClient, ConfigError> {
        let mut faults = std::mem::take(&mut self.faults);
        let metadata_urls = self.metadata_urls(&mut faults);
        let token_url_source = self.token_url_source(&mut faults);
        let revocation_url =
            self.tenantless_url("revocation_url", self.revocation_url.as_ref(), &mut faults);
        let authorization_url =
            self.tenantless_url("authorization_url", self.authorization_url.as_ref(), &mut faults);
        if self.settings.timeout.is_zero() {
            faults.push(Fault::new("timeout", "is 0: no request could be answered in time"));
        }
        if self.auth.is_none() && !faults.iter().any(|fault| fault.field.starts_with("client")) {
            faults.push(Fault::new("client_auth", "is missing: say how the service proves itself"));
        }
        if let Some(Err(problem)) = self.auth.as_ref().map(ClientAuth::check) {
            faults.push(Fault::new("client_auth", problem));
        }
        let cache = self.cache.take().unwrap_or_else(|| Arc::new(MemoryCache::default()));
        let keys = match self.cache_keys.take() {
            Some(keys) => Some(keys),
            None if cache.is_shared() => {
                faults.push(Fault::new("cache_keys", "is missing: a shared cache needs them"));
                None
            }
            None => Some(SealingKeys::random()?),
        };
        let (Some(auth), Some(keys), true) = (self.auth.take(), keys, faults.is_empty()) else {
            return Err(ConfigError::from_faults(faults)
                .err()
                .unwrap_or_else(|| ConfigError::one(Fault::new("issuer", "cannot be used"))));
        };
        let fingerprint = self.fingerprint(&auth);
        let endpoint = TokenEndpoint {
            http: Http::default(),
            settings: self.settings,
            metadata_urls,
            name: self.expected_issuer.unwrap_or(self.issuer),
            auth,
            token_url_source,
            revocation_url,
            authorization_url,
            breakers: Breakers::default(),
            metadata: Mutex::new(None),
            issuers: self.issuers.map(OnceLock::from).unwrap_or_default(),
        };
        let cached = CachedExchange::new(endpoint, cache, keys, fingerprint);
        Ok(TokenExchangeClient { cached: Arc::new(cached) })
    }

    /// Where metadata is looked for.
    fn metadata_urls(&self, faults: &mut Vec<Fault>) -> Vec<Url> {
        if self.discovery_url.is_some() {
            return self
                .tenantless_url("discovery_url", self.discovery_url.as_ref(), faults)
                .into_iter()
                .collect();
        }
        if self.issuer.contains(TENANT_PLACEHOLDER) {
            if !self.has_token_url() {
                let problem = "stands for one issuer per tenant, and that has no metadata: \
                               set token_url (`P_TOKEN_URL`), or discovery_url (`P_DISCOVERY_URL`)";
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
        if has_other_placeholder(url) {
            faults.push(Fault::new("token_url", OTHER_PLACEHOLDER));
        }
        let filled = |tenant| url.replace(TENANT_PLACEHOLDER, tenant);
        let Some(one) = self.url("token_url", &filled("x"), faults) else {
            return TokenUrlSource::Metadata;
        };
        if !url.contains(TENANT_PLACEHOLDER) {
            return TokenUrlSource::Fixed(one);
        }
        if Url::parse(&filled("y")).is_ok_and(|other| one.origin() != other.origin()) {
            // Credentials go to the hosts that were configured and to no others.
            faults.push(Fault::new("token_url", "may have {tenant_id} in its path only"));
        }
        TokenUrlSource::Template(url.clone())
    }

    /// All settings that a token depends on: two clients that differ in one share no tokens.
    fn fingerprint(&self, auth: &ClientAuth) -> ClientFingerprint {
        let settings = &self.settings;
        let lifetime = settings.default_lifetime.map(|life| life.as_millis().to_string());
        let texts = [
            // The version of what follows, and of the keys made with it.
            "3",
            self.expected_issuer.as_deref().unwrap_or(&self.issuer),
            auth.client_id(),
            self.token_url.as_deref().unwrap_or_default(),
            self.discovery_url.as_deref().unwrap_or_default(),
            lifetime.as_deref().unwrap_or_default(),
            settings.tenant_parameter.as_deref().unwrap_or_default(),
            settings.requested_type.as_ref().map_or("", TokenType::as_str),
        ];
        let Relaxed { audience, subject, issued_type, token_type } = settings.relaxed;
        let flags = [audience, subject, issued_type, token_type, settings.outlives_subject];
        let flags = flags.map(|is_on| if is_on { "yes" } else { "no" });
        ClientFingerprint::new(texts.into_iter().chain(flags), settings.spends_without_lock)
    }

    /// A URL in which no tenant is filled in.
    fn tenantless_url(
        &self,
        field: &str,
        text: Option<&String>,
        faults: &mut Vec<Fault>,
    ) -> Option<Url> {
        let text = text?;
        if text.contains(TENANT_PLACEHOLDER) {
            let problem =
                "has {tenant_id}, which is filled in token_url alone: give one URL for all";
            faults.push(Fault::new(field, problem));
            return None;
        }
        self.url(field, text, faults)
    }

    fn url(&self, field: &str, text: &str, faults: &mut Vec<Fault>) -> Option<Url> {
        let url = Url::parse(text)
            .ok()
            .filter(|url| may_receive_credentials(url, self.settings.allow_loopback_http));
        if url.is_none() {
            faults.push(Fault::new(field, "is not an https URL"));
        }
        url
    }
}

const NO_KEY_FILE: &str = "is missing: private_key_jwt needs the file with the private key";

/// How the configuration says the service proves itself.
fn client_auth(client: &ClientConfig) -> Result<ClientAuth, Fault> {
    let missing = |field: &str, problem: &str| Fault::new(format!("client.{field}"), problem);
    let id = client.id.as_deref().filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| missing("id", "is missing: give this service's client_id"))?;
    let secret = || match (&client.secret, &client.secret_file) {
        (Some(_), Some(_)) => Err(missing("secret_file", "is set beside the secret: choose one")),
        (Some(secret), None) => Ok(SecretSource::Value(secret.clone())),
        (None, Some(file)) => Ok(SecretSource::File(file.clone())),
        (None, None) => Err(missing(
            "secret",
            "is missing: set it, or secret_file (`P_CLIENT_SECRET_FILE`), or for a client without \
             secret auth = none (`P_CLIENT_AUTH=none`)",
        )),
    };
    Ok(match client.auth {
        ClientAuthMethod::Basic => ClientAuth::basic(id, secret()?),
        ClientAuthMethod::Post => ClientAuth::post(id, secret()?),
        ClientAuthMethod::None => ClientAuth::none(id),
        ClientAuthMethod::PrivateKeyJwt => {
            let file = client.key_file.clone().ok_or_else(|| missing("key_file", NO_KEY_FILE))?;
            let (algorithm, kid) = (client.key_algorithm, client.key_id.as_deref());
            ClientAuth::private_key_jwt(id, algorithm, kid, SecretSource::File(file))
        }
    })
}

/// The cache behind this URL, with a memory in front of it.
#[cfg(feature = "redis")]
fn redis_cache(url: &Secret) -> Result<Arc<dyn TokenCache>, ConfigError> {
    let redis = super::RedisCache::open(url)?;
    Ok(Arc::new(super::TieredCache::new(MemoryCache::default(), redis)))
}

#[cfg(not(feature = "redis"))]
fn redis_cache(_: &Secret) -> Result<Arc<dyn TokenCache>, ConfigError> {
    Err(ConfigError::one(Fault::new("redis_url", "needs the cargo feature `redis`")))
}
