//! [`Mark`]: stands for bytes that were seen before, without keeping them.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::support::crypto;

/// The AES-GMAC of some bytes under a random key of this process: nothing is encrypted, all bytes are
/// associated data, and the nonce is always the same.
///
/// Used so, it is a keyed universal hash: two texts that an attacker chooses have the same mark with a
/// chance of about 2⁻¹¹⁸ (16 KiB), as long as no mark leaves the process. It is the fastest such hash that
/// the crypto library has (a sixth of the time of HMAC-SHA-256). See `manual/threats.md`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark([u8; 16]);

/// Tells nothing: marks stay in the process, also where a map that has them as keys is printed.
impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark")
    }
}

static KEY: LazyLock<LessSafeKey> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "without random numbers no secret can be kept")]
    let key = crypto::random::<32>().expect("the system has random numbers");
    #[expect(clippy::expect_used, reason = "the key has the length of the algorithm")]
    let key = UnboundKey::new(&AES_256_GCM, &key).expect("a key of 32 bytes");
    LessSafeKey::new(key)
});

impl Mark {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = KEY.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut []);
        #[expect(clippy::expect_used, reason = "it fails for more than 2⁶¹ bytes alone")]
        let tag = tag.expect("a text that fits into memory");
        #[expect(clippy::expect_used, reason = "a default would be one mark for all bytes")]
        Self(*tag.as_ref().first_chunk().expect("a tag of 16 bytes"))
    }
}

/// By its first bytes, which nobody outside can foresee.
impl Hash for Mark {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        to.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// For maps whose keys are marks.
pub(crate) type MarkHasher = BuildHasherDefault<AsIs>;

/// Hands the first bytes of a mark on as its hash.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn different_bytes_have_different_marks(
            one in proptest::collection::vec(any::<u8>(), 0..100),
            other in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            prop_assert_eq!(Mark::of(&one) == Mark::of(&other), one == other);
        }
    }

    #[test]
    fn mark_is_printed_without_its_bytes() {
        assert_eq!(format!("{:?}", [Mark::of(b"one"), Mark::of(b"other")]), "[Mark, Mark]");
    }

    #[test]
    fn every_byte_and_the_length_count() {
        for length in [0, 1, 15, 16, 17, 800, 16 * 1024] {
            let text = vec![b'a'; length];
            let mut marks = HashSet::from([Mark::of(&text)]);
            let mut texts = 1;
            for at in (0..length).step_by(length / 100 + 1) {
                let mut other = text.clone();
                other[at] ^= 1;
                marks.insert(Mark::of(&other));
                texts += 1;
            }
            for more in [&b"\0"[..], b"a", b"aa"] {
                marks.insert(Mark::of(&[&text, more].concat()));
                texts += 1;
            }
            assert_eq!(marks.len(), texts, "{length}");
        }
    }
}
