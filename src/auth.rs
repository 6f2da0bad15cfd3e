//! [`Auth`]: mode, validators and tenants put together. Everything else is a way to reach it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::{Clock, SystemClock};
use crate::config::{AuthConfig, AuthMode, ConfigError, Fault, IssuerConfig, MockUser};
use crate::error::{AuthError, BoxError, Challenger, InvalidToken};
use crate::identity::{Identity, TenantId};
use crate::issuer::{Issuers, TenantIssuers};
use crate::telemetry;
use crate::tenant::{AnyTenant, Tenant, TenantResolver, TenantStatus};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::tenant::{CachedTenants, SqlTenants};
use crate::validator::{Credentials, JwksValidator, TokenValidator};

/// Who calls, and for which tenant: what the layer puts into a request's extensions.
#[derive(Debug, Clone)]
pub struct AuthContext {
    identity: Identity,
    tenant: Option<Tenant>,
}

impl AuthContext {
    /// Who calls.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The tenant the request runs in. `None` only where tenants are optional.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }
}

/// Authentication for one service. Cheap to clone: clones share everything.
///
/// `layer()` protects routes, `require()` guards single ones, [`authenticate`](Self::authenticate)
/// serves whatever does not come as an HTTP request.
#[derive(Debug, Clone)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mode: AuthMode,
    /// Asked in this order who recognises a token.
    validators: Vec<Arc<dyn TokenValidator>>,
    issuers: Issuers,
    tenants: Arc<dyn TenantResolver>,
    tenant_required: bool,
    unknown_tenant_is_not_found: bool,
    challenger: Challenger,
    clock: Arc<dyn Clock>,
}

/// Says whether an identity may act in a tenant other than its own.
pub type TenantAuthoriser = Arc<dyn Fn(&Identity, &Tenant) -> bool + Send + Sync>;

/// The tenant a request names beside its token.
#[derive(Clone)]
pub(crate) struct RequestedTenant {
    /// `None` if what it names is no tenant.
    pub(crate) id: Option<TenantId>,
    /// Without one, the tenant must be the token's.
    pub(crate) authoriser: Option<TenantAuthoriser>,
}

/// How far a request came without waiting.
pub(crate) enum Progress {
    Decided(Result<AuthContext, AuthError>),
    /// The token holds; its tenant must be looked up.
    Identified(Identity),
    /// The token must be checked.
    Presented,
}

impl Auth {
    /// Starts a configuration in code.
    pub fn builder() -> AuthBuilder {
        Self::from_config(AuthConfig::default())
    }

    /// Starts from a configuration read from a file.
    pub fn from_config(config: AuthConfig) -> AuthBuilder {
        AuthBuilder {
            config,
            validators: Vec::new(),
            tenant_issuers: Vec::new(),
            tenants: None,
            clock: None,
        }
    }

    /// Starts from environment variables: see [`AuthConfig::from_env`].
    pub fn from_env(prefix: &str) -> AuthBuilder {
        Self::from_config(AuthConfig::from_env(prefix))
    }

    /// Judges a bearer token and finds its tenant, as the layer does: for web sockets, queues and
    /// other places where a token arrives without an HTTP request.
    ///
    /// # Errors
    /// Every way a request can be refused.
    pub async fn authenticate(&self, token: &str) -> Result<AuthContext, AuthError> {
        let progress = self.at_once(&Credentials::bearer(token), None);
        self.finish(progress, &Credentials::bearer(token), None).await
    }

    /// The issuers trusted, to add, remove and watch.
    pub fn issuers(&self) -> &Issuers {
        &self.0.issuers
    }

    /// The mode.
    pub fn mode(&self) -> AuthMode {
        self.0.mode
    }

    /// Waits until the keys of every issuer were fetched, for those who would rather start late than
    /// answer 503 at first. Returns at once in mock mode.
    ///
    /// # Errors
    /// When a provider cannot be reached. The service may start all the same: keys are fetched
    /// when a token needs them.
    pub async fn ready(&self) -> Result<(), AuthError> {
        self.0.issuers.ready().await
    }

