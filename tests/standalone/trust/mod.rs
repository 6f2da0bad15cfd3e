//! Foreign workload tokens: trust policies, decisions about tokens, and minting.

mod clusters;
mod decisions;
mod explanations;
mod fixture;
mod linter;
mod minting;
mod platforms;
mod reloading;
mod replay;
mod svids;
