//! [`Grounds`]: what the verification of a token rests on, and whether that still stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::attempts::Moment;

/// A key was withdrawn: set once, never taken back. Shared by the key and all that rests on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Withdrawn(Arc<AtomicBool>);

impl Withdrawn {
    // Relaxed will do: a request that began after the change in any way that can be told sees it,
    // and whoever relies on the set that brought the change does, by the order below.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the verification of a token rests on: a key, and the key set it stood in.
///
/// Small on purpose. Whoever remembers a token keeps neither keys nor issuers alive.
#[derive(Debug, Clone)]
pub(crate) struct Grounds {
    pub(super) key: Withdrawn,
    /// Until when the set may be relied on without being looked at. Set after the keys that the
    /// set lacks were withdrawn: who relies on it knows of them.
    pub(super) set: Arc<Moment>,
}

impl Grounds {
    /// Whether the same signature would be found good again: its key is still published as far as
    /// is known, and the set is neither due to be asked for nor too old.
    pub(crate) fn stand(&self, now: Duration) -> bool {
        // The key last. A set that comes in between, after the one before had died, would otherwise
        // be relied on for a key that it withdrew.
        now < self.set.get() && !self.key.is_set()
    }

    /// Whether they will never stand again: a key that is published anew is another one.
    pub(crate) fn are_gone(&self) -> bool {
        self.key.is_set()
    }
}

#[cfg(test)]
impl Grounds {
    /// Grounds that stand until `until`, and the handle that withdraws their key.
    pub(crate) fn until(until: Duration) -> (Self, impl Fn() + Send + Sync) {
        let grounds = Self { key: Withdrawn::default(), set: Arc::default() };
        grounds.set.set(until);
        let key = grounds.key.clone();
        (grounds, move || key.set())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A set comes after the one before had died: the keys it lacks are withdrawn, then it may be relied on.
    #[test]
    fn new_set_never_carries_withdrawn_key() {
        let now = Duration::from_secs(10);
        for round in 0..2000 {
            let (grounds, withdraw) = Grounds::until(now);
            let comes = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    withdraw();
                    grounds.set.set(Duration::MAX);
                    comes.store(true, Ordering::Release);
                });
                while !comes.load(Ordering::Acquire) {
                    assert!(!grounds.stand(now), "round {round}");
                }
            });
            assert!(!grounds.stand(now), "round {round}");
        }
    }

    #[test]
    fn withdrawal_that_was_announced_ends_reliance() {
        for round in 0..2000 {
            let (grounds, withdraw) = Grounds::until(Duration::MAX);
            let said = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    withdraw();
                    said.store(true, Ordering::Release);
                });
                loop {
                    let was_said = said.load(Ordering::Acquire);
                    let stands = grounds.stand(Duration::ZERO);
                    assert!(!(was_said && stands), "round {round}");
                    if was_said {
                        break;
                    }
                }
            });
        }
    }

    #[test]
    fn grounds_fall_with_the_key_and_with_the_age_of_its_set() {
        let (grounds, withdraw) = Grounds::until(Duration::from_secs(10));
        assert!(grounds.stand(Duration::from_millis(9_999)));
        assert!(!grounds.stand(Duration::from_secs(10)));
        withdraw();
        assert!(!grounds.stand(Duration::ZERO));
    }
}
