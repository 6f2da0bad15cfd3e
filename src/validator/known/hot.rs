//! [`Hot`]: copies of what a thread finds over and over, for that thread alone.
//!
//! Whoever holds a value is counted beside it, and threads that count at one place wait for each
//! other. A copy in memory of its own spares them that. Only what is found again within a few finds
//! is copied: making copies of everything in turn would cost more than any of them saves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::table::Table;
use super::tally::{STRIPES, own_stripe};
use crate::mark::Spot;

/// The part of a budget that all copies together may take.
const SHARE: usize = 16;

/// Fewer bytes for a thread are not worth the trouble.
const LEAST: usize = 4096;

/// A copy that takes more of a thread's bytes than this part would push out too many others.
const LARGEST: usize = 2;

/// A value is hot if it is among so many that the thread found last.
const LATELY: usize = 4;

#[derive(Debug)]
pub(super) struct Hot<V> {
    stripes: [Stripe<V>; STRIPES],
    /// For the copies of one stripe; 0 for none.
    max_bytes: usize,
}

/// What one thread has, or several that share it: where they do, they contend and nothing is lost.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe<V> {
    copies: OnceLock<Table<V>>,
    /// Rows of the spots found last. Guesses may be wrong: what they decide is only speed.
    lately: [AtomicU64; LATELY],
    next: AtomicUsize,
}

impl<V> Hot<V> {
    /// Of a budget of so many bytes in all.
    pub(super) fn within(budget: usize) -> Self {
        let max_bytes = budget / SHARE / STRIPES;
        Self {
            stripes: std::array::from_fn(|_| Stripe::new()),
            max_bytes: if max_bytes < LEAST { 0 } else { max_bytes },
        }
    }

    /// What all copies together may take.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes * STRIPES
    }

    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        self.tables().map(Table::bytes).sum()
    }

    /// As [`Table::find`].
    pub(super) fn find<R>(&self, spot: Spot, accept: impl Fn(&V) -> Option<R>) -> Option<R> {
        self.own()?.copies.get()?.find(spot, accept)
    }

    /// Whether this thread, which found a value elsewhere, had better have a copy. How many `bytes` that
    /// has is asked only if it may matter: the answer is a wait for memory.
    pub(super) fn wants(&self, spot: Spot, bytes: impl FnOnce() -> usize) -> bool {
        self.max_bytes > 0
            && self.own().is_some_and(|stripe| stripe.found_lately(spot))
            && bytes() <= self.max_bytes / LARGEST
    }

    /// As [`Table::insert`].
    pub(super) fn insert(
        &self,
        spot: Spot,
        bytes: usize,
        copy: V,
        is_same: impl Fn(&V) -> bool,
        is_dead: impl Fn(&V) -> bool,
    ) {
        if let Some(stripe) = self.own() {
            let copies = stripe.copies.get_or_init(|| Table::new(self.max_bytes));
            copies.insert(spot, bytes, copy, is_same, is_dead);
        }
    }

    /// As [`Table::sweep`], for all threads.
    pub(super) fn sweep(&self, is_unwanted: impl Fn(&V) -> bool) {
        self.tables().for_each(|copies| copies.sweep(&is_unwanted));
    }

    fn tables(&self) -> impl Iterator<Item = &Table<V>> {
        self.stripes.iter().filter_map(|stripe| stripe.copies.get())
    }

    fn own(&self) -> Option<&Stripe<V>> {
        self.stripes.get(own_stripe())
    }
}

impl<V> Stripe<V> {
    fn new() -> Self {
        Self {
            copies: OnceLock::new(),
            lately: std::array::from_fn(|_| AtomicU64::new(0)),
            next: AtomicUsize::new(0),
        }
    }

    /// Whether the value was among the last found; it is from now on.
    fn found_lately(&self, spot: Spot) -> bool {
        if self.lately.iter().any(|found| found.load(Ordering::Relaxed) == spot.row) {
            return true;
        }
        let next = self.next.load(Ordering::Relaxed);
        if let Some(oldest) = self.lately.get(next % LATELY) {
            oldest.store(spot.row, Ordering::Relaxed);
        }
        self.next.store(next.wrapping_add(1), Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(hot: &Hot<usize>, n: usize, bytes: usize) -> bool {
        hot.wants(Spot::of(&n.to_ne_bytes()), || bytes)
    }

    fn value(hot: &Hot<usize>, n: usize) -> Option<usize> {
        hot.find(Spot::of(&n.to_ne_bytes()), |value| Some(*value))
    }

    #[test]
    fn what_is_found_again_soon_is_wanted_and_what_comes_in_turn_is_not() {
        let hot = Hot::<usize>::within(1 << 20);
        assert!((0..3 * LATELY).all(|n| !wants(&hot, n % (LATELY + 1), 500)));
        assert!((0..LATELY).all(|_| wants(&hot, 1, 500)));
        assert!((0..LATELY).all(|_| !wants(&hot, 1, LEAST / LARGEST + 1)), "too large");
        let none = Hot::<usize>::within((1 << 20) - 1);
        assert!((0..9).all(|_| !wants(&none, 1, 500)));
        assert_eq!((none.max_bytes(), hot.max_bytes()), (0, (1 << 20) / SHARE));
    }

    #[test]
    fn a_copy_is_its_threads_and_is_swept_out_with_everybodys() {
        let hot = Hot::within(1 << 20);
        let threads = std::sync::Barrier::new(2);
        let work = |n: usize| {
            hot.insert(Spot::of(&n.to_ne_bytes()), 500, n, |held| *held == n, |_| false);
            threads.wait();
            let found = (value(&hot, n), value(&hot, 1 - n));
            threads.wait();
            found
        };
        let found = std::thread::scope(|scope| {
            let other = scope.spawn(|| work(1));
            (work(0), other.join().unwrap())
        });
        assert_eq!(found, ((Some(0), None), (Some(1), None)));
        assert!((1000..=hot.max_bytes()).contains(&hot.bytes()));
        hot.sweep(|_| true);
        assert_eq!(value(&hot, 0), None);
        assert!(hot.bytes() < 1000);
    }
}
