//! [`Bounded`]: concurrent maps of limited size that evict old entries for new ones.

use std::hash::{BuildHasher, Hash};

use quick_cache::sync::Cache;
use quick_cache::{OptionsBuilder, UnitWeighter, Weighter};

/// A concurrent map with a limited number of entries.
///
/// An insertion always succeeds. In a full map it evicts an entry: the oldest one that was never read, or the
/// least recently read one. At least half of the capacity is for the latest entries: an entry that is never
/// read is evicted after about `capacity / 2` insertions. The other half is for entries that were read again;
/// a flood of entries that are never read evicts none of these.
///
/// Entries do not expire. An outdated entry stays until it is replaced, removed or evicted, so the reader must
/// compare its expiry with the clock.
pub(crate) type Bounded<K, V, S> = Cache<K, V, UnitWeighter, S>;

/// The minimum number of entries per shard. Keys are not spread evenly: with shards of 600 entries, a map of
/// 10,000 has some full shards when it is 93 % full.
const MIN_PER_SHARD: usize = 512;

/// The maximum number of shards. More of them do not reduce contention measurably.
const MAX_SHARDS: usize = 64;

/// Returns an empty map for `capacity` entries. The limit is exact below 1,024, and approximate from 1,024
/// on.
pub(crate) fn bounded<K, V, S>(capacity: usize) -> Bounded<K, V, S>
where
    K: Eq + Hash,
    V: Clone,
    S: BuildHasher + Clone + Default,
{
    weighed(capacity / MIN_PER_SHARD, capacity, capacity as u64, UnitWeighter)
}

/// Returns an empty map whose entries weigh at most `capacity` together. `shards` is the approximate number
/// of shards, `entries` the expected number of entries. Each shard has a lock and an equal part of the
/// capacity. An entry that weighs more than half of that part is not inserted.
pub(crate) fn weighed<K, V, W, S>(
    shards: usize,
    entries: usize,
    capacity: u64,
    weigher: W,
) -> Cache<K, V, W, S>
where
    K: Eq + Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
    S: BuildHasher + Clone + Default,
{
    let shards = shards.clamp(1, MAX_SHARDS);
    let options = OptionsBuilder::new()
        // The library rounds up to a power of two; this rounds down or up to the nearer one.
        .shards((shards / 2 + 1).next_power_of_two())
        .hot_allocation(0.5)
        .estimated_items_capacity(entries)
        .weight_capacity(capacity)
        .build();
    #[expect(clippy::expect_used, reason = "both required numbers are set")]
    let options = options.expect("the options are complete");
    Cache::with_options(options, weigher, S::default(), Default::default())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::convert::Infallible;
    use std::hash::RandomState;
    use std::sync::{Arc, Barrier};
    use std::thread;

    use super::*;

    type Numbers = Bounded<usize, usize, RandomState>;

    fn count_present(map: &Numbers, keys: impl IntoIterator<Item = usize>) -> usize {
        keys.into_iter().filter(|n| map.peek(n).is_some()).count()
    }

    #[test]
    fn small_map_holds_exactly_its_capacity() {
        for capacity in [1, 2, 3, 10, 33, 500, 1023] {
            let map: Numbers = bounded(capacity);
            (0..capacity).for_each(|n| map.insert(n, n));
            assert_eq!(count_present(&map, 0..capacity), capacity);
            map.insert(capacity, 0);
            assert_eq!((map.len(), count_present(&map, [capacity])), (capacity, 1));
        }
        let none: Numbers = bounded(0);
        none.insert(1, 1);
        assert_eq!(none.len(), 0);
        assert_eq!(none.get_or_insert_with(&1, || Ok::<_, Infallible>(7)), Ok(7));
    }

    #[test]
    fn large_map_holds_about_its_capacity() {
        for capacity in [1024, 10_000, 40_000] {
            let map: Numbers = bounded(capacity);
            (0..3 * capacity).for_each(|n| map.insert(n, n));
            let (least, most) = (capacity - capacity / 10, capacity + MAX_SHARDS);
            assert!((least..=most).contains(&map.len()), "{} of {capacity}", map.len());
        }
    }

    #[test]
    fn latest_entries_live_for_half_the_capacity() {
        let map: Numbers = bounded(1000);
        for n in 0..5000 {
            map.insert(n, n);
            assert_eq!(count_present(&map, n.saturating_sub(499)..=n), 500.min(n + 1), "after {n}");
        }
    }

    #[test]
    fn entry_read_again_survives_a_flood() {
        let map: Numbers = bounded(1000);
        (0..1000).for_each(|n| map.insert(n, n));
        (5000..5100).for_each(|n| map.insert(n, n));
        assert_eq!((5000..5100).filter(|n| map.get(n).is_some()).count(), 100);
        (10_000..30_000).for_each(|n| map.insert(n, n));
        assert_eq!(count_present(&map, 5000..5100), 100);
    }

    /// An entry that was read once does not stay for ever.
    #[test]
    fn recently_used_entries_evict_stale_ones() {
        let map: Numbers = bounded(1000);
        for n in 0..1000 {
            map.insert(n, n);
            map.get(&n);
        }
        for round in 1..10 {
            for n in round * 1000..round * 1000 + 400 {
                map.insert(n, n);
                map.get(&n);
            }
        }
        assert_eq!(count_present(&map, 9000..9400), 400);
        assert!(count_present(&map, 0..1000) < 600);
    }

    #[test]
    fn racing_threads_get_one_entry() {
        for _ in 0..200 {
            let (map, start) = (bounded::<u8, Arc<()>, RandomState>(10), Barrier::new(4));
            let found: Vec<_> = thread::scope(|scope| {
                let get = || {
                    start.wait();
                    let Ok(found) =
                        map.get_or_insert_with(&1, || Ok::<_, Infallible>(Arc::default()));
                    found
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(get)).collect();
                threads.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert_eq!(found.iter().map(Arc::as_ptr).collect::<HashSet<_>>().len(), 1);
        }
    }

    #[test]
    fn entry_beyond_half_the_weight_is_refused() {
        #[derive(Clone)]
        struct ValueWeighter;
        impl Weighter<u8, u64> for ValueWeighter {
            fn weight(&self, _: &u8, weight: &u64) -> u64 {
                *weight
            }
        }
        let map: Cache<u8, u64, ValueWeighter, RandomState> = weighed(1, 10, 1000, ValueWeighter);
        map.insert(1, 500);
        map.insert(2, 501);
        assert_eq!((map.get(&1), map.get(&2)), (Some(500), None));
        map.insert(3, 500);
        map.insert(4, 500);
        assert!(map.weight() <= 1000 && map.get(&4).is_some());
    }
}
