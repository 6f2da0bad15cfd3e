//! Random bytes, SHA-256, HMAC-SHA-256, and comparison in constant time.

#[cfg(feature = "endpoints")]
use std::sync::OnceLock;

use aws_lc_rs::{constant_time, digest, hmac};

use crate::support::base64url;

/// The error if the operating system cannot supply random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operating system cannot supply random bytes")]
pub(crate) struct NoRandomness;

/// Returns random bytes from the operating system.
///
/// The generator of the crypto library is not used, because its first use takes 60 ms for seeding. (Signing
/// in the library still uses it.)
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Returns a unique id: 128 random bits in base64url, 22 characters.
pub(crate) fn random_id() -> Result<String, NoRandomness> {
    random::<16>().map(base64url::encode)
}

/// Returns the SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    fixed(&digest::digest(&digest::SHA256, bytes))
}

/// Returns the SHA-256 of several texts. Each is preceded by its length, so that `["a", "bc"]` and `["ab",
/// "c"]` differ.
pub(crate) fn sha256_of_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    fixed(&context.finish())
}

/// Returns a digest of random ids for logs: half of the SHA-256 of some texts. It can be computed from the texts, so it
/// is not for ids that can be guessed.
#[cfg(feature = "endpoints")]
pub(crate) fn short_digest(texts: &[&str]) -> String {
    let digest = sha256_of_parts(texts.iter().copied());
    hex(digest.first_chunk::<16>().unwrap_or(&[0; 16]))
}

/// Returns a pseudonym for logs, under a random key of this process. `None` if there is no randomness.
#[cfg(feature = "endpoints")]
pub(crate) fn pseudonym(texts: &[&str]) -> Option<String> {
    static KEY: OnceLock<Option<HmacKey>> = OnceLock::new();
    let key = KEY.get_or_init(|| random::<32>().ok().map(|key| HmacKey::new(&key))).as_ref()?;
    let mac = key.mac_of_parts(texts.iter().copied());
    mac.first_chunk::<16>().map(|mac| hex(mac))
}

/// A key for HMAC-SHA-256 (RFC 2104).
pub(crate) struct HmacKey(hmac::Key);

impl HmacKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Returns the MAC of several texts. Each is preceded by its length, as in [`sha256_of_parts`].
    pub(crate) fn mac_of_parts<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        #[expect(clippy::expect_used, reason = "a default would be the same MAC for all texts")]
        *context.sign().as_ref().first_chunk().expect("the MAC has 32 bytes")
    }
}

/// Returns the SHA-256 of a text in hexadecimal, as `printf %s TEXT | sha256sum` prints it.
#[cfg(feature = "trust")]
pub(crate) fn sha256_hex(text: &str) -> String {
    hex(&sha256(text.as_bytes()))
}

/// Returns `bytes` in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fixed(digest: &digest::Digest) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "a default would be the same digest for all texts")]
    *digest.as_ref().first_chunk().expect("the digest has 32 bytes")
}

/// Returns whether two byte strings are equal. For equal lengths, the time does not depend on the contents.
pub(crate) fn equal(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_that_of_fips_180() {
        let abc = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        assert_eq!(base64url::encode(sha256(b"abc")), abc);
    }

    #[cfg(feature = "trust")]
    #[test]
    fn sha256_hex_is_that_of_sha256sum() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex("abc"), abc);
    }

    #[test]
    fn boundaries_of_parts_count() {
        assert_ne!(sha256_of_parts(["a", "bc"]), sha256_of_parts(["ab", "c"]));
        assert_ne!(sha256_of_parts(["a", ""]), sha256_of_parts(["a"]));
        assert_eq!(sha256_of_parts(["abc"]), sha256(b"\0\0\0\0\0\0\0\x03abc"));
    }

    #[test]
    fn hmac_is_that_of_python() {
        // hmac.new(b"key", b"\0\0\0\0\0\0\0\x03abc", "sha256")
        let mac = HmacKey::new(b"key").mac_of_parts(["abc"]);
        assert_eq!(hex(&mac), "1d53d5920fce3f0b311c9f8ecf0fceaba4b4a87d4ae1c9bc98becb0d165135e5");
    }

    #[cfg(feature = "endpoints")]
    #[test]
    fn pseudonyms_cannot_be_computed_from_texts() {
        let of = |text| pseudonym(&["https://id.example", text]);
        assert!(of("alice").is_some() && of("alice") == of("alice") && of("alice") != of("bob"));
        assert_ne!(of("alice"), Some(short_digest(&["https://id.example", "alice"])));
    }

    #[test]
    fn random_bytes_differ_each_time() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert_eq!((one.len(), one == other), (22, false));
    }

    #[test]
    fn equal_compares_all_bytes_and_the_length() {
        assert!(equal(b"", b"") && equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd") && !equal(b"abc", b"ab"));
    }
}
