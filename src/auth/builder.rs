//! [`AuthBuilder`]: builds an [`Auth`] from a configuration and settings in code.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Auth, Inner, revocations};
use crate::admission::{AdmissionCheck, AdmissionChecks};
use crate::clock::{Clock, SystemClock};
use crate::config::{AuthConfig, AuthMode, ConfigError, Fault, IssuerConfig, MockUser, Resource};
use crate::error::{Challenge, Challenger, DEFAULT_REALM};
use crate::issuer::{ClientAuth, HttpClient, KeySets, TenantIssuers};
use crate::proof::{ProofVerifier, ProofVerifiers};
use crate::revocation::Revocations;
use crate::support::telemetry::{self, Outage};
use crate::tenant::{AnyTenant, TenantResolver};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::tenant::{CachedTenants, SqlTenants};
use crate::validator::opaque::{self, OpaqueValidator};
use crate::validator::{
    GroupSource, IntrospectedTokens, JwksValidator, OpaqueTokens, SyntaxChecked, TokenValidator,
};

/// A builder for [`Auth`]. [`build`](Self::build) does no network I/O.
///
/// [`Auth::builder`] creates it; [`Auth::from_env`] and [`Auth::from_config`] create it with the settings that
/// they read, which the setters then change. [`build`](Self::build) reports all faults together.
///
/// ```
/// use scaikey_auth::tenant::MemoryTenants;
/// use scaikey_auth::{Auth, IssuerConfig, Tenant};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tenants = MemoryTenants::from_iter([Tenant::new("acme".parse()?)]);
/// let auth = Auth::builder()
///     .issuer(IssuerConfig::keycloak("https://keycloak.example/realms/main"))
///     .audience("docs")
///     .tenants(tenants)
///     .unknown_tenant_is_not_found()
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is protected before `build()`"]
pub struct AuthBuilder {
    config: AuthConfig,
    validators: Vec<Arc<dyn TokenValidator>>,
    proofs: Vec<Arc<dyn ProofVerifier>>,
    revocations: Option<Revocations>,
    admission: Vec<Arc<dyn AdmissionCheck>>,
    tenant_issuers: Vec<(IssuerConfig, Arc<dyn TenantIssuers>)>,
    tenants: Option<Arc<dyn TenantResolver>>,
    challenges: Vec<Challenge>,
    clock: Option<Arc<dyn Clock>>,
    insecure_http_hosts: Vec<String>,
    http: Option<Arc<dyn HttpClient>>,
    group_sources: Vec<(String, Arc<dyn GroupSource>)>,
    opaque_tokens: Vec<OpaqueTokens>,
}

impl AuthBuilder {
    pub(super) fn new(mut config: AuthConfig) -> Self {
        if config.origin.prefix().is_none() {
            config.add_notices_of_unused_settings();
        }
        Self {
            config,
            validators: Vec::new(),
            proofs: Vec::new(),
            revocations: None,
            admission: Vec::new(),
            tenant_issuers: Vec::new(),
            tenants: None,
            challenges: Vec::new(),
            clock: None,
            insecure_http_hosts: Vec::new(),
            http: None,
            group_sources: Vec::new(),
            opaque_tokens: Vec::new(),
        }
    }

    /// Sets the mode, which selects the built-in validators. Default: [`AuthMode::ScaiKey`].
    pub fn mode(mut self, mode: AuthMode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Trusts an issuer: its URL, or an [`IssuerConfig`] with details. May be repeated.
    pub fn issuer(mut self, issuer: impl Into<IssuerConfig>) -> Self {
        self.config.issuers.push(issuer.into());
        self
    }

    /// Trusts the issuer that the environment variables with `prefix` describe, in addition to the others: see
    /// [`AuthConfig::issuer_from_env`].
    pub fn issuer_from_env(mut self, prefix: &str) -> Self {
        self.config = self.config.issuer_from_env(prefix);
        self
    }

    /// Trusts one issuer per tenant. `resolver` finds the issuer of a tenant. The placeholder
    /// `{tenant_id}` in the template's `iss` is replaced by the tenant's id.
    pub fn tenant_issuers(
        mut self,
        template: impl Into<IssuerConfig>,
        resolver: impl TenantIssuers,
    ) -> Self {
        let mut template = template.into();
        template.has_resolver = true;
        self.config.issuers.push(template.clone());
        self.tenant_issuers.push((template, Arc::new(resolver)));
        self
    }

    /// Allows `http` URLs with this host (`host` or `host:port`), and no other, for all issuers of this
    /// builder. May be repeated. See
    /// [`IssuerConfig::insecure_http_hosts`](field@IssuerConfig::insecure_http_hosts) for the price.
    /// Default: only `https`.
    pub fn insecure_http_host(mut self, host: impl Into<String>) -> Self {
        self.insecure_http_hosts.push(host.into());
        self
    }

    /// Fetches metadata and keys, and asks about [opaque tokens](Self::opaque_tokens), with this client, for
    /// example a [`reqwest::Client`]. Then its
    /// certificates, proxies and redirects count: see [`HttpClient`] for the checks that remain. No
    /// issuer may have a [`ca_file`](field@IssuerConfig::ca_file) then. Default: a client of this crate.
    pub fn http_client(mut self, client: impl HttpClient) -> Self {
        self.http = Some(Arc::new(client));
        self
    }

    /// Adds an accepted value of `aud`. At least one is required.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.config.audience.push(audience.into());
        self
    }

