//! `logout`: ends a session here and, if configured, at the provider.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde::Serialize;

use super::parameters::{BodyFormat, Parameters};
use super::pending_sign_out::PendingSignOut;
use super::response::{Failure, invalid_request, no_content, see_other};
use super::sign_in::RETURN_TO_ELSEWHERE;
use super::{Endpoint, EndpointRequest, Inner};
use crate::exchange::ExchangeError;
use crate::layer::RequestHead;
use crate::session::{
    CurrentSession, EndedSession, OlderSessions, Session, Sessions, UnavailableSession, revoke,
};
use crate::support::secret::Secret;

/// The answer to a script, which must navigate to the URL itself: `fetch` cannot leave the service.
#[derive(Serialize)]
struct EndSession<'a> {
    end_session_url: &'a str,
}

/// A sign-out that continues at the provider.
struct SignOut<'r> {
    sessions: &'r Sessions,
    post_logout_redirect_uri: &'r str,
    /// The session that ended, if the browser had one.
    session: Option<&'r Session>,
    /// The page that the request names. It is not checked yet.
    return_to: Option<&'r str>,
}

impl Inner {
    /// If the request has a session, clears its cookies and revokes its refresh token; a
    /// `refresh_token` in the body is then ignored. Otherwise revokes the `refresh_token` in the
    /// body, which needs no other credential.
    ///
    /// Answers 204, also if the provider does not know the token (RFC 7009 §2.2) or has no
    /// revocation endpoint. Answers 503 if the provider is unavailable and the token stays valid.
    /// The cookies are cleared in any case, and a failed revocation is logged. Answers 503 if a store of
    /// sessions does not answer, and the session may go on.
    ///
    /// If sessions end at the provider, a browser is then led there, whether or not the token could
    /// be revoked. A session ends whatever the parameters are: an answer about them comes afterwards.
    pub(super) async fn logout(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        if incoming.head.method == Method::GET {
            return self.return_from_provider(incoming).await;
        }
        let known = ["refresh_token", "return_to"];
        let parameters = Parameters::from_body(incoming, BodyFormat::FormOrJson, &known);
        let session = self.current_session(incoming)?;
        let (parameters, refusal) = match parameters {
            Ok(parameters) => (parameters, None),
            Err(failure) if session.is_some() => (Parameters::default(), Some(failure)),
            Err(failure) => return Err(failure),
        };
        self.check_session_layer(incoming)?;
        // Sessions in a store end first: if the store does not answer, the user is still signed in.
        let (older, mut cookies) = self.end_older_sessions(incoming).await?;
        let ended = match session {
            Some((sessions, session)) => Some((sessions, sessions.end(session).await?)),
            None => None,
        };
        let from_body = parameters.get("refresh_token").map(Secret::from);
        let sign_out = self.sign_out_at_provider(incoming, &parameters)?;
        let outcome = match (&ended, self.lost_session(incoming), from_body) {
            (Some((sessions, ended)), ..) => {
                ignore_missing_endpoint(sessions.revoke(&ended.session).await)
            }
            (None, Some((sessions, lost)), _) => {
                ignore_missing_endpoint(sessions.revoke_ended(lost).await)
            }
            (None, None, Some(token)) => {
                ignore_missing_endpoint(revoke(self.client()?, &token).await)
            }
            (None, None, None) if sign_out.is_some() => Ok(()),
            (None, None, None) => Err(invalid_request(
                "There is no session, and the parameter refresh_token is missing.",
            )),
        };
        if let Some(sessions) = &self.sessions {
            for session in &older {
                // `revoke` logs its failure. The session has ended in any case.
                let _ = sessions.revoke(session).await;
            }
        }
        let mut response = match (refusal, sign_out) {
            (Some(failure), _) => self.failure_response(Endpoint::Logout, &incoming.head, failure),
            // A failed revocation is logged. It must not keep the user from signing out at the provider.
            (None, Some(sign_out)) => self.lead_to_provider(incoming, &sign_out).await,
            (None, None) => outcome.map_or_else(
                |failure| self.failure_response(Endpoint::Logout, &incoming.head, failure),
                |()| no_content(),
            ),
        };
        cookies.extend(ended.and_then(|(_, ended)| ended.cookie));
        let cookies = cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie));
        response.headers_mut().extend(cookies);
        Ok(response)
    }

    /// Ends the sessions of the browser that began before that of the request. Returns them, and the cookies that clear
    /// them.
    async fn end_older_sessions(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<(Vec<Session>, Vec<HeaderValue>), Failure> {
        match (&self.sessions, incoming.head.extensions.get::<OlderSessions>()) {
            (Some(sessions), Some(older)) => Ok(sessions.end_older(older).await?),
            _ => Ok((Vec::new(), Vec::new())),
        }
    }

    /// Returns the session of the request that turned out to have ended. The layer clears its cookies.
    fn lost_session<'r>(
        &'r self,
        incoming: &'r EndpointRequest,
    ) -> Option<(&'r Sessions, &'r Session)> {
        let sessions = self.sessions.as_ref()?;
        let lost = incoming.head.extensions.get::<EndedSession>()?.of(sessions)?;
        Some((sessions, lost))
    }

    /// Returns the session of the request, if it is one of the sessions that these endpoints start.
    pub(super) fn current_session<'r>(
        &'r self,
        incoming: &'r EndpointRequest,
    ) -> Result<Option<(&'r Sessions, &'r Session)>, Failure> {
        let extensions = &incoming.head.extensions;
        if let (Some(sessions), Some(unavailable)) =
            (&self.sessions, extensions.get::<UnavailableSession>())
            && let Some(error) = unavailable.of(sessions)
        {
            return Err(error.clone().into());
        }
        let Some(current) = extensions.get::<CurrentSession>() else { return Ok(None) };
        let sessions = self.sessions.as_ref();
        let sessions = sessions.ok_or(Failure::NotConfigured("sessions are not configured"))?;
        Ok(current.of(sessions).map(|session| (sessions, session)))
    }

    /// Refuses a request with cookies of the sessions, which the session layer would have removed. Without
    /// the layer the session cannot end here.
    fn check_session_layer(&self, incoming: &EndpointRequest) -> Result<(), Failure> {
        let EndpointRequest { head, .. } = incoming;
        match &self.sessions {
            Some(sessions) if sessions.has_cookies(&head.headers) => Err(Failure::NotConfigured(
                "the session layer is not outside of the endpoints, so sessions cannot end: add `sessions.layer()` after the endpoints",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the part of a sign-out that follows at the provider, if it is configured, and the
    /// request comes from a browser with or without a session, and not from a client that sends its
    /// refresh token.
    fn sign_out_at_provider<'r>(
        &'r self,
        incoming: &'r EndpointRequest,
        parameters: &'r Parameters,
    ) -> Result<Option<SignOut<'r>>, Failure> {
        let Some(sessions) = &self.sessions else { return Ok(None) };
        let extensions = &incoming.head.extensions;
        let current = extensions.get::<CurrentSession>().and_then(|it| it.of(sessions));
        let ended = extensions.get::<EndedSession>().and_then(|it| it.of(sessions));
        let session = current.or(ended);
        let Some(post_logout_redirect_uri) = sessions.post_logout_redirect_uri() else {
            return Ok(None);
        };
        if session.is_none() {
            if parameters.get("refresh_token").is_some() {
                return Ok(None);
            }
            // The session layer checks only requests with a session.
            if !sessions.is_from_trusted_page(&incoming.head) {
                return Err(Failure::Body(403, "The request comes from a page of another site."));
            }
        }
        let return_to = parameters.get("return_to").filter(|_| self.provider_returns_to_logout);
        Ok(Some(SignOut { sessions, post_logout_redirect_uri, session, return_to }))
    }

    /// Redirects a browser to the provider, or returns the URL to a script.
    async fn lead_to_provider(
        &self,
        incoming: &EndpointRequest,
        sign_out: &SignOut<'_>,
    ) -> Response<Bytes> {
        let is_navigation = RequestHead::of_parts(&incoming.head).is_navigation();
        let outcome = self.end_session_response(sign_out, is_navigation).await;
        outcome.unwrap_or_else(|failure| {
            self.failure_response(Endpoint::Logout, &incoming.head, failure)
        })
    }

    async fn end_session_response(
        &self,
        sign_out: &SignOut<'_>,
        is_navigation: bool,
    ) -> Result<Response<Bytes>, Failure> {
        let return_to = match sign_out.return_to {
            Some(page) => Some(self.sign_in()?.page(page).ok_or(RETURN_TO_ELSEWHERE)?),
            None => None,
        };
        let pending = return_to.map(PendingSignOut::new).transpose()?;
        let state = pending.as_ref().map(|pending| pending.state.as_str());
        let url = match sign_out.sessions.end_session_url(sign_out.session, state).await {
            Ok(url) => url,
            // The provider has no such endpoint, which is logged, so this is the whole sign-out.
            Err(ExchangeError::NotConfigured(_)) if is_navigation => {
                let page = return_to.unwrap_or(sign_out.post_logout_redirect_uri);
                return see_other(page).ok_or(INVALID_LOCATION);
            }
            Err(ExchangeError::NotConfigured(_)) => return Ok(no_content()),
            Err(error) => return Err(error.into()),
        };
        let mut response = match is_navigation {
            true => see_other(url.as_str()).ok_or(INVALID_LOCATION)?,
            false => self.ok(&EndSession { end_session_url: url.as_str() }),
        };
        if let Some(location) = response.headers_mut().get_mut(header::LOCATION) {
            location.set_sensitive(true); // It may contain the ID token.
        }
        let cookie = pending.and_then(|pending| {
            let prefix = self.sign_in().ok()?.full_cookie_prefix();
            pending.cookie(&prefix, self.sign_in_keys().ok()?, self.clock())
        });
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok(response)
    }

    /// Redirects a browser that returns from the provider to the page that it chose before. Changes no
    /// session, because any site can lead a browser here.
    async fn return_from_provider(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        self.admit(Endpoint::Logout, &incoming.head, None).await?;
        let (sign_in, headers) = (self.sign_in()?, &incoming.head.headers);
        let prefix = sign_in.full_cookie_prefix();
        let parameters = Parameters::from_query(incoming, &["state"]).unwrap_or_default();
        let state = parameters.get("state").unwrap_or_default();
        let keys = self.sign_in_keys()?;
        let pending = PendingSignOut::find(&prefix, state, headers, keys, self.clock());
        let page = pending.as_ref().map(|pending| pending.return_to.clone());
        let page = page.unwrap_or_else(|| sign_in.landing_page());
        let mut response = see_other(&page).ok_or(INVALID_LOCATION)?;
        let cookie = pending.as_ref().and_then(|_| PendingSignOut::clear(&prefix));
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok(response)
    }
}

const INVALID_LOCATION: Failure =
    Failure::NotConfigured("the page after sign-out is not a valid header value");

/// Treats a provider without a revocation endpoint as success. The client already logged that the
/// token stays valid.
fn ignore_missing_endpoint(outcome: Result<(), ExchangeError>) -> Result<(), Failure> {
    match outcome {
        Err(ExchangeError::NotConfigured(_)) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
