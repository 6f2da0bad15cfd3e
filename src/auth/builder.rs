//! [`AuthBuilder`]: from a configuration and what code adds to it to an [`Auth`].

use std::sync::Arc;

use super::{Auth, Inner};
use crate::admission::{AdmissionCheck, AdmissionChecks};
use crate::clock::{Clock, SystemClock};
use crate::config::{AuthConfig, AuthMode, ConfigError, Fault, IssuerConfig, MockUser, Resource};
use crate::error::{Challenge, Challenger};
use crate::issuer::TenantIssuers;
use crate::proof::{ProofVerifier, ProofVerifiers};
use crate::support::telemetry::{self, Outage};
use crate::tenant::{AnyTenant, TenantResolver};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::tenant::{CachedTenants, SqlTenants};
use crate::validator::{JwksValidator, SyntaxChecked, TokenValidator};

/// Builds an [`Auth`]. `build` checks everything at once and does no I/O.
#[derive(Debug)]
#[must_use = "nothing is protected before `build()`"]
pub struct AuthBuilder {
    config: AuthConfig,
    validators: Vec<Arc<dyn TokenValidator>>,
    proofs: Vec<Arc<dyn ProofVerifier>>,
    admission: Vec<Arc<dyn AdmissionCheck>>,
    tenant_issuers: Vec<(IssuerConfig, Arc<dyn TenantIssuers>)>,
    tenants: Option<Arc<dyn TenantResolver>>,
    challenges: Vec<Challenge>,
    clock: Option<Arc<dyn Clock>>,
}

impl AuthBuilder {
    pub(super) fn new(mut config: AuthConfig) -> Self {
        if config.prefix.is_none() {
            config.notice_unused();
        }
        Self {
            config,
            validators: Vec::new(),
            proofs: Vec::new(),
            admission: Vec::new(),
            tenant_issuers: Vec::new(),
            tenants: None,
            challenges: Vec::new(),
            clock: None,
        }
    }

    /// Sets who is asked about tokens. Default [`AuthMode::ScaiKey`].
    pub fn mode(mut self, mode: AuthMode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Trusts an issuer: its URL, or an [`IssuerConfig`] with details. May be repeated.
    pub fn issuer(mut self, issuer: impl Into<IssuerConfig>) -> Self {
        self.config.issuers.push(issuer.into());
        self
    }

    /// Trusts one issuer per tenant, found by `resolver`; `{tenant_id}` in the template's `iss`
    /// stands for the tenant.
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

    /// Adds a name this service has in `aud`. At least one is required.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.config.audience.push(audience.into());
        self
    }

