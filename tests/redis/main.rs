//! Tokens shared through Redis: what is found, by whom, and what happens when Redis fails.
//!
//! They need `--features redis`; each test starts a private server, from the Debian package
//! `redis-server`.
#![cfg(feature = "redis")]

#[path = "../support/mod.rs"]
mod support;

mod exam;
mod faults;
mod fixture;
mod idle;
mod processes;
mod proxy;
mod replay;
mod server;
mod sessions;
mod shards;
mod sharing;
mod spent_once;
