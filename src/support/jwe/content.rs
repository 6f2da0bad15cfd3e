//! [`ContentEncryption`]: the algorithms of `enc` (RFC 7518 §5).

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use crate::support::crypto;

/// An algorithm of the header's `enc`. The algorithms with 192 bits are left out: the crypto library has no key
/// wrap of this size, and providers use the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentEncryption {
    A128Gcm,
    A256Gcm,
    A128CbcHs256,
    A256CbcHs512,
}

/// The block size of AES, and the length of an IV of CBC, in bytes.
const BLOCK: usize = 16;

impl ContentEncryption {
    const ALL: [Self; 4] = [Self::A128Gcm, Self::A256Gcm, Self::A128CbcHs256, Self::A256CbcHs512];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A128Gcm => "A128GCM",
            Self::A256Gcm => "A256GCM",
            Self::A128CbcHs256 => "A128CBC-HS256",
            Self::A256CbcHs512 => "A256CBC-HS512",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encryption| encryption.name() == name)
    }

    /// Returns the length of the content encryption key, in bytes.
    pub(super) fn key_length(self) -> usize {
        match self {
            Self::A128Gcm => 16,
            Self::A256Gcm | Self::A128CbcHs256 => 32,
            Self::A256CbcHs512 => 64,
        }
    }

    fn is_gcm(self) -> bool {
        matches!(self, Self::A128Gcm | Self::A256Gcm)
    }

    /// Returns whether IV, ciphertext and tag have the lengths that the algorithm makes. A shorter tag would be
    /// easier to guess.
    pub(super) fn fits(self, content: &Content<'_>) -> bool {
        let tag = if self == Self::A256CbcHs512 { 32 } else { 16 };
        let length = content.ciphertext.len();
        content.tag.len() == tag
            && match self.is_gcm() {
                true => content.iv.len() == aead::NONCE_LEN,
                false => content.iv.len() == BLOCK && length > 0 && length.is_multiple_of(BLOCK),
            }
    }

    /// Decrypts the content, after its tag was verified. Every failure has the same result.
    pub(super) fn open(self, key: &[u8], content: &Content<'_>) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::A128Gcm => open_gcm(&aead::AES_128_GCM, key, content),
            Self::A256Gcm => open_gcm(&aead::AES_256_GCM, key, content),
            Self::A128CbcHs256 => open_cbc(&cipher::AES_128, hmac::HMAC_SHA256, key, content),
            Self::A256CbcHs512 => open_cbc(&cipher::AES_256, hmac::HMAC_SHA512, key, content),
        }
    }
}

/// The encrypted content, decoded, and the data that the tag also authenticates.
pub(super) struct Content<'t> {
    pub(super) iv: Vec<u8>,
    pub(super) ciphertext: Vec<u8>,
    pub(super) tag: Vec<u8>,
    /// The encoded header, as sent (RFC 7516 §5.2, step 14).
    pub(super) authenticated: &'t [u8],
}

fn open_gcm(
    algorithm: &'static aead::Algorithm,
    key: &[u8],
    content: &Content<'_>,
) -> Option<Zeroizing<Vec<u8>>> {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(&content.iv).ok()?;
    let mut text = Zeroizing::new([&*content.ciphertext, &content.tag].concat());
    let length = key.open_in_place(nonce, Aad::from(content.authenticated), &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

/// Opens AES-CBC with HMAC (RFC 7518 §5.2.2.2). Verifies the tag before it decrypts, because errors of the
/// padding would reveal the content.
fn open_cbc(
    algorithm: &'static cipher::Algorithm,
    hash: hmac::Algorithm,
    key: &[u8],
    content: &Content<'_>,
) -> Option<Zeroizing<Vec<u8>>> {
    let (mac_key, key) = key.split_at(key.len() / 2);
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hash, mac_key));
    let authenticated_bits = (content.authenticated.len() as u64 * 8).to_be_bytes();
    for part in [content.authenticated, &content.iv, &content.ciphertext, &authenticated_bits] {
        mac.update(part);
    }
    // The tag is the first half.
    let mac = mac.sign();
    let (expected, _) = mac.as_ref().split_at(mac.as_ref().len() / 2);
    if !crypto::equal(expected, &content.tag) {
        return None;
    }
    let key = UnboundCipherKey::new(algorithm, key).ok()?;
    let iv = FixedLength::from(content.iv.first_chunk::<BLOCK>()?);
    let mut text = Zeroizing::new(content.ciphertext.clone());
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
    let length = key.decrypt(&mut text, DecryptionContext::Iv128(iv)).ok()?.len();
    text.truncate(length);
    Some(text)
}
