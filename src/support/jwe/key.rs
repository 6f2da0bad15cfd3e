//! [`DecryptionKey`]: a private key of this service, read from a JWK (RFC 7517, RFC 7518 §6, RFC 8037).

use std::fmt;

use aws_lc_rs::agreement;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair, KeyPairComponents, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm,
    OaepPrivateDecryptingKey, PrivateDecryptingKey, PublicKeyComponents,
};
#[cfg(feature = "josekit")]
use josekit::jwe::JweDecrypter;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::support::base64url;

/// The maximum number of keys of a set.
const MAX_KEYS: usize = 16;

/// The maximum length of a key id, in bytes.
pub(super) const MAX_KID: usize = 256;

/// The sizes of RSA moduli, in bytes. Each token for a larger key would cost tens of milliseconds, and anyone can
/// encrypt to a public key.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// The `key_ops` of keys that decrypt (RFC 7517 §4.3).
const DECRYPTING: [&str; 4] = ["decrypt", "unwrapKey", "deriveKey", "deriveBits"];

/// An algorithm of the header's `alg` (RFC 7518 §4.1): key management.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyAlgorithm {
    RsaOaep,
    RsaOaep256,
    EcdhEs,
    EcdhEsA128Kw,
    EcdhEsA256Kw,
}

impl KeyAlgorithm {
    const ALL: [Self; 5] =
        [Self::RsaOaep, Self::RsaOaep256, Self::EcdhEs, Self::EcdhEsA128Kw, Self::EcdhEsA256Kw];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RsaOaep => "RSA-OAEP",
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::EcdhEs => "ECDH-ES",
            Self::EcdhEsA128Kw => "ECDH-ES+A128KW",
            Self::EcdhEsA256Kw => "ECDH-ES+A256KW",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(super) fn is_rsa(self) -> bool {
        matches!(self, Self::RsaOaep | Self::RsaOaep256)
    }
}

/// A private key, with the only algorithm that it is used for.
pub(crate) struct DecryptionKey {
    kid: Box<str>,
    algorithm: KeyAlgorithm,
    /// The public members of the JWK, without its name; null if they are not known.
    public: Value,
    pub(super) private: PrivateKey,
}

/// A parsed private key. It is parsed once, and not for each token.
pub(super) enum PrivateKey {
    Rsa(Box<OaepPrivateDecryptingKey>, &'static OaepAlgorithm),
    Ecdh(Curve, Box<agreement::PrivateKey>),
    /// A key that this crate does not have: only its owner can use it.
    #[cfg(feature = "josekit")]
    Josekit(Box<dyn JweDecrypter>),
}

/// A curve of ECDH-ES keys (RFC 7518 §6.2.1.1, RFC 8037 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    X25519,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::X25519];

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::X25519 => "X25519",
        }
    }

    fn key_type(self) -> &'static str {
        if self == Self::X25519 { "OKP" } else { "EC" }
    }

    /// Returns the length of a coordinate, and of a private key, in bytes.
    fn length(self) -> usize {
        if self == Self::P384 { 48 } else { 32 }
    }

    pub(super) fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &agreement::ECDH_P256,
            Self::P384 => &agreement::ECDH_P384,
            Self::X25519 => &agreement::X25519,
        }
    }

    /// Returns the curve of a JWK.
    pub(super) fn of(key_type: Option<&str>, name: Option<&str>) -> Option<Self> {
        let mut curves = Self::ALL.into_iter();
        curves.find(|it| Some(it.name()) == name && Some(it.key_type()) == key_type)
    }

    /// Returns a public key as the crypto library reads it: an uncompressed point (SEC 1 §2.3.3), or the bytes of
    /// RFC 7748. A coordinate must have its full length (RFC 7518 §6.2.1.2).
    pub(super) fn point(self, x: Option<&str>, y: Option<&str>) -> Option<Vec<u8>> {
        let coordinate = |text: Option<&str>| {
            base64url::decode(text?).filter(|bytes| bytes.len() == self.length())
        };
        match self {
            Self::X25519 => coordinate(x),
            Self::P256 | Self::P384 => Some([&[4][..], &coordinate(x)?, &coordinate(y)?].concat()),
        }
    }
}

/// The members of a JWK that are read. The private ones are borrowed from the text, so that no copy of them stays
/// in memory.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Jwk<'a> {
    kty: &'a str,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<&'a str>,
    x: Option<&'a str>,
    y: Option<&'a str>,
    n: Option<&'a str>,
    e: Option<&'a str>,
    d: Option<&'a str>,
    p: Option<&'a str>,
    q: Option<&'a str>,
    dp: Option<&'a str>,
    dq: Option<&'a str>,
    qi: Option<&'a str>,
    #[serde(borrow)]
    oth: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct JwkSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// Parses a set of private keys, or one private key. The error contains the problem, the key and the remedy, and
