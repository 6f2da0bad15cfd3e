//! [`PolicyError`]: all that is wrong with a trust policy, at once, each with its line.

use std::fmt;

/// One thing that is wrong with a policy, or looks like a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyFault {
    /// Where in the text, counted from 1. `None` when it came from no text.
    pub line: Option<usize>,
    /// What it is about: `trust.k8s-prod.grant.reporting.subject`.
    pub place: String,
    /// What is wrong with it and what to do.
    pub problem: String,
}

impl PolicyFault {
    pub(super) fn new(line: usize, place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { line: (line > 0).then_some(line), place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{} {}", self.place, self.problem)
    }
}

/// A trust policy that is not taken. Lists every fault, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    faults: Vec<PolicyFault>,
}

impl PolicyError {
    /// An error, unless there are no faults.
    pub(super) fn from_faults(mut faults: Vec<PolicyFault>) -> Result<(), Self> {
        faults.sort_by_key(|fault| fault.line);
        faults.dedup();
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    pub(super) fn one(fault: PolicyFault) -> Self {
        Self { faults: vec![fault] }
    }

    /// Every fault.
    pub fn faults(&self) -> &[PolicyFault] {
        &self.faults
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the trust policy cannot be used:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for PolicyError {}
