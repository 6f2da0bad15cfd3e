//! What the crate promises, shown over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has failed"
)]

mod log;
mod support;

mod answers;
mod claims;
mod differential;
mod extractors;
mod forged;
mod grpc;
mod guards;
mod isolation;
mod known;
mod modes;
mod optional;
mod outages;
mod placement;
mod properties;
mod secrets;
mod tenancy;
mod tower_contracts;
