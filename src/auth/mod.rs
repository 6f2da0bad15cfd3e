//! [`Auth`]: mode, validators and tenants put together. Everything else is a way to reach it.

mod builder;

use std::sync::Arc;
use std::time::SystemTime;

pub use builder::AuthBuilder;

use http::HeaderValue;

use crate::clock::Clock;
use crate::config::{AuthConfig, AuthMode, Resource};
use crate::error::{AuthError, BoxError, Challenger, InvalidToken};
use crate::identity::{Identity, TenantId};
use crate::issuer::Issuers;
use crate::telemetry::{self, Outage};
use crate::tenant::{Tenant, TenantResolver, TenantStatus, is_told};
use crate::validator::{Credentials, KnownTokens, TokenValidator};

/// Who calls, and for which tenant: what the layer puts into a request's extensions.
#[derive(Debug, Clone)]
pub struct AuthContext {
    identity: Identity,
    tenant: Option<Tenant>,
    token: Option<IncomingToken>,
}

/// A header value with the caller's token from `start` on: a counted reference, no copy.
#[derive(Clone)]
pub(crate) struct IncomingToken {
    pub(crate) value: HeaderValue,
    pub(crate) start: usize,
}

impl IncomingToken {
    pub(crate) fn credentials(&self) -> Credentials<'_> {
        Credentials::raw(self.octets())
    }

    fn octets(&self) -> &[u8] {
        self.value.as_bytes().get(self.start..).unwrap_or_default()
    }
}

impl std::fmt::Debug for IncomingToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl AuthContext {
    fn new(identity: Identity, tenant: Option<Tenant>) -> Self {
        Self { identity, tenant, token: None }
    }

    /// Who calls.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The tenant the request runs in. `None` only where tenants are optional.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// The token the caller came with, to be exchanged or passed on. Every use of it is a place
    /// where it can leak. `None` for a mock identity, whose token is none.
    pub fn token(&self) -> Option<&str> {
        let token = self.token.as_ref().filter(|_| !self.identity.is_mock())?;
        std::str::from_utf8(token.octets()).ok()
    }

    #[inline]
    pub(crate) fn with_token(mut self, token: IncomingToken) -> Self {
        self.token = Some(token);
        self
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
    known_tokens: KnownTokens,
    tenants: Arc<dyn TenantResolver>,
    /// What the log was told of them.
    tenant_outage: Outage,
    tenant_required: bool,
    unknown_tenant_is_not_found: bool,
    challenger: Challenger,
    resource: Option<Resource>,
    clock: Arc<dyn Clock>,
}

/// Says whether an identity may act in a tenant other than its own.
pub type TenantAuthoriser = Arc<dyn Fn(&Identity, &Tenant) -> bool + Send + Sync>;

/// The tenant a request names beside its token, in one place or several.
#[derive(Clone)]
pub(crate) struct RequestedTenant {
    /// `None` if what it names is no tenant.
    pub(crate) id: Option<TenantId>,
    /// Those of all places that name it.
    pub(crate) authorisers: Vec<TenantAuthoriser>,
    /// Whether some place that names it has none: then the tenant must be the token's.
    pub(crate) own_only: bool,
}

impl RequestedTenant {
    /// Whether each place that names the tenant lets the identity act in it.
    fn allows(&self, identity: &Identity, tenant: &Tenant) -> bool {
        !self.own_only && self.authorisers.iter().all(|allows| allows(identity, tenant))
    }
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
        AuthBuilder::new(config)
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
        let context = self.finish(progress, &Credentials::bearer(token), None).await?;
        Ok(match HeaderValue::try_from(token) {
            Ok(value) => context.with_token(IncomingToken { value, start: 0 }),
            Err(_) => context,
        })
    }

    /// The issuers trusted, to add, remove and watch.
    pub fn issuers(&self) -> &Issuers {
        &self.0.issuers
    }

    /// The tokens verified before, to watch and to flush.
    pub fn known_tokens(&self) -> &KnownTokens {
        &self.0.known_tokens
    }

    /// The mode.
    pub fn mode(&self) -> AuthMode {
        self.0.mode
    }

