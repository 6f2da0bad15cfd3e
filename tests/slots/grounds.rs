//! The grounds of a token: a key, and how long its set may be relied on.

use interleaved::loom::sync::atomic::{AtomicBool, Ordering};
use interleaved::loom::thread;
use interleaved::{Grounds, in_every_order};

/// A set comes after the one before had died: keys it lacks are withdrawn, then it may be relied
/// on. At no moment may a token of such a key be taken.
#[test]
fn nobody_relies_on_a_new_set_for_a_key_that_it_withdrew() {
    in_every_order(None, || {
        let grounds = Grounds::until(10);
        let comes = thread::spawn({
            let grounds = grounds.clone();
            move || {
                grounds.withdraw();
                grounds.rely_until(100);
            }
        });
        assert!(!grounds.stand(50));
        comes.join().unwrap();
        assert!(!grounds.stand(50));
    });
}

#[test]
fn who_knows_of_a_withdrawal_does_not_take_the_key() {
    in_every_order(None, || {
        let grounds = Grounds::until(100);
        let said = std::sync::Arc::new(AtomicBool::new(false));
        let end = thread::spawn({
            let (grounds, said) = (grounds.clone(), said.clone());
            move || {
                grounds.withdraw();
                said.store(true, Ordering::Release);
            }
        });
        assert!(!said.load(Ordering::Acquire) || !grounds.stand(50));
        end.join().unwrap();
    });
}
