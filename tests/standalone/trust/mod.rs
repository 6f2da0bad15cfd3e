//! Foreign workload tokens: policies that are refused, tokens that are believed, and as whom.

mod clusters;
mod deciding;
mod explaining;
mod fixture;
mod linter;
mod minting;
mod platforms;
mod reloading;
mod replay;
