//! Authentication and tenancy for Rust services behind an OpenID provider, as a tower layer.
//!
//! Requests carry bearer JWTs. The layer verifies each against its issuer's rotating keys, finds
//! the tenant, and puts both into the request; everything else is refused with the answer the RFCs
//! want. It denies by default, does no I/O before the first token, and waits for nothing when the key
//! of a request's token is at hand.
//!
//! ```
//! use axum::{Router, routing::get};
//! use scaikey_auth::{Auth, Identity, Tenant, scope};
//!
//! async fn me(identity: Identity, tenant: Tenant) -> String {
//!     format!("{} of {}", identity.subject(), tenant.id())
//! }
//!
//! # fn main() -> Result<(), scaikey_auth::ConfigError> {
//! let auth = Auth::builder().issuer("https://scaikey.example").audience("scaiwave").build()?;
//! let app: Router = Router::new()
//!     .route("/me", get(me))
//!     .route("/admin", get(me).route_layer(auth.require(scope("admin"))))
//!     .layer(auth.layer());
//! # Ok(()) }
//! ```
//!
//! # Where to find what
//!
//! At the root are the names that a first program types. Everything else has one path, that of its
//! module:
//!
//! | module | what is there |
//! |---|---|
//! | [`layer`] | where the layer looks for tokens and tenants: [`TokenSource`](layer::TokenSource), [`TenantSource`](layer::TenantSource) |
//! | [`guard`] | what a route requires: [`any_scope`](guard::any_scope), [`group`](guard::group), [`mfa_within`](guard::mfa_within), [`verified`](guard::verified), your own [`Guard`](guard::Guard) |
//! | [`extract`] | extractors for axum handlers |
//! | [`error`] | why a token does not hold, and what a refusal looks like: [`InvalidToken`](error::InvalidToken), [`ProblemJson`](error::ProblemJson), [`Grpc`](error::Grpc) |
//! | [`identity`] | the parts of an identity: [`Scopes`](identity::Scopes), [`IdentityKey`](identity::IdentityKey), [`Actor`](identity::Actor); [`ClaimsMapping`](identity::ClaimsMapping) |
//! | [`config`] | the parts of a configuration: [`Algorithm`](config::Algorithm), [`JwksSettings`](config::JwksSettings); [`ENVIRONMENT`](config::ENVIRONMENT) |
//! | [`issuer`] | keys and their health: [`Issuers`](issuer::Issuers), [`TenantIssuers`](issuer::TenantIssuers); how a service proves itself: [`ClientAuth`](issuer::ClientAuth) |
//! | [`validator`] | tokens of another kind, and the tokens verified before: [`Credentials`](validator::Credentials), [`VerifiedTokens`](validator::VerifiedTokens) |
//! | [`proof`], [`admission`] | bound tokens, and deny lists: [`ProofVerifier`](proof::ProofVerifier), [`AdmissionCheck`](admission::AdmissionCheck) |
//! | [`replay`] | what may be used only once: [`ReplayLog`](replay::ReplayLog) |
//! | [`tenant`] | stores of tenants: [`CachedTenants`](tenant::CachedTenants), [`MemoryTenants`](tenant::MemoryTenants), [`SqlTenants`](tenant::SqlTenants) |
//! | [`registrar`] | participants and workspaces of this service: [`MemoryRegistrar`](registrar::MemoryRegistrar), [`SqlRegistrar`](registrar::SqlRegistrar) |
//! | [`exchange`] | tokens for other services: requests, [`AccessToken`](exchange::AccessToken), [`RedisCache`](exchange::RedisCache), [`MemoryCache`](exchange::MemoryCache), [`SealingKeys`](exchange::SealingKeys) |
//! | [`outbound`] | a layer for HTTP clients: [`OutboundLayer`](outbound::OutboundLayer), [`OutboundToken`](outbound::OutboundToken), [`CallerLayer`](outbound::CallerLayer) |
//! | [`endpoints`] | sign-in, sign-out, registration and more: [`Endpoints`](endpoints::Endpoints), [`SignIn`](endpoints::SignIn), [`Throttle`](endpoints::Throttle) |
//! | [`session`] | signed-in browsers: [`Sessions`](session::Sessions) |
//! | [`trust`], [`mint`] | foreign workload tokens, and tokens of ours for them |
//! | [`clock`] | the time, for tests that move it: [`Clock`](clock::Clock) |
//! | [`testing`] | a provider to test against, forged tokens, and [`conformance`](testing::conformance): suites for a tenant store, registrar, token cache or replay log of your own |
//!
//! The [`manual`] tells the rest: [modes](manual::modes), [what happens to a request](manual::request),
//! [tenants](manual::tenants), [sign-in and endpoints](manual::endpoints),
//! [tokens for other services](manual::exchange),
//! [calling other services](manual::outbound), [threats](manual::threats),
//! [operating](manual::operating), [testing](manual::testing).
//!
//! # The path of a request
//!
//! ```text
//! layer ──▶ auth ──▶ validator ──▶ issuer      the token: known? else shape, claims, key, signature
//!   │         └────▶ tenant                    the tenant it names
//!   └──▶ your service, with an AuthContext in the request's extensions
//! ```
//!
//! Tokens for other services take another path: [`TokenExchangeClient`] gets them from the provider
//! and keeps them, [`OutboundLayer`](outbound::OutboundLayer) puts them on the requests that need them.
//!
//! ```text
//! outbound ──▶ exchange ──▶ cache                 kept, and not yet due?
//!                 └───────▶ flight ──▶ issuer     one request for all who want it
//! ```
//!
//! A caller without a token gets one at the [`Endpoints`](endpoints::Endpoints) under `/v1/auth/`; a
//! browser may keep it in a sealed cookie ([`Sessions`](session::Sessions)).
//!
//! ```text
//! session ──▶ endpoints ──▶ exchange              sign-in, refresh, sign-out
//!                 ├───────▶ trust ──▶ mint        a foreign workload token for one of ours
//!                 └───────▶ registrar             the participant that an identity is in this service
//! ```
//!
//! In the source, modules stand in this order: ground first, each importing only from those above it.
//!
//! | street | modules, as far as they are public |
//! |---|---|
//! | ground | [`clock`], [`error`], [`replay`] |
//! | who and what | [`identity`], [`config`] |
//! | judging | [`issuer`], [`validator`], [`proof`], [`admission`], [`tenant`], [`registrar`] |
//! | obtaining | [`exchange`], [`trust`], [`mint`] |
//! | serving | [`layer`], [`guard`], [`outbound`], [`session`], [`endpoints`], [`extract`], [`testing`] |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | yes | extractors for axum 0.8 handlers, in [`extract`]; the endpoints find the address of a connection |
//! | `exchange` | yes | tokens for other services: [`TokenExchangeClient`] and its caches, [`outbound`] |
//! | `endpoints` | yes | [`endpoints`], [`session`], [`registrar`]; brings `exchange` |
//! | `mock` | no | the mock and hybrid modes; without it a build cannot mock |
//! | `sqlite`, `postgres` | no | [`SqlTenants`](tenant::SqlTenants), [`SqlRegistrar`](registrar::SqlRegistrar): tenants and participants in a database (Rust 1.94) |
//! | `redis` | no | [`RedisCache`](exchange::RedisCache): tokens for other services and the log of used tokens, shared by all processes |
//! | `trust` | no | foreign workload tokens, by a policy, for tokens of ours: [`trust`], [`mint`] |
//! | `metrics` | no | counters through the `metrics` facade |
//! | `testing` | no | a provider in a box and more, for your tests: [`testing`] |

