//! Policies in files: followed, saved, and never lost or read in part.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scaikey_auth::clock::Clock as _;
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::trust::{
    Appended, FilePolicies, NewPolicyVersion, PolicyAuthor, PolicyStore as _, PolicyVersionId,
    SaveError, TrustEvaluator,
};

use crate::support::process::{Program, job, ready};
use crate::support::{File, Log, eventually, until};

use super::fixture::{ask, grant, platform, pod, trust};

const PERIOD: Duration = Duration::from_secs(5);

/// A policy with one rule of this name for the reporter.
fn text(cluster: &Provider, rule: &str) -> String {
    let rule = grant(rule, "subject = \"system:serviceaccount:reports:reporter\"");
    format!("{}{rule}", trust("k8s", cluster, ""))
}

fn evaluator(clock: &ManualClock, path: &Path) -> TrustEvaluator {
    TrustEvaluator::builder().file(path).clock(clock.clone()).build().unwrap()
}

fn new(text: &str) -> NewPolicyVersion {
    NewPolicyVersion::new(text, ManualClock::new().now())
}

/// Makes a policy file unusable.
type MakeUnusable = fn(&Path);

/// Returns the name of the rule that grants a token of the reporter's pod.
async fn rule(evaluator: &TrustEvaluator, cluster: &Provider) -> String {
    ask(evaluator, &pod(cluster).sign()).await.unwrap().rule
}

/// Advances the clock until a check is due, and returns the rule as soon as it is this one.
async fn follows(evaluator: &TrustEvaluator, clock: &ManualClock, cluster: &Provider, name: &str) {
    eventually(async || {
        clock.advance(PERIOD);
        rule(evaluator, cluster).await == name
    })
    .await;
}

fn beside(path: &Path, addition: &str) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(format!("{name}{addition}"))
}

#[tokio::test]
async fn edit_is_followed() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let file = File::new("trust.toml", &text(&cluster, "first"));
    let evaluator = evaluator(&clock, file.path());
    let first = evaluator.version().unwrap();
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    file.write(&text(&cluster, "second"));
    clock.advance(PERIOD - Duration::from_millis(1));
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    clock.advance(Duration::from_millis(1));
    assert_eq!(rule(&evaluator, &cluster).await, "second");
    assert_ne!(evaluator.version().unwrap(), first);
    assert_eq!(cluster.jwks_requests(), 1);
    // Following writes nothing.
    let names = fs::read_dir(file.path().parent().unwrap()).unwrap().count();
    assert_eq!(names, 1);
}

#[tokio::test]
async fn faulty_edit_keeps_the_loaded_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let (log, file) = (Log::start(), File::new("trust.toml", &text(&cluster, "first")));
    let evaluator = evaluator(&clock, file.path());
    file.write("[[trust]]\nid = \"k8s\"\nmode = \"off\"\n");
    for _ in 0..3 {
        clock.advance(PERIOD);
        assert_eq!(rule(&evaluator, &cluster).await, "first");
    }
    let errors = log.lines("ERROR");
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("trust policy rejected"));
    file.write(&text(&cluster, "good"));
    clock.advance(PERIOD);
    assert_eq!(rule(&evaluator, &cluster).await, "good");
}

#[tokio::test]
async fn unusable_file_keeps_the_loaded_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let unusable: [(&str, MakeUnusable); 5] = [
        ("is empty, although it had version", |path| fs::remove_file(path).unwrap()),
        ("is not a file", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("is not UTF-8", |path| fs::write(path, b"\xff").unwrap()),
        ("is larger than 1 MiB", |path| fs::write(path, "#".repeat((1 << 20) + 1)).unwrap()),
        ("cannot be read: Permission denied", |path| {
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
            }
            let _ = path;
        }),
    ];
    for (problem, make_unusable) in unusable {
        let (log, file) = (Log::start(), File::new("trust.toml", &text(&cluster, "first")));
        let evaluator = evaluator(&clock, file.path());
        make_unusable(file.path());
        if fs::read_to_string(file.path()).is_ok_and(|text| text.len() < 1 << 20) {
            continue; // The administrator of the system may read everything.
        }
        for _ in 0..3 {
            clock.advance(PERIOD);
            assert_eq!(rule(&evaluator, &cluster).await, "first");
            until(|| evaluator.current().is_store_away()).await;
        }
        let warnings = log.lines("WARN");
        assert!(warnings.len() == 1 && warnings[0].contains(problem), "{problem}: {warnings:#?}");
        assert!(evaluator.reload().is_err());

        let _ = fs::remove_dir(file.path());
        let _ = fs::remove_file(file.path());
        file.write(&text(&cluster, "second"));
        follows(&evaluator, &clock, &cluster, "second").await;
    }
}

