//! [`DecryptionKeys`]: the private keys that open encrypted tokens.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use serde_json::json;

use super::Fault;
use super::secrets::file_field;
use crate::clock::{Clock, SystemClock};
use crate::support::jwe::{DecryptionKey, parse_keys};
use crate::support::secret::{Secret, SecretFileError, SecretSource};
use crate::support::secret_file::SecretFile;

/// The private keys with which this service opens tokens that an issuer encrypts to it (JWE, RFC 7516).
///
/// The text is a JWK Set (RFC 7517) of private keys, or one private JWK. Each key has `kid` and `alg`; its
/// `use`, if present, is `enc`. A key is used for its `alg` only:
///
/// | `alg` | key |
/// |---|---|
/// | `RSA-OAEP-256`, `RSA-OAEP` | RSA of 2048 to 4096 bits, with all of `n`, `e`, `d`, `p`, `q`, `dp`, `dq`, `qi` |
/// | `ECDH-ES`, `ECDH-ES+A128KW`, `ECDH-ES+A256KW` | P-256, P-384 or X25519 |
///
/// Give the keys to an issuer with [`IssuerConfig::decrypt`](crate::IssuerConfig::decrypt), which says how tokens
/// are opened. Clones share the keys.
///
/// **Replacing a key.** Keys from a file are read again while they are used, at most every 10 seconds. Add the new
/// key, let the provider encrypt to it, and remove the old key when all tokens for it have expired. If the file
/// cannot be used, the previous keys stay in force, and a warning is logged.
///
/// **Several issuers** may have the same key. Two different keys with one `kid` and one `alg` (and one curve) are a
/// fault of the configuration, because tokens name a key by these. Files that are read again later are not compared.
///
/// *Not* checked: that the provider encrypts to these keys, and that no other service has them.
///
/// ```
/// use scaikey_auth::IssuerConfig;
/// use scaikey_auth::config::{DecryptionKeys, InvalidDecryptionKeys};
/// use scaikey_auth::issuer::SecretSource;
///
/// fn issuer() -> Result<IssuerConfig, InvalidDecryptionKeys> {
///     let keys = DecryptionKeys::jwks(SecretSource::File("/run/secrets/decryption-keys".into()))?;
///     Ok(IssuerConfig::new("https://scaikey.example").decrypt(keys))
/// }
/// // There is no such file here.
/// assert!(issuer().unwrap_err().to_string().contains("/run/secrets/decryption-keys"));
/// ```
#[derive(Clone)]
pub struct DecryptionKeys(Arc<Inner>);

struct Inner {
    keys: ArcSwap<KeyList>,
    file: Option<SecretFile>,
}

/// The keys in force.
pub(crate) type KeyList = Vec<Arc<DecryptionKey>>;

/// The error for text that is not a set of private keys, or for a file that cannot be read. It names the file and
/// the key, and reveals nothing secret.
///
/// ```
/// use scaikey_auth::config::DecryptionKeys;
///
/// let error = DecryptionKeys::jwks(r#"{"keys":[]}"#).unwrap_err();
/// assert!(error.to_string().contains("contain no key"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the decryption keys {0}")]
pub struct InvalidDecryptionKeys(Problem);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Text(String),
    #[error("are in a file that cannot be used: {0}")]
    File(SecretFileError),
}

impl InvalidDecryptionKeys {
    /// Returns the fault of the setting `field`.
    pub(super) fn into_fault(self, field: &str) -> Fault {
        match self.0 {
            Problem::Text(problem) => Fault::new(field, problem),
            Problem::File(error) => {
                let problem = format!("names a file that cannot be used: {error}");
                Fault::new(file_field(field), problem)
            }
        }
    }
}

impl DecryptionKeys {
    /// Reads the keys from a text or a file.
    ///
    /// The file is read synchronously, so it must be small and local. Replace it atomically, as Kubernetes does.
    ///
    /// # Errors
    /// If the file cannot be read, or if a key cannot be used: it is public, symmetric or for signatures (`use`,
    /// `key_ops`), its `alg` or curve is not supported, its members do not belong together, or it lacks `kid` or `alg`.
    pub fn jwks(source: impl Into<SecretSource>) -> Result<Self, InvalidDecryptionKeys> {
        let (file, keys) = match source.into() {
            SecretSource::Value(text) => {
                let invalid = |problem| InvalidDecryptionKeys(Problem::Text(problem));
                (None, parse(&text).map_err(invalid)?)
            }
            SecretSource::File(path) => {
                let read = SecretFile::read(&path, "decryption keys", parse);
                let (file, keys) =
                    read.map_err(|error| InvalidDecryptionKeys(Problem::File(error)))?;
                (Some(file), keys)
            }
        };
        Ok(Self(Arc::new(Inner { keys: ArcSwap::from_pointee(keys), file })))
    }

