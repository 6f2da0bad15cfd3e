//! [`Snapshot`]: a value that is replaced whole, while readers keep what they have.

use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock};

/// A value that many threads read and few replace: a list in an `Arc`, which no one changes in place.
///
/// A reader waits while the value is copied or replaced, which takes some 20 ns, and never while it is made
/// or dropped. Those who replace it wait for one another.
#[derive(Default)]
pub(crate) struct Snapshot<V> {
    value: RwLock<V>,
    replacing: Mutex<()>,
}

impl<V: Clone> Snapshot<V> {
    pub(crate) fn new(value: V) -> Self {
        Self { value: RwLock::new(value), replacing: Mutex::default() }
    }

    /// Returns the value as of now.
    pub(crate) fn load(&self) -> V {
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn store(&self, value: V) {
        self.swap(value);
    }

    /// Replaces the value and returns the one before.
    pub(crate) fn swap(&self, value: V) -> V {
        self.update(|_| value)
    }

    /// Replaces the value by what `next` makes of it, and returns the one before. No other replaces it
    /// meanwhile, so `next` must neither wait nor replace this value itself.
    pub(crate) fn update(&self, next: impl FnOnce(&V) -> V) -> V {
        // A panic in `next` leaves the value as it was.
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let value = next(&self.load());
        let mut held = self.value.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, value)
    }
}

impl<V: fmt::Debug> fmt::Debug for Snapshot<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.read().unwrap_or_else(PoisonError::into_inner).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn reader_keeps_what_it_loaded() {
        let list = Snapshot::new(Arc::new(vec![1]));
        let before = list.load();
        list.store(Arc::new(vec![2]));
        assert_eq!((&*before, &*list.load()), (&vec![1], &vec![2]));
        assert_eq!(*list.swap(Arc::default()), [2]);
        assert_eq!(format!("{list:?}"), "[]");
    }

    #[test]
    fn no_update_is_lost_among_threads() {
        let count = Snapshot::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1000).for_each(|_| {
                        count.update(|count| count + 1);
                    });
                });
            }
        });
        assert_eq!(count.load(), 4000);
    }

    #[test]
    fn panic_in_an_update_changes_nothing() {
        let list = Snapshot::new(1);
        let update = || list.update(|_| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(update)).is_err());
        assert_eq!((list.load(), list.update(|n| n + 1), list.load()), (1, 1, 2));
    }

    /// A value that is dropped may ask for its successor.
    #[test]
    fn old_value_is_dropped_without_the_lock() {
        struct Asks(Arc<Snapshot<Option<Arc<Asks>>>>);
        impl Drop for Asks {
            fn drop(&mut self) {
                assert!(self.0.load().is_none());
            }
        }
        let asked = Arc::new(Snapshot::new(None));
        asked.store(Some(Arc::new(Asks(asked.clone()))));
        asked.store(None);
    }
}