#[tokio::test]
async fn removed_file_is_no_empty_store() {
    let file = File::reserve("trust.toml");
    let store = FilePolicies::new(file.path());
    assert_eq!(store.latest().await.unwrap(), None);
    store.append(new("# first"), None).await.unwrap();
    file.remove();
    for store in [store, FilePolicies::new(file.path())] {
        let error = store.latest().await.unwrap_err().to_string();
        assert!(error.contains("restore it"), "{error}");
        assert!(store.append(new("# lost"), None).await.is_err());
    }
}

#[tokio::test]
async fn save_writes_file_and_history() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let by_hand = text(&cluster, "by-hand");
    let file = File::new("trust.toml", &by_hand);
    let (writer, other) = (evaluator(&clock, file.path()), evaluator(&clock, file.path()));
    let mut version = new(&text(&cluster, "saved"));
    version.author = Some(PolicyAuthor::new("https://id.example", "alice"));
    version.note = Some("why".to_owned());
    let saved = writer.save(version, writer.version().as_ref()).await.unwrap();
    assert_eq!(saved.number(), 2);
    assert_eq!(fs::read_to_string(file.path()).unwrap(), text(&cluster, "saved"));
    assert_eq!(rule(&writer, &cluster).await, "saved");
    clock.advance(PERIOD);
    assert_eq!(rule(&other, &cluster).await, "saved");
    assert_eq!(other.version(), Some(saved));

    let history = other.policy_store().unwrap().history(None, 10).await.unwrap();
    let authors: Vec<_> = history.iter().map(|change| change.author.is_some()).collect();
    assert_eq!(authors, [true, false], "the text by hand is a version too");
    let first = other.policy_store().unwrap().read(1).await.unwrap().unwrap();
    assert_eq!(first.text, by_hand);
    let entry = beside(file.path(), ".history").join("00000002.json");
    let entry: serde_json::Value = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
    assert_eq!((&entry["author"]["subject"], &entry["note"]), (&"alice".into(), &"why".into()));
    assert_eq!(entry["text"], text(&cluster, "saved"));
}

#[tokio::test]
async fn recorded_versions_never_change() {
    let file = File::reserve("trust.toml");
    let store = FilePolicies::new(file.path());
    let folder = beside(file.path(), ".history");
    let (mut latest, mut bytes) = (None, Vec::new());
    for number in 1..=5 {
        let appended = store.append(new(&format!("# {number}")), latest.as_ref()).await.unwrap();
        let Appended::Done(id) = appended else { panic!("{appended:?}") };
        latest = Some(id);
        let path = folder.join(format!("{number:08}.json"));
        bytes.push((path.clone(), fs::read(&path).unwrap()));
    }
    assert!(bytes.iter().all(|(path, bytes)| fs::read(path).unwrap() == *bytes));

    // An entry that was changed is an error, and so is one that is in the way.
    let (second, text) = (&bytes[1].0, String::from_utf8(bytes[1].1.clone()).unwrap());
    fs::write(second, text.replace("# 2", "# 3")).unwrap();
    let error = store.read(2).await.unwrap_err().to_string();
    assert!(error.contains("is not the version that was recorded"), "{error}");
    let history = store.history(None, 10).await.unwrap();
    let damaged: Vec<_> = history.iter().map(|change| change.is_damaged).collect();
    assert_eq!(damaged, [false, false, false, true, false]);
    assert_eq!(history[3].id.number(), 2);
    assert_eq!(store.latest().await.unwrap(), latest);

    // A process that starts later does not know the latest version if its entry is damaged, but the others.
    let last = fs::read(&bytes[4].0).unwrap();
    fs::write(&bytes[4].0, "[]").unwrap();
    let later = FilePolicies::new(file.path());
    assert!(later.latest().await.is_err());
    let history = later.history(None, 10).await.unwrap();
    let damaged: Vec<_> = history.iter().map(|change| change.is_damaged).collect();
    assert_eq!(damaged, [true, false, false, true, false]);
    fs::write(&bytes[4].0, last).unwrap();

    // The oldest versions may be removed.
    fs::remove_file(&bytes[0].0).unwrap();
    fs::remove_file(second).unwrap();
    assert_eq!(store.history(None, 10).await.unwrap().len(), 3);
    assert_eq!(store.read(1).await.unwrap(), None);
    let other = FilePolicies::new(file.path());
    let appended = other.append(new("# 6"), latest.as_ref()).await.unwrap();
    assert!(matches!(appended, Appended::Done(id) if id.number() == 6));
}

