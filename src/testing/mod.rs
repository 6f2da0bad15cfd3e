//! Tools for tests: an OpenID provider over real HTTP, an adjustable clock, forged tokens and
//! conformance suites (feature `testing`). This crate's own tests use the same tools.
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
//! // Configure the service under test with this issuer:
//! let issuer = provider.issuer();
//! assert!(issuer.starts_with("http://127.0.0.1:"));
//!
//! // Simulate key rotation and outages:
//! provider.rotate();
//! provider.remove_old_keys();
//! provider.fail(ProviderEndpoint::Jwks, Fault::Status(500));
//! assert_eq!(provider.jwks_requests(), 0);
//! # }
//! ```
//!
//! - [`Provider`] serves discovery, keys and the OAuth endpoints on the loopback interface. Its
//!   [`TestIssuer`]s (the platform and each [tenant](Provider::tenant)) have keys that rotate,
//!   request counters, and [faults](Fault) that a test sets and clears.
//! - [`Provider::tenant_at`] and [`Provider::issuer_at`] add issuers at paths of your provider's layout, and
//!   [`TestIssuer::shape_tokens`] gives tokens the shape of your provider's.
//! - A [`Client`] gets tokens by client credentials, password, [code](TestIssuer::authorize),
//!   refresh and [exchange](Client::may_exchange), and can revoke and introspect them. A
//!   [public](Client::public) client is limited to password, code, refresh and revocation.
//! - [`Client::opaque_access_tokens`] and [`TokenBuilder::opaque`] make access tokens that are no JWTs. The
//!   introspection endpoint shows their claims, as JSON or signed.
//! - With [`TestIssuer::single_sign_on`], the provider remembers a browser that signed in, until it
//!   signs out (logs out) at [`TestIssuer::end_session_endpoint`].
//! - An `EncryptionKey` (feature `jwe`) is the recipient of encrypted tokens.
//! - [`ManualClock`] stands still until the test moves it, so that no test has to sleep.
//! - [`forge`] makes tokens that a service must reject, and unusual tokens that it must accept.
//! - [`conformance`] tests your own tenant store, registrar, token cache and replay log.
//! - [`challenge`] parses `WWW-Authenticate` headers strictly.
//!
//! Enable the feature in `dev-dependencies` only: the provider gives tokens to every caller, has no
//! TLS, and panics on failure.
//!
//! For an overview see [manual::testing](crate::manual::testing).

pub mod challenge;
mod clients;
mod clock;
pub mod conformance;
#[cfg(feature = "jwe")]
mod encryption;
mod endpoint;
mod faults;
pub mod forge;
#[doc(hidden)]
pub mod fuzz;
mod identity;
mod issuer;
mod key_ring;
mod keys;
mod oauth;
mod provider;
mod server;
mod tokens;

pub use clients::{Client, User};
pub use clock::ManualClock;
#[cfg(feature = "jwe")]
pub use encryption::EncryptionKey;
pub use endpoint::{ProviderEndpoint, ReceivedRequest};
pub use faults::{BadKey, Fault, Rewrite};
pub use identity::identity;
pub use issuer::TestIssuer;
pub use keys::SigningKey;
pub use provider::{Provider, ProviderBuilder};
pub use tokens::TokenBuilder;
