//! [`Following`]: a process follows the log of revocations.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::index::{Entry, MANY, Origin, TIMELESS, TOGETHER};
use super::key::Key;
use super::log::{Content, InvalidLogEntry, LogCursor, LogEntry, LogPage, RevocationLog};
use super::{Inner, RevokeError, Source};
use crate::clock::{jittered, random_fraction, sleep, with_timeout};
use crate::error::BoxError;
use crate::support::off_thread::off_thread;
use crate::support::telemetry::{self, Causes, Outage};

/// The flag for requests that wait until the log is read.
pub(super) const MUST_WAIT: u32 = 1 << 16;

/// The flag for a log that no task follows.
pub(super) const UNFOLLOWED: u32 = 1 << 17;

/// The flag for requests that are refused if the log has not been read for too long.
pub(super) const IS_TIMED: u32 = 1 << 18;

/// The longest time that requests wait until the log is read for the first time.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The limit of one call to the log, in real time. Longer than the log waits for its server.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The number of entries that one call reads.
const PAGE: usize = 500;

/// The number of entries of the index that one entry of the log has, if it lacked them.
const REFILL: usize = 500;

/// The log, and how far it was read.
pub(super) struct Following {
    log: Arc<dyn RevocationLog>,
    every: Duration,
    refuse_after: Option<Duration>,
    cursor: Mutex<Option<LogCursor>>,
    phase: watch::Sender<Phase>,
    /// The monotonic time up to which the log was read, in nanoseconds. Before that, the time of creation.
    read_at: AtomicU64,
    /// The monotonic time of the last answer of the log, in the same form. Later than `read_at` while a long history
    /// is read.
    answered_at: AtomicU64,
    was_read: AtomicBool,
    /// The entries that were appended, until they are read.
    appended: Mutex<Vec<Key>>,
    /// What was read has to last longer.
    must_read_again: AtomicBool,
    /// The log may lack entries of this process.
    must_refill: AtomicBool,
    unreadable: AtomicU64,
    outage: Outage,
    append_outage: Outage,
    unreadable_outage: Outage,
}

/// The outcome of the last attempt to read the log.
#[derive(Debug, Clone)]
enum Phase {
    Unread,
    Read,
    Failed(Arc<str>),
}

impl Following {
    pub(super) fn new(
        log: Arc<dyn RevocationLog>,
        every: Duration,
        refuse_after: Option<Duration>,
        now: Duration,
    ) -> Self {
        Self {
            log,
            every,
            refuse_after,
            cursor: Mutex::default(),
            phase: watch::Sender::new(Phase::Unread),
            read_at: AtomicU64::new(nanoseconds(now)),
            answered_at: AtomicU64::new(nanoseconds(now)),
            was_read: AtomicBool::new(false),
            appended: Mutex::default(),
            must_read_again: AtomicBool::new(false),
            must_refill: AtomicBool::new(false),
            unreadable: AtomicU64::new(0),
            outage: Outage::default(),
            append_outage: Outage::default(),
            unreadable_outage: Outage::default(),
        }
    }

    /// Returns the flags at the beginning.
    pub(super) fn flags(&self) -> u32 {
        let timed = if self.refuse_after.is_some() { IS_TIMED } else { 0 };
        MUST_WAIT | UNFOLLOWED | timed
    }

