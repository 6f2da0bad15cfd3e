//! [`Seen`]: which names of a list came before.

use std::collections::HashSet;
use std::hash::Hash;

/// So many names are compared one by one. Most tokens have fewer, and pay for no hash.
const FEW: usize = 16;

/// The names read so far. Callers choose how many there are: beyond a [`FEW`] they are hashed, under
/// keys of this process, so that n names cost n steps and not n².
pub(super) struct Seen<T> {
    few: [Option<T>; FEW],
    many: Option<HashSet<T>>,
}

impl<T: Copy + Eq + Hash> Seen<T> {
    pub(super) fn new() -> Self {
        Self { few: [None; FEW], many: None }
    }

    /// Adds a name. Returns whether it is new.
    pub(super) fn insert(&mut self, name: T) -> bool {
        if let Some(many) = &mut self.many {
            return many.insert(name);
        }
        for place in &mut self.few {
            match place {
                Some(earlier) if *earlier == name => return false,
                Some(_) => {}
                None => {
                    *place = Some(name);
                    return true;
                }
            }
        }
        let few = self.few.iter().copied().flatten();
        let many = self.many.insert(few.collect());
        many.insert(name)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::hash::Hasher;

    use super::*;

    /// A number that counts how often it is compared.
    #[derive(Clone, Copy)]
    struct Counted<'c>(u32, &'c Cell<u32>);

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.1.set(self.1.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Counted<'_> {}

    impl Hash for Counted<'_> {
        fn hash<H: Hasher>(&self, to: &mut H) {
            self.0.hash(to);
        }
    }

    #[test]
    fn many_names_are_compared_linearly() {
        let (compared, mut seen) = (Cell::new(0), Seen::new());
        for number in 0..4000 {
            assert!(seen.insert(Counted(number, &compared)), "{number}");
        }
        for number in 0..4000 {
            assert!(!seen.insert(Counted(number, &compared)), "{number}");
        }
        // Pairwise it would be millions.
        assert!(compared.get() < 40_000, "{}", compared.get());
    }
}
