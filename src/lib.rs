//! Authentication and tenancy for Rust services whose callers sign in at an OpenID provider.
//!
//! A tower layer verifies the bearer JWT of each request against the issuer's rotating keys, finds the
//! tenant, and puts identity and tenant into the request's extensions. It answers requests without a
//! valid token as RFC 6750 and RFC 9470 require. It denies by default. It does no I/O before the first
//! token, unless you call [`Auth::ready`] or ask for the [health](issuer::Issuers::health) of the keys.
//! A token whose key is cached is verified without waiting for a fetch.
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
//! # Guides
//!
//! New here? [From `cargo new` to the first 200](manual::start). Coming from `jsonwebtoken`, or from a
//! middleware of your own? [Migrating](manual::migrating).
//!
//! The [`manual`] has pages by task ([protect an API](manual::request), [sign browsers in](manual::endpoints),
//! [call other services](manual::outbound), [accept workloads](manual::trust), [deploy](manual::deploying),
//! [operate](manual::operating)), and an [index](manual#index) of topics: cache, logout, outage, revocation, roles
//! and more.
//!
//! # Modules
//!
//! The crate root exports the items that most programs need. Every other item has exactly one path, in
//! its module:
//!
//! | module | contents |
//! |---|---|
//! | [`layer`] | sources of tokens and tenants in a request: [`TokenSource`](layer::TokenSource), [`TenantSource`](layer::TenantSource) |
//! | [`guard`] | guards for routes: [`any_scope`](guard::any_scope), [`group`](guard::group), [`mfa_within`](guard::mfa_within), [`verified_token`](guard::verified_token), your own [`Guard`](guard::Guard); a guard for each path or gRPC method: [`PathRules`](guard::PathRules) |
//! | [`extract`] | extractors for axum handlers |
//! | [`error`] | reasons why a token is invalid: [`InvalidToken`](error::InvalidToken); formats of error responses: [`ProblemJson`](error::ProblemJson), [`Grpc`](error::Grpc) |
//! | [`identity`] | parts of an identity: [`Scopes`](identity::Scopes), [`IdentityKey`](identity::IdentityKey), [`Actor`](identity::Actor), [`ClaimsMapping`](identity::ClaimsMapping) |
//! | [`config`] | parts of a configuration: [`Algorithm`](config::Algorithm), [`JwksSettings`](config::JwksSettings), [`ENVIRONMENT`](config::ENVIRONMENT) |
//! | [`issuer`] | keys and their health: [`Issuers`](issuer::Issuers), [`TenantIssuers`](issuer::TenantIssuers); client authentication: [`ClientAuth`](issuer::ClientAuth), also without a secret: [`WorkloadToken`](issuer::WorkloadToken); an HTTP client of your own: [`HttpClient`](issuer::HttpClient) |
//! | [`validator`] | the credentials that a validator sees: [`Credentials`](validator::Credentials); opaque tokens: [`OpaqueTokens`](validator::OpaqueTokens); the cache of verified tokens: [`VerifiedTokens`](validator::VerifiedTokens) |
//! | [`proof`], [`admission`] | proof of possession (DPoP, mTLS): [`ProofVerifier`](proof::ProofVerifier); checks of valid tokens, such as deny lists: [`AdmissionCheck`](admission::AdmissionCheck) |
//! | [`revocation`] | tokens, sessions and users that are refused before their tokens expire: [`Revocations`](revocation::Revocations) |
//! | [`replay`] | tokens that may be used only once: [`ReplayLog`](replay::ReplayLog) |
//! | [`tenant`] | tenant stores: [`CachedTenants`](tenant::CachedTenants), [`MemoryTenants`](tenant::MemoryTenants), [`SqlTenants`](tenant::SqlTenants) |
//! | [`registrar`] | this service's record of each user (*participant*), with or without a workspace: [`MemoryRegistrar`](registrar::MemoryRegistrar), [`SqlRegistrar`](registrar::SqlRegistrar) |
//! | [`exchange`] | tokens for other services: requests, [`AccessToken`](exchange::AccessToken), [`RedisCache`](exchange::RedisCache), [`MemoryCache`](exchange::MemoryCache), [`SealingKeys`](exchange::SealingKeys) |
//! | [`outbound`] | a layer for HTTP clients, also for `reqwest`: [`OutboundLayer`](outbound::OutboundLayer), [`OutboundToken`](outbound::OutboundToken), [`CallerLayer`](outbound::CallerLayer) |
//! | [`endpoints`] | sign-in, sign-out, registration and more: [`Endpoints`](endpoints::Endpoints), [`SignIn`](endpoints::SignIn), [`TrustAdmin`](endpoints::TrustAdmin), [`Throttle`](endpoints::Throttle) |
//! | [`session`] | browser sessions: [`Sessions`](session::Sessions), and stores for them: [`SessionStore`](session::SessionStore) |
//! | [`trust`], [`mint`] | trust policies for the workload tokens of other platforms, their stores ([`PolicyStore`](trust::PolicyStore)), and minters that issue tokens in exchange |
//! | [`clock`] | the source of time, which tests replace: [`Clock`](clock::Clock) |
//! | [`testing`] | a test provider, forged tokens, and [`conformance`](testing::conformance) suites for your own tenant store, registrar, token cache, replay log, revocation log, session store or policy store |
//!
//! # Architecture
//!
//! The path of a request:
//!
//! ```text
//! layer ──▶ auth ──▶ validator ──▶ issuer      token: cached? otherwise format, claims, key, signature
//!   │         └────▶ tenant                    the tenant in the token
//!   └──▶ your service, with an AuthContext in the request's extensions
//! ```
//!
//! The path of a call to another service. [`TokenExchangeClient`] gets tokens from the provider and caches
//! them; [`OutboundLayer`](outbound::OutboundLayer) adds them to requests:
//!
//! ```text
//! outbound ──▶ exchange ──▶ cache       a cached token that is not due for renewal
//!                 └───────▶ issuer      otherwise one request for all callers
//! ```
//!
//! The path of a sign-in. The [`Endpoints`](endpoints::Endpoints) under `/v1/auth/` return tokens, or keep
//! them in sealed browser cookies ([`Sessions`](session::Sessions)):
//!
//! ```text
//! session ──▶ endpoints ──▶ exchange              sign-in, refresh, sign-out
//!                 ├───────▶ trust ──▶ mint        exchange of another platform's workload token
//!                 └───────▶ registrar             the identity's participant in this service
//! ```
//!
//! The source has five groups of modules. A module imports only from modules that `src/lib.rs` declares
//! before it. The page [architecture](manual::architecture) has the details:
//!
//! | group | public modules |
//! |---|---|
//! | foundations: tools that are independent of tokens | [`clock`], [`error`], [`replay`] |
//! | identity and configuration: the content of a token and the settings of a service | [`identity`], [`config`] |
//! | verification: issuers' keys, tokens, tenants and participants | [`issuer`], [`validator`], [`proof`], [`admission`], [`revocation`], [`tenant`], [`registrar`] |
//! | token acquisition: tokens for other services and for workloads | [`exchange`], [`trust`], [`mint`] |
//! | HTTP integration: layers, guards and endpoints, and test tools | [`layer`], [`guard`], [`outbound`], [`session`], [`endpoints`], [`extract`], [`testing`] |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `axum` | yes | extractors for axum 0.8 handlers, in [`extract`]; the endpoints use axum's `ConnectInfo` as the client address |
//! | `exchange` | yes | tokens for other services: [`TokenExchangeClient`] and its caches, [`outbound`] |
//! | `endpoints` | yes | [`endpoints`], [`session`], [`registrar`]; enables `exchange` |
//! | `mock` | no | the modes `mock` and `hybrid`; a build without this feature accepts no mock tokens |
//! | `sqlite`, `postgres` | no | [`SqlTenants`](tenant::SqlTenants), [`SqlRegistrar`](registrar::SqlRegistrar), [`SqlSessions`](session::SqlSessions), [`SqlPolicies`](trust::SqlPolicies): tenants, with `endpoints` participants and browser sessions, and with `trust` trust policies, in a database (Rust 1.94) |
//! | `redis` | no | [`RedisCache`](exchange::RedisCache): tokens for other services and the replay log, shared by all processes, [`RedisRevocations`](exchange::RedisRevocations), with `endpoints` [`RedisSessions`](session::RedisSessions), and with `trust` [`RedisPolicies`](trust::RedisPolicies); enables `exchange` |
//! | `reqwest-middleware` | no | [`OutboundLayer::reqwest_client`](outbound::OutboundLayer::reqwest_client): a `reqwest` client whose requests carry tokens; enables `exchange` |
//! | `trust` | no | exchange of workload tokens of other platforms under a trust policy: [`trust`], [`mint`]; enables `exchange` |
//! | `jwe` | no | encrypted tokens, a signed JWT inside a JWE: [`DecryptionKeys`](config::DecryptionKeys), [`IssuerConfig::decrypt`] |
//! | `josekit` | no | keys of encrypted tokens that are in an OpenSSL engine or a hardware module; enables `jwe`. This feature, and only this one, links OpenSSL |
//! | `spiffe` | no | JWT-SVIDs from the SPIFFE Workload API, to authenticate this service and for exchanges; enables `exchange` |
//! | `jsonwebtoken` | no | conversions from and to the types of the crate `jsonwebtoken` 12: [`IssuerConfig::jwk_set`], [`AuthContext::token_data`]. None of its back ends is used. Not covered by the [version policy](manual::contributing#version-policy) |
//! | `metrics` | no | counters through the `metrics` facade |
//! | `testing` | no | a test provider, a manual clock, forged tokens and conformance suites: [`testing`] |