    /// Sets the `realm` of challenges. Default: the first audience.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.config.realm = Some(realm.into());
        self
    }

    /// Names a scheme that this service accepts beside `Bearer`, such as the API keys that a
    /// [`TokenSource::Custom`](crate::layer::TokenSource::Custom) reads. May be repeated. Every 401 then
    /// carries
    /// this challenge in a `WWW-Authenticate` line of its own (RFC 9110 §11.6.1). Default: none.
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

    /// Sets the public URL of this service, as clients know it: challenges then say where its
    /// metadata is (RFC 9728 §5.1), and [`endpoints`](Auth::endpoints) publish them.
    pub fn resource(mut self, url: impl Into<String>) -> Self {
        self.config.resource = Some(url.into());
        self
    }

    /// Sets the scopes that this service knows, published in its metadata (`scopes_supported`, RFC 9728
    /// §2). Default: none are published. Those that a sign-in asks for are not these.
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

    /// Sets where tenants are looked up. Default [`AnyTenant`]: every tenant that a verified token
    /// names; where an issuer has `{tenant_id}` in it and no list of tenants, that must be said by
    /// setting it here. Wrap a store in
    /// [`CachedTenants`](crate::tenant::CachedTenants), unless it answers immediately.
    pub fn tenants(mut self, tenants: impl TenantResolver) -> Self {
        self.tenants = Some(Arc::new(tenants));
        self
    }

    /// Accepts tokens that name no tenant. Default: they are refused with 403.
    pub fn tenant_optional(mut self) -> Self {
        self.config.tenant_required = false;
        self
    }

    /// Answers 404 instead of 403 for a tenant that does not exist.
    pub fn unknown_tenant_is_not_found(mut self) -> Self {
        self.config.unknown_tenant_is_not_found = true;
        self
    }

    /// Sets how much memory may be spent on [tokens verified before](crate::validator::VerifiedTokens), in
    /// bytes.
    /// Default 16 MiB, for some 15,000 tokens; 0 verifies every request anew.
    pub fn verified_tokens_bytes(mut self, limit: usize) -> Self {
        self.config.verified_tokens_bytes = limit;
        self
    }

    /// Adds a validator for tokens of another kind. It is asked before the built-in ones whether
    /// it accepts a token.
    pub fn validator(mut self, validator: impl TokenValidator) -> Self {
        self.validators.push(Arc::new(SyntaxChecked(validator)));
        self
    }

    /// Accepts tokens that are bound to a key, if this verifier accepts the proof that comes with the request.
    /// May be repeated, for keys of different kinds. Default: none, so bound tokens are refused.
    pub fn proof_verifier(mut self, verifier: impl ProofVerifier) -> Self {
        self.proofs.push(Arc::new(verifier));
        self
    }

    /// Asks this check about each request whose token holds, before its tenant is looked up. May be repeated:
    /// all checks must allow the request. Default: none. A check that answers immediately costs a request
    /// its own
    /// time; one that waits costs an allocation, too.
    pub fn admission(mut self, check: impl AdmissionCheck) -> Self {
        self.admission.push(Arc::new(check));
        self
    }

    /// Sets who the mock user is.
    pub fn mock_user(mut self, user: MockUser) -> Self {
        self.config.mock = user;
        self
    }

    /// Allows mock and hybrid mode wherever the service runs: in release builds without a marker, in
    /// Kubernetes, and where a marker says production. Everybody can then sign in with any token.
    pub fn insecure_allow_mock_in_production(mut self) -> Self {
        self.config.insecure_allow_mock_in_production = true;
        self
    }

    /// Sets the clock. Default [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Checks the configuration and puts everything together. Does no I/O: the first token fetches
    /// the keys, or [`Auth::ready`].
    ///
    /// # Errors
    /// Every fault of the configuration at once.
    pub fn build(self) -> Result<Auth, ConfigError> {
        let Self { mut config, mut validators, proofs, admission, tenant_issuers, .. } = self;
        let (tenants, challenges, clock) = (self.tenants, self.challenges, self.clock);
        // Whoever sets a resolver of tenants says with it which there are, or that all are meant.
        config.any_tenant |= tenants.is_some();
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let jwks = Arc::new(JwksValidator::with_clock(&config, clock.clone())?);
        let issuers = jwks.issuers().clone();
        let verified_tokens = jwks.verified_tokens().clone();
        for (template, resolver) in tenant_issuers {
            issuers.add_tenant_issuers(template, resolver)?;
        }
        let audience = config.audience.first().or_else(|| config.issuers.first()?.audience.first());
        let realm = config.realm.as_deref().or(audience.map(String::as_str)).unwrap_or("scaikey");
        let resource = config.resource.as_deref();
        let resource = resource.and_then(|it| Resource::new(it, &config.resource_scopes));
        let metadata = resource.as_ref().map(Resource::metadata_url);
        let Some(challenger) = Challenger::new(realm, metadata.as_deref()) else {
            let fault = Fault::new(
                "realm",
                "has characters that cannot stand in a header: use printable ASCII",
            );
            return Err(ConfigError::one(fault));
        };
        let challenger = challenger.with_schemes(challenges);
        let tenants = match tenants {
            Some(tenants) => tenants,
            None => configured_tenants(&config)?,
        };
        validators.extend(built_in(&config, jwks, &clock));
        telemetry::configured(
            config.mode.as_str(),
            config.mode != AuthMode::ScaiKey,
            config.notices(),
        );
        Ok(Auth(Arc::new(Inner {
            mode: config.mode,
            validators,
            issuers,
            verified_tokens,
            proofs: ProofVerifiers(proofs),
            admission: AdmissionChecks::new(admission),
            tenants,
            tenant_outage: Outage::default(),
            tenant_required: config.tenant_required,
            unknown_tenant_is_not_found: config.unknown_tenant_is_not_found,
            challenger,
            resource,
            clock,
        })))
    }
}

/// The validators of a mode, in the order in which they are asked.
fn built_in(
    config: &AuthConfig,
    jwks: Arc<JwksValidator>,
    clock: &Arc<dyn Clock>,
) -> Vec<Arc<dyn TokenValidator>> {
    match config.mode {
        AuthMode::ScaiKey => vec![jwks],
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
            vec![jwks, Arc::new(SyntaxChecked(mock))]
        }
        // The configuration was checked: without the feature there is no such mode.
        #[cfg(not(feature = "mock"))]
        AuthMode::Mock | AuthMode::Hybrid => {
            let _ = clock;
            Vec::new()
        }
    }
}

fn configured_tenants(config: &AuthConfig) -> Result<Arc<dyn TenantResolver>, ConfigError> {
    let Some(url) = &config.database_url else {
        let is_open = config.issuers.iter().any(|issuer| issuer.tenants.is_empty());
        if config.mode != AuthMode::Mock && is_open {
            telemetry::any_tenant();
        }
        return Ok(Arc::new(AnyTenant));
    };
    let fault = |problem: String| {
        ConfigError::one(Fault::new("database_url", problem)).named(config.prefix.as_deref())
    };
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    {
        let store = SqlTenants::connect_lazy(url);
        let store = store.map_err(|error| fault(format!("cannot be used: {error}")))?;
        Ok(Arc::new(CachedTenants::new(store)))
    }
    #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
    {
        let _ = url;
        Err(fault("needs the cargo feature `sqlite` or `postgres` of scaikey-auth".to_owned()))
    }
}
