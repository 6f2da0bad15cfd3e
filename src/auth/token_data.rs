//! [`AuthContext::token_data`]: the types of the crate `jsonwebtoken`, for handlers written against them.

use jsonwebtoken::{Algorithm as Theirs, Header, TokenData};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::AuthContext;
use crate::error::TokenDataError;
use crate::identity::Provenance;
use crate::support::base64url;

impl AuthContext {
    /// Returns header and claims of the verified token in the type of the crate `jsonwebtoken` (feature
    /// `jsonwebtoken`), so that handlers and tests which take a `TokenData<T>` stay as they are.
    ///
    /// Nothing is verified again: the layer has verified the token. `header.alg` is `EdDSA` also for a token
    /// with the name `Ed25519` (RFC 9864). Each call parses the token again; handlers that need only claims
    /// take [`Claims<T>`](crate::extract::Claims).
    ///
    /// Outside of SemVer: the feature follows the major versions of `jsonwebtoken`.
    ///
    /// # Errors
    /// [`TokenDataError`], if there is no token that this service verified, if the token is encrypted, if
    /// `jsonwebtoken` lacks its algorithm (ES512, ML-DSA), or if the claims do not fit `T`. The access token of a
    /// session is not verified if the [ID token](crate::config::IdentitySource::IdToken) names the user.
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// use jsonwebtoken::TokenData;
    /// use scaikey_auth::AuthContext;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Claims {
    ///     sub: String,
    /// }
    ///
    /// // As before.
    /// fn greeting(token: &TokenData<Claims>) -> String {
    ///     format!("{} by {:?}", token.claims.sub, token.header.kid)
    /// }
    ///
    /// async fn greet(context: AuthContext) -> Result<String, StatusCode> {
    ///     let token = context.token_data().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    ///     Ok(greeting(&token))
    /// }
    /// ```
    pub fn token_data<T: DeserializeOwned>(&self) -> Result<TokenData<T>, TokenDataError> {
        let token = self.token().ok_or(TokenDataError::NoToken)?;
        let parts = token.split('.').count();
        let header = match (self.identity.provenance(), parts) {
            _ if self.identity.is_of_id_token() => return Err(TokenDataError::NotSigned),
            (Provenance::Verified, 5) => return Err(TokenDataError::Encrypted),
            (Provenance::Verified, 3) => header(token)?,
            _ => return Err(TokenDataError::NotSigned),
        };
        let claims = self.identity.claims().map_err(TokenDataError::Claims)?;
        Ok(TokenData { header, claims })
    }
}

/// Reads the header of a token in compact serialisation.
fn header(token: &str) -> Result<Header, TokenDataError> {
    let text = token.split('.').next().and_then(base64url::decode).ok_or(TokenDataError::Header)?;
    let mut header: Value = serde_json::from_slice(&text).map_err(|_| TokenDataError::Header)?;
    let alg = header.get_mut("alg").ok_or(TokenDataError::Header)?;
    if alg == "Ed25519" {
        *alg = "EdDSA".into();
    }
    let name = alg.as_str().ok_or(TokenDataError::Header)?;
    if name.parse::<Theirs>().is_err() {
        return Err(TokenDataError::Algorithm(name.to_owned()));
    }
    serde_json::from_value(header).map_err(|_| TokenDataError::Header)
}