    /// Sets the `realm` of challenges. Default: the first audience of the service, or else of the
    /// first issuer, or else `scaikey`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.config.realm = Some(realm.into());
        self
    }

    /// Adds a challenge for a scheme other than `Bearer`, such as the API keys that a
    /// [`TokenSource::Custom`](crate::layer::TokenSource::Custom) reads. May be repeated. Every 401
    /// response has this challenge in a separate `WWW-Authenticate` header (RFC 9110 §11.6.1).
    /// Default: none.
    ///
    /// ```
    /// use scaikey_auth::Auth;
    /// use scaikey_auth::error::Challenge;
    ///
    /// let auth = Auth::builder().challenge(Challenge::new("ApiKey").param("realm", "scaiwave"));
    /// ```
    pub fn challenge(mut self, challenge: Challenge) -> Self {
        self.challenges.push(challenge);
        self
    }

    /// Sets the public URL of this service. Challenges then contain the URL of the service's
    /// metadata (`resource_metadata`, RFC 9728 §5.1), and the [`endpoints`](Auth::endpoints)
    /// publish the metadata.
    pub fn resource(mut self, url: impl Into<String>) -> Self {
        self.config.resource = Some(url.into());
        self
    }

    /// Sets the scopes that this service publishes in its metadata (`scopes_supported`, RFC 9728
    /// §2), separated by spaces. [`build`](Self::build) reports an invalid scope. Default: none.
    /// The scopes that a sign-in requests are a different setting.
    pub fn resource_scopes(mut self, scopes: &str) -> Self {
        match scopes.parse() {
            Ok(scopes) => self.config.resource_scopes = scopes,
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                self.config.unreadable.push(Fault::new("resource_scopes", problem));
            }
        }
        self
    }

    /// Sets the tenant store. Wrap a store in [`CachedTenants`](crate::tenant::CachedTenants),
    /// unless it returns without waiting.
    ///
    /// Default: with [`database_url`](field@AuthConfig::database_url) in the configuration, `SqlTenants` in a
    /// [`CachedTenants`](crate::tenant::CachedTenants), unless the database is for the trust policy only; otherwise
    /// [`AnyTenant`], which accepts every tenant that a verified token names. If the URL of an issuer contains
    /// `{tenant_id}`, and the issuer has neither a list of tenants nor a resolver, [`AnyTenant`] is not the default,
    /// and [`build`](Self::build) fails. To accept all tenants, set [`AnyTenant`] explicitly.
    pub fn tenants(mut self, tenants: impl TenantResolver) -> Self {
        self.tenants = Some(Arc::new(tenants));
        self
    }

    /// Accepts tokens without a tenant. Default: they are refused with 403. Handlers then take
    /// `Option<Tenant>`, because the extractor [`Tenant`](crate::Tenant) still requires one.
    pub fn tenant_optional(mut self) -> Self {
        self.config.tenant_required = false;
        self
    }

    /// Answers 404 instead of 403 if the tenant of the token does not exist. Default: 403.
    pub fn unknown_tenant_is_not_found(mut self) -> Self {
        self.config.unknown_tenant_is_not_found = true;
        self
    }

    /// Sets the maximum size of the [cache of verified tokens](crate::validator::VerifiedTokens),
    /// in bytes. Default: 16 MiB, for about 15,000 tokens. With 0, every request verifies its
    /// token.
    pub fn verified_tokens_bytes(mut self, limit: usize) -> Self {
        self.config.verified_tokens_bytes = limit;
        self
    }

    /// Adds a validator, for example for opaque tokens. It runs before the built-in validators, on
    /// each token that it [accepts](TokenValidator::accepts). May be repeated: the first validator
    /// that accepts a token decides.
    pub fn validator(mut self, validator: impl TokenValidator) -> Self {
        self.validators.push(Arc::new(SyntaxChecked(validator)));
        self
    }

    /// Accepts tokens that are bound to a key, if this verifier verifies the request's proof of
    /// possession. May be repeated, for keys of different kinds. Default: none, so bound tokens are
    /// refused.
    pub fn proof_verifier(mut self, verifier: impl ProofVerifier) -> Self {
        self.proofs.push(Arc::new(verifier));
        self
    }

    /// Sets the [revocations](Auth::revocations), to share them with another [`Auth`] or with other processes, or to
    /// change their limits. Default: with [`revocation_log`](field@AuthConfig::revocation_log) in the configuration,
    /// those of this log; otherwise in memory, for this process; by the [clock](Self::clock) of the service.
    pub fn revocations(mut self, revocations: Revocations) -> Self {
        self.revocations = Some(revocations);
        self
    }

    /// Adds a check that runs on each request with a valid token, before the tenant lookup. May be
    /// repeated: all checks must allow the request. Default: none. A check that does not decide in
    /// [`try_admit`](AdmissionCheck::try_admit) costs each request a heap allocation.
    pub fn admission(mut self, check: impl AdmissionCheck) -> Self {
        self.admission.push(Arc::new(check));
        self
    }

    /// Sets the source of groups that `issuer` left out of a token because there are too many (Entra ID). It is
    /// asked once for each such token, and its answer is cached with the verified token. May be repeated, for
    /// other issuers. Default: none; such a caller is then in no group. Tokens of your own
    /// [validators](Self::validator) do not use it.
    ///
    /// `issuer` is the `iss` of a configured issuer ([`IssuerConfig::expected`]), with `{tenant_id}` if the
    /// configuration has it. [`build`](Self::build) logs a warning about another one. The source is asked for
    /// tokens of this issuer only: users of another issuer could otherwise write the claims of one of its
    /// users, and get that user's groups.
    pub fn group_source(mut self, issuer: impl Into<String>, source: impl GroupSource) -> Self {
        self.group_sources.push((issuer.into(), Arc::new(source)));
        self
    }

    /// Accepts opaque tokens of a configured issuer, about which its introspection endpoint is asked (RFC 7662).
    /// May be repeated, for other issuers. Default: none. Mock mode does not use it. See [`OpaqueTokens`] for the
    /// rules, and the page [opaque tokens](crate::manual::opaque).
    ///
    /// They are found by their prefix, or by having no dots as JWTs have, and come after your own
    /// [validators](Self::validator) and before JWTs. An issuer that is [added](crate::issuer::Issuers::add) while the
    /// service runs cannot have opaque tokens; those of a [removed](crate::issuer::Issuers::remove) one are refused.
    pub fn opaque_tokens(mut self, tokens: OpaqueTokens) -> Self {
        self.opaque_tokens.push(tokens);
        self
    }

    /// Sets the user that every caller becomes in mock mode, and every caller with a mock token in
    /// hybrid mode. Default: [`MockUser::default`].
    pub fn mock_user(mut self, user: MockUser) -> Self {
        self.config.mock = user;
        self
    }

    /// Allows mock and hybrid mode in every environment. Without it, [`build`](Self::build) refuses
    /// these modes in Kubernetes; if an environment variable such as `APP_ENV` names an environment
    /// other than development, test, staging or local; and in a release build, unless such a
    /// variable is set. With it, every caller is signed in (mock mode), or every caller can be the
    /// mock user (hybrid mode).
    pub fn insecure_allow_mock_in_production(mut self) -> Self {
        self.config.insecure_allow_mock_in_production = true;
        self
    }

    /// Allows mock and hybrid mode in Kubernetes, for a cluster that only developers can reach. Default: not
    /// allowed. An environment variable such as `APP_ENV` must then name a development, test, staging or local
    /// environment, in debug builds too: the same binary refuses these modes in a cluster that names none, or
    /// another. Every workload in the cluster that reaches the service can act as the mock user.
    ///
    /// ```
    /// # #[cfg(feature = "mock")]
    /// # fn main() -> Result<(), scaikey_auth::ConfigError> {
    /// use scaikey_auth::{Auth, AuthMode};
    ///
    /// // The deployment sets APP_ENV=development.
    /// let auth = Auth::builder().mode(AuthMode::Mock).insecure_allow_mock_in_kubernetes().build()?;
    /// # Ok(()) }
    /// # #[cfg(not(feature = "mock"))]
    /// # fn main() {}
    /// ```
    pub fn insecure_allow_mock_in_kubernetes(mut self) -> Self {
        self.config.insecure_allow_mock_in_kubernetes = true;
        self
    }

    /// Sets the clock. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Checks the configuration and builds the [`Auth`]. Reads the files with keys, CA certificates of issuers
    /// and secrets that the configuration names, also secrets that only other parts of the service use. Does no
    /// other I/O: [`Auth::ready`] fetches the keys, or else the first token causes the fetch.
    ///
    /// # Errors
    /// All faults of the configuration together. If there are none: an invalid template of
    /// [`tenant_issuers`](Self::tenant_issuers), an invalid realm, or an unusable `database_url`.
    pub fn build(self) -> Result<Auth, ConfigError> {
        let Self { mut config, mut validators, proofs, admission, mut tenant_issuers, .. } = self;
        let (tenants, challenges, clock) = (self.tenants, self.challenges, self.clock);
        let templates = tenant_issuers.iter_mut().map(|(template, _)| template);
        for issuer in config.issuers.iter_mut().chain(templates) {
            issuer.insecure_http_hosts.extend_from_slice(&self.insecure_http_hosts);
        }
        // An explicit tenant store, even `AnyTenant`, is a deliberate choice.
        config.any_tenant |= tenants.is_some();
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        config.has_own_revocations = self.revocations.is_some();
        let key_sets = Arc::new(KeySets::with_client(clock.clone(), self.http));
        let mut opaque_tokens = self.opaque_tokens;
        let mut faults = configured_opaque_tokens(&config, &mut opaque_tokens);
        let configured = || revocations::configured(&config, &clock);
        let revocations = self.revocations.map_or_else(configured, Ok).unwrap_or_else(|error| {
            faults.extend_from_slice(error.faults());
            Revocations::default()
        });
        faults.extend(opaque::faults(&opaque_tokens, &config));
        let mut jwks = match JwksValidator::with_key_sets(&config, key_sets) {
            Ok(jwks) => ConfigError::from_faults(faults).map(|()| jwks),
            Err(error) => Err(error.and(faults)),
        }
        .map_err(|error| error.named_by(&config.origin))?;
        for (issuer, source) in self.group_sources {
            let templates = tenant_issuers.iter().map(|(template, _)| template);
            let mut known = config.issuers.iter().chain(templates).map(IssuerConfig::expected);
            if !known.any(|known| known == issuer) {
                config.notices.push(format!(
                    "group_source is for {issuer}, which is the `iss` of no configured issuer: it is asked only if such an issuer is added while the service runs"
                ));
            }
            jwks = jwks.with_group_source(issuer, source);
        }
        let jwks = Arc::new(jwks);
        let issuers = jwks.issuers().clone();
        revocations.add_service(&issuers, validators.is_empty());
        let verified_tokens = jwks.verified_tokens().clone();
        let introspected_tokens = IntrospectedTokens::new(!opaque_tokens.is_empty());
        let opaque = (!opaque_tokens.is_empty()).then(|| {
            let (clock, tokens) = (clock.clone(), introspected_tokens.clone());
            let revoked = Arc::new(revocations.clone());
            Arc::new(OpaqueValidator::new(opaque_tokens, issuers.clone(), clock, tokens, revoked))
        });
        for (template, resolver) in tenant_issuers {
            issuers.add_tenant_issuers(template, resolver)?;
        }
        let audience = config.audience.first().or_else(|| config.issuers.first()?.audience.first());
        let realm =
            config.realm.as_deref().or(audience.map(String::as_str)).unwrap_or(DEFAULT_REALM);
        let resource = config.resource.as_deref();
        let resource = resource.and_then(|it| Resource::new(it, &config.resource_scopes));
        let metadata = resource.as_ref().map(Resource::metadata_url);
        let Some(challenger) = Challenger::new(realm, metadata.as_deref()) else {
            let fault = Fault::new(
                "realm",
                "has characters that a header cannot contain: use printable ASCII",
            );
            return Err(ConfigError::one(fault));
        };
        let challenger = challenger.with_schemes(challenges);
        let tenants = match tenants {
            Some(tenants) => tenants,
            None => configured_tenants(&config)?,
        };
        validators.extend(built_in_validators(&config, jwks, opaque.clone(), &clock));
        config.notices.extend(config.doubtful_settings());
        let names: Vec<_> = config.issuers.iter().map(IssuerConfig::expected).collect();
        telemetry::configured(
            config.mode.as_str(),
            config.mode != AuthMode::ScaiKey,
            &names,
            &config.all_audiences(),
            config.notices(),
        );
        Ok(Auth(Arc::new(Inner {
            mode: config.mode,
            validators,
            issuers,
            verified_tokens,
            introspected_tokens,
            opaque: opaque.filter(|_| config.mode != AuthMode::Mock),
            proofs: ProofVerifiers(proofs),
            revocations,
            admission: AdmissionChecks::new(admission),
            tenants,
            tenant_outage: Outage::default(),
            tenant_required: config.tenant_required,
            unknown_tenant_is_not_found: config.unknown_tenant_is_not_found,
            challenger,
            resource,
            clock,
            has_id_token_sessions: AtomicBool::new(false),
        })))
    }
}

