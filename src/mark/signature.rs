//! [`SignatureMark`]: recognises a signature that was seen before, without keeping it.
//!
//! A mark is the universal hash NH (RFC 4418 §5.2) with words of 64 bits, twice over with the key
//! moved on in between (the Toeplitz construction of the same paper). For any two different texts
//! of one length, one key in 2¹²⁸ gives both the same mark: that is proven, and rests on nothing but
//! the key, which is drawn when the process starts and never leaves it.
//!
//! Where a signature is looked for follows from its end, under a key of its own: most tokens that are
//! refused are found nowhere and need no mark, and how long a search takes tells nothing of marks.

use std::sync::LazyLock;

use super::random;

/// The longest signature that gets a mark: that of an RSA key of 8192 bits.
const LONGEST: usize = 1366;

/// Four words at a time: as many as the sums of both passes leave registers for.
const CHUNK: usize = 32;
const CHUNK_WORDS: usize = CHUNK / size_of::<u64>();

/// A word for each word of text, and as many more for the second pass.
const WORDS: usize = (LONGEST.div_ceil(CHUNK) + 1) * CHUNK_WORDS;

/// Signatures differ in their ends as much as anywhere: 24 characters have 144 bits.
const END: usize = 24;

type Pair = [u64; 2];

/// What marks are made with.
struct Keys {
    sums: Box<[u64; WORDS]>,
    places: [Pair; 2],
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let places = std::array::from_fn(|_| [random(), random()]);
    Keys { sums: Box::new(std::array::from_fn(|_| random())), places }
});

/// A signature that is looked for, with bits to place it by that are spread evenly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signature<'t> {
    text: &'t [u8],
    pub(crate) places: Pair,
}

/// Stands for a signature, in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignatureMark {
    sums: [u128; 2],
    length: usize,
}

impl<'t> Signature<'t> {
    /// `None` when the text is longer than signatures are.
    pub(crate) fn of(text: &'t [u8]) -> Option<Self> {
        (text.len() <= LONGEST).then(|| Self { text, places: places(text) })
    }

    /// Made anew each time: whoever needs it more than once keeps it.
    pub(crate) fn mark(&self) -> SignatureMark {
        SignatureMark::under(&KEYS.sums, self.text)
    }
}

/// The same hash, once, of the end and the length.
fn places(text: &[u8]) -> Pair {
    let mut room = [0; END];
    let ([a, b, c], _) = end(text, &mut room).as_chunks() else { return Pair::default() };
    let [key, other] = KEYS.places;
    let length = text.len().to_le_bytes();
    let spread = product([a, b], key).wrapping_add(product([c, &length], other));
    let (high, low) = ((spread >> 64) as u64, spread as u64);
    [high ^ low, low.wrapping_add(high.rotate_left(32))]
}

impl SignatureMark {
    /// The last chunk is what the text ends with, even if part of it was in the one before: so only
    /// a text that is shorter than a chunk is copied.
    fn under(keys: &[u64; WORDS], text: &[u8]) -> Self {
        let mut room = [0; CHUNK];
        let (chunks, _) = text.as_chunks();
        let (keys, _) = keys.as_chunks();
        let mut sums = [0; 2];
        for ((chunk, key), next) in chunks.iter().zip(keys).zip(keys.iter().skip(1)) {
            sums = with_chunk(sums, chunk, key, next);
        }
        if let Some([key, next, ..]) = keys.get(chunks.len()..) {
            sums = with_chunk(sums, end(text, &mut room), key, next);
        }
        Self { sums, length: text.len() }
    }
}

/// Both passes in one go: the words are loaded once.
#[inline]
fn with_chunk(
    [mut first, mut second]: [u128; 2],
    chunk: &[u8; CHUNK],
    [i, j, k, l]: &[u64; CHUNK_WORDS],
    [m, n, ..]: &[u64; CHUNK_WORDS],
) -> [u128; 2] {
    if let ([a, b, c, d], _) = chunk.as_chunks() {
        first = first.wrapping_add(product([a, b], [*i, *j]));
        second = second.wrapping_add(product([a, b], [*k, *l]));
        first = first.wrapping_add(product([c, d], [*k, *l]));
        second = second.wrapping_add(product([c, d], [*m, *n]));
    }
    [first, second]
}

