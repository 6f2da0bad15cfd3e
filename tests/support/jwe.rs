//! Encryption of tokens by `josekit`, which shares no code with this crate.

use std::sync::LazyLock;

use josekit::jwe::{self, JweEncrypter, JweHeader};
use josekit::jwk::Jwk;
use josekit::jwk::alg::ec::EcCurve;
use josekit::jwk::alg::ecx::EcxCurve;
use scaikey_auth::config::DecryptionKeys;
use serde_json::{Value, json};

/// All supported algorithms of `alg`, each with a curve; RSA has none.
pub(crate) const ALGORITHMS: [(&str, &str); 11] = [
    ("RSA-OAEP-256", ""),
    ("RSA-OAEP", ""),
    ("ECDH-ES", "P-256"),
    ("ECDH-ES", "P-384"),
    ("ECDH-ES", "X25519"),
    ("ECDH-ES+A128KW", "P-256"),
    ("ECDH-ES+A128KW", "P-384"),
    ("ECDH-ES+A128KW", "X25519"),
    ("ECDH-ES+A256KW", "P-256"),
    ("ECDH-ES+A256KW", "P-384"),
    ("ECDH-ES+A256KW", "X25519"),
];

/// All supported algorithms of `enc`.
pub(crate) const ENCRYPTIONS: [&str; 4] = ["A128GCM", "A256GCM", "A128CBC-HS256", "A256CBC-HS512"];

/// A key pair of a service: the service has the private key, and its provider encrypts to the public one.
#[derive(Clone)]
pub(crate) struct KeyPair {
    jwk: Jwk,
}

impl KeyPair {
    /// Generates a key pair. All RSA pairs are the same, because their generation takes long.
    pub(crate) fn new(kid: &str, alg: &str, curve: &str) -> Self {
        static RSA: LazyLock<Jwk> = LazyLock::new(|| Jwk::generate_rsa_key(2048).unwrap());
        let mut jwk = match curve {
            "P-256" => Jwk::generate_ec_key(EcCurve::P256).unwrap(),
            "P-384" => Jwk::generate_ec_key(EcCurve::P384).unwrap(),
            "X25519" => Jwk::generate_ecx_key(EcxCurve::X25519).unwrap(),
            _ => RSA.clone(),
        };
        jwk.set_key_id(kid);
        jwk.set_algorithm(alg);
        jwk.set_key_use("enc");
        Self { jwk }
    }

    /// Generates a key pair for `ECDH-ES` on P-256, which is the fastest.
    pub(crate) fn p256(kid: &str) -> Self {
        Self::new(kid, "ECDH-ES", "P-256")
    }

    /// Returns the private key as a JWK.
    pub(crate) fn private(&self) -> Value {
        Value::Object(self.jwk.as_ref().clone())
    }

    /// Returns the pair with another member of its JWK.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut pair = self.clone();
        pair.jwk.set_parameter(name, Some(value.into())).unwrap();
        pair
    }

    /// Returns a token with this content, as a provider makes it.
    pub(crate) fn encrypt(&self, enc: &str, content: &str) -> String {
        self.encrypt_with(enc, content, |_| {})
    }

    /// Returns a token as [`encrypt`](Self::encrypt) does, with changes to its header.
    pub(crate) fn encrypt_with(
        &self,
        enc: &str,
        content: &str,
        change: impl FnOnce(&mut JweHeader),
    ) -> String {
        let mut header = JweHeader::new();
        header.set_content_encryption(enc);
        header.set_content_type("JWT");
        header.set_key_id(self.jwk.key_id().unwrap());
        change(&mut header);
        jwe::serialize_compact(content.as_bytes(), &header, &*self.encrypter()).unwrap()
    }

    /// Returns the encrypted form of a content encryption key, which may have a wrong length.
    pub(crate) fn encrypt_key(&self, content_key: &[u8]) -> Vec<u8> {
        let encrypted =
            self.encrypter().encrypt(content_key, &JweHeader::new(), &mut JweHeader::new());
        encrypted.unwrap().unwrap()
    }

    fn encrypter(&self) -> Box<dyn JweEncrypter> {
        // The encrypter would overwrite the header's `kid`.
        let mut jwk = self.jwk.clone();
        jwk.set_parameter("kid", None).unwrap();
        match self.jwk.algorithm().unwrap() {
            "RSA-OAEP-256" => Box::new(jwe::RSA_OAEP_256.encrypter_from_jwk(&jwk).unwrap()),
            "RSA-OAEP" => Box::new(jwe::RSA_OAEP.encrypter_from_jwk(&jwk).unwrap()),
            #[expect(deprecated, reason = "the service must refuse it")]
            "RSA1_5" => Box::new(jwe::RSA1_5.encrypter_from_jwk(&jwk).unwrap()),
            "ECDH-ES+A128KW" => Box::new(jwe::ECDH_ES_A128KW.encrypter_from_jwk(&jwk).unwrap()),
            "ECDH-ES+A192KW" => Box::new(jwe::ECDH_ES_A192KW.encrypter_from_jwk(&jwk).unwrap()),
            "ECDH-ES+A256KW" => Box::new(jwe::ECDH_ES_A256KW.encrypter_from_jwk(&jwk).unwrap()),
            _ => Box::new(jwe::ECDH_ES.encrypter_from_jwk(&jwk).unwrap()),
        }
    }
}

/// Returns the text of a set with these private keys.
pub(crate) fn private_set<'k>(pairs: impl IntoIterator<Item = &'k KeyPair>) -> String {
    let keys: Vec<Value> = pairs.into_iter().map(KeyPair::private).collect();
    json!({ "keys": keys }).to_string()
}

pub(crate) fn decryption_keys<'k>(pairs: impl IntoIterator<Item = &'k KeyPair>) -> DecryptionKeys {
    DecryptionKeys::jwks(private_set(pairs)).unwrap()
}
