//! [`History`]: the folder with the versions of a policy file, one file for each.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, FileError, Replacement};
use crate::trust::store::stored::StoredChange;
use crate::trust::{PolicyChange, PolicyVersion};

/// The name of the version that is being saved. It is the next version as soon as the policy file has its text.
const PENDING: &str = "pending.json";

/// The folder `trust.toml.history` beside a policy file.
#[derive(Debug)]
pub(super) struct History(PathBuf);

/// The JSON of an entry.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    change: StoredChange,
    text: String,
}

impl History {
    /// Returns the history of a policy file, which need not exist.
    pub(super) fn of(policy: &Path) -> Self {
        Self(disk::beside(policy, ".history"))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn create(&self, like: Option<&Metadata>) -> Result<(), FileError> {
        disk::create_folder(&self.0, like)
    }

    /// Returns the numbers of the recorded versions, the latest first.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, FileError> {
        let number = |name: &String| {
            let number = name.strip_suffix(".json")?.parse().ok()?;
            (*name == file_name(number)).then_some(number)
        };
        let mut numbers: Vec<u64> = disk::names(&self.0)?.iter().filter_map(number).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// Returns whether this is the number of the latest recorded version, without a look at the others.
    pub(super) fn is_latest(&self, number: u64) -> Result<bool, FileError> {
        Ok(disk::exists(&self.path(number))?
            && !disk::exists(&self.path(number.saturating_add(1)))?)
    }

    /// Returns a recorded version, or `None` if there is none with this number.
    pub(super) fn read(&self, number: u64) -> Result<Option<PolicyVersion>, FileError> {
        let path = self.path(number);
        let Some(json) = disk::read_entry(&path)? else { return Ok(None) };
        let version = parse(&json).filter(|version| version.change.id.number() == number);
        let problem = "is not the version that was recorded: restore it from a backup";
        version.map(Some).ok_or_else(|| FileError::new(&path, problem))
    }

    /// Returns the version that is being saved. A file that is none is ignored.
    pub(super) fn pending(&self) -> Result<Option<PolicyVersion>, FileError> {
        Ok(disk::read_entry(&self.pending_path())?.as_deref().and_then(parse))
    }

    /// Records a version. It is never changed again.
    pub(super) fn record(
        &self,
        version: &PolicyVersion,
        like: Option<&Metadata>,
    ) -> Result<(), FileError> {
        let path = self.path(version.change.id.number());
        self.reject_existing(&path)?;
        Replacement::write(&path, &json(version), like)?.replace()
    }

    pub(super) fn write_pending(
        &self,
        version: &PolicyVersion,
        like: Option<&Metadata>,
    ) -> Result<(), FileError> {
        Replacement::write(&self.pending_path(), &json(version), like)?.replace()
    }

    pub(super) fn discard_pending(&self) -> Result<(), FileError> {
        disk::remove(&self.pending_path())
    }

    /// Records the version that is being saved. The policy file has its text.
    pub(super) fn record_pending(&self, number: u64) -> Result<(), FileError> {
        let path = self.path(number);
        self.reject_existing(&path)?;
        disk::rename(&self.pending_path(), &path)
    }

    fn reject_existing(&self, path: &Path) -> Result<(), FileError> {
        match disk::exists(path)? {
            true => Err(FileError::new(path, "exists already, and is never replaced")),
            false => Ok(()),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.0.join(file_name(number))
    }

    fn pending_path(&self) -> PathBuf {
        self.0.join(PENDING)
    }
}

fn file_name(number: u64) -> String {
    format!("{number:08}.json")
}

/// Returns the version, if its digest is that of its text.
fn parse(json: &[u8]) -> Option<PolicyVersion> {
    let Entry { change, text } = serde_json::from_slice(json).ok()?;
    let change = PolicyChange::try_from(change).ok()?;
    change.id.is_of(&text).then_some(PolicyVersion { change, text })
}

fn json(version: &PolicyVersion) -> Vec<u8> {
    let change = StoredChange::from(version.change.clone());
    let entry = Entry { change, text: version.text.clone() };
    // Texts and numbers always have a form in JSON.
    serde_json::to_vec(&entry).unwrap_or_default()
}
