//! [`Algorithm`]: the signature algorithms that this crate verifies, by their registered names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A JWS signature algorithm (RFC 7518 §3.1, RFC 9864, RFC 9964).
///
/// All algorithms are asymmetric. Neither `none` nor HMAC exists here, so neither can be configured by
/// mistake. Names are case-sensitive (RFC 7515 §4.1.1). `EdDSA`, which RFC 9864 deprecates, is accepted as
/// [`Ed25519`](Algorithm::Ed25519).
///
/// # Post-quantum signatures
///
/// The ML-DSA algorithms resist quantum computers. They are not among the defaults: allow one by name where a
/// provider signs with it. Its signatures have 3,227, 4,412 or 6,170 characters, so check the limits of
/// proxies before a provider changes its key (see the
/// [manual](crate::manual::operating#post-quantum-tokens)).
///
/// ```
/// use scaikey_auth::IssuerConfig;
/// use scaikey_auth::config::Algorithm;
///
/// let issuer = IssuerConfig::new("https://id.example").algorithms([Algorithm::PS256, Algorithm::Ed25519]);
/// assert!("HS256".parse::<Algorithm>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256. The default, as in OpenID Connect.
    #[default]
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// ECDSA on P-521 with SHA-512.
    ES512,
    /// EdDSA on Curve25519.
    Ed25519,
    /// `ML-DSA-44`: ML-DSA (FIPS 204) of security category 2, without a context.
    MLDSA44,
    /// `ML-DSA-65`: ML-DSA of security category 3, without a context.
    MLDSA65,
    /// `ML-DSA-87`: ML-DSA of security category 5, without a context.
    MLDSA87,
}

impl Algorithm {
    /// Every algorithm, in the order of the enum.
    pub const ALL: [Self; 13] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::Ed25519,
        Self::MLDSA44,
        Self::MLDSA65,
        Self::MLDSA87,
    ];

    /// Returns the name in the registry of JWS algorithms (IANA).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::Ed25519 => "Ed25519",
            Self::MLDSA44 => "ML-DSA-44",
            Self::MLDSA65 => "ML-DSA-65",
            Self::MLDSA87 => "ML-DSA-87",
        }
    }
}

/// The error for the name of an algorithm that this crate does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown signature algorithm: use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, Ed25519 (or its old name, EdDSA), ML-DSA-44, ML-DSA-65 or ML-DSA-87"
)]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        if name == "EdDSA" {
            return Ok(Self::Ed25519);
        }
        Self::ALL.into_iter().find(|known| known.as_str() == name).ok_or(UnknownAlgorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_and_exclude_weak_algorithms() {
        for known in Algorithm::ALL {
            assert_eq!(known.as_str().parse(), Ok(known));
        }
        assert_eq!("EdDSA".parse(), Ok(Algorithm::Ed25519));
        for name in [
            "none",
            "None",
            "nOnE",
            "",
            "HS256",
            "rs256",
            "ES256K",
            "RS1",
            "RSA1_5",
            "MLDSA44",
            "ML-DSA",
            "ml-dsa-44",
            "ML-DSA-44-ES256",
        ] {
            assert_eq!(name.parse::<Algorithm>(), Err(UnknownAlgorithm), "{name}");
        }
    }
}
