//! Files that are replaced as a whole, and a lock between processes.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::secret::path_for_errors;
use crate::trust::TrustPolicy;
use crate::trust::fault::{PolicyError, Position};

/// The limit of a policy.
pub(super) const MAX_TEXT_BYTES: usize = TrustPolicy::MAX_TEXT_BYTES;

/// The limit of an entry of the history: JSON may need six bytes for one of the text.
const MAX_ENTRY_BYTES: usize = 8 * MAX_TEXT_BYTES;

/// The attempts to take the lock, and the time between two of them. Writing takes milliseconds, so a lock that is
/// held for longer belongs to a process that is stopped.
const LOCK_ATTEMPTS: u32 = 500;
const LOCK_PERIOD: Duration = Duration::from_millis(10);

/// A file or folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path} {problem}{advice}")]
pub(super) struct FileError {
    path: String,
    problem: String,
    advice: &'static str,
}

impl FileError {
    pub(super) fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path_for_errors(path), problem: problem.into(), advice: "" }
    }

    fn io(path: &Path, action: &str, error: &io::Error) -> Self {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem if action != READ => {
                ": let the service write to this folder, or change the policy where the file comes from"
            }
            ErrorKind::PermissionDenied => ": let the service read it",
            ErrorKind::ResourceBusy => ": mount its folder instead of the file",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ": free space on this disk",
            _ => "",
        };
        Self { path: path_for_errors(path), problem: format!("{action}: {error}"), advice }
    }

    /// Returns the fault of a policy in this file.
    pub(super) fn into_policy_error(self) -> PolicyError {
        let Self { path, problem, advice } = self;
        PolicyError::one(Position::default(), path, problem + advice)
    }
}

const READ: &str = "cannot be read";
const WRITTEN: &str = "cannot be written";

/// The text of a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) modified: SystemTime,
}

/// Reads a policy. Returns `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Content>, FileError> {
    let Some((text, metadata)) = read_file(path, MAX_TEXT_BYTES)? else { return Ok(None) };
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let text = String::from_utf8(text).map_err(|_| FileError::new(path, "is not UTF-8"))?;
    Ok(Some(Content { text, modified }))
}

/// Reads an entry of the history. Returns `None` if it does not exist.
pub(super) fn read_entry(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    Ok(read_file(path, MAX_ENTRY_BYTES)?.map(|(json, _)| json))
}

fn read_file(path: &Path, limit: usize) -> Result<Option<(Vec<u8>, Metadata)>, FileError> {
    let fault = |error: io::Error| FileError::io(path, READ, &error);
    let Some(metadata) = metadata(path)? else { return Ok(None) };
    let Some(file) = found(File::open(path)).map_err(fault)? else { return Ok(None) };
    let mut content = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut content).map_err(fault)?;
    match content.len() > limit {
        true => Err(FileError::new(path, format!("is larger than {} MiB", limit >> 20))),
        false => Ok(Some((content, metadata))),
    }
}

/// Returns the metadata of a file, or `None` if it does not exist. To open a pipe could take forever.
fn metadata(path: &Path) -> Result<Option<Metadata>, FileError> {
    let metadata = found(fs::metadata(path)).map_err(|error| FileError::io(path, READ, &error))?;
    match metadata {
        Some(metadata) if !metadata.is_file() => {
            Err(FileError::new(path, "cannot be read: it is not a file"))
        }
        metadata => Ok(metadata),
    }
}

/// Returns the names of the files in a folder. A folder that does not exist has none.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let fault = |error: io::Error| FileError::io(folder, READ, &error);
    let Some(entries) = found(fs::read_dir(folder)).map_err(fault)? else { return Ok(Vec::new()) };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect::<io::Result<_>>().map_err(fault)
}

pub(super) fn exists(path: &Path) -> Result<bool, FileError> {
    path.try_exists().map_err(|error| FileError::io(path, READ, &error))
}

/// Creates a folder, unless it exists, with the same readers as `like`.
pub(super) fn create_folder(path: &Path, like: Option<&Metadata>) -> Result<(), FileError> {
    match fs::create_dir(path) {
        Ok(()) => {
            folder_readers(path, like).map_err(|error| FileError::io(path, WRITTEN, &error))?;
            sync_folder_of(path)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(FileError::io(path, "cannot be created", &error)),
    }
}

/// Removes a file, if it exists.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    found(fs::remove_file(path))
        .map_err(|error| FileError::io(path, "cannot be removed", &error))?;
    Ok(())
}

