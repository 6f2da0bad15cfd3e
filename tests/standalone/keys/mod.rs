//! The life of key sets and per-tenant issuers, shown over real sockets.

mod algorithms;
mod discovery;
mod fixture;
mod given;
mod held;
mod never;
mod published;
mod refresh;
mod removed;
#[cfg(feature = "metrics")]
mod series;
mod several;
mod shared;
mod states;
mod stranded;
mod tenants;
mod town;
mod unknown;
mod verified;
mod wire;
