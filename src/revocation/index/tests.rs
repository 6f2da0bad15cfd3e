//! Unit tests of the index.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

const LATER: u32 = 1_000;

fn at(wall: u32) -> Now {
    Now { wall, elapsed: Duration::from_secs(u64::from(wall)) }
}

fn entry(kind: Kind, id: usize, subject: Option<usize>) -> Entry {
    let key = |kind, id: usize| Key::new(kind, "https://a", &[&id.to_string()]);
    Entry {
        kind,
        key: key(kind, id),
        subject: subject.map_or(Key::NONE, |subject| key(Kind::Subject, subject)),
        issued_before: 100,
        until: LATER,
    }
}

fn insert(index: &Index, entries: &[Entry], now: Now) -> bool {
    index.insert(entries, Origin::Here, now).unwrap()
}

#[test]
fn state_has_kinds_with_entries() {
    let index = Index::new(100);
    assert_eq!(index.state(), 0);
    for kind in Kind::ALL {
        insert(&index, &[entry(kind, 1, None), entry(kind, 2, None)], at(1));
        assert_ne!(index.state() & kind.bit(), 0);
    }
    assert_eq!((index.state(), index.len()), (KINDS, 20));
    index.set_flag(1 << 16);
    index.sweep_if_due(at(LATER));
    assert_eq!((index.state(), index.len()), (1 << 16, 0), "flags stay");
    assert!(index.clear_flag(1 << 16) && !index.clear_flag(1 << 16));
    // A kind may come again.
    insert(&index, &[Entry { until: LATER + 9, ..entry(Kind::Client, 1, None) }], at(LATER));
    assert_eq!(index.state(), Kind::Client.bit());
}

#[test]
fn stronger_times_win_in_any_order() {
    let first = entry(Kind::Subject, 1, None);
    let earlier = Entry { issued_before: 50, until: LATER + 1, ..first };
    let later = Entry { issued_before: 200, until: 500, ..first };
    for order in [[first, earlier, later], [later, earlier, first], [earlier, later, first]] {
        let index = Index::new(1);
        let changes = order.map(|entry| insert(&index, &[entry], at(1)));
        let found = index.get(first.key).unwrap();
        assert_eq!((found.issued_before, found.until, index.len()), (200, LATER + 1, 1));
        assert!(changes[0] && changes[1]);
        assert!(!insert(&index, &[first], at(1)), "nothing new");
    }
}

#[test]
fn sweep_is_not_repeated_for_each_entry() {
    let index = Index::new(10);
    insert(&index, &[entry(Kind::Session, 1, None)], at(1));
    // Due at 61 s; from then on it takes a minute again.
    insert(&index, &[Entry { until: 70, ..entry(Kind::Session, 2, None) }], at(62));
    insert(&index, &[entry(Kind::Session, 3, None)], at(80));
    assert_eq!(index.len(), 3);
    insert(&index, &[entry(Kind::Session, 4, None)], at(122));
    assert_eq!(index.len(), 3);
    // An entry that has ended already is not added.
    assert!(!insert(&index, &[Entry { until: 122, ..entry(Kind::Session, 5, None) }], at(122)));
    assert_eq!(index.len(), 3);
}

#[test]
fn full_index_merges_before_it_refuses() {
    let index = Index::new(1_000);
    for n in 0..1_000 {
        // 250 subjects with two entries, and 500 with one.
        let subject = if n < 500 { n / 2 } else { n };
        insert(&index, &[entry(Kind::Session, n, Some(subject))], at(1));
    }
    assert_eq!((index.len(), index.widened()), (1_000, 0));
    insert(&index, &[entry(Kind::Session, 1_000, Some(1_000))], at(7));
    assert_eq!((index.len(), index.widened()), (751, 500));
    for n in 0..=1_000 {
        let is_there = index.get(entry(Kind::Session, n, None).key).is_some();
        assert_eq!(is_there, n >= 500, "{n}");
        if n < 250 {
            let subject = index.get(entry(Kind::Subject, n, None).key).unwrap();
            assert_eq!((subject.issued_before, subject.until), (8, LATER), "all issued until now");
        }
    }
    // Others do not fit when nothing can be merged.
    for n in 0..249 {
        insert(&index, &[entry(Kind::Token, n, None)], at(8));
    }
    let refused = index.insert(&[entry(Kind::Token, 500, None)], Origin::Here, at(8));
    assert!(refused.is_err());
    assert_eq!(index.len(), 1_000);
    assert!(insert(&index, &[entry(Kind::Session, 2_000, Some(3))], at(9)), "merged immediately");
    assert_eq!(index.get(entry(Kind::Subject, 3, None).key).unwrap().issued_before, 10);
    // Entries of the log find room.
    assert!(index.insert(&[entry(Kind::Token, 500, None)], Origin::Log, at(9)).unwrap());
    assert_eq!(index.len(), 1_001);
}

