//! "A ScaiKey in a box": a provider over real HTTP, an adjustable clock and forged tokens, for
//! your tests as much as for ours (feature `testing`).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use scaikey_auth::testing::{ProviderEndpoint, Fault, Provider};
//!
//! let provider = Provider::start().await;
//! let token = provider.token().subject("alice").tenant("acme").scope("docs:read").sign();
//! assert!(token.starts_with("eyJ"));
//!
//! // What your service under test is configured with:
//! let issuer = provider.issuer();
//! assert!(issuer.starts_with("http://127.0.0.1:"));
//!
//! // What may happen in a provider's life:
//! provider.rotate();
//! provider.remove_old_keys();
//! provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
//! assert_eq!(provider.jwks_requests(), 0);
//! # }
//! ```
//!
//! - [`Provider`] serves discovery, keys and a token endpoint on the loopback interface; its
//!   [`TestIssuer`]s (the platform and each [tenant](Provider::tenant)) have keys that rotate,
//!   counters, and [faults](Fault) that come and go.
//! - A [`Client`] gets tokens by client credentials, password, [code](TestIssuer::authorize), refresh
//!   and [exchange](Client::may_exchange), and can revoke and introspect them.
//! - [`ManualClock`] stands still until it is moved: nothing has to sleep.
//!
//! - [`forge`] makes the tokens that must be refused, and their honest twins.
//! - [`conformance`] examines your own tenant store, registrar, token cache and replay log.
//! - [`challenge`] reads `WWW-Authenticate` headers as strictly as they should be written.
//!
//! It is a tool for tests. It gives tokens to whoever asks, has no TLS, and panics when something
//! goes wrong: enable the feature for `dev-dependencies` only.
//!
//! How it fits together: [manual::testing](crate::manual::testing).

pub mod challenge;
mod clients;
mod clock;
pub mod conformance;
mod endpoint;
mod faults;
pub mod forge;
#[doc(hidden)]
pub mod fuzz;
mod identity;
mod issuer;
mod keys;
mod oauth;
mod provider;
mod ring;
mod server;
mod tokens;

pub use clients::{Client, User};
pub use clock::ManualClock;
pub use endpoint::{ProviderEndpoint, ReceivedRequest};
pub use faults::{BadKey, Fault, Rewrite};
pub use identity::identity;
pub use issuer::TestIssuer;
pub use keys::SigningKey;
pub use provider::{Provider, ProviderBuilder};
pub use tokens::TokenBuilder;
