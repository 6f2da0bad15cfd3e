//! Policies in the bodies of requests.

use http::HeaderMap;
use serde::Serialize;

use super::problem::Problem;
use crate::support::media_type::media_type;
use crate::trust::{PolicyError, PolicyFault, TrustPolicy};

/// The format of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Toml,
    Json,
}

/// A fault or warning in an answer.
#[derive(Debug, Serialize)]
pub(super) struct Fault {
    line: Option<usize>,
    column: Option<usize>,
    field: String,
    problem: String,
}

impl Fault {
    /// Returns a fault of the whole policy.
    pub(super) fn of_policy(problem: &str) -> Self {
        Self {
            line: None,
            column: None,
            field: "the policy".to_owned(),
            problem: problem.to_owned(),
        }
    }
}

impl Format {
    /// Returns the format of the body.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        match media_type(headers).as_str() {
            "application/toml" => Ok(Self::Toml),
            "application/json" => Ok(Self::Json),
            _ => Err(Problem::unsupported_media_type(
                "The body must be application/toml or application/json.",
            )),
        }
    }

    pub(super) fn parse(self, text: &str) -> Result<TrustPolicy, PolicyError> {
        match self {
            Self::Toml => TrustPolicy::from_toml(text),
            Self::Json => TrustPolicy::from_json(text),
        }
    }
}

/// Returns the text of a body.
pub(super) fn utf8(body: &[u8]) -> Result<String, Problem> {
    String::from_utf8(body.to_vec()).map_err(|_| Problem::NOT_UTF8)
}

/// Returns faults for an answer.
pub(super) fn faults(faults: &[PolicyFault]) -> Vec<Fault> {
    let fault = |fault: &PolicyFault| Fault {
        line: fault.line,
        column: fault.column,
        field: fault.field.clone(),
        problem: fault.problem.clone(),
    };
    faults.iter().map(fault).collect()
}
