//! A tower layer for HTTP clients, which puts the right token on each request a service sends (feature
//! `exchange`, on by default).
//!
//! [`OutboundLayer::builder`] takes a [`TokenExchangeClient`](crate::TokenExchangeClient) and, for each
//! destination, an [`OutboundToken`]: on behalf of the caller, the service's own, the caller's as it is,
//! or none. [`CallerLayer`], inside of the layer that authenticates, tells it who the caller is;
//! [`with_caller`] does so outside of requests.
//!
//! How it fits together: [manual::outbound](crate::manual::outbound).

mod caller;
mod destination;
mod layer;
mod service;

pub use caller::{CallerLayer, CallerService, with_caller};
pub use destination::OutboundToken;
pub use layer::{OutboundBuilder, OutboundLayer, Replay, ReplayEmpty};
pub use service::{OutboundError, OutboundService};