/// Follows symbolic links to the file. A file that does not exist has its place in its folder.
pub(super) fn resolved(path: &Path) -> Result<PathBuf, FileError> {
    let fault = |error: &io::Error| FileError::io(path, READ, error);
    if let Some(file) = found(path.canonicalize()).map_err(|error| fault(&error))? {
        return Ok(file);
    }
    if path.is_symlink() {
        return Err(FileError::new(path, "is a link to a file that does not exist"));
    }
    let name = path.file_name().ok_or_else(|| FileError::new(path, "is not a file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match found(folder.canonicalize()).map_err(|error| fault(&error))? {
        Some(folder) => Ok(folder.join(name)),
        None => Err(FileError::new(path, "cannot be read: its folder does not exist")),
    }
}

/// Returns the path with an addition to its name: `trust.toml.lock`.
pub(super) fn beside(path: &Path, addition: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(addition);
    path.with_file_name(name)
}

/// A complete file that does not have its name yet. It has the permissions and, if the process may set it, the owner
/// of the file `like`. Its own name is fixed, so that a crash leaves at most one of them.
pub(super) struct Replacement {
    new: PathBuf,
    path: PathBuf,
}

impl Replacement {
    pub(super) fn write(
        path: &Path,
        content: &[u8],
        like: Option<&Metadata>,
    ) -> Result<Self, FileError> {
        let this = Self { new: beside(path, ".new"), path: path.to_owned() };
        remove(&this.new)?;
        this.write_new(content, like)
            .map_err(|error| FileError::io(&this.new, WRITTEN, &error))
            .inspect_err(|_| this.discard())?;
        Ok(this)
    }

    fn write_new(&self, content: &[u8], like: Option<&Metadata>) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        if like.is_some() {
            only_for_owner(&mut options);
        }
        let mut file = options.open(&self.new)?;
        file.write_all(content)?;
        if let Some(like) = like {
            set_owner(&self.new, like);
            file.set_permissions(like.permissions())?;
        }
        file.sync_all()
    }

    /// Gives the file its name, so that readers see the old or the new file, and the name survives a crash.
    pub(super) fn replace(self) -> Result<(), FileError> {
        rename(&self.new, &self.path).inspect_err(|_| self.discard())
    }

    /// Removes the file. It does no harm if that fails.
    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.new);
    }
}

/// Renames a file, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|error| FileError::io(to, WRITTEN, &error))?;
    sync_folder_of(to)
}

/// Returns the metadata of a file that may be replaced, or `None` if it does not exist.
pub(super) fn replaceable(path: &Path) -> Result<Option<Metadata>, FileError> {
    let metadata = found(fs::metadata(path)).map_err(|error| FileError::io(path, READ, &error))?;
    match metadata {
        Some(metadata) if metadata.permissions().readonly() => Err(FileError::new(
            path,
            "is read-only: let the service write to it, or change the policy where the file comes from",
        )),
        metadata => Ok(metadata),
    }
}

/// Takes the lock of a file, which ends when the returned value is dropped or the process ends.
pub(super) fn lock(path: &Path) -> Result<File, FileError> {
    let mut file = lock_file(path)?;
    for _ in 0..LOCK_ATTEMPTS {
        match file.try_lock() {
            Ok(()) if has_name(&file, path)? => return Ok(file),
            // It was removed meanwhile, so that another process may hold the lock of a new one.
            Ok(()) => file = lock_file(path)?,
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PERIOD),
            Err(TryLockError::Error(error)) => return Err(FileError::io(path, WRITTEN, &error)),
        }
    }
    let problem = "was locked by another process for 5 s: end that process, and leave the file";
    Err(FileError::new(path, problem))
}

fn lock_file(path: &Path) -> Result<File, FileError> {
    // A lock needs no right to write to an existing lock file.
    let file = match metadata(path)? {
        Some(_) => File::open(path),
        None => OpenOptions::new().create(true).truncate(false).write(true).open(path),
    };
    file.map_err(|error| FileError::io(path, WRITTEN, &error))
}

/// Returns `None` for a file that does not exist.
fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(path);
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| FileError::io(folder, WRITTEN, &error))
}

/// Returns whether an open file still has its name.
#[cfg(unix)]
fn has_name(file: &File, path: &Path) -> Result<bool, FileError> {
    use std::os::unix::fs::MetadataExt as _;
    let fault = |error: io::Error| FileError::io(path, READ, &error);
    let own = file.metadata().map_err(fault)?;
    let named = found(fs::metadata(path)).map_err(fault)?;
    Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino())))
}

#[cfg(unix)]
fn only_for_owner(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600);
}

/// Keeps owner and group as far as the process may. Otherwise the new file belongs to the process.
#[cfg(unix)]
fn set_owner(path: &Path, like: &Metadata) {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if chown(path, Some(like.uid()), Some(like.gid())).is_err() {
        let _ = chown(path, None, Some(like.gid()));
    }
}

/// Lets those enter a folder who may read the file.
#[cfg(unix)]
fn folder_readers(folder: &Path, like: Option<&Metadata>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(like) = like else { return Ok(()) };
    set_owner(folder, like);
    let mode = like.permissions().mode() & 0o666;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700 | mode | ((mode & 0o444) >> 2)))
}

/// Other systems sync a folder with its files.
#[cfg(not(unix))]
fn sync_folder_of(_: &Path) -> Result<(), FileError> {
    Ok(())
}

/// Other systems do not remove an open file.
#[cfg(not(unix))]
fn has_name(_: &File, _: &Path) -> Result<bool, FileError> {
    Ok(true)
}

#[cfg(not(unix))]
fn only_for_owner(_: &mut OpenOptions) {}

#[cfg(not(unix))]
fn set_owner(_: &Path, _: &Metadata) {}

#[cfg(not(unix))]
fn folder_readers(_: &Path, _: Option<&Metadata>) -> io::Result<()> {
    Ok(())
}