    /// Waits until the keys of every issuer were fetched, for those who would rather start late than
    /// answer 503 at first. Returns at once in mock mode.
    ///
    /// # Errors
    /// When a provider cannot be reached, or said not to be asked again before long (429, or 503 with
    /// `Retry-After`). The service may start all the same: keys are fetched
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
        let progress = self.progress(presented, requested);
        progress.unwrap_or_else(|error| Progress::Decided(Err(error)))
    }

    fn progress(
        &self,
        presented: &Credentials<'_>,
        requested: Option<&RequestedTenant>,
    ) -> Result<Progress, AuthError> {
        let Some(verdict) = self.validator_for(presented)?.at_once(presented) else {
            return Ok(Progress::Presented);
        };
        let identity = verdict?;
        let Some(wanted) = self.wanted_tenant(&identity, requested)? else {
            return Ok(Progress::Decided(Ok(AuthContext::new(identity, None))));
        };
        let Some(answer) = self.0.tenants.at_once(wanted) else {
            return Ok(Progress::Identified(identity));
        };
        let tenant = self.admit(answer, &identity, wanted, requested)?;
        Ok(Progress::Decided(Ok(AuthContext::new(identity, tenant))))
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
            Progress::Presented => self.validator_for(presented)?.validate(presented).await?,
        };
        let Some(wanted) = self.wanted_tenant(&identity, requested)? else {
            return Ok(AuthContext::new(identity, None));
        };
        let answer = self.0.tenants.resolve(wanted).await;
        let tenant = self.admit(answer, &identity, wanted, requested)?;
        Ok(AuthContext::new(identity, tenant))
    }

    /// Judges a token alone, whatever its tenant is.
    pub(crate) async fn validate(&self, token: &str) -> Result<Identity, AuthError> {
        let presented = Credentials::raw(token.as_bytes());
        self.validator_for(&presented)?.validate(&presented).await
    }

    /// Judges the tenant store's answer about `wanted`. Whoever asks for a tenant that is not their own
    /// does not learn whether it exists.
    fn admit(
        &self,
        answer: Result<Option<Tenant>, BoxError>,
        identity: &Identity,
        wanted: &TenantId,
        requested: Option<&RequestedTenant>,
    ) -> Result<Option<Tenant>, AuthError> {
        let foreign = identity.tenant_id() != Some(wanted);
        let tenant = match self.told(answer, wanted)? {
            None if foreign => return Err(AuthError::TenantMismatch),
            None => return Err(AuthError::UnknownTenant),
            Some(tenant) => tenant,
        };
        if foreign && !requested.is_some_and(|requested| requested.allows(identity, &tenant)) {
            return Err(AuthError::TenantMismatch);
        }
        match tenant.status() {
            TenantStatus::Active => Ok(Some(tenant)),
            _ => Err(AuthError::TenantSuspended),
        }
    }

    /// The tenant store's answer, of whose failures the log is told: once for each change.
    #[inline]
    fn told(
        &self,
        answer: Result<Option<Tenant>, BoxError>,
        wanted: &TenantId,
    ) -> Result<Option<Tenant>, AuthError> {
        let (outage, clock) = (&self.0.tenant_outage, &self.0.clock);
        let error = match answer {
            Ok(Some(tenant)) if tenant.id() != wanted => {
                "the tenant store answered with another tenant".into()
            }
            Ok(tenant) => {
                if outage.ends(|| clock.elapsed()) {
                    telemetry::store_works("tenant store");
                }
                return Ok(tenant);
            }
            Err(error) => error,
        };
        if !is_told(&error) {
            let is_new = outage.begins(&error, clock.elapsed());
            telemetry::tenant_store_failed(&*error, false, is_new);
        }
        Err(AuthError::unavailable("tenant store", None, error))
    }

    pub(crate) fn challenger(&self) -> &Challenger {
        &self.0.challenger
    }

    /// What clients call this service by its URL.
    pub(crate) fn resource(&self) -> Option<&Resource> {
        self.0.resource.as_ref()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    pub(crate) fn unknown_tenant_is_not_found(&self) -> bool {
        self.0.unknown_tenant_is_not_found
    }

    fn validator_for(
        &self,
        presented: &Credentials<'_>,
    ) -> Result<&Arc<dyn TokenValidator>, AuthError> {
        let mut validators = self.0.validators.iter();
        let found = validators.find(|validator| validator.recognises(presented));
        found.ok_or_else(|| match presented.check() {
            Err(error) => error,
            Ok(()) => InvalidToken::Unrecognised.into(),
        })
    }

    /// The tenant the request is to run in: the token's own, or another if every place that names it
    /// has an authoriser.
    fn wanted_tenant<'r>(
        &self,
        identity: &'r Identity,
        requested: Option<&'r RequestedTenant>,
    ) -> Result<Option<&'r TenantId>, AuthError> {
        let own = identity.tenant_id();
        let Some(RequestedTenant { id, own_only, .. }) = requested else {
            let missing = own.is_none() && self.0.tenant_required;
            return if missing { Err(AuthError::TenantMissing) } else { Ok(own) };
        };
        match id {
            Some(id) if own == Some(id) || !own_only => Ok(Some(id)),
            _ => Err(AuthError::TenantMismatch),
        }
    }
}
