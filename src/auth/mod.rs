//! [`Auth`]: mode, validators and tenants put together. Everything else is a way to reach it.

mod builder;

use std::sync::Arc;
use std::time::SystemTime;

pub use builder::AuthBuilder;

use http::HeaderValue;

use crate::admission::{AdmissionChecks, AdmissionRequest};
use crate::clock::Clock;
use crate::config::{AuthConfig, AuthMode, Resource};
use crate::error::{AuthError, BoxError, Challenger, InvalidToken};
use crate::identity::{Identity, TenantId};
use crate::issuer::Issuers;
use crate::proof::{ProofHead, ProofRequest, ProofVerifiers};
use crate::support::telemetry::{self, Outage};
use crate::tenant::{Tenant, TenantResolver, TenantStatus, is_told};
use crate::validator::{Credentials, TokenValidator, VerifiedTokens};

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
        Credentials::raw(self.bytes())
    }

    fn bytes(&self) -> &[u8] {
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
        std::str::from_utf8(token.bytes()).ok()
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
    /// Asked in this order who accepts a token.
    validators: Vec<Arc<dyn TokenValidator>>,
    issuers: Issuers,
    verified_tokens: VerifiedTokens,
    proofs: ProofVerifiers,
    admission: AdmissionChecks,
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
pub(crate) type TenantAuthoriser = Arc<dyn Fn(&Identity, &Tenant) -> bool + Send + Sync>;

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

/// A request, as far as it is judged here.
#[derive(Clone, Copy)]
pub(crate) struct AuthRequest<'r> {
    pub(crate) credentials: Credentials<'r>,
    pub(crate) tenant: Option<&'r RequestedTenant>,
    /// Where a proof would stand. `None` for a token that comes without a request: it must not be bound.
    pub(crate) head: Option<ProofHead<'r>>,
}

impl<'r> AuthRequest<'r> {
    /// A token without anything around it.
    pub(crate) fn bare(credentials: Credentials<'r>) -> Self {
        Self { credentials, tenant: None, head: None }
    }
}

/// How far a request came without waiting.
pub(crate) enum Attempt {
    Done(Result<AuthContext, AuthError>),
    /// The token holds; this step must be waited for.
    Validated(Identity, Step),
    /// The token must be checked.
    Unvalidated,
}

