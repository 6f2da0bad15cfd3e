//! [`FilePolicies`]: a policy in a file, with its history in a folder beside it.

mod disk;
mod history;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use disk::FileError;
use history::History;

use super::{
    Appended, NewPolicyVersion, PolicyChange, PolicyStore, PolicyVersion, PolicyVersionId,
};
use crate::error::BoxError;
use crate::support::off_thread::off_thread;
use crate::trust::fault::PolicyError;

/// The number of attempts to read a policy with its history while others write.
const ATTEMPTS: usize = 10;

/// The time without a change after which an edit of the policy file is whole.
const SETTLING: Duration = Duration::from_millis(300);

/// A policy in a file of TOML (feature `trust`). Clones share their state.
///
/// The file is the policy in force. It may be changed by hand, by a deployment, or by
/// [`TrustEvaluator::save`](crate::trust::TrustEvaluator::save), and each change is followed. A file that does not
/// exist, without a history, is an empty store. Links are followed, also those of a Kubernetes ConfigMap.
///
/// The versions are in the folder `<file>.history`: `00000001.json` and so on. None of them is ever changed. A change
/// that was made by hand is the next version, without an author; it is recorded when the next version is saved. The
/// folder may be shortened by removing the oldest files.
///
/// To save, a process needs the right to write to the folder of the file. It takes a lock (`<file>.lock`), which ends
/// with the process; writes a new file, and gives it the name of the old one. After a crash at any moment the old or
/// the new version is in force, whole. Processes that share the file must be on one machine, or share a file system
/// with locks. Permissions are kept, and also the owner if the process may set it; access control lists are *not*. An
/// editor takes no lock: an edit in the millisecond of the replacement may be lost.
///
/// Change the file by renaming a whole one. An edit in place is loaded when the file has not changed for 0.3 s: a
/// writer that pauses for longer puts a part of a policy into force, which may grant more than the whole.
///
/// It does *not* protect the file: whoever can write to it decides which tokens are accepted.
///
/// ```
/// use scaikey_auth::trust::{FilePolicies, TrustEvaluator};
///
/// let trusts = TrustEvaluator::builder()
///     .store(FilePolicies::new("/var/lib/scaivault/trust.toml"))
///     .own_issuer("https://scaikey.example")
///     .build()?;
/// # Ok::<_, scaikey_auth::trust::PolicyError>(())
/// ```
///
/// [`TrustEvaluatorBuilder::file`](crate::trust::TrustEvaluatorBuilder::file) does the same, but reads the file when
/// the evaluator is built, and fails if it cannot be used.
#[derive(Debug, Clone)]
pub struct FilePolicies {
    files: Arc<Files>,
    /// One of each at the same time, so that a file system that hangs takes no more threads. A page of the history may
    /// take long, and delays no decision.
    reading: Arc<Semaphore>,
    listing: Arc<Semaphore>,
    writing: Arc<Semaphore>,
}

#[derive(Debug)]
struct Files {
    path: PathBuf,
    /// The latest recorded version and its folder, which need not be read again while it is the latest.
    recorded: Mutex<Option<(PathBuf, PolicyVersionId)>>,
}

/// The policy file and its history at one moment.
#[derive(Debug)]
struct Snapshot {
    target: PathBuf,
    history: History,
    /// The version in force, or `None` if the store is empty.
    current: Option<Current>,
}

/// The version in force.
#[derive(Debug)]
enum Current {
    /// It is in the history.
    Recorded { id: PolicyVersionId, text: String },
    /// It is being saved, or a crash came before it was recorded.
    Pending(PolicyVersion),
    /// The file was changed by hand.
    Edited(PolicyVersion),
}

impl Current {
    fn id(&self) -> &PolicyVersionId {
        match self {
            Self::Recorded { id, .. } => id,
            Self::Pending(version) | Self::Edited(version) => &version.change.id,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Recorded { text, .. } => text,
            Self::Pending(version) | Self::Edited(version) => &version.text,
        }
    }

    fn unrecorded(&self) -> Option<&PolicyVersion> {
        match self {
            Self::Recorded { .. } => None,
            Self::Pending(version) | Self::Edited(version) => Some(version),
        }
    }
}

