//! Refusals: why a token does not hold, and what the answer looks like.
//!
//! [`AuthError`], every reason for a refusal, is at the root of the crate. Here are
//! [`InvalidToken`], the reasons that concern the token, and the shapes of answers for
//! `respond_with` of the layers: [`ProblemJson`] (the default), [`Envelope`], [`EmptyBody`], [`Grpc`],
//! or your own [`ErrorResponse`]. A refusal may carry a [`Challenge`] of another scheme than `Bearer`
//! ([`AuthError::with_challenge`]) and headers of its own ([`AuthError::with_header`]).
//!
//! How it fits together: [manual::request](crate::manual::request).

pub(crate) mod auth_error;
mod challenge;
mod extended;
mod public;
mod response;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use crate::support::sql::SqlError;
pub use auth_error::{BoxError, InvalidToken};
pub use challenge::Challenge;
pub use extended::ExtendedError;
pub use response::{EmptyBody, Envelope, ErrorResponse, Grpc, ProblemJson, Refusal};

pub(crate) use auth_error::AuthError;
pub(crate) use challenge::Challenger;
#[cfg(feature = "endpoints")]
pub(crate) use response::in_seconds;
