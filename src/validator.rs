//! Token validation: the input of a [`TokenValidator`], and the cache of verified tokens.
//!
//! The trait [`TokenValidator`] and its implementation for signed JWTs, [`JwksValidator`], are at the root of
//! the crate. This module has [`Credentials`], the input of a custom validator, and [`VerifiedTokens`], the
//! cache of verified tokens. [`OpaqueTokens`] are tokens about which the issuer is asked, and
//! [`IntrospectedTokens`] is the cache of its answers. [`GroupSource`] fetches groups that a token lacks.
//! [`insecure_decode_claims`] decodes a token without verifying it, for debugging.
//!
//! See also: [manual::request](crate::manual::request), [manual::opaque](crate::manual::opaque).

mod encrypted;
mod event_token;
mod groups;
mod headers;
mod id_token;
pub(crate) mod jwks;
mod jws;
#[cfg(feature = "mock")]
mod mock;
pub(crate) mod opaque;
mod rules;
pub(crate) mod token_validator;
mod verification;
mod verified;

pub use crate::config::introspection::SignedAnswers;
pub use groups::{GroupRequest, GroupSource};
pub use jwks::insecure_decode_claims;
pub use opaque::{IntrospectedTokens, IntrospectedTokensStats, OpaqueTokens};
pub use token_validator::Credentials;
pub use verified::{VerifiedTokens, VerifiedTokensStats};

#[cfg(feature = "endpoints")]
pub(crate) use encrypted::signed_token;
#[cfg(all(feature = "testing", feature = "endpoints"))]
pub(crate) use event_token::lacks_only_the_key;
pub(crate) use event_token::{
    EventToken, EventTokenError, EventTokenKind, ExpectedEventToken, is_encrypted,
    verify_event_token,
};
pub(crate) use id_token::{
    Authentication, ExpectedIdToken, SessionIdToken, SessionIdTokens, TokenResponse,
    verify_id_token,
};
pub(crate) use jwks::JwksValidator;
#[cfg(feature = "trust")]
pub(crate) use jwks::{claims_document, unverified_claims};
#[cfg(feature = "mock")]
pub(crate) use mock::MockValidator;
pub(crate) use opaque::RevokedAnswers;
#[cfg(feature = "trust")]
pub(crate) use rules::check_times_with;
pub(crate) use token_validator::{SyntaxChecked, TokenValidator};
