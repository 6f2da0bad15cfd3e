//! [`Key`]: a JWK (RFC 7517, RFC 7518 §6, RFC 8037, RFC 9964), parsed for verification.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, VerificationAlgorithm};

use super::lease::Removed;
use crate::clock::unix_time;
use crate::config::{Algorithm, TENANT_PLACEHOLDER};
use crate::identity::numeric_date;
use crate::support::base64url;
use crate::support::json::Value;

/// The maximum length of a key id, in bytes. Providers use much shorter ones.
pub(crate) const MAX_KID: usize = 256;

/// The tenant placeholder of Entra ID in a JWK's `issuer`.
const ENTRA_PLACEHOLDER: &str = "{tenantid}";

/// A query for the keys that may have signed a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyQuery<'q> {
    /// The token's `kid`.
    pub(crate) kid: Option<&'q str>,
    /// The token's `x5t` and `x5t#S256`.
    pub(crate) certificate: &'q CertificateHash,
    /// The token's `iss`.
    pub(crate) issuer: &'q str,
    pub(crate) now: SystemTime,
    /// The accepted clock difference.
    pub(crate) leeway: Duration,
}

/// The hashes that identify a certificate (RFC 7517 §4.8 and §4.9, RFC 7515 §4.1.7 and §4.1.8), in base64url.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CertificateHash {
    /// `x5t`, a SHA-1 hash. It only selects a key, so the weakness of SHA-1 does not matter.
    pub(crate) sha1: Option<Box<str>>,
    /// `x5t#S256`.
    pub(crate) sha256: Option<Box<str>>,
}

impl CertificateHash {
    /// Returns the hashes stated in a JWK, or computed from its first certificate (`x5c`).
    fn parse(jwk: Value<'_>) -> Result<Self, Unusable> {
        let first = jwk.get("x5c").and_then(|chain| chain.children().next());
        let der = first.and_then(Value::as_str).and_then(base64url::decode_standard);
        let stated_or_hash = |name, algorithm| {
            let hash = |der| base64url::encode(digest::digest(algorithm, der)).into();
            Ok(text(jwk, name)?.map(Box::from).or_else(|| der.as_deref().map(hash)))
        };
        Ok(Self {
            sha1: stated_or_hash("x5t", &digest::SHA1_FOR_LEGACY_USE_ONLY)?,
            sha256: stated_or_hash("x5t#S256", &digest::SHA256)?,
        })
    }

    /// Returns whether both may name the same certificate: hashes that both have are equal.
    fn agrees_with(&self, other: &Self) -> bool {
        let agree = |one: &Option<Box<str>>, other: &Option<Box<str>>| match (one, other) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        agree(&self.sha1, &other.sha1) && agree(&self.sha256, &other.sha256)
    }
}

/// The issuer and the time for which a key is valid. They are checked for each token, because issuers may
/// share a key set, and time passes while the set is cached.
#[derive(Debug, Clone, Default, PartialEq)]
struct Validity {
    /// `issuer`, as Entra ID publishes it: one issuer, or a template for the issuers of all tenants.
    issuer: Option<Box<str>>,
    /// `nbf` and `exp` (OpenID Federation 1.0), in seconds since 1970.
    not_before: Option<f64>,
    expires: Option<f64>,
}

impl Validity {
    fn parse(jwk: Value<'_>) -> Result<Self, Unusable> {
        // `revoked` is an object with time and reason (OpenID Federation 1.0). Its presence is enough.
        let revoked = jwk.get("revoked");
        if revoked.is_some_and(|it| !it.is_null() && it.as_bool() != Some(false)) {
            return Err(Unusable::Revoked);
        }
        let issuer = text(jwk, "issuer")?.map(Box::from);
        let date = |name| numeric_date(jwk.get(name), name).map_err(|_| Unusable::Malformed);
        Ok(Self { issuer, not_before: date("nbf")?, expires: date("exp")? })
    }

