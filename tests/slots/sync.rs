//! What `src/sync.rs` gives the files, over loom.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

thread_local! {
    /// How many places are taken, and how many ever were at once. All threads of a model run on the
    /// same thread of the system, one at a time.
    static TAKEN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

pub(crate) fn start() {
    TAKEN.set((0, 0));
}

/// How many places are taken: the truth, and no part of the model.
pub fn taken() -> usize {
    TAKEN.get().0
}

/// How many places were taken at most at any moment of this run.
pub fn most_taken() -> usize {
    TAKEN.get().1
}

/// A place by one atomic: the number of what stands in it, or 0. Nothing is ever freed, and no
/// number used twice; what `arc_swap` does so that neither matters is for its own tests to show.
/// It promises sequential consistency; this place only acquires and releases. What holds of this
/// one holds of that one.
pub(crate) struct ArcSwapOption<T> {
    number: AtomicUsize,
    all: Mutex<Vec<Arc<T>>>,
}

impl<T> Default for ArcSwapOption<T> {
    fn default() -> Self {
        Self { number: AtomicUsize::new(0), all: Mutex::default() }
    }
}

impl<T> ArcSwapOption<T> {
    pub(crate) fn load(&self) -> Option<Arc<T>> {
        self.numbered(self.number.load(Ordering::Acquire))
    }

    pub(crate) fn swap(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
        let new = self.number_of(new);
        let before = self.number.swap(new, Ordering::AcqRel);
        count(before, new);
        self.numbered(before)
    }

    pub(crate) fn compare_and_swap(&self, current: &Arc<T>, new: Option<Arc<T>>) -> Option<Arc<T>> {
        let nth = self.all().iter().position(|other| Arc::ptr_eq(other, current));
        let current = nth.expect("what is compared with was loaded from this place") + 1;
        let new = self.number_of(new);
        let swapped =
            self.number.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        if let Ok(before) = swapped {
            count(before, new);
        }
        self.numbered(swapped.unwrap_or_else(|before| before))
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<T>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbered(&self, number: usize) -> Option<Arc<T>> {
        Some(self.all()[number.checked_sub(1)?].clone())
    }

    fn number_of(&self, new: Option<Arc<T>>) -> usize {
        let mut all = self.all();
        new.map_or(0, |new| {
            all.push(new);
            all.len()
        })
    }
}

fn count(before: usize, after: usize) {
    let (taken, most) = TAKEN.get();
    let taken = taken + usize::from(after != 0) - usize::from(before != 0);
    TAKEN.set((taken, most.max(taken)));
}

impl<T> fmt::Debug for ArcSwapOption<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArcSwapOption")
    }
}

/// Chance that comes out the same each time, as a model must.
#[derive(Debug)]
pub(crate) struct RandomState;

impl RandomState {
    pub(crate) fn new() -> Self {
        Self
    }
}

impl BuildHasher for RandomState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        DefaultHasher::new()
    }
}
