//! [`ConfigError`]: all faults of a configuration.

use std::fmt;

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

    /// If there is a prefix, replaces names of fields by names of environment variables, and `P_` in problems
    /// by the prefix. Otherwise removes the variables in parentheses, such as "(`P_RESOURCE`)", from problems.
    pub(crate) fn with_variable_names(mut self, prefix: Option<&str>) -> Self {
        for fault in &mut self.faults {
            let variable = super::env::variable_for(&fault.field);
            if let Some((prefix, variable)) = prefix.zip(variable) {
                fault.field = format!("{prefix}_{variable}");
            }
            fault.problem = match prefix {
                Some(prefix) => fault.problem.replace("`P_", &format!("`{prefix}_")),
                None => without_variables(&fault.problem),
            };
        }
        self.faults.dedup();
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
        let named = |prefix| {
            let error = ConfigError::one(Fault::new("client.id", problem));
            let fault = error.with_variable_names(prefix).faults[0].clone();
            (fault.field, fault.problem)
        };
        let text = |field: &str, problem: &str| (field.to_owned(), problem.to_owned());
        let expected = text("X_CLIENT_ID", "set a (`X_A`), b (`X_B=true`) or `X_C`");
        assert_eq!(named(Some("X")), expected);
        assert_eq!(named(None), text("client.id", "set a, b or `P_C`"));
    }

    #[test]
    fn error_of_main_is_readable() {
        let error = ConfigError::one(Fault::new("audience", "is missing"));
        let expected = "the authentication configuration is invalid:\n  audience is missing";
        assert_eq!(format!("{error:?}"), expected);
    }
}
