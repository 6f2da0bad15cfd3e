//! [`Tally`]: counts that many threads raise at once without waiting for each other.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More threads than this share.
pub(super) const STRIPES: usize = 16;

/// How often a token was found and how often not.
#[derive(Debug, Default)]
pub(super) struct Tally {
    stripes: [Stripe; STRIPES],
}

/// On cache lines of its own, and on the neighbours that processors fetch along.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Tally {
    pub(super) fn hit(&self) {
        self.stripe(|stripe| &stripe.hits);
    }

    pub(super) fn miss(&self) {
        self.stripe(|stripe| &stripe.misses);
    }

    /// Hits and misses so far.
    pub(super) fn totals(&self) -> (u64, u64) {
        let total = |count: fn(&Stripe) -> &AtomicU64| {
            self.stripes.iter().map(|stripe| count(stripe).load(Ordering::Relaxed)).sum()
        };
        (total(|stripe| &stripe.hits), total(|stripe| &stripe.misses))
    }

    fn stripe(&self, count: fn(&Stripe) -> &AtomicU64) {
        if let Some(stripe) = self.stripes.get(own_stripe()) {
            count(stripe).fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The stripe of this thread. Threads take turns in choosing.
pub(super) fn own_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    OWN.try_with(|own| *own).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES + 3 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        tally.hit();
                        tally.miss();
                        tally.hit();
                    }
                });
            }
        });
        assert_eq!(tally.totals(), (7000, 3500));
    }
}