    fn permits(&self, query: &KeyQuery<'_>) -> bool {
        let (now, leeway) = (unix_time(query.now), query.leeway.as_secs_f64());
        self.issuer.as_deref().is_none_or(|published| matches_issuer(published, query.issuer))
            && self.not_before.is_none_or(|begins| begins <= now + leeway)
            && self.expires.is_none_or(|ends| now < ends + leeway)
    }
}

/// Returns whether `published` names `issuer`: both are equal, or `published` is a template whose
/// placeholder matches one path segment.
fn matches_issuer(published: &str, issuer: &str) -> bool {
    let split = published
        .split_once(ENTRA_PLACEHOLDER)
        .or_else(|| published.split_once(TENANT_PLACEHOLDER));
    let Some((before, after)) = split else { return published == issuer };
    let tenant = issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    tenant.is_some_and(|tenant| !tenant.is_empty() && !tenant.contains(['/', '?', '#']))
}

/// A parsed public key, bound to its permitted algorithms.
#[derive(Debug)]
pub(crate) struct Key {
    kid: Option<Box<str>>,
    material: Material,
    /// One verifier per algorithm, because the library binds the algorithm when it parses the key.
    verifiers: Box<[Verifier]>,
    validity: Validity,
    certificate: CertificateHash,
    /// Set when the issuer stops publishing the key. Cached tokens share this flag, so they become invalid
    /// without a search.
    removed: Removed,
}

/// A key for one algorithm, parsed by the crypto library.
#[derive(Debug)]
pub(crate) struct Verifier {
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

impl Verifier {
    /// Returns whether `signature` is a valid signature of `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

/// The reason why a JWK cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// The JWK is not an object, or a member is missing or has the wrong type or length.
    Malformed,
    /// The type or curve is not supported.
    UnsupportedType,
    /// `use` or `key_ops` do not allow verification.
    NotForVerification,
    /// None of its algorithms is allowed for the issuer.
    AlgorithmNotAllowed,
    /// Its `alg` does not fit its type.
    AlgorithmMismatch,
    /// An RSA key of less than 2048 or more than 8192 bits, an impossible RSA exponent, or a point that is
    /// not on the curve.
    Unsafe,
    /// A symmetric or private key: every reader of the set could sign tokens.
    Secret,
    /// Marked as revoked by the provider.
    Revoked,
    /// A key of a SPIFFE bundle without `use`.
    NoUse,
    /// A key of a SPIFFE bundle without `kid`.
    NoKeyId,
}

impl Unusable {
    /// Returns the fixed text for logs and health reports.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => {
                "it is not a JSON object, or a member is missing or has the wrong type or length"
            }
            Self::UnsupportedType => "its type or curve is not supported",
            Self::NotForVerification => "`use` or `key_ops` do not allow verification",
            Self::AlgorithmNotAllowed => "its algorithm is not allowed for this issuer",
            Self::AlgorithmMismatch => "its `alg` does not fit its type",
            Self::Unsafe => {
                "its RSA modulus has less than 2048 or more than 8192 bits, its exponent is impossible, or its point is not on the curve"
            }
            Self::Secret => "it is a private or symmetric key, which must not be published",
            Self::Revoked => "it is marked as revoked",
            Self::NoUse => "it has no `use`; a SPIFFE bundle marks keys for tokens with `jwt-svid`",
            Self::NoKeyId => "it has no `kid`, which a SPIFFE bundle requires",
        }
    }

    /// Returns whether the provider should fix the key. Other keys are correct, but revoked or not for this
    /// service.
    pub(crate) fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::AlgorithmMismatch
                | Self::Unsafe
                | Self::Secret
                | Self::NoUse
                | Self::NoKeyId
        )
    }
}

impl Key {
    /// Parses one key of a key set, for the algorithms in `allowed`.
    pub(crate) fn parse(jwk: Value<'_>, allowed: &[Algorithm]) -> Result<Self, Unusable> {
        Self::parse_for("sig", jwk, allowed)
    }

