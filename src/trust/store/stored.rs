//! [`StoredChange`]: the JSON of a version in files and in Redis.

use serde::{Deserialize, Serialize};

use super::{PolicyAuthor, PolicyChange};
use crate::trust::time::{from_rfc3339, to_rfc3339};

/// A version without its text, as JSON. Fields that a later version of this crate adds are ignored.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredChange {
    version: String,
    at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<PolicyAuthor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restores: Option<u64>,
}

/// The JSON is not that of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored version has no valid number or time")]
pub(super) struct InvalidStoredChange;

impl From<PolicyChange> for StoredChange {
    fn from(change: PolicyChange) -> Self {
        let PolicyChange { id, at, author, note, restores, .. } = change;
        Self { version: id.to_string(), at: to_rfc3339(at), author, note, restores }
    }
}

impl TryFrom<StoredChange> for PolicyChange {
    type Error = InvalidStoredChange;

    fn try_from(stored: StoredChange) -> Result<Self, InvalidStoredChange> {
        let StoredChange { version, at, author, note, restores } = stored;
        let id = version.parse().map_err(|_| InvalidStoredChange)?;
        let at = from_rfc3339(&at).ok_or(InvalidStoredChange)?;
        Ok(Self { author, note, restores, ..Self::new(id, at) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::trust::{NewPolicyVersion, PolicyVersion};

    #[test]
    fn change_survives_storing() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_778_939_467_123_456_789);
        let mut author = PolicyAuthor::new("https://scaikey.example", "alice");
        author.tenant = Some("tnt_acme".to_owned());
        let full = NewPolicyVersion {
            author: Some(author),
            note: Some("two\nlines".to_owned()),
            restores: Some(3),
            ..NewPolicyVersion::new("text", at)
        };
        for version in [full, NewPolicyVersion::new("", SystemTime::UNIX_EPOCH)] {
            let change = PolicyVersion::new(7, version).change;
            let json = serde_json::to_string(&StoredChange::from(change.clone())).unwrap();
            let stored: StoredChange = serde_json::from_str(&json).unwrap();
            assert_eq!(PolicyChange::try_from(stored), Ok(change), "{json}");
        }
    }

    #[test]
    fn invalid_change_is_an_error() {
        for json in [
            r#"{"version":"7","at":"2026-05-16T13:51:07Z"}"#,
            r#"{"version":"7-3f0a12b45c6d7e8f","at":"yesterday"}"#,
        ] {
            let stored: StoredChange = serde_json::from_str(json).unwrap();
            assert_eq!(PolicyChange::try_from(stored), Err(InvalidStoredChange), "{json}");
        }
    }
}
