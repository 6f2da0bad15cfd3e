//! Foreign workload tokens: policies that are refused, tokens that are believed, and as whom.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what the tests share fails as the tests do"
)]

mod clusters;
mod deciding;
mod explaining;
mod linter;
mod minting;
mod platforms;
mod reloading;
mod replay;
mod support;