    /// Parses one key of a SPIFFE bundle. Its `use` must be `jwt-svid`, and it must have a `kid`.
    pub(crate) fn parse_jwt_authority(
        jwk: Value<'_>,
        allowed: &[Algorithm],
    ) -> Result<Self, Unusable> {
        if jwk.is_object() && jwk.get("use").is_none() {
            return Err(Unusable::NoUse);
        }
        let key = Self::parse_for("jwt-svid", jwk, allowed)?;
        if key.kid.is_some() { Ok(key) } else { Err(Unusable::NoKeyId) }
    }

    fn parse_for(usage: &str, jwk: Value<'_>, allowed: &[Algorithm]) -> Result<Self, Unusable> {
        if !jwk.is_object() {
            return Err(Unusable::Malformed);
        }
        let kid = text(jwk, "kid")?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(Unusable::Malformed);
        }
        check_purpose(jwk, usage)?;
        let material = Material::parse(jwk)?;
        let validity = Validity::parse(jwk)?;
        let certificate = CertificateHash::parse(jwk)?;
        let stated = text(jwk, "alg")?.map(str::parse::<Algorithm>).transpose();
        let stated = stated.map_err(|_| Unusable::AlgorithmNotAllowed)?;
        if stated.is_some_and(|stated| !material.algorithms().contains(&stated)) {
            return Err(Unusable::AlgorithmMismatch);
        }
        let usable = |algorithm: &&Algorithm| {
            allowed.contains(algorithm) && stated.is_none_or(|stated| stated == **algorithm)
        };
        let algorithms = material.algorithms().iter().filter(usable);
        let verifiers: Box<[_]> = algorithms
            .map(|&algorithm| material.verifier(algorithm))
            .collect::<Option<_>>()
            .ok_or(Unusable::Unsafe)?;
        if verifiers.is_empty() {
            return Err(Unusable::AlgorithmNotAllowed);
        }
        Ok(Self {
            kid: kid.map(Box::from),
            material,
            verifiers,
            validity,
            certificate,
            removed: Removed::default(),
        })
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Returns whether the key is valid for the token's issuer at this time.
    pub(crate) fn is_valid_for(&self, query: &KeyQuery<'_>) -> bool {
        self.validity.permits(query)
    }

    /// Returns whether `certificate` may refer to this key. To a key without a certificate, it always may.
    pub(crate) fn may_match(&self, certificate: &CertificateHash) -> bool {
        self.certificate.agrees_with(certificate)
    }

    /// Returns the key's expiry with the leeway added, if the key has one.
    pub(crate) fn expires_at(&self, leeway: Duration) -> Option<SystemTime> {
        let expires = Duration::try_from_secs_f64(self.validity.expires?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(expires.saturating_add(leeway))
    }

    /// Returns whether `other` is the same key: `kid`, material, algorithms, validity and certificate are
    /// equal.
    pub(crate) fn is_same_as(&self, other: &Key) -> bool {
        let algorithms =
            |key: &Key| key.verifiers.iter().map(|it| it.algorithm).collect::<Vec<_>>();
        self.kid == other.kid
            && self.validity == other.validity
            && self.certificate == other.certificate
            && self.material == other.material
            && algorithms(self) == algorithms(other)
    }

    /// Returns the verifier for `algorithm`, if the key permits it.
    pub(crate) fn verifier(&self, algorithm: Algorithm) -> Option<&Verifier> {
        self.verifiers.iter().find(|it| it.algorithm == algorithm)
    }

    pub(crate) fn mark_removed(&self) {
        self.removed.set();
    }

    /// Returns the flag that is set when the issuer stops publishing the key.
    pub(crate) fn removed(&self) -> &Removed {
        &self.removed
    }
}

/// Returns an optional string member.
fn text<'j>(jwk: Value<'j>, name: &str) -> Result<Option<&'j str>, Unusable> {
    let member = jwk.get(name);
    member.map(|value| value.as_str().ok_or(Unusable::Malformed)).transpose()
}

