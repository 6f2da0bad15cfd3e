//! [`TokenValidator`]: from presented credentials to an identity.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::AuthError;
use crate::identity::Identity;

/// What a request presents to prove who sends it. `Debug` does not print the token.
#[derive(Clone, Copy)]
pub struct Credentials<'r> {
    token: &'r [u8],
    /// Whether somebody still has to look at its characters.
    is_raw: bool,
    allows_bound: bool,
}

impl<'r> Credentials<'r> {
    /// A bearer token. One that is bound to a key is refused, unless [allowed](Self::allow_bound).
    pub fn bearer(token: &'r str) -> Self {
        Self { token: token.as_bytes(), is_raw: false, allows_bound: false }
    }

    /// Accepts a token that is bound to a key, too: the caller of the validator asks for the proof, by
    /// [`Identity::confirmation`], before the identity counts for anything. Default: such a token is
    /// refused. Attack: to allow it and ask for no proof; then a stolen token is as good as its key.
    #[must_use]
    pub fn allow_bound(mut self) -> Self {
        self.allows_bound = true;
        self
    }

    /// Whether the caller of the validator asks for the [proof](Self::allow_bound) of a bound token.
    pub fn allows_bound(&self) -> bool {
        self.allows_bound
    }

    /// What stands in a request where a token should stand. Whoever judges it makes sure that it
    /// [could be one](Self::check) first, unless it is known.
    pub(crate) fn raw(token: &'r [u8]) -> Self {
        Self { token, is_raw: true, allows_bound: false }
    }

    /// Refuses what was read from a request and is no `b64token` (RFC 6750 §2.1): at least one
    /// character, padding only at the end.
    pub(crate) fn check(&self) -> Result<(), AuthError> {
        if !self.is_raw {
            return Ok(());
        }
        let body = self.token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
        let (body, _padding) = self.token.split_at_checked(body).unwrap_or_default();
        // Without a branch per byte the compiler checks many at once: 0.1 µs instead of 1.5 µs.
        let allowed = body.iter().fold(true, |all, byte| all & is_b64token(*byte));
        if body.is_empty() || !allowed {
            return Err(AuthError::MalformedCredentials(
                "The bearer token is empty or has characters it may not have.",
            ));
        }
        Ok(())
    }

    /// The bearer token: one or more characters of `b64token` (RFC 6750 §2.1) when the layer read
    /// it from a request; any text when [`bearer`](Self::bearer) was given one.
    pub fn token(&self) -> &'r str {
        std::str::from_utf8(self.token).unwrap_or_default()
    }

    /// [`token`](Self::token) as octets, which costs nothing.
    pub fn token_octets(&self) -> &'r [u8] {
        self.token
    }

    /// Whether the token has the shape of a signed JWT: three parts. Nothing is decoded.
    pub fn is_jws_shaped(&self) -> bool {
        let mut dots = memchr::memchr_iter(b'.', self.token);
        matches!((dots.next(), dots.next(), dots.next()), (Some(_), Some(_), None))
    }
}

fn is_b64token(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // `-`, `.`, `/` and the digits stand in one row.
    let dash_to_nine = byte.wrapping_sub(b'-') < 13;
    letter | dash_to_nine | (byte == b'_') | (byte == b'~') | (byte == b'+')
}

impl Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Judges tokens of one kind.
///
/// [`JwksValidator`](super::JwksValidator) judges signed JWTs. Implement this for tokens of another kind, such as opaque
/// API keys, and hand it to `AuthBuilder::validator`.
///
/// A token goes to the first validator that accepts it, and its verdict is final: there is no
/// "try the next". Harmless mistake: to refuse good tokens. Attacks: to recognise tokens that
/// belong to another validator; to answer from parts of a token that were not verified; to keep
/// accepting a token after it expired; to hand out the identity of a token that is bound to a key where
/// the credentials do not [allow](Credentials::allows_bound) it.
#[async_trait]
pub trait TokenValidator: Debug + Send + Sync + 'static {
    /// Whether tokens of this shape are this validator's. Decides by looking, never by trying.
    fn accepts(&self, presented: &Credentials<'_>) -> bool;

    /// The verdict, if it can be given without waiting. The default cannot.
    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        let _ = presented;
        None
    }

    /// The verdict.
    ///
    /// # Errors
    /// [`AuthError::InvalidToken`] when the token does not hold; [`AuthError::Unavailable`] when
    /// that cannot be told right now.
    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError>;
}

/// A validator that is shown nothing but what [could be](Credentials::check) a token.
#[derive(Debug)]
pub(crate) struct OfTokens<V>(pub(crate) V);

#[async_trait]
impl<V: TokenValidator> TokenValidator for OfTokens<V> {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        presented.check().is_ok() && self.0.accepts(presented)
    }

    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        self.0.try_validate(presented)
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        self.0.validate(presented).await
    }
}

#[async_trait]
impl<V: TokenValidator + ?Sized> TokenValidator for Arc<V> {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        (**self).accepts(presented)
    }

    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        (**self).try_validate(presented)
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        (**self).validate(presented).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_characters_of_a_token_are_those_of_rfc_6750() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_b64token(byte), expected, "{byte:#x}");
        }
    }
}
