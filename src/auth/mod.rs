//! [`Auth`]: authenticates callers with validators, checks and a tenant store.

mod builder;
mod revocations;
#[cfg(feature = "jsonwebtoken")]
mod token_data;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

pub use builder::AuthBuilder;

use futures_util::future::join;
use http::HeaderValue;

use crate::admission::{AdmissionChecks, AdmissionRequest};
use crate::clock::Clock;
use crate::config::{AuthConfig, AuthMode, Resource};
use crate::error::{AuthError, BoxError, Challenger, InvalidToken};
use crate::identity::{Identity, TenantId};
use crate::issuer::Issuers;
use crate::proof::{ProofHead, ProofRequest, ProofVerifiers};
use crate::revocation::Revocations;
use crate::support::telemetry::{self, Outage};
use crate::tenant::{Tenant, TenantResolver, TenantStatus, is_logged};
use crate::validator::opaque::OpaqueValidator;
use crate::validator::{
    Credentials, IntrospectedTokens, SessionIdToken, TokenValidator, VerifiedTokens,
};

/// The authenticated caller and its tenant. The layer puts it into the extensions of each request.
///
/// axum handlers extract it. Everywhere else it is in the extensions:
///
/// ```
/// use http::Request;
/// use scaikey_auth::AuthContext;
///
/// /// The line of an access log.
/// fn caller<B>(request: &Request<B>) -> String {
///     let Some(context) = request.extensions().get::<AuthContext>() else {
///         return "anonymous".to_owned(); // an optional layer, and no token
///     };
///     let tenant = context.tenant().map_or("no tenant", |tenant| tenant.id().as_str());
///     format!("{} of {tenant}", context.identity().subject())
/// }
/// ```
#[derive(Clone)]
pub struct AuthContext {
    identity: Identity,
    tenant: Option<Tenant>,
    token: Option<IncomingToken>,
    auth: Auth,
}

/// The caller's token. It begins at byte `start` of a header value, which is shared instead of
/// copied.
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

impl std::fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthContext")
            .field("identity", &self.identity)
            .field("tenant", &self.tenant)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl AuthContext {
    /// Returns the identity of the caller.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the tenant of the request. It is `None` only for a token without a tenant, if
    /// [`tenant_optional`](AuthBuilder::tenant_optional) is set.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// Returns the caller's token, to exchange or forward it. Handle it with care: it is a
    /// credential. Returns `None` for a mock identity, which has no real token.
    pub fn token(&self) -> Option<&str> {
        let token = self.token.as_ref().filter(|_| !self.identity.is_mock())?;
        std::str::from_utf8(token.bytes()).ok()
    }

    /// Completes when the token expires, with the same leeway as its verification, so that a stream or
    /// a web socket does not outlive its token. The layer checks a token only when a request begins.
    ///
    /// The future is independent of the context, and can be moved into the stream. It waits on the
    /// [clock](AuthBuilder::clock) of the [`Auth`]. If that clock stands still or jumps, the future
    /// notices within one minute (immediately with `testing::ManualClock`). Outside a tokio runtime it
    /// completes immediately, because there is no timer.
    ///
    /// *Not* covered: a token that is revoked ([`is_revoked`](Self::is_revoked)), a key that is removed, a tenant that
    /// is suspended and a session that ends, before the token expires. Keep tokens short-lived. A mock identity expires
    /// after one hour, so that the client's reconnection can be tried. With browser sessions, the token is the current
    /// access token: the page connects again, and the session renews it.
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use axum::extract::ws::{Message, WebSocket};
    /// use axum::response::sse::{Event, Sse};
    /// use futures_util::{Stream, StreamExt};
    /// use scaikey_auth::AuthContext;
    ///
    /// /// Ends the stream of events when the token expires.
    /// async fn events(
    ///     context: AuthContext,
    ///     news: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
    /// ) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    ///     Sse::new(news.take_until(context.until_expired()))
    /// }
    ///
    /// /// Echoes messages until the token expires.
    /// async fn echo(mut socket: WebSocket, context: AuthContext) {
    ///     let mut expired = std::pin::pin!(context.until_expired());
    ///     loop {
    ///         tokio::select! {
    ///             () = &mut expired => break,
    ///             Some(Ok(message)) = socket.recv() => {
    ///                 if socket.send(message).await.is_err() { break }
    ///             }
    ///             else => break,
    ///         }
    ///     }
    ///     let _ = socket.send(Message::Close(None)).await;
    /// }
    /// ```
    pub fn until_expired(&self) -> impl Future<Output = ()> + Send + use<> {
        let clock = self.auth.clock().clone();
        let valid_until = self.identity.valid_until();
        async move { clock.sleep_until(valid_until).await }
    }

    /// Returns whether the caller's token is [revoked](crate::revocation) now. The layer judges it only when a request
    /// begins, so a web socket, a stream or a job asks again from time to time.
    ///
    /// It does not wait for the log, and ignores
    /// [`refuse_after`](crate::revocation::RevocationsBuilder::refuse_after).
    ///
    /// ```
    /// use scaikey_auth::AuthContext;
    ///
    /// /// Whether a web socket may send the next message.
    /// fn may_go_on(caller: &AuthContext) -> bool {
    ///     !caller.is_revoked()
    /// }
    /// ```
    pub fn is_revoked(&self) -> bool {
        self.auth.revocations().is_revoked(&self.identity)
    }

    /// Returns the [`Auth`] that authenticated the caller, for the challenges of extractors.
    #[cfg(feature = "axum")]
    pub(crate) fn auth(&self) -> &Auth {
        &self.auth
    }

    #[inline]
    pub(crate) fn with_token(mut self, token: IncomingToken) -> Self {
        self.token = Some(token);
        self
    }
}

