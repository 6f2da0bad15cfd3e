//! Conversions from and to the types of the crate `jsonwebtoken`, version 12 (feature `jsonwebtoken`).
//!
//! They use its types only. None of its functions that need a cryptographic back end is called.

use jsonwebtoken::Algorithm as Theirs;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm};
use serde_json::{Value, json};

use super::{Algorithm, IssuerConfig, UnknownAlgorithm};

/// The algorithms that both crates have.
const BOTH: [(Algorithm, Theirs); 9] = [
    (Algorithm::RS256, Theirs::RS256),
    (Algorithm::RS384, Theirs::RS384),
    (Algorithm::RS512, Theirs::RS512),
    (Algorithm::PS256, Theirs::PS256),
    (Algorithm::PS384, Theirs::PS384),
    (Algorithm::PS512, Theirs::PS512),
    (Algorithm::ES256, Theirs::ES256),
    (Algorithm::ES384, Theirs::ES384),
    (Algorithm::Ed25519, Theirs::EdDSA),
];

/// The error for an algorithm that the crate `jsonwebtoken` lacks: ES512 and ML-DSA (feature
/// `jsonwebtoken`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the crate `jsonwebtoken` has no algorithm {0}: use the `Algorithm` of scaikey-auth")]
pub struct NotInJsonwebtoken(pub Algorithm);

/// Outside of SemVer: follows the major versions of `jsonwebtoken`.
impl TryFrom<Theirs> for Algorithm {
    type Error = UnknownAlgorithm;

    /// Converts every algorithm except HS256, HS384 and HS512. `EdDSA` becomes
    /// [`Ed25519`](Algorithm::Ed25519).
    fn try_from(theirs: Theirs) -> Result<Self, UnknownAlgorithm> {
        let found = BOTH.iter().find(|(_, it)| *it == theirs);
        found.map(|(ours, _)| *ours).ok_or(UnknownAlgorithm)
    }
}

/// Outside of SemVer: follows the major versions of `jsonwebtoken`.
impl TryFrom<Algorithm> for Theirs {
    type Error = NotInJsonwebtoken;

    fn try_from(ours: Algorithm) -> Result<Self, NotInJsonwebtoken> {
        let found = BOTH.iter().find(|(it, _)| *it == ours);
        found.map(|(_, theirs)| *theirs).ok_or(NotInJsonwebtoken(ours))
    }
}

impl IssuerConfig {
    /// Sets the keys directly, as [`keys`](Self::keys) does, from a set of the crate `jsonwebtoken` (feature
    /// `jsonwebtoken`). Use it while a program builds such a set itself; a set in a text needs no conversion.
    ///
    /// Each key is read on its own. A key whose `alg` that crate does not know
    /// ([`KeyAlgorithm::UNKNOWN_ALGORITHM`]) is left out, because the set no longer has its name: keys for
    /// ES512 and ML-DSA. The log and the [health](crate::issuer::Issuers::health) list it. An Ed25519 key
    /// stays, because it has only one algorithm.
    ///
    /// `build()` refuses a set without a usable key, and a set with a symmetric key (`kty: oct`). It refuses
    /// a private key only of types that `jsonwebtoken` does not read: of others, its set has dropped the
    /// private members already.
    ///
    /// Outside of SemVer: the feature follows the major versions of `jsonwebtoken`. Of that crate only the
    /// types are used; this crate verifies.
    ///
    /// ```
    /// use jsonwebtoken::jwk::JwkSet;
    /// use scaikey_auth::{Auth, IssuerConfig};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let set: JwkSet = serde_json::from_str(
    ///     r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"2026-11",
    ///         "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    /// )?;
    /// let algorithm = jsonwebtoken::Algorithm::EdDSA.try_into()?;
    /// let issuer = IssuerConfig::new("https://id.example").algorithms([algorithm]).jwk_set(&set);
    /// let auth = Auth::builder().issuer(issuer).audience("orders").build()?;
    /// # Ok(()) }
    /// ```
    pub fn jwk_set(self, set: &JwkSet) -> Self {
        let keys: Vec<_> = set.keys.iter().map(to_json).collect();
        self.keys(&json!({ "keys": keys }).to_string())
    }
}

/// Writes a key in JSON. An algorithm that `jsonwebtoken` does not know becomes a name that no algorithm has.
fn to_json(jwk: &Jwk) -> Value {
    let mut json = serde_json::to_value(jwk).unwrap_or_default();
    let is_ed25519 = matches!(&jwk.algorithm, AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519);
    // `Ed25519`, its name since RFC 9864, is unknown there.
    if is_ed25519 && jwk.common.key_algorithm == Some(KeyAlgorithm::UNKNOWN_ALGORITHM) {
        let _ = json.as_object_mut().and_then(|members| members.remove("alg"));
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_convert_both_ways() {
        for ours in Algorithm::ALL {
            match Theirs::try_from(ours) {
                Ok(theirs) => assert_eq!(Algorithm::try_from(theirs), Ok(ours)),
                Err(error) => {
                    assert_eq!(error, NotInJsonwebtoken(ours));
                    let alone = ["ES512", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"];
                    assert!(
                        alone.contains(&ours.as_str()) && error.to_string().contains(ours.as_str())
                    );
                }
            }
        }
        for symmetric in [Theirs::HS256, Theirs::HS384, Theirs::HS512] {
            assert_eq!(Algorithm::try_from(symmetric), Err(UnknownAlgorithm));
        }
    }
}
