//! The tower layer that protects a service: where it looks for token and tenant, and its service.
//!
//! [`AuthLayer`] itself is at the root of the crate; `Auth::layer` makes one. Here are the options it
//! takes ([`TokenSource`] for tokens in other headers, cookies and elsewhere; never in queries;
//! [`TenantSource`] for tenants in headers and paths), and the types that tower's traits name: [`AuthService`],
//! [`ResponseFuture`] and [`ResponseBody`].
//!
//! How it fits together: [manual::request](crate::manual::request).

pub(crate) mod auth_layer;
mod service;
mod source;

pub use crate::gate::{Gated, ResponseBody, ResponseFuture};
pub use auth_layer::AuthService;
pub use source::{CustomSource, RequestHead, TenantSource, TokenSource};

pub(crate) use auth_layer::AuthLayer;
pub(crate) use service::{Unauthenticated, authenticate, mark_mock, refuse};
pub(crate) use source::bearer;

use crate::auth::Auth;

/// The header that marks a response to a mock identity, with the value `mock`.
pub const PROVENANCE_HEADER: http::HeaderName = http::HeaderName::from_static("x-auth-provenance");

impl Auth {
    /// The layer that lets only authenticated requests through.
    ///
    /// Put it outside of everything that needs an identity, and inside of CORS and tracing layers.
    pub fn layer(&self) -> AuthLayer {
        AuthLayer::new(self.clone())
    }
}
