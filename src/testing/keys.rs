//! [`SigningKey`]: a private key with its JWK and its signatures.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::config::Algorithm;
use crate::support::crypto::sha256;

/// A private key of one algorithm, with a `kid` (feature `testing`).
///
/// A [`TestIssuer`](super::TestIssuer) generates its own keys. Generate one yourself to sign with
/// an unpublished key, or to share a key between issuers. Clones are the same key.
///
/// RSA keys have 2048 bits. Generating one takes tens of milliseconds, so a later key in the same
/// process may reuse the material of a dropped RSA key.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use scaikey_auth::config::Algorithm;
/// use scaikey_auth::testing::{Provider, SigningKey};
///
/// let provider = Provider::start().await;
/// // Signed with a key that the provider does not publish: a service must refuse it.
/// let stolen = SigningKey::generate(Algorithm::ES256);
/// let forged = provider.token().signed_by(&stolen).sign();
/// // Published: now it must accept it.
/// provider.rotate_to(stolen);
/// # }
/// ```
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    kid: String,
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Rsa(PooledRsaKey),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
    MlDsa(Box<PqdsaKeyPair>),
}

impl SigningKey {
    /// Generates a key with a `kid` that is unique in this process.
    pub fn generate(algorithm: Algorithm) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::with_kid(algorithm, format!("{}-{number}", algorithm.as_str().to_lowercase()))
    }

    /// Generates a key with this `kid`.
    pub fn with_kid(algorithm: Algorithm, kid: impl Into<String>) -> Self {
        let pair = match algorithm {
            Algorithm::ES256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::ES384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::ES512 => ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::Ed25519 => Pair::Ed(Box::new(expect_crypto(Ed25519KeyPair::generate()))),
            Algorithm::MLDSA44 => ml_dsa(&signature::ML_DSA_44_SIGNING),
            Algorithm::MLDSA65 => ml_dsa(&signature::ML_DSA_65_SIGNING),
            Algorithm::MLDSA87 => ml_dsa(&signature::ML_DSA_87_SIGNING),
            _ => Pair::Rsa(PooledRsaKey::acquire()),
        };
        Self(Arc::new(Inner { kid: kid.into(), algorithm, pair }))
    }

    /// Returns the `kid`.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// Returns the signature algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Returns the public key as a JWK (RFC 7517), with `kid`, `use` and `alg`.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.0.pair {
            Pair::Rsa(pair) => {
                let public = pair.key().public_key();
                json!({
                    "kty": "RSA",
                    "n": base64url(public.modulus().big_endian_without_leading_zero()),
                    "e": base64url(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Pair::Ec(pair) => ec_jwk(self.0.algorithm, pair.public_key().as_ref()),
            Pair::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref()) })
            }
            Pair::MlDsa(pair) => {
                json!({ "kty": "AKP", "pub": base64url(pair.public_key().as_ref()) })
            }
        };
        if let Value::Object(members) = &mut jwk {
            members.insert("use".into(), "sig".into());
            members.insert("kid".into(), self.kid().into());
            members.insert("alg".into(), self.0.algorithm.as_str().into());
        }
        jwk
    }

    /// Returns the thumbprint of the public key: the SHA-256 of its required members in base64url (RFC 7638
    /// §3, RFC 8037 §2, RFC 9964 §6). A token that is bound to the key has it as `cnf.jkt` (RFC 9449 §6.1).
    ///
    /// ```
    /// use scaikey_auth::config::Algorithm;
    /// use scaikey_auth::testing::SigningKey;
    ///
    /// assert_eq!(SigningKey::generate(Algorithm::MLDSA65).thumbprint().len(), 43);
    /// ```
    pub fn thumbprint(&self) -> String {
        thumbprint(&self.jwk())
    }

    /// Returns the public key in the form that aws-lc-rs verifies with: PKCS #1 DER for RSA, an
    /// uncompressed point for EC, the bytes of the key for Ed25519 and ML-DSA.
    pub fn public_key(&self) -> Vec<u8> {
        match &self.0.pair {
            Pair::Rsa(pair) => pair.key().public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Pair::MlDsa(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// Returns an RSA public key as `SubjectPublicKeyInfo` in DER. Empty for other keys.
    pub(super) fn public_der(&self) -> Vec<u8> {
        let Pair::Rsa(pair) = &self.0.pair else { return Vec::new() };
        expect_crypto(pair.key().public_key().as_der()).as_ref().to_vec()
    }

    /// Returns the JWS signature (RFC 7518 §3) of `message`.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign_as(self.0.algorithm, message)
    }

    /// Signs with another algorithm of the same key type, for forgeries.
    pub(super) fn sign_as(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.0.pair {
            Pair::Rsa(pair) => {
                let mut signed = vec![0; pair.key().public_modulus_len()];
                expect_crypto(pair.key().sign(
                    rsa_encoding(algorithm),
                    &random,
                    message,
                    &mut signed,
                ));
                signed
            }
            Pair::Ec(pair) => expect_crypto(pair.sign(&random, message)).as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::MlDsa(pair) => {
                let mut signed = vec![0; pair.algorithm().signature_len()];
                expect_crypto(pair.sign(message, &mut signed));
                signed
            }
        }
    }

    /// Returns an ECDSA signature in DER, which JWS forbids (RFC 7518 §3.4). Empty for other keys.
    pub(super) fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let Pair::Ec(pair) = &self.0.pair else { return Vec::new() };
        let asn1 = match self.0.algorithm {
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
            Algorithm::ES512 => &signature::ECDSA_P521_SHA512_ASN1_SIGNING,
            _ => &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        };
        let document = expect_crypto(pair.to_pkcs8v1());
        let twin = expect_crypto(EcdsaKeyPair::from_pkcs8(asn1, document.as_ref()));
        expect_crypto(twin.sign(&SystemRandom::new(), message)).as_ref().to_vec()
    }

    /// Returns whether this key made `signature` over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = UnparsedPublicKey::new(verifier(self.0.algorithm), self.public_key());
        public.verify(message, signature).is_ok()
    }

    /// Returns the claims of a compact JWS if this key signed it.
    pub(super) fn claims_of(&self, token: &str) -> Option<Map<String, Value>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, payload) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.verifies(signed.as_bytes(), &signature).then_some(())?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }

    /// Returns the public key as `SubjectPublicKeyInfo` in PEM (RFC 7468 §13), which
    /// [`IssuerConfig::keys`](crate::IssuerConfig::keys) accepts.
    pub fn public_pem(&self) -> String {
        let der = match &self.0.pair {
            Pair::Rsa(_) => self.public_der(),
            Pair::Ec(pair) => {
                expect_crypto(AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()))
                    .as_ref()
                    .to_vec()
            }
            Pair::Ed(pair) => {
                expect_crypto(AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()))
                    .as_ref()
                    .to_vec()
            }
            Pair::MlDsa(pair) => {
                expect_crypto(AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()))
                    .as_ref()
                    .to_vec()
            }
        };
        pem("PUBLIC KEY", &der)
    }

    /// Returns the private key as unencrypted PKCS #8 in PEM (RFC 5958, RFC 7468), for a service
    /// that authenticates with `private_key_jwt`.
    pub fn private_pem(&self) -> String {
        let der = match &self.0.pair {
            Pair::Rsa(pair) => {
                expect_crypto(AsDer::<Pkcs8V1Der<'_>>::as_der(pair.key())).as_ref().to_vec()
            }
            Pair::Ec(pair) => expect_crypto(pair.to_pkcs8v1()).as_ref().to_vec(),
            Pair::Ed(pair) => expect_crypto(pair.to_pkcs8v1()).as_ref().to_vec(),
            Pair::MlDsa(pair) => expect_crypto(pair.to_pkcs8v1()).as_ref().to_vec(),
        };
        pem("PRIVATE KEY", &der)
    }

    /// Returns a compact JWS over these bytes. It adds, parses and checks nothing, so a test can
    /// sign malformed JSON.
    pub fn token(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let signed = signing_input(header, payload);
        let signature = base64url(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.0.kid)
            .field("algorithm", &self.0.algorithm)
            .finish_non_exhaustive()
    }
}

