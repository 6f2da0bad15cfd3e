//! [`Locks`]: those that one request takes in a shared cache, and whether they may be held.

use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::Fence;

/// A lock for each key. They are known before they are asked for: one whose answer was lost is
/// given back by its fence.
pub(super) struct Locks(Vec<Lock>);

pub(super) struct Lock {
    fence: Fence,
    may_be_held: AtomicBool,
}

impl Locks {
    /// `None` when the system has no random numbers.
    pub(super) fn new(count: usize) -> Option<Self> {
        let lock = || Some(Lock { fence: Fence::random().ok()?, may_be_held: false.into() });
        (0..count).map(|_| lock()).collect::<Option<_>>().map(Self)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Lock> {
        self.0.iter()
    }
}

impl Lock {
    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Notes that it is asked for. Until there is an answer it may be held.
    pub(super) fn is_asked_for(&self) {
        self.may_be_held.store(true, Ordering::Relaxed);
    }

    /// Notes that it was not taken, or was given back.
    pub(super) fn is_free(&self) {
        self.may_be_held.store(false, Ordering::Relaxed);
    }

    pub(super) fn may_be_held(&self) -> bool {
        self.may_be_held.load(Ordering::Relaxed)
    }
}