fn product([a, b]: [&[u8; 8]; 2], [with_a, with_b]: Pair) -> u128 {
    let with = |word: &[u8; 8], key| u64::from_le_bytes(*word).wrapping_add(key);
    u128::from(with(a, with_a)) * u128::from(with(b, with_b))
}

/// What a text ends with; a shorter one stands at the front of `room`.
fn end<'t, const N: usize>(text: &'t [u8], room: &'t mut [u8; N]) -> &'t [u8; N] {
    text.last_chunk().unwrap_or_else(|| {
        room.iter_mut().zip(text).for_each(|(octet, from)| *octet = *from);
        room
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn mark(text: &[u8]) -> SignatureMark {
        Signature::of(text).unwrap().mark()
    }

    /// The sums of a text that fills its chunks, as the paper writes them.
    fn defined(keys: &[u64], text: &[u8]) -> [u128; 2] {
        let words: Vec<_> =
            text.chunks(8).map(|it| u64::from_le_bytes(it.try_into().unwrap())).collect();
        [0, 2].map(|moved| {
            let pairs = words.chunks(2).zip(keys[moved..].chunks(2));
            let sum = |text: &[u64], key: &[u64]| {
                u128::from(text[0].wrapping_add(key[0])) * u128::from(text[1].wrapping_add(key[1]))
            };
            pairs.map(|(text, key)| sum(text, key)).fold(0, u128::wrapping_add)
        })
    }

    #[test]
    fn a_mark_is_what_the_definition_says() {
        let keys = std::array::from_fn(|nth| u64::MAX / (nth as u64 + 1) - nth as u64);
        let text: Vec<u8> = (0..LONGEST).map(|nth| (nth * 7 % 251) as u8).collect();
        let zeros = [0; CHUNK];
        for (length, hashed) in [
            (0, zeros.to_vec()),
            (9, [&text[..9], &zeros[9..]].concat()),
            (32, [&text[..32], &text[..32]].concat()),
            (87, [&text[..64], &text[55..87]].concat()),
            (343, [&text[..320], &text[311..343]].concat()),
            (LONGEST, [&text[..1344], &text[1334..]].concat()),
        ] {
            let mark = SignatureMark::under(&keys, &text[..length]);
            assert_eq!(mark, SignatureMark { sums: defined(&keys, &hashed), length });
        }
    }

    #[test]
    fn a_mark_depends_on_every_octet_and_on_the_length() {
        let text = [b'A'; LONGEST];
        let mut marks = HashSet::new();
        for length in 0..=LONGEST {
            assert!(marks.insert(format!("{:?}", mark(&text[..length]))), "{length}");
        }
        for changed in 0..LONGEST {
            let mut other = text;
            other[changed] = b'B';
            assert!(marks.insert(format!("{:?}", mark(&other))), "octet {changed}");
        }
        assert!(Signature::of(&[text.as_slice(), b"A"].concat()).is_none());
        // What stands behind the end does not count as if it were there.
        assert_ne!(mark(b"AA"), mark(b"AA\0"));
    }

    #[test]
    fn places_depend_on_the_end_and_on_the_length() {
        let places = |text: &[u8]| Signature::of(text).unwrap().places;
        let text = [b'A'; 100];
        for length in 0..text.len() {
            for changed in 0..length {
                let mut other = text;
                other[changed] = b'B';
                let alike = places(&text[..length]) == places(&other[..length]);
                assert_eq!(alike, changed + END < length, "octet {changed} of {length}");
            }
            assert_ne!(places(&text[..length]), places(&text[..length + 1]));
        }
    }

    /// Sixty-four places for a thousand texts: each gets some, also of texts that differ in one bit.
    #[test]
    fn places_are_spread_evenly() {
        for behind in [0, 10, 60] {
            let (mut high, mut low) = ([0; 64], [0; 64]);
            for n in 0..1000_u64 {
                let text = [&n.to_le_bytes()[..], &vec![0; behind]].concat();
                let [a, b] = Signature::of(&text[..8 + behind.min(END - 8)]).unwrap().places;
                high[(a >> 58) as usize] += 1;
                low[(b % 64) as usize] += 1;
            }
            for count in high.into_iter().chain(low) {
                assert!((1..60).contains(&count), "{high:?} {low:?}");
            }
        }
    }
}
