//! The conformance suite for a [`PolicyStore`].

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use crate::error::BoxError;
use crate::trust::{
    Appended, NewPolicyVersion, PolicyAuthor, PolicyChange, PolicyStore, PolicyVersion,
    PolicyVersionId,
};

/// The number of parallel callers.
const CALLERS: usize = 16;

/// The number of turns of parallel callers.
const TURNS: usize = 4;

/// Runs the conformance suite for a [`PolicyStore`] (feature `testing`). The store must be empty.
///
/// The suite tests that:
/// - versions are numbered from 1, and the latest one is in force;
/// - texts of up to 1 MiB and the data of a change are stored byte for byte, times to the second;
/// - a version is appended only if the version in force is the expected one, compared by number *and* digest;
///   otherwise nothing changes, and the conflict names the version in force;
/// - of many parallel appends exactly one succeeds, and the others are conflicts;
/// - readers never see a part of a version, also while others write;
/// - a cancelled append leaves the old or the new version in force, whole;
/// - the history has the latest version first, and its pages miss none;
/// - no version ever changes.
///
/// It leaves up to 40 versions in the store, which are not policies. It does *not* test an outage, which must be an
/// `Err` without a long wait; whether a crash during an append does harm; or whether versions survive a restart.
///
/// ```
/// use std::sync::Arc;
/// use scaikey_auth::testing::conformance::policy_store;
/// use scaikey_auth::trust::MemoryPolicies;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// policy_store(Arc::new(MemoryPolicies::new())).await;
/// # }
/// ```
///
/// # Panics
/// Panics if the store breaks a rule. The message names the rule.
pub async fn policy_store(store: Arc<dyn PolicyStore>) {
    let mut suite = Suite { store, appended: Vec::new() };
    suite.empty_store().await;
    suite.first_versions().await;
    suite.conflicts().await;
    suite.texts().await;
    for _ in 0..TURNS {
        suite.parallel_appends().await;
    }
    suite.readers_beside_a_writer().await;
    suite.cancelled_appends().await;
    suite.pages().await;
    suite.whole_history().await;
}

/// A store to test, and the versions that it has accepted.
struct Suite {
    store: Arc<dyn PolicyStore>,
    appended: Vec<PolicyVersion>,
}

impl Suite {
    fn latest(&self) -> Option<PolicyVersionId> {
        self.appended.last().map(|version| version.change.id.clone())
    }

    fn next_number(&self) -> u64 {
        self.latest().map_or(1, |id| id.number() + 1)
    }

    /// Appends a version, which must succeed.
    async fn append(&mut self, version: NewPolicyVersion) {
        let expected = self.latest();
        let stored = PolicyVersion::new(self.next_number(), version.clone());
        let appended = self.store.append(version, expected.as_ref());
        let done = Appended::Done(stored.change.id.clone());
        expect(appended, done, "an append to the expected version gets the next number").await;
        self.appended.push(stored);
        self.check_latest().await;
    }

    /// Checks that the version in force is the one that was appended last.
    async fn check_latest(&self) {
        let rule = "the version in force is the one that was appended last";
        expect(self.store.latest(), self.latest(), rule).await;
        if let Some(version) = self.appended.last() {
            let number = version.change.id.number();
            let rule = "a version is stored byte for byte, with author, note and time";
            expect(self.store.read(number), Some(version.clone()), rule).await;
        }
    }

    async fn empty_store(&self) {
        expect(self.store.latest(), None, "an empty store has no version in force").await;
        for number in [0, 1, u64::MAX] {
            expect(self.store.read(number), None, "an empty store has no versions").await;
        }
        let rule = "an empty store has no history";
        expect(self.store.history(None, 10), Vec::new(), rule).await;
        let unknown = PolicyVersionId::new(1, "");
        let appended = self.store.append(new("x"), Some(&unknown));
        let rule = "an append to an empty store that expects a version is a conflict";
        expect(appended, Appended::Conflict(None), rule).await;
        expect(self.store.latest(), None, "a conflict changes nothing").await;
    }