/// A reader that knows the session and its subject finds one of them at each moment.
#[test]
fn merging_leaves_no_gap() {
    let index = Index::new(2_000);
    for n in 0..2_000 {
        insert(&index, &[entry(Kind::Session, n, Some(n / 4))], at(1));
    }
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let keys: Vec<_> = (0..2_000)
                    .map(|n| {
                        (entry(Kind::Session, n, None).key, entry(Kind::Subject, n / 4, None).key)
                    })
                    .collect();
                loop {
                    let was_done = is_done.load(Ordering::SeqCst);
                    for (session, subject) in &keys {
                        // In the order of the numbers of the kinds, as requests are judged.
                        assert!(index.get(*session).is_some() || index.get(*subject).is_some());
                    }
                    if was_done {
                        break;
                    }
                }
            });
        }
        insert(&index, &[entry(Kind::Token, 1, None)], at(2));
        is_done.store(true, Ordering::SeqCst);
    });
    assert_eq!(index.len(), 501);
}

#[test]
fn lost_log_lacks_all_entries() {
    let index = Index::new(100);
    let entries: Vec<_> = (0..20).map(|n| entry(Kind::Session, n, None)).collect();
    let unlogged = |count| {
        let (mut shard, mut found) = (0, HashSet::new());
        while let Some((next, some)) = index.unlogged(shard, count, at(2)) {
            shard = next;
            found.extend(some.into_iter().map(|entry| entry.key));
        }
        found.len()
    };
    for entry in &entries {
        insert(&index, &[*entry], at(1));
        assert!(index.is_unlogged(entry.key));
    }
    assert_eq!([1, 7, 100].map(unlogged), [20; 3]);
    for entry in &entries[..15] {
        // As it was written, and a weaker one.
        index.insert(&[*entry], Origin::Log, at(1)).unwrap();
        let weaker = Entry { issued_before: 1, ..*entry };
        index.insert(&[weaker], Origin::Log, at(1)).unwrap();
        assert!(!index.is_unlogged(entry.key));
    }
    assert_eq!(unlogged(100), 5);
    // One that becomes stronger here, and one of which the log has a weaker one only.
    insert(&index, &[Entry { until: LATER + 1, ..entries[0] }], at(1));
    index.insert(&[Entry { until: LATER - 1, ..entries[19] }], Origin::Log, at(1)).unwrap();
    assert_eq!(unlogged(100), 6);
    // Repeating one that the log has changes nothing.
    insert(&index, &[entries[1]], at(1));
    assert_eq!(unlogged(100), 6);
    index.start_epoch();
    assert_eq!(unlogged(100), 20);
    for _ in 0..255 {
        index.start_epoch();
        assert_ne!(index.epoch(), UNLOGGED);
    }
    // Those that have ended are not appended again.
    assert!(index.unlogged(0, 100, at(LATER + 1)).is_some_and(|(_, found)| found.is_empty()));
}

#[test]
fn keys_spread_over_all_shards() {
    let index = Index::new(100_000);
    for n in 0..80_000 {
        insert(&index, &[entry(Kind::Session, n, None)], at(1));
    }
    let sizes: Vec<_> = index.shards.iter().map(|shard| shard.read().unwrap().len()).collect();
    assert!(sizes.iter().all(|size| (700..1_300).contains(size)), "{sizes:?}");
    let tags = index.shards[0].read().unwrap();
    // The bits that a table compares first.
    let tags: HashSet<_> = tags.keys().map(|key| index.hasher.hash_one(key) >> 57).collect();
    assert!(tags.len() > 100, "{}", tags.len());
}
