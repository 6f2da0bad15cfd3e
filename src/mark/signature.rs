//! [`SignatureMark`]: recognises a signature that was seen before, without keeping it.
//!
//! A mark is the universal hash NH (RFC 4418 §5.2) with words of 64 bits, twice over with the key
//! moved on in between (the Toeplitz construction of the same paper). For any two different texts
//! of one length, one key in 2¹²⁸ gives both the same mark: that is proven, and rests on nothing but
//! the key, which is drawn when the process starts and never leaves it.

use std::sync::LazyLock;

use super::random;

/// The longest signature that gets a mark: that of an RSA key of 8192 bits, with the dot before it.
const LONGEST: usize = 1367;

/// Four words at a time: as many as the sums of both passes leave registers for.
const CHUNK: usize = 32;
const CHUNK_WORDS: usize = CHUNK / size_of::<u64>();

/// A word for each word of text, and as many more for the second pass.
const WORDS: usize = (LONGEST.div_ceil(CHUNK) + 1) * CHUNK_WORDS;

pub(super) type Pair = [u64; 2];

static KEY: LazyLock<Box<[u64; WORDS]>> =
    LazyLock::new(|| Box::new(std::array::from_fn(|_| random())));

/// Stands for a signature, in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignatureMark {
    /// In halves, which need no more room than they have bits.
    sums: [Pair; 2],
    length: u32,
}

impl SignatureMark {
    /// `None` when the text is longer than signatures are.
    pub(crate) fn of(signature: &[u8]) -> Option<Self> {
        (signature.len() <= LONGEST).then(|| Self::under(&KEY, signature))
    }

    /// What stands before the signature in a token that ends with it.
    pub(crate) fn before<'t>(&self, token: &'t [u8]) -> Option<&'t [u8]> {
        let (before, end) =
            token.split_at_checked(token.len().checked_sub(self.length as usize)?)?;
        (Self::of(end)? == *self).then_some(before)
    }

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
        Self { sums: sums.map(halves), length: text.len() as u32 }
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

pub(super) fn halves(sum: u128) -> Pair {
    [(sum >> 64) as u64, sum as u64]
}

pub(super) fn product([a, b]: [&[u8; 8]; 2], [with_a, with_b]: Pair) -> u128 {
    let with = |word: &[u8; 8], key| u64::from_le_bytes(*word).wrapping_add(key);
    u128::from(with(a, with_a)) * u128::from(with(b, with_b))
}

/// What a text ends with; a shorter one stands at the front of `room`.
pub(super) fn end<'t, const N: usize>(text: &'t [u8], room: &'t mut [u8; N]) -> &'t [u8; N] {
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
        SignatureMark::of(text).unwrap()
    }

    /// The sums of a text that fills its chunks, as the paper writes them.
    fn defined(keys: &[u64], text: &[u8]) -> [Pair; 2] {
        let words: Vec<_> =
            text.chunks(8).map(|it| u64::from_le_bytes(it.try_into().unwrap())).collect();
        [0, 2].map(|moved| {
            let pairs = words.chunks(2).zip(keys[moved..].chunks(2));
            let sum = |text: &[u64], key: &[u64]| {
                u128::from(text[0].wrapping_add(key[0])) * u128::from(text[1].wrapping_add(key[1]))
            };
            halves(pairs.map(|(text, key)| sum(text, key)).fold(0, u128::wrapping_add))
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
            (LONGEST, [&text[..1344], &text[1335..]].concat()),
        ] {
            let mark = SignatureMark::under(&keys, &text[..length]);
            assert_eq!(
                mark,
                SignatureMark { sums: defined(&keys, &hashed), length: length as u32 }
            );
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
        assert_eq!(SignatureMark::of(&[text.as_slice(), b"A"].concat()), None);
        // What stands behind the end does not count as if it were there.
        assert_ne!(mark(b"AA"), mark(b"AA\0"));
    }

    #[test]
    fn what_precedes_a_signature_is_told_of_the_token_that_ends_with_it_only() {
        let mark = mark(b".signature");
        assert_eq!(mark.before(b"a.b.signature"), Some(&b"a.b"[..]));
        assert_eq!(mark.before(b".signature"), Some(&b""[..]));
        for other in ["a.b.signaturf", "a.b-signature", "signature", "a.b.signature ", "", "."] {
            assert_eq!(mark.before(other.as_bytes()), None, "{other}");
        }
    }
}
