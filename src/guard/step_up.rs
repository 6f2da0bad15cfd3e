//! Guards of how and when the user signed in. Their refusals ask for another sign-in (RFC 9470).

use std::time::{Duration, SystemTime};

use super::guards::{Guard, GuardRequest, forbidden};
use crate::error::{AuthError, StepUp, is_recent};
use crate::identity::Identity;

/// Requires one of these authentication context classes, the preferred one first: `acr(["phr", "gold"])`. They are
/// compared with the claim `acr` exactly ([`Identity::acr`]): no class includes another, so list all that are
/// accepted. Otherwise the request gets 401 `insufficient_user_authentication` with these `acr_values` (RFC 9470 §3),
/// also if the token has no `acr`.
///
/// A value that is empty, or has spaces or characters outside printable ASCII, is never accepted, because no request
/// can ask for it. If no value is left, the guard refuses every request with 403.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::guard::{GuardExt, acr, signed_in_within};
/// use scaikey_auth::{Auth, scope};
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// # let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// // One challenge names all three.
/// let pays = scope("payments:write").and(acr(["phr", "gold"])).and(signed_in_within(Duration::from_secs(600)));
/// let layer = auth.require(pays);
/// # Ok(()) }
/// ```
pub fn acr(accepted: impl IntoIterator<Item = impl AsRef<str>>) -> impl Guard {
    let step_up = StepUp::default().acr_values(accepted);
    let is_possible = step_up.acr_values.is_some();
    let needs = step_up.clone();
    let check = move |request: &GuardRequest<'_>| match is_possible {
        false => Err(forbidden("acr", "of no class")),
        true if needs.is_met_by(request.context.identity().acr(), None, request.now) => Ok(()),
        true => Err(needs.clone().into()),
    };
    Needs { step_up, check }
}

/// Requires that the user authenticated within the last `max_age`, with or without several factors. Otherwise the
/// request gets 401 `insufficient_user_authentication` with this `max_age` (RFC 9470 §3), also if the token does not
/// say when the user authenticated ([`Identity::authenticated_at`]). A time more than 60 s in the future is refused
/// too. The renewal of a token does not change the time.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::Auth;
/// use scaikey_auth::guard::signed_in_within;
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// # let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
/// // For the route: `delete(close_account).route_layer(closes)`.
/// let closes = auth.require(signed_in_within(Duration::from_secs(300)));
/// # Ok(()) }
/// ```
pub fn signed_in_within(max_age: Duration) -> impl Guard {
    recent(max_age, Identity::authenticated_at)
}

/// Requires a multi-factor authentication within the last `max_age`. Otherwise the request gets 401
/// `insufficient_user_authentication` (RFC 9470), even if the token does not say when the user
/// authenticated ([`Identity::mfa_verified_at`]). A time more than 60 s in the future is refused
/// too.
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
    recent(max_age, Identity::mfa_verified_at)
}

/// Creates a guard that requires a time of the identity to be at most `max_age` ago.
fn recent(max_age: Duration, time: fn(&Identity) -> Option<SystemTime>) -> impl Guard {
    let step_up = StepUp::default().max_age(max_age);
    let needs = step_up.clone();
    let check = move |request: &GuardRequest<'_>| match time(request.context.identity()) {
        Some(time) if is_recent(time, request.now, max_age) => Ok(()),
        _ => Err(needs.clone().into()),
    };
    Needs { step_up, check }
}

/// A guard that knows which sign-in it needs.
pub(super) struct Needs<F> {
    pub(super) step_up: StepUp,
    pub(super) check: F,
}

impl<F> Guard for Needs<F>
where
    F: Fn(&GuardRequest<'_>) -> Result<(), AuthError> + Send + Sync + 'static,
{
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        (self.check)(request)
    }

    fn step_up(&self, _: &GuardRequest<'_>) -> StepUp {
        self.step_up.clone()
    }
}

/// Admits a request if both guards admit it.
pub(super) struct And<A, B>(pub(super) A, pub(super) B);

impl<A: Guard, B: Guard> Guard for And<A, B> {
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        let Self(first, second) = self;
        match first.check(request) {
            Ok(()) => second.check(request).map_err(|refusal| match refusal {
                AuthError::StepUpRequired(step_up) => first.step_up(request).and(&step_up).into(),
                refusal => refusal,
            }),
            Err(AuthError::StepUpRequired(step_up)) => {
                Err(step_up.and(&second.step_up(request)).into())
            }
            // The new sign-in asks for the missing scope, too.
            Err(AuthError::InsufficientScope { required }) => Err(match needs(second, request) {
                Some(step_up) => {
                    let first = StepUp::default().scope(&required).and(&first.step_up(request));
                    first.and(&step_up).into()
                }
                None => AuthError::InsufficientScope { required },
            }),
            Err(refusal) => Err(refusal),
        }
    }

    fn step_up(&self, request: &GuardRequest<'_>) -> StepUp {
        self.0.step_up(request).and(&self.1.step_up(request))
    }
}

/// Returns the sign-in that a guard asks for. Does not call a guard that never asks for one.
fn needs(guard: &impl Guard, request: &GuardRequest<'_>) -> Option<StepUp> {
    if guard.step_up(request).is_empty() {
        return None;
    }
    match guard.check(request) {
        Err(AuthError::StepUpRequired(step_up)) => Some(step_up),
        _ => None,
    }
}

/// Admits a request if one of two guards admits it.
pub(super) struct Or<A, B>(pub(super) A, pub(super) B);

impl<A: Guard, B: Guard> Guard for Or<A, B> {
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        let Self(first, second) = self;
        first.check(request).or_else(|refusal| second.check(request).map_err(|_| refusal))
    }

    /// The needs of the guard that admits the request, or whose refusal is returned.
    fn step_up(&self, request: &GuardRequest<'_>) -> StepUp {
        let Self(first, second) = self;
        let is_second = first.check(request).is_err() && second.check(request).is_ok();
        if is_second { second.step_up(request) } else { first.step_up(request) }
    }
}
