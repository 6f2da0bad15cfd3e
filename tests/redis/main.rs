//! The token cache, trust policies and browser sessions in Redis: sharing, locks, conformance, and faults of the
//! server.
//!
//! These tests need `--features redis`. Each starts a private server, from the Debian package
//! `redis-server`.
#![cfg(feature = "redis")]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod conformance;
mod faults;
mod fixture;
mod idle;
mod policies;
mod processes;
mod proxy;
mod replay;
mod revocation_ids;
mod revocation_settings;
mod revocations;
mod server;
mod sessions;
mod sharing;
mod single_use;
mod stored_sessions;
