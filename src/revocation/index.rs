//! [`Index`]: the entries in force, in memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use super::key::{Key, Kind};
use crate::support::telemetry;

/// The number of parts with a lock each. It is not a power of two, so that the tables of a million entries (12,500
/// in each part) are nearly full instead of half empty.
const SHARDS: u32 = 80;

/// The time between two removals of all expired entries.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The same, while the index is full.
const SWEEP_FULL_EVERY: Duration = Duration::from_secs(1);

/// The time between two attempts to merge entries, if the first made little room. It reads all entries.
const WIDEN_EVERY: Duration = Duration::from_secs(10);

/// The number of passes over all entries in which they are merged, so that each needs little memory.
const WIDEN_PASSES: u8 = 16;

/// The number of entries from which on reading all of them takes long.
pub(super) const MANY: usize = 10_000;

/// The number of entries that a task inserts together, at most.
pub(super) const TOGETHER: usize = 1_000;

/// The bits of [`Index::state`] for kinds that have entries.
pub(super) const KINDS: u32 = (1 << Kind::ALL.len()) - 1;

/// The [time](Entry::issued_before) of an entry that refuses tokens whenever they were issued.
pub(super) const TIMELESS: u32 = u32::MAX;

/// The epoch of an entry that the log may lack.
const UNLOGGED: u8 = 0;

/// The current time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Seconds since 1970.
    pub(super) wall: u32,
    /// The monotonic time.
    pub(super) elapsed: Duration,
}

/// One entry: which tokens are refused, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// The key of the subject into whose entry this one may be merged, or [`Key::NONE`].
    pub(super) subject: Key,
    /// Seconds since 1970, rounded up, or [`TIMELESS`].
    pub(super) issued_before: u32,
    /// Seconds since 1970, rounded up.
    pub(super) until: u32,
}

/// The value of an entry in a table. A byte for the kind and one for the epoch, because there may be a million.
#[derive(Debug, Clone, Copy)]
struct Slot {
    subject: Key,
    issued_before: u32,
    until: u32,
    kind: Kind,
    /// The epoch of the log in which it has the entry.
    epoch: u8,
}

impl Slot {
    fn covers(&self, entry: &Entry) -> bool {
        self.issued_before >= entry.issued_before && self.until >= entry.until
    }

    fn is_covered_by(&self, entry: &Entry) -> bool {
        self.issued_before <= entry.issued_before && self.until <= entry.until
    }

    fn entry(&self, key: Key) -> Entry {
        let Self { subject, issued_before, until, kind, .. } = *self;
        Entry { kind, key, subject, issued_before, until }
    }
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// This process. The log may lack it.
    Here,
    Log,
    /// The log, in which it ends earlier.
    Prolonged,
}

/// The index has no room for another entry.
#[derive(Debug)]
pub(super) struct Full;

type Table = HashMap<Key, Slot, BuildKeyHasher>;

/// The entries in force. Reading takes the lock of one part for the time of a look-up.
pub(super) struct Index {
    /// The kinds with entries, and the flags of the owner. It is read for each request.
    state: AtomicU32,
    shards: Box<[RwLock<Table>]>,
    hasher: BuildKeyHasher,
    limit: usize,
    /// All changes are made under this lock.
    writer: Mutex<Writer>,
    len: AtomicUsize,
    widened: AtomicU64,
}

struct Writer {
    counts: [usize; Kind::ALL.len()],
    epoch: u8,
    next_sweep: Duration,
    next_full_sweep: Duration,
    next_widening: Duration,
}

impl Index {
    pub(super) fn new(limit: usize) -> Self {
        let hasher = BuildKeyHasher::random();
        let shard = |_| RwLock::new(Table::with_hasher(hasher));
        Self {
            state: AtomicU32::new(0),
            shards: (0..SHARDS).map(shard).collect(),
            hasher,
            limit,
            writer: Mutex::new(Writer {
                counts: [0; Kind::ALL.len()],
                epoch: 1,
                next_sweep: Duration::ZERO,
                next_full_sweep: Duration::ZERO,
                next_widening: Duration::ZERO,
            }),
            len: AtomicUsize::new(0),
            widened: AtomicU64::new(0),
        }
    }

