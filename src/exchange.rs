//! Tokens for other services: requests, answers, and the caches that keep them (feature `exchange`, on
//! by default).
//!
//! [`TokenExchangeClient`], its [`ExchangeRequest`] and the [trait of caches](crate::TokenCache) are at
//! the root of the crate. Here are the other grants' requests ([`ServiceTokenRequest`],
//! [`RefreshRequest`], [`CodeRequest`] …), the [`AccessToken`] that all of them give, the caches
//! ([`MemoryCache`], [`RedisCache`] with the feature `redis`, [`TieredCache`] for both), and the
//! [`SealingKeys`] for what leaves the process: entries of a shared cache, and cookies.
//! How the service authenticates at the provider is [`issuer::ClientAuth`](crate::issuer::ClientAuth).
//!
//! How it fits together: [manual::exchange](crate::manual::exchange).

mod authorize;
mod breaker;
mod builder;
pub(crate) mod cache;
mod cached;
pub(crate) mod client;
mod contract;
mod endpoint;
mod error;
mod pkce;
pub(crate) mod request;
mod run;
mod session;
mod setback;
mod token;

pub use crate::support::seal::{InvalidSealingKeys, SealingKeys};
pub use authorize::AuthorizationRequest;
pub use builder::TokenExchangeBuilder;
#[cfg(feature = "redis")]
pub use cache::RedisCache;
pub use cache::{CacheKey, Fence, MemoryCache, TieredCache};
pub use endpoint::TokenUrls;
pub use error::{ExchangeError, OAuthError};
pub use pkce::PkceVerifier;
pub use request::{CodeRequest, PasswordRequest, RefreshRequest, ServiceTokenRequest, TokenType};
pub use session::SessionTokens;
pub use token::{AccessToken, CacheStatus, Freshness};

#[cfg(feature = "testing")]
pub(crate) use cache::{ClientFingerprint, TokenCache};
pub(crate) use client::TokenExchangeClient;
pub(crate) use request::{ExchangeRequest, TokenRequest};
