//! Guards: conditions that a route sets on authenticated requests.
//!
//! `Auth::require` makes a layer of a guard: `auth.require(scope("admin"))`. The most common
//! guards, [`scope`] and [`role`](crate::role), are at the root of the crate. This module has the
//! others ([`any_scope`], [`any_role`], [`group`], [`kind`], [`mfa_within`], [`verified_token`]) and
//! [`GuardExt`] to combine them. Write your own as a [`Guard`], which sees the head of the request
//! ([`GuardRequest`]), or from a closure with [`guard_fn`].
//!
//! See also: [manual::request](crate::manual::request).

pub(crate) mod guards;
mod require_layer;

pub use guards::{
    Guard, GuardExt, GuardRequest, any_role, any_scope, group, guard_fn, kind, mfa_within,
    verified_token,
};
pub use require_layer::{GuardService, RequireLayer};

pub(crate) use guards::scope;

use crate::auth::Auth;

impl Auth {
    /// Returns a layer that admits only the requests that `guard` admits:
    /// `auth.require(scope("admin"))`. The routes must be inside of [`layer`](Self::layer).
    pub fn require<G: Guard>(&self, guard: G) -> RequireLayer {
        RequireLayer::new(self.clone(), guard)
    }
}
