//! `POST logout`: ends a session, here and at the provider.

use bytes::Bytes;
use http::{Response, header};

use super::parameters::{BodyFormat, Parameters};
use super::response::{Failure, invalid_request, no_content};
use super::{Endpoint, EndpointRequest, Inner};
use crate::exchange::ExchangeError;
use crate::session::{CurrentSession, revoke};
use crate::support::secret::Secret;

impl Inner {
    /// With a session: takes its cookies away and revokes its refresh token. Otherwise revokes the
    /// `refresh_token` of the body, which is its own proof. 204, also for a token the provider does
    /// not know (RFC 7009 §2.2) and for a provider that revokes nothing; 503 when the provider is away
    /// and the token lives on. The session is gone in any case, and the log says what was not revoked.
    pub(super) async fn logout(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let parameters =
            Parameters::from_body(incoming, BodyFormat::FormOrJson, &["refresh_token"])?;
        let session = incoming.head.extensions.get::<CurrentSession>();
        let from_body = parameters.get("refresh_token").map(Secret::from);
        let outcome = match (session, from_body) {
            (Some(session), _) => match &self.sessions {
                Some(sessions) => revoked(sessions.revoke(&session.0).await),
                None => Err(Failure::NotConfigured("there are no sessions here")),
            },
            (None, Some(token)) => revoked(revoke(self.client()?, &token).await),
            (None, None) => Err(invalid_request(
                "There is no session, and the parameter refresh_token is missing.",
            )),
        };
        let failed = |failure| self.failure_response(Endpoint::Logout, failure);
        let mut response = outcome.map_or_else(failed, |()| no_content());
        if let (Some(sessions), Some(session)) = (&self.sessions, session)
            && let Some(cookie) = sessions.end(&session.0)
        {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }
}

/// A provider without revocation lets tokens live, and there is nothing else to do: the log says so.
fn revoked(outcome: Result<(), ExchangeError>) -> Result<(), Failure> {
    match outcome {
        Err(ExchangeError::NotConfigured(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
