//! [`EncryptionKey`]: the key pair of a recipient of encrypted tokens, and encryption for it (RFC 7516).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::cipher::{self, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::encoding::{AsBigEndian, AsDer, Curve25519SeedBin, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey,
    PrivateDecryptingKey,
};
use aws_lc_rs::{digest, hmac};
use serde_json::{Map, Value, json};

use super::keys::{base64url, expect_crypto};
use crate::support::crypto;

/// The key pair of a recipient of encrypted tokens (features `testing` and `jwe`).
///
/// The service under test gets the [private key](Self::private_jwk), and the test encrypts with the public
/// one: see [`TokenBuilder::encrypted_for`](super::TokenBuilder::encrypted_for) and
/// [`Client::encrypt_id_tokens`](super::Client::encrypt_id_tokens). Clones are the same key.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use scaikey_auth::testing::{EncryptionKey, Provider};
///
/// let provider = Provider::start().await;
/// let key = EncryptionKey::generate("RSA-OAEP-256").content_encryption("A128CBC-HS256");
/// let token = provider.token().subject("alice").encrypted_for(&key).sign();
/// assert_eq!(token.split('.').count(), 5);
/// # }
/// ```
#[derive(Clone)]
pub struct EncryptionKey {
    pair: Arc<Pair>,
    kid: Arc<str>,
    enc: Arc<str>,
}

struct Pair {
    alg: String,
    /// The private key as a JWK, without `kid`.
    private: Map<String, Value>,
    public: Public,
}

enum Public {
    Rsa(Box<OaepPublicEncryptingKey>),
    /// The curve, and the public key of the recipient.
    Agreement(&'static Curve, Vec<u8>),
}

struct Curve {
    name: &'static str,
    algorithm: &'static agreement::Algorithm,
}

static CURVES: [Curve; 3] = [
    Curve { name: "P-256", algorithm: &ECDH_P256 },
    Curve { name: "P-384", algorithm: &ECDH_P384 },
    Curve { name: "X25519", algorithm: &X25519 },
];

impl EncryptionKey {
    /// Generates a key for this `alg` of RFC 7518 §4.1: `RSA-OAEP`, `RSA-OAEP-256`, `ECDH-ES`,
    /// `ECDH-ES+A128KW` or `ECDH-ES+A256KW`, the last three on P-256. Its `kid` is the name of
    /// the algorithm with a number, which is unique in this process.
    ///
    /// # Panics
    /// Panics for another name.
    pub fn generate(alg: &str) -> Self {
        Self::generate_on(alg, "P-256")
    }

    /// Generates a key as [`generate`](Self::generate) does, on the curve `P-256`, `P-384` or `X25519`. RSA
    /// ignores it.
    ///
    /// # Panics
    /// Panics for another name.
    #[expect(clippy::panic, reason = "an unknown name is a mistake in the test")]
    pub fn generate_on(alg: &str, crv: &str) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (private, public) = match alg {
            "RSA-OAEP" | "RSA-OAEP-256" => rsa(),
            "ECDH-ES" | "ECDH-ES+A128KW" | "ECDH-ES+A256KW" => {
                match CURVES.iter().find(|curve| curve.name == crv) {
                    Some(curve) => curve.generate(),
                    None => panic!("no curve `{crv}`"),
                }
            }
            _ => panic!("no algorithm `{alg}` that encrypts keys"),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let kid = format!("{}-{number}", alg.to_lowercase().replace('+', "-"));
        let pair = Pair { alg: alg.to_owned(), private, public };
        Self { pair: Arc::new(pair), kid: kid.into(), enc: "A256GCM".into() }
    }

    /// Sets the `kid`.
    #[must_use]
    pub fn with_kid(mut self, kid: &str) -> Self {
        self.kid = kid.into();
        self
    }

    /// Sets the `enc` of RFC 7518 §5.1: `A128GCM`, `A256GCM`, `A128CBC-HS256` or `A256CBC-HS512`. Default
    /// `A256GCM`.
    #[must_use]
    pub fn content_encryption(mut self, enc: &str) -> Self {
        self.enc = enc.into();
        self
    }

    /// Returns the `kid`.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns the public key as a JWK (RFC 7517), with `kid`, `use` and `alg`.
    pub fn jwk(&self) -> Value {
        let mut jwk = self.private_jwk();
        if let Value::Object(members) = &mut jwk {
            members.retain(|name, _| !["d", "p", "q", "dp", "dq", "qi"].contains(&name.as_str()));
        }
        jwk
    }