    pub(super) fn is_away(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Read)
    }

    /// Returns the time since the log was read to its end.
    pub(super) fn lag(&self, now: Duration) -> Duration {
        since(&self.read_at, now)
    }

    /// Returns the number of entries that could not be read.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Returns the cause, if requests are refused because the log has not answered for too long, or its history was
    /// never read to the end.
    fn refusal(&self, now: Duration) -> Option<BoxError> {
        let limit = self.refuse_after?;
        if self.was_read.load(Ordering::Relaxed) && since(&self.answered_at, now) <= limit {
            return None;
        }
        Some(match &*self.phase.borrow() {
            Phase::Failed(error) => format!("the revocation log cannot be read: {error}").into(),
            Phase::Unread | Phase::Read => "the revocation log has not been read".into(),
        })
    }

    /// Makes the follower read the log from its beginning.
    pub(super) fn read_again(&self) {
        self.must_read_again.store(true, Ordering::Release);
    }

    fn cursor(&self) -> Option<LogCursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_cursor(&self, cursor: Option<LogCursor>) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
    }

    async fn append(&self, entry: &LogEntry, entries: &[Entry]) -> Result<(), BoxError> {
        let appended = with_timeout(CALL_LIMIT, self.log.append(entry)).await;
        appended.unwrap_or_else(|| Err("did not answer within 10 s".into()))?;
        self.appended().extend(entries.iter().map(|entry| entry.key));
        Ok(())
    }

    fn appended(&self) -> MutexGuard<'_, Vec<Key>> {
        self.appended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_page(&self) -> Result<LogPage, BoxError> {
        let after = self.cursor();
        let page = with_timeout(CALL_LIMIT, self.log.read(after.as_ref(), PAGE)).await;
        page.unwrap_or_else(|| Err("did not answer within 10 s".into()))
    }
}

impl Inner {
    /// Starts the task that follows the log, if there is a log without one.
    ///
    /// # Errors
    /// There is no tokio runtime.
    pub(super) fn follow(self: &Arc<Self>) -> Result<(), BoxError> {
        if self.index.state() & UNFOLLOWED == 0 || !self.index.clear_flag(UNFOLLOWED) {
            return Ok(());
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.index.set_flag(UNFOLLOWED);
            return Err("following the revocation log needs a tokio runtime".into());
        };
        runtime.spawn(Follower(Arc::downgrade(self)).run());
        Ok(())
    }

    /// Returns whether a request can be judged now. Otherwise it has to [wait](Self::until_read).
    ///
    /// # Errors
    /// The log has not been read for too long.
    pub(super) fn may_judge(self: &Arc<Self>) -> Result<bool, BoxError> {
        let Some(following) = &self.following else { return Ok(true) };
        self.follow()?;
        let state = self.index.state();
        if state & MUST_WAIT != 0 {
            return Ok(false);
        }
        let refusal =
            (state & IS_TIMED != 0).then(|| following.refusal(self.clock.elapsed())).flatten();
        refusal.map_or(Ok(true), Err)
    }

    /// Waits until the log is read for the first time or cannot be read, but for 2 s at most. Later requests do not
    /// wait.
    pub(super) async fn until_read(&self) {
        let Some(following) = &self.following else { return };
        let mut phase = following.phase.subscribe();
        let read = phase.wait_for(|phase| !matches!(phase, Phase::Unread));
        if with_timeout(MAX_WAIT, read).await.is_none() && self.index.clear_flag(MUST_WAIT) {
            let error = "has not been read within 2 s";
            let is_new = following.outage.record_failure(&error, self.clock.elapsed());
            telemetry::revocation_log_failed(&error, is_new);
        }
    }