    /// Decides what can be decided without waiting.
    pub(crate) fn at_once(
        &self,
        presented: &Credentials<'_>,
        requested: Option<&RequestedTenant>,
    ) -> Progress {
        let Some(validator) = self.validator_for(presented) else {
            return Progress::Decided(Err(InvalidToken::Unrecognised.into()));
        };
        let identity = match validator.at_once(presented) {
            None => return Progress::Presented,
            Some(Err(error)) => return Progress::Decided(Err(error)),
            Some(Ok(identity)) => identity,
        };
        let wanted = match self.wanted_tenant(&identity, requested) {
            Err(error) => return Progress::Decided(Err(error)),
            Ok(None) => return Progress::Decided(Ok(AuthContext { identity, tenant: None })),
            Ok(Some(wanted)) => wanted,
        };
        match self.0.tenants.at_once(wanted) {
            None => Progress::Identified(identity),
            Some(answer) => {
                let tenant = admit(answer, &identity, wanted, requested);
                Progress::Decided(
                    tenant.map(|tenant| AuthContext { identity, tenant: Some(tenant) }),
                )
            }
        }
    }

    /// Decides the rest.
    pub(crate) async fn finish(
        &self,
        progress: Progress,
        presented: &Credentials<'_>,
        requested: Option<&RequestedTenant>,
    ) -> Result<AuthContext, AuthError> {
        let identity = match progress {
            Progress::Decided(verdict) => return verdict,
            Progress::Identified(identity) => identity,
            Progress::Presented => {
                let validator = self.validator_for(presented).ok_or(InvalidToken::Unrecognised)?;
                validator.validate(presented).await?
            }
        };
        let Some(wanted) = self.wanted_tenant(&identity, requested)? else {
            return Ok(AuthContext { identity, tenant: None });
        };
        let answer = self.0.tenants.resolve(wanted).await;
        let tenant = Some(admit(answer, &identity, wanted, requested)?);
        Ok(AuthContext { identity, tenant })
    }

    pub(crate) fn challenger(&self) -> &Challenger {
        &self.0.challenger
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    pub(crate) fn unknown_tenant_is_not_found(&self) -> bool {
        self.0.unknown_tenant_is_not_found
    }

    fn validator_for(&self, presented: &Credentials<'_>) -> Option<&Arc<dyn TokenValidator>> {
        self.0.validators.iter().find(|validator| validator.recognises(presented))
    }

    /// The tenant the request is to run in: the token's own, or another if there is somebody to
    /// allow it.
    fn wanted_tenant<'r>(
        &self,
        identity: &'r Identity,
        requested: Option<&'r RequestedTenant>,
    ) -> Result<Option<&'r TenantId>, AuthError> {
        let own = identity.tenant_id();
        let Some(RequestedTenant { id, authoriser }) = requested else {
            let missing = own.is_none() && self.0.tenant_required;
            return if missing { Err(AuthError::TenantMissing) } else { Ok(own) };
        };
        match id {
            Some(id) if own == Some(id) || authoriser.is_some() => Ok(Some(id)),
            _ => Err(AuthError::TenantMismatch),
        }
    }
}

/// Judges the tenant store's answer about `wanted`. Whoever asks for a tenant that is not their own
/// does not learn whether it exists.
fn admit(
    answer: Result<Option<Tenant>, BoxError>,
    identity: &Identity,
    wanted: &TenantId,
    requested: Option<&RequestedTenant>,
) -> Result<Tenant, AuthError> {
    let unavailable = |error| AuthError::unavailable("tenant store", None, error);
    let foreign = identity.tenant_id() != Some(wanted);
    let tenant = match answer.map_err(unavailable)? {
        None if foreign => return Err(AuthError::TenantMismatch),
        None => return Err(AuthError::UnknownTenant),
        Some(tenant) if tenant.id() != wanted => {
            return Err(unavailable("the tenant store answered with another tenant".into()));
        }
        Some(tenant) => tenant,
    };
    if foreign {
        let authoriser = requested.and_then(|requested| requested.authoriser.as_ref());
        if !authoriser.is_some_and(|allows| allows(identity, &tenant)) {
            return Err(AuthError::TenantMismatch);
        }
    }
    match tenant.status() {
        TenantStatus::Active => Ok(tenant),
        _ => Err(AuthError::TenantSuspended),
    }
}