/// nothing secret.
pub(crate) fn parse_keys(text: &str) -> Result<Vec<DecryptionKey>, String> {
    // Serde also accepts a list for a struct.
    let is_object = text.trim_start().starts_with('{');
    let set = serde_json::from_str::<JwkSet<'_>>(text).map(|set| set.keys);
    let keys = match set {
        Ok(keys) if is_object => keys,
        _ if is_object && serde_json::from_str::<Jwk<'_>>(text).is_ok() => {
            vec![serde_json::from_str(text).map_err(|_| NOT_A_SET)?]
        }
        _ => return Err(NOT_A_SET.to_owned()),
    };
    if keys.is_empty() {
        return Err("contain no key: give at least one private key as a JWK".to_owned());
    }
    if keys.len() > MAX_KEYS {
        return Err(format!("contain more than {MAX_KEYS} keys: remove those that are not in use"));
    }
    let mut parsed: Vec<DecryptionKey> = Vec::with_capacity(keys.len());
    for (jwk, nth) in keys.into_iter().zip(1..) {
        let key = parse_key(jwk.get(), nth)?;
        if parsed.iter().any(|other| other.kid == key.kid) {
            let kid = quoted(&key.kid);
            return Err(format!("contain two keys with the `kid` {kid}: rename one"));
        }
        parsed.push(key);
    }
    Ok(parsed)
}

#[cfg(feature = "josekit")]
const ALGORITHMS: &str = "use RSA-OAEP-256, RSA-OAEP, ECDH-ES, ECDH-ES+A128KW or ECDH-ES+A256KW";

const NOT_A_SET: &str = "are neither a JWK Set nor a JWK in JSON (RFC 7517): give the private keys in this form, as text or by the path of a file";

fn parse_key(text: &str, nth: usize) -> Result<DecryptionKey, String> {
    let named = |name: &str, problem: &str| format!("contain an unusable key: {name}: {problem}");
    let nth = format!("key {nth}");
    let jwk = serde_json::from_str::<Jwk<'_>>(text);
    let jwk = jwk.map_err(|_| named(&nth, "it is not a JWK"))?;
    let name = jwk.kid.as_deref().map_or(nth, quoted);
    DecryptionKey::of(&jwk).map_err(|problem| named(&name, problem))
}

/// Returns the start of a text in quotes, for errors.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

impl DecryptionKey {
    fn of(jwk: &Jwk<'_>) -> Result<Self, &'static str> {
        if jwk.kty == "oct" {
            return Err(
                "it is symmetric (`oct`): give a private key (RSA, EC or OKP), whose public part the provider encrypts to",
            );
        }
        let kid = jwk.kid.as_deref().filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID);
        let kid = kid.ok_or(
            "it has no `kid` of at most 256 bytes, by which tokens name it: add one, such as the thumbprint (RFC 7638)",
        )?;
        if jwk.usage.as_deref().is_some_and(|usage| usage != "enc") {
            return Err(
                "its `use` is not `enc`: a key that signs must not decrypt too, so create a key for this",
            );
        }
        let can_decrypt = |all: &Vec<String>| all.iter().any(|name| DECRYPTING.contains(&&**name));
        if !jwk.key_ops.as_ref().is_none_or(can_decrypt) {
            return Err(
                "its `key_ops` have none of `decrypt`, `unwrapKey`, `deriveKey` and `deriveBits`: a key that signs must not decrypt too, so create a key for this",
            );
        }
        let algorithm = jwk.alg.as_deref().ok_or(
            "it has no `alg`: give the only algorithm that it is for, such as RSA-OAEP-256 or ECDH-ES",
        )?;
        let algorithm = KeyAlgorithm::from_name(algorithm).ok_or(
            "its `alg` is not supported: use RSA-OAEP-256, RSA-OAEP, ECDH-ES, ECDH-ES+A128KW or ECDH-ES+A256KW",
        )?;
        if jwk.d.is_none() {
            return Err(
                "it is a public key (no `d`): give the private key, and the public one to the provider",
            );
        }
        let (mut public, private) = match jwk.kty {
            "RSA" if algorithm.is_rsa() => rsa(jwk, algorithm)?,
            "EC" | "OKP" if !algorithm.is_rsa() => ecdh(jwk)?,
            _ => {
                return Err(
                    "its `kty` does not fit its `alg`: RSA-OAEP needs RSA, ECDH-ES needs EC or OKP",
                );
            }
        };
        if let Some(members) = public.as_object_mut() {
            let common = [("alg", algorithm.name()), ("use", "enc")];
            members.extend(common.map(|(name, text)| (name.to_owned(), text.into())));
        }
        Ok(Self { kid: kid.into(), algorithm, public, private })
    }

