//! `POST logout`: ends a session here and at the provider.

use bytes::Bytes;
use http::{Response, header};

use super::parameters::{BodyFormat, Parameters};
use super::response::{Failure, invalid_request, no_content};
use super::{Endpoint, EndpointRequest, Inner};
use crate::exchange::ExchangeError;
use crate::session::{CurrentSession, revoke};
use crate::support::secret::Secret;

impl Inner {
    /// If the request has a session, clears its cookies and revokes its refresh token; a
    /// `refresh_token` in the body is then ignored. Otherwise revokes the `refresh_token` in the
    /// body, which needs no other credential.
    ///
    /// Answers 204, also if the provider does not know the token (RFC 7009 §2.2) or has no
    /// revocation endpoint. Answers 503 if the provider is unavailable and the token stays valid.
    /// The cookies are cleared in any case, and a failed revocation is logged.
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
                Some(sessions) => ignore_missing_endpoint(sessions.revoke(&session.0).await),
                None => Err(Failure::NotConfigured("sessions are not configured")),
            },
            (None, Some(token)) => ignore_missing_endpoint(revoke(self.client()?, &token).await),
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

/// Treats a provider without a revocation endpoint as success. The client already logged that the
/// token stays valid.
fn ignore_missing_endpoint(outcome: Result<(), ExchangeError>) -> Result<(), Failure> {
    match outcome {
        Err(ExchangeError::NotConfigured(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
