//! A tower layer for HTTP clients that adds tokens to outgoing requests (feature `exchange`, on by
//! default).
//!
//! [`OutboundLayer::builder`] takes a [`TokenExchangeClient`](crate::TokenExchangeClient) and a list of
//! destinations. Each destination has an [`OutboundToken`]: an exchanged token of the caller, a token
//! of the service itself, the caller's token unchanged, or none. [`CallerLayer`], added inside the
//! layer that authenticates, makes the caller known to the outgoing requests of a handler. In tasks
//! outside of a request, use [`with_caller`].
//!
//! The manual explains how the parts work together: [`manual::outbound`](crate::manual::outbound).

mod caller;
mod destination;
mod error;
mod layer;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_client;
mod send;
mod service;

pub use caller::{CallerLayer, CallerService, with_caller};
pub use destination::OutboundToken;
pub use error::OutboundError;
pub use layer::{OutboundBuilder, OutboundLayer, Resend, ResendEmpty};
pub use service::OutboundService;