    async fn first_versions(&mut self) {
        self.append(new("first = 1\n")).await;
        let mut full = new("second = 2\r\n# \u{1f511} \"quoted\" '' \\ %00 {id} $1 ?\n\t ");
        let mut author = PolicyAuthor::new("https://id.example/\u{e9}", "o'neill\u{1f511}");
        author.tenant = Some("tnt_acme".to_owned());
        author.name = Some("O\u{2019}Neill <img src=x>".to_owned());
        full.author = Some(author);
        full.note = Some("line one\nline \"two\"; DROP TABLE x --".to_owned());
        self.append(full).await;
        let mut restored = new("first = 1\n");
        restored.author = Some(PolicyAuthor::new("https://id.example", "alice"));
        restored.note = Some(String::new());
        restored.restores = Some(1);
        self.append(restored).await;
        self.append(new("first = 1\n")).await;
        for number in [0, self.next_number(), u64::MAX] {
            let rule = "a number that no version has is Ok(None)";
            expect(self.store.read(number), None, rule).await;
        }
    }

    async fn conflicts(&self) {
        let latest = self.latest();
        let next = self.next_number();
        let unexpected = [
            None,
            self.appended.first().map(|version| version.change.id.clone()),
            Some(PolicyVersionId::new(next - 1, "another text")),
            Some(PolicyVersionId::new(next, "first = 1\n")),
            Some(PolicyVersionId::new(u64::MAX, "first = 1\n")),
        ];
        for expected in unexpected {
            let appended = self.store.append(new("lost = true\n"), expected.as_ref());
            let conflict = Appended::Conflict(latest.clone());
            let rule = "an append that expects another version is a conflict";
            expect(appended, conflict, &format!("{rule}: {expected:?}")).await;
        }
        self.check_latest().await;
        expect(self.store.read(next), None, "a conflict changes nothing").await;
    }

    async fn texts(&mut self) {
        let longest = format!("# {}\u{e9}", "x".repeat((1 << 20) - 4));
        for text in ["", " ", "\r\n", "\u{feff}# with a mark\n", &longest, "# short again\n"] {
            self.append(new(text)).await;
        }
    }

    async fn parallel_appends(&mut self) {
        let (expected, number) = (self.latest(), self.next_number());
        let mut tasks = JoinSet::new();
        for caller in 0..CALLERS {
            let (store, expected) = (self.store.clone(), expected.clone());
            let version = new(&format!("caller = {caller}\n"));
            tasks.spawn(async move {
                let appended = store.append(version.clone(), expected.as_ref()).await;
                (version, appended.map_err(|error| error.to_string()))
            });
        }
        let outcomes = tasks.join_all().await;
        let done: Vec<_> = outcomes
            .iter()
            .filter(|(_, appended)| matches!(appended, Ok(Appended::Done(_))))
            .collect();
        let rule = "of parallel appends exactly one succeeds";
        assert_eq!(done.len(), 1, "rule broken: {rule}: {outcomes:?}");
        let Some((winner, appended)) = done.first() else { return };
        let winner = PolicyVersion::new(number, winner.clone());
        let id = winner.change.id.clone();
        assert_eq!(*appended, Ok(Appended::Done(id.clone())), "rule broken: {rule}");
        for (_, appended) in &outcomes {
            let rule = "the other parallel appends are conflicts that name the winner";
            let names_winner = *appended == Ok(Appended::Conflict(Some(id.clone())));
            assert!(
                names_winner || *appended == Ok(Appended::Done(id.clone())),
                "rule broken: {rule}: {appended:?}"
            );
        }
        self.appended.push(winner);
        self.check_latest().await;
    }