    /// Returns the private key as a JWK, with `kid`, `use` and `alg`, for the service under test.
    pub fn private_jwk(&self) -> Value {
        let mut jwk = self.pair.private.clone();
        jwk.insert("use".to_owned(), "enc".into());
        jwk.insert("kid".to_owned(), (*self.kid).into());
        jwk.insert("alg".to_owned(), self.pair.alg.as_str().into());
        Value::Object(jwk)
    }

    /// Encrypts a text in compact serialisation. The header has `alg`, `enc`, `kid`, `cty: JWT` and, for a key
    /// agreement, `epk`. The members of `header` replace them, and `null` removes one; what they say changes
    /// only the header, but `apu` and `apv` are part of the key agreement. So a test can also make tokens that
    /// a recipient must reject.
    ///
    /// # Panics
    /// Panics if [`content_encryption`](Self::content_encryption) got another name, if `header` is no object,
    /// or if its `apu` or `apv` is not base64url.
    ///
    /// ```
    /// use scaikey_auth::testing::EncryptionKey;
    /// use serde_json::json;
    ///
    /// let key = EncryptionKey::generate("ECDH-ES");
    /// let without_type = key.encrypt("a.b.c", json!({ "cty": null }));
    /// let compressed = key.encrypt("a.b.c", json!({ "zip": "DEF" }));
    /// ```
    pub fn encrypt(&self, text: impl AsRef<[u8]>, header: Value) -> String {
        let Pair { alg, public, .. } = &*self.pair;
        let content = Content::of(&self.enc);
        let mut members = json!({ "alg": alg, "enc": &*self.enc, "kid": &*self.kid, "cty": "JWT" });
        let given = expect_crypto(header.as_object().ok_or("the header is not an object"));
        let (cek, encrypted_key) = match public {
            Public::Rsa(key) => {
                let cek = random(content.key_length);
                let encrypted = encrypt_key(key, alg, &cek);
                (cek, encrypted)
            }
            Public::Agreement(curve, recipient) => {
                let (epk, agreed) = curve.agree(recipient);
                if let Value::Object(members) = &mut members {
                    members.insert("epk".to_owned(), epk);
                }
                let party = |name: &str| given.get(name).map_or_else(Vec::new, decode);
                let derive = |name: &str, length| {
                    concat_kdf(&agreed, name, &party("apu"), &party("apv"), length)
                };
                match alg.as_str() {
                    "ECDH-ES" => (derive(&self.enc, content.key_length), Vec::new()),
                    alg => {
                        let cek = random(content.key_length);
                        let length = if alg.ends_with("A128KW") { 16 } else { 32 };
                        let wrapped = wrap(&derive(alg, length), &cek);
                        (cek, wrapped)
                    }
                }
            }
        };
        if let Value::Object(members) = &mut members {
            members.extend(given.clone());
            members.retain(|_, value| !value.is_null());
        }
        let header = base64url(members.to_string());
        let (iv, text, tag) = content.encrypt(&cek, header.as_bytes(), text.as_ref());
        let parts = [&encrypted_key, &iv, &text, &tag].map(base64url);
        format!("{header}.{}", parts.join("."))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey")
            .field("kid", &self.kid)
            .field("alg", &self.pair.alg)
            .field("enc", &self.enc)
            .finish_non_exhaustive()
    }
}

fn rsa() -> (Map<String, Value>, Public) {
    let key = expect_crypto(PrivateDecryptingKey::generate(KeySize::Rsa2048));
    let public = expect_crypto(OaepPublicEncryptingKey::new(key.public_key()));
    let document = expect_crypto(AsDer::<Pkcs8V1Der<'_>>::as_der(&key));
    let numbers = rsa_numbers(document.as_ref());
    let names = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];
    let mut jwk: Map<_, _> = names
        .iter()
        .zip(numbers)
        .map(|(name, number)| ((*name).to_owned(), base64url(number).into()))
        .collect();
    jwk.insert("kty".to_owned(), "RSA".into());
    (jwk, Public::Rsa(Box::new(public)))
}

/// Returns the numbers of an `RSAPrivateKey` (RFC 8017 §A.1.2) in PKCS #8, without the version.
fn rsa_numbers(document: &[u8]) -> Vec<Vec<u8>> {
    // Sequence { version, algorithm, octets { sequence { version, numbers… } } }: all lengths have two bytes,
    // because each part is longer than 255 bytes.
    let (_, outer) = document.split_at(4 + 3 + 15);
    let (_, mut rest) = outer.split_at(4 + 4 + 3);
    let mut numbers = Vec::new();
    while let [0x02, length, after @ ..] = rest {
        let (length, after) = match (*length, after) {
            (0x82, [high, low, after @ ..]) => {
                (usize::from(u16::from_be_bytes([*high, *low])), after)
            }
            (0x81, [length, after @ ..]) => (usize::from(*length), after),
            (length, after) => (usize::from(length), after),
        };
        let (number, after) = after.split_at(length);
        numbers.push(number.strip_prefix(&[0]).unwrap_or(number).to_vec());
        rest = after;
    }
    numbers
}

fn encrypt_key(key: &OaepPublicEncryptingKey, alg: &str, cek: &[u8]) -> Vec<u8> {
    let hash = if alg == "RSA-OAEP" { &OAEP_SHA1_MGF1SHA1 } else { &OAEP_SHA256_MGF1SHA256 };
    let mut encrypted = vec![0; key.ciphertext_size()];
    expect_crypto(key.encrypt(hash, cek, &mut encrypted, None));
    encrypted
}

impl Curve {
    fn generate(&'static self) -> (Map<String, Value>, Public) {
        let key = expect_crypto(PrivateKey::generate(self.algorithm));
        let public = expect_crypto(key.compute_public_key()).as_ref().to_vec();
        let d = match self.name {
            "X25519" => {
                let seed: Curve25519SeedBin<'_> = expect_crypto(key.as_be_bytes());
                base64url(seed.as_ref())
            }
            _ => {
                let number: EcPrivateKeyBin<'_> = expect_crypto(key.as_be_bytes());
                base64url(number.as_ref())
            }
        };
        let mut jwk = self.jwk(&public);
        jwk.insert("d".to_owned(), d.into());
        (jwk, Public::Agreement(self, public))
    }

