//! Key management: the content encryption key, from the encrypted key of a token (RFC 7518 §4).

#[cfg(feature = "josekit")]
use std::panic::{AssertUnwindSafe, catch_unwind};

use aws_lc_rs::agreement::{self, UnparsedPublicKey};
use aws_lc_rs::digest;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesBlockCipher, AesKek, KeyWrap};
use aws_lc_rs::rsa::{OaepAlgorithm, OaepPrivateDecryptingKey};
#[cfg(feature = "josekit")]
use josekit::jwe::{JweContentEncryption, JweDecrypter, JweHeader};
use zeroize::Zeroizing;

#[cfg(feature = "josekit")]
use super::content::ContentEncryption;
use super::key::{Curve, KeyAlgorithm, PrivateKey};
use super::{Agreement, DecryptionKey, Header, Jwe};
#[cfg(feature = "josekit")]
use crate::support::base64url;

/// The number of bytes that key wrapping adds (RFC 3394 §2.2.1).
const WRAP: usize = 8;

impl DecryptionKey {
    /// Returns whether the key is on the curve of the token's ephemeral key; for keys without a curve, whether there
    /// is none.
    pub(super) fn is_on(&self, curve: Option<Curve>) -> bool {
        match &self.private {
            PrivateKey::Rsa(..) => curve.is_none(),
            PrivateKey::Ecdh(own, _) => curve == Some(*own),
            #[cfg(feature = "josekit")]
            PrivateKey::Josekit(_) => curve.is_some() != self.algorithm().is_rsa(),
        }
    }

    /// Returns the content encryption key of a token, or `None` if it cannot be found out.
    pub(super) fn content_key(&self, jwe: &Jwe<'_>) -> Option<Zeroizing<Vec<u8>>> {
        // Checked first, because the private operation is expensive.
        if !jwe.header.fits(jwe.encrypted_key.len()) {
            return None;
        }
        match &self.private {
            PrivateKey::Rsa(key, padding) => rsa_oaep(key, padding, &jwe.encrypted_key),
            PrivateKey::Ecdh(_, key) => ecdh_es(key, &jwe.header, &jwe.encrypted_key),
            #[cfg(feature = "josekit")]
            PrivateKey::Josekit(key) => josekit(&**key, jwe),
        }
    }
}

impl Header {
    /// Returns whether an encrypted key can have this length, in bytes.
    fn fits(&self, length: usize) -> bool {
        match self.algorithm {
            KeyAlgorithm::RsaOaep | KeyAlgorithm::RsaOaep256 => length > 0,
            KeyAlgorithm::EcdhEs => length == 0,
            KeyAlgorithm::EcdhEsA128Kw | KeyAlgorithm::EcdhEsA256Kw => {
                length == self.encryption.key_length() + WRAP
            }
        }
    }
}

fn rsa_oaep(
    key: &OaepPrivateDecryptingKey,
    padding: &'static OaepAlgorithm,
    encrypted: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    if encrypted.len() != key.key_size_bytes() {
        return None;
    }
    let mut decrypted = Zeroizing::new(vec![0; key.min_output_size()]);
    let length = key.decrypt(padding, encrypted, &mut decrypted, None).ok()?.len();
    decrypted.truncate(length);
    Some(decrypted)
}

/// Agrees on a key with the sender (RFC 7518 §4.6). It is the content key itself, or the key that unwraps it.
fn ecdh_es(
    key: &agreement::PrivateKey,
    header: &Header,
    encrypted: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (wrap, length) = match header.algorithm {
        KeyAlgorithm::EcdhEsA128Kw => (Some(&AES_128), 16),
        KeyAlgorithm::EcdhEsA256Kw => (Some(&AES_256), 32),
        _ => (None, header.encryption.key_length()),
    };
    let (_, point) = header.agreement.epk.as_ref()?;
    // The library refuses a point that is not on the curve of the key (RFC 7748 §6.1 for X25519: a result of zero).
    let point = UnparsedPublicKey::new(key.algorithm(), point);
    let agreed = agreement::agree(key, point, (), |secret| {
        let name = if wrap.is_some() { header.algorithm.name() } else { header.encryption.name() };
        Ok(concat_kdf(secret, name, &header.agreement, length))
    });
    match wrap {
        None => agreed.ok(),
        Some(cipher) => unwrap(cipher, &agreed.ok()?, encrypted),
    }
}

/// Asks a decrypter of the user for the content key. It gets the header as sent, after all checks.
#[cfg(feature = "josekit")]
fn josekit(key: &dyn JweDecrypter, jwe: &Jwe<'_>) -> Option<Zeroizing<Vec<u8>>> {
    use josekit::jwe::enc;
    let encryption: &dyn JweContentEncryption = match jwe.header.encryption {
        ContentEncryption::A128Gcm => &enc::A128GCM,
        ContentEncryption::A256Gcm => &enc::A256GCM,
        ContentEncryption::A128CbcHs256 => &enc::A128CBC_HS256,
        ContentEncryption::A256CbcHs512 => &enc::A256CBC_HS512,
    };
    let header = JweHeader::from_bytes(&base64url::decode(jwe.content.authenticated)?).ok()?;
    let encrypted = Some(&*jwe.encrypted_key).filter(|key| !key.is_empty());
    // Code of the user: its panic must not end the connection, with all its requests.
    let decrypt = AssertUnwindSafe(|| {
        let content_key = key.decrypt(encrypted, encryption, &header).ok()?;
        Some(Zeroizing::new(content_key.into_owned()))
    });
    catch_unwind(decrypt).ok().flatten()
}

fn unwrap(
    cipher: &'static AesBlockCipher,
    key: &[u8],
    encrypted: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut content_key = Zeroizing::new(vec![0; encrypted.len()]);
    let length = AesKek::new(cipher, key).ok()?.unwrap(encrypted, &mut content_key).ok()?.len();
    content_key.truncate(length);
    Some(content_key)
}

/// Derives a key of `length` bytes from the shared secret, by the Concat KDF with SHA-256 (RFC 7518 §4.6.2).
fn concat_kdf(
    secret: &[u8],
    algorithm: &str,
    agreement: &Agreement,
    length: usize,
) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(vec![0; length]);
    for (block, round) in key.chunks_mut(digest::SHA256_OUTPUT_LEN).zip(1_u32..) {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&round.to_be_bytes());
        hash.update(secret);
        for part in [algorithm.as_bytes(), &agreement.apu, &agreement.apv] {
            hash.update(&(part.len() as u32).to_be_bytes());
            hash.update(part);
        }
        hash.update(&(length as u32 * 8).to_be_bytes());
        let hash = hash.finish();
        block.iter_mut().zip(hash.as_ref()).for_each(|(byte, derived)| *byte = *derived);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::base64url;

    /// RFC 7518 appendix C, from the shared secret `Z`.
    #[test]
    fn key_derivation_is_that_of_rfc_7518() {
        let secret = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49,
            110, 163, 218, 128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        let parties = Agreement { epk: None, apu: b"Alice".to_vec(), apv: b"Bob".to_vec() };
        let key = concat_kdf(&secret, "A128GCM", &parties, 16);
        assert_eq!(base64url::encode(&*key), "VqqN6vgjbSBcIijNcacQGg");
    }

    #[test]
    fn long_key_is_derived_in_two_rounds() {
        let key = |length| concat_kdf(b"secret", "A256CBC-HS512", &Agreement::default(), length);
        let (long, short) = (key(64), key(32));
        assert_eq!(long.len(), 64);
        assert_ne!(long[..32], short[..], "the length is an input");
        assert_ne!(long[..32], long[32..]);
    }
}
