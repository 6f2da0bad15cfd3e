//! [`SigningKey`]: a private key of this service, which signs JWTs.

#[cfg(feature = "trust")]
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
#[cfg(feature = "trust")]
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, PqdsaKeyPair};
use serde_json::{Value, json};

use super::client_auth::{ClientAuthError, failed};
#[cfg(feature = "trust")]
use super::pem;
use crate::config::Algorithm;
use crate::support::base64url;
use crate::support::secret::{Secret, SecretSource};

/// A private key: PKCS #8 in PEM. A key in a file is read for each signature, so it may be replaced on
/// disk, unless the key was [loaded](Self::loaded).
#[derive(Debug, Clone)]
pub(crate) struct SigningKey {
    algorithm: Algorithm,
    pem: SecretSource,
    key_id: Option<String>,
}

impl SigningKey {
    pub(crate) fn new(algorithm: Algorithm, pem: SecretSource, key_id: Option<String>) -> Self {
        Self { algorithm, pem, key_id }
    }

    #[cfg(feature = "trust")]
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Loads the key once. Later changes of its file have no effect.
    #[cfg(feature = "trust")]
    pub(crate) fn loaded(mut self) -> Result<Self, ClientAuthError> {
        self.pem = SecretSource::Value(self.pem.read()?);
        Ok(self)
    }

    /// Checks that the key can sign. Reads it, if it is in a file.
    pub(super) fn check(&self) -> Result<(), String> {
        let signed = self.sign("JWT", &json!({}));
        signed.map(drop).map_err(|error| format!("cannot be used: {error}"))
    }

    /// Signs a JWT and returns it in compact serialisation.
    pub(crate) fn sign(&self, typ: &str, claims: &Value) -> Result<String, ClientAuthError> {
        let mut header = json!({ "alg": self.algorithm.as_str(), "typ": typ });
        if let (Some(kid), Some(members)) = (&self.key_id, header.as_object_mut()) {
            members.insert("kid".to_owned(), kid.as_str().into());
        }
        let part = |json: &Value| base64url::encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let der = self.der()?;
        let signature = sign_with(self.algorithm, &der, signed.as_bytes())
            .ok_or_else(|| failed(format!("the key is not a key for {}", self.algorithm)))?;
        Ok(format!("{signed}.{}", base64url::encode(signature)))
    }

    /// Returns the public key as a JWK (RFC 7517).
    #[cfg(feature = "trust")]
    pub(crate) fn public_jwk(&self) -> Result<Value, ClientAuthError> {
        let der = self.der()?;
        let jwk = public_jwk_of_der(self.algorithm, &der);
        let mut jwk =
            jwk.ok_or_else(|| failed(format!("the key is not a key for {}", self.algorithm)))?;
        if let Some(members) = jwk.as_object_mut() {
            members.insert("alg".to_owned(), self.algorithm.as_str().into());
            members.insert("use".to_owned(), "sig".into());
            members.extend(self.key_id.as_ref().map(|kid| ("kid".to_owned(), kid.as_str().into())));
        }
        Ok(jwk)
    }