/// The steps that follow a verified token, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Proof,
    Admission,
    Tenant,
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
    /// other places where a token arrives without an HTTP request. A token that is bound to a key is refused,
    /// because there is no request that could carry the proof. To answer a refusal as the layer does, see
    /// [`AuthLayer::refusal`](crate::AuthLayer::refusal).
    ///
    /// # Errors
    /// Every way a request can be refused.
    pub async fn authenticate(&self, token: &str) -> Result<AuthContext, AuthError> {
        let request = AuthRequest::bare(Credentials::bearer(token));
        let context = self.finish(self.try_authenticate(request), request).await?;
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
    pub fn verified_tokens(&self) -> &VerifiedTokens {
        &self.0.verified_tokens
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
    pub(crate) fn try_authenticate(&self, request: AuthRequest<'_>) -> Attempt {
        self.attempt(request).unwrap_or_else(|error| Attempt::Done(Err(error)))
    }

    fn attempt(&self, request: AuthRequest<'_>) -> Result<Attempt, AuthError> {
        let credentials = self.credentials(request);
        let Some(result) = self.validator_for(&credentials)?.try_validate(&credentials) else {
            return Ok(Attempt::Unvalidated);
        };
        let identity = result?;
        if let Some(proof) = self.proof_request(&identity, request)?
            && self.0.proofs.try_verify(&proof)?.is_none()
        {
            return Ok(Attempt::Validated(identity, Step::Proof));
        }
        if let Some(admission) = self.admission_request(&identity)
            && self.0.admission.try_admit(&admission, || self.0.clock.elapsed())?.is_none()
        {
            return Ok(Attempt::Validated(identity, Step::Admission));
        }
        let Some(target) = self.target_tenant(&identity, request.tenant)? else {
            return Ok(Attempt::Done(Ok(AuthContext::new(identity, None))));
        };
        let Some(answer) = self.0.tenants.try_resolve(target) else {
            return Ok(Attempt::Validated(identity, Step::Tenant));
        };
        let tenant = self.check_tenant(answer, &identity, target, request.tenant)?;
        Ok(Attempt::Done(Ok(AuthContext::new(identity, tenant))))
    }

    /// Decides the rest.
    pub(crate) async fn finish(
        &self,
        attempt: Attempt,
        request: AuthRequest<'_>,
    ) -> Result<AuthContext, AuthError> {
        let (identity, step) = match attempt {
            Attempt::Done(result) => return result,
            Attempt::Validated(identity, step) => (identity, step),
            Attempt::Unvalidated => {
                let credentials = self.credentials(request);
                let validator = self.validator_for(&credentials)?;
                (validator.validate(&credentials).await?, Step::Proof)
            }
        };
        if step <= Step::Proof
            && let Some(proof) = self.proof_request(&identity, request)?
        {
            self.0.proofs.verify(&proof).await?;
        }
        if step <= Step::Admission {
            self.admit(&identity).await?;
        }
        let Some(target) = self.target_tenant(&identity, request.tenant)? else {
            return Ok(AuthContext::new(identity, None));
        };
        let answer = self.0.tenants.resolve(target).await;
        let tenant = self.check_tenant(answer, &identity, target, request.tenant)?;
        Ok(AuthContext::new(identity, tenant))
    }

    /// Judges a token alone, whatever its tenant is and whether or not its bearer is admitted. Whichever
    /// validator took the token, a bound one is refused, since nothing proves here that its sender has the key.
    pub(crate) async fn validate(&self, token: &str) -> Result<Identity, AuthError> {
        let presented = Credentials::raw(token.as_bytes());
        let identity = self.validator_for(&presented)?.validate(&presented).await?;
        match identity.confirmation() {
            None => Ok(identity),
            Some(_) => Err(InvalidToken::Unproven.into()),
        }
    }

    #[cfg(feature = "endpoints")]
    pub(crate) fn has_admission_checks(&self) -> bool {
        !self.0.admission.is_empty()
    }

    /// Asks all admission checks.
    pub(crate) async fn admit(&self, identity: &Identity) -> Result<(), AuthError> {
        match self.admission_request(identity) {
            Some(admission) => self.0.admission.admit(&admission, || self.0.clock.elapsed()).await,
            None => Ok(()),
        }
    }

    /// Whether the head of a request that waits here is still needed.
    pub(crate) fn needs_head(&self, attempt: &Attempt) -> bool {
        let may_prove = match attempt {
            Attempt::Unvalidated => true,
            Attempt::Validated(_, step) => *step <= Step::Proof,
            Attempt::Done(_) => false,
        };
        may_prove && !self.0.proofs.is_empty()
    }

    /// The credentials for a validator: a bound token is accepted only if its proof is going to be judged.
    fn credentials<'r>(&self, request: AuthRequest<'r>) -> Credentials<'r> {
        let AuthRequest { credentials, head, .. } = request;
        let judges_proofs = head.is_some() && !self.0.proofs.is_empty();
        if judges_proofs { credentials.allow_bound() } else { credentials }
    }

    /// What must be proven; `None` for a token that is not bound. Whichever validator took the token, a bound
    /// one needs a proof.
    #[inline]
    fn proof_request<'r>(
        &self,
        identity: &'r Identity,
        request: AuthRequest<'r>,
    ) -> Result<Option<ProofRequest<'r>>, AuthError> {
        let Some(confirmation) = identity.confirmation() else { return Ok(None) };
        let head = request.head.ok_or(InvalidToken::Unproven)?;
        let token = request.credentials.token();
        Ok(Some(head.request(confirmation, token, self.now())))
    }

    /// What the admission checks are asked, if there are any.
    #[inline]
    fn admission_request<'r>(&self, identity: &'r Identity) -> Option<AdmissionRequest<'r>> {
        (!self.0.admission.is_empty()).then(|| AdmissionRequest { identity, now: self.now() })
    }

    /// Judges the tenant store's answer about `target`. Whoever asks for a tenant that is not their own
    /// does not learn whether it exists.
    fn check_tenant(
        &self,
        answer: Result<Option<Tenant>, BoxError>,
        identity: &Identity,
        target: &TenantId,
        requested: Option<&RequestedTenant>,
    ) -> Result<Option<Tenant>, AuthError> {
        let foreign = identity.tenant_id() != Some(target);
        let tenant = match self.store_answer(answer, target)? {
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
    fn store_answer(
        &self,
        answer: Result<Option<Tenant>, BoxError>,
        target: &TenantId,
    ) -> Result<Option<Tenant>, AuthError> {
        let (outage, clock) = (&self.0.tenant_outage, &self.0.clock);
        let error = match answer {
            Ok(Some(tenant)) if tenant.id() != target => {
                "the tenant store answered with another tenant".into()
            }
            Ok(tenant) => {
                if outage.ends(|| clock.elapsed()) {
                    telemetry::store_recovered("tenant store");
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
        let found = validators.find(|validator| validator.accepts(presented));
        found.ok_or_else(|| match presented.check() {
            Err(error) => error,
            Ok(()) => InvalidToken::Unrecognised.into(),
        })
    }

    /// The tenant the request is to run in: the token's own, or another if every place that names it
    /// has an authoriser.
    fn target_tenant<'r>(
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