fn check_purpose(jwk: Value<'_>, usage: &str) -> Result<(), Unusable> {
    if jwk.get("use").is_some_and(|stated| stated.as_str() != Some(usage)) {
        return Err(Unusable::NotForVerification);
    }
    if let Some(operations) = jwk.get("key_ops") {
        let verifies = operations.is_list()
            && operations.children().any(|operation| operation.as_str() == Some("verify"));
        if !verifies {
            return Err(Unusable::NotForVerification);
        }
    }
    Ok(())
}

/// The members of private and symmetric keys (RFC 7518 §6, RFC 9964). Each of them reveals the key: from a
/// prime, `d` can be computed.
const SECRET_MEMBERS: [&str; 9] = ["d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv"];

fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

/// The key material: the numbers of a public key.
#[derive(Debug, PartialEq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { curve: &'static Curve, x: Vec<u8>, y: Vec<u8> },
    Ed25519 { x: Vec<u8> },
    MlDsa { parameters: &'static MlDsa, public: Vec<u8> },
}

/// An elliptic curve of RFC 7518 §6.2.1.1.
#[derive(Debug, PartialEq)]
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

/// A parameter set of ML-DSA (FIPS 204 §4), with the length of its public keys in bytes.
#[derive(Debug, PartialEq)]
struct MlDsa {
    algorithm: Algorithm,
    public_length: usize,
}

static ML_DSA: [MlDsa; 3] = [
    MlDsa { algorithm: Algorithm::MLDSA44, public_length: 1312 },
    MlDsa { algorithm: Algorithm::MLDSA65, public_length: 1952 },
    MlDsa { algorithm: Algorithm::MLDSA87, public_length: 2592 },
];

impl MlDsa {
    /// Finds the parameter set of a JWK's `alg`.
    fn find(alg: &str) -> Result<&'static Self, Unusable> {
        // Other algorithms with this key type are not supported, or need another key type.
        let algorithm = alg.parse().map_err(|_| Unusable::UnsupportedType)?;
        let found = ML_DSA.iter().find(|it| it.algorithm == algorithm);
        found.ok_or(Unusable::AlgorithmMismatch)
    }
}

impl Material {
    fn parse(jwk: Value<'_>) -> Result<Self, Unusable> {
        let text = |name| jwk.get(name).and_then(Value::as_str).ok_or(Unusable::Malformed);
        let bytes = |name| base64url::decode(text(name)?).ok_or(Unusable::Malformed);
        if SECRET_MEMBERS.iter().any(|name| jwk.get(name).is_some()) {
            return Err(Unusable::Secret);
        }
        match text("kty")? {
            "RSA" => {
                // RFC 7518 §2 forbids leading zero bytes, but Java's `BigInteger.toByteArray` writes one
                // before a number whose first bit is set.
                let number = |name| bytes(name).map(without_leading_zeros);
                let (n, e) = (number("n")?, number("e")?);
                let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
                let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
                if !(2048..=8192).contains(&bits) || !odd(&n) || !odd(&e) || e == [1] {
                    return Err(Unusable::Unsafe);
                }
                Ok(Self::Rsa { n, e })
            }
            "EC" => {
                let name = text("crv")?;
                let curve = CURVES
                    .iter()
                    .find(|curve| curve.name == name)
                    .ok_or(Unusable::UnsupportedType)?;
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != curve.coordinate || y.len() != curve.coordinate {
                    return Err(Unusable::Malformed);
                }
                Ok(Self::Ec { curve, x, y })
            }
            "OKP" if text("crv")? == "Ed25519" => {
                let x = bytes("x")?;
                if x.len() == 32 { Ok(Self::Ed25519 { x }) } else { Err(Unusable::Malformed) }
            }
            "AKP" => {
                // RFC 9964 §3 requires `alg`, because it alone names the parameter set.
                let parameters = MlDsa::find(text("alg")?)?;
                let public = bytes("pub")?;
                if public.len() != parameters.public_length {
                    return Err(Unusable::Malformed);
                }
                Ok(Self::MlDsa { parameters, public })
            }
            _ => Err(Unusable::UnsupportedType),
        }
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa { .. } => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Self::Ec { curve, .. } => std::slice::from_ref(&curve.algorithm),
            Self::Ed25519 { .. } => &[Algorithm::Ed25519],
            Self::MlDsa { parameters, .. } => std::slice::from_ref(&parameters.algorithm),
        }
    }

    /// Parses the key for one algorithm. Returns `None` if the crypto library refuses it, for example because
    /// its point is not on the curve.
    fn verifier(&self, algorithm: Algorithm) -> Option<Verifier> {
        let key = match self {
            Self::Rsa { n, e } => {
                PublicKeyComponents { n, e }.to_parsed_public_key(rsa_parameters(algorithm)?)
            }
            Self::Ec { x, y, .. } => {
                let point = [&[4], &**x, &**y].concat();
                ParsedPublicKey::new(ec_parameters(algorithm)?, point)
            }
            Self::Ed25519 { x } => ParsedPublicKey::new(&signature::ED25519, x),
            Self::MlDsa { public, .. } => {
                ParsedPublicKey::new(ml_dsa_parameters(algorithm)?, public)
            }
        };
        Some(Verifier { algorithm, key: key.ok()? })
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
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
        _ => return None,
    })
}

