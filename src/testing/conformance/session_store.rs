//! The conformance suite for a [`SessionStore`].

use std::fmt::{Debug, Display};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use crate::error::BoxError;
use crate::session::{SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession};
use crate::support::crypto;

/// The number of parallel callers.
const CALLERS: usize = 16;

/// The number of sessions of a user who has many: more than a list has.
const MANY: usize = LISTED + 100;

/// The largest number of sessions in a list.
const LISTED: usize = 1000;

/// The lifetime of the sessions. Longer than the suite takes on a busy machine.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Runs the conformance suite for a [`SessionStore`] (feature `testing`).
///
/// The suite tests that:
/// - a session is loaded as it was created: values of up to 1 MiB byte for byte, times to the millisecond;
/// - ids and labels are compared exactly;
/// - a session is replaced only if it has the expected version; of many parallel callers exactly one succeeds, also if
///   all write the same;
/// - a removed session cannot be loaded, listed or replaced;
/// - labels select each session that has one of them, once, and no other;
/// - sessions are listed with the latest first;
/// - of 1100 sessions of one user the latest 1000 are listed, and all are removed, also by parallel callers;
/// - a cancelled call leaves the old or the new session, whole.
///
/// The store may have other sessions. The suite leaves none of its own. It does *not* test an outage, which must be an
/// `Err`, nor when the store removes expired sessions.
///
/// ```
/// use std::sync::Arc;
/// use scaikey_auth::session::MemorySessions;
/// use scaikey_auth::testing::conformance::session_store;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// session_store(Arc::new(MemorySessions::new())).await;
/// # }
/// ```
///
/// # Panics
/// Panics if the store breaks a rule. The message names the rule.
pub async fn session_store(store: Arc<dyn SessionStore>) {
    let suite = Suite { store };
    suite.sessions_are_stored().await;
    suite.ids_are_exact().await;
    suite.versions_decide().await;
    suite.parallel_replacements().await;
    suite.removed_sessions_stay_removed().await;
    suite.labels_select().await;
    suite.parallel_sessions().await;
    suite.many_sessions().await;
    suite.cancelled_calls().await;
}

struct Suite {
    store: Arc<dyn SessionStore>,
}

impl Suite {
    async fn create(&self, session: &StoredSession, labels: &[SessionLabel]) {
        let created = self.store.create(session.clone(), labels);
        expect(created, (), "a session with a new id is created").await;
    }

    async fn expect_loaded(&self, id: &SessionId, expected: Option<&StoredSession>, rule: &str) {
        expect(self.store.load(id), expected.cloned(), rule).await;
    }

    async fn remove(&self, id: &SessionId) {
        expect(self.store.remove(id), true, "a session that is there is removed").await;
    }

    async fn sessions_are_stored(&self) {
        let large = vec![0xa5; 1 << 20];
        let all: Vec<u8> = (0..=255).chain([0, 0]).collect();
        for value in [Vec::new(), all, b"' \\ \" \n $1 ? %00 {id}".to_vec(), large] {
            let session = new_session(value);
            self.create(&session, &[random_label()]).await;
            let rule = "a session is loaded as it was created";
            self.expect_loaded(&session.id, Some(&session), rule).await;
            let other = StoredSession { value: b"other".to_vec(), ..session.clone() };
            let created = self.store.create(other, &[]).await;
            let rule = "a second session with the same id is an error";
            assert!(created.is_err(), "rule broken: {rule}");
            let rule = "a session that was not created changes nothing";
            self.expect_loaded(&session.id, Some(&session), rule).await;
            self.remove(&session.id).await;
        }
    }