    /// Creates a key from a decrypter of the user. The error contains the problem and the remedy.
    #[cfg(feature = "josekit")]
    pub(crate) fn of_decrypter(decrypter: Box<dyn JweDecrypter>) -> Result<Self, String> {
        let name = decrypter.algorithm().name();
        let algorithm = KeyAlgorithm::from_name(name).ok_or_else(|| {
            let name = quoted(name);
            format!("contain a decrypter for {name}, which is not supported: {ALGORITHMS}")
        })?;
        let kid = decrypter.key_id().filter(|kid| !kid.is_empty() && kid.len() <= MAX_KID);
        let kid: Box<str> = kid.map(Into::into).ok_or(
            "contain a decrypter without a key id of at most 256 bytes, by which tokens name it: set it with `set_key_id`",
        )?;
        let private = PrivateKey::Josekit(decrypter);
        Ok(Self { kid, algorithm, public: Value::Null, private })
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// Returns whether two keys are the same, even if they were read twice, or have two names.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (!self.public.is_null() && self.public == other.public)
    }

    /// Returns whether tokens name a different key in the same way.
    pub(crate) fn is_confusable_with(&self, other: &Self) -> bool {
        let is_on_other_curve = match (&self.private, &other.private) {
            (PrivateKey::Ecdh(own, _), PrivateKey::Ecdh(other, _)) => own != other,
            _ => false,
        };
        let have_one_name = self.kid == other.kid && self.algorithm == other.algorithm;
        have_one_name && !is_on_other_curve && !self.is_same_as(other)
    }

    pub(crate) fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// Returns the public key as a JWK, with `kid`, `alg` and `use`, if it is known.
    pub(crate) fn public_jwk(&self) -> Option<Value> {
        let mut jwk = self.public.clone();
        jwk.as_object_mut()?.insert("kid".to_owned(), (*self.kid).into());
        Some(jwk)
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptionKey")
            .field("kid", &self.kid)
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

fn rsa(jwk: &Jwk<'_>, algorithm: KeyAlgorithm) -> Result<(Value, PrivateKey), &'static str> {
    const INCOMPLETE: &str =
        "it lacks a member of a private RSA key: give all of n, e, d, p, q, dp, dq and qi";
    if jwk.oth.is_some() {
        return Err("it has more than two primes (`oth`): create a key with two");
    }
    let secret = |member: Option<&str>| {
        let number = member.and_then(base64url::decode).map(Zeroizing::new);
        number.ok_or(INCOMPLETE)
    };
    let public = |member: Option<&str>| member.and_then(base64url::decode).ok_or(INCOMPLETE);
    let (n, e) = (public(jwk.n)?, public(jwk.e)?);
    if !RSA_BYTES.contains(&n.len()) {
        return Err("its RSA modulus does not have 2048 to 4096 bits: create another key");
    }
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: &n, e: &e },
        d: &*secret(jwk.d)?,
        p: &*secret(jwk.p)?,
        q: &*secret(jwk.q)?,
        dP: &*secret(jwk.dp)?,
        dQ: &*secret(jwk.dq)?,
        qInv: &*secret(jwk.qi)?,
    };
    let pair = KeyPair::from_components(&components);
    let pair = pair.map_err(|_| "its members are not those of one RSA key: export it again")?;
    let oaep = match algorithm {
        KeyAlgorithm::RsaOaep => &OAEP_SHA1_MGF1SHA1,
        _ => &OAEP_SHA256_MGF1SHA256,
    };
    let key = oaep_key(&pair).ok_or("the crypto library refuses it: create another key")?;
    let public = json!({ "kty": "RSA", "n": jwk.n, "e": jwk.e });
    Ok((public, PrivateKey::Rsa(Box::new(key), oaep)))
}

fn oaep_key(pair: &KeyPair) -> Option<OaepPrivateDecryptingKey> {
    let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    OaepPrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(der.as_ref()).ok()?).ok()
}

fn ecdh(jwk: &Jwk<'_>) -> Result<(Value, PrivateKey), &'static str> {
    let curve = Curve::of(Some(jwk.kty), jwk.crv);
    let curve = curve.ok_or("its curve is not supported: use P-256, P-384 or X25519")?;
    let secret = jwk.d.and_then(base64url::decode).map(Zeroizing::new);
    let private = secret
        .and_then(|secret| agreement::PrivateKey::from_private_key(curve.algorithm(), &secret).ok())
        .ok_or("its `d` is not a private key of its curve: export it again")?;
    let own = private.compute_public_key().map_err(|_| "the crypto library refuses it")?;
    if curve.point(jwk.x, jwk.y).is_none_or(|point| point != own.as_ref()) {
        return Err("its public part (`x`, `y`) does not belong to its `d`: export it again");
    }
    let mut public = json!({ "kty": jwk.kty, "crv": curve.name(), "x": jwk.x });
    if let (Some(members), Some(y)) = (public.as_object_mut(), jwk.y) {
        members.insert("y".to_owned(), y.into());
    }
    Ok((public, PrivateKey::Ecdh(curve, Box::new(private))))
}