#![cfg_attr(docsrs, feature(doc_cfg))]
// What only `exchange` or `endpoints` use is dead without them. A build with both still tells what is
// dead everywhere.
#![cfg_attr(
    not(feature = "endpoints"),
    allow(dead_code, unused_imports, unused_macros, unreachable_pub)
)]
// The published documentation has all features; without some, links to their parts lead nowhere.
#![cfg_attr(
    not(all(
        feature = "axum",
        feature = "endpoints",
        feature = "postgres",
        feature = "redis",
        feature = "sqlite",
        feature = "testing",
        feature = "trust"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
// What a library must not do to its users; tests, examples and benches may.
#![warn(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

/// The README's example, compiled with the tests.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;

// Ground: words and tools that know nothing of tokens.

pub mod clock;

mod support;

pub mod error;

pub mod replay;

// Who and what: what a token says, and what this service expects.

pub mod identity;

pub mod config;

// Judging: whether a token is good, and whose it is.

pub mod issuer;

pub mod validator;

pub mod proof;

pub mod admission;

pub mod tenant;

#[cfg(feature = "endpoints")]
pub mod registrar;

// Obtaining: tokens for others.

#[cfg(feature = "exchange")]
pub mod exchange;

#[cfg(feature = "trust")]
pub mod trust;

#[cfg(feature = "trust")]
pub mod mint;

// Serving: what a service mounts, and what it is tested and explained with.

mod auth;

mod gate;

pub mod layer;

pub mod guard;

#[cfg(feature = "exchange")]
pub mod outbound;

#[cfg(feature = "endpoints")]
pub mod session;

#[cfg(feature = "endpoints")]
pub mod endpoints;

#[cfg(feature = "axum")]
pub mod extract;

#[cfg(feature = "testing")]
pub mod testing;

pub mod manual;

// The paved names: what a first program types. Each has this one path; everything else has that of
// its module.

pub use auth::{Auth, AuthBuilder, AuthContext};
pub use config::auth_config::AuthConfig;
pub use config::fault::ConfigError;
pub use config::issuer::IssuerConfig;
pub use config::mode::AuthMode;
pub use error::auth_error::AuthError;
#[cfg(feature = "exchange")]
pub use exchange::cache::TokenCache;
#[cfg(feature = "exchange")]
pub use exchange::client::TokenExchangeClient;
#[cfg(feature = "exchange")]
pub use exchange::request::ExchangeRequest;
pub use guard::condition::{role, scope};
pub use identity::ids::TenantId;
pub use identity::principal::Identity;
pub use layer::auth_layer::AuthLayer;
pub use support::secret::Secret;
pub use tenant::resolver::{Tenant, TenantResolver};
pub use validator::jwks::JwksValidator;
pub use validator::token_validator::TokenValidator;