    async fn ids_are_exact(&self) {
        let session = new_session(b"one".to_vec());
        self.create(&session, &[]).await;
        for at in [0, 15, 31] {
            let mut bytes = *session.id.as_bytes();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1;
            }
            let rule = "an unknown session is Ok(None)";
            self.expect_loaded(&SessionId::from_bytes(bytes), None, rule).await;
        }
        self.remove(&session.id).await;
    }

    async fn versions_decide(&self) {
        let first = new_session(b"first".to_vec());
        self.create(&first, &[]).await;
        for version in [0, 2, 7, u64::MAX >> 1] {
            let lost = next(&first, b"lost");
            let rule = "a session with another version is not replaced";
            expect(self.store.replace(lost, version), false, rule).await;
        }
        let rule = "a session that was not replaced is unchanged";
        self.expect_loaded(&first.id, Some(&first), rule).await;
        let mut second = next(&first, &vec![7; 1 << 20]);
        second.renewing_until = Some(second.used_at + Duration::from_millis(1234));
        let rule = "a session with the expected version is replaced";
        expect(self.store.replace(second.clone(), 1), true, rule).await;
        let rule = "a session is loaded as it was replaced";
        self.expect_loaded(&first.id, Some(&second), rule).await;
        let third = StoredSession { renewing_until: None, ..next(&second, b"") };
        let rule = "a session with the expected version is replaced";
        expect(self.store.replace(third.clone(), 2), true, rule).await;
        let rule = "a session is loaded as it was replaced";
        self.expect_loaded(&first.id, Some(&third), rule).await;
        self.remove(&first.id).await;
    }

    async fn parallel_replacements(&self) {
        let mut current = new_session(b"first".to_vec());
        self.create(&current, &[]).await;
        for same in [false, true, false, true] {
            let mut tasks = JoinSet::new();
            for caller in 0..CALLERS {
                let (store, version) = (self.store.clone(), current.version);
                // Processes that take a lease at the same time write the same.
                let value = if same { String::new() } else { format!("caller {caller}") };
                let session = next(&current, value.as_bytes());
                tasks.spawn(async move {
                    let replaced = store.replace(session.clone(), version).await;
                    (session, replaced.map_err(|error| error.to_string()))
                });
            }
            let outcomes = tasks.join_all().await;
            let won: Vec<_> = outcomes.iter().filter(|(_, outcome)| *outcome == Ok(true)).collect();
            let rule = "of parallel replacements exactly one succeeds, and the others do not fail";
            let failed = outcomes.iter().find(|(_, outcome)| outcome.is_err());
            assert!(won.len() == 1 && failed.is_none(), "rule broken: {rule}: {outcomes:?}");
            if let [(winner, _)] = won[..] {
                self.expect_loaded(&current.id, Some(winner), rule).await;
                current = winner.clone();
            }
        }
        self.remove(&current.id).await;
    }

    async fn removed_sessions_stay_removed(&self) {
        let (session, label) = (new_session(b"one".to_vec()), random_label());
        self.create(&session, &[label]).await;
        self.remove(&session.id).await;
        let rule = "a removed session is not removed again";
        expect(self.store.remove(&session.id), false, rule).await;
        let rule = "a removed session is not replaced";
        expect(self.store.replace(next(&session, b"two"), 1), false, rule).await;
        self.expect_loaded(&session.id, None, "a removed session is Ok(None)").await;
        let selector = SessionSelector::any_of([label]);
        expect(self.store.list(&selector), Vec::new(), "a removed session is not listed").await;
        expect(self.store.remove_where(&selector), 0, "a removed session is not selected").await;
    }

    async fn labels_select(&self) {
        let [user, other, sid, unused] = [(); 4].map(|()| random_label());
        let sessions: Vec<_> = (0..4).map(|nth| started_later(nth, b"value")).collect();
        let [first, second, third, theirs] = &sessions[..] else { return };
        for (session, labels) in [
            (first, &[user][..]),
            (second, &[user, sid]),
            (third, &[sid, user]),
            (theirs, &[other]),
        ] {
            self.create(session, labels).await;
        }
        let newest_first = |sessions: &[&StoredSession]| {
            sessions.iter().rev().map(|session| (*session).clone()).collect::<Vec<_>>()
        };
        let cases: [(&[SessionLabel], Option<SessionId>, &[&StoredSession]); 7] = [
            (&[user], None, &[first, second, third]),
            (&[user], Some(second.id), &[first, third]),
            (&[user], Some(theirs.id), &[first, second, third]),
            (&[sid, user], None, &[first, second, third]),
            (&[unused, sid], None, &[second, third]),
            (&[unused], None, &[]),
            (&[], None, &[]),
        ];
        for (labels, except, expected) in &cases {
            let rule = "labels select the sessions that have one of them, the latest first";
            let selector = selector(labels, *except);
            expect(self.store.list(&selector), newest_first(expected), rule).await;
        }
        let rule = "sessions are removed by their labels, each counted once";
        let others = selector(&[user, sid], Some(second.id));
        expect(self.store.remove_where(&others), 2, rule).await;
        for (session, is_there) in [(first, false), (second, true), (third, false), (theirs, true)]
        {
            let rule = "removing sessions by labels removes no others";
            self.expect_loaded(&session.id, is_there.then_some(session), rule).await;
        }
        let replaced = next(second, b"new");
        expect(self.store.replace(replaced.clone(), 1), true, "the rest can be replaced").await;
        let rule = "a replaced session keeps its labels";
        expect(self.store.list(&selector(&[sid], None)), vec![replaced], rule).await;
        expect(self.store.remove_where(&selector(&[sid], None)), 1, rule).await;
        expect(self.store.remove_where(&selector(&[], None)), 0, "no labels select nothing").await;
        self.remove(&theirs.id).await;
    }

    async fn parallel_sessions(&self) {
        let label = random_label();
        let mut tasks = JoinSet::new();
        for nth in 0..CALLERS {
            let (store, session) = (self.store.clone(), started_later(nth as u64, b"value"));
            tasks.spawn(async move { store.create(session, &[label]).await });
        }
        for created in tasks.join_all().await {
            created.unwrap_or_else(|error| failed("parallel sessions are created", &error));
        }
        let listed = self.store.list(&selector(&[label], None)).await;
        let rule = "parallel sessions with the same label are all listed";
        let listed = listed.unwrap_or_else(|error| failed(rule, &error));
        assert_eq!(listed.len(), CALLERS, "rule broken: {rule}");
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (store, selector) = (self.store.clone(), selector(&[label], None));
            tasks.spawn(async move { store.remove_where(&selector).await });
        }
        let rule = "of parallel removals exactly one counts a session";
        let counts = tasks.join_all().await.into_iter();
        let removed: u64 = counts.map(|it| it.unwrap_or_else(|error| failed(rule, &error))).sum();
        assert_eq!(removed, CALLERS as u64, "rule broken: {rule}");
    }

    async fn many_sessions(&self) {
        let [user, sid] = [(); 2].map(|()| random_label());
        let sessions: Vec<_> = (0..MANY as u64).map(started_and_ends_later).collect();
        self.create_together(&sessions, user, sid).await;
        let rule = "of many sessions the latest 1000 are listed";
        let listed = self.store.list(&selector(&[user], None)).await;
        let listed = listed.unwrap_or_else(|error| failed(rule, &error));
        let latest = sessions.iter().rev().take(LISTED);
        assert!(listed.iter().eq(latest), "rule broken: {rule}: {} are listed", listed.len());
        let [oldest, ..] = &sessions[..] else { return };
        let mut tasks = JoinSet::new();
        for labels in [&[user][..], &[sid], &[user, sid], &[sid, user]] {
            let (store, selector) = (self.store.clone(), selector(labels, Some(oldest.id)));
            tasks.spawn(async move { store.remove_where(&selector).await });
        }
        let rule = "of parallel removals of many sessions exactly one counts each";
        let counts = tasks.join_all().await.into_iter();
        let removed: u64 = counts.map(|it| it.unwrap_or_else(|error| failed(rule, &error))).sum();
        assert_eq!(removed, MANY as u64 - 1, "rule broken: {rule}");
        let rule = "removing many sessions by labels leaves the one that is left out";
        expect(self.store.list(&selector(&[sid], None)), vec![oldest.clone()], rule).await;
        self.remove(&oldest.id).await;
    }

    /// Creates sessions in parallel. Each has the label `user`, and every second one `sid`, too.
    async fn create_together(
        &self,
        sessions: &[StoredSession],
        user: SessionLabel,
        sid: SessionLabel,
    ) {
        let mut tasks = JoinSet::new();
        for part in sessions.chunks(2 * sessions.len().div_ceil(2 * CALLERS)) {
            let (store, part) = (self.store.clone(), part.to_vec());
            tasks.spawn(async move {
                for (nth, session) in part.into_iter().enumerate() {
                    let labels = [user, sid];
                    let labels = if nth % 2 == 0 { &labels[..] } else { &[user] };
                    store.create(session, labels).await?;
                }
                Ok::<_, BoxError>(())
            });
        }
        for created in tasks.join_all().await {
            created.unwrap_or_else(|error| failed("many sessions are created", &error));
        }
    }

    async fn cancelled_calls(&self) {
        for patience in [0, 0, 1, 2, 5] {
            let (first, label) = (new_session(b"first".to_vec()), random_label());
            self.create(&first, &[label]).await;
            let second = next(&first, &vec![9; 100_000]);
            let replace = self.store.replace(second.clone(), 1);
            let _ = tokio::time::timeout(Duration::from_millis(patience), replace).await;
            // The store may still be at work. The next replacement finds out which version it has.
            let rule = "a cancelled replacement leaves the old or the new session";
            let third = next(&first, b"third");
            let replaced = self.store.replace(third.clone(), 1).await;
            let replaced = replaced.unwrap_or_else(|error| failed(rule, &error));
            let expected = if replaced { &third } else { &second };
            self.expect_loaded(&first.id, Some(expected), rule).await;
            let rule = "a cancelled call breaks no later one";
            expect(self.store.remove_where(&selector(&[label], None)), 1, rule).await;
        }
    }
}

