//! The examples, run as somebody who reads the README runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod client;
mod process;
mod service;
mod talking;
