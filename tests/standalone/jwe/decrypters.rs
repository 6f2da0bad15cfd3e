//! Decrypters of the crate `josekit`, which do the key management only.

#![cfg(feature = "josekit")]

use josekit::jwe::{self, JweDecrypter};
use josekit::jwk::Jwk;
use scaikey_auth::config::DecryptionKeys;

use super::Service;
use crate::support::jwe::{ENCRYPTIONS, KeyPair};

fn decrypter(pair: &KeyPair) -> Box<dyn JweDecrypter> {
    let jwk = Jwk::from_bytes(pair.private().to_string()).unwrap();
    let alg = jwk.algorithm().unwrap().to_owned();
    match &*alg {
        "RSA-OAEP-256" => Box::new(jwe::RSA_OAEP_256.decrypter_from_jwk(&jwk).unwrap()),
        "ECDH-ES+A256KW" => Box::new(jwe::ECDH_ES_A256KW.decrypter_from_jwk(&jwk).unwrap()),
        _ => Box::new(jwe::ECDH_ES.decrypter_from_jwk(&jwk).unwrap()),
    }
}

#[tokio::test]
async fn decrypters_of_josekit_find_the_content_key() {
    let pairs = [
        KeyPair::new("rsa", "RSA-OAEP-256", ""),
        KeyPair::new("es", "ECDH-ES", "X25519"),
        KeyPair::new("kw", "ECDH-ES+A256KW", "P-384"),
    ];
    let service = Service::with(|issuer| {
        pairs.iter().fold(issuer, |issuer, pair| {
            issuer.decrypt(DecryptionKeys::josekit(Boxed::new(decrypter(pair))).unwrap())
        })
    })
    .await;
    for pair in &pairs {
        for enc in ENCRYPTIONS {
            let token = pair.encrypt(enc, &service.signed());
            assert_eq!(service.outcome(&token).await, "accepted", "{enc}");
            let (start, tag) = token.rsplit_once('.').unwrap();
            let cut = format!("{start}.{}", &tag[..16]);
            assert_eq!(service.outcome(&cut).await, "token_decryption", "{enc}");
            let twice = pair.encrypt_with(enc, &service.signed(), |header| {
                header.set_compression("DEF");
            });
            assert_eq!(service.outcome(&twice).await, "token_malformed");
        }
        let other = pair.with("kid", "x").encrypt("A256GCM", &service.signed());
        assert_eq!(service.outcome(&other).await, "token_decryption");
    }
    assert_eq!(service.outcome(&service.signed()).await, "token_unencrypted");
}

#[tokio::test]
async fn panic_of_a_decrypter_is_an_answer() {
    let pair = KeyPair::p256("a");
    let keys =
        DecryptionKeys::josekit(Boxed { has_bug: true, ..Boxed::new(decrypter(&pair)) }).unwrap();
    let service = Service::with(|issuer| issuer.decrypt(keys).also_unencrypted()).await;
    let token = pair.encrypt("A128GCM", &service.signed());
    assert_eq!(service.outcome(&token).await, "token_decryption");
    assert_eq!(service.outcome(&service.signed()).await, "accepted");
}

#[tokio::test]
async fn private_jwk_of_josekit_is_read() {
    let pair = KeyPair::p256("a");
    let jwk = Jwk::from_bytes(pair.private().to_string()).unwrap();
    let keys = DecryptionKeys::jwks(jwk.to_string()).unwrap();
    let service = Service::with(|issuer| issuer.decrypt(keys)).await;
    let token = pair.encrypt("A128GCM", &service.signed());
    assert_eq!(service.outcome(&token).await, "accepted");
}

#[test]
fn decrypters_of_other_algorithms_are_refused() {
    let rsa = KeyPair::new("a", "RSA1_5", "");
    let jwk = Jwk::from_bytes(rsa.private().to_string()).unwrap();
    #[expect(deprecated, reason = "it must be refused")]
    let old = jwe::RSA1_5.decrypter_from_jwk(&jwk).unwrap();
    let mut direct = jwe::Dir.decrypter_from_bytes([0; 32]).unwrap();
    direct.set_key_id("a");
    let wrapped = jwe::A256GCMKW.decrypter_from_bytes([0; 32]).unwrap();
    let password = jwe::PBES2_HS256_A128KW.decrypter_from_bytes(b"password").unwrap();
    for (refused, name) in [
        (DecryptionKeys::josekit(old), "RSA1_5"),
        (DecryptionKeys::josekit(direct), "dir"),
        (DecryptionKeys::josekit(wrapped), "A256GCMKW"),
        (DecryptionKeys::josekit(password), "PBES2-HS256+A128KW"),
    ] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("use RSA-OAEP-256"), "{error}");
    }
    let mut jwk = Jwk::from_bytes(KeyPair::p256("a").private().to_string()).unwrap();
    jwk.set_parameter("kid", None).unwrap();
    let nameless = jwe::ECDH_ES.decrypter_from_jwk(&jwk).unwrap();
    let error = DecryptionKeys::josekit(nameless).unwrap_err().to_string();
    assert!(error.contains("set_key_id"), "{error}");
}

/// A decrypter in a box, which is none itself.
#[derive(Debug)]
struct Boxed {
    decrypter: Box<dyn JweDecrypter>,
    has_bug: bool,
}

impl Boxed {
    fn new(decrypter: Box<dyn JweDecrypter>) -> Self {
        Self { decrypter, has_bug: false }
    }
}

impl JweDecrypter for Boxed {
    fn algorithm(&self) -> &dyn jwe::JweAlgorithm {
        self.decrypter.algorithm()
    }

    fn key_id(&self) -> Option<&str> {
        self.decrypter.key_id()
    }

    fn decrypt(
        &self,
        encrypted_key: Option<&[u8]>,
        cencryption: &dyn jwe::JweContentEncryption,
        header: &jwe::JweHeader,
    ) -> Result<std::borrow::Cow<'_, [u8]>, josekit::JoseError> {
        assert!(!self.has_bug, "on purpose");
        self.decrypter.decrypt(encrypted_key, cencryption, header)
    }

    fn box_clone(&self) -> Box<dyn JweDecrypter> {
        Box::new(Self { decrypter: self.decrypter.box_clone(), ..*self })
    }
}
