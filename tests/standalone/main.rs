//! The tests that need nothing but Rust: servers are in this process, on real sockets.
//!
//! All run in one process, side by side on threads. What a test reads of the whole process (the log,
//! metrics, files) must be its own: `support` listens on the thread of the test.

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod behaviour;
mod endpoints;
mod exchange;
mod fuzz_replay;
mod keys;
mod manual;
mod outbound;
mod public_paths;
mod registrar;
mod stacks;
mod tenants;
mod trust;
