//! [`Mac`]: stands for bytes that were seen before, without keeping them.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::support::crypto;

/// The AES-GMAC of some bytes under a random key of this process: nothing is encrypted, all bytes are
/// associated data, and the nonce is always the same.
///
/// Used so, it is a keyed universal hash: two texts that an attacker chooses have the same mac with a
/// chance of about 2⁻¹¹⁸ (16 KiB), as long as no mac leaves the process. It is the fastest such hash that
/// the crypto library has (a sixth of the time of HMAC-SHA-256). See `manual/threats.md`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac([u8; 16]);

/// Tells nothing: macs stay in the process, also where a map that has them as keys is printed.
impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac")
    }
}

static KEY: LazyLock<LessSafeKey> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "without random numbers no secret can be kept")]
    let key = crypto::random::<32>().expect("the system has random numbers");
    #[expect(clippy::expect_used, reason = "the key has the length of the algorithm")]
    let key = UnboundKey::new(&AES_256_GCM, &key).expect("a key of 32 bytes");
    LessSafeKey::new(key)
});

impl Mac {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = KEY.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut []);
        #[expect(clippy::expect_used, reason = "it fails for more than 2⁶¹ bytes alone")]
        let tag = tag.expect("a text that fits into memory");
        #[expect(clippy::expect_used, reason = "a default would be one mac for all bytes")]
        Self(*tag.as_ref().first_chunk().expect("a tag of 16 bytes"))
    }
}

/// By its first bytes, which nobody outside can foresee.
impl Hash for Mac {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        to.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// For maps whose keys are macs.
pub(crate) type BuildMacHasher = BuildHasherDefault<MacHasher>;

/// Hands the first bytes of a mac on as its hash.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MacHasher(u64);

impl Hasher for MacHasher {
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
        fn different_bytes_have_different_macs(
            one in proptest::collection::vec(any::<u8>(), 0..100),
            other in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            prop_assert_eq!(Mac::of(&one) == Mac::of(&other), one == other);
        }
    }

    #[test]
    fn debug_output_hides_the_mac() {
        assert_eq!(format!("{:?}", [Mac::of(b"one"), Mac::of(b"other")]), "[Mac, Mac]");
    }

    #[test]
    fn every_byte_and_the_length_count() {
        for length in [0, 1, 15, 16, 17, 800, 16 * 1024] {
            let text = vec![b'a'; length];
            let mut macs = HashSet::from([Mac::of(&text)]);
            let mut texts = 1;
            for at in (0..length).step_by(length / 100 + 1) {
                let mut other = text.clone();
                other[at] ^= 1;
                macs.insert(Mac::of(&other));
                texts += 1;
            }
            for more in [&b"\0"[..], b"a", b"aa"] {
                macs.insert(Mac::of(&[&text, more].concat()));
                texts += 1;
            }
            assert_eq!(macs.len(), texts, "{length}");
        }
    }
}
