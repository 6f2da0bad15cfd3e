//! Guards: what a single route requires of the identity, beyond having one.
//!
//! `Auth::require` makes a layer of one: `auth.require(scope("admin"))`. The two that most routes
//! need, [`scope`] and [`role`](crate::role), are at the root of the crate; here are the others
//! ([`any_scope`], [`any_role`], [`group`], [`kind`], [`mfa_within`], [`verified`]), how to join
//! them ([`GuardExt`]), and the trait [`Guard`] for your own, which sees the whole head of the request
//! ([`GuardRequest`]); [`guard_fn`] makes one of a closure.
//!
//! How it fits together: [manual::request](crate::manual::request).

pub(crate) mod condition;

pub use condition::{
    Guard, GuardExt, GuardRequest, GuardService, RequireLayer, any_role, any_scope, group,
    guard_fn, kind, mfa_within, verified,
};

pub(crate) use condition::scope;

use crate::auth::Auth;

impl Auth {
    /// A layer for routes inside of [`layer`](Self::layer) that admits only what `guard` does:
    /// `auth.require(scope("admin"))`.
    pub fn require<G: Guard>(&self, guard: G) -> RequireLayer {
        RequireLayer::new(self.clone(), guard)
    }
}
