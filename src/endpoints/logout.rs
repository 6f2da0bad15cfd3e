//! `POST logout`: ends a session, here and at the provider.

use bytes::Bytes;
use http::{Response, header};

use super::answer::{Failure, invalid_request, no_content};
use super::parameters::{Parameters, Reads};
use super::{Asked, Endpoint, Inner};
use crate::exchange::ExchangeError;
use crate::secret::Secret;
use crate::session::CurrentSession;

impl Inner {
    /// With a session: takes the cookie away and revokes its refresh token. Otherwise revokes the
    /// `refresh_token` of the body, which is its own proof. 204, also for a token the provider does
    /// not know (RFC 7009 §2.2); 503 when the provider is away and the token lives on. The cookie
    /// is gone in any case.
    pub(super) async fn logout(&self, asked: &Asked) -> Result<Response<Bytes>, Failure> {
        let parameters = Parameters::of_body(asked, Reads::FormsAndJson, &["refresh_token"])?;
        let session = asked.head.extensions.get::<CurrentSession>();
        let from_body = parameters.get("refresh_token").map(Secret::from);
        let outcome = match (session, from_body) {
            (Some(session), _) => {
                let token = match &self.sessions {
                    Some(sessions) => sessions.last_refresh_token(&session.0).await,
                    None => session.0.token.refresh_token().cloned(),
                };
                self.revoke(token.as_ref()).await
            }
            (None, Some(token)) => self.revoke(Some(&token)).await,
            (None, None) => Err(invalid_request(
                "There is no session, and the parameter refresh_token is missing.",
            )),
        };
        let failed = |failure| self.failed(Endpoint::Logout, failure);
        let mut response = outcome.map_or_else(failed, |()| no_content());
        if let (Some(sessions), Some(_)) = (&self.sessions, session) {
            for cookie in sessions.clear() {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
        }
        Ok(response)
    }

    async fn revoke(&self, token: Option<&Secret>) -> Result<(), Failure> {
        let Some(token) = token else { return Ok(()) };
        match self.client()?.revoke(token).await {
            // A provider without revocation lets tokens live; there is nothing else to do.
            Err(ExchangeError::NotConfigured(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
