//! Tokens shared through Redis: what is found, by whom, and what happens when Redis fails.
//!
//! They need `--features redis`; each test starts a private server, from the Debian package
//! `redis-server`.
#![cfg(feature = "redis")]

mod exam;
mod faults;
mod idle;
#[path = "../behaviour/log.rs"]
mod log;
mod processes;
mod proxy;
mod replay;
mod server;
mod sessions;
mod shards;
mod sharing;
mod spent_once;
mod support;
