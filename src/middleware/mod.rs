//! The tower layer that protects a service, and the guards for single routes.

mod guard;
mod layer;
mod service;
mod source;

pub use guard::{
    Guard, GuardExt, GuardService, RequireLayer, any_role, any_scope, group, kind, mfa_within,
    role, scope, verified,
};
pub use layer::{AuthLayer, AuthService};
pub use source::{CustomSource, RequestHead, TenantSource, TokenSource};

#[cfg(feature = "axum")]
pub(crate) use service::Passed;
pub(crate) use service::{authenticate, in_seconds, mark_mock, refuse};
pub(crate) use source::bearer;

use crate::auth::Auth;
use crate::error::ProblemJson;

/// The header that marks a response to a mock identity, with the value `mock`.
pub const PROVENANCE_HEADER: http::HeaderName = http::HeaderName::from_static("x-auth-provenance");

impl Auth {
    /// The layer that lets only authenticated requests through.
    ///
    /// Put it outside of everything that needs an identity, and inside of CORS and tracing layers.
    pub fn layer(&self) -> AuthLayer {
        AuthLayer::new(self.clone())
    }

    /// A layer for routes inside of [`layer`](Self::layer) that admits only what `guard` does:
    /// `auth.require(scope("admin"))`.
    pub fn require<G: Guard>(&self, guard: G) -> RequireLayer<ProblemJson> {
        RequireLayer::new(self.clone(), guard)
    }
}
