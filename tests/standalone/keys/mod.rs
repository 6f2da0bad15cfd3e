//! The life cycle of key sets and of tenants' issuers, tested over real sockets.

mod algorithms;
mod cancellation;
mod discovery;
mod first_fetch;
mod fixture;
mod http;
mod inline;
mod issuers;
mod keys_file;
#[cfg(feature = "metrics")]
mod metrics;
mod outages;
mod published;
mod refresh;
mod removed;
mod shared_sets;
mod states;
mod tenant_fixture;
mod tenants;
mod unknown_keys;
mod verified;
