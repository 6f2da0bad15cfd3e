//! Known tokens: looked for, verified and remembered, while others flush and keys are withdrawn.

use std::sync::Arc;

use interleaved::loom::sync::atomic::{AtomicBool, Ordering};
use interleaved::loom::thread;
use interleaved::{Grounds, Identity, KnownTokens, TenantId, in_every_order, known_tokens};
use interleaved::{recall, remember};

const TOKEN: &[u8] = b".a0000";

/// Has the tag of the other, and goes to the same place.
const ALIKE: &[u8] = b".i0000";

/// Of everybody's tokens, and of one tenant's.
const FLUSHES: [fn(&KnownTokens); 2] =
    [KnownTokens::flush, |known| known.flush_tenant(&TenantId(1))];

fn somebody(name: &'static str) -> Identity {
    Identity { name, tenant: TenantId(1) }
}

/// Who the token is known to be of, a while after the start.
fn name(known: &KnownTokens, token: &[u8]) -> Option<&'static str> {
    recall(known, token, 50).ok().map(|identity| identity.name)
}

/// Looks for a token, and remembers it if it is not known.
fn learn(known: &KnownTokens, token: &[u8], name: &'static str, grounds: &Grounds) {
    if let Err(sighting) = recall(known, token, 0) {
        remember(known, sighting, &somebody(name), grounds);
    }
}

/// By what one thread tells others that something has happened: they see what it did before.
#[derive(Clone)]
struct Word(Arc<AtomicBool>);

impl Word {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    fn give(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_out(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[test]
fn a_token_sighted_before_a_flush_is_not_recalled_after_it() {
    for flush in FLUSHES {
        in_every_order(None, move || {
            let (known, sighted, flushed) = (known_tokens(), Word::new(), Word::new());
            let visitor = thread::spawn({
                let (known, sighted) = (known.clone(), sighted.clone());
                move || {
                    let sighting = recall(&known, TOKEN, 0).unwrap_err();
                    sighted.give();
                    remember(&known, sighting, &somebody("a"), &Grounds::until(100));
                }
            });
            let flusher = thread::spawn({
                let (known, flushed) = (known.clone(), flushed.clone());
                move || {
                    let is_concerned = sighted.is_out();
                    flush(&known);
                    if is_concerned {
                        flushed.give();
                    }
                }
            });
            let is_over = || flushed.is_out() && name(&known, TOKEN).is_some();
            assert!(!is_over());
            visitor.join().unwrap();
            flusher.join().unwrap();
            assert!(!is_over());
            learn(&known, TOKEN, "b", &Grounds::until(100));
            assert!(name(&known, TOKEN).is_some(), "it may be learnt again");
        });
    }
}

#[test]
fn a_flush_holds_though_another_is_under_way() {
    for (flush, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        in_every_order(2, move || {
            let known = known_tokens();
            let flusher = thread::spawn({
                let known = known.clone();
                move || FLUSHES[other](&known)
            });
            let sighting = recall(&known, TOKEN, 0).unwrap_err();
            FLUSHES[flush](&known);
            remember(&known, sighting, &somebody("a"), &Grounds::until(100));
            assert_eq!(name(&known, TOKEN), None);
            flusher.join().unwrap();
            assert_eq!(name(&known, TOKEN), None);
        });
    }
}

/// A count that another brought back to what it was would make two flushes one.
#[test]
fn no_flush_is_taken_for_another() {
    in_every_order(3, || {
        let known = known_tokens();
        let flush = FLUSHES[1];
        let flusher = thread::spawn({
            let known = known.clone();
            move || flush(&known)
        });
        flush(&known);
        flush(&known);
        let sighting = recall(&known, TOKEN, 0).unwrap_err();
        flush(&known);
        remember(&known, sighting, &somebody("a"), &Grounds::until(100));
        assert_eq!(name(&known, TOKEN), None);
        flusher.join().unwrap();
        assert_eq!(name(&known, TOKEN), None);
    });
}

#[test]
fn a_token_is_not_recalled_after_its_key_was_withdrawn() {
    in_every_order(None, || {
        let (known, grounds, withdrawn) = (known_tokens(), Grounds::until(100), Word::new());
        let visitor = thread::spawn({
            let (known, grounds) = (known.clone(), grounds.clone());
            move || learn(&known, TOKEN, "a", &grounds)
        });
        let end = thread::spawn({
            let withdrawn = withdrawn.clone();
            move || {
                grounds.withdraw();
                withdrawn.give();
            }
        });
        let is_over = || withdrawn.is_out() && name(&known, TOKEN).is_some();
        assert!(!is_over());
        visitor.join().unwrap();
        end.join().unwrap();
        assert_eq!(name(&known, TOKEN), None);
    });
}

/// The set before had died, so the token did not count; nor does it with the set that comes.
#[test]
fn a_token_is_not_recalled_while_a_set_comes_that_withdraws_its_key() {
    in_every_order(None, || {
        let (known, grounds) = (known_tokens(), Grounds::until(10));
        learn(&known, TOKEN, "a", &grounds);
        let comes = thread::spawn(move || {
            grounds.withdraw();
            grounds.rely_until(100);
        });
        assert_eq!(name(&known, TOKEN), None);
        comes.join().unwrap();
        assert_eq!(name(&known, TOKEN), None);
    });
}

#[test]
fn no_token_is_taken_for_another() {
    in_every_order(3, || {
        let known = known_tokens();
        let visitors = [(TOKEN, "a"), (ALIKE, "b")].map(|(token, name)| {
            let known = known.clone();
            thread::spawn(move || learn(&known, token, name, &Grounds::until(100)))
        });
        let check = || {
            assert!(matches!(name(&known, TOKEN), None | Some("a")));
            assert!(matches!(name(&known, ALIKE), None | Some("b")));
        };
        check();
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
        check();
        known.flush();
        assert_eq!(known.stats().tokens, 0);
    });
}
