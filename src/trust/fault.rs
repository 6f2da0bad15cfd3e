//! [`PolicyError`]: all faults of a trust policy, each with its place in the text.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

/// A fault in a policy, or a warning about a likely mistake (feature `trust`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyFault {
    /// The line in the text, counted from 1. `None` if the policy was not read from a text.
    pub line: Option<usize>,
    /// The column in the line, in characters counted from 1: where the value begins that the fault is about, or
    /// the table that lacks a field. `None` if the policy was not read from a text.
    pub column: Option<usize>,
    /// The field, such as `trust.k8s-prod.grant.reporting.subject`.
    pub field: String,
    /// A description of the fault and its remedy.
    pub problem: String,
}

/// A place in a text: line and column, counted from 1. Both are 0 if the value was not read from a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<PolicyFault>>);

impl Faults {
    pub(super) fn report(
        &self,
        at: Position,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) {
        self.0.borrow_mut().push(PolicyFault {
            line: (at.line > 0).then_some(at.line),
            column: (at.column > 0).then_some(at.column),
            field: field.into(),
            problem: problem.into(),
        });
    }

    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn into_vec(self) -> Vec<PolicyFault> {
        self.0.into_inner()
    }

    /// Adds those of `others` whose lines have no fault yet.
    pub(super) fn with_faults_on_other_lines(self, others: Self) -> Self {
        let mut faults = self.into_vec();
        let lines: HashSet<_> = faults.iter().filter_map(|fault| fault.line).collect();
        let is_elsewhere =
            |fault: &PolicyFault| fault.line.is_none_or(|line| !lines.contains(&line));
        faults.splice(0..0, others.into_vec().into_iter().filter(is_elsewhere));
        Self(faults.into())
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, "line {line}, column {column}: ")?,
            (Some(line), None) => write!(f, "line {line}: ")?,
            (None, _) => {}
        }
        write!(f, "{} {}", self.field, self.problem)
    }
}

/// The faults of a rejected trust policy, in the order of the text (feature `trust`).
///
/// ```
/// use scaikey_auth::trust::TrustPolicy;
///
/// let error = TrustPolicy::from_toml("[[trust]]\nid = \"github\"\naudience = \"scaivault\"").unwrap_err();
/// for fault in error.faults() {
///     println!("line {:?}: {} {}", fault.line, fault.field, fault.problem);
/// }
/// assert!(error.to_string().contains("audience"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    faults: Vec<PolicyFault>,
}

impl PolicyError {
    /// Returns `Err` with the faults, sorted by place and without duplicates, or `Ok` if there are
    /// none.
    pub(super) fn check_none(faults: Faults) -> Result<(), Self> {
        let mut faults = faults.into_vec();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        faults.dedup();
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    pub(super) fn one(at: Position, field: impl Into<String>, problem: impl Into<String>) -> Self {
        let faults = Faults::default();
        faults.report(at, field, problem);
        Self { faults: faults.into_vec() }
    }

    /// Returns every fault.
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
