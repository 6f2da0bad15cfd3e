//! One JWK becomes one prepared key (RFC 7517, RFC 7518 §6, RFC 8037), or is left out.

use aws_lc_rs::digest;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, VerificationAlgorithm};

use super::ecdsa::Asn1;
use super::grounds::Withdrawn;
use crate::base64url;
use crate::config::Algorithm;
use crate::json::Value;

/// The longest key id read, in bytes. It is an opaque name, and names are short.
pub(crate) const MAX_KID: usize = 256;

/// A public key, parsed once, bound to the algorithms it may be used with.
#[derive(Debug)]
pub(crate) struct Key {
    kid: Option<Box<str>>,
    thumbprint: [u8; 32],
    /// One per algorithm: the library binds the algorithm when it parses.
    prepared: Box<[Prepared]>,
    /// Set when the issuer stops publishing the key, so that whatever was verified with it earlier
    /// can be distrusted without searching for it.
    withdrawn: Withdrawn,
}

/// A key as the library verifies with it.
#[derive(Debug)]
pub(crate) struct Prepared {
    algorithm: Algorithm,
    key: ParsedPublicKey,
    /// Of an elliptic curve: how many octets each of a signature's two numbers has.
    coordinate: Option<usize>,
}

impl Prepared {
    /// Whether this is the signature of the message.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.coordinate {
            None => self.key.verify_sig(message, signature).is_ok(),
            Some(coordinate) => Asn1::of(signature, coordinate)
                .is_some_and(|asn1| self.key.verify_sig(message, asn1.as_octets()).is_ok()),
        }
    }
}

/// Why a JWK is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// Not an object, or a member has the wrong type or length.
    Malformed,
    /// Of a type or curve this crate does not verify.
    Type,
    /// `use` or `key_ops` say it is not for verifying.
    Purpose,
    /// Its `alg` does not fit it, or the issuer may use none of its algorithms.
    Algorithm,
    /// RSA below 2048 bits or above 8192, a point off the curve, or an impossible exponent.
    Weak,
    /// A symmetric key, or the private half of one: whoever can read the set could sign.
    Secret,
}

impl Key {
    /// Reads one member of a key set. Only algorithms in `allowed` are prepared.
    pub(crate) fn read(jwk: Value<'_>, allowed: &[Algorithm]) -> Result<Self, Unusable> {
        if !jwk.is_object() {
            return Err(Unusable::Malformed);
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => {
                Some(kid.as_str().filter(|kid| kid.len() <= MAX_KID).ok_or(Unusable::Malformed)?)
            }
        };
        check_purpose(jwk)?;
        let material = Material::read(jwk)?;
        let stated = match jwk.get("alg") {
            None => None,
            Some(alg) => {
                let name = alg.as_str().ok_or(Unusable::Malformed)?;
                Some(name.parse::<Algorithm>().map_err(|_| Unusable::Algorithm)?)
            }
        };
        let usable = |algorithm: &&Algorithm| {
            allowed.contains(algorithm) && stated.is_none_or(|stated| stated == **algorithm)
        };
        let algorithms = material.algorithms().iter().filter(usable);
        let prepared: Box<[_]> = algorithms
            .map(|&algorithm| material.prepare(algorithm))
            .collect::<Option<_>>()
            .ok_or(Unusable::Weak)?;
        if prepared.is_empty() {
            return Err(Unusable::Algorithm);
        }
        Ok(Self {
            kid: kid.map(Box::from),
            thumbprint: material.thumbprint(),
            prepared,
            withdrawn: Withdrawn::default(),
        })
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether `other` is this key: same name, same material, same algorithms.
    pub(crate) fn is_same_as(&self, other: &Key) -> bool {
        let algorithms = |key: &Key| key.prepared.iter().map(|it| it.algorithm).collect::<Vec<_>>();
        self.kid == other.kid
            && self.thumbprint == other.thumbprint
            && algorithms(self) == algorithms(other)
    }

    /// The key prepared for `algorithm`, if it may be used with it.
    pub(crate) fn prepared(&self, algorithm: Algorithm) -> Option<&Prepared> {
        self.prepared.iter().find(|it| it.algorithm == algorithm)
    }

    pub(crate) fn withdraw(&self) {
        self.withdrawn.set();
    }

    /// The flag that says whether the issuer stopped publishing the key.
    pub(crate) fn withdrawn(&self) -> &Withdrawn {
        &self.withdrawn
    }
}

fn check_purpose(jwk: Value<'_>) -> Result<(), Unusable> {
    if jwk.get("use").is_some_and(|usage| usage.as_str() != Some("sig")) {
        return Err(Unusable::Purpose);
    }
    if let Some(operations) = jwk.get("key_ops") {
        let verifies = operations.is_list()
            && operations.children().any(|operation| operation.as_str() == Some("verify"));
        if !verifies {
            return Err(Unusable::Purpose);
        }
    }
    Ok(())
}

/// The octets a key is made of.
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: &'static Curve, x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
}

