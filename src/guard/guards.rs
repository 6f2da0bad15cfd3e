//! [`Guard`], and the ready-made guards.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use http::{Extensions, Request};

use super::step_up::{And, Needs, Or};
use crate::auth::AuthContext;
use crate::error::{AuthError, StepUp};
use crate::identity::{Identity, IdentityKind, Provenance, Scopes};
use crate::layer::RequestHead;

/// A condition on an authenticated request.
///
/// Ready-made guards: [`scope`], [`any_scope`], [`role`], [`any_role`], [`group`], [`kind`],
/// [`acr`](super::acr), [`signed_in_within`](super::signed_in_within), [`mfa_within`](super::mfa_within),
/// [`verified_token`]. Every `Fn(&AuthContext) -> Result<(), AuthError>` is also a guard, and
/// [`guard_fn`] creates one from a closure that sees the head of the request. Combine guards with
/// [`and`](GuardExt::and) and [`or`](GuardExt::or).
///
/// A guard is called for each request, cannot wait, and does not see the body. Harmless mistake:
/// refusing too much. Security holes: admitting a request that the guard has no rule for, such as
/// an unknown method; deciding by a path that a client can spell in another way (`/admin`,
/// `/%61dmin`, `/admin/`) while the router treats all spellings as one route.
///
/// ```
/// use axum::http::Method;
/// use scaikey_auth::AuthError;
/// use scaikey_auth::guard::{Guard, GuardRequest};
///
/// /// Lets every caller send `GET` requests, and only editors send others.
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
    /// Decides whether to admit the request.
    ///
    /// # Errors
    /// The refusal that the caller gets.
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError>;

    /// Returns the sign-in that the guard needs for such a request, whether or not the request already has it.
    /// Default: none.
    ///
    /// [`and`](GuardExt::and) uses it: if one guard asks for a sign-in, the challenge also names the needs of the
    /// other, or else the new token could lack them. A guard that refuses with
    /// [`StepUpRequired`](AuthError::StepUpRequired) returns the same here. Harmless mistake: returning less.
    fn step_up(&self, request: &GuardRequest<'_>) -> StepUp {
        let _ = request;
        StepUp::default()
    }
}

/// The input of a [`Guard`]: a request and its caller.
///
/// Test a guard without its layer:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::SystemTime;
///
/// use scaikey_auth::guard::{Guard, GuardRequest};
/// use scaikey_auth::testing::Provider;
/// use scaikey_auth::{Auth, IssuerConfig, role};
///
/// let provider = Provider::start().await;
/// let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
/// let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
/// let editor = auth.authenticate(&provider.token().roles(["editor"]).sign()).await?;
///
/// let request = http::Request::delete("/docs/7").body(())?;
/// let request = GuardRequest::new(&request, &editor, SystemTime::now());
/// assert!(role("editor").check(&request).is_ok());
/// assert!(role("owner").check(&request).is_err());
/// # Ok(()) }
/// ```
///
/// # The path that a guard sees
///
/// It depends on the position of the guard, because axum's `Router::nest` removes its prefix from
/// the path that the nested routes see:
///
/// | the guard is added | `GET /v1/docs/7` under `nest("/v1", …)` is |
/// |---|---|
/// | to the nested router or one of its routes (`layer`, `route_layer`) | `/docs/7` |
/// | to the outer router, after `nest` (`layer`, `route_layer`) | `/v1/docs/7` |
///
/// axum puts the whole path and the route into the extensions: `OriginalUri` and, with
/// `route_layer`, `MatchedPath` (`/v1/docs/{id}`). Prefer `MatchedPath` for rules about routes,
/// because it has only one spelling.
///
/// `Debug` omits the headers, the query and the extensions.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct GuardRequest<'r> {
    /// The identity and the tenant.
    pub context: &'r AuthContext,
    /// The method, the target and the headers.
    pub head: RequestHead<'r>,
    /// The extensions, with the values that layers and routers have added.
    pub extensions: &'r Extensions,
    /// The current time by the clock of [`Auth`](crate::Auth).
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
    /// Creates the input of a guard, to test the guard or to call it without its layer.
    pub fn new<B>(request: &'r Request<B>, context: &'r AuthContext, now: SystemTime) -> Self {
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

/// Creates a guard from a closure that sees the head of the request, not only the caller.
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

/// The guard of [`guard_fn`].
struct GuardFn<F>(F);

impl<F> Guard for GuardFn<F>
where
    F: Fn(&GuardRequest<'_>) -> Result<(), AuthError> + Send + Sync + 'static,
{
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        (self.0)(request)
    }
}

/// Combinators of guards. Implemented for every [`Guard`], including closures.
///
/// ```
/// use scaikey_auth::guard::{GuardExt, any_role, verified_token};
/// use scaikey_auth::{Auth, scope};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// // Requires the scope or one of the roles, and in both cases a verified token.
/// let admins = scope("admin").or(any_role(["owner", "auditor"])).and(verified_token());
/// let layer = auth.require(admins);
/// # Ok(()) }
/// ```
pub trait GuardExt: Guard + Sized {
    /// Returns a guard that admits a request if both guards admit it.
    ///
    /// `other` is checked only if `self` admits the request, or if `self` misses a scope and `other` may need
    /// another sign-in ([`Guard::step_up`]). A refusal that asks for a sign-in names the needs of both guards
    /// ([`StepUp::and`]), so that one sign-in is enough.
    fn and(self, other: impl Guard) -> impl Guard {
        And(self, other)
    }

    /// Returns a guard that admits a request if `self` or `other` admits it. If neither does, the
    /// refusal is that of `self`, so a guard that asks for another sign-in comes first: `acr(["gold"]).or(role("owner"))`.
    fn or(self, other: impl Guard) -> impl Guard {
        Or(self, other)
    }
}

impl<G: Guard> GuardExt for G {}

/// Requires all of these scopes, separated by spaces: `scope("docs:read docs:write")`. A refusal
/// names all of them. Scopes must match exactly. If `required` is empty or not valid (RFC 6749
/// §3.3), the guard refuses every request.
pub fn scope(required: &str) -> impl Guard {
    let scopes: Option<Scopes> = required.parse().ok().filter(|scopes: &Scopes| !scopes.is_empty());
    let required: Arc<str> = required.into();
    let step_up = StepUp::default().scope(scopes.as_ref().map_or("", |_| &required));
    let check = move |request: &GuardRequest<'_>| {
        let held = request.context.identity().scopes();
        match &scopes {
            Some(scopes) if held.contains_all(scopes) => Ok(()),
            _ => Err(AuthError::InsufficientScope { required: required.clone() }),
        }
    };
    Needs { step_up, check }
}

