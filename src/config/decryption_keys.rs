//! [`DecryptionKeys`]: the private keys that open encrypted tokens.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::clock::Clock;
use crate::support::jwe::{DecryptionKey, parse_keys};
use crate::support::secret::{Secret, SecretSource};
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the decryption keys {problem}")]
pub struct InvalidDecryptionKeys {
    problem: String,
}

impl InvalidDecryptionKeys {
    /// Returns the problem, for a fault that names the setting.
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }
}

impl DecryptionKeys {
    /// Reads the keys from a text or a file.
    ///
    /// The file is read synchronously, so it must be small and local. Replace it atomically, as Kubernetes does.
    ///
    /// # Errors
    /// If the file cannot be read, or if a key cannot be used: it is public, symmetric or for signatures, its `alg`
    /// or curve is not supported, its members do not belong together, or it lacks `kid` or `alg`.
    pub fn jwks(source: impl Into<SecretSource>) -> Result<Self, InvalidDecryptionKeys> {
        let (file, keys) = match source.into() {
            SecretSource::Value(text) => {
                (None, parse(&text).map_err(|problem| InvalidDecryptionKeys { problem })?)
            }
            SecretSource::File(path) => {
                let read = SecretFile::read(&path, "decryption keys", parse);
                let (file, keys) = read.map_err(|error| InvalidDecryptionKeys {
                    problem: format!("are in a file that cannot be used: {error}"),
                })?;
                (Some(file), keys)
            }
        };
        Ok(Self(Arc::new(Inner { keys: ArcSwap::from_pointee(keys), file })))
    }

    /// Uses a private key that this process need not have: a decrypter of the crate `josekit`, which may call an
    /// OpenSSL engine, a hardware module or a key management service.
    ///
    /// The decrypter does the key management only: it returns the content encryption key of a token
    /// (`JweDecrypter::decrypt`). All checks of the header, the decryption of the content and its tag are those of
    /// this crate. It is called synchronously for each new token, on the thread of the request, so it must answer in
    /// about a millisecond. If it fails, the token is refused (401): its error does not say whether the token is for
    /// another key or the module does not answer.
    ///
    /// With this feature, and only with it, the program links OpenSSL.
    ///
    /// # Errors
    /// If the algorithm of the decrypter is not one of [those above](Self), such as `RSA1_5`, `dir` or `PBES2`, or if
    /// it has no key id.
    ///
    /// ```
    /// use josekit::jwe::RSA_OAEP_256;
    /// use scaikey_auth::config::DecryptionKeys;
    ///
    /// fn keys(pem: &[u8]) -> Result<DecryptionKeys, Box<dyn std::error::Error>> {
    ///     let mut decrypter = RSA_OAEP_256.decrypter_from_pem(pem)?;
    ///     decrypter.set_key_id("2026-11");
    ///     Ok(DecryptionKeys::josekit(decrypter)?)
    /// }
    /// assert!(keys(b"").is_err());
    /// ```
    #[cfg(feature = "josekit")]
    pub fn josekit(
        decrypter: impl josekit::jwe::JweDecrypter + 'static,
    ) -> Result<Self, InvalidDecryptionKeys> {
        let key = DecryptionKey::of_decrypter(Box::new(decrypter));
        let key = key.map_err(|problem| InvalidDecryptionKeys { problem })?;
        let keys = ArcSwap::from_pointee(vec![Arc::new(key)]);
        Ok(Self(Arc::new(Inner { keys, file: None })))
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

/// The settings for encrypted tokens of an issuer.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Decryption {
    pub(crate) keys: Vec<DecryptionKeys>,
    pub(crate) also_unencrypted: bool,
}

impl Decryption {
    /// Returns whether unencrypted tokens are refused.
    pub(crate) fn is_required(&self) -> bool {
        !self.keys.is_empty() && !self.also_unencrypted
    }
}
