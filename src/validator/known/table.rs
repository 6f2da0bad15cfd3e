//! [`Table`]: values by [`Spot`], in a fixed number of places and of bytes, read without a lock.
//!
//! A spot has eight places to stand in. Reading looks at their tags, takes a reference to what
//! stands where the tag fits, and asks whether that is what was looked for: a tag only saves looking,
//! so it may lag behind its place. It may even stay that of another value, where two wrote at once: then
//! the value is missed until it is put in again. Writing swaps a place whole. Each value leaves its
//! place in exactly one swap, and whoever made that swap gives its bytes back.

use std::iter;
use std::sync::Arc;

use crate::mark::Spot;
use crate::sync::{ArcSwapOption, AtomicBool, AtomicU32, AtomicUsize, Ordering};

const WAYS: usize = 8;

/// There is a place for so many bytes of the budget. Values have 700 and more, so that less than half of
/// the places are taken and hardly a value finds none.
const BYTES_PER_PLACE: usize = 320;

/// How many places are looked through for something to displace, before a value is turned away.
const PATIENCE: usize = 128;

/// How many places are looked at for something dead whenever a value comes. Each may be a wait for
/// memory.
const TIDIED: usize = 1;

#[derive(Debug)]
pub(super) struct Table<V> {
    sets: Box<[Set<V>]>,
    max_bytes: usize,
    /// What is held, or about to be.
    bytes: AtomicUsize,
    entries: AtomicUsize,
    /// The next place to look for something to displace.
    hand: AtomicUsize,
    /// The next place to look for something dead.
    broom: AtomicUsize,
}

#[derive(Debug)]
struct Set<V> {
    tags: [AtomicU32; WAYS],
    places: [Place<V>; WAYS],
}

type Place<V> = ArcSwapOption<Kept<V>>;

#[derive(Debug)]
struct Kept<V> {
    bytes: u32,
    /// Whether it was found since the hand came by.
    used: AtomicBool,
    value: V,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// It is in, and this many values that were not dead went for it.
    Displacing(usize),
    /// There was no room, and what is there is in use.
    TurnedAway,
}

