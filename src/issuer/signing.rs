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