#![cfg_attr(docsrs, feature(doc_cfg))]
// Without `endpoints` or `exchange`, items that only they use are dead code. A build with all features
// still reports items that are dead everywhere.
#![cfg_attr(
    not(feature = "endpoints"),
    allow(dead_code, unused_imports, unused_macros, unreachable_pub)
)]
// The published documentation has all features. Without a feature, links to its items are broken.
#![cfg_attr(
    not(all(
        feature = "axum",
        feature = "endpoints",
        feature = "josekit",
        feature = "jsonwebtoken",
        feature = "jwe",
        feature = "postgres",
        feature = "redis",
        feature = "reqwest-middleware",
        feature = "spiffe",
        feature = "sqlite",
        feature = "testing",
        feature = "trust"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
// A library must not do this to its users. Tests, examples and benches may.
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

// Foundations: tools that do not depend on tokens.

pub mod clock;

mod support;

pub mod error;

pub mod replay;

// Identity and configuration: the content of a token, and the settings of this service.

pub mod identity;

pub mod config;

// Verification: issuers' keys, tokens, tenants and participants.

pub mod issuer;

pub mod validator;

pub mod proof;

pub mod admission;

pub mod revocation;

pub mod tenant;

#[cfg(feature = "endpoints")]
pub mod registrar;

// Token acquisition: tokens for other services and for workloads.

#[cfg(feature = "exchange")]
pub mod exchange;

#[cfg(feature = "trust")]
pub mod trust;

#[cfg(feature = "trust")]
pub mod mint;

// HTTP integration: layers, guards and endpoints that a service mounts; also test tools and the manual.

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

// The items that most programs need. Each has only this path. Every other item has only the path of its
// module.

pub use auth::{Auth, AuthBuilder, AuthContext};
pub use config::auth_config::AuthConfig;
pub use config::fault::ConfigError;
pub use config::issuer::IssuerConfig;
pub use config::mode::{AuthMode, MOCK_COMPILED};
pub use error::auth_error::AuthError;
#[cfg(feature = "exchange")]
pub use exchange::cache::TokenCache;
#[cfg(feature = "exchange")]
pub use exchange::client::TokenExchangeClient;
#[cfg(feature = "exchange")]
pub use exchange::request::ExchangeRequest;
pub use guard::guards::{role, scope};
pub use identity::ids::TenantId;
pub use identity::principal::Identity;
pub use layer::auth_layer::AuthLayer;
pub use support::secret::Secret;
pub use tenant::resolver::{Tenant, TenantResolver};
pub use validator::jwks::JwksValidator;
pub use validator::token_validator::TokenValidator;
