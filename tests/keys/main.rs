//! The life of key sets and per-tenant issuers, shown over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what the tests share fails as the tests do"
)]

mod algorithms;
mod discovery;
mod given;
mod held;
mod known;
#[path = "../behaviour/log.rs"]
mod log;
mod never;
mod published;
mod refresh;
#[cfg(feature = "metrics")]
mod series;
mod several;
mod shared;
mod states;
mod stranded;
mod support;
mod tenants;
mod town;
mod unknown;
mod wire;
mod withdrawn;
