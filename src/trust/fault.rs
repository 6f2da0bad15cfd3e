//! [`PolicyError`]: all faults of a trust policy, each with its place in the text.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::fmt;

/// A fault in a policy, or a warning about a likely mistake (feature `trust`). Ordered by the place in the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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

/// The limit of the faults that one error lists. A text of 1 MiB can have hundreds of thousands.
const MAX_LISTED: usize = 200;

/// The limit of a name from the policy in a fault, in characters. A valid name is not longer.
const MAX_SHOWN: usize = 64;

/// The limit of a description of a fault, in characters.
const MAX_PROBLEM: usize = 1000;

/// Shortens a name or a value from the policy, so that faults stay cheap and readable.
pub(super) fn shorten(text: &str) -> String {
    shorten_to(text, MAX_SHOWN)
}

fn shorten_to(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The faults found so far: the first of the text, and the number of the others.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Found>);

#[derive(Debug, Default)]
struct Found {
    listed: BTreeSet<PolicyFault>,
    /// The number of faults that are not listed. A fault that is reported twice may count twice.
    others: usize,
    /// The number of reports.
    reports: usize,
}

impl Found {
    fn add(&mut self, fault: PolicyFault) {
        if self.listed.insert(fault) && self.listed.len() > MAX_LISTED {
            self.listed.pop_last();
            self.others += 1;
        }
    }
}

impl Faults {
    pub(super) fn report(
        &self,
        at: Position,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) {
        let mut found = self.0.borrow_mut();
        found.reports += 1;
        found.add(PolicyFault {
            line: (at.line > 0).then_some(at.line),
            column: (at.column > 0).then_some(at.column),
            field: field.into(),
            problem: shorten_to(&problem.into(), MAX_PROBLEM),
        });
    }

    /// Returns whether a condition holds for every fault that would be listed.
    pub(super) fn are_all(&self, condition: impl Fn(&PolicyFault) -> bool) -> bool {
        self.0.borrow().listed.iter().all(condition)
    }

    /// Returns the number of reports so far.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().reports
    }

    /// Returns the first faults in the order of the text, and if there are more, a last one that says how
    /// many.
    pub(super) fn into_vec(self) -> Vec<PolicyFault> {
        let Found { listed, others, .. } = self.0.into_inner();
        let rest = (others > 0).then(|| PolicyFault {
            line: None,
            column: None,
            field: "the policy".to_owned(),
            problem: format!("has {others} more, which are not listed: correct these first"),
        });
        listed.into_iter().chain(rest).collect()
    }

    /// Adds those of `others` whose lines have no fault yet.
    pub(super) fn with_faults_on_other_lines(self, others: Self) -> Self {
        let mut found = self.0.into_inner();
        let lines: HashSet<_> = found.listed.iter().filter_map(|fault| fault.line).collect();
        let others = others.0.into_inner();
        found.others += others.others;
        for fault in others.listed {
            if fault.line.is_none_or(|line| !lines.contains(&line)) {
                found.add(fault);
            }
        }
        Self(found.into())
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

/// The faults of a rejected trust policy, in the order of the text (feature `trust`). At most 200 are listed;
/// if there are more, a last one without line says how many.
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
#[derive(Clone, PartialEq, Eq)]
pub struct PolicyError {
    faults: Vec<PolicyFault>,
}

impl PolicyError {
    /// Returns `Err` with the faults, sorted by place and without duplicates, or `Ok` if there are
    /// none.
    pub(super) fn check_none(faults: Faults) -> Result<(), Self> {
        let faults = faults.into_vec();
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    pub(super) fn one(at: Position, field: impl Into<String>, problem: impl Into<String>) -> Self {
        let faults = Faults::default();
        faults.report(at, field, problem);
        Self { faults: faults.into_vec() }
    }

    /// Returns the faults.
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

/// Writes the same text as [`Display`](fmt::Display): a `main` that returns this error, and `unwrap`, print it.
impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for PolicyError {}
