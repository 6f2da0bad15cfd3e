//! [`SignatureMark`]: recognises a signature that was seen before, without keeping it.
//!
//! A mark is the universal hash NH (RFC 4418 §5.2) with words of 64 bits, twice over with the key
//! moved on in between (the Toeplitz construction of the same paper). For any two different texts
//! of one length, one key in 2¹²⁸ gives both the same mark: that is proven, and rests on nothing but
//! the key, which is drawn when the process starts and never leaves it. So is the key by which marks
//! find their places, so that how long a search takes tells nothing of the marks themselves.

use std::sync::LazyLock;

use super::random;

/// The longest signature that gets a mark: that of an RSA key of 8192 bits.
const LONGEST: usize = 1366;

/// Two words at a time.
const BLOCK: usize = 16;

/// One word pair for each block, one more for the second pass.
const PAIRS: usize = LONGEST.div_ceil(BLOCK) + 1;

type Pair = [u64; 2];

/// What marks are made with.
struct Keys {
    sums: Box<[Pair; PAIRS]>,
    places: Pair,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let pair = || [random(), random()];
    Keys { sums: Box::new(std::array::from_fn(|_| pair())), places: pair() }
});

/// Stands for a signature, in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignatureMark {
    sums: [u128; 2],
    length: usize,
}

impl SignatureMark {
    /// `None` when the text is longer than signatures are.
    pub(crate) fn of(signature: &[u8]) -> Option<Self> {
        Self::under(&KEYS.sums, signature)
    }

    fn under(keys: &[Pair; PAIRS], signature: &[u8]) -> Option<Self> {
        if signature.len() > LONGEST {
            return None;
        }
        let (blocks, rest) = signature.as_chunks();
        let (mut sums, mut keys) = ([0; 2], keys.iter());
        let mut key = keys.next()?;
        for (block, next) in blocks.iter().zip(&mut keys) {
            sums = with_block(sums, block, key, next);
            key = next;
        }
        let mut last = [0; BLOCK];
        last.get_mut(..rest.len())?.copy_from_slice(rest);
        let sums = with_block(sums, &last, key, keys.next()?);
        Some(Self { sums, length: signature.len() })
    }

    /// One of many that are placed alike.
    #[cfg(test)]
    pub(crate) fn alike(nth: u64) -> Self {
        Self { sums: [nth.into(); 2], length: 0 }
    }

    /// Bits to place things by, spread evenly.
    pub(crate) fn places(self) -> Pair {
        let Self { sums: [first, second], length } = self;
        let [a, b] = KEYS.places;
        let (high, low) = ((first >> 64) as u64, first as u64 ^ second as u64);
        let spread = u128::from(high ^ a) * u128::from(low ^ b ^ length as u64);
        let (high, low) = ((spread >> 64) as u64, spread as u64);
        [high ^ low, low.wrapping_add(high.rotate_left(32))]
    }
}

/// Both passes in one go: the words are loaded once.
fn with_block(
    [first, second]: [u128; 2],
    block: &[u8; BLOCK],
    key: &Pair,
    next: &Pair,
) -> [u128; 2] {
    let text = words(block);
    [first.wrapping_add(product(text, key)), second.wrapping_add(product(text, next))]
}

fn words(block: &[u8; BLOCK]) -> Pair {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *block;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
}

fn product([a, b]: Pair, [with_a, with_b]: &Pair) -> u128 {
    u128::from(a.wrapping_add(*with_a)) * u128::from(b.wrapping_add(*with_b))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_mark_is_what_the_definition_says() {
        let mut keys = [[0; 2]; PAIRS];
        keys[..3].copy_from_slice(&[[1, 2], [u64::MAX, 3], [5, u64::MAX]]);
        let block = |a: u64, b: u64| [a.to_le_bytes(), b.to_le_bytes()].concat();
        let text = [block(10, 20), block(1 << 63, 40)[..9].to_vec()].concat();
        let mark = SignatureMark::under(&keys, &text).unwrap();
        let first = 11 * 22 + ((1_u128 << 63) - 1) * (40 + 3);
        let second = 9 * 23 + ((1_u128 << 63) + 5) * 39;
        assert_eq!(mark, SignatureMark { sums: [first, second], length: 25 });
    }

    #[test]
    fn a_mark_depends_on_every_octet_and_on_the_length() {
        let text = [b'A'; LONGEST];
        let mut marks = HashSet::new();
        for length in 0..=LONGEST {
            assert!(marks.insert(format!("{:?}", SignatureMark::of(&text[..length]))), "{length}");
        }
        for changed in 0..LONGEST {
            let mut other = text;
            other[changed] = b'B';
            assert!(marks.insert(format!("{:?}", SignatureMark::of(&other))), "octet {changed}");
        }
        assert_eq!(SignatureMark::of(&[text.as_slice(), b"A"].concat()), None);
        // What stands behind the end does not count as if it were there.
        assert_ne!(SignatureMark::of(b"AA"), SignatureMark::of(b"AA\0"));
    }

    /// Sixty-four places for a thousand marks: each gets some, also of texts that differ in one bit.
    #[test]
    fn places_are_spread_evenly() {
        let (mut high, mut low) = ([0; 64], [0; 64]);
        for n in 0..1000_u64 {
            let mark = SignatureMark::of(&n.to_le_bytes()).unwrap();
            let [a, b] = mark.places();
            high[(a >> 58) as usize] += 1;
            low[(b % 64) as usize] += 1;
        }
        for count in high.into_iter().chain(low) {
            assert!((1..60).contains(&count), "{high:?} {low:?}");
        }
    }
}