impl FilePolicies {
    /// Creates a store for this file. It is read later.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            files: Arc::new(Files { path: file.into(), recorded: Mutex::default() }),
            reading: Arc::new(Semaphore::new(1)),
            listing: Arc::new(Semaphore::new(1)),
            writing: Arc::new(Semaphore::new(1)),
        }
    }

    /// Reads the version in force. Blocks the calling thread.
    pub(in crate::trust) fn read_blocking(&self) -> Result<PolicyVersion, PolicyError> {
        self.files.current().map_err(FileError::into_policy_error)
    }

    async fn run<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce(&Files) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, BoxError> {
        let permit = permits.clone().acquire_owned().await?;
        let files = self.files.clone();
        let work = move || {
            let _permit = permit;
            work(&files)
        };
        Ok(off_thread(work).await??)
    }
}

#[async_trait]
impl PolicyStore for FilePolicies {
    fn kind(&self) -> &'static str {
        "file"
    }

    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        self.run(&self.reading, Files::settled).await
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        self.run(&self.reading, move |files| files.read(&files.snapshot()?, number)).await
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        let expected = expected.cloned();
        self.run(&self.writing, move |files| files.append(version, expected.as_ref())).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        self.run(&self.listing, move |files| files.history(before, limit)).await
    }
}

impl Files {
    /// Reads the version in force.
    fn current(&self) -> Result<PolicyVersion, FileError> {
        let snapshot = self.snapshot()?;
        let Some(current) = &snapshot.current else {
            return Err(FileError::new(&self.path, "cannot be read: it does not exist"));
        };
        let version = self.read(&snapshot, current.id().number())?;
        version.ok_or_else(|| FileError::new(&self.path, "cannot be read with its history"))
    }

    /// Reads the policy and what the history says about it. It takes no lock, so it reads until the policy is the
    /// same before and after.
    fn snapshot(&self) -> Result<Snapshot, FileError> {
        for _ in 0..ATTEMPTS {
            let target = disk::resolved(&self.path)?;
            let (history, content) = (History::of(&target), disk::read(&target)?);
            // In this order: a version that is being saved is pending first, and then recorded.
            let pending = history.pending()?;
            let recorded = self.latest_recorded(&history)?;
            if disk::resolved(&self.path)? != target || disk::read(&target)? != content {
                continue;
            }
            let current = match (content, recorded) {
                (None, None) => None,
                (None, Some(id)) => {
                    let problem = format!(
                        "does not exist, although {} has version {id}: restore it, or remove its history too",
                        history.folder().display()
                    );
                    return Err(FileError::new(&self.path, problem));
                }
                (Some(content), recorded) => Some(current(content, recorded, pending)),
            };
            return Ok(Snapshot { target, history, current });
        }
        Err(FileError::new(&self.path, "changed each time that it was read"))
    }

    /// Returns the version in force. An edit that was made just now may be half of one, and half of a policy may grant
    /// more than the whole, so it counts as soon as nobody writes to the file any more.
    fn settled(&self) -> Result<Option<PolicyVersionId>, FileError> {
        let mut seen = None;
        for _ in 0..ATTEMPTS {
            let current = self.snapshot()?.current;
            let id = current.as_ref().map(|current| current.id().clone());
            let Some(Current::Edited(PolicyVersion { change, .. })) = current else {
                return Ok(id);
            };
            let age = SystemTime::now().duration_since(change.at);
            let look = Some((change.id, change.at));
            // The clock of the file system may be ahead.
            if seen == look || age.is_ok_and(|age| age >= SETTLING) {
                return Ok(id);
            }
            seen = look;
            step("edit seen");
            std::thread::sleep(SETTLING);
        }
        Err(FileError::new(&self.path, "changed each time that it was read"))
    }

    fn latest_recorded(&self, history: &History) -> Result<Option<PolicyVersionId>, FileError> {
        let mut known = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((folder, id)) = &*known
            && folder == history.folder()
            && history.is_latest(id.number())?
        {
            return Ok(Some(id.clone()));
        }
        *known = None;
        let Some(&number) = history.numbers()?.first() else { return Ok(None) };
        let id = history.read(number)?.map(|version| version.change.id);
        *known = id.clone().map(|id| (history.folder().to_owned(), id));
        Ok(id)
    }

    fn read(&self, snapshot: &Snapshot, number: u64) -> Result<Option<PolicyVersion>, FileError> {
        let unrecorded = snapshot.current.as_ref().and_then(Current::unrecorded);
        match unrecorded.filter(|version| version.change.id.number() == number) {
            Some(version) => Ok(Some(version.clone())),
            None => snapshot.history.read(number),
        }
    }