/// Builds an [`Auth`]. `build` checks everything at once and does no I/O.
#[derive(Debug)]
#[must_use = "nothing is protected before `build()`"]
pub struct AuthBuilder {
    config: AuthConfig,
    validators: Vec<Arc<dyn TokenValidator>>,
    tenant_issuers: Vec<(IssuerConfig, Arc<dyn TenantIssuers>)>,
    tenants: Option<Arc<dyn TenantResolver>>,
    clock: Option<Arc<dyn Clock>>,
}

impl AuthBuilder {
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
        let template = template.into();
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

    /// Sets where tenants are looked up. Default [`AnyTenant`]: every tenant that a verified token
    /// names. Wrap a store in `CachedTenants`, unless it answers at once.
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

    /// Adds a validator for tokens of another kind. It is asked before the built-in ones whether
    /// it recognises a token.
    pub fn validator(mut self, validator: impl TokenValidator) -> Self {
        self.validators.push(Arc::new(validator));
        self
    }

    /// Sets who the mock user is.
    pub fn mock_user(mut self, user: MockUser) -> Self {
        self.config.mock = user;
        self
    }

    /// Allows mock and hybrid mode where the environment says production. Everybody can then sign
    /// in with any token.
    pub fn dangerous_allow_mock_in_production(mut self) -> Self {
        self.config.dangerous_allow_mock_in_production = true;
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
        let Self { config, mut validators, tenant_issuers, tenants, clock } = self;
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let jwks = JwksValidator::with_clock(&config, clock.clone())?;
        let issuers = jwks.issuers().clone();
        for (template, resolver) in tenant_issuers {
            issuers.add_tenant_issuers(template, resolver)?;
        }
        let audience = config.audience.first().or_else(|| config.issuers.first()?.audience.first());
        let realm = config.realm.as_deref().or(audience.map(String::as_str)).unwrap_or("scaikey");
        let Some(challenger) = Challenger::new(realm, None) else {
            let fault = Fault::new(
                "realm",
                "has characters that cannot stand in a header: use printable ASCII",
            );
            return Err(ConfigError::one(fault));
        };
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
            tenants,
            tenant_required: config.tenant_required,
            unknown_tenant_is_not_found: config.unknown_tenant_is_not_found,
            challenger,
            clock,
        })))
    }
}

/// The validators of a mode, in the order in which they are asked.
fn built_in(
    config: &AuthConfig,
    jwks: JwksValidator,
    clock: &Arc<dyn Clock>,
) -> Vec<Arc<dyn TokenValidator>> {
    match config.mode {
        AuthMode::ScaiKey => vec![Arc::new(jwks)],
        #[cfg(feature = "mock")]
        AuthMode::Mock => {
            vec![Arc::new(crate::validator::MockValidator::for_everybody(
                &config.mock,
                clock.clone(),
            ))]
        }
        #[cfg(feature = "mock")]
        AuthMode::Hybrid => vec![
            Arc::new(jwks),
            Arc::new(crate::validator::MockValidator::by_name(&config.mock, clock.clone())),
        ],
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
        telemetry::any_tenant();
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

/// Whether `moment` lies no longer ago than `max_age`. One in the future counts only as far as
/// clocks differ: an issuer that writes milliseconds must not have signed everybody in for ever.
pub(crate) fn is_recent(moment: SystemTime, now: SystemTime, max_age: Duration) -> bool {
    const SKEW: Duration = Duration::from_secs(60);
    match now.duration_since(moment) {
        Ok(age) => age <= max_age,
        Err(ahead) => ahead.duration() <= SKEW,
    }
}
