//! Encrypted tokens (nested JWT, RFC 7519 §2): the signed token inside, and the issuers that it may come from.

use std::fmt;
#[cfg(feature = "jwe")]
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::clock::Clock;
#[cfg(feature = "endpoints")]
use crate::config::AuthConfig;
#[cfg(feature = "jwe")]
use crate::config::DecryptionKeys;
use crate::error::InvalidToken;
#[cfg(feature = "endpoints")]
use crate::issuer::IssuerLookup;
use crate::issuer::{Issuers, Rules};
#[cfg(feature = "jwe")]
use crate::support::jwe::{DecryptionKey, Fault, Jwe};
#[cfg(feature = "endpoints")]
use crate::support::secret::Secret;

/// The problem of an encrypted token for a service without keys.
const NO_KEYS: &str = "this service has no decryption keys: give them to the issuer (`IssuerConfig::decrypt`, feature `jwe`), or let the provider issue signed tokens";

/// A decrypted token.
pub(super) struct Opened {
    /// The signed token inside, which is not verified.
    pub(super) token: Zeroizing<Vec<u8>>,
    #[cfg(feature = "jwe")]
    key: Arc<DecryptionKey>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").finish_non_exhaustive()
    }
}

/// Decrypts a token of five parts. `max_bytes` limits the token inside; the encrypted one may be twice as long.
#[cfg(feature = "jwe")]
pub(super) fn open(
    token: &[u8],
    issuers: &Issuers,
    max_bytes: usize,
    clock: &dyn Clock,
) -> Result<Opened, InvalidToken> {
    if token.len() > max_encrypted(max_bytes) {
        return Err(InvalidToken::Malformed("the token is too long"));
    }
    let sets = issuers.decryption_keys();
    if sets.is_empty() {
        return Err(InvalidToken::Decryption(NO_KEYS));
    }
    let jwe = Jwe::parse(token).map_err(invalid)?;
    let keys = sets.iter().flat_map(|set| set.current(clock).to_vec());
    let (key, token) = jwe.open(keys).map_err(invalid)?;
    Ok(Opened { token, key })
}

#[cfg(not(feature = "jwe"))]
pub(super) fn open(_: &[u8], _: &Issuers, _: usize, _: &dyn Clock) -> Result<Opened, InvalidToken> {
    Err(InvalidToken::Decryption(NO_KEYS))
}

/// Returns the signed token inside an encrypted token of `issuer`, or `None` if the token is not encrypted. Nothing is
/// verified. An ID token that is not encrypted is no fault, even if the issuer has keys: it comes from the provider
/// directly, and many providers encrypt access tokens only.
#[cfg(feature = "endpoints")]
pub(crate) fn signed_token(
    issuers: &Issuers,
    clock: &dyn Clock,
    issuer: &str,
    token: &str,
) -> Result<Option<Secret>, InvalidToken> {
    if token.split('.').count() != 5 {
        return Ok(None);
    }
    let opened = open(token.as_bytes(), issuers, AuthConfig::default().max_token_bytes, clock)?;
    match issuers.find(issuer) {
        IssuerLookup::Found(issuer) => check(Some(&opened), issuer.all_rules(), clock)?,
        IssuerLookup::NotOpen(template, _) => {
            check(Some(&opened), std::iter::once(template.rules()), clock)?;
        }
        IssuerLookup::Unknown => return Err(InvalidToken::Issuer),
    }
    let signed = std::str::from_utf8(&opened.token);
    let signed = signed.map_err(|_| InvalidToken::Malformed("the encrypted token has no JWT"))?;
    Ok(Some(signed.into()))
}

/// Returns the maximum length of an encrypted token, from that of a signed one.
pub(super) fn max_encrypted(max_bytes: usize) -> usize {
    if cfg!(feature = "jwe") { max_bytes.saturating_mul(2) } else { max_bytes }
}

#[cfg(feature = "jwe")]
fn invalid(fault: Fault) -> InvalidToken {
    match fault {
        Fault::Malformed(problem) => InvalidToken::Malformed(problem),
        Fault::Algorithm => InvalidToken::Algorithm,
        Fault::NoKey => InvalidToken::Decryption(
            "no decryption key has its `kid` and `alg`: compare the header with the keys of this service",
        ),
        Fault::NotOpened => InvalidToken::Decryption(
            "the decryption key does not open it: it is for another key, or it was altered",
        ),
    }
}

/// Checks that a token was encrypted if its issuer has decryption keys, and with one of these. `rules` are those
/// that the token must pass; those of the configuration come last.
#[cfg(feature = "jwe")]
pub(super) fn check<'r>(
    opened: Option<&Opened>,
    rules: impl Iterator<Item = &'r Rules> + Clone,
    clock: &dyn Clock,
) -> Result<(), InvalidToken> {
    let Some(opened) = opened else {
        let is_required = rules.clone().any(|rules| rules.config.requires_encryption());
        return if is_required { Err(InvalidToken::Unencrypted) } else { Ok(()) };
    };
    // A resolver adds no keys: they are needed before the tenant is known.
    let sets = rules.last().map(|rules| &rules.config.decryption);
    let has_key =
        |set: &DecryptionKeys| set.current(clock).iter().any(|key| key.is_same_as(&opened.key));
    match sets.is_some_and(|sets| sets.iter().any(has_key)) {
        true => Ok(()),
        false => Err(InvalidToken::Decryption(
            "it was encrypted to a key of another issuer: give the key to the token's issuer too",
        )),
    }
}

#[cfg(not(feature = "jwe"))]
pub(super) fn check<'r>(
    _: Option<&Opened>,
    _: impl Iterator<Item = &'r Rules>,
    _: &dyn Clock,
) -> Result<(), InvalidToken> {
    Ok(())
}
