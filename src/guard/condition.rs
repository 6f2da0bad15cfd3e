//! Guards: what a single route requires of the identity, beyond having one.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, Request, Response};
use tower_layer::Layer;

use crate::auth::{Auth, AuthContext};
use crate::error::{AuthError, ErrorResponse, ProblemJson};
use crate::gate::{Decision, Gate, Gated};
use crate::identity::{Identity, IdentityKind, Provenance, Scopes};
use crate::layer::{RequestHead, Unauthenticated, refuse};

/// A condition on an authenticated request.
///
/// Ready-made: [`scope`], [`any_scope`], [`role`], [`any_role`], [`group`], [`kind`],
/// [`mfa_within`], [`verified`]. Any `Fn(&AuthContext) -> Result<(), AuthError>` is one too, and
/// [`guard_fn`] makes one of a closure that looks at the request. Join them with
/// [`and`](GuardExt::and) and [`or`](GuardExt::or).
///
/// A guard is called for each request, waits for nothing, and does not see the body.
/// Harmless mistake: to refuse too much. Attacks: to admit what it does not understand, such as a
/// method it has no rule for; to decide by a path that a client can write in another way
/// (`/admin`, `/%61dmin`, `/admin/`) where the router takes both for one route.
///
/// ```
/// use axum::http::Method;
/// use scaikey_auth::AuthError;
/// use scaikey_auth::guard::{Guard, GuardRequest};
///
/// /// Lets everybody read, and only editors write.
/// struct EditorsWrite;
///
/// impl Guard for EditorsWrite {
///     fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
///         let identity = request.context.identity();
///         if request.head.method == Method::GET || identity.has_role("editor") {
///             return Ok(());
///         }
///         Err(AuthError::Forbidden { required: "role editor".into() })
///     }
/// }
/// ```
pub trait Guard: Send + Sync + 'static {
    /// Decides whether the request may go on.
    ///
    /// # Errors
    /// The reason of the refusal, as the caller is told it.
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError>;
}

/// A request in front of a [`Guard`].
///
/// # Which path a guard sees
///
/// The one that is left where the guard stands. `axum`'s `Router::nest` strips its prefix before the
/// nested routes:
///
/// | the guard is added | `GET /v1/docs/7` under `nest("/v1", …)` is |
/// |---|---|
/// | to the nested router or one of its routes (`layer`, `route_layer`) | `/docs/7` |
/// | to the outer router, after `nest` (`layer`, `route_layer`) | `/v1/docs/7` |
///
/// axum leaves the whole path and the route in the extensions: `OriginalUri` and, with
/// `route_layer`, `MatchedPath` (`/v1/docs/{id}`). Rules for routes are best written with
/// `MatchedPath`, since it has one spelling.
///
/// `Debug` prints neither headers, the query nor extensions.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct GuardRequest<'r> {
    /// The identity and the tenant.
    pub context: &'r AuthContext,
    /// The method, the target and the headers.
    pub head: RequestHead<'r>,
    /// What layers and routers left with the request.
    pub extensions: &'r Extensions,
    /// The time by the clock of [`Auth`].
    pub now: SystemTime,
}

impl fmt::Debug for GuardRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardRequest")
            .field("context", &self.context)
            .field("head", &self.head)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl<'r> GuardRequest<'r> {
    /// Makes the request that a guard sees: to test a guard, or to ask one without its layer.
    pub fn of<B>(request: &'r Request<B>, context: &'r AuthContext, now: SystemTime) -> Self {
        let head = RequestHead::of(request);
        Self { context, head, extensions: request.extensions(), now }
    }

    pub(crate) fn of_parts(parts: &'r Parts, context: &'r AuthContext, now: SystemTime) -> Self {
        let head = RequestHead::of_parts(parts);
        Self { context, head, extensions: &parts.extensions, now }
    }
}

impl<F> Guard for F
where
    F: Fn(&AuthContext) -> Result<(), AuthError> + Send + Sync + 'static,
{
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        self(request.context)
    }
}

