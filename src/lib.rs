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
//! # The street a request walks
//!
//! ```text
//! middleware ──▶ auth ──▶ validator ──▶ issuer      the token: known? else shape, claims, key, signature
//!     │            └────▶ tenant                    the tenant it names
//!     └──▶ your service, with an AuthContext in the request's extensions
//! ```
//!
//! Tokens for other services walk another street: [`TokenExchangeClient`] gets them from the provider
//! and keeps them, [`OutboundLayer`] puts them on the requests that need them.
//!
//! ```text
//! outbound ──▶ exchange ──▶ cache                 kept, and not yet due?
//!                 └───────▶ flight ──▶ issuer     one request for all who want it
//! ```
//!
//! Who has no token yet gets one at the [`Endpoints`] under `/v1/auth/`; a browser may keep it in a
//! sealed cookie ([`Sessions`]).
//!
//! ```text
//! session ──▶ endpoints ──▶ exchange              sign-in, refresh, sign-out
//!                 ├───────▶ trust ──▶ mint        a foreign workload token for one of ours
//!                 └───────▶ registrar             who somebody is in this service
//! ```
//!
//! The modules below stand in this order, ground first, and each imports only from those above it.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | yes | extractors for axum 0.8 handlers, in [`axum`]; the endpoints find the address of a connection |
//! | `mock` | no | the mock and hybrid modes; without it a build cannot mock |
//! | `sqlite`, `postgres` | no | `SqlTenants`, `SqlRegistrar`: tenants and participants in a database (Rust 1.94) |
//! | `redis` | no | `RedisCache`: tokens for other services, shared by all processes |
//! | `trust` | no | foreign workload tokens, by a policy, for tokens of ours: [`trust`], [`mint`] |
//! | `metrics` | no | counters through the `metrics` facade |
//! | `testing` | no | a provider in a box and more, for your tests: [`testing`] |
//!
//! The [`manual`] tells the rest: [modes](manual::modes), [what happens to a request](manual::request),
//! [tenants](manual::tenants), [sign-in and endpoints](manual::endpoints),
//! [tokens for other services](manual::exchange),
//! [calling other services](manual::outbound), [threats](manual::threats),
//! [operating](manual::operating), [testing](manual::testing).

#![cfg_attr(docsrs, feature(doc_cfg))]
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

mod telemetry;

mod clock;

mod secret;

mod base64url;

mod support;

mod mark;

mod json;

mod flight;

mod error;

mod identity;

mod config;

mod issuer;

mod validator;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod database;

pub mod proof;

pub mod admission;

mod tenant;

mod registrar;

mod exchange;

#[cfg(feature = "trust")]
pub mod trust;

#[cfg(feature = "trust")]
pub mod mint;

mod auth;

mod gate;

mod middleware;

mod outbound;

mod session;

mod endpoints;

#[cfg(feature = "axum")]
pub mod axum;

#[cfg(feature = "testing")]
pub mod testing;

pub mod manual;

pub use auth::{Auth, AuthBuilder, AuthContext, TenantAuthoriser};
pub use clock::{Clock, SystemClock};
pub use config::{
    Algorithm, AuthConfig, AuthMode, ClientAuthMethod, ClientConfig, ConfigError, ENVIRONMENT,
    EndpointsConfig, Fault, IssuerConfig, JwksSettings, MockUser, TokenProfile, UnknownAlgorithm,
    UnknownAuthMode, Variable,
};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use database::SqlError;
pub use endpoints::{
    Attempt, Endpoint, Endpoints, EndpointsBuilder, EndpointsService, InvalidNetwork, NotFound,
    PasswordAttempt, PasswordVerdict, SignIn, Throttle, TokenBuckets, TrustedProxies,
};
pub use error::{
    AuthError, BoxError, EmptyBody, Envelope, ErrorResponse, Grpc, InvalidToken, ProblemJson,
    Refusal,
};
#[cfg(feature = "redis")]
pub use exchange::RedisCache;
pub use exchange::{
    AccessToken, AuthorizationRequest, CacheKey, CacheStatus, CodeRequest, ExchangeError,
    ExchangeRequest, Fence, Freshness, Layered, MemoryCache, OAuthError, PasswordRequest,
    PkceVerifier, RefreshRequest, ServiceTokenRequest, SessionTokens, TokenCache,
    TokenExchangeBuilder, TokenExchangeClient, TokenType, TokenUrls,
};
pub use gate::{Gated, ResponseFuture};
pub use identity::{
    Actor, ClaimPath, ClaimsMapping, Confirmation, Identity, IdentityKey, IdentityKind,
    InvalidClaimPath, InvalidScope, InvalidTenantId, Provenance, Scopes, TenantId,
};
pub use issuer::{
    ClientAuth, IssuerHealth, Issuers, KeyState, SecretSource, TenantIssuers, UnusableKey,
};
pub use middleware::{
    AuthLayer, AuthService, CustomSource, Guard, GuardExt, GuardService, PROVENANCE_HEADER,
    RequestHead, RequireLayer, TenantSource, TokenSource, any_role, any_scope, group, kind,
    mfa_within, role, scope, verified,
};
pub use outbound::{
    CallerLayer, CallerService, EmptyBodies, OutboundBuilder, OutboundError, OutboundLayer,
    OutboundService, OutboundToken, Replay, with_caller,
};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use registrar::SqlRegistrar;
pub use registrar::{
    InvalidLocalId, MemoryRegistrar, ParticipantId, Profile, Registrar, RegistrarError,
    Registration, WorkspaceId,
};
pub use secret::Secret;
pub use session::{SessionLayer, SessionService, Sessions, SessionsBuilder};
pub use support::seal::{InvalidSealingKeys, SealingKeys};
pub use tenant::{AnyTenant, CachedTenants, MemoryTenants, Tenant, TenantResolver, TenantStatus};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use tenant::{SqlTenantRow, SqlTenants};
pub use validator::{
    Credentials, JwksValidator, KnownTokens, KnownTokensStats, TokenValidator,
    dangerous_peek_claims,
};
