//! The conformance suite for a [`RevocationLog`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use crate::revocation::{LogCursor, LogEntry, LogPage, Revocation, RevocationLog};

/// The number of parallel writers.
const WRITERS: usize = 16;

/// The number of entries that each writes.
const ENTRIES: usize = 8;

/// The number of entries that the suite reads at a time.
const PAGE: usize = 7;

/// Runs the conformance suite for a [`RevocationLog`] (feature `testing`). `now` is the current time of the log's
/// clock.
///
/// The suite tests that:
/// - a reader finds an entry, unchanged, when `append` has returned;
/// - entries have an order, which is the same for each reader, and cursors that differ;
/// - a page has the entries after its cursor, as many as there are up to the limit;
/// - a reader that follows the log while others write misses no entry;
/// - nothing is reset meanwhile.
///
/// The log may have entries before. The suite leaves some 150, which end after one hour. It does *not* test an outage,
/// which must be an `Err`, nor a lost log.
///
/// ```
/// use std::sync::Arc;
/// use std::time::SystemTime;
/// use scaikey_auth::revocation::MemoryRevocationLog;
/// use scaikey_auth::testing::conformance::revocation_log;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// revocation_log(Arc::new(MemoryRevocationLog::default()), SystemTime::now()).await;
/// # }
/// ```
///
/// # Panics
/// Panics if the log breaks a rule. The message names the rule.
pub async fn revocation_log(log: Arc<dyn RevocationLog>, now: SystemTime) {
    let mut reader = Reader { log: log.clone(), cursor: None };
    reader.read_all().await;
    appended_entries_are_found(&log, &mut reader, now).await;
    pages_follow_their_cursor(&log, &reader, now).await;
    reader.read_all().await;
    no_entry_is_missed(&log, &mut reader, now).await;
}

/// A reader that follows a log.
struct Reader {
    log: Arc<dyn RevocationLog>,
    cursor: Option<LogCursor>,
}

impl Reader {
    async fn page(&self, limit: usize) -> LogPage {
        let page = self.log.read(self.cursor.as_ref(), limit).await;
        #[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
        let page = page.unwrap_or_else(|error| panic!("the log cannot be read: {error}"));
        assert!(!page.was_reset, "rule broken: nothing is reset while the log works");
        assert!(
            page.entries.len() <= limit,
            "rule broken: a page has no more than `limit` entries"
        );
        page
    }

    /// Reads all entries that follow.
    async fn read_all(&mut self) -> Vec<LogEntry> {
        let mut found = Vec::new();
        loop {
            let page = self.page(PAGE).await;
            let is_last = page.entries.len() < PAGE;
            for (cursor, entry) in page.entries {
                self.cursor = Some(cursor);
                found.extend(entry.ok());
            }
            if is_last {
                return found;
            }
        }
    }
}

async fn appended_entries_are_found(
    log: &Arc<dyn RevocationLog>,
    reader: &mut Reader,
    now: SystemTime,
) {
    for entry in entries(3, now) {
        append(log, &entry).await;
        let found = reader.read_all().await;
        assert_eq!(found, [entry], "rule broken: a reader finds an entry, unchanged, once");
        assert_eq!(reader.read_all().await, [], "rule broken: a reader finds an entry once");
    }
    let other: Vec<_> = Reader { log: log.clone(), cursor: None }.read_all().await;
    assert!(other.len() >= 3, "rule broken: a reader without a cursor begins with the first entry");
}

async fn pages_follow_their_cursor(log: &Arc<dyn RevocationLog>, reader: &Reader, now: SystemTime) {
    let written = entries(2 * PAGE, now);
    let mut cursors = Vec::new();
    for entry in &written {
        cursors.push(append(log, entry).await);
    }
    for limit in [1, PAGE, 2 * PAGE, 1000] {
        let page = reader.page(limit).await;
        let expected = written.iter().zip(&cursors).take(limit);
        let is_equal = page.entries.iter().map(|(at, entry)| (entry.as_ref().ok(), at));
        assert!(
            is_equal.eq(expected.map(|(entry, at)| (Some(entry), at))),
            "rule broken: a page has the entries after its cursor, in the order of the log, as many as there are \
             up to the limit"
        );
    }
    let distinct: std::collections::HashSet<_> = cursors.iter().collect();
    assert_eq!(distinct.len(), cursors.len(), "rule broken: cursors differ");
}

async fn no_entry_is_missed(log: &Arc<dyn RevocationLog>, reader: &mut Reader, now: SystemTime) {
    let mut tasks = JoinSet::new();
    let mut written = Vec::new();
    for _ in 0..WRITERS {
        let (log, entries) = (log.clone(), entries(ENTRIES, now));
        written.extend(entries.iter().map(LogEntry::to_bytes));
        tasks.spawn(async move {
            for entry in entries {
                append(&log, &entry).await;
            }
        });
    }
    let mut found = Vec::new();
    while !tasks.is_empty() {
        found.extend(reader.read_all().await);
        while tasks.try_join_next().is_some() {}
        tokio::task::yield_now().await;
    }
    found.extend(reader.read_all().await);
    let mut found: Vec<_> = found.iter().map(LogEntry::to_bytes).collect();
    found.sort();
    written.sort();
    assert_eq!(
        found.len(),
        written.len(),
        "rule broken: a reader that follows the log while others write misses no entry, and finds none twice"
    );
    assert!(found == written, "rule broken: entries are stored unchanged");
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
async fn append(log: &Arc<dyn RevocationLog>, entry: &LogEntry) -> LogCursor {
    log.append(entry).await.unwrap_or_else(|error| panic!("the log cannot be written: {error}"))
}

/// Returns entries that are unique across processes, because the log may be persistent.
fn entries(count: usize, now: SystemTime) -> Vec<LogEntry> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let entry = |_| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{}-{number} \u{1F600}\"", std::process::id(), started.as_nanos());
        let revocation = Revocation::session("https://conformance.example", id).of_subject("alice");
        let until = now + Duration::from_secs(3600);
        let entry = LogEntry::of_event(revocation.issued_before(now).until(until));
        // With times in milliseconds, as they are stored.
        LogEntry::from_bytes(&entry.to_bytes()).unwrap_or(entry)
    };
    (0..count).map(entry).collect()
}
