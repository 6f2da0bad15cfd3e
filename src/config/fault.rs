//! [`ConfigError`]: all faults of a configuration.

use std::fmt;

use super::Origin;
use crate::support::seal::InvalidSealingKeys;

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The field, environment variable or builder method with the fault, or the URL of an issuer.
    pub field: String,
    /// The problem and, unless it is obvious, the remedy. The text continues a sentence that begins with
    /// `field`.
    pub problem: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// The error for an invalid configuration. It lists all faults, not only the first.
///
/// ```
/// use scaikey_auth::Auth;
///
/// let error = Auth::builder().issuer("http://scaikey.example").build().unwrap_err();
/// assert_eq!(error.faults().len(), 2, "{error}");
/// let fields: Vec<_> = error.faults().iter().map(|fault| fault.field.as_str()).collect();
/// assert!(fields.contains(&"audience"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<Fault>,
}

impl ConfigError {
    /// Returns `Err` with the faults, without consecutive duplicates, or `Ok` if there are none.
    pub(crate) fn from_faults(mut faults: Vec<Fault>) -> Result<(), Self> {
        faults.dedup();
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    /// Names the settings as their writer does: replaces fields that come from environment variables by the
    /// variables, and `P_` in problems by the prefix. Without a prefix, removes the variables in parentheses,
    /// such as "(`P_RESOURCE`)", from problems.
    pub(crate) fn named_by(mut self, origin: &Origin) -> Self {
        for fault in &mut self.faults {
            if let Some(variable) = origin.variable(&fault.field) {
                fault.field = variable;
            } else if let Some(variable) = origin.possible_variable(&fault.field)
                && fault.problem.starts_with("is missing")
            {
                fault.field = format!("{} ({variable})", fault.field);
            }
            fault.problem = match origin.prefix() {
                Some(prefix) => fault.problem.replace("`P_", &format!("`{prefix}_")),
                None => without_variables(&fault.problem),
            };
        }
        self.faults.dedup();
        self
    }

    /// Adds the notices: a missing setting may be present under a misspelt name. A notice about the setting of
    /// a fault replaces the fault, because it names the cause.
    pub(super) fn explained_by(mut self, notices: &[String]) -> Self {
        for (field, problem) in notices.iter().filter_map(|notice| notice.split_once(' ')) {
            self.faults.retain(|fault| fault.field != field);
            self.faults.push(Fault::new(field, problem));
        }
        self
    }

    /// Adds faults.
    pub(crate) fn and(mut self, faults: Vec<Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    pub(crate) fn one(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }

    /// Returns all faults.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

/// Returns `problem` without variables in parentheses.
fn without_variables(problem: &str) -> String {
    let mut parts = problem.split(" (`P_");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once("`)").map_or(part, |(_, rest)| rest))
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the authentication configuration is invalid:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {} {}", fault.field, fault.problem))
    }
}

/// Writes the same text as [`Display`](fmt::Display): a `main` that returns this error, and `unwrap`, print it.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}

/// Calls the field `sealing_keys`, because the keys do not say which setting they come from.
impl From<InvalidSealingKeys> for ConfigError {
    fn from(why: InvalidSealingKeys) -> Self {
        Self::one(Fault::new("sealing_keys", why.problem()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_only_with_a_prefix() {
        let problem = "set a (`P_A`), b (`P_B=true`) or `P_C`";
        let named = |origin| {
            let error = ConfigError::one(Fault::new("client.id", problem));
            let fault = error.named_by(&origin).faults[0].clone();
            (fault.field, fault.problem)
        };
        let text = |field: &str, problem: &str| (field.to_owned(), problem.to_owned());
        let with_variables = "set a (`X_A`), b (`X_B=true`) or `X_C`";
        let read = |is_overlaid| {
            let mut origin = Origin::default();
            origin.read_variables("X", is_overlaid);
            origin
        };
        assert_eq!(named(read(false)), text("X_CLIENT_ID", with_variables));
        assert_eq!(named(read(true)), text("client.id", with_variables));
        let mut set = read(true);
        set.add_variable("X", "CLIENT_ID");
        assert_eq!(named(set), text("X_CLIENT_ID", with_variables));
        assert_eq!(named(Origin::default()), text("client.id", "set a, b or `P_C`"));
    }

    #[test]
    fn error_of_main_is_readable() {
        let error = ConfigError::one(Fault::new("audience", "is missing"));
        let expected = "the authentication configuration is invalid:\n  audience is missing";
        assert_eq!(format!("{error:?}"), expected);
    }
}
