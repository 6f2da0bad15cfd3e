//! [`TokenDataError`]: why a token has no `TokenData` of the crate `jsonwebtoken`.

/// The error of [`AuthContext::token_data`](crate::AuthContext::token_data) (feature `jsonwebtoken`).
///
/// The token itself is good: a refused token has no context. Outside of SemVer, as the method is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenDataError {
    /// The identity has no token, for example in mock mode.
    #[error("there is no token: the identity is made up, as in mock mode")]
    NoToken,
    /// The token is opaque, its issuer confirmed it by introspection, or the ID token of a session names the user
    /// instead, so no header is verified.
    #[error(
        "the token has no verified header: it is opaque, was introspected, or is the access token of a session whose ID token names the user"
    )]
    NotSigned,
    /// The token is encrypted. Its verified header is inside, and is not kept.
    #[error("the token is encrypted, and the header inside is not kept: use the identity's claims")]
    Encrypted,
    /// `jsonwebtoken` lacks the algorithm with this name.
    #[error("the crate `jsonwebtoken` has no algorithm {0}: use the identity's claims")]
    Algorithm(String),
    /// The header does not fit the type of `jsonwebtoken`, or the token has none.
    #[error("the header does not fit the `Header` of the crate `jsonwebtoken`")]
    Header,
    /// The claims do not fit the requested type.
    #[error("the claims do not fit the requested type: {0}")]
    Claims(#[source] serde_json::Error),
}