fn ml_dsa_parameters(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::MLDSA44 => &signature::ML_DSA_44,
        Algorithm::MLDSA65 => &signature::ML_DSA_65,
        Algorithm::MLDSA87 => &signature::ML_DSA_87,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::json::Document;

    fn parse(jwk: &str) -> Result<Key, Unusable> {
        Key::parse(Document::parse(jwk.as_bytes()).unwrap().root(), &Algorithm::ALL)
    }

    const RFC7638: &str = r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#;
    const RFC8037: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

    #[test]
    fn key_is_bound_to_its_algorithms() {
        let algorithms = |jwk: &str| -> Vec<_> {
            let key = parse(jwk).unwrap();
            Algorithm::ALL.into_iter().filter(|alg| key.verifier(*alg).is_some()).collect()
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
    fn unusable_keys_are_detected() {
        let with = |jwk: &str, member: &str| jwk.replace('}', &format!(",{member}}}"));
        let table = [
            (with(P256, r#""use":"enc""#), Unusable::NotForVerification),
            (with(P256, r#""use":7"#), Unusable::NotForVerification),
            (with(P256, r#""key_ops":["sign"]"#), Unusable::NotForVerification),
            (with(P256, r#""key_ops":"verify""#), Unusable::NotForVerification),
            (with(P256, r#""alg":"RS256""#), Unusable::AlgorithmMismatch),
            (with(P256, r#""alg":"ECDH-ES""#), Unusable::AlgorithmNotAllowed),
            (with(P256, r#""alg":7"#), Unusable::Malformed),
            (with(P256, r#""kid":7"#), Unusable::Malformed),
            (with(P256, r#""kid":null"#), Unusable::Malformed),
            (with(P256, &format!(r#""kid":"{}""#, "k".repeat(257))), Unusable::Malformed),
            (
                with(RFC8037, r#""d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A""#),
                Unusable::Secret,
            ),
            (r#"{"kty":"oct","k":"c2VjcmV0"}"#.to_owned(), Unusable::Secret),
            (P256.replace("P-256", "secp256k1"), Unusable::UnsupportedType),
            (P256.replace("P-256", "P-384"), Unusable::Malformed),
            (P256.replace("MKBC", "MKBD"), Unusable::Unsafe),
            (RFC8037.replace("Ed25519", "Ed448"), Unusable::UnsupportedType),
            (RFC8037.replace("11qY", "11q"), Unusable::Malformed),
            (RFC7638.replace("AQAB", "AQ"), Unusable::Unsafe),
            (RFC7638.replace("AQAB", "AAAAAQ"), Unusable::Unsafe),
            (RFC7638.replace("AQAB", "AAAA"), Unusable::Unsafe),
            (RFC7638.replace("AQAB", "AQAA"), Unusable::Unsafe),
            (with(RFC7638, r#""p":"AQ""#), Unusable::Secret),
            (with(P256, r#""priv":"AQ""#), Unusable::Secret),
            (with(P256, r#""revoked":{"revoked_at":1}"#), Unusable::Revoked),
            (with(P256, r#""revoked":true"#), Unusable::Revoked),
            (with(P256, r#""exp":"4000000000""#), Unusable::Malformed),
            (with(P256, r#""nbf":null"#), Unusable::Malformed),
            (with(P256, r#""issuer":["https://a.example"]"#), Unusable::Malformed),
            (with(P256, r#""x5t":7"#), Unusable::Malformed),
            (r#"{"kty":"RSA","n":"3Q","e":"AQAB"}"#.to_owned(), Unusable::Unsafe),
            (r#"{"kty":"RSA","e":"AQAB"}"#.to_owned(), Unusable::Malformed),
            (r#"{"kid":"x"}"#.to_owned(), Unusable::Malformed),
        ];
        for (jwk, why) in table {
            assert_eq!(parse(&jwk).err(), Some(why), "{jwk}");
        }
        let only_es256 =
            Key::parse(Document::parse(RFC7638.as_bytes()).unwrap().root(), &[Algorithm::ES256]);
        assert_eq!(
            only_es256.err(),
            Some(Unusable::AlgorithmNotAllowed),
            "not allowed for the issuer"
        );
    }

    fn akp(alg: &str, length: usize) -> String {
        let public = base64url::encode(vec![7; length]);
        format!(r#"{{"kty":"AKP","alg":"{alg}","pub":"{public}"}}"#)
    }

    #[test]
    fn ml_dsa_keys_need_alg_and_length() {
        let sets = [("ML-DSA-44", 1312), ("ML-DSA-65", 1952), ("ML-DSA-87", 2592)];
        for (alg, length) in sets {
            let key = parse(&akp(alg, length)).unwrap();
            let permitted = Algorithm::ALL.into_iter().filter(|it| key.verifier(*it).is_some());
            assert_eq!(permitted.map(Algorithm::as_str).collect::<Vec<_>>(), [alg]);
            let other_lengths = [0, 32, 1312, 1952, 2592, length - 1, length + 1];
            for other in other_lengths.into_iter().filter(|other| *other != length) {
                let refused = parse(&akp(alg, other)).err();
                assert_eq!(refused, Some(Unusable::Malformed), "{alg} with {other} bytes");
            }
        }
        let good = akp("ML-DSA-44", 1312);
        let with = |member: &str| good.replace('}', &format!(",{member}}}"));
        for (jwk, why) in [
            (good.replace(r#""alg":"ML-DSA-44","#, ""), Unusable::Malformed),
            (good.replace(r#""ML-DSA-44""#, "7"), Unusable::Malformed),
            (good.replace(r#""pub""#, r#""x""#), Unusable::Malformed),
            (
                good.replace("BwcH", "====").replace(r#""pub":"=="#, r#""pub":"?"#),
                Unusable::Malformed,
            ),
            (akp("ml-dsa-44", 1312), Unusable::UnsupportedType),
            (akp("SLH-DSA-SHA2-128s", 32), Unusable::UnsupportedType),
            (akp("HS256", 1312), Unusable::UnsupportedType),
            (akp("ES256", 1312), Unusable::AlgorithmMismatch),
            (with(r#""priv":"AAAA""#), Unusable::Secret),
            (with(r#""use":"enc""#), Unusable::NotForVerification),
        ] {
            assert_eq!(parse(&jwk).err(), Some(why), "{jwk}");
        }
        let document = Document::parse(good.as_bytes()).unwrap();
        let defaults = [Algorithm::RS256, Algorithm::ES256];
        let refused = Key::parse(document.root(), &defaults).err();
        assert_eq!(refused, Some(Unusable::AlgorithmNotAllowed));
    }

    /// The examples in the appendix of RFC 9964.
    #[test]
    fn signatures_of_rfc_9964_verify() {
        let examples: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("rfc9964.json")).unwrap();
        for (nth, (example, algorithm)) in
            examples.iter().zip(ML_DSA.iter().map(|it| it.algorithm)).enumerate()
        {
            let key = parse(&example["jwk"].to_string()).unwrap();
            let (signed, signature) = example["jws"].as_str().unwrap().rsplit_once('.').unwrap();
            let (verifier, signature) =
                (key.verifier(algorithm).unwrap(), base64url::decode(signature).unwrap());
            assert!(verifier.verifies(signed.as_bytes(), &signature), "{algorithm}");
            let other = parse(&examples[(nth + 1) % 3]["jwk"].to_string()).unwrap();
            assert!(!other.verifiers[0].verifies(signed.as_bytes(), &signature));
            assert!(!verifier.verifies(&signed.as_bytes()[1..], &signature));
            for at in [0, signature.len() / 2, signature.len() - 1] {
                let mut changed = signature.clone();
                changed[at] ^= 1;
                assert!(!verifier.verifies(signed.as_bytes(), &changed), "{algorithm} at {at}");
                assert!(!verifier.verifies(signed.as_bytes(), &signature[..at]));
            }
            changed_length(&signature).for_each(|changed| {
                assert!(!verifier.verifies(signed.as_bytes(), &changed), "{algorithm}");
            });
        }
    }

    fn changed_length(signature: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        [[signature, &[0]].concat(), signature.repeat(2), vec![0; signature.len()]].into_iter()
    }

    #[test]
    fn leading_zeros_of_rsa_numbers_are_stripped() {
        let n = RFC7638.split('"').nth(7).unwrap();
        let spelt = |zeros: usize, number: &str| {
            base64url::encode([vec![0; zeros], base64url::decode(number).unwrap()].concat())
        };
        let plain = parse(RFC7638).unwrap();
        for (before_n, before_e) in [(1, 0), (0, 1), (1, 1), (3, 5)] {
            let jwk = RFC7638.replace(n, &spelt(before_n, n));
            let key = parse(&jwk.replace("AQAB", &spelt(before_e, "AQAB"))).unwrap();
            assert!(key.is_same_as(&plain), "{before_n} {before_e}");
        }
        // Leading zeros do not count towards the key's length.
        let short = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, spelt(200, "3d3d3Q"));
        assert_eq!(parse(&short).err(), Some(Unusable::Unsafe));
    }

    fn query<'q>(issuer: &'q str, now: u64, certificate: &'q CertificateHash) -> KeyQuery<'q> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        KeyQuery { kid: None, certificate, issuer, now, leeway: Duration::from_secs(60) }
    }

    #[test]
    fn key_is_valid_for_its_issuer() {
        let is_valid = |published: &str, issuer: &str| {
            let member = format!(r#","issuer":"{published}"}}"#);
            let key = parse(&P256.replace('}', &member)).unwrap();
            key.is_valid_for(&query(issuer, 1000, &CertificateHash::default()))
        };
        let (consumers, business) = ("9188040d-6c67-4c5b-b112-36a304b66dad", "contoso");
        let at = |tenant: &str| format!("https://login.example/{tenant}/v2.0");
        for (published, issuer, expected) in [
            (at(consumers), at(consumers), true),
            (at(consumers), at(business), false),
            (at("{tenantid}"), at(business), true),
            (at("{tenantid}"), at(consumers), true),
            (at("{tenant_id}"), at(business), true),
            (at("{tenantid}"), at(""), false),
            (at("{tenantid}"), at("a/b"), false),
            (at("{tenantid}"), at("a?b"), false),
            (at("{tenantid}"), at(business) + "/", false),
            (at("{tenantid}"), "https://login.example/v2.0".to_owned(), false),
            (at("{TENANTID}"), at(business), false),
            (at(business) + "/", at(business), false),
            (at("Contoso"), at(business), false),
            (String::new(), at(business), false),
        ] {
            assert_eq!(is_valid(&published, &issuer), expected, "{published} {issuer}");
        }
    }

    #[test]
    fn key_is_valid_from_nbf_until_exp() {
        let certificate = CertificateHash::default();
        let is_valid = |members: &str, now: u64| {
            let key = parse(&P256.replace('}', &format!(",{members}}}"))).unwrap();
            key.is_valid_for(&query("https://a.example", now, &certificate))
        };
        for (members, now, expected) in [
            (r#""exp":2000"#, 2059, true),
            (r#""exp":2000"#, 2060, false),
            (r#""nbf":2000"#, 1939, false),
            (r#""nbf":2000"#, 1940, true),
            (r#""nbf":1000,"exp":2000"#, 1500, true),
            (r#""iat":9000,"revoked":false"#, 1500, true),
            (r#""revoked":null"#, 1500, true),
        ] {
            assert_eq!(is_valid(members, now), expected, "{members} at {now}");
        }
    }

    #[test]
    fn certificate_hashes_distinguish_keys() {
        let certificate =
            |members: &str| parse(&P256.replace('}', &format!("{members}}}"))).unwrap().certificate;
        let hash = |sha1: Option<&str>, sha256: Option<&str>| CertificateHash {
            sha1: sha1.map(Box::from),
            sha256: sha256.map(Box::from),
        };
        // The digests of "certificate".
        let (sha1, sha256) =
            ("c1rVccGJ17qERkv0qfHSKAF1sSg", "A9Zt0Ig1wco_EozOrNHzGslBYwlrIPRFroQoW8CDLXI");
        let computed = certificate(r#","x5c":["Y2VydGlmaWNhdGU=","AAAA"]"#);
        assert_eq!(computed, hash(Some(sha1), Some(sha256)));
        let stated = certificate(r#","x5t":"stated","x5c":["Y2VydGlmaWNhdGU="]"#);
        assert_eq!(stated, hash(Some("stated"), Some(sha256)));
        assert_eq!(certificate(r#","x5c":["?"]"#), certificate(""));
        for (asked, expected) in [
            (hash(None, None), true),
            (hash(Some(sha1), None), true),
            (hash(None, Some(sha256)), true),
            (hash(Some(sha1), Some(sha256)), true),
            (hash(Some("other"), None), false),
            (hash(Some(sha1), Some("other")), false),
        ] {
            assert_eq!(computed.agrees_with(&asked), expected, "{asked:?}");
            assert!(certificate("").agrees_with(&asked), "a key without certificate");
        }
    }

    #[test]
    fn changed_validity_makes_another_key() {
        let with = |members: &str| parse(&P256.replace('}', &format!("{members}}}"))).unwrap();
        let before = with(r#","exp":2000"#);
        assert!(before.is_same_as(&with(r#","exp":2000,"foo":1"#)));
        for members in ["", r#","exp":3000"#, r#","exp":2000,"issuer":"x""#] {
            assert!(!before.is_same_as(&with(members)), "{members}");
        }
    }

    /// Signs often enough to get numbers that begin with a zero byte: about one in 256.
    #[test]
    fn only_unchanged_ecdsa_signatures_verify() {
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
            let key = material.verifier(algorithm).unwrap();
            for n in 0..signatures {
                let message = format!("message {n}");
                let signed = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
                let mut bytes = signed.as_ref().to_vec();
                assert!(key.verifies(message.as_bytes(), &bytes), "{bytes:?}");
                if n < 50 {
                    let (at, bit) = (n * 7 % bytes.len(), 1 << (n % 8));
                    bytes[at] ^= bit;
                    assert!(!key.verifies(message.as_bytes(), &bytes), "{bytes:?}");
                }
            }
            let zeros = vec![0; 2 * curve.coordinate];
            assert!(!key.verifies(b"message 0", &zeros) && !key.verifies(b"message 0", b""));
        }
    }
}