/// Returns a session with a random id, which starts at a fixed time.
fn new_session(value: Vec<u8>) -> StoredSession {
    let started_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
    StoredSession::new(SessionId::from_bytes(random()), value, started_at, started_at + LIFETIME)
}

fn started_later(seconds: u64, value: &[u8]) -> StoredSession {
    let session = new_session(value.to_vec());
    let later = Duration::from_secs(seconds);
    StoredSession::new(session.id, session.value, session.started_at + later, session.ends_at)
}

/// Returns a session that starts so much later than others, and lasts as long as they do.
fn started_and_ends_later(seconds: u64) -> StoredSession {
    let session = new_session(b"value".to_vec());
    let later = Duration::from_secs(seconds);
    let (started_at, ends_at) = (session.started_at + later, session.ends_at + later);
    StoredSession::new(session.id, session.value, started_at, ends_at)
}

/// Returns the version after `session`.
fn next(session: &StoredSession, value: &[u8]) -> StoredSession {
    let later = Duration::from_millis(7);
    StoredSession {
        version: session.version + 1,
        value: value.to_vec(),
        used_at: session.used_at + later,
        expires_at: session.used_at + later + LIFETIME / 2,
        ..session.clone()
    }
}

fn selector(labels: &[SessionLabel], except: Option<SessionId>) -> SessionSelector {
    let selector = SessionSelector::any_of(labels.iter().copied());
    match except {
        Some(id) => selector.except(id),
        None => selector,
    }
}

fn random_label() -> SessionLabel {
    SessionLabel::from_bytes(random())
}

fn random() -> [u8; 32] {
    crypto::random().unwrap_or_else(|error| failed("the suite needs random bytes", &error))
}

async fn expect<T: PartialEq + Debug>(
    outcome: impl Future<Output = Result<T, BoxError>>,
    expected: T,
    rule: &str,
) {
    let outcome = outcome.await.unwrap_or_else(|error| failed(rule, &error));
    assert_eq!(outcome, expected, "rule broken: {rule}");
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
fn failed(rule: &str, error: &dyn Display) -> ! {
    panic!("rule broken: {rule}: {error}")
}