#[tokio::test]
async fn largest_text_is_stored() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let file = File::new("trust.toml", &text(&cluster, "first"));
    let evaluator = evaluator(&clock, file.path());
    let rest = |length: usize| format!("# {}\n", "x".repeat(length));
    let policy = text(&cluster, "large");
    let largest = format!("{policy}{}", rest((1 << 20) - policy.len() - 3));
    assert_eq!(largest.len(), 1 << 20);
    let saved = evaluator.save(new(&largest), evaluator.version().as_ref()).await.unwrap();
    assert_eq!(rule(&evaluator, &cluster).await, "large");
    let too_large = evaluator.save(new(&format!("{largest}\n")), Some(&saved)).await;
    assert!(too_large.is_err());
    assert_eq!(fs::read_to_string(file.path()).unwrap(), largest);
}

#[tokio::test]
async fn locked_file_is_an_error() {
    let file = File::reserve("trust.toml");
    let store = FilePolicies::new(file.path());
    store.append(new("# first"), None).await.unwrap();
    let lock = fs::File::open(beside(file.path(), ".lock")).unwrap();
    lock.lock().unwrap();
    let latest = store.latest().await.unwrap();
    let error = store.append(new("# second"), latest.as_ref()).await.unwrap_err().to_string();
    assert!(error.contains("was locked by another process"), "{error}");
    drop(lock);
    store.append(new("# second"), latest.as_ref()).await.unwrap();
}