/// Returns the signing input of a JWS: the header, a dot, the payload (RFC 7515 §5.1).
pub(super) fn signing_input(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    format!("{}.{}", base64url(header), base64url(payload))
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[expect(clippy::expect_used, reason = "a test tool cannot continue without a random source")]
pub(super) fn expect_crypto<T, E: fmt::Debug>(result: Result<T, E>) -> T {
    result.expect("the cryptography library works")
}

fn ecdsa(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Pair {
    Pair::Ec(Box::new(expect_crypto(EcdsaKeyPair::generate(algorithm))))
}

fn ml_dsa(algorithm: &'static signature::PqdsaSigningAlgorithm) -> Pair {
    Pair::MlDsa(Box::new(expect_crypto(PqdsaKeyPair::generate(algorithm))))
}

fn thumbprint(jwk: &Value) -> String {
    let members: &[&str] = match jwk.get("kty").and_then(Value::as_str) {
        Some("RSA") => &["e", "kty", "n"],
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("OKP") => &["crv", "kty", "x"],
        _ => &["alg", "kty", "pub"],
    };
    // Written by hand: the order of a JSON map depends on a feature of `serde_json`.
    let member = |name: &&str| jwk.get(*name).map(|value| format!("\"{name}\":{value}"));
    let members: Vec<_> = members.iter().filter_map(member).collect();
    base64url(sha256(format!("{{{}}}", members.join(",")).as_bytes()))
}

fn ec_jwk(algorithm: Algorithm, point: &[u8]) -> Value {
    let crv = match algorithm {
        Algorithm::ES384 => "P-384",
        Algorithm::ES512 => "P-521",
        _ => "P-256",
    };
    // An uncompressed point: one byte 04, then x and y of equal length.
    let coordinates = point.get(1..).unwrap_or_default();
    let (x, y) = coordinates.split_at(coordinates.len() / 2);
    json!({ "kty": "EC", "crv": crv, "x": base64url(x), "y": base64url(y) })
}

fn rsa_encoding(algorithm: Algorithm) -> &'static dyn signature::RsaEncoding {
    match algorithm {
        Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_SHA512,
        _ => &signature::RSA_PKCS1_SHA256,
    }
}

fn verifier(algorithm: Algorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
        Algorithm::Ed25519 => &signature::ED25519,
        Algorithm::MLDSA44 => &signature::ML_DSA_44,
        Algorithm::MLDSA65 => &signature::ML_DSA_65,
        Algorithm::MLDSA87 => &signature::ML_DSA_87,
    }
}