    fn der(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, ClientAuthError> {
        pem_to_der(&self.pem.read()?).ok_or_else(|| {
            failed("the text contains no unencrypted PKCS #8 key in PEM (`BEGIN PRIVATE KEY`)")
        })
    }
}

fn pem_to_der(pem: &Secret) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.expose().split_once("-----BEGIN PRIVATE KEY-----")?;
    let (text, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let text: zeroize::Zeroizing<String> = text.split_ascii_whitespace().collect::<String>().into();
    base64url::decode_standard(text.as_bytes()).map(Into::into)
}

/// The crypto library's parameters of an algorithm.
enum Scheme {
    Rsa(&'static dyn signature::RsaEncoding),
    Ecdsa(&'static signature::EcdsaSigningAlgorithm),
    Ed25519,
    MlDsa(&'static signature::PqdsaSigningAlgorithm),
}

fn scheme(algorithm: Algorithm) -> Scheme {
    match algorithm {
        Algorithm::RS256 => Scheme::Rsa(&signature::RSA_PKCS1_SHA256),
        Algorithm::RS384 => Scheme::Rsa(&signature::RSA_PKCS1_SHA384),
        Algorithm::RS512 => Scheme::Rsa(&signature::RSA_PKCS1_SHA512),
        Algorithm::PS256 => Scheme::Rsa(&signature::RSA_PSS_SHA256),
        Algorithm::PS384 => Scheme::Rsa(&signature::RSA_PSS_SHA384),
        Algorithm::PS512 => Scheme::Rsa(&signature::RSA_PSS_SHA512),
        Algorithm::ES256 => Scheme::Ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => Scheme::Ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::ES512 => Scheme::Ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
        Algorithm::Ed25519 => Scheme::Ed25519,
        Algorithm::MLDSA44 => Scheme::MlDsa(&signature::ML_DSA_44_SIGNING),
        Algorithm::MLDSA65 => Scheme::MlDsa(&signature::ML_DSA_65_SIGNING),
        Algorithm::MLDSA87 => Scheme::MlDsa(&signature::ML_DSA_87_SIGNING),
    }
}

fn sign_with(algorithm: Algorithm, der: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let random = SystemRandom::new();
    match scheme(algorithm) {
        Scheme::Rsa(padding) => {
            let pair = RsaKeyPair::from_pkcs8(der).ok()?;
            let mut signed = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &random, message, &mut signed).ok()?;
            Some(signed)
        }
        Scheme::Ecdsa(kind) => {
            let pair = EcdsaKeyPair::from_pkcs8(kind, der).ok()?;
            Some(pair.sign(&random, message).ok()?.as_ref().to_vec())
        }
        Scheme::Ed25519 => {
            Some(Ed25519KeyPair::from_pkcs8(der).ok()?.sign(message).as_ref().to_vec())
        }
        Scheme::MlDsa(kind) => {
            let mut signed = vec![0; kind.signature_len()];
            PqdsaKeyPair::from_pkcs8(kind, der).ok()?.sign(message, &mut signed).ok()?;
            Some(signed)
        }
    }
}

#[cfg(feature = "trust")]
fn public_jwk_of_der(algorithm: Algorithm, der: &[u8]) -> Option<Value> {
    let info: PublicKeyX509Der<'_> = match scheme(algorithm) {
        Scheme::Rsa(_) => RsaKeyPair::from_pkcs8(der).ok()?.public_key().as_der().ok()?,
        Scheme::Ecdsa(kind) => {
            EcdsaKeyPair::from_pkcs8(kind, der).ok()?.public_key().as_der().ok()?
        }
        Scheme::Ed25519 => Ed25519KeyPair::from_pkcs8(der).ok()?.public_key().as_der().ok()?,
        Scheme::MlDsa(kind) => {
            PqdsaKeyPair::from_pkcs8(kind, der).ok()?.public_key().as_der().ok()?
        }
    };
    pem::public_key(info.as_ref())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsRawBytes;
    use aws_lc_rs::signature::{KeyPair as _, PqdsaSigningAlgorithm, UnparsedPublicKey};

    use super::*;

    /// Encodes a value of DER with this tag.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = content.len();
        let head = match length {
            0..0x80 => vec![tag, length as u8],
            0x80..0x100 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [head, content].concat()
    }

    /// Returns a key whose PKCS #8 structure has `private` as its private key.
    fn key(algorithm: Algorithm, parameter_set: u8, private: &[u8]) -> SigningKey {
        let id = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, parameter_set];
        let identifier = der(0x30, &[&der(6, &[&id])]);
        let info = der(0x30, &[&der(2, &[&[0]]), &identifier, &der(4, &[private])]);
        let text = base64url::encode_standard(info);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        SigningKey::new(algorithm, SecretSource::Value(pem.into()), None)
    }

    const KINDS: [(Algorithm, u8, &PqdsaSigningAlgorithm); 3] = [
        (Algorithm::MLDSA44, 17, &signature::ML_DSA_44_SIGNING),
        (Algorithm::MLDSA65, 18, &signature::ML_DSA_65_SIGNING),
        (Algorithm::MLDSA87, 19, &signature::ML_DSA_87_SIGNING),
    ];

    /// The seed, the expanded key, and both (RFC 9881 §6). OpenSSL writes both by default.
    #[test]
    fn ml_dsa_keys_have_three_forms() {
        for (algorithm, parameter_set, kind) in KINDS {
            let (seed, other_seed) = ([7; 32], [8; 32]);
            let pair = PqdsaKeyPair::from_seed(kind, &seed).unwrap();
            let expanded = pair.private_key().as_raw_bytes().unwrap();
            let expanded = der(4, &[expanded.as_ref()]);
            let both = |seed: &[u8]| der(0x30, &[&der(4, &[seed]), &expanded]);
            for private in [der(0x80, &[&seed]), expanded.clone(), both(&seed)] {
                let key = key(algorithm, parameter_set, &private);
                let token = key.sign("JWT", &json!({})).unwrap();
                let (signed, signature) = token.rsplit_once('.').unwrap();
                let public = pair.public_key().as_ref();
                UnparsedPublicKey::new(verification(algorithm), public)
                    .verify(signed.as_bytes(), &base64url::decode(signature).unwrap())
                    .unwrap();
                #[cfg(feature = "trust")]
                {
                    let jwk = key.public_jwk().unwrap();
                    assert_eq!((&jwk["kty"], &jwk["alg"]), (&json!("AKP"), &json!(algorithm)));
                    assert_eq!(jwk["pub"], base64url::encode(public));
                }
            }
            let other_set = if parameter_set == 19 { 17 } else { parameter_set + 1 };
            for (parameter_set, private) in [
                (parameter_set, both(&other_seed)),
                (parameter_set, der(0x80, &[&seed[1..]])),
                (parameter_set, seed.to_vec()),
                (other_set, der(0x80, &[&seed])),
            ] {
                let error = key(algorithm, parameter_set, &private).check().unwrap_err();
                assert!(error.contains(algorithm.as_str()), "{error}");
            }
        }
    }

    fn verification(algorithm: Algorithm) -> &'static dyn signature::VerificationAlgorithm {
        match algorithm {
            Algorithm::MLDSA44 => &signature::ML_DSA_44,
            Algorithm::MLDSA65 => &signature::ML_DSA_65,
            _ => &signature::ML_DSA_87,
        }
    }
}