    fn jwk(&self, public: &[u8]) -> Map<String, Value> {
        let jwk = match self.name {
            "X25519" => json!({ "kty": "OKP", "crv": self.name, "x": base64url(public) }),
            // An uncompressed point: one byte 04, then x and y of equal length.
            _ => {
                let coordinates = public.get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                json!({ "kty": "EC", "crv": self.name, "x": base64url(x), "y": base64url(y) })
            }
        };
        jwk.as_object().cloned().unwrap_or_default()
    }

    /// Agrees on a secret by a new key. Returns its public part and the secret.
    fn agree(&self, recipient: &[u8]) -> (Value, Vec<u8>) {
        let ephemeral = expect_crypto(PrivateKey::generate(self.algorithm));
        let public = expect_crypto(ephemeral.compute_public_key());
        let recipient = UnparsedPublicKey::new(self.algorithm, recipient);
        let secret = agreement::agree(&ephemeral, recipient, "no agreement", |it| Ok(it.to_vec()));
        (Value::Object(self.jwk(public.as_ref())), expect_crypto(secret))
    }
}

/// Derives a key by the Concat KDF with SHA-256 (RFC 7518 §4.6.2).
fn concat_kdf(secret: &[u8], algorithm: &str, apu: &[u8], apv: &[u8], length: usize) -> Vec<u8> {
    let number = |value: usize| expect_crypto(u32::try_from(value)).to_be_bytes();
    let mut key = Vec::new();
    for round in 1.. {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&number(round));
        hash.update(secret);
        for part in [algorithm.as_bytes(), apu, apv] {
            hash.update(&number(part.len()));
            hash.update(part);
        }
        hash.update(&number(length * 8));
        key.extend_from_slice(hash.finish().as_ref());
        if key.len() >= length {
            break;
        }
    }
    key.truncate(length);
    key
}

/// Wraps a key (RFC 3394).
fn wrap(key: &[u8], cek: &[u8]) -> Vec<u8> {
    let cipher = if key.len() == 16 { &AES_128 } else { &AES_256 };
    let mut wrapped = vec![0; cek.len() + 8];
    expect_crypto(expect_crypto(AesKek::new(cipher, key)).wrap(cek, &mut wrapped));
    wrapped
}

/// The parameters of an `enc`.
struct Content {
    key_length: usize,
    cipher: Cipher,
}

