//! [`Tally`]: counts that many threads raise at once without waiting for each other.

use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};

/// So many threads have a stripe to themselves. More share what they are given.
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
    hits: Count,
    misses: Count,
}

/// What the owner of a stripe counts, and what its guests do.
#[derive(Debug, Default)]
struct Count {
    own: AtomicU64,
    guests: AtomicU64,
}

impl Tally {
    pub(super) fn hit(&self) {
        self.count(|stripe| &stripe.hits);
    }

    pub(super) fn miss(&self) {
        self.count(|stripe| &stripe.misses);
    }

    /// Hits and misses so far.
    pub(super) fn totals(&self) -> (u64, u64) {
        let total = |count: fn(&Stripe) -> &Count| {
            self.stripes.iter().map(|stripe| count(stripe).total()).sum()
        };
        (total(|stripe| &stripe.hits), total(|stripe| &stripe.misses))
    }

    fn count(&self, count: fn(&Stripe) -> &Count) {
        let Seat { stripe, is_own } = Seat::of_this_thread();
        if let Some(stripe) = self.stripes.get(stripe) {
            count(stripe).raise(is_own);
        }
    }
}

impl Count {
    /// Nobody else writes where the owner does, which saves it the wait for an exclusive access.
    fn raise(&self, is_own: bool) {
        if is_own {
            self.own.store(self.own.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            self.guests.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn total(&self) -> u64 {
        self.own.load(Ordering::Relaxed) + self.guests.load(Ordering::Relaxed)
    }
}

/// The stripe of a thread, and whether it is its own.
#[derive(Debug, Clone, Copy)]
struct Seat {
    stripe: usize,
    is_own: bool,
}

/// Which stripes have an owner, a bit for each.
static OWNED: AtomicU16 = AtomicU16::new(0);

/// Guests take turns in choosing.
static GUESTS: AtomicUsize = AtomicUsize::new(0);

/// A thread's seat, given back when the thread ends.
struct Held(Seat);

thread_local! {
    static HELD: Held = Held(Seat::take());
}

/// The stripe of this thread.
pub(super) fn own_stripe() -> usize {
    Seat::of_this_thread().stripe
}

impl Seat {
    fn of_this_thread() -> Self {
        // Where the thread is about to end, it is a guest.
        HELD.try_with(|held| held.0).unwrap_or(Self { stripe: 0, is_own: false })
    }

    fn take() -> Self {
        let first_free = |owned: u16| {
            let free = owned.trailing_ones();
            ((free as usize) < STRIPES).then(|| owned | 1 << free)
        };
        // What the owner before counted is to be seen.
        match OWNED.fetch_update(Ordering::AcqRel, Ordering::Relaxed, first_free) {
            Ok(owned) => Self { stripe: owned.trailing_ones() as usize, is_own: true },
            Err(_) => {
                Self { stripe: GUESTS.fetch_add(1, Ordering::Relaxed) % STRIPES, is_own: false }
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.is_own {
            OWNED.fetch_and(!(1 << self.0.stripe), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn nothing_is_lost_between_threads_and_no_stripe_has_two_owners() {
        const THREADS: usize = 2 * STRIPES + 3;
        let (tally, all) = (Tally::default(), Barrier::new(THREADS));
        let work = || {
            all.wait();
            for _ in 0..1000 {
                tally.hit();
                tally.miss();
                tally.hit();
            }
            all.wait();
            Seat::of_this_thread()
        };
        // The second time, stripes have another owner than the first.
        for rounds in 1..=2 {
            let seats: Vec<Seat> = std::thread::scope(|scope| {
                let threads = [(); THREADS].map(|()| scope.spawn(work));
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let each = (rounds * THREADS * 1000) as u64;
            assert_eq!(tally.totals(), (2 * each, each));
            for stripe in 0..STRIPES {
                let owners = seats.iter().filter(|seat| seat.is_own && seat.stripe == stripe);
                assert!(owners.count() <= 1, "of {stripe}");
            }
        }
    }
}
