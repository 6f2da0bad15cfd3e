//! [`Origin`]: where the settings come from, so that faults call a setting what its writer calls it.

use std::collections::BTreeMap;

use super::env::variable_for;

/// The origin of the settings of a configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// The prefix of the environment variables, if they were read.
    prefix: Option<String>,
    /// The variables that were set: their names in the table, and their full names.
    variables: BTreeMap<&'static str, String>,
    /// Whether the variables were laid over settings from a file or from code.
    is_overlaid: bool,
}

/// Equal settings are equal, wherever they come from.
impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Origin {
    /// Records that variables with `prefix` were read. `is_overlaid`: other settings were there before.
    pub(super) fn read_variables(&mut self, prefix: &str, is_overlaid: bool) {
        self.prefix = Some(prefix.to_owned());
        self.is_overlaid |= is_overlaid;
    }

    /// Records that a variable was set.
    pub(super) fn add_variable(&mut self, prefix: &str, name: &'static str) {
        self.variables.insert(name, format!("{prefix}_{name}"));
    }

    /// Returns the variables that were set: their names in the table, and their full names.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.variables.iter().map(|(name, variable)| (*name, variable.as_str()))
    }

    /// Returns the prefix of the environment variables, if they were read.
    pub(crate) fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// Returns the variable that `field` comes from. If all settings come from variables, that is also the
    /// variable to set for a missing field.
    pub(crate) fn variable(&self, field: &str) -> Option<String> {
        let (prefix, name) = (self.prefix.as_ref()?, variable_for(field)?);
        match self.variables.get(name) {
            Some(variable) => Some(variable.clone()),
            None if self.is_overlaid => None,
            None => Some(format!("{prefix}_{name}")),
        }
    }

    /// Returns the variable that could set `field`.
    pub(super) fn possible_variable(&self, field: &str) -> Option<String> {
        let (prefix, name) = (self.prefix.as_ref()?, variable_for(field)?);
        Some(format!("{prefix}_{name}"))
    }
}