    /// Waits until the log is read.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), BoxError> {
        let Some(following) = &self.following else { return Ok(()) };
        self.follow()?;
        let mut phase = following.phase.subscribe();
        let phase = phase.wait_for(|phase| !matches!(phase, Phase::Unread)).await?.clone();
        match phase {
            Phase::Failed(error) => {
                Err(format!("the revocation log cannot be read: {error}").into())
            }
            Phase::Read | Phase::Unread => Ok(()),
        }
    }

    /// Appends a revocation that is in force here, even if the caller is dropped.
    pub(super) async fn share(
        self: &Arc<Self>,
        entry: LogEntry,
        entries: Vec<Entry>,
    ) -> Result<(), RevokeError> {
        // Without a runtime, the log is not followed. The entry is appended nevertheless.
        let _ = self.follow();
        let inner = self.clone();
        let append = async move { inner.append(&entry, &entries).await };
        let appended = match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn(append).await.unwrap_or_else(|error| Err(error.into())),
            Err(_) => append.await,
        };
        appended.map_err(|error| {
            self.record_append(Some(&error));
            RevokeError::Log(error)
        })
    }

    async fn append(&self, entry: &LogEntry, entries: &[Entry]) -> Result<(), BoxError> {
        if let Some(following) = &self.following {
            following.append(entry, entries).await?;
            self.record_append(None);
        }
        Ok(())
    }

    /// Records whether the log can be written.
    fn record_append(&self, failure: Option<&BoxError>) {
        let Some(following) = &self.following else { return };
        match failure {
            None => {
                if following.append_outage.record_success(|| self.clock.elapsed()) {
                    telemetry::store_recovered("writing to the revocation log");
                }
            }
            Some(error) => {
                following.must_refill.store(true, Ordering::Release);
                let error = Causes(&**error);
                let is_new = following.append_outage.record_failure(&error, self.clock.elapsed());
                telemetry::revocation_not_logged(&error, is_new);
            }
        }
    }

    /// Reads what is new in the log, and appends what it lacks.
    async fn poll(self: &Arc<Self>, following: &Following) {
        if following.must_read_again.swap(false, Ordering::AcqRel) {
            following.set_cursor(None);
        }
        let appended = std::mem::take(&mut *following.appended());
        let outcome = self.read_to_end(following).await;
        let was_read = outcome.is_ok();
        self.record_read(following, outcome);
        if !was_read {
            following.appended().extend(appended);
        } else if appended.into_iter().any(|key| self.index.is_unlogged(key)) {
            following.must_refill.store(true, Ordering::Release);
        }
        if was_read && following.must_refill.swap(false, Ordering::AcqRel) {
            // Other processes may be about to append the same.
            sleep(following.every.mul_f64(random_fraction())).await;
            let refilled = self.refill(following).await;
            self.record_append(refilled.as_ref().err());
        }
        self.sweep().await;
        let lag = following.lag(self.clock.elapsed());
        telemetry::revocation_state(lag, self.index.len());
    }

    fn record_read(&self, following: &Following, outcome: Result<(), BoxError>) {
        match outcome {
            Ok(()) => {
                if !following.was_read.swap(true, Ordering::Relaxed) {
                    telemetry::revocation_log_read(self.index.len());
                }
                if following.is_away() {
                    following.phase.send_replace(Phase::Read);
                }
                if following.outage.record_success(|| self.clock.elapsed()) {
                    telemetry::store_recovered("revocation log");
                }
            }
            Err(error) => {
                let error = Causes(&*error);
                let is_new = following.outage.record_failure(&error, self.clock.elapsed());
                telemetry::revocation_log_failed(&error, is_new);
                following.phase.send_replace(Phase::Failed(error.to_string().into()));
            }
        }
        if self.index.state() & MUST_WAIT != 0 {
            self.index.clear_flag(MUST_WAIT);
        }
    }

    async fn read_to_end(self: &Arc<Self>, following: &Following) -> Result<(), BoxError> {
        loop {
            let started = nanoseconds(self.clock.elapsed());
            let page = following.read_page().await?;
            following.answered_at.store(started, Ordering::Relaxed);
            let is_last = page.entries.len() < PAGE;
            let cursor = page.entries.last().map(|(cursor, _)| cursor.clone());
            if page.was_reset {
                self.index.start_epoch();
                following.must_refill.store(true, Ordering::Release);
                telemetry::revocation_log_lost();
            }
            let mut readable = Vec::new();
            for (_, entry) in page.entries {
                match entry {
                    Ok(entry) => readable.push(entry),
                    Err(error) => self.record_unreadable(following, &error),
                }
            }
            self.apply_all(readable).await?;
            if cursor.is_some() || page.was_reset {
                following.set_cursor(cursor);
            }
            if is_last {
                following.read_at.store(started, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    fn record_unreadable(&self, following: &Following, error: &InvalidLogEntry) {
        following.unreadable.fetch_add(1, Ordering::Relaxed);
        let is_new = following.unreadable_outage.record_failure(error, self.clock.elapsed());
        telemetry::revocation_unreadable(error, is_new);
    }

    /// Removes expired entries, if that is due.
    async fn sweep(self: &Arc<Self>) {
        if !self.index.may_take_long(self.now()) {
            return self.index.sweep_if_due(self.now());
        }
        let inner = self.clone();
        // Without an answer, the runtime ends.
        let _ = off_thread(move || inner.index.sweep_if_due(inner.now())).await;
    }

    /// Puts entries of the log in force.
    async fn apply_all(self: &Arc<Self>, entries: Vec<LogEntry>) -> Result<(), BoxError> {
        let count: usize = entries.iter().map(LogEntry::entries).sum();
        if count <= TOGETHER && !self.index.may_take_long(self.now()) {
            entries.into_iter().for_each(|entry| self.apply(entry));
            return Ok(());
        }
        let inner = self.clone();
        let apply = move || entries.into_iter().for_each(|entry| inner.apply(entry));
        Ok(off_thread(apply).await?)
    }

    /// Makes the follower append entries, unless it finds them in the log.
    pub(super) fn expect_in_log(&self, entries: &[Entry]) {
        if let Some(following) = &self.following {
            following.appended().extend(entries.iter().map(|entry| entry.key));
        }
    }

    /// Puts an entry of the log in force. An event of the future is one of now.
    fn apply(&self, entry: LogEntry) {
        match entry.0 {
            Content::Event(revocation) => {
                let end = revocation.until;
                let revocation = self.with_times(*revocation);
                let entries = self.entries(&revocation);
                let is_prolonged = revocation.until > end;
                let origin = if is_prolonged { Origin::Prolonged } else { Origin::Log };
                if matches!(self.index.insert(&entries, origin, self.now()), Ok(true)) {
                    self.announce(&revocation, Source::Log);
                }
                if is_prolonged {
                    // A process that starts after the end in the log needs it, too.
                    self.expect_in_log(&entries);
                }
            }
            Content::Entries(entries) => {
                let now = self.now();
                for mut entry in entries {
                    if entry.issued_before != TIMELESS || !entry.kind.may_be_timeless() {
                        entry.issued_before = entry.issued_before.min(now.wall.saturating_add(1));
                    }
                    // Entries of the log always find room.
                    let _ = self.index.insert(&[entry], Origin::Log, now);
                }
            }
        }
    }

    /// Returns entries that the log lacks, and the next shard: see [`Index::unlogged`](super::index::Index::unlogged).
    async fn unlogged(
        self: &Arc<Self>,
        shard: usize,
    ) -> Result<Option<(usize, Vec<Entry>)>, BoxError> {
        if self.index.len() < MANY {
            return Ok(self.index.unlogged(shard, REFILL, self.now()));
        }
        let inner = self.clone();
        Ok(off_thread(move || inner.index.unlogged(shard, REFILL, inner.now())).await?)
    }

    /// Appends the entries that the log lacks, because it was lost, or failed when they came.
    pub(super) async fn refill(self: &Arc<Self>, following: &Following) -> Result<(), BoxError> {
        let epoch = self.index.epoch();
        let mut shard = 0;
        while let Some((next, found)) = self.unlogged(shard).await? {
            shard = next;
            for some in found.chunks(REFILL) {
                // Other processes append, too.
                self.read_to_end(following).await?;
                if self.index.epoch() != epoch {
                    // Lost again: the next attempt begins from the start.
                    return Ok(());
                }
                let is_unlogged = |entry: &&Entry| self.index.is_unlogged(entry.key);
                let some: Vec<_> = some.iter().filter(is_unlogged).copied().collect();
                if !some.is_empty() {
                    following.append(&LogEntry(Content::Entries(some.clone())), &some).await?;
                }
            }
        }
        Ok(())
    }
}

/// The task that follows the log. It ends with the revocations.
struct Follower(Weak<Inner>);

impl Follower {
    async fn run(self) {
        while let Some(inner) = self.0.upgrade()
            && let Some(following) = &inner.following
        {
            inner.poll(following).await;
            let every = jittered(following.every, 0.1);
            drop(inner);
            sleep(every).await;
        }
    }
}

/// The next request starts another task, if this one panicked, or its runtime ended.
impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade()
            && let Some(following) = &inner.following
        {
            following.phase.send_replace(Phase::Failed("the task that reads it ended".into()));
            inner.index.set_flag(UNFOLLOWED);
        }
    }
}

/// Returns the time since a monotonic time in nanoseconds.
fn since(at: &AtomicU64, now: Duration) -> Duration {
    now.saturating_sub(Duration::from_nanos(at.load(Ordering::Relaxed)))
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