impl<V> Table<V> {
    /// A table that takes up to `max_bytes`, itself included.
    pub(super) fn new(max_bytes: usize) -> Self {
        let sets = (max_bytes / BYTES_PER_PLACE / WAYS).max(1);
        let sets: Box<[Set<V>]> = iter::repeat_with(Set::new).take(sets).collect();
        Self {
            bytes: AtomicUsize::new(size_of_val(&*sets)),
            sets,
            max_bytes,
            entries: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            broom: AtomicUsize::new(0),
        }
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// How many bytes there are, the table's own included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// What `accept` makes of a value at this spot. It is asked until it makes something of one.
    pub(super) fn find<R>(&self, spot: Spot, accept: impl Fn(&V) -> Option<R>) -> Option<R> {
        self.set(spot)?.ways(spot).find_map(|(held, place)| {
            if held.load(Ordering::Relaxed) != spot.tag() {
                return None;
            }
            let kept = place.load();
            let kept = kept.as_ref()?;
            let accepted = accept(&kept.value)?;
            // Read first: many threads may find the same value, and none should wait to write.
            if !kept.used.load(Ordering::Relaxed) {
                kept.used.store(true, Ordering::Relaxed);
            }
            Some(accepted)
        })
    }

    /// Puts a value in that has `bytes` elsewhere. `is_same` tells which one it replaces, `is_dead`
    /// which ones are worth nothing.
    pub(super) fn insert(
        &self,
        spot: Spot,
        bytes: usize,
        value: V,
        is_same: impl Fn(&V) -> bool,
        is_dead: impl Fn(&V) -> bool,
    ) -> Placed {
        self.tidy(&is_dead);
        let bytes = bytes + size_of::<Kept<V>>() + ARC_COUNTS;
        let Ok(counted) = u32::try_from(bytes) else { return Placed::TurnedAway };
        let Some(mut displaced) = self.reserve(bytes, &is_dead) else { return Placed::TurnedAway };
        let kept = Kept { bytes: counted, used: AtomicBool::new(false), value };
        let set = self.set(spot);
        if let Some((held, place)) = set.and_then(|set| set.place_for(spot, &is_same, &is_dead)) {
            self.entries.fetch_add(1, Ordering::Relaxed);
            let before = place.swap(Some(Arc::new(kept)));
            held.store(spot.tag(), Ordering::Relaxed);
            if let Some(before) = before {
                displaced += usize::from(!is_same(&before.value) && !is_dead(&before.value));
                self.gone(&before);
            }
        }
        Placed::Displacing(displaced)
    }

    /// Takes out the values of which `is_unwanted` says so.
    pub(super) fn sweep(&self, is_unwanted: impl Fn(&V) -> bool) {
        for place in self.sets.iter().flat_map(|set| &set.places) {
            self.take_out(place, |kept| is_unwanted(&kept.value));
        }
    }

    /// Sees to it that dead values do not stay for ever where nobody looks for them.
    fn tidy(&self, is_dead: impl Fn(&V) -> bool) {
        for place in self.next_places(&self.broom, TIDIED) {
            self.take_out(place, |kept| is_dead(&kept.value));
        }
    }

    /// Makes room: values displaced, or `None` if it cannot be made. What is counted before it is
    /// there is never above the budget, so neither is what is there.
    fn reserve(&self, bytes: usize, is_dead: impl Fn(&V) -> bool) -> Option<usize> {
        let fits = || self.bytes() <= self.max_bytes;
        let mut displaced = 0;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if fits() {
            return Some(0);
        }
        // Twice round takes out everything: what was used on the first, the rest on the second.
        let patience = PATIENCE.min(2 * WAYS * self.sets.len());
        for place in self.next_places(&self.hand, patience) {
            let gone = self.take_out(place, |kept| {
                is_dead(&kept.value) || !kept.used.swap(false, Ordering::Relaxed)
            });
            displaced += usize::from(gone.is_some_and(|gone| !is_dead(&gone.value)));
            if fits() {
                return Some(displaced);
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        None
    }

    /// The next `count` places of a round that goes on where it left off.
    fn next_places<'t>(
        &'t self,
        round: &'t AtomicUsize,
        count: usize,
    ) -> impl Iterator<Item = &'t Place<V>> {
        let next = move || {
            let nth = round.fetch_add(1, Ordering::Relaxed);
            self.sets.get(nth / WAYS % self.sets.len())?.places.get(nth % WAYS)
        };
        iter::repeat_with(next).take(count).flatten()
    }

    /// Takes out what stands in a place, if it is `unwanted` and nobody was faster.
    fn take_out(
        &self,
        place: &Place<V>,
        unwanted: impl Fn(&Kept<V>) -> bool,
    ) -> Option<Arc<Kept<V>>> {
        let held = place.load();
        let kept = held.as_ref().filter(|kept| unwanted(kept))?.clone();
        let before = place.compare_and_swap(&kept, None);
        let is_ours = before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &kept));
        is_ours.then(|| {
            self.gone(&kept);
            kept
        })
    }

    fn gone(&self, kept: &Kept<V>) {
        self.bytes.fetch_sub(kept.bytes as usize, Ordering::Relaxed);
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }

    /// The set of a spot. Rows are as good as random, so that any number of sets fills evenly.
    fn set(&self, spot: Spot) -> Option<&Set<V>> {
        let nth = (u128::from(spot.row) * self.sets.len() as u128) >> 64;
        self.sets.get(nth as usize)
    }
}

/// The counters in front of what an `Arc` points to.
const ARC_COUNTS: usize = 2 * size_of::<usize>();

impl<V> Set<V> {
    fn new() -> Self {
        Self { tags: Default::default(), places: Default::default() }
    }

