//! [`Mac`]: a keyed hash of a token or request, used as a cache key instead of the bytes themselves.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::support::crypto;

/// The AES-GMAC of some bytes under a random key of this process. Nothing is encrypted, all bytes are
/// associated data, and the nonce is fixed.
///
/// With a fixed nonce it is a keyed universal hash: two texts of up to 32 KiB, even chosen by an attacker,
/// have the same MAC with a probability below 2⁻¹¹⁶, as long as no MAC leaves the process. It takes a sixth
/// of the time of HMAC-SHA-256. See [manual::threats](crate::manual::threats).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac([u8; 16]);

/// Prints no bytes, because MACs must not leave the process, not even when a map with MACs as keys is printed.
impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac")
    }
}

static KEY: LazyLock<LessSafeKey> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "without random numbers there is no secret key")]
    let key = crypto::random::<32>().expect("the system has random numbers");
    #[expect(clippy::expect_used, reason = "the key has the length that the algorithm needs")]
    let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes");
    LessSafeKey::new(key)
});

impl Mac {
    /// Computes the MAC of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = KEY.seal_in_place_separate_tag(nonce, Aad::from(bytes), &mut []);
        #[expect(clippy::expect_used, reason = "it fails only for more than 2⁶¹ bytes")]
        let tag = tag.expect("the text fits into memory");
        #[expect(clippy::expect_used, reason = "a default would be the same MAC for all bytes")]
        Self(*tag.as_ref().first_chunk().expect("the tag has 16 bytes"))
    }
}

/// Hashes the first 8 bytes, which an attacker cannot predict.
impl Hash for Mac {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        to.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// The hash builder for maps whose keys are MACs.
pub(crate) type BuildMacHasher = BuildHasherDefault<MacHasher>;

/// A hasher that uses the first bytes of a MAC as its hash.
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
    fn mac_depends_on_every_byte_and_length() {
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