/// The configured authentication of a service: issuers, validators, checks and the tenant store.
/// Cloning is cheap: clones share all state.
///
/// [`layer`](Self::layer) protects routes, [`require`](Self::require) guards single routes, and
/// [`authenticate`](Self::authenticate) checks tokens that do not come with an HTTP request.
///
/// ```
/// use axum::{Router, routing::get};
/// use scaikey_auth::{Auth, Identity, scope};
///
/// async fn me(identity: Identity) -> String {
///     identity.subject().to_owned()
/// }
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// let app: Router = Router::new()
///     .route("/me", get(me).route_layer(auth.require(scope("profile"))))
///     .layer(auth.layer());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mode: AuthMode,
    /// A token goes to the first validator that accepts it.
    validators: Vec<Arc<dyn TokenValidator>>,
    issuers: Issuers,
    verified_tokens: VerifiedTokens,
    introspected_tokens: IntrospectedTokens,
    /// The validator of opaque tokens, if any are accepted.
    opaque: Option<Arc<OpaqueValidator>>,
    proofs: ProofVerifiers,
    revocations: Revocations,
    admission: AdmissionChecks,
    tenants: Arc<dyn TenantResolver>,
    /// Logs a failure of the tenant store once, until it works again.
    tenant_outage: Outage,
    tenant_required: bool,
    unknown_tenant_is_not_found: bool,
    challenger: Challenger,
    resource: Option<Resource>,
    clock: Arc<dyn Clock>,
    /// Whether there are sessions whose ID tokens name the caller.
    has_id_token_sessions: AtomicBool,
}

/// A function that decides whether an identity may act in a tenant other than its own.
pub(crate) type TenantAuthoriser = Arc<dyn Fn(&Identity, &Tenant) -> bool + Send + Sync>;

/// The tenant that a request names in addition to its token. One or more
/// [`TenantSource`](crate::layer::TenantSource)s found it.
#[derive(Clone)]
pub(crate) struct RequestedTenant {
    /// `None` if the request names no valid tenant.
    pub(crate) id: Option<TenantId>,
    /// The authorisers of all sources that name it.
    pub(crate) authorisers: Vec<TenantAuthoriser>,
    /// Whether at least one of these sources has no authoriser, so that only the token's own tenant
    /// is allowed.
    pub(crate) own_only: bool,
}

impl RequestedTenant {
    /// Returns whether every source that names the tenant lets the identity act in it.
    fn allows(&self, identity: &Identity, tenant: &Tenant) -> bool {
        !self.own_only && self.authorisers.iter().all(|allows| allows(identity, tenant))
    }
}

