//! [`MemoryRevocationLog`]: a log in this process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::log::{LogCursor, LogEntry, LogPage, RevocationLog};
use crate::clock::{Clock, SystemClock};
use crate::error::BoxError;

/// The time for which an entry is stored after its end.
const MARGIN: Duration = Duration::from_secs(60);

/// A [`RevocationLog`] in this process, for tests. Clones share the entries.
///
/// Two [`Auth`](crate::Auth)s of one process share revocations without a log, as clones of
/// [`Revocations`](super::Revocations).
///
/// ```
/// use scaikey_auth::revocation::{MemoryRevocationLog, Revocation, Revocations};
/// use scaikey_auth::testing::identity;
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), scaikey_auth::error::BoxError> {
/// let log = MemoryRevocationLog::default();
/// let [one, other] = [(); 2].map(|()| Revocations::builder().log(log.clone()).build());
/// one.revoke(Revocation::subject("https://id.example", "alice")).await?;
/// other.ready().await?;
/// assert!(other.is_revoked(&identity(json!({ "iss": "https://id.example", "sub": "alice" }))));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryRevocationLog {
    clock: Arc<dyn Clock>,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The number of the log: the next one after each loss.
    log: u64,
    /// The number of the last entry.
    last: u64,
    stored: Vec<(u64, SystemTime, Vec<u8>)>,
}

impl Entries {
    fn cursor(&self, number: u64) -> LogCursor {
        LogCursor::new(format!("{}:{number}", self.log))
    }

    /// Returns the number of the entry at a cursor of this log.
    fn number(&self, cursor: &LogCursor) -> Option<u64> {
        let (log, number) = cursor.as_str().split_once(':')?;
        let is_here = log.parse() == Ok(self.log);
        number.parse().ok().filter(|number| is_here && *number <= self.last)
    }
}

impl MemoryRevocationLog {
    /// Creates a log without entries, which removes those that have ended by this clock. The
    /// [default](Self::default) uses the system clock.
    pub fn with_clock(clock: impl Clock) -> Self {
        Self { clock: Arc::new(clock), entries: Arc::default() }
    }

    /// Loses all entries, as a server does that restarts without persistence.
    pub fn clear(&self) {
        let mut entries = self.lock();
        *entries = Entries { log: entries.log + 1, ..Entries::default() };
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.lock().stored.len()
    }

    /// Returns whether the log has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Poisoning is harmless: no change can stop half-way, unless the process ends.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryRevocationLog {
    fn default() -> Self {
        Self::with_clock(SystemClock::default())
    }
}

#[async_trait]
impl RevocationLog for MemoryRevocationLog {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        let now = self.clock.now();
        let mut entries = self.lock();
        let ended = now.checked_sub(MARGIN);
        entries.stored.retain(|(_, until, _)| ended.is_none_or(|ended| *until > ended));
        entries.last += 1;
        let number = entries.last;
        entries.stored.push((number, entry.until(), entry.to_bytes()));
        Ok(entries.cursor(number))
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        let entries = self.lock();
        let number = after.map(|after| entries.number(after));
        let was_reset = number == Some(None);
        let after = number.flatten().unwrap_or_default();
        let later = entries.stored.iter().filter(|(number, ..)| *number > after).take(limit);
        let read = |(number, _, bytes): &(u64, SystemTime, Vec<u8>)| {
            (entries.cursor(*number), LogEntry::from_bytes(bytes))
        };
        Ok(LogPage { entries: later.map(read).collect(), was_reset })
    }
}
