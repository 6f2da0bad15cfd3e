//! The grounds of a token: a key, and how long its set may be relied on.

use interleaved::loom::sync::atomic::{AtomicBool, Ordering};
use interleaved::loom::thread;
use interleaved::{Grounds, in_every_order};

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