/// Requires at least one of these scopes, separated by spaces. A refusal names all of them. If
/// `accepted` is empty, the guard refuses every request.
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

/// Requires this role. Otherwise the request gets 403.
pub fn role(required: impl Into<String>) -> impl Guard {
    any_role([required])
}

/// Requires at least one of these roles. Otherwise the request gets 403.
pub fn any_role<T: Into<String>>(accepted: impl IntoIterator<Item = T>) -> impl Guard {
    let accepted: Vec<String> = accepted.into_iter().map(Into::into).collect();
    let refusal = forbidden("role", &accepted.join(" or "));
    only(refusal, move |identity| accepted.iter().any(|role| identity.has_role(role)))
}

/// Requires this group. Otherwise the request gets 403.
pub fn group(required: impl Into<String>) -> impl Guard {
    let required = required.into();
    only(forbidden("group", &required), move |identity| identity.in_group(&required))
}

/// Requires this kind of identity, such as users or service accounts. Otherwise the request gets
/// 403.
pub fn kind(required: IdentityKind) -> impl Guard {
    only(forbidden("kind", required.as_str()), move |identity| identity.kind() == required)
}

/// Admits every caller with an identity, also a mock one. Use it for a path of
/// [`PathRules`](crate::guard::PathRules) that needs a token and nothing else.
pub fn authenticated() -> impl Guard {
    |_: &AuthContext| Ok(())
}

/// Requires an identity whose token this service verified itself. Refuses mock identities and
/// introspected opaque tokens with 403.
pub fn verified_token() -> impl Guard {
    let refusal = forbidden("provenance", Provenance::Verified.as_str());
    only(refusal, |identity| identity.provenance() == Provenance::Verified)
}

/// Creates a guard that refuses an identity with `refusal` unless `admits` returns `true`.
fn only(
    refusal: AuthError,
    admits: impl Fn(&Identity) -> bool + Send + Sync + 'static,
) -> impl Guard {
    move |context: &AuthContext| {
        if admits(context.identity()) { Ok(()) } else { Err(refusal.clone()) }
    }
}

pub(super) fn forbidden(attribute: &str, required: &str) -> AuthError {
    AuthError::Forbidden { required: format!("{attribute} {required}").into() }
}
