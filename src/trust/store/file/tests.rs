//! Crashes between the steps of [`Files::append`](super::Files::append).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::trust::PolicyAuthor;

/// The steps, in order.
const STEPS: [&str; 6] = [
    "folder created",
    "current version recorded",
    "new file written",
    "pending version written",
    "file replaced",
    "version recorded",
];

/// The step of a reader that has seen an edit that may be half of one.
const EDIT_SEEN: &str = "edit seen";

/// The first step after which the new version is in force.
const REPLACED: &str = "file replaced";

type Action = Box<dyn Fn()>;

thread_local! {
    /// A step, and what happens after it.
    static AFTER: RefCell<Option<(&'static str, Action)>> = const { RefCell::new(None) };
}

/// Runs the action of this step, if it has one. A panic ends the append as a crash would: no later statement runs,
/// nothing is buffered in the process, and the lock ends with its file.
pub(super) fn at(step: &'static str) {
    assert!(step == EDIT_SEEN || STEPS.contains(&step), "{step}");
    let is_of_step = |(of, _): &mut (&str, Action)| *of == step;
    if let Some((_, action)) = AFTER.with_borrow_mut(|after| after.take_if(is_of_step)) {
        action();
    }
}

/// A folder that is removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("scaikey-auth-policies-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn policy(&self) -> PathBuf {
        self.0.join("trust.toml")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files of one process that opens the store anew.
fn files(path: &Path) -> Files {
    Files { path: path.to_owned(), recorded: Mutex::default() }
}

fn new(text: &str, author: &str) -> NewPolicyVersion {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let mut version = NewPolicyVersion::new(text, at);
    version.author = Some(PolicyAuthor::new("https://id.example", author));
    version
}

fn latest(path: &Path) -> Option<PolicyVersionId> {
    files(path).snapshot().unwrap().current.map(|current| current.id().clone())
}

fn append(path: &Path, text: &str, author: &str) -> PolicyVersionId {
    match files(path).append(new(text, author), latest(path).as_ref()).unwrap() {
        Appended::Done(id) => id,
        Appended::Conflict(id) => panic!("{id:?}"),
    }
}

/// Begins an append and ends it at this step.
fn crash(path: &Path, text: &str, author: &str, step: &'static str) {
    let expected = latest(path);
    AFTER.set(Some((step, Box::new(|| panic!("crash")))));
    let append = || files(path).append(new(text, author), expected.as_ref());
    assert!(catch_unwind(AssertUnwindSafe(append)).is_err(), "{step}");
}

/// Returns number, text and author of each version.
fn versions(path: &Path) -> Vec<(u64, String, String)> {
    let files = files(path);
    let version = |change: PolicyChange| {
        let number = change.id.number();
        let version = files.read(&files.snapshot().unwrap(), number).unwrap().unwrap();
        assert_eq!(version.change, change);
        let author = version.change.author.map_or("by hand".to_owned(), |author| author.subject);
        (number, version.text, author)
    };
    let mut versions: Vec<_> =
        files.history(None, usize::MAX).unwrap().into_iter().map(version).collect();
    versions.reverse();
    versions
}

/// Returns the bytes of all recorded versions.
fn recorded(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let history = History::of(path);
    let numbers = history.numbers().unwrap();
    let entry = |number| history.folder().join(format!("{number:08}.json"));
    let entries = numbers.into_iter().map(entry);
    entries.map(|entry| (entry.clone(), fs::read(&entry).unwrap())).collect()
}

/// A text, and the expected number, text and author of each version.
type Expected = Vec<(u64, String, String)>;

fn expected(versions: &[(&str, &str)]) -> Expected {
    let numbered = versions.iter().zip(1..);
    numbered.map(|((text, author), nr)| (nr, (*text).into(), (*author).into())).collect()
}

#[test]
fn crash_leaves_a_whole_version() {
    // The store before the crash: empty, a file without history, with a version, and with an edit since.
    type Prepare = fn(&Path);
    let before: [(Prepare, &[(&str, &str)]); 4] = [
        (|_| {}, &[]),
        (|path| fs::write(path, "edited").unwrap(), &[("edited", "by hand")]),
        (|path| drop(append(path, "first", "alice")), &[("first", "alice")]),
        (
            |path| {
                append(path, "first", "alice");
                fs::write(path, "edited").unwrap();
            },
            &[("first", "alice"), ("edited", "by hand")],
        ),
    ];
    for (prepare, old) in before {
        for (nth, step) in STEPS.iter().enumerate() {
            let is_new = nth >= STEPS.iter().position(|step| *step == REPLACED).unwrap();
            let folder = Folder::new();
            let path = folder.policy();
            prepare(&path);
            let entries = recorded(&path);
            crash(&path, "second", "bob", step);
            let mut versions_now = old.to_vec();
            if is_new {
                versions_now.push(("second", "bob"));
            }
            assert_eq!(versions(&path), expected(&versions_now), "{step}");
            let text = fs::read_to_string(&path).ok();
            assert_eq!(text.as_deref(), versions_now.last().map(|(text, _)| *text), "{step}");

            // No lock is left, the next version follows, and the history is complete.
            append(&path, "third", "carol");
            versions_now.push(("third", "carol"));
            assert_eq!(versions(&path), expected(&versions_now), "{step}");
            let after = recorded(&path);
            assert_eq!(after.len(), versions_now.len(), "{step}");
            assert!(entries.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "{step}");
            let mut names = disk::names(&folder.0).unwrap();
            names.sort();
            assert_eq!(names, ["trust.toml", "trust.toml.history", "trust.toml.lock"], "{step}");
        }
    }
}

#[test]
fn edit_after_a_crash_is_a_version() {
    for step in STEPS {
        let folder = Folder::new();
        let path = folder.policy();
        append(&path, "first", "alice");
        crash(&path, "second", "bob", step);
        let is_recorded = step == "version recorded";
        fs::write(&path, "edited").unwrap();
        append(&path, "third", "carol");
        let versions = versions(&path);
        let (number, text, author) = &versions[versions.len() - 2];
        assert_eq!((text.as_str(), author.as_str()), ("edited", "by hand"), "{step}");
        assert_eq!(*number, if is_recorded { 3 } else { 2 }, "{step}");
    }
}

#[test]
fn same_text_survives_a_crash() {
    for step in STEPS {
        let folder = Folder::new();
        let path = folder.policy();
        append(&path, "same", "alice");
        crash(&path, "same", "bob", step);
        append(&path, "same", "carol");
        let authors: Vec<_> = versions(&path).into_iter().map(|(_, _, author)| author).collect();
        let is_stored =
            !["folder created", "current version recorded", "new file written"].contains(&step);
        let expected: &[&str] =
            if is_stored { &["alice", "bob", "carol"] } else { &["alice", "carol"] };
        assert_eq!(authors, expected, "{step}");
    }
}

#[test]
fn edit_during_an_append_is_a_conflict() {
    let before = STEPS.into_iter().take_while(|step| *step != REPLACED);
    for step in before {
        let folder = Folder::new();
        let path = folder.policy();
        let first = append(&path, "first", "alice");
        let edited = path.clone();
        AFTER.set(Some((step, Box::new(move || fs::write(&edited, "edited").unwrap()))));
        let appended = files(&path).append(new("second", "bob"), Some(&first)).unwrap();
        assert_eq!(appended, Appended::Conflict(latest(&path)), "{step}");
        let edited = expected(&[("first", "alice"), ("edited", "by hand")]);
        assert_eq!(versions(&path), edited, "{step}");
        append(&path, "third", "carol");
        assert_eq!(versions(&path).len(), 3, "{step}");
    }
}

#[test]
fn half_written_edit_is_not_followed() {
    let folder = Folder::new();
    let path = folder.policy();
    append(&path, "first", "alice");
    fs::write(&path, "half").unwrap();
    let written = path.clone();
    AFTER.set(Some((EDIT_SEEN, Box::new(move || fs::write(&written, "half and half").unwrap()))));
    let settled = files(&path).settled().unwrap().unwrap();
    assert!(settled.is_of("half and half"), "{settled}");
}

#[test]
fn removed_lock_file_is_locked_again() {
    let folder = Folder::new();
    let path = folder.policy();
    let first = disk::lock(&path).unwrap();
    let (sender, locked) = std::sync::mpsc::channel();
    let waiting = path.clone();
    let waiter = std::thread::spawn(move || {
        let _lock = disk::lock(&waiting).unwrap();
        sender.send(()).unwrap();
    });
    // Time to open the file. Without it, the test passes too.
    std::thread::sleep(Duration::from_millis(100));
    fs::remove_file(&path).unwrap();
    let second = disk::lock(&path).unwrap();
    drop(first);
    assert!(locked.recv_timeout(Duration::from_millis(300)).is_err(), "two hold the lock");
    drop(second);
    waiter.join().unwrap();
}
