//! The protocol between the driver and a child: the driver sends one line of JSON, the child
//! answers with one line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The settings of the provider. Each peer uses those that it supports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// The key set, for peers that accept one.
    pub(crate) jwks: String,
    /// The URL of the key set, for the others.
    pub(crate) jwks_uri: String,
}

/// The number of answers with each status.
pub(crate) type Statuses = BTreeMap<u16, u64>;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Prepares for tokens of this provider. It must be the first command.
    Start(Provider),
    /// Stores the tokens of a column under the number `slot`. `None` is a request without a token.
    Store { slot: usize, algorithm: String, tokens: Vec<Option<String>> },
    /// Sends each token once, and returns the statuses and the subject that the handler received.
    Check { slot: usize },
    /// Sends this many requests, with the tokens in turn.
    Run { slot: usize, calls: u32, bare: bool },
    /// Counts the allocations of requests with these tokens.
    Allocations { slot: usize, bare: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Ready,
    /// The peer does not support this algorithm.
    Unsupported,
    Checked {
        statuses: Statuses,
        subject: Option<String>,
    },
    /// Nanoseconds per request.
    Took(f64),
    /// Allocations per request.
    Allocated(f64),
    Failed(String),
}
