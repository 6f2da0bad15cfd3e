//! The tests without external services. Servers run in this process, on real sockets.
//!
//! All tests run concurrently in one process. A test must not read the log, metrics or files of another test, so
//! `support` records the events of the test's thread only.

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod behaviour;
mod deploying;
mod doc_examples;
mod endpoints;
mod exchange;
mod fuzz_replay;
mod grpc;
mod jwe;
mod keys;
mod manual;
mod opaque;
mod outbound;
mod providers;
mod public_paths;
mod reach;
mod registrar;
mod revocation;
#[cfg(all(feature = "spiffe", unix))]
mod spiffe;
mod stacks;
mod tenants;
mod workspaces;