    fn history(&self, before: Option<u64>, limit: usize) -> Result<Vec<PolicyChange>, FileError> {
        let (history, current) = match self.snapshot() {
            Ok(Snapshot { current: None, .. }) => return Ok(Vec::new()),
            Ok(Snapshot { history, current, .. }) => (history, current),
            Err(error) => (self.damaged_history()?.ok_or(error)?, None),
        };
        let unrecorded = current.as_ref().and_then(Current::unrecorded);
        let latest = current.as_ref().map_or(u64::MAX, |current| current.id().number());
        let recorded = history
            .numbers()?
            .into_iter()
            .filter(|number| *number < latest || (*number == latest && unrecorded.is_none()));
        let numbers = unrecorded.map(|version| version.change.id.number()).into_iter();
        let numbers = numbers.chain(recorded);
        let numbers = numbers.filter(|number| before.is_none_or(|before| *number < before));
        let change = |number| match unrecorded.filter(|it| it.change.id.number() == number) {
            Some(version) => Some(version.change.clone()),
            None => match history.read(number) {
                Err(_) => Some(PolicyChange::damaged(number)),
                // It may be removed meanwhile, because it is old.
                Ok(version) => version.map(|version| version.change),
            },
        };
        Ok(numbers.take(limit).filter_map(change).collect())
    }

    /// Returns the history, if its latest version is damaged, so that the version in force is not known.
    fn damaged_history(&self) -> Result<Option<History>, FileError> {
        let history = History::of(&disk::resolved(&self.path)?);
        let latest = history.numbers()?.first().copied();
        Ok(latest.is_some_and(|latest| history.read(latest).is_err()).then_some(history))
    }

    fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, FileError> {
        if version.text.len() > disk::MAX_TEXT_BYTES {
            return Err(FileError::new(&self.path, "cannot have a policy of more than 1 MiB"));
        }
        let locked = disk::resolved(&self.path)?;
        let _lock = disk::lock(&disk::beside(&locked, ".lock"))?;
        let Snapshot { target, history, current } = self.snapshot()?;
        if target != locked {
            return Err(FileError::new(&self.path, "is a link that was changed at this moment"));
        }
        let latest = current.as_ref().map(Current::id);
        if latest != expected {
            return Ok(Appended::Conflict(latest.cloned()));
        }
        let like = disk::replaceable(&target)?;
        let like = like.as_ref();
        history.create(like)?;
        step("folder created");
        match &current {
            Some(Current::Pending(version)) => {
                history.record_pending(version.change.id.number())?
            }
            Some(Current::Edited(version)) => history.record(version, like)?,
            Some(Current::Recorded { .. }) | None => {}
        }
        step("current version recorded");
        let number = latest.map_or(0, PolicyVersionId::number).saturating_add(1);
        let version = PolicyVersion::new(number, version);
        let replacement = disk::Replacement::write(&target, version.text.as_bytes(), like)?;
        step("new file written");
        let pending = history.write_pending(&version, like);
        pending.inspect_err(|_| replacement.discard())?;
        step("pending version written");
        let text = disk::read(&target)?.map(|content| content.text);
        if text.as_deref() != current.as_ref().map(Current::text) {
            // An editor was faster.
            replacement.discard();
            history.discard_pending()?;
            return Ok(Appended::Conflict(self.snapshot()?.current.map(|it| it.id().clone())));
        }
        let replaced = replacement.replace();
        replaced.inspect_err(|_| drop(history.discard_pending()))?;
        step("file replaced");
        history.record_pending(number)?;
        step("version recorded");
        Ok(Appended::Done(version.change.id))
    }
}

/// Returns which version a policy file has.
fn current(
    content: disk::Content,
    recorded: Option<PolicyVersionId>,
    pending: Option<PolicyVersion>,
) -> Current {
    let disk::Content { text, modified } = content;
    let next = recorded.as_ref().map_or(0, PolicyVersionId::number).saturating_add(1);
    let is_next = |version: &PolicyVersion| version.change.id.number() == next;
    if let Some(version) = pending.filter(|version| is_next(version) && version.text == text) {
        return Current::Pending(version);
    }
    match recorded.filter(|id| id.is_of(&text)) {
        Some(id) => Current::Recorded { id, text },
        None => Current::Edited(PolicyVersion::new(next, NewPolicyVersion::new(text, modified))),
    }
}

/// Marks a moment at which the tests end [`Files::append`] as a crash would.
#[cfg(test)]
use tests::at as step;

#[cfg(not(test))]
fn step(_: &'static str) {}

// At the end, because the tests of the architecture read no further.
#[cfg(test)]
mod tests;
