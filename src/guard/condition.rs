//! Guards: what a single route requires of the identity, beyond having one.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::auth::{Auth, AuthContext};
use crate::error::{AuthError, ErrorResponse, ProblemJson};
use crate::gate::{Decision, Gate, Gated};
use crate::identity::{Identity, IdentityKind, Provenance, Scopes};
use crate::layer::{Passed, RequestHead, refuse};

/// A condition on an authenticated request.
///
/// Ready-made: [`scope`], [`any_scope`], [`role`], [`any_role`], [`group`], [`kind`],
/// [`mfa_within`], [`verified`]. Any `Fn(&AuthContext) -> Result<(), AuthError>` is one too. Join
/// them with [`and`](GuardExt::and) and [`or`](GuardExt::or).
pub trait Guard: Send + Sync + 'static {
    /// Whether the request may go on; `now` is the layer's clock.
    ///
    /// # Errors
    /// Why not, as the caller is to be told.
    fn check(&self, context: &AuthContext, now: SystemTime) -> Result<(), AuthError>;
}

impl<F> Guard for F
where
    F: Fn(&AuthContext) -> Result<(), AuthError> + Send + Sync + 'static,
{
    fn check(&self, context: &AuthContext, _now: SystemTime) -> Result<(), AuthError> {
        self(context)
    }
}

/// Joins guards.
pub trait GuardExt: Guard + Sized {
    /// Both must admit; the first refusal is told.
    fn and(self, other: impl Guard) -> impl Guard {
        Condition(move |context: &AuthContext, now| {
            self.check(context, now)?;
            other.check(context, now)
        })
    }

    /// One must admit; otherwise the first refusal is told.
    fn or(self, other: impl Guard) -> impl Guard {
        Condition(move |context: &AuthContext, now| {
            self.check(context, now)
                .or_else(|refusal| other.check(context, now).map_err(|_| refusal))
        })
    }
}

impl<G: Guard> GuardExt for G {}

/// A guard that looks at the clock.
struct Condition<F>(F);

impl<F> Guard for Condition<F>
where
    F: Fn(&AuthContext, SystemTime) -> Result<(), AuthError> + Send + Sync + 'static,
{
    fn check(&self, context: &AuthContext, now: SystemTime) -> Result<(), AuthError> {
        (self.0)(context, now)
    }
}

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
/// (RFC 9470), also when the token does not say when there was one.
pub fn mfa_within(max_age: Duration) -> impl Guard {
    Condition(move |context: &AuthContext, now| match context.identity().mfa_verified_at() {
        Some(moment) if is_recent(moment, now, max_age) => Ok(()),
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
pub struct RequireLayer<R = ProblemJson> {
    auth: Auth,
    guard: Arc<dyn Guard>,
    respond: R,
}

impl RequireLayer {
    pub(super) fn new(auth: Auth, guard: impl Guard) -> Self {
        Self { auth, guard: Arc::new(guard), respond: ProblemJson }
    }
}

impl<R> RequireLayer<R> {
    /// Sets how refusals are answered. Default [`ProblemJson`].
    #[must_use]
    pub fn respond_with<R2>(self, respond: R2) -> RequireLayer<R2> {
        RequireLayer { auth: self.auth, guard: self.guard, respond }
    }

    fn check<Q>(&self, request: &Request<Q>) -> Result<(), AuthError> {
        let extensions = request.extensions();
        if let Some(context) = extensions.get::<AuthContext>() {
            return self.guard.check(context, self.auth.now());
        }
        match extensions.get::<Passed>() {
            Some(Passed::Anonymous(_)) => Err(AuthError::MissingCredentials),
            Some(Passed::Preflight) => Ok(()),
            None => Err(AuthError::MissingLayer),
        }
    }
}

impl<R> fmt::Debug for RequireLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireLayer").finish_non_exhaustive()
    }
}

impl<S, R: Clone> Layer<S> for RequireLayer<R> {
    type Service = GuardService<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated::new(inner, self.clone())
    }
}

/// A service behind a [`RequireLayer`].
pub type GuardService<S, R> = Gated<S, RequireLayer<R>>;

impl<S, R, Q, B> Gate<S, Q> for RequireLayer<R>
where
    S: Service<Request<Q>, Response = Response<B>>,
    R: ErrorResponse<B>,
{
    type After = ();
    type Verdict = Infallible;

    fn decide(&self, request: &mut Request<Q>) -> Result<Decision<(), Infallible>, Response<B>> {
        self.check(request).map(Decision::Pass).map_err(|error| {
            let is_grpc = RequestHead::of(request).is_grpc();
            refuse(&self.auth, &self.respond, &error, is_grpc)
        })
    }

    fn resume(&self, verdict: Infallible, _: &mut Request<Q>) -> Result<(), Response<B>> {
        match verdict {}
    }
}
