//! Guards: conditions that authenticated requests to a route must meet.
//!
//! `Auth::require` creates a layer from a guard: `auth.require(scope("admin"))`. The most common
//! guards, [`scope`] and [`role`](crate::role), are at the root of the crate. This module has the
//! others ([`any_scope`], [`any_role`], [`group`], [`kind`], [`acr`], [`signed_in_within`], [`mfa_within`],
//! [`verified_token`], [`authenticated`]) and [`GuardExt`] to combine them. Write your own as a [`Guard`], which sees
//! the head of the request ([`GuardRequest`]), or from a closure with [`guard_fn`].
//!
//! `Auth::require_by_path` takes a guard for each path ([`PathRules`]): for the methods of a gRPC
//! service, and for services without a router.
//!
//! See also: [manual::request](crate::manual::request).

pub(crate) mod guards;
mod path_rules;
mod require_layer;
mod step_up;

pub use guards::{
    Guard, GuardExt, GuardRequest, any_role, any_scope, authenticated, group, guard_fn, kind,
    verified_token,
};
pub use path_rules::PathRules;
pub use require_layer::{GuardService, RequireLayer};
pub use step_up::{acr, mfa_within, signed_in_within};

pub(crate) use guards::scope;

use crate::auth::Auth;

impl Auth {
    /// Returns a layer that refuses the requests that `guard` refuses:
    /// `auth.require(scope("admin"))`. Add it inside [`layer`](Self::layer): on a route without
    /// that layer, or outside it, it answers 500, and the log names the remedy. See
    /// [the order of layers](crate::manual::request#the-order-of-layers).
    pub fn require<G: Guard>(&self, guard: G) -> RequireLayer {
        RequireLayer::new(self.clone(), guard)
    }

    /// Returns a builder for a layer with a guard for each path, which refuses every other path. For
    /// the methods of a gRPC service (`/package.Service/Method`), and for HTTP services without a
    /// router. Add the layer inside [`layer`](Self::layer).
    pub fn require_by_path(&self) -> PathRules {
        PathRules::new(self.clone())
    }
}
