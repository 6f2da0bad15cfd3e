//! Key management: the content encryption key, from the encrypted key of a token (RFC 7518 §4).

use aws_lc_rs::agreement::{self, UnparsedPublicKey};
use aws_lc_rs::digest;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesBlockCipher, AesKek, KeyWrap};
use aws_lc_rs::rsa::{OaepAlgorithm, OaepPrivateDecryptingKey};
use zeroize::Zeroizing;

use super::key::{Curve, KeyAlgorithm, PrivateKey};
use super::{Agreement, DecryptionKey, Header, Jwe};

/// The number of bytes that key wrapping adds (RFC 3394 §2.2.1).
const WRAP: usize = 8;

impl DecryptionKey {
    /// Returns whether the key is on the curve of the token's ephemeral key; for keys without a curve, whether there
    /// is none.
    pub(super) fn is_on(&self, curve: Option<Curve>) -> bool {
        match &self.private {
            PrivateKey::Rsa(..) => curve.is_none(),
            PrivateKey::Ecdh(own, _) => curve == Some(*own),
        }
    }

    /// Returns the content encryption key of a token, or `None` if it cannot be found out.
    pub(super) fn content_key(&self, jwe: &Jwe<'_>) -> Option<Zeroizing<Vec<u8>>> {
        match &self.private {
            PrivateKey::Rsa(key, padding) => rsa_oaep(key, padding, &jwe.encrypted_key),
            PrivateKey::Ecdh(_, key) => ecdh_es(key, &jwe.header, &jwe.encrypted_key),
        }
    }
}

fn rsa_oaep(
    key: &OaepPrivateDecryptingKey,
    padding: &'static OaepAlgorithm,
    encrypted: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    // Checked first, because the private operation is expensive.
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
    let content_length = header.encryption.key_length();
    let (wrap, length) = match header.algorithm {
        KeyAlgorithm::EcdhEsA128Kw => (Some(&AES_128), 16),
        KeyAlgorithm::EcdhEsA256Kw => (Some(&AES_256), 32),
        _ => (None, content_length),
    };
    if encrypted.len() != wrap.map_or(0, |_| content_length + WRAP) {
        return None;
    }
    let (_, point) = header.agreement.epk.as_ref()?;
    // The library refuses a point that is not on the curve of the key (RFC 7748 §6.1 for X25519: a result of zero).
    let point = UnparsedPublicKey::new(key.algorithm(), point);
    let agreed = agreement::agree(key, point, (), |secret| {
        let name = if wrap.is_some() { header.algorithm.name() } else { header.encryption.name() };
        Ok(concat_kdf(secret, name, &header.agreement, length))
    });
    match wrap {
        None => agreed.ok(),
        Some(cipher) => unwrap(cipher, &*agreed.ok()?, encrypted),
    }
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
