//! [`TokenValidator`]: turns presented credentials into an identity.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::AuthError;
use crate::identity::Identity;

/// The credentials of a request: its bearer token. `Debug` does not print the token.
///
/// A validator receives them. To call a validator without a layer, create them:
///
/// ```
/// use scaikey_auth::validator::Credentials;
/// use scaikey_auth::{AuthError, Identity, JwksValidator, TokenValidator};
///
/// /// Verifies the token of a message from a queue.
/// async fn sender(validator: &JwksValidator, token: &str) -> Result<Identity, AuthError> {
///     validator.validate(&Credentials::bearer(token)).await
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Credentials<'r> {
    token: &'r [u8],
    /// Whether [`check`](Self::check) must examine the token, because it comes from a request.
    needs_check: bool,
    allows_bound: bool,
}

impl<'r> Credentials<'r> {
    /// Creates credentials from a bearer token. A token that is bound to a key is refused, unless
    /// [allowed](Self::allow_bound).
    pub fn bearer(token: &'r str) -> Self {
        Self { token: token.as_bytes(), needs_check: false, allows_bound: false }
    }

    /// Allows tokens that are bound to a key. The caller of the validator must then verify the proof of
    /// possession, with [`Identity::confirmation`], before it uses the identity. Otherwise a stolen token can
    /// be used without its key. By default, bound tokens are refused.
    #[must_use]
    pub fn allow_bound(mut self) -> Self {
        self.allows_bound = true;
        self
    }

    /// Returns whether tokens that are bound to a key are [allowed](Self::allow_bound).
    pub fn allows_bound(&self) -> bool {
        self.allows_bound
    }

    /// Creates credentials from unchecked bytes of a request. A validator may look them up in its cache, and
    /// must [check](Self::check) them before anything else.
    pub(crate) fn raw(token: &'r [u8]) -> Self {
        Self { token, needs_check: true, allows_bound: false }
    }

    /// Refuses unchecked bytes that are not a `b64token` (RFC 6750 §2.1): at least one character, and padding
    /// only at the end.
    pub(crate) fn check(&self) -> Result<(), AuthError> {
        if !self.needs_check {
            return Ok(());
        }
        let body = self.token.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
        let (body, _padding) = self.token.split_at_checked(body).unwrap_or_default();
        // Without a branch per byte, the compiler vectorises the check: 0.1 µs instead of 1.5 µs per token.
        let allowed = body.iter().fold(true, |all, byte| all & is_b64token(*byte));
        if body.is_empty() || !allowed {
            return Err(AuthError::MalformedCredentials(
                "The bearer token is empty or contains characters that are not allowed.",
            ));
        }
        Ok(())
    }

    /// Returns the bearer token. From the layer, it is a `b64token` (RFC 6750 §2.1) of one or more
    /// characters; from [`bearer`](Self::bearer), it is any text.
    pub fn token(&self) -> &'r str {
        std::str::from_utf8(self.token).unwrap_or_default()
    }

    /// Returns [`token`](Self::token) as bytes, without the cost of checking UTF-8.
    pub fn token_bytes(&self) -> &'r [u8] {
        self.token
    }

    /// Returns whether the token has the three parts of a signed JWT. Decodes nothing.
    pub fn is_jws_shaped(&self) -> bool {
        self.dots() == 2
    }

    /// Returns whether the token has the five parts of an encrypted one (RFC 7516 §3.1). Decodes nothing.
    pub fn is_jwe_shaped(&self) -> bool {
        self.dots() == 4
    }

    /// Returns whether the token has the shape of a JWT, signed or encrypted. Decodes nothing.
    pub(super) fn is_jwt_shaped(&self) -> bool {
        matches!(self.dots(), 2 | 4)
    }

    /// Returns the number of dots, at most five: a token with more of them is not searched to its end.
    fn dots(&self) -> usize {
        memchr::memchr_iter(b'.', self.token).take(5).count()
    }
}

fn is_b64token(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // `-`, `.`, `/` and the digits are consecutive in ASCII.
    let dash_to_nine = byte.wrapping_sub(b'-') < 13;
    letter | dash_to_nine | (byte == b'_') | (byte == b'~') | (byte == b'+')
}

impl Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Validates tokens of one kind.
///
/// [`JwksValidator`](super::JwksValidator) validates signed JWTs. Implement this trait for tokens of
/// another kind, such as opaque API keys, and pass the validator to `AuthBuilder::validator`. Create the
/// identity with [`Identity::from_claims`].
///
/// ```
/// use async_trait::async_trait;
/// use scaikey_auth::error::InvalidToken;
/// use scaikey_auth::identity::{ClaimsMapping, Provenance};
/// use scaikey_auth::validator::Credentials;
/// use scaikey_auth::{AuthError, Identity, TokenValidator};
///
/// struct ApiKeys(std::collections::HashMap<String, serde_json::Value>);
///
/// // Not derived, because the output must not contain the keys.
/// impl std::fmt::Debug for ApiKeys {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.debug_struct("ApiKeys").finish_non_exhaustive()
///     }
/// }
///
/// #[async_trait]
/// impl TokenValidator for ApiKeys {
///     fn accepts(&self, presented: &Credentials<'_>) -> bool {
///         presented.token().starts_with("sk_")
///     }
///
///     async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
///         let claims = self.0.get(presented.token()).ok_or(InvalidToken::Unrecognised)?;
///         Ok(Identity::from_claims(claims, &ClaimsMapping::default(), Provenance::Verified)?)
///     }
/// }
/// ```
///
/// If the keys are in a store that fails, return `AuthError::Unavailable { component: "key store", retry_after:
/// None, source: Some(error.into()) }`: the caller gets 503 and not 401.
///
/// The first validator that accepts a token decides; no other validator is tried. Harmless mistake:
/// refusing good tokens. Security holes: accepting tokens that belong to another validator; using parts of a token
/// that were not verified; accepting a token after it expired; returning the identity of a token that is
/// bound to a key where the credentials do not [allow](Credentials::allows_bound) it.
#[async_trait]
pub trait TokenValidator: Debug + Send + Sync + 'static {
    /// Returns whether tokens of this shape belong to this validator. Decides by the shape only and
    /// verifies nothing.
    fn accepts(&self, presented: &Credentials<'_>) -> bool;

    /// Validates the token if that needs no waiting, and returns `None` otherwise. Default: `None`.
    fn try_validate(&self, presented: &Credentials<'_>) -> Option<Result<Identity, AuthError>> {
        let _ = presented;
        None
    }

    /// Validates the token and returns the caller's identity.
    ///
    /// # Errors
    /// [`AuthError::InvalidToken`] if the token is not valid; [`AuthError::Unavailable`] if the validator
    /// cannot decide now.
    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError>;
}

/// A validator that gets only tokens of the [right syntax](Credentials::check).
#[derive(Debug)]
pub(crate) struct SyntaxChecked<V>(pub(crate) V);

#[async_trait]
impl<V: TokenValidator> TokenValidator for SyntaxChecked<V> {
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
    fn b64token_characters_match_rfc_6750() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_b64token(byte), expected, "{byte:#x}");
        }
    }
}
