//! The table: values by the spot of their name, in places that are swapped.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use interleaved::loom::sync::atomic::{AtomicBool, Ordering};
use interleaved::loom::thread;
use interleaved::{Table, Words, in_every_order, most_taken, taken};

/// Two that have all in common but a bit of the name: their places and their tag.
const ALIKE: [Words; 2] = [[7, 9], [6, 9]];

/// Two that go to different places if all are taken, and one of another tag.
const APART: [Words; 2] = [[7, 9], [7, 9 | 1 << 32]];
const OTHER_TAG: [Words; 2] = [[7, 9], [7, 10]];

fn never(_: &u32) -> bool {
    false
}

fn value(table: &Table<u32>, name: Words) -> Option<u32> {
    table.find(name, |value| Some(*value))
}

fn with_room_for(values: usize) -> Arc<Table<u32>> {
    Arc::new(Table::with_room_for(values))
}

/// What an empty table counts, and each value.
fn weights() -> (usize, usize) {
    let weights = Arc::new(Mutex::default());
    let found = weights.clone();
    in_every_order(None, move || {
        let table = with_room_for(1);
        let empty = table.bytes();
        table.insert([0, 0], 0, never);
        *found.lock().unwrap() = (empty, table.bytes() - empty);
    });
    *weights.lock().unwrap()
}

/// How many values there are, which is as many as are counted. Nobody else is at the table.
fn counted(table: &Table<u32>, (empty, each): (usize, usize)) -> usize {
    let there = Cell::new(0);
    table.sweep(|_| {
        there.set(there.get() + 1);
        false
    });
    let there = there.get();
    assert_eq!((there, table.entries()), (taken(), there));
    assert_eq!(table.bytes(), empty + there * each);
    there
}

#[test]
fn each_name_finds_its_own_value_or_none() {
    let weights = weights();
    for names in [ALIKE, APART, OTHER_TAG] {
        in_every_order(3, move || {
            let table = with_room_for(3);
            let own = |table: &Table<u32>| {
                for (n, name) in (1..).zip(names) {
                    assert!(value(table, name).is_none_or(|found| found == n));
                }
            };
            let writers = [(names[0], 1), (names[1], 2)].map(|(name, n)| {
                let table = table.clone();
                thread::spawn(move || table.insert(name, n, never))
            });
            own(&table);
            writers.into_iter().for_each(|writer| assert!(writer.join().unwrap().is_some()));
            own(&table);
            assert!((1..=2).contains(&counted(&table, weights)));
            // Two that met in one place may have left the value of one under the tag of the other.
            for (n, name) in (1..).zip(names) {
                table.insert(name, n, never);
            }
            assert_eq!(names.map(|name| value(&table, name)), [Some(1), Some(2)]);
        });
    }
}

#[test]
fn writers_that_meet_in_a_full_set_lose_no_count() {
    let weights = weights();
    for names in [ALIKE, APART] {
        in_every_order(3, move || {
            let table = with_room_for(9);
            (0..8).for_each(|n| assert_eq!(table.insert([n, 100 + n], 0, never), Some(0)));
            let writer = thread::spawn({
                let table = table.clone();
                move || table.insert(names[0], 1, never)
            });
            let gone = table.insert(names[1], 2, never);
            assert_eq!((writer.join().unwrap(), gone), (Some(1), Some(1)));
            assert_eq!(counted(&table, weights), 8);
            for (n, name) in (1..).zip(names) {
                assert!(value(&table, name).is_none_or(|found| found == n));
            }
        });
    }
}

#[test]
fn writers_and_a_broom_account_for_every_byte() {
    let weights = weights();
    for names in [[ALIKE[0]; 2], ALIKE, APART] {
        in_every_order(2, move || {
            let table = with_room_for(3);
            table.insert(names[0], 0, never);
            let writers = names.map(|name| {
                let table = table.clone();
                thread::spawn(move || table.insert(name, 1, never))
            });
            table.sweep(|value| *value == 0);
            writers.into_iter().for_each(|writer| assert!(writer.join().unwrap().is_some()));
            counted(&table, weights);
            table.sweep(|_| true);
            assert_eq!(counted(&table, weights), 0);
        });
    }
}

