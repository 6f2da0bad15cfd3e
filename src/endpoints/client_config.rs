//! `GET config`: the settings a client needs to start a sign-in.

use bytes::Bytes;
use http::Response;
use serde::Serialize;

use super::Inner;
use super::response::Failure;
use crate::config::PublicPaths;

#[derive(Serialize)]
struct ConfigResponse<'a> {
    issuer: &'a str,
    client_id: &'a str,
    authorization_endpoint: String,
    /// Where clients without a session of this service can sign users out at the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_session_endpoint: Option<String>,
    redirect_uri: &'a str,
    scopes: Vec<&'a str>,
    response_type: &'static str,
    code_challenge_method: &'static str,
    /// The public path of the endpoint to which clients send the code, instead of to the provider.
    login_endpoint: &'a str,
    password_grant_enabled: bool,
    /// Whether a sign-in at `GET login` ends with a session cookie.
    sessions: bool,
}

impl Inner {
    pub(super) async fn config(&self) -> Result<Response<Bytes>, Failure> {
        let (client, sign_in) = (self.client()?, self.sign_in()?);
        Ok(self.ok(&ConfigResponse {
            issuer: client.issuer(),
            client_id: client.client_id(),
            authorization_endpoint: client.authorization_endpoint().await?.into(),
            end_session_endpoint: client.known_end_session_endpoint().await.map(Into::into),
            redirect_uri: sign_in.redirect_uri(),
            scopes: sign_in.scopes.iter().collect(),
            response_type: "code",
            code_challenge_method: "S256",
            login_endpoint: sign_in.paths.as_ref().map_or("", PublicPaths::login),
            password_grant_enabled: self.password_rule.is_some(),
            sessions: self.sessions.is_some(),
        }))
    }
}
