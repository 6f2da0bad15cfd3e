//! Tokens from the provider: for calls to other services, and for the sign-in of users (feature
//! `exchange`, on by default).
//!
//! [`TokenExchangeClient`], [`ExchangeRequest`] and [`TokenCache`] are at the root of
//! the crate. The most important other items are:
//!
//! * the requests of the other grants: [`ServiceTokenRequest`], [`RefreshRequest`], [`CodeRequest`],
//!   [`PasswordRequest`], [`OnBehalfOfRequest`] (Microsoft Entra ID);
//! * the sign-in: [`AuthorizationRequest`], [`PkceVerifier`], and [`SessionTokens`], which renew themselves;
//! * the sign-out (logout) at the provider: [`EndSessionRequest`];
//! * [`AccessToken`], the result of every request, and [`ExchangeError`];
//! * the caches: [`MemoryCache`], [`RedisCache`] (feature `redis`), and [`TieredCache`], which combines
//!   two caches;
//! * [`RedisRevocations`] (feature `redis`), through which processes share revocations;
//! * [`SealingKeys`], which encrypt cookies and the entries of a shared cache.
//!
//! [`issuer::ClientAuth`](crate::issuer::ClientAuth) is the client authentication: how the service
//! proves its identity to the provider.
//!
//! The manual explains how the parts work together: [`manual::exchange`](crate::manual::exchange).

mod authorize;
mod builder;
pub(crate) mod cache;
mod cached;
pub(crate) mod client;
mod contract;
mod end_session;
mod endpoint;
mod error;
mod failure_cache;
mod locked_fetch;
mod pkce;
pub(crate) mod request;
mod revoked;
mod session;
mod subject_tenants;
mod token;

pub use crate::support::seal::{InvalidSealingKeys, SealingKeys};
pub use authorize::AuthorizationRequest;
#[cfg(feature = "endpoints")]
pub(crate) use authorize::reserved_parameter;
pub use builder::TokenExchangeBuilder;
pub use cache::{CacheKey, Fence, MemoryCache, TieredCache};
#[cfg(feature = "redis")]
pub use cache::{RedisCache, RedisRevocations};
pub use end_session::EndSessionRequest;
pub use endpoint::TokenUrls;
pub use error::{ExchangeError, OAuthError};
pub use pkce::PkceVerifier;
pub use request::{
    CodeRequest, OnBehalfOfRequest, PasswordRequest, RefreshRequest, ServiceTokenRequest, TokenType,
};
pub use session::SessionTokens;
pub use token::{AccessToken, CacheStatus, Freshness};

#[cfg(feature = "testing")]
pub(crate) use cache::{ClientFingerprint, TokenCache};
pub(crate) use client::TokenExchangeClient;
pub(crate) use request::{ExchangeRequest, TokenRequest};
pub(crate) use token::subject_of;
#[cfg(feature = "endpoints")]
pub(crate) use token::{
    claimed_identity, has_readable_claims, has_same_claim, has_same_subject, identity_of,
    text_claim, until_exp,
};