/// The parts of a request that authentication needs.
#[derive(Clone, Copy)]
pub(crate) struct AuthRequest<'r> {
    pub(crate) credentials: Credentials<'r>,
    pub(crate) tenant: Option<&'r RequestedTenant>,
    /// The head with the proof of possession. `None` for a token without a request, which must not
    /// be bound.
    pub(crate) head: Option<ProofHead<'r>>,
}

impl<'r> AuthRequest<'r> {
    /// Creates a request that consists of a token only.
    pub(crate) fn token_only(credentials: Credentials<'r>) -> Self {
        Self { credentials, tenant: None, head: None }
    }
}

/// The result of an attempt to authenticate without waiting.
pub(crate) enum Attempt {
    Done(Result<AuthContext, AuthError>),
    /// The token is valid. This step, the next one, cannot be completed without waiting.
    Validated(Identity, Step),
    /// The validation of the token must wait.
    Unvalidated,
}

/// The steps after the validation of a token, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Proof,
    Admission,
    Tenant,
}

impl Auth {
    /// Returns a builder with the default configuration.
    pub fn builder() -> AuthBuilder {
        Self::from_config(AuthConfig::default())
    }

    /// Returns a builder with a configuration, such as one read from a file.
    pub fn from_config(config: AuthConfig) -> AuthBuilder {
        AuthBuilder::new(config)
    }

    /// Returns a builder with a configuration from environment variables: see
    /// [`AuthConfig::from_env`].
    pub fn from_env(prefix: &str) -> AuthBuilder {
        Self::from_config(AuthConfig::from_env(prefix))
    }

    /// Authenticates a bearer token and resolves its tenant, as the layer does. Use it for tokens
    /// that do not come in the headers of an HTTP request, such as those of web sockets and queues.
    /// A token that is bound to a key is refused, because there is no request with a proof.
    /// [`AuthLayer::refusal`](crate::AuthLayer::refusal) builds the layer's response to an error.
    ///
    /// # Errors
    /// The errors with which the layer refuses a request with this token.
    pub async fn authenticate(&self, token: &str) -> Result<AuthContext, AuthError> {
        let request = AuthRequest::token_only(Credentials::bearer(token));
        let context = self.finish(self.try_authenticate(request), request).await?;
        Ok(match HeaderValue::try_from(token) {
            Ok(value) => context.with_token(IncomingToken { value, start: 0 }),
            Err(_) => context,
        })
    }

    /// Returns the trusted issuers, to add, remove and monitor them.
    pub fn issuers(&self) -> &Issuers {
        &self.0.issuers
    }

    /// Returns the cache of verified tokens, to monitor and flush it.
    pub fn verified_tokens(&self) -> &VerifiedTokens {
        &self.0.verified_tokens
    }

    /// Returns the cache of introspection answers about [opaque tokens](AuthBuilder::opaque_tokens), to monitor
    /// and flush it.
    pub fn introspected_tokens(&self) -> &IntrospectedTokens {
        &self.0.introspected_tokens
    }

