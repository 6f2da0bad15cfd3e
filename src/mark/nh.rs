//! [`Sums`]: the universal hash NH (RFC 4418 §5.2) with words of 64 bits, twice over with the key moved
//! on in between (the Toeplitz construction of the same paper).

use std::sync::LazyLock;

use super::random;

/// Four words at a time: as many as the sums of both passes leave registers for.
const CHUNK: usize = 32;

type Words = [u64; CHUNK / size_of::<u64>()];

/// How many chunks the key is long enough for.
const CHUNKS: usize = 256;

/// How many octets, if they are added at once.
pub(super) const LONGEST: usize = CHUNKS * CHUNK;

pub(super) type Pair = [u64; 2];

/// As many words as a text may have, and more for the second pass.
static KEY: LazyLock<Box<[Words]>> =
    LazyLock::new(|| random((CHUNKS + 1) * CHUNK).as_chunks().0.into());

/// Of two different rows of as many chunks, one key in 2¹²⁸ gives both the same sums.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    of_passes: [u128; 2],
    chunks: usize,
}

impl Sums {
    /// Those of a text by itself, and of how many chunks. `None` if the key is too short.
    #[inline]
    pub(super) fn of(text: &[u8]) -> Option<([Pair; 2], u32)> {
        if text.len() > LONGEST {
            return None;
        }
        let mut sums = Self::default();
        sums.add(text);
        sums.finish()
    }

    /// Those of nothing, but as if a text of so many octets had been added.
    #[inline]
    pub(super) fn behind(octets: usize) -> Self {
        Self { of_passes: [0; 2], chunks: octets.div_ceil(CHUNK) }
    }

    /// Adds a text. Its last chunk is what it ends with, even if part of that was in the one before: so
    /// only a text that is shorter than a chunk is copied. How texts became chunks is told by their
    /// lengths alone.
    #[inline]
    pub(super) fn add(&mut self, text: &[u8]) {
        self.add_under(&KEY, text);
    }

    fn add_under(&mut self, key: &[Words], text: &[u8]) {
        let key = key.get(self.chunks..).unwrap_or_default();
        let (chunks, rest) = text.as_chunks();
        let mut sums = self.of_passes;
        for ((chunk, key), next) in chunks.iter().zip(key).zip(key.iter().skip(1)) {
            sums = with_chunk(sums, chunk, key, next);
        }
        if !rest.is_empty()
            && let Some([key, next, ..]) = key.get(chunks.len()..)
        {
            sums = with_chunk(sums, end(text, &mut [0; CHUNK]), key, next);
        }
        self.of_passes = sums;
        self.chunks += text.len().div_ceil(CHUNK);
    }

    /// `None` where the key was too short.
    #[inline]
    pub(super) fn finish(self) -> Option<([Pair; 2], u32)> {
        (self.chunks <= CHUNKS).then(|| (self.of_passes.map(halves), self.chunks as u32))
    }
}

/// Both passes in one go: the words are loaded once. Handed on by value, sums stay in registers.
#[inline]
fn with_chunk(
    [mut first, mut second]: [u128; 2],
    chunk: &[u8; CHUNK],
    [i, j, k, l]: &Words,
    [m, n, ..]: &Words,
) -> [u128; 2] {
    if let ([a, b, c, d], _) = chunk.as_chunks() {
        first = first.wrapping_add(product([a, b], [*i, *j]));
        second = second.wrapping_add(product([a, b], [*k, *l]));
        first = first.wrapping_add(product([c, d], [*k, *l]));
        second = second.wrapping_add(product([c, d], [*m, *n]));
    }
    [first, second]
}

pub(super) fn halves(sum: u128) -> Pair {
    [(sum >> 64) as u64, sum as u64]
}

#[inline]
pub(super) fn product([a, b]: [&[u8; 8]; 2], [with_a, with_b]: Pair) -> u128 {
    let with = |word: &[u8; 8], key| u64::from_le_bytes(*word).wrapping_add(key);
    u128::from(with(a, with_a)) * u128::from(with(b, with_b))
}

/// What a text ends with; a shorter one stands at the front of `room`.
#[inline]
pub(super) fn end<'t, const N: usize>(text: &'t [u8], room: &'t mut [u8; N]) -> &'t [u8; N] {
    text.last_chunk().unwrap_or_else(|| {
        room.iter_mut().zip(text).for_each(|(octet, from)| *octet = *from);
        room
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums of whole chunks, as the paper writes them.
    fn defined(key: &[Words], text: &[u8]) -> [Pair; 2] {
        let word = |octets: &[u8]| u64::from_le_bytes(octets.try_into().unwrap());
        let words: Vec<u64> = text.chunks(8).map(word).collect();
        [0, 2].map(|moved| {
            let pairs = words.chunks(2).zip(key.as_flattened()[moved..].chunks(2));
            let product = |(text, key): (&[u64], &[u64])| {
                u128::from(text[0].wrapping_add(key[0])) * u128::from(text[1].wrapping_add(key[1]))
            };
            halves(pairs.map(product).fold(0, u128::wrapping_add))
        })
    }

    fn key() -> Vec<Words> {
        let word = |nth: u64| u64::MAX / (nth + 1) - nth;
        let words: Vec<u64> = (0..(CHUNKS as u64 + 1) * 4).map(word).collect();
        words.as_chunks().0.to_vec()
    }

    #[test]
    fn sums_are_what_the_definition_says() {
        let key = key();
        let text: Vec<u8> = (0..LONGEST).map(|nth| (nth * 7 % 251) as u8).collect();
        let zeros = [0; CHUNK];
        for (length, hashed) in [
            (0, vec![]),
            (9, [&text[..9], &zeros[9..]].concat()),
            (32, text[..32].to_vec()),
            (87, [&text[..64], &text[55..87]].concat()),
            (343, [&text[..320], &text[311..343]].concat()),
            (LONGEST, text.clone()),
        ] {
            let mut sums = Sums::default();
            sums.add_under(&key, &text[..length]);
            let chunks = (hashed.len() / CHUNK) as u32;
            assert_eq!(sums.finish(), Some((defined(&key, &hashed), chunks)), "{length}");
        }
    }

    #[test]
    fn texts_are_added_behind_each_other_as_far_as_the_key_goes() {
        let key = key();
        let text = [7; LONGEST];
        let mut sums = Sums::default();
        sums.add_under(&key, &text[..33]);
        sums.add_under(&key, &text[..64]);
        sums.add_under(&key, b"");
        assert_eq!(sums.finish(), Some((defined(&key, &text[..4 * CHUNK]), 4)));
        sums.add_under(&key, &text[4 * CHUNK..]);
        assert_eq!(sums.finish(), Some((defined(&key, &text), CHUNKS as u32)));
        sums.add_under(&key, b"a");
        assert_eq!(sums.finish(), None);
    }
}