/// Adds the opaque tokens of the configuration. Returns the faults of their credentials.
fn configured_opaque_tokens(config: &AuthConfig, all: &mut Vec<OpaqueTokens>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (nth, issuer) in config.issuers.iter().enumerate() {
        let field = format!("issuers[{nth}].introspection");
        let Some(settings) =
            issuer.introspection.as_ref().filter(|_| config.mode != AuthMode::Mock)
        else {
            continue;
        };
        if nth > 0 {
            let problem = "would send the credentials of `client`, which are for the first issuer, to another one: use AuthBuilder::opaque_tokens";
            faults.push(Fault::new(field, problem));
            continue;
        }
        match ClientAuth::from_config(&config.client) {
            Ok(auth) if auth.is_public() => {
                let problem = "is `none`, but introspection (`P_INTROSPECTION`) needs credentials: choose another method";
                faults.push(Fault::new("client.auth", problem));
            }
            Ok(auth) => {
                all.push(OpaqueTokens::of_settings(
                    issuer.expected(),
                    auth,
                    settings.clone(),
                    field,
                ));
            }
            Err(fault) => {
                let problem = format!("{} (introspection needs these credentials)", fault.problem);
                faults.push(Fault { problem, ..fault });
            }
        }
    }
    faults.retain(|fault| !config.unreadable.iter().any(|other| other.field == fault.field));
    faults
}

