//! [`PkceVerifier`]: the secret that binds an authorization code to the sign-in that requested it (RFC
//! 7636).

use super::ExchangeError;
use crate::support::base64url;
use crate::support::crypto;
use crate::support::secret::Secret;

/// A code verifier: random text that is new for each sign-in.
///
/// The authorization request carries its [`challenge`](Self::challenge) with
/// `code_challenge_method=S256`; `plain` is not supported. Keep the verifier in the user's session, and
/// send it to the provider with the code.
///
/// ```
/// use scaikey_auth::exchange::PkceVerifier;
///
/// # fn main() -> Result<(), scaikey_auth::exchange::ExchangeError> {
/// let verifier = PkceVerifier::generate()?;
/// let challenge = verifier.challenge();
/// // In the callback, with the text that the session kept:
/// let stored = PkceVerifier::parse(verifier.secret().expose());
/// assert_eq!(stored.map(|it| it.challenge()), Some(challenge));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PkceVerifier(Secret);

impl PkceVerifier {
    /// Returns a new random verifier.
    ///
    /// # Errors
    /// The operating system cannot supply random bytes.
    pub fn generate() -> Result<Self, ExchangeError> {
        let random = crypto::random::<32>();
        let random = random.map_err(|_| {
            ExchangeError::NotConfigured("the operating system cannot supply random bytes")
        })?;
        Ok(Self(base64url::encode(random).into()))
    }

    /// Parses a stored verifier: 43 to 128 unreserved characters (RFC 7636 §4.1).
    pub fn parse(verifier: &str) -> Option<Self> {
        let has_valid_length = (43..=128).contains(&verifier.len());
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        (has_valid_length && verifier.bytes().all(unreserved)).then(|| Self(verifier.into()))
    }

    /// Returns the `code_challenge` for the authorization request.
    pub fn challenge(&self) -> String {
        base64url::encode(crypto::sha256(self.0.expose().as_bytes()))
    }

    /// Returns the text of the verifier, to be stored until the code arrives.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_matches_the_rfc_example() {
        let verifier = PkceVerifier::parse("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn generated_verifiers_are_unique_and_valid() {
        let (one, other) = (PkceVerifier::generate().unwrap(), PkceVerifier::generate().unwrap());
        assert_ne!(one.secret(), other.secret());
        assert!(PkceVerifier::parse(one.secret().expose()).is_some());
        for bad in ["a".repeat(42), "a".repeat(129), format!("{}+", "a".repeat(43))] {
            assert!(PkceVerifier::parse(&bad).is_none(), "{bad}");
        }
    }
}
