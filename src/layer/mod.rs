//! The tower layer that protects a service, with its sources of tokens and tenants.
//!
//! [`AuthLayer`] itself is at the root of the crate; `Auth::layer` creates one. This module has its
//! options ([`TokenSource`] for tokens in other headers, in cookies or in web socket protocols;
//! [`TenantSource`] for tenants in headers and paths; [`IdentityFields`] for the caller in logs), and
//! the associated types of tower's traits: [`AuthService`], [`ResponseFuture`] and [`ResponseBody`].
//!
//! See also: [manual::request](crate::manual::request).

pub(crate) mod auth_layer;
mod identity_fields;
mod query;
mod service;
mod source;
mod web_socket;

pub use crate::gate::{Gated, ResponseBody, ResponseFuture};
pub(crate) use crate::support::request_head::ClientKind;
pub use crate::support::request_head::RequestHead;
pub use auth_layer::AuthService;
pub use identity_fields::{IdentityFields, Pseudonyms};
pub use source::{CustomSource, TenantSource, TokenSource};

pub(crate) use auth_layer::AuthLayer;
pub(crate) use query::{HadQueryToken, HadRevokedToken, has_access_token, is_private};
pub(crate) use service::{Unauthenticated, authenticate, mark_mock, refuse};
pub(crate) use source::bearer;

use crate::auth::Auth;

/// The response header that marks a mock identity. Its value is `mock`.
pub const PROVENANCE_HEADER: http::HeaderName = http::HeaderName::from_static("x-auth-provenance");

impl Auth {
    /// Returns the layer that admits only authenticated requests.
    ///
    /// Add it outside all services that need an identity, and inside CORS and tracing layers: with
    /// `Router::layer` of axum before these, because the last layer is the outermost; in a
    /// `ServiceBuilder` after them, because there the first layer is. See
    /// [the order of layers](crate::manual::request#the-order-of-layers).
    pub fn layer(&self) -> AuthLayer {
        AuthLayer::new(self.clone())
    }
}
