//! What the driver and a child say to each other: one line of JSON each way, in turn.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a service must know of the provider. A peer takes of it what it can use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// The key set itself, for peers that take one.
    pub(crate) jwks: String,
    /// Where it is, for the others.
    pub(crate) jwks_uri: String,
}

/// How many requests got which status.
pub(crate) type Statuses = BTreeMap<u16, u64>;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Be ready for this provider's tokens. First of all.
    Start(Provider),
    /// Keep these tokens under a number; `None` is a request without one.
    Keep { slot: usize, algorithm: String, tokens: Vec<Option<String>> },
    /// Send each of them once, and tell the statuses and whom the handler saw.
    Check { slot: usize },
    /// Send so many requests, with the tokens in turn.
    Run { slot: usize, calls: u32, bare: bool },
    /// Count what a request with the first of them allocates.
    Allocations { slot: usize, bare: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Ready,
    /// The peer cannot do this algorithm.
    Unsupported,
    Checked {
        statuses: Statuses,
        subject: Option<String>,
    },
    /// Nanoseconds for one request.
    Took(f64),
    /// Allocations of one request.
    Allocated(f64),
    Failed(String),
}