enum Cipher {
    Gcm(&'static aead::Algorithm),
    Cbc(&'static cipher::Algorithm, hmac::Algorithm),
}

impl Content {
    #[expect(clippy::panic, reason = "an unknown name is a mistake in the test")]
    fn of(enc: &str) -> Self {
        let (key_length, cipher) = match enc {
            "A128GCM" => (16, Cipher::Gcm(&aead::AES_128_GCM)),
            "A256GCM" => (32, Cipher::Gcm(&aead::AES_256_GCM)),
            "A128CBC-HS256" => (32, Cipher::Cbc(&cipher::AES_128, hmac::HMAC_SHA256)),
            "A256CBC-HS512" => (64, Cipher::Cbc(&cipher::AES_256, hmac::HMAC_SHA512)),
            _ => panic!("no algorithm `{enc}` that encrypts contents"),
        };
        Self { key_length, cipher }
    }

    /// Returns the initialisation vector, the ciphertext and the tag.
    fn encrypt(&self, cek: &[u8], aad: &[u8], plain: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut text = plain.to_vec();
        match &self.cipher {
            Cipher::Gcm(algorithm) => {
                let key = LessSafeKey::new(expect_crypto(UnboundKey::new(algorithm, cek)));
                let iv: [u8; 12] = expect_crypto(crypto::random());
                let nonce = Nonce::assume_unique_for_key(iv);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut text);
                (iv.to_vec(), text, expect_crypto(tag).as_ref().to_vec())
            }
            Cipher::Cbc(algorithm, mac) => {
                let (mac_key, key) = cek.split_at(cek.len() / 2);
                let key = expect_crypto(UnboundCipherKey::new(algorithm, key));
                let iv: [u8; 16] = expect_crypto(crypto::random());
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                let key = expect_crypto(PaddedBlockEncryptingKey::cbc_pkcs7(key));
                expect_crypto(key.less_safe_encrypt(&mut text, context));
                let bits = (aad.len() as u64 * 8).to_be_bytes();
                let mac_key = hmac::Key::new(*mac, mac_key);
                let tag = hmac::sign(&mac_key, &[aad, &iv, &text, &bits].concat());
                let (tag, _) = tag.as_ref().split_at(cek.len() / 2);
                (iv.to_vec(), text, tag.to_vec())
            }
        }
    }
}

fn random(length: usize) -> Vec<u8> {
    let bytes: [u8; 64] = expect_crypto(crypto::random());
    bytes.into_iter().take(length).collect()
}

fn decode(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    expect_crypto(crate::support::base64url::decode(text).ok_or("the member is not base64url"))
}

#[cfg(test)]
mod tests {
    use josekit::jwe::{self, JweDecrypter, deserialize_compact};
    use josekit::jwk::Jwk;

    use super::*;

    fn decrypter(key: &EncryptionKey) -> Box<dyn JweDecrypter> {
        let jwk = Jwk::from_bytes(key.private_jwk().to_string()).unwrap();
        match &*key.pair.alg {
            "RSA-OAEP" => Box::new(jwe::RSA_OAEP.decrypter_from_jwk(&jwk).unwrap()),
            "RSA-OAEP-256" => Box::new(jwe::RSA_OAEP_256.decrypter_from_jwk(&jwk).unwrap()),
            "ECDH-ES" => Box::new(jwe::ECDH_ES.decrypter_from_jwk(&jwk).unwrap()),
            "ECDH-ES+A128KW" => Box::new(jwe::ECDH_ES_A128KW.decrypter_from_jwk(&jwk).unwrap()),
            _ => Box::new(jwe::ECDH_ES_A256KW.decrypter_from_jwk(&jwk).unwrap()),
        }
    }

    #[test]
    fn another_library_decrypts_every_combination() {
        for (alg, curves) in [
            ("RSA-OAEP", &["none"][..]),
            ("RSA-OAEP-256", &["none"]),
            ("ECDH-ES", &["P-256", "P-384", "X25519"]),
            ("ECDH-ES+A128KW", &["P-256", "P-384", "X25519"]),
            ("ECDH-ES+A256KW", &["P-256", "P-384", "X25519"]),
        ] {
            for crv in curves {
                let key = EncryptionKey::generate_on(alg, crv).with_kid("enc-1");
                let decrypter = decrypter(&key);
                for enc in ["A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"] {
                    let key = key.clone().content_encryption(enc);
                    let (apu, apv) = (base64url("alice"), base64url("bob"));
                    for more in [json!({}), json!({ "apu": apu, "apv": apv, "typ": "JWT" })] {
                        let token = key.encrypt("a.b.c", more);
                        let read = deserialize_compact(&token, &*decrypter);
                        let (plain, header) =
                            read.unwrap_or_else(|e| panic!("{alg} {crv} {enc}: {e}"));
                        assert_eq!(plain, b"a.b.c", "{alg} {crv} {enc}");
                        assert_eq!(
                            (header.key_id(), header.content_type()),
                            (Some("enc-1"), Some("JWT"))
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn public_jwk_has_no_private_member() {
        for alg in ["RSA-OAEP", "ECDH-ES"] {
            let jwk = EncryptionKey::generate(alg).jwk();
            let mut names: Vec<_> = jwk.as_object().unwrap().keys().cloned().collect();
            names.sort_unstable();
            let expected = match alg {
                "RSA-OAEP" => &["alg", "e", "kid", "kty", "n", "use"][..],
                _ => &["alg", "crv", "kid", "kty", "use", "x", "y"],
            };
            assert_eq!(names, expected);
        }
    }
}
