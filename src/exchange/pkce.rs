//! [`PkceVerifier`]: proof that whoever redeems a code also asked for it (RFC 7636).

use super::ExchangeError;
use crate::support::base64url;
use crate::support::crypto;
use crate::support::secret::Secret;

/// A code verifier: 32 random octets, fresh for each sign-in.
///
/// Its [`challenge`](Self::challenge) goes into the authorization request with
/// `code_challenge_method=S256`; there is no `plain`. The verifier itself stays with the user's
/// session and goes to the provider with the code.
#[derive(Debug, Clone)]
pub struct PkceVerifier(Secret);

impl PkceVerifier {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate() -> Result<Self, ExchangeError> {
        let random = crypto::random::<32>();
        let random = random.map_err(|error| ExchangeError::ClientAuth(error.to_string()))?;
        Ok(Self(base64url::encode(random).into()))
    }

    /// One that was kept, if it has 43 to 128 unreserved characters (RFC 7636 §4.1).
    pub fn parse(verifier: &str) -> Option<Self> {
        let fits = (43..=128).contains(&verifier.len());
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        (fits && verifier.bytes().all(unreserved)).then(|| Self(verifier.into()))
    }

    /// The `code_challenge` for the authorization request.
    pub fn challenge(&self) -> String {
        base64url::encode(crypto::sha256(self.0.expose().as_bytes()))
    }

    /// The verifier, to be kept until the code arrives.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let verifier = PkceVerifier::parse("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifiers_are_new_each_time_and_of_the_right_shape() {
        let (one, other) = (PkceVerifier::generate().unwrap(), PkceVerifier::generate().unwrap());
        assert_ne!(one.secret(), other.secret());
        assert!(PkceVerifier::parse(one.secret().expose()).is_some());
        for bad in ["a".repeat(42), "a".repeat(129), format!("{}+", "a".repeat(43))] {
            assert!(PkceVerifier::parse(&bad).is_none(), "{bad}");
        }
    }
}