#[tokio::test]
async fn json_file_is_not_followed() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let json = |name: &str| {
        let policy = super::fixture::policy(&[text(&cluster, name)]);
        serde_json::to_string(&policy).unwrap()
    };
    let file = File::new("trust.json", &json("first"));
    let evaluator = evaluator(&clock, file.path());
    file.write(&json("second"));
    clock.advance(PERIOD);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    let saved = evaluator.save(new(&text(&cluster, "third")), None).await;
    assert!(matches!(saved, Err(SaveError::ReadOnly)));
    evaluator.reload().unwrap();
    assert_eq!(rule(&evaluator, &cluster).await, "second");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn permissions_are_kept() {
        for (of_file, of_folder) in [(0o600, 0o700), (0o640, 0o750), (0o664, 0o775)] {
            let file = File::new("trust.toml", "# first");
            fs::set_permissions(file.path(), fs::Permissions::from_mode(of_file)).unwrap();
            let store = FilePolicies::new(file.path());
            let latest = store.latest().await.unwrap();
            store.append(new("# second"), latest.as_ref()).await.unwrap();
            assert_eq!(fs::read_to_string(file.path()).unwrap(), "# second");
            assert_eq!(mode(file.path()), of_file);
            let history = beside(file.path(), ".history");
            assert_eq!(mode(&history), of_folder);
            for number in [1, 2] {
                assert_eq!(mode(&history.join(format!("{number:08}.json"))), of_file);
            }
        }
    }

    #[tokio::test]
    async fn read_only_places_name_the_remedy() {
        for read_only in ["trust.toml", ""] {
            let file = File::new("trust.toml", "# first");
            let place = file.path().parent().unwrap().join(read_only);
            let permissions = fs::metadata(&place).unwrap().permissions();
            fs::set_permissions(&place, fs::Permissions::from_mode(0o555)).unwrap();
            if read_only.is_empty() && fs::File::create(place.join("probe")).is_ok() {
                fs::set_permissions(&place, permissions).unwrap();
                continue; // The administrator of the system may write everywhere.
            }
            let evaluator = evaluator(&ManualClock::new(), file.path());
            let saved = evaluator.save(new("# second"), evaluator.version().as_ref()).await;
            let Err(SaveError::Store(error)) = saved else { panic!("{saved:?}") };
            let error = error.to_string();
            assert!(error.contains("change the policy where the file comes from"), "{error}");
            assert_eq!(fs::read_to_string(file.path()).unwrap(), "# first");
            fs::set_permissions(&place, permissions).unwrap();
        }
    }

    #[tokio::test]
    async fn link_is_followed_to_its_file() {
        let file = File::new("real.toml", "# first");
        let folder = file.path().parent().unwrap().join("links");
        fs::create_dir(&folder).unwrap();
        let link = folder.join("trust.toml");
        symlink(file.path(), &link).unwrap();
        let (by_link, direct) = (FilePolicies::new(&link), FilePolicies::new(file.path()));
        let latest = by_link.latest().await.unwrap();
        by_link.append(new("# second"), latest.as_ref()).await.unwrap();
        assert!(link.is_symlink(), "the link is kept");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "# second");
        // Both names share the lock and the history.
        assert_eq!(direct.latest().await.unwrap(), by_link.latest().await.unwrap());
        assert_eq!(direct.history(None, 10).await.unwrap().len(), 2);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);

        file.remove();
        let error = by_link.latest().await.unwrap_err().to_string();
        assert!(error.contains("a link to a file that does not exist"), "{error}");
    }

    #[tokio::test]
    async fn config_map_is_followed() {
        let clock = ManualClock::new();
        let cluster = platform(&clock).await;
        let root = File::new("marker", "");
        let folder = root.path().parent().unwrap();
        let publish = |revision: &str, rule: &str| {
            fs::create_dir(folder.join(revision)).unwrap();
            fs::write(folder.join(revision).join("trust.toml"), text(&cluster, rule)).unwrap();
            symlink(revision, folder.join("..data_tmp")).unwrap();
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        };
        publish("..2026_01", "first");
        let path = folder.join("trust.toml");
        symlink("..data/trust.toml", &path).unwrap();
        let evaluator = evaluator(&clock, &path);
        assert_eq!(rule(&evaluator, &cluster).await, "first");
        publish("..2026_02", "second");
        fs::remove_dir_all(folder.join("..2026_01")).unwrap();
        clock.advance(PERIOD);
        assert_eq!(rule(&evaluator, &cluster).await, "second");
    }

    /// Reads the version in force, which must be whole, and returns the number of versions.
    async fn check_whole(path: &Path) -> usize {
        let store = FilePolicies::new(path);
        let id = store.latest().await.unwrap().unwrap();
        let version = store.read(id.number()).await.unwrap().unwrap();
        assert!(id.is_of(&version.text) && version.change.id == id);
        let history = store.history(None, usize::MAX).await.unwrap();
        let numbers: Vec<_> = history.iter().map(|change| change.id.number()).collect();
        // The writer may have gone on.
        let count = numbers.len() as u64;
        assert!(count >= id.number());
        assert_eq!(numbers, (1..=count).rev().collect::<Vec<_>>());
        numbers.len()
    }

    #[tokio::test]
    async fn killed_writer_leaves_a_whole_version() {
        let file = File::new("trust.toml", "# first");
        let mut before = 1;
        for round in 0..8 {
            let job = format!("loop {}", file.path_text());
            let mut writer = Program::child("policy_file::unix::writer", job).await;
            writer.go().await;
            for _ in 0..=round {
                writer.next_message().await;
                check_whole(file.path()).await;
            }
            writer.kill().await;
            let after = check_whole(file.path()).await;
            assert!(after > before + round, "{after} versions after {before}");
            // No lock is left.
            let store = FilePolicies::new(file.path());
            let latest = store.latest().await.unwrap();
            let appended = store.append(new("# by the test"), latest.as_ref()).await.unwrap();
            assert!(matches!(appended, Appended::Done(_)));
            before = check_whole(file.path()).await;
        }
    }

    #[tokio::test]
    async fn one_of_two_processes_wins() {
        let file = File::new("trust.toml", "# first");
        let store = FilePolicies::new(file.path());
        for _ in 0..8 {
            let latest = store.latest().await.unwrap().unwrap();
            let job = format!("once {} {latest}", file.path_text());
            let child = || Program::child("policy_file::unix::writer", job.clone());
            let (mut one, mut two) = (child().await, child().await);
            one.go().await;
            two.go().await;
            let mut outcomes = [one.next_message().await, two.next_message().await];
            outcomes.sort();
            let winner = store.latest().await.unwrap().unwrap();
            assert_eq!(winner.number(), latest.number() + 1);
            assert_eq!(outcomes, [format!("conflict {winner}"), format!("done {winner}")]);
        }
        check_whole(file.path()).await;
    }

    /// A process that saves versions: once, or until it is killed.
    #[tokio::test]
    #[ignore = "runs in a process of its own"]
    async fn writer() {
        let Some(job) = job() else { return };
        let parts: Vec<&str> = job.split(' ').collect();
        let store = FilePolicies::new(parts[1]);
        ready().await;
        if parts[0] == "once" {
            let expected: PolicyVersionId = parts[2].parse().unwrap();
            let text = format!("# process {}", std::process::id());
            match store.append(new(&text), Some(&expected)).await.unwrap() {
                Appended::Done(id) => println!("child: done {id}"),
                Appended::Conflict(id) => println!("child: conflict {}", id.unwrap()),
            }
            return;
        }
        let mut latest = store.latest().await.unwrap();
        loop {
            let number = latest.as_ref().map_or(0, PolicyVersionId::number);
            let text = format!("# {}\n", number.to_string().repeat(20_000));
            match store.append(new(&text), latest.as_ref()).await.unwrap() {
                Appended::Done(id) => latest = Some(id),
                Appended::Conflict(id) => panic!("{id:?}"),
            }
            println!("child: saved");
        }
    }
}
