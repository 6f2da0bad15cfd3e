//! [`Spot`]: where a token is looked for.

use std::sync::LazyLock;

use super::nh::{Pair, end, halves, product};
use super::{random_pair, spread};

/// Tokens differ in their ends as much as anywhere: 24 characters have 144 bits.
const END: usize = 24;

/// A key for the end, one for what is left of it and the length, and one to spread the sum with. Marks
/// have others, so that how long a search takes tells nothing of them.
static KEYS: LazyLock<[Pair; 3]> = LazyLock::new(|| [(); 3].map(|()| random_pair()));

/// Where a token is looked for. Follows from its end and its length, in a way that nobody outside can
/// foresee, so that whatever is placed by it spreads evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) row: u64,
    /// Way and tag: two words are handed on in registers, three fields would be through memory.
    rest: u64,
}

impl Spot {
    /// By the hash that marks are made with.
    pub(crate) fn of(token: &[u8]) -> Self {
        let mut room = [0; END];
        let (words, _) = end(token, &mut room).as_chunks();
        let length = token.len().to_le_bytes();
        let [key, other, to_spread] = *KEYS;
        let sum = match words {
            [a, b, c] => product([a, b], key).wrapping_add(product([c, &length], other)),
            _ => 0,
        };
        let [row, rest] = spread(halves(sum), to_spread);
        Self { row, rest }
    }

    pub(crate) fn way(self) -> usize {
        (self.rest >> 32) as usize
    }

    /// Of tokens in one row, few have the same one.
    pub(crate) fn tag(self) -> u32 {
        self.rest as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_depends_on_the_end_and_on_the_length() {
        let text = [b'A'; 100];
        for length in 0..text.len() {
            for changed in 0..length {
                let mut other = text;
                other[changed] = b'B';
                let alike = Spot::of(&text[..length]) == Spot::of(&other[..length]);
                assert_eq!(alike, changed + END < length, "octet {changed} of {length}");
            }
            assert_ne!(Spot::of(&text[..length]), Spot::of(&text[..length + 1]));
        }
    }

    /// Sixty-four places for two thousand texts: each gets some, also of texts that differ in one bit.
    #[test]
    fn spots_are_spread_evenly() {
        for behind in [0, 7, END - 8] {
            let mut counts = [[0; 64]; 3];
            for n in 0..2000_u64 {
                let spot = Spot::of(&[&n.to_le_bytes()[..], &[0; END][..behind]].concat());
                let bits = [spot.row >> 58, spot.way() as u64 % 64, u64::from(spot.tag()) % 64];
                counts.iter_mut().zip(bits).for_each(|(counts, at)| counts[at as usize] += 1);
            }
            for counts in counts {
                assert!(counts.iter().all(|count| (1..120).contains(count)), "{counts:?}");
            }
        }
    }
}