    /// Uses a private key that this process need not have: a decrypter of the crate `josekit`, which may call an
    /// OpenSSL engine or a hardware module of this machine.
    ///
    /// The decrypter does the key management only: it returns the content encryption key of a token
    /// (`JweDecrypter::decrypt`). All checks of the header, the decryption of the content and its tag are those of
    /// this crate. It is called synchronously for each new token, on the thread of the request, so it must answer in
    /// about a millisecond. If it fails, the token is refused (401): its error does not say whether the token is for
    /// another key or the module does not answer. The same holds if it panics.
    ///
    /// A private key that is in a `Jwk` of `josekit` needs no decrypter: its text is that of a JWK, so
    /// [`jwks`](Self::jwks) reads it. Issuers that share a decrypter get clones of these `DecryptionKeys`.
    ///
    /// With this feature, and only with it, the program links OpenSSL.
    ///
    /// # Errors
    /// If the algorithm of the decrypter is not one of [those above](Self), such as `RSA1_5`, `dir` or `PBES2`, or if
    /// it has no key id.
    ///
    /// ```
    /// use josekit::jwe::RSA_OAEP_256;
    /// use josekit::jwk::Jwk;
    /// use josekit::jwk::alg::ec::EcCurve;
    /// use scaikey_auth::config::DecryptionKeys;
    ///
    /// fn keys(pem: &[u8]) -> Result<DecryptionKeys, Box<dyn std::error::Error>> {
    ///     let mut decrypter = RSA_OAEP_256.decrypter_from_pem(pem)?;
    ///     decrypter.set_key_id("2026-11");
    ///     Ok(DecryptionKeys::josekit(decrypter)?)
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # assert!(keys(b"").is_err());
    /// // A key in this process.
    /// let mut jwk = Jwk::generate_ec_key(EcCurve::P256)?;
    /// jwk.set_key_id("2026-12");
    /// jwk.set_algorithm("ECDH-ES");
    /// let keys = DecryptionKeys::jwks(jwk.to_string())?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "josekit")]
    pub fn josekit(
        decrypter: impl josekit::jwe::JweDecrypter + 'static,
    ) -> Result<Self, InvalidDecryptionKeys> {
        let key = DecryptionKey::of_decrypter(Box::new(decrypter));
        let key = key.map_err(|problem| InvalidDecryptionKeys(Problem::Text(problem)))?;
        let keys = ArcSwap::from_pointee(vec![Arc::new(key)]);
        Ok(Self(Arc::new(Inner { keys, file: None })))
    }

    /// Returns the public keys as a JWK Set, each with `kid`, `alg` and `use: enc`, to register it at the provider or
    /// to publish it. It has no private member. Keys in a decrypter of `josekit` are not in it.
    ///
    /// The [endpoints](crate::Auth::endpoints) publish the set at `GET /v1/auth/keys`. Use this method for a service
    /// without them. The file of the keys is read again, at most every 10 seconds.
    ///
    /// ```
    /// use scaikey_auth::config::{DecryptionKeys, InvalidDecryptionKeys};
    ///
    /// # fn main() -> Result<(), InvalidDecryptionKeys> {
    /// // From RFC 8037, appendix A: a key that everyone knows.
    /// let keys = DecryptionKeys::jwks(
    ///     r#"{"kty":"OKP","crv":"X25519","kid":"2026","alg":"ECDH-ES","use":"enc",
    ///         "x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo",
    ///         "d":"dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo"}"#,
    /// )?;
    /// let set = keys.public_key_set();
    /// assert!(set.contains("hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo") && !set.contains("dwdtCnMY"));
    /// # Ok(()) }
    /// ```
    pub fn public_key_set(&self) -> String {
        let keys = self.current(&SystemClock::default());
        json!({ "keys": keys.iter().filter_map(|key| key.public_jwk()).collect::<Vec<_>>() })
            .to_string()
    }

    /// Returns whether there is a key to publish.
    #[cfg(feature = "endpoints")]
    pub(crate) fn has_public_key(&self) -> bool {
        self.0.keys.load().iter().any(|key| key.public_jwk().is_some())
    }

    /// Returns whether all keys are among those of `others`.
    pub(super) fn are_among(&self, others: &[Self]) -> bool {
        self.0.keys.load().iter().all(|key| {
            let is_in = |other: &Self| other.0.keys.load().iter().any(|it| it.is_same_as(key));
            others.iter().any(is_in)
        })
    }

    /// Returns the first key that tokens name as they name a different one of `others`.
    pub(super) fn confusable_with(&self, others: &[Self]) -> Option<Arc<DecryptionKey>> {
        let keys = self.0.keys.load();
        let is_confusable = |key: &&Arc<DecryptionKey>| {
            let is_in =
                |other: &Self| other.0.keys.load().iter().any(|it| it.is_confusable_with(key));
            others.iter().any(|other| other != self && is_in(other))
        };
        keys.iter().find(is_confusable).cloned()
    }

    /// Returns the keys in force. Reads their file again, if that is due by `clock`.
    pub(crate) fn current(&self, clock: &dyn Clock) -> Guard<Arc<KeyList>> {
        let Inner { keys, file } = &*self.0;
        let replaced = file.as_ref().and_then(|file| file.read_again(clock.elapsed(), parse));
        if let Some(replaced) = replaced {
            keys.store(Arc::new(replaced));
        }
        keys.load()
    }
}

/// Parses the keys. The problem begins with a verb in the plural.
fn parse(text: &Secret) -> Result<KeyList, String> {
    Ok(parse_keys(text.expose())?.into_iter().map(Arc::new).collect())
}

/// Two handles are equal if they share their keys.
impl PartialEq for DecryptionKeys {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for DecryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.keys.load();
        f.debug_list().entries(keys.iter().map(|key| (key.kid(), key.algorithm()))).finish()
    }
}