/// Makes a guard of a closure that looks at the request, not only at who calls.
///
/// ```
/// use axum::http::Method;
/// use scaikey_auth::guard::{GuardExt, GuardRequest, guard_fn};
/// use scaikey_auth::{Auth, AuthError, scope};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// # let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// let reads = guard_fn(|request: &GuardRequest<'_>| match *request.head.method {
///     Method::GET | Method::HEAD => Ok(()),
///     _ => Err(AuthError::Forbidden { required: "method GET".into() }),
/// });
/// let layer = auth.require(scope("docs:write").or(reads));
/// # Ok(()) }
/// ```
pub fn guard_fn<F>(check: F) -> impl Guard
where
    F: Fn(&GuardRequest<'_>) -> Result<(), AuthError> + Send + Sync + 'static,
{
    GuardFn(check)
}

/// A guard that looks at the request.
struct GuardFn<F>(F);

impl<F> Guard for GuardFn<F>
where
    F: Fn(&GuardRequest<'_>) -> Result<(), AuthError> + Send + Sync + 'static,
{
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        (self.0)(request)
    }
}

/// Joins guards. Implemented for every [`Guard`], closures included.
///
/// ```
/// use scaikey_auth::guard::{GuardExt, any_role, verified};
/// use scaikey_auth::{Auth, scope};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// // The scope or one of the roles; and in both cases no mock.
/// let admins = scope("admin").or(any_role(["owner", "auditor"])).and(verified());
/// let layer = auth.require(admins);
/// # Ok(()) }
/// ```
pub trait GuardExt: Guard + Sized {
    /// Both must admit; the first refusal is told.
    fn and(self, other: impl Guard) -> impl Guard {
        guard_fn(move |request| {
            self.check(request)?;
            other.check(request)
        })
    }

    /// One must admit; otherwise the first refusal is told.
    fn or(self, other: impl Guard) -> impl Guard {
        guard_fn(move |request| {
            self.check(request).or_else(|refusal| other.check(request).map_err(|_| refusal))
        })
    }
}

impl<G: Guard> GuardExt for G {}

/// All of these scopes, separated by spaces: `scope("docs:read docs:write")`. A refusal names them
/// all. Scopes are compared letter for letter; something that is no scope (RFC 6749 §3.3) admits
/// nobody.
pub fn scope(required: &str) -> impl Guard {
    let scopes: Option<Scopes> = required.parse().ok().filter(|scopes: &Scopes| !scopes.is_empty());
    let required: Arc<str> = required.into();
    move |context: &AuthContext| {
        let held = context.identity().scopes();
        match &scopes {
            Some(scopes) if held.contains_all(scopes) => Ok(()),
            _ => Err(AuthError::InsufficientScope { required: required.clone() }),
        }
    }
}

/// At least one of these scopes, separated by spaces. A refusal names them all.
pub fn any_scope(accepted: &str) -> impl Guard {
    let accepted: Arc<str> = accepted.into();
    move |context: &AuthContext| {
        let held = context.identity().scopes();
        if accepted.split(' ').any(|scope| held.contains(scope)) {
            return Ok(());
        }
        Err(AuthError::InsufficientScope { required: accepted.clone() })
    }
}

/// This role.
pub fn role(required: impl Into<String>) -> impl Guard {
    any_role([required])
}

/// At least one of these roles.
pub fn any_role<T: Into<String>>(accepted: impl IntoIterator<Item = T>) -> impl Guard {
    let accepted: Vec<String> = accepted.into_iter().map(Into::into).collect();
    let refusal = forbidden("role", &accepted.join(" or "));
    only(refusal, move |identity| accepted.iter().any(|role| identity.has_role(role)))
}

/// This group.
pub fn group(required: impl Into<String>) -> impl Guard {
    let required = required.into();
    only(forbidden("group", &required), move |identity| identity.in_group(&required))
}

/// This kind of identity: users only, or service accounts only.
pub fn kind(required: IdentityKind) -> impl Guard {
    only(forbidden("kind", required.as_str()), move |identity| identity.kind() == required)
}

/// A multi-factor authentication not longer ago than this. The refusal asks the client for one
/// (RFC 9470), also when the token does not say when there was one
/// ([`Identity::mfa_verified_at`]). One that lies more than 60 s in the future does not count.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::guard::{GuardExt, mfa_within};
/// use scaikey_auth::{Auth, scope};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// // For the route: `post(pay).route_layer(pays)`.
/// let pays = auth.require(scope("payments:write").and(mfa_within(Duration::from_secs(600))));
/// # Ok(()) }
/// ```
pub fn mfa_within(max_age: Duration) -> impl Guard {
    guard_fn(move |request| match request.context.identity().mfa_verified_at() {
        Some(moment) if is_recent(moment, request.now, max_age) => Ok(()),
        _ => Err(AuthError::StepUpRequired { max_age }),
    })
}

/// Whether `moment` lies no longer ago than `max_age`. One in the future counts only as far as
/// clocks differ: an issuer that writes milliseconds must not have signed everybody in for ever.
fn is_recent(moment: SystemTime, now: SystemTime, max_age: Duration) -> bool {
    const SKEW: Duration = Duration::from_secs(60);
    match now.duration_since(moment) {
        Ok(age) => age <= max_age,
        Err(ahead) => ahead.duration() <= SKEW,
    }
}

/// An identity whose token was verified here: no mock, and no introspected opaque token.
pub fn verified() -> impl Guard {
    let refusal = forbidden("provenance", Provenance::Verified.as_str());
    only(refusal, |identity| identity.provenance() == Provenance::Verified)
}

/// Admits identities of which `admits` holds, and refuses all others alike.
fn only(
    refusal: AuthError,
    admits: impl Fn(&Identity) -> bool + Send + Sync + 'static,
) -> impl Guard {
    move |context: &AuthContext| {
        if admits(context.identity()) { Ok(()) } else { Err(refusal.clone()) }
    }
}

fn forbidden(what: &str, required: &str) -> AuthError {
    AuthError::Forbidden { required: format!("{what} {required}").into() }
}

/// A layer that admits only requests its guard does. Made by [`Auth::require`].
#[derive(Clone)]
pub struct RequireLayer {
    auth: Auth,
    options: Arc<Options>,
}

/// Shared, so that a clone for each request counts one reference.
#[derive(Clone)]
struct Options {
    guard: Arc<dyn Guard>,
    respond: Arc<dyn ErrorResponse>,
}

impl RequireLayer {
    pub(super) fn new(auth: Auth, guard: impl Guard) -> Self {
        let options = Options { guard: Arc::new(guard), respond: Arc::new(ProblemJson) };
        Self { auth, options: Arc::new(options) }
    }

    /// Sets how refusals are answered. Default [`ProblemJson`].
    #[must_use]
    pub fn respond_with(mut self, respond: impl ErrorResponse) -> Self {
        Arc::make_mut(&mut self.options).respond = Arc::new(respond);
        self
    }

    fn check<Q>(&self, request: &Request<Q>) -> Result<(), AuthError> {
        let extensions = request.extensions();
        if let Some(context) = extensions.get::<AuthContext>() {
            let request = GuardRequest::of(request, context, self.auth.now());
            return self.options.guard.check(&request);
        }
        match extensions.get::<Unauthenticated>() {
            Some(Unauthenticated::Anonymous(_)) => Err(AuthError::MissingCredentials),
            Some(Unauthenticated::Preflight) => Ok(()),
            None => Err(AuthError::MissingLayer),
        }
    }
}

impl fmt::Debug for RequireLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RequireLayer {
    type Service = GuardService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

/// A service behind a [`RequireLayer`].
pub type GuardService<S> = Gated<S, RequireLayer>;

impl<Q> Gate<Q> for RequireLayer {
    type After = ();
    type Awaited = Infallible;

    fn decide(
        &self,
        request: &mut Request<Q>,
    ) -> Result<Decision<(), Infallible>, Response<Bytes>> {
        self.check(request).map(Decision::Pass).map_err(|error| {
            let is_grpc = RequestHead::of(request).is_grpc();
            refuse(&self.auth, &*self.options.respond, &error, is_grpc)
        })
    }

    fn resume(&self, awaited: Infallible, _: &mut Request<Q>) -> Result<(), Response<Bytes>> {
        match awaited {}
    }
}
