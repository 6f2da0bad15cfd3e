//! From presented credentials to an identity: the trait [`TokenValidator`] and what it works with.
//!
//! [`TokenValidator`] and [`JwksValidator`], which verifies signed JWTs, are at the root of the
//! crate. Here are [`Credentials`], which a validator of your own is given, and [`VerifiedTokens`],
//! the tokens verified before: how many there are, and how to forget them early.
//!
//! How it fits together: [manual::request](crate::manual::request).

mod headers;
mod id_token;
mod judgement;
pub(crate) mod jwks;
mod jws;
#[cfg(feature = "mock")]
mod mock;
mod rules;
pub(crate) mod token_validator;
mod verified;

pub use jwks::insecure_decode_claims;
pub use token_validator::Credentials;
pub use verified::{VerifiedTokens, VerifiedTokensStats};

pub(crate) use id_token::{IdTokenRules, verify_id_token};
pub(crate) use jwks::JwksValidator;
#[cfg(feature = "trust")]
pub(crate) use jwks::unverified_claims;
#[cfg(feature = "mock")]
pub(crate) use mock::MockValidator;
pub(crate) use token_validator::{OfTokens, TokenValidator};