/// An elliptic curve of RFC 7518 §6.2.1.1.
struct Curve {
    name: &'static str,
    coordinate: usize,
    algorithm: Algorithm,
}

static CURVES: [Curve; 3] = [
    Curve { name: "P-256", coordinate: 32, algorithm: Algorithm::ES256 },
    Curve { name: "P-384", coordinate: 48, algorithm: Algorithm::ES384 },
    Curve { name: "P-521", coordinate: 66, algorithm: Algorithm::ES512 },
];

impl Material {
    fn read(jwk: Value<'_>) -> Result<Self, Unusable> {
        let text = |name| jwk.get(name).and_then(Value::as_str).ok_or(Unusable::Malformed);
        let octets = |name| base64url::decode(text(name)?).ok_or(Unusable::Malformed);
        if jwk.get("d").is_some() || jwk.get("k").is_some() {
            return Err(Unusable::Secret);
        }
        match text("kty")? {
            "RSA" => {
                let (n, e) = (octets("n")?, octets("e")?);
                let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
                let odd = |octets: &[u8]| octets.last().is_some_and(|byte| byte % 2 == 1);
                let leads = |octets: &[u8]| octets.first().is_some_and(|byte| *byte != 0);
                if !(2048..=8192).contains(&bits)
                    || !odd(&n)
                    || !odd(&e)
                    || !leads(&n)
                    || !leads(&e)
                    || e == [1]
                {
                    return Err(Unusable::Weak);
                }
                Ok(Self::Rsa { n, e })
            }
            "EC" => {
                let name = text("crv")?;
                let curve = CURVES.iter().find(|curve| curve.name == name).ok_or(Unusable::Type)?;
                let (x, y) = (octets("x")?, octets("y")?);
                if x.len() != curve.coordinate || y.len() != curve.coordinate {
                    return Err(Unusable::Malformed);
                }
                Ok(Self::Ec { curve, x, y })
            }
            "OKP" if text("crv")? == "Ed25519" => {
                let x = octets("x")?;
                if x.len() == 32 { Ok(Self::Ed25519 { x }) } else { Err(Unusable::Malformed) }
            }
            _ => Err(Unusable::Type),
        }
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa { .. } => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Self::Ec { curve, .. } => std::slice::from_ref(&curve.algorithm),
            Self::Ed25519 { .. } => &[Algorithm::Ed25519],
        }
    }

    /// `None` when the library refuses the key, such as a point off its curve.
    fn prepare(&self, algorithm: Algorithm) -> Option<Prepared> {
        let mut coordinate = None;
        let key = match self {
            Self::Rsa { n, e } => {
                PublicKeyComponents { n, e }.to_parsed_public_key(rsa_parameters(algorithm)?)
            }
            Self::Ec { curve, x, y } => {
                coordinate = Some(curve.coordinate);
                let point = [&[4], &**x, &**y].concat();
                ParsedPublicKey::new(ec_parameters(algorithm)?, point)
            }
            Self::Ed25519 { x } => ParsedPublicKey::new(&signature::ED25519, x),
        };
        Some(Prepared { algorithm, key: key.ok()?, coordinate })
    }

    /// RFC 7638: SHA-256 over the required members in lexicographic order.
    fn thumbprint(&self) -> [u8; 32] {
        let b64 = |octets: &[u8]| base64url::encode(octets);
        let members = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64(e), b64(n)),
            Self::Ec { curve, x, y } => format!(
                r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#,
                curve.name,
                b64(x),
                b64(y)
            ),
            Self::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(x)),
        };
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest::digest(&digest::SHA256, members.as_bytes()).as_ref());
        thumbprint
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn ec_parameters(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_ASN1,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_ASN1,
        Algorithm::ES512 => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Document;

    fn read(jwk: &str) -> Result<Key, Unusable> {
        Key::read(Document::parse(jwk.as_bytes()).unwrap().root(), &Algorithm::ALL)
    }

    const RFC7638: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
    const RFC8037: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        let thumbprint = |jwk| base64url::encode(read(jwk).unwrap().thumbprint);
        assert_eq!(thumbprint(RFC7638), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(thumbprint(RFC8037), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_key_is_bound_to_its_own_algorithms() {
        let algorithms = |jwk: &str| -> Vec<_> {
            let key = read(jwk).unwrap();
            Algorithm::ALL.into_iter().filter(|alg| key.prepared(*alg).is_some()).collect()
        };
        assert_eq!(algorithms(RFC7638), [Algorithm::RS256]);
        assert_eq!(algorithms(&RFC7638.replace(r#","alg":"RS256""#, "")).len(), 6);
        assert_eq!(algorithms(P256), [Algorithm::ES256]);
        for alg in ["", r#","alg":"EdDSA""#, r#","alg":"Ed25519""#] {
            let jwk = RFC8037.replace('}', &format!("{alg}}}"));
            assert_eq!(algorithms(&jwk), [Algorithm::Ed25519], "{alg}");
        }
    }

    #[test]
    fn unusable_keys_are_recognised() {
        let with = |jwk: &str, member: &str| jwk.replace('}', &format!(",{member}}}"));
        let table = [
            (with(P256, r#""use":"enc""#), Unusable::Purpose),
            (with(P256, r#""use":7"#), Unusable::Purpose),
            (with(P256, r#""key_ops":["sign"]"#), Unusable::Purpose),
            (with(P256, r#""key_ops":"verify""#), Unusable::Purpose),
            (with(P256, r#""alg":"RS256""#), Unusable::Algorithm),
            (with(P256, r#""alg":"ECDH-ES""#), Unusable::Algorithm),
            (with(P256, r#""alg":7"#), Unusable::Malformed),
            (with(P256, r#""kid":7"#), Unusable::Malformed),
            (with(P256, r#""kid":null"#), Unusable::Malformed),
            (with(P256, &format!(r#""kid":"{}""#, "k".repeat(257))), Unusable::Malformed),
            (
                with(RFC8037, r#""d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A""#),
                Unusable::Secret,
            ),
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), Unusable::Secret),
            (r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#.to_owned(), Unusable::Type),
            (P256.replace("P-256", "secp256k1"), Unusable::Type),
            (P256.replace("P-256", "P-384"), Unusable::Malformed),
            (P256.replace("MKBC", "MKBD"), Unusable::Weak),
            (RFC8037.replace("Ed25519", "Ed448"), Unusable::Type),
            (RFC8037.replace("11qY", "11q"), Unusable::Malformed),
            (RFC7638.replace("AQAB", "AQ"), Unusable::Weak),
            (RFC7638.replace("AQAB", "AAEAAQ"), Unusable::Weak),
            (r#"{"kty":"RSA","n":"3Q","e":"AQAB"}"#.to_owned(), Unusable::Weak),
            (r#"{"kty":"RSA","e":"AQAB"}"#.to_owned(), Unusable::Malformed),
            (r#"{"kid":"x"}"#.to_owned(), Unusable::Malformed),
        ];
        for (jwk, why) in table {
            assert_eq!(read(&jwk).err(), Some(why), "{jwk}");
        }
        let only_es256 =
            Key::read(Document::parse(RFC7638.as_bytes()).unwrap().root(), &[Algorithm::ES256]);
        assert_eq!(only_es256.err(), Some(Unusable::Algorithm), "not allowed for the issuer");
    }

    /// One number in 256 begins with a zero, and its encoding is shorter.
    #[test]
    fn whatever_numbers_a_signature_has_it_verifies_and_none_near_it_does() {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair};
        let table = [
            (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256, 2000),
            (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384, 300),
            (&signature::ECDSA_P521_SHA512_FIXED_SIGNING, Algorithm::ES512, 100),
        ];
        for (signing, algorithm, signatures) in table {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let curve = CURVES.iter().find(|curve| curve.algorithm == algorithm).unwrap();
            let (x, y) = pair.public_key().as_ref()[1..].split_at(curve.coordinate);
            let material = Material::Ec { curve, x: x.into(), y: y.into() };
            let key = material.prepare(algorithm).unwrap();
            for n in 0..signatures {
                let message = format!("message {n}");
                let signed = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
                let mut octets = signed.as_ref().to_vec();
                assert!(key.verifies(message.as_bytes(), &octets), "{octets:?}");
                if n < 50 {
                    let (at, bit) = (n * 7 % octets.len(), 1 << (n % 8));
                    octets[at] ^= bit;
                    assert!(!key.verifies(message.as_bytes(), &octets), "{octets:?}");
                }
            }
            let zeros = vec![0; 2 * curve.coordinate];
            assert!(!key.verifies(b"message 0", &zeros) && !key.verifies(b"message 0", b""));
        }
    }
}