    /// Reads while another task appends long texts.
    async fn readers_beside_a_writer(&mut self) {
        let done = Arc::new(AtomicBool::new(false));
        let reader = tokio::spawn({
            let (store, done) = (self.store.clone(), done.clone());
            async move {
                while !done.load(Ordering::Relaxed) {
                    check_whole(&*store).await;
                    tokio::task::yield_now().await;
                }
            }
        });
        for line in ["a", "b", "c", "d"] {
            self.append(new(&format!("# {}\n", line.repeat(200_000)))).await;
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
        succeeded(reader.await, "readers never see a part of a version");
    }

    async fn cancelled_appends(&mut self) {
        for patience in [0, 0, 1, 2, 5, 10] {
            let (number, expected) = (self.next_number(), self.latest());
            let version = new(&format!("cancelled = {number}\n"));
            let append = self.store.append(version.clone(), expected.as_ref());
            let _ = tokio::time::timeout(Duration::from_millis(patience), append).await;
            // The store may still be at work. The next append finds out which version is in force.
            let after = new(&format!("after = {number}\n"));
            let rule = "a cancelled append leaves the old or the new version in force";
            match succeeded(self.store.append(after.clone(), expected.as_ref()).await, rule) {
                Appended::Done(_) => self.appended.push(PolicyVersion::new(number, after)),
                Appended::Conflict(_) => self.appended.push(PolicyVersion::new(number, version)),
            }
            self.check_latest().await;
        }
    }

    async fn pages(&self) {
        let newest_first: Vec<PolicyChange> =
            self.appended.iter().rev().map(|version| version.change.clone()).collect();
        for limit in [1, 2, 7, newest_first.len()] {
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let page = self.store.history(before, limit).await;
                let page = succeeded(page, "the history is readable");
                let rule = "a page of the history has at most `limit` versions";
                assert!(page.len() <= limit, "rule broken: {rule}");
                let Some(oldest) = page.last() else { break };
                before = Some(oldest.id.number());
                seen.extend(page);
                let rule = "the pages of the history end";
                assert!(seen.len() <= newest_first.len(), "rule broken: {rule}");
            }
            let rule = "the pages of the history miss no version, the latest first";
            assert_eq!(seen, newest_first, "rule broken: {rule}");
        }
        for before in [0, 1] {
            let rule = "there is no version before the first";
            expect(self.store.history(Some(before), 10), Vec::new(), rule).await;
        }
        let rule = "a page without entries is empty";
        expect(self.store.history(None, 0), Vec::new(), rule).await;
        let rule = "the largest limit and number are allowed";
        expect(self.store.history(Some(u64::MAX), usize::MAX), newest_first, rule).await;
    }

    async fn whole_history(&self) {
        for version in &self.appended {
            let number = version.change.id.number();
            let rule = "a version never changes";
            expect(self.store.read(number), Some(version.clone()), rule).await;
        }
        expect(self.store.read(self.next_number()), None, "no version comes from nowhere").await;
    }
}

/// Checks that the version in force can be read, whole.
async fn check_whole(store: &dyn PolicyStore) {
    let rule = "the version in force can be read while others write";
    let Some(id) = succeeded(store.latest().await, rule) else { return };
    let version = succeeded(store.read(id.number()).await, rule);
    let is_whole =
        version.is_some_and(|version| version.change.id == id && id.is_of(&version.text));
    assert!(is_whole, "rule broken: {rule}: {id}");
}

/// Returns a version of a fixed time, to the second.
fn new(text: &str) -> NewPolicyVersion {
    NewPolicyVersion::new(text, SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000))
}

async fn expect<T: PartialEq + Debug>(
    outcome: impl Future<Output = Result<T, BoxError>>,
    expected: T,
    rule: &str,
) {
    let outcome = succeeded(outcome.await, rule);
    // Texts may be long: the message has their beginnings.
    let shown = |value: &T| format!("{value:?}").chars().take(500).collect::<String>();
    let (found, wanted) = (shown(&outcome), shown(&expected));
    assert!(outcome == expected, "rule broken: {rule}: found {found}, expected {wanted}");
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
fn succeeded<T, E: std::fmt::Display>(outcome: Result<T, E>, rule: &str) -> T {
    outcome.unwrap_or_else(|error| panic!("rule broken: {rule}: {error}"))
}
