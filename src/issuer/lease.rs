//! [`KeyLease`]: the condition under which a verified signature may be trusted without another verification.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::attempts::AtomicInstant;

/// A flag that records that the issuer no longer publishes a key. It is set once and never cleared. The key
/// and all leases on it share the flag.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removed(Arc<AtomicBool>);

impl Removed {
    // Relaxed is enough. A request that begins after the removal sees it, and `KeyLease::is_valid` reads the
    // flag after `valid_until`, which is written with Release.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A lease on the key that verified a token. While it is valid, another verification of the same signature
/// would succeed.
///
/// A lease is two pointers. A cached token therefore keeps no key and no issuer alive.
#[derive(Debug, Clone)]
pub(crate) struct KeyLease {
    pub(super) removed: Removed,
    /// The end of the key set's validity. A new key set flags the removed keys before it extends this, so
    /// a reader of the new value also sees the flags.
    pub(super) valid_until: Arc<AtomicInstant>,
}

impl KeyLease {
    /// Returns whether the key is still published, and its set is neither due for a refresh nor too old.
    pub(crate) fn is_valid(&self, now: Duration) -> bool {
        // The flag is read last. Otherwise a new set could arrive between the two reads and extend
        // `valid_until` for a key that it removes.
        now < self.valid_until.get() && !self.removed.is_set()
    }

    /// Returns whether the issuer no longer publishes the key. The lease is then never valid again. A key
    /// that is published again gets a new lease.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.is_set()
    }
}

#[cfg(test)]
impl KeyLease {
    /// Returns a lease until `until`, and a function that removes its key.
    pub(crate) fn until(until: Duration) -> (Self, impl Fn() + Send + Sync) {
        let lease = Self { removed: Removed::default(), valid_until: Arc::default() };
        lease.valid_until.set(until);
        let removed = lease.removed.clone();
        (lease, move || removed.set())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A new set arrives after the previous one died: it flags the removed keys, then extends the validity.
    #[test]
    fn new_set_never_revives_removed_key() {
        let now = Duration::from_secs(10);
        for round in 0..2000 {
            let (lease, remove) = KeyLease::until(now);
            let has_arrived = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    remove();
                    lease.valid_until.set(Duration::MAX);
                    has_arrived.store(true, Ordering::Release);
                });
                while !has_arrived.load(Ordering::Acquire) {
                    assert!(!lease.is_valid(now), "round {round}");
                }
            });
            assert!(!lease.is_valid(now), "round {round}");
        }
    }

    #[test]
    fn announced_removal_ends_lease() {
        for round in 0..2000 {
            let (lease, remove) = KeyLease::until(Duration::MAX);
            let is_announced = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    remove();
                    is_announced.store(true, Ordering::Release);
                });
                loop {
                    let was_announced = is_announced.load(Ordering::Acquire);
                    let is_valid = lease.is_valid(Duration::ZERO);
                    assert!(!(was_announced && is_valid), "round {round}");
                    if was_announced {
                        break;
                    }
                }
            });
        }
    }

    #[test]
    fn lease_ends_with_key_or_old_set() {
        let (lease, remove) = KeyLease::until(Duration::from_secs(10));
        assert!(lease.is_valid(Duration::from_millis(9_999)));
        assert!(!lease.is_valid(Duration::from_secs(10)));
        remove();
        assert!(!lease.is_valid(Duration::ZERO));
    }
}
