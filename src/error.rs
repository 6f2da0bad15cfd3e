//! Refusals: the reasons, and the format of the responses.
//!
//! [`AuthError`], the reason for a refusal, is at the root of the crate. This module has [`InvalidToken`],
//! the reasons that concern the token, and the response formats for `respond_with` of the layers:
//! [`ProblemJson`] (the default), [`Envelope`], [`EmptyBody`], [`Grpc`], or your own [`ErrorResponse`]. An
//! error may carry a [`Challenge`] for a scheme other than `Bearer` ([`AuthError::with_challenge`]) and
//! additional headers ([`AuthError::with_header`]). [`StepUp`] is the sign-in that a refused request needs.
//!
//! See also: [manual::request](crate::manual::request).

pub(crate) mod auth_error;
mod challenge;
mod extended;
mod public;
mod response;
mod step_up;
#[cfg(feature = "jsonwebtoken")]
mod token_data;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use crate::support::sql::SqlError;
pub use auth_error::{BoxError, InvalidToken};
pub use challenge::Challenge;
pub use extended::ExtendedError;
pub use response::{EmptyBody, Envelope, ErrorResponse, Grpc, ProblemJson, Refusal};
pub use step_up::StepUp;
#[cfg(feature = "jsonwebtoken")]
pub use token_data::TokenDataError;

pub(crate) use auth_error::AuthError;
pub(crate) use challenge::{Challenger, DEFAULT_REALM};
#[cfg(feature = "endpoints")]
pub(crate) use response::retry_after_value;
pub(crate) use step_up::is_recent;
