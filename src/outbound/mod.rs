//! A tower layer for HTTP clients, which puts the right token on each request a service sends.

mod caller;
mod destination;
mod layer;
mod service;

pub use caller::{CallerLayer, CallerService, with_caller};
pub use destination::OutboundToken;
pub use layer::{EmptyBodies, OutboundBuilder, OutboundLayer, Replay};
pub use service::{OutboundError, OutboundService};