#[test]
fn two_who_take_out_the_same_value_give_its_bytes_back_once() {
    let weights = weights();
    in_every_order(4, move || {
        let table = with_room_for(3);
        table.insert(ALIKE[0], 1, never);
        let others = [0, 1].map(|_| {
            let table = table.clone();
            thread::spawn(move || table.sweep(|_| true))
        });
        table.insert(ALIKE[0], 2, never);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(counted(&table, weights) <= 1);
    });
}

/// What is there is within the budget at every moment; what is counted, beside what is about to be.
#[test]
fn what_is_there_never_exceeds_the_budget() {
    let weights = weights();
    // Where both must make room, there are many more orders.
    for (room, there, interruptions) in [(1, 0, 3), (1, 1, 1), (2, 1, 3), (2, 2, 1)] {
        in_every_order(interruptions, move || {
            let table = with_room_for(room);
            (0..there).for_each(|n| assert_eq!(table.insert([1, n], 0, never), Some(0)));
            let write = move |table: Arc<Table<u32>>, name| {
                table.insert(name, 1, never);
                assert!(table.bytes() <= table.max_bytes() + weights.1);
            };
            let writer = thread::spawn({
                let table = table.clone();
                move || write(table, ALIKE[0])
            });
            write(table.clone(), ALIKE[1]);
            writer.join().unwrap();
            assert!(counted(&table, weights) <= room);
            assert!(most_taken() <= room, "{} at once", most_taken());
        });
    }
}

/// Whoever looks after it was said that a value is dead, or that it was swept out, finds it no more.
#[test]
fn what_was_dead_or_swept_out_before_is_not_found() {
    for swept in [false, true] {
        in_every_order(4, move || {
            let table = Arc::new(Table::with_room_for(3));
            let dead = Arc::new(AtomicBool::new(false));
            table.insert(ALIKE[0], Arc::new(AtomicBool::new(false)), |_| false);
            let end = thread::spawn({
                let (table, said) = (table.clone(), dead.clone());
                move || {
                    match swept {
                        true => table.sweep(|_| true),
                        false => {
                            table.find(ALIKE[0], |dead| {
                                dead.store(true, Ordering::Relaxed);
                                Some(())
                            });
                        }
                    }
                    said.store(true, Ordering::Release);
                }
            });
            // Others come and go meanwhile.
            let writer = thread::spawn({
                let table = table.clone();
                move || table.insert(ALIKE[1], Arc::new(AtomicBool::new(false)), |_| false)
            });
            let was_over = dead.load(Ordering::Acquire);
            let found = table.find(ALIKE[0], |dead| (!dead.load(Ordering::Relaxed)).then_some(()));
            assert!(!was_over || found.is_none());
            end.join().unwrap();
            writer.join().unwrap();
        });
    }
}

/// One value of a name, or one for each who put it in at once. Any is as good, all are counted, and
/// the next to be put in is the one that is found.
#[test]
fn a_name_put_in_by_two_at_once_has_one_value_or_two() {
    let weights = weights();
    in_every_order(4, move || {
        let table = with_room_for(3);
        let writers = [1, 2].map(|n| {
            let table = table.clone();
            thread::spawn(move || table.insert(ALIKE[0], n, never))
        });
        let meanwhile = value(&table, ALIKE[0]);
        assert!(matches!(meanwhile, None | Some(1 | 2)));
        for writer in writers {
            assert_eq!(writer.join().unwrap(), Some(0), "nothing of another's went");
        }
        assert!(matches!(value(&table, ALIKE[0]), Some(1 | 2)));
        let there = counted(&table, weights);
        assert!((1..=2).contains(&there));
        table.insert(ALIKE[0], 3, never);
        assert_eq!((value(&table, ALIKE[0]), counted(&table, weights)), (Some(3), there));
        table.sweep(|_| true);
        assert_eq!((value(&table, ALIKE[0]), counted(&table, weights)), (None, 0));
    });
}