    /// Returns the [revocations](crate::revocation), to add and monitor them. Default: in memory, for this process
    /// only; see [`AuthBuilder::revocations`].
    pub fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }

    /// Returns the authentication mode.
    pub fn mode(&self) -> AuthMode {
        self.0.mode
    }

    /// Waits until the keys of all issuers are fetched, and the URLs of introspection endpoints are known. Call
    /// it before the service starts, to avoid 503 responses to the first requests. Returns immediately in mock
    /// mode. It does not call introspection endpoints. With a
    /// [revocation log](crate::revocation::RevocationsBuilder::log), it waits until the log is read.
    ///
    /// # Errors
    /// If a provider is unreachable, or answers with 429 or with 503 and `Retry-After`. The service
    /// may start nevertheless, because the keys are fetched when a token needs them. Also, if the metadata of an
    /// issuer with [opaque tokens](AuthBuilder::opaque_tokens) lack `introspection_endpoint`: then no opaque
    /// token is accepted before that is corrected, and an error is logged. Also, if the revocation log cannot be read.
    pub async fn ready(&self) -> Result<(), AuthError> {
        let (keys, revocations) = join(self.0.issuers.ready(), self.0.revocations.ready()).await;
        keys?;
        revocations.map_err(|error| AuthError::unavailable("revocation log", None, error))?;
        match &self.0.opaque {
            Some(opaque) => opaque.ready().await,
            None => Ok(()),
        }
    }

    /// Authenticates a request as far as possible without waiting.
    pub(crate) fn try_authenticate(&self, request: AuthRequest<'_>) -> Attempt {
        self.attempt(request).unwrap_or_else(|error| Attempt::Done(Err(error)))
    }

    fn attempt(&self, request: AuthRequest<'_>) -> Result<Attempt, AuthError> {
        let (validator, credentials) = self.validator_of(request)?;
        let Some(result) = validator.try_validate(&credentials) else {
            return Ok(Attempt::Unvalidated);
        };
        let identity = result?;
        if let Some(proof) = self.proof_request(&identity, request)?
            && self.0.proofs.try_verify(&proof)?.is_none()
        {
            return Ok(Attempt::Validated(identity, Step::Proof));
        }
        if self.try_admit(&identity)?.is_none() {
            return Ok(Attempt::Validated(identity, Step::Admission));
        }
        let Some(target) = self.target_tenant(&identity, request.tenant)? else {
            return Ok(Attempt::Done(Ok(self.context(identity, None))));
        };
        let Some(answer) = self.0.tenants.try_resolve(target) else {
            return Ok(Attempt::Validated(identity, Step::Tenant));
        };
        let tenant = self.check_tenant(answer, &identity, target, request.tenant)?;
        Ok(Attempt::Done(Ok(self.context(identity, tenant))))
    }

    /// Completes an attempt, waiting where necessary.
    pub(crate) async fn finish(
        &self,
        attempt: Attempt,
        request: AuthRequest<'_>,
    ) -> Result<AuthContext, AuthError> {
        let (identity, step) = match attempt {
            Attempt::Done(result) => return result,
            Attempt::Validated(identity, step) => (identity, step),
            Attempt::Unvalidated => {
                let (validator, credentials) = self.validator_of(request)?;
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
        let tenant = self.resolve_tenant(&identity, request.tenant).await?;
        Ok(self.context(identity, tenant))
    }

    /// Resolves the tenant in which a caller acts, and checks that it may use the service. Without
    /// `requested`, it is the caller's own.
    pub(crate) async fn resolve_tenant(
        &self,
        identity: &Identity,
        requested: Option<&RequestedTenant>,
    ) -> Result<Option<Tenant>, AuthError> {
        let Some(target) = self.target_tenant(identity, requested)? else { return Ok(None) };
        let answer = self.0.tenants.resolve(target).await;
        self.check_tenant(answer, identity, target, requested)
    }

    #[inline]
    fn context(&self, identity: Identity, tenant: Option<Tenant>) -> AuthContext {
        AuthContext { identity, tenant, token: None, auth: self.clone() }
    }

    /// Validates a token, but does not check its tenant or run the admission checks. Refuses a
    /// bound token of any validator, because there is no proof that its sender has the key.
    pub(crate) async fn validate(&self, token: &str) -> Result<Identity, AuthError> {
        let presented = Credentials::raw(token.as_bytes());
        let identity = self.validator_for(&presented)?.validate(&presented).await?;
        match identity.confirmation() {
            None => Ok(identity),
            Some(_) => Err(InvalidToken::Unproven.into()),
        }
    }

    /// Returns whether an identity may be refused although its token is valid.
    #[cfg(feature = "endpoints")]
    pub(crate) fn has_admission_checks(&self) -> bool {
        !self.0.revocations.is_idle() || !self.0.admission.is_empty()
    }

    /// Judges the revocations and the admission checks, if that is possible without waiting, else returns `None`.
    #[inline]
    fn try_admit(&self, identity: &Identity) -> Result<Option<()>, AuthError> {
        if !self.0.revocations.is_idle() && self.0.revocations.try_check(identity)?.is_none() {
            return Ok(None);
        }
        match self.admission_request(identity) {
            Some(admission) => self.0.admission.try_admit(&admission, || self.0.clock.elapsed()),
            None => Ok(Some(())),
        }
    }

    /// Judges the revocations and all admission checks.
    pub(crate) async fn admit(&self, identity: &Identity) -> Result<(), AuthError> {
        if !self.0.revocations.is_idle() {
            self.0.revocations.check(identity).await?;
        }
        match self.admission_request(identity) {
            Some(admission) => self.0.admission.admit(&admission, || self.0.clock.elapsed()).await,
            None => Ok(()),
        }
    }

    /// Returns whether the rest of an attempt needs the head of the request.
    pub(crate) fn needs_head(&self, attempt: &Attempt) -> bool {
        if matches!(attempt, Attempt::Unvalidated) && self.has_id_token_sessions() {
            return true;
        }
        let may_need_proof = match attempt {
            Attempt::Unvalidated => true,
            Attempt::Validated(_, step) => *step <= Step::Proof,
            Attempt::Done(_) => false,
        };
        may_need_proof && !self.0.proofs.is_empty()
    }

    /// Returns the credentials for a validator. They allow a bound token only if its proof is
    /// verified later.
    fn credentials<'r>(&self, request: AuthRequest<'r>) -> Credentials<'r> {
        let AuthRequest { credentials, head, .. } = request;
        let verifies_proofs = head.is_some() && !self.0.proofs.is_empty();
        if verifies_proofs { credentials.allow_bound() } else { credentials }
    }

    /// Returns the proof to verify, or `None` if the token is not bound. Applies to the tokens of
    /// all validators.
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

    /// Returns the input of the admission checks, or `None` if there are no checks.
    #[inline]
    fn admission_request<'r>(&self, identity: &'r Identity) -> Option<AdmissionRequest<'r>> {
        (!self.0.admission.is_empty()).then(|| AdmissionRequest { identity, now: self.now() })
    }

    /// Checks the tenant store's answer about `target`. A caller that requests a tenant other than
    /// its own does not learn whether that tenant exists.
    fn check_tenant(
        &self,
        answer: Result<Option<Tenant>, BoxError>,
        identity: &Identity,
        target: &TenantId,
        requested: Option<&RequestedTenant>,
    ) -> Result<Option<Tenant>, AuthError> {
        let foreign = identity.tenant_id() != Some(target);
        let tenant = match self.watch_store(answer, target)? {
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

    /// Returns the tenant store's answer, and logs the beginning and the end of an outage.
    #[inline]
    fn watch_store(
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
                if outage.record_success(|| clock.elapsed()) {
                    telemetry::store_recovered("tenant store");
                }
                return Ok(tenant);
            }
            Err(error) => error,
        };
        if !is_logged(&error) {
            let is_new = outage.record_failure(&error, clock.elapsed());
            telemetry::tenant_store_failed(&*error, false, is_new);
        }
        Err(AuthError::unavailable("tenant store", None, error))
    }

    pub(crate) fn challenger(&self) -> &Challenger {
        &self.0.challenger
    }

    /// Returns the URL of this service, with its metadata.
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

    /// Lets the ID tokens of sessions name the caller.
    #[cfg(feature = "endpoints")]
    pub(crate) fn enable_id_token_sessions(&self) {
        self.0.has_id_token_sessions.store(true, Ordering::Relaxed);
    }

    fn has_id_token_sessions(&self) -> bool {
        self.0.has_id_token_sessions.load(Ordering::Relaxed)
    }

    /// Returns the validator of a request, and its input: the token of the request, or the ID token of its
    /// session.
    #[inline]
    fn validator_of<'r>(
        &'r self,
        request: AuthRequest<'r>,
    ) -> Result<(&'r dyn TokenValidator, Credentials<'r>), AuthError> {
        if self.has_id_token_sessions()
            && let Some(session) = session_id_token(request)
            // Sessions of another service in this process count only there.
            && session.validator.is_of(&self.0.issuers)
        {
            return Ok((&*session.validator, Credentials::bearer(session.id_token.expose())));
        }
        let credentials = self.credentials(request);
        Ok((&**self.validator_for(&credentials)?, credentials))
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

    /// Returns the tenant of the request: the token's own, or another if every source that names it
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

/// Returns the ID token that the session layer added to a request, if the token of the request is still that of
/// the session.
fn session_id_token(request: AuthRequest<'_>) -> Option<&SessionIdToken> {
    let session = request.head?.extensions.get::<SessionIdToken>()?;
    let is_own = session.access_token.expose().as_bytes() == request.credentials.token_bytes();
    is_own.then_some(session)
}