    /// Returns the bits of the kinds with entries, and the flags.
    #[inline]
    pub(super) fn state(&self) -> u32 {
        self.state.load(Ordering::Relaxed)
    }

    pub(super) fn set_flag(&self, flag: u32) {
        self.state.fetch_or(flag, Ordering::AcqRel);
    }

    /// Clears a flag. Returns whether it was set.
    pub(super) fn clear_flag(&self, flag: u32) -> bool {
        self.state.fetch_and(!flag, Ordering::AcqRel) & flag != 0
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns the number of entries that were merged into others.
    pub(super) fn widened(&self) -> u64 {
        self.widened.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, key: Key) -> Option<Entry> {
        self.read(key).get(&key).map(|slot| slot.entry(key))
    }

    /// Returns whether an insertion may read all entries, to make room or to remove expired ones: up to a second for a
    /// million.
    pub(super) fn may_take_long(&self, now: Now) -> bool {
        let is_due = || match self.writer.try_lock() {
            Ok(writer) => now.elapsed >= writer.next_sweep,
            Err(_) => true,
        };
        self.len() >= MANY && (self.len() + TOGETHER > self.limit || is_due())
    }

    /// Puts entries of one revocation in force. Returns whether they refuse more than before.
    pub(super) fn insert(&self, entries: &[Entry], origin: Origin, now: Now) -> Result<bool, Full> {
        let mut writer = self.writer();
        if now.elapsed >= writer.next_sweep {
            self.sweep(&mut writer, now);
        }
        let live: Vec<_> = entries.iter().filter(|entry| entry.until > now.wall).copied().collect();
        let added = live.iter().filter(|entry| self.get(entry.key).is_none()).count();
        if added > 0 && !self.has_room(&mut writer, added, now) {
            if let Some(wider) = self.wider(&live, now) {
                self.widened.fetch_add(live.len() as u64, Ordering::Relaxed);
                return Ok(self.put(&mut writer, &wider, origin));
            }
            if origin == Origin::Here {
                return Err(Full);
            }
        }
        let changes = live.iter().map(|entry| self.put(&mut writer, entry, origin));
        Ok(changes.fold(false, |changed, one| changed | one))
    }

    /// Returns the epoch: the number of times that the log was lost.
    pub(super) fn epoch(&self) -> u8 {
        self.writer().epoch
    }

    /// Begins another epoch, in which the log has none of the entries.
    pub(super) fn start_epoch(&self) {
        let mut writer = self.writer();
        writer.epoch = writer.epoch.checked_add(1).unwrap_or(UNLOGGED + 1);
    }

    /// Returns whether there is an entry with this key that was not read from the log in this epoch.
    pub(super) fn is_unlogged(&self, key: Key) -> bool {
        let epoch = self.epoch();
        self.read(key).get(&key).is_some_and(|slot| slot.epoch != epoch)
    }

    /// Returns entries that were not read from the log in this epoch: at least this many, if there are. Begins at the
    /// shard with this number, and returns the number of the next. `None` after the last.
    pub(super) fn unlogged(
        &self,
        mut shard: usize,
        count: usize,
        now: Now,
    ) -> Option<(usize, Vec<Entry>)> {
        let epoch = self.epoch();
        let mut found = Vec::new();
        self.shards.get(shard)?;
        while found.len() < count
            && let Some(table) = self.shards.get(shard)
        {
            let table = table.read().unwrap_or_else(PoisonError::into_inner);
            let is_missing = |slot: &Slot| slot.epoch != epoch && slot.until > now.wall;
            let missing = table.iter().filter(|(_, slot)| is_missing(slot));
            found.extend(missing.map(|(key, slot)| slot.entry(*key)));
            shard += 1;
        }
        Some((shard, found))
    }

    /// Removes the expired entries, if that is due.
    pub(super) fn sweep_if_due(&self, now: Now) {
        let mut writer = self.writer();
        if now.elapsed >= writer.next_sweep {
            self.sweep(&mut writer, now);
        }
    }

    /// Returns the entry of the subject that includes these entries, if there is room for it.
    fn wider(&self, entries: &[Entry], now: Now) -> Option<Entry> {
        let subject = entries.iter().map(|entry| entry.subject).find(|key| *key != Key::NONE)?;
        let until = entries.iter().map(|entry| entry.until).max()?;
        let fits = self.len() < self.limit || self.get(subject).is_some();
        fits.then(|| subject_entry(subject, until, now))
    }

    /// Makes room for `added` entries, if there is none. Returns whether there is.
    fn has_room(&self, writer: &mut Writer, added: usize, now: Now) -> bool {
        let fits = || self.len() + added <= self.limit;
        if !fits() && now.elapsed >= writer.next_full_sweep {
            self.sweep(writer, now);
        }
        if !fits() && now.elapsed >= writer.next_widening {
            let freed = self.widen(writer, now);
            if freed < self.limit / 100 {
                writer.next_widening = now.elapsed + WIDEN_EVERY;
            }
        }
        fits()
    }

    /// Adds an entry, or extends the one with the same key. Returns whether it refuses more than before.
    fn put(&self, writer: &mut Writer, entry: &Entry, origin: Origin) -> bool {
        let epoch = if origin == Origin::Log { writer.epoch } else { UNLOGGED };
        match self.write(entry.key).entry(entry.key) {
            Place::Occupied(mut place) => {
                let slot = place.get_mut();
                let is_covered = slot.covers(entry);
                if slot.is_covered_by(entry) && (origin == Origin::Log || !is_covered) {
                    slot.epoch = epoch;
                } else if !is_covered && origin != Origin::Log {
                    slot.epoch = UNLOGGED;
                }
                slot.issued_before = slot.issued_before.max(entry.issued_before);
                slot.until = slot.until.max(entry.until);
                if slot.subject == Key::NONE {
                    slot.subject = entry.subject;
                }
                return !is_covered;
            }
            Place::Vacant(place) => {
                let Entry { kind, subject, issued_before, until, .. } = *entry;
                place.insert(Slot { subject, issued_before, until, kind, epoch });
            }
        }
        self.len.fetch_add(1, Ordering::Relaxed);
        if let Some(count) = writer.counts.get_mut(entry.kind as usize) {
            *count += 1;
        }
        // After the insertion, so that a reader that sees the bit finds the entry.
        self.state.fetch_or(entry.kind.bit(), Ordering::AcqRel);
        true
    }

    /// Removes the expired entries.
    fn sweep(&self, writer: &mut Writer, now: Now) {
        writer.next_sweep = now.elapsed + SWEEP_EVERY;
        writer.next_full_sweep = now.elapsed + SWEEP_FULL_EVERY;
        self.remove(writer, |slot| slot.until <= now.wall);
    }

    /// Removes all entries that `is_obsolete` selects. Returns their number.
    fn remove(&self, writer: &mut Writer, is_obsolete: impl Fn(&Slot) -> bool) -> usize {
        let mut removed = 0;
        for shard in &self.shards {
            let mut table = shard.write().unwrap_or_else(PoisonError::into_inner);
            table.retain(|_, slot| {
                let is_obsolete = is_obsolete(slot);
                if is_obsolete && let Some(count) = writer.counts.get_mut(slot.kind as usize) {
                    *count -= 1;
                    removed += 1;
                }
                !is_obsolete
            });
            if table.len() < table.capacity() / 4 {
                let half = table.len() * 2;
                table.shrink_to(half);
            }
        }
        self.len.fetch_sub(removed, Ordering::Relaxed);
        for (kind, _) in Kind::ALL.iter().zip(writer.counts).filter(|(_, count)| *count == 0) {
            self.clear_flag(kind.bit());
        }
        removed
    }

    /// Merges the entries of sessions and tokens into one for each subject that has several. Returns by how many
    /// entries the index became smaller.
    ///
    /// The entry of a session refuses tokens whatever their `iat`, that of a subject only those that were issued
    /// before. So the new entry refuses all that are issued before now.
    fn widen(&self, writer: &mut Writer, now: Now) -> usize {
        let before = self.len();
        let mut merged = 0;
        for pass in 0..WIDEN_PASSES {
            let subjects = self.subjects_with_several_entries(pass);
            for (subject, (_, until)) in &subjects {
                self.put(writer, &subject_entry(*subject, *until, now), Origin::Here);
            }
            // After the wider entries are in force, so that no token passes in between.
            if !subjects.is_empty() {
                merged += self.remove(writer, |slot| subjects.contains_key(&slot.subject));
            }
        }
        self.widened.fetch_add(merged as u64, Ordering::Relaxed);
        if merged > 0 {
            telemetry::revocations_widened(merged);
        }
        before.saturating_sub(self.len())
    }

    /// Returns the number of entries of sessions and tokens, and their latest end, by subject. Reads the subjects of
    /// one pass only.
    fn subjects_with_several_entries(&self, pass: u8) -> HashMap<Key, (u32, u32), BuildKeyHasher> {
        let mut subjects = HashMap::with_hasher(self.hasher);
        for shard in &self.shards {
            let table = shard.read().unwrap_or_else(PoisonError::into_inner);
            for slot in table.values() {
                if slot.subject != Key::NONE && slot.subject.first() % WIDEN_PASSES == pass {
                    let (count, until) = subjects.entry(slot.subject).or_insert((0, 0));
                    *count += 1;
                    *until = slot.until.max(*until);
                }
            }
        }
        subjects.retain(|subject, (count, _)| *count > 1 || self.get(*subject).is_some());
        subjects
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // Poisoning is harmless: each change leaves counts and tables that are valid, if not exact.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, key: Key) -> &RwLock<Table> {
        // Other bits than those that the table uses.
        let bits = (self.hasher.hash_one(key) >> 16) as u32;
        let number = (u64::from(bits) * u64::from(SHARDS)) >> 32;
        #[expect(clippy::indexing_slicing, reason = "the number is below `SHARDS`")]
        &self.shards[number as usize]
    }

    fn read(&self, key: Key) -> RwLockReadGuard<'_, Table> {
        self.shard(key).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: Key) -> RwLockWriteGuard<'_, Table> {
        self.shard(key).write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the entry that refuses all tokens of a subject that were issued before now.
fn subject_entry(key: Key, until: u32, now: Now) -> Entry {
    let issued_before = now.wall.saturating_add(1);
    Entry { kind: Kind::Subject, key, subject: Key::NONE, issued_before, until }
}

/// Hashes keys, which callers can choose, under two random numbers of the process.
#[derive(Debug, Clone, Copy)]
struct BuildKeyHasher([u64; 2]);

impl BuildKeyHasher {
    fn random() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0_u8), random.hash_one(1_u8)])
    }
}

impl BuildHasher for BuildKeyHasher {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { random: self.0, hash: 0 }
    }
}

/// Multiplies the halves of a key. Keys are digests, so no better mixing is needed.
struct KeyHasher {
    random: [u64; 2],
    hash: u64,
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        let half = |at: usize| {
            let half = bytes.get(at..).and_then(|rest| rest.first_chunk());
            u64::from_le_bytes(half.copied().unwrap_or_default())
        };
        let [one, other] = self.random;
        let product = u128::from(half(0) ^ one) * u128::from(half(8) ^ other);
        self.hash = (product as u64) ^ ((product >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests;