/// RSA key pairs of dropped keys, for reuse. Two live keys never share a pair: otherwise a token
/// "signed by another issuer" would verify.
static RSA_POOL: Mutex<Vec<RsaKeyPair>> = Mutex::new(Vec::new());

/// An RSA key pair that returns to [`RSA_POOL`] on drop.
struct PooledRsaKey(Option<RsaKeyPair>);

impl PooledRsaKey {
    fn acquire() -> Self {
        let idle = RSA_POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(Some(idle.unwrap_or_else(|| expect_crypto(RsaKeyPair::generate(KeySize::Rsa2048)))))
    }

    #[expect(clippy::expect_used, reason = "only `drop` takes the pair")]
    fn key(&self) -> &RsaKeyPair {
        self.0.as_ref().expect("the pair is present until drop")
    }
}

impl Drop for PooledRsaKey {
    fn drop(&mut self) {
        RSA_POOL.lock().unwrap_or_else(PoisonError::into_inner).extend(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_key_verifies_every_algorithm() {
        for algorithm in Algorithm::ALL {
            let key = SigningKey::generate(algorithm);
            assert!(key.verifies(b"message", &key.sign(b"message")), "{algorithm}");
            assert!(!key.verifies(b"massage", &key.sign(b"message")), "{algorithm}");
        }
    }

    /// The examples of RFC 7638 §3.1, RFC 8037 §A.3 and, whose `kid` is the thumbprint, RFC 9964.
    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let rsa = json!({
            "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        assert_eq!(thumbprint(&rsa), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        let ed = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        assert_eq!(thumbprint(&ed), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let examples: Vec<Value> =
            serde_json::from_str(include_str!("../issuer/rfc9964.json")).unwrap();
        for example in examples {
            assert_eq!(thumbprint(&example["jwk"]), example["jwk"]["kid"].as_str().unwrap());
        }
        let lengths = Algorithm::ALL.map(|alg| SigningKey::generate(alg).thumbprint().len());
        assert_eq!(lengths, [43; 13]);
    }

    #[test]
    fn other_libraries_read_the_private_pem() {
        use jsonwebtoken::EncodingKey;
        let pem = |algorithm| SigningKey::generate(algorithm).private_pem();
        EncodingKey::from_rsa_pem(pem(Algorithm::RS256).as_bytes()).unwrap();
        EncodingKey::from_ec_pem(pem(Algorithm::ES384).as_bytes()).unwrap();
        EncodingKey::from_ed_pem(pem(Algorithm::Ed25519).as_bytes()).unwrap();
    }

    #[test]
    fn jwk_coordinates_have_full_length() {
        for (algorithm, length) in
            [(Algorithm::ES256, 32), (Algorithm::ES384, 48), (Algorithm::ES512, 66)]
        {
            let jwk = SigningKey::generate(algorithm).jwk();
            for name in ["x", "y"] {
                let coordinate = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
                assert_eq!(coordinate.len(), length, "{algorithm} {name}");
            }
        }
    }

    #[test]
    fn live_keys_never_share_material() {
        let one = SigningKey::generate(Algorithm::RS256);
        let other = SigningKey::with_kid(Algorithm::RS256, one.kid());
        assert_ne!(one.public_key(), other.public_key());
    }

    #[test]
    fn der_signature_verifies_as_der_only() {
        let key = SigningKey::generate(Algorithm::ES256);
        let signed = key.sign_der(b"message");
        let verify = |algorithm: &'static dyn VerificationAlgorithm| {
            UnparsedPublicKey::new(algorithm, key.public_key()).verify(b"message", &signed)
        };
        verify(&signature::ECDSA_P256_SHA256_ASN1).unwrap();
        verify(&signature::ECDSA_P256_SHA256_FIXED).unwrap_err();
    }
}