    /// All places with their tags, from a spot's first choice on: most values stand there, and are
    /// found at the first look.
    fn ways(&self, spot: Spot) -> impl Iterator<Item = (&AtomicU32, &Place<V>)> {
        let way = move |nth| {
            let way = spot.way().wrapping_add(nth) % WAYS;
            Some((self.tags.get(way)?, self.places.get(way)?))
        };
        (0..WAYS).filter_map(way)
    }

    /// The place for a new value: its own, an empty one, or that of whom it hurts least to lose.
    fn place_for(
        &self,
        spot: Spot,
        is_same: impl Fn(&V) -> bool,
        is_dead: impl Fn(&V) -> bool,
    ) -> Option<(&AtomicU32, &Place<V>)> {
        let places = || self.ways(spot);
        let is_own = |(held, place): &(&AtomicU32, &Place<V>)| {
            held.load(Ordering::Relaxed) == spot.tag()
                && place.load().as_ref().is_some_and(|kept| is_same(&kept.value))
        };
        let is_empty = |(_, place): &(&AtomicU32, &Place<V>)| place.load().is_none();
        let loss = |place: &Place<V>| match place.load().as_deref() {
            None => 0,
            Some(kept) if is_dead(&kept.value) => 1,
            Some(kept) if !kept.used.load(Ordering::Relaxed) => 2,
            Some(_) => 3,
        };
        // What others hold is looked into last, because it is far away in memory.
        places()
            .find(is_own)
            .or_else(|| places().find(is_empty))
            .or_else(|| places().min_by_key(|(_, place)| loss(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, which the value has its spot by, and something to tell values of one name apart.
    type Named = (usize, usize);

    fn spot(name: usize) -> Spot {
        Spot::of(&name.to_ne_bytes())
    }

    fn put_in(
        table: &Table<Named>,
        name: usize,
        bytes: usize,
        value: usize,
        is_dead: impl Fn(usize) -> bool,
    ) -> Placed {
        let is_same = |(held, _): &Named| *held == name;
        table.insert(spot(name), bytes, (name, value), is_same, |(_, value)| is_dead(*value))
    }

    fn never(_: usize) -> bool {
        false
    }

    fn value(table: &Table<Named>, name: usize) -> Option<usize> {
        table.find(spot(name), |(held, value)| (*held == name).then_some(*value))
    }

    /// What is in the places, counted by hand: entries and bytes.
    fn counted(table: &Table<Named>) -> (usize, usize) {
        let places = table.sets.iter().flat_map(|set| &set.places);
        let kept: Vec<_> = places.filter_map(ArcSwapOption::load_full).collect();
        let bytes: usize = kept.iter().map(|kept| kept.bytes as usize).sum();
        (kept.len(), size_of_val(&*table.sets) + bytes)
    }

    #[test]
    fn a_value_is_found_at_its_spot_until_it_is_swept_out() {
        let table = Table::new(100_000);
        let empty = table.bytes();
        for n in 0..40 {
            assert_eq!(put_in(&table, n, 500, n, never), Placed::Displacing(0));
            assert_eq!((value(&table, n), value(&table, n + 1)), (Some(n), None));
        }
        assert_eq!((table.entries(), table.bytes()), counted(&table));
        table.sweep(|(n, _)| n % 2 == 0);
        for n in 0..40 {
            assert_eq!(value(&table, n), (n % 2 == 1).then_some(n));
        }
        assert_eq!((table.entries(), table.bytes()), counted(&table));
        table.sweep(|_| true);
        assert_eq!((table.entries(), table.bytes()), (0, empty));
    }

    #[test]
    fn values_at_one_spot_are_told_apart() {
        let table = Table::new(100_000);
        let named = |name| table.find(spot(0), |held| (*held == name).then_some(name));
        for name in ["a", "b", "c"] {
            assert_eq!(named(name), None);
            let is_same = |held: &&str| *held == name;
            let placed = table.insert(spot(0), 500, name, is_same, |_| false);
            assert_eq!(placed, Placed::Displacing(0));
        }
        assert_eq!(["a", "b", "c"].map(named), ["a", "b", "c"].map(Some));
        assert_eq!(table.entries(), 3);
    }

    #[test]
    fn the_same_name_again_replaces_the_value() {
        let table = Table::new(100_000);
        for n in 0..5 {
            assert_eq!(put_in(&table, 0, 500, n, never), Placed::Displacing(0));
            assert_eq!((value(&table, 0), table.entries()), (Some(n), 1));
        }
    }

    #[test]
    fn a_flood_stays_within_the_budget_and_leaves_what_is_in_use() {
        let table = Table::new(100_000);
        for n in 0..20 {
            put_in(&table, n, 1000, n, never);
        }
        for n in 20..10_000 {
            (0..20).for_each(|hot| assert_eq!(value(&table, hot), Some(hot), "after {n}"));
            put_in(&table, n, 1000, n, never);
            assert!(table.bytes() <= table.max_bytes());
        }
        assert_eq!((table.entries(), table.bytes()), counted(&table));
        assert!(table.entries() > 60, "{}", table.entries());
    }

    #[test]
    fn what_can_never_fit_is_turned_away() {
        for max_bytes in [1, 1000, 10_000] {
            let table = Table::new(max_bytes);
            assert_eq!(put_in(&table, 0, max_bytes, 0, never), Placed::TurnedAway);
            assert_eq!((value(&table, 0), table.entries()), (None, 0));
            assert_eq!((table.entries(), table.bytes()), counted(&table));
        }
    }

    #[test]
    fn the_dead_go_first_and_do_not_stay_though_nobody_asks_for_them() {
        let table = Table::new(100_000);
        let is_dead = |n| n < 50;
        for n in 0..50 {
            put_in(&table, n, 500, n, never);
        }
        let rounds = table.sets.len() * WAYS / TIDIED + 1;
        for n in 0..rounds {
            assert_eq!(put_in(&table, 100, 500, 100 + n, is_dead), Placed::Displacing(0));
        }
        assert_eq!(table.entries(), 1);
        for n in 100..10_000 {
            put_in(&table, n, 500, n, |n| n > 10_000);
        }
        // All of them good, and too many.
        assert!(matches!(put_in(&table, 0, 2000, 0, never), Placed::Displacing(1..)));
    }

    #[test]
    fn half_full_the_table_has_a_place_for_nearly_everybody() {
        let table = Table::new(1 << 20);
        let places = table.sets.len() * WAYS;
        (0..places / 2).for_each(|n| {
            put_in(&table, n, 1, n, never);
        });
        let found = (0..places / 2).filter(|n| value(&table, *n).is_some()).count();
        assert!(found * 100 >= places / 2 * 98, "{found} of {}", places / 2);
    }

    /// Threads put in, find, sweep and displace at once. Whatever is found is what was put in under
    /// that name, and in the end every byte is accounted for.
    #[test]
    fn however_threads_mix_nothing_is_mistaken_and_no_byte_is_lost() {
        let table = Table::new(20_000);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let table = &table;
                scope.spawn(move || {
                    for step in 0..20_000_usize {
                        let n = (step * 7919 + thread * 31) % 60;
                        match step % 5 {
                            0 => {
                                put_in(table, n, n, n, |held| held % 13 == step % 13);
                            }
                            1 if step % 50 == 1 => table.sweep(|(held, _)| held % 7 == thread),
                            _ => {
                                let found = value(table, n);
                                assert!(found.is_none_or(|found| found == n));
                            }
                        }
                        // Reservations of other threads come on top for a moment.
                        assert!(table.bytes() <= table.max_bytes() + 4 * 400);
                    }
                });
            }
        });
        assert_eq!((table.entries(), table.bytes()), counted(&table));
        assert!(table.bytes() <= table.max_bytes());
    }
}
