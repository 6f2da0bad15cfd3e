//! [`PolicyError`]: all that is wrong with a trust policy, at once, each with its line.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// One thing that is wrong with a policy, or looks like a mistake (feature `trust`).
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

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<PolicyFault>>);

impl Faults {
    /// Line 0 is that of a value which came from no text.
    pub(super) fn note(&self, line: usize, place: impl Into<String>, problem: impl Into<String>) {
        let (place, problem) = (place.into(), problem.into());
        self.0.borrow_mut().push(PolicyFault { line: (line > 0).then_some(line), place, problem });
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn into_vec(self) -> Vec<PolicyFault> {
        self.0.into_inner()
    }

    /// These, and of the `others` those that are about other lines.
    pub(super) fn before(self, others: Self) -> Self {
        let mut faults = self.into_vec();
        let lines: HashSet<_> = faults.iter().filter_map(|fault| fault.line).collect();
        let is_elsewhere = |fault: &PolicyFault| fault.line.is_none_or(|it| !lines.contains(&it));
        faults.splice(0..0, others.into_vec().into_iter().filter(is_elsewhere));
        Self(faults.into())
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

/// A trust policy that is not taken (feature `trust`). Lists every fault, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    faults: Vec<PolicyFault>,
}

impl PolicyError {
    /// An error, unless there are no faults.
    pub(super) fn from_faults(faults: Faults) -> Result<(), Self> {
        let mut faults = faults.into_vec();
        faults.sort_by_key(|fault| fault.line);
        faults.dedup();
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    pub(super) fn one(line: usize, place: impl Into<String>, problem: impl Into<String>) -> Self {
        let faults = Faults::default();
        faults.note(line, place, problem);
        Self { faults: faults.into_vec() }
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
