//! [`ConfigError`]: all faults of a configuration.

use std::fmt;

use crate::support::seal::InvalidSealingKeys;

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The name of the field or environment variable.
    pub field: String,
    /// The problem and the remedy.
    pub problem: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// The error for an invalid configuration. It lists all faults, not only the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    faults: Vec<Fault>,
}

impl ConfigError {
    /// Returns an error if there are faults.
    pub(crate) fn from_faults(mut faults: Vec<Fault>) -> Result<(), Self> {
        faults.dedup();
        if faults.is_empty() { Ok(()) } else { Err(Self { faults }) }
    }

    /// Replaces names of fields by their environment variables, and the `P_` of variables in problems by the
    /// prefix, if there is a prefix.
    pub(crate) fn named(mut self, prefix: Option<&str>) -> Self {
        for fault in &mut self.faults {
            let variable = super::env::variable_for(&fault.field);
            if let Some((prefix, variable)) = prefix.zip(variable) {
                fault.field = format!("{prefix}_{variable}");
            }
            if let Some(prefix) = prefix {
                fault.problem = fault.problem.replace("`P_", &format!("`{prefix}_"));
            }
        }
        self.faults.dedup();
        self
    }

    pub(crate) fn one(fault: Fault) -> Self {
        Self { faults: vec![fault] }
    }

    /// Returns all faults, in the order of the fields.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the authentication configuration cannot be used:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {} {}", fault.field, fault.problem))
    }
}

impl std::error::Error for ConfigError {}

impl From<InvalidSealingKeys> for ConfigError {
    fn from(why: InvalidSealingKeys) -> Self {
        Self::one(Fault::new("sealing_keys", why.problem()))
    }
}