/// Returns the built-in validators of the mode, in order of precedence.
fn built_in_validators(
    config: &AuthConfig,
    jwks: Arc<JwksValidator>,
    opaque: Option<Arc<OpaqueValidator>>,
    clock: &Arc<dyn Clock>,
) -> Vec<Arc<dyn TokenValidator>> {
    let opaque = opaque.into_iter().map(|opaque| opaque as Arc<dyn TokenValidator>);
    let real = || opaque.chain([jwks as Arc<dyn TokenValidator>]);
    match config.mode {
        AuthMode::ScaiKey => real().collect(),
        #[cfg(feature = "mock")]
        AuthMode::Mock => {
            let mock =
                crate::validator::MockValidator::for_every_token(&config.mock, clock.clone());
            vec![Arc::new(SyntaxChecked(mock))]
        }
        #[cfg(feature = "mock")]
        AuthMode::Hybrid => {
            let mock =
                crate::validator::MockValidator::for_prefixed_tokens(&config.mock, clock.clone());
            // First, because opaque tokens without a prefix include mock tokens.
            let mock: Arc<dyn TokenValidator> = Arc::new(SyntaxChecked(mock));
            [mock].into_iter().chain(real()).collect()
        }
        // Unreachable: the configuration check rejects these modes without the feature.
        #[cfg(not(feature = "mock"))]
        AuthMode::Mock | AuthMode::Hybrid => {
            let _ = clock;
            Vec::new()
        }
    }
}

fn configured_tenants(config: &AuthConfig) -> Result<Arc<dyn TenantResolver>, ConfigError> {
    let url = match config.has_tenant_table() {
        true => config.database(),
        false => Ok(None),
    };
    let url = url.map_err(|fault| ConfigError::one(fault).named_by(&config.origin))?;
    let Some(url) = url else {
        let has_unrestricted_issuer = config.issuers.iter().any(|issuer| issuer.tenants.is_empty());
        if config.mode != AuthMode::Mock && has_unrestricted_issuer {
            telemetry::any_tenant(config.origin.prefix());
        }
        return Ok(Arc::new(AnyTenant));
    };
    let field = if config.database_url.is_some() { "database_url" } else { "database_url_file" };
    let fault =
        |problem: String| ConfigError::one(Fault::new(field, problem)).named_by(&config.origin);
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    {
        let store = SqlTenants::connect_lazy(&url);
        let store = store.map_err(|error| fault(format!("cannot be used: {error}")))?;
        Ok(Arc::new(CachedTenants::new(store)))
    }
    #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
    {
        let _ = url;
        Err(fault("needs the cargo feature `sqlite` or `postgres` of scaikey-auth".to_owned()))
    }
}
