//! `sessions`: users list and end their sessions, and administrators end those of others.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::identity_id::rfc3339;
use super::introspect::throttle_account;
use super::parameters::Parameters;
use super::response::{Failure, invalid_request, json_response, no_content};
use super::{Endpoint, EndpointRequest, Inner};
use crate::auth::AuthContext;
use crate::error::AuthError;
use crate::guard::GuardRequest;
use crate::identity::TenantId;
use crate::session::{EndReason, ListedSession, Session, Sessions, Whose};

const QUERY_PARAMETERS: [&str; 3] = ["issuer", "subject", "others"];

#[derive(Serialize)]
struct SessionList {
    sessions: Vec<SessionEntry>,
}

/// A session of the caller. The handle ends it at `DELETE sessions/{handle}`.
#[derive(Serialize)]
struct SessionEntry {
    handle: String,
    started_at: String,
    /// To the minute: a session is not written at each request.
    used_at: String,
    current: bool,
}

#[derive(Serialize)]
struct Ended {
    ended: u64,
    /// Where the browser ends the session of the provider, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_session_url: Option<String>,
}

impl From<ListedSession> for SessionEntry {
    fn from(session: ListedSession) -> Self {
        Self {
            handle: session.handle,
            started_at: rfc3339(session.started_at),
            used_at: rfc3339(session.used_at),
            current: session.is_current,
        }
    }
}

impl Inner {
    pub(super) async fn sessions(
        &self,
        incoming: &EndpointRequest,
    ) -> Result<Response<Bytes>, Failure> {
        let caller = self.caller(incoming).await?;
        let account = throttle_account(caller.identity());
        self.admit(Endpoint::Sessions, &incoming.head, Some(&account)).await?;
        let handle = self.session_handle(incoming.head.uri.path());
        match (incoming.head.method == Method::DELETE, handle) {
            (true, Some(handle)) => self.end_session(incoming, &caller, handle).await,
            (true, None) => self.end_sessions(incoming, &caller).await,
            (false, _) => {
                let (sessions, current) = self.own_session(incoming)?;
                let listed = sessions.list(Whose::of(caller.identity()), current).await?;
                Ok(self.ok(&SessionList { sessions: listed.into_iter().map(Into::into).collect() }))
            }
        }
    }

    /// Returns the part of the path after `sessions/`, which may be empty.
    pub(super) fn session_handle<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?;
        rest.strip_prefix(Endpoint::Sessions.as_str())?.strip_prefix('/')
    }

    /// Ends one of the caller's sessions. For another user's, the answer is the same as for none.
    async fn end_session(
        &self,
        incoming: &EndpointRequest,
        caller: &AuthContext,
        handle: &str,
    ) -> Result<Response<Bytes>, Failure> {
        let (sessions, current) = self.own_session(incoming)?;
        let current = &sessions.newest(current).await?;
        match sessions.end_listed(Whose::of(caller.identity()), handle, current).await? {
            None => Ok(unknown_session()),
            Some(is_current) => {
                let mut response = no_content();
                if is_current {
                    forget(sessions, current, &mut response).await;
                }
                Ok(response)
            }
        }
    }

    /// Ends all sessions of the caller, or those of the subject that an administrator names.
    async fn end_sessions(
        &self,
        incoming: &EndpointRequest,
        caller: &AuthContext,
    ) -> Result<Response<Bytes>, Failure> {
        let parameters = Parameters::from_query(incoming, &QUERY_PARAMETERS)?;
        let (issuer, subject) = match (parameters.get("issuer"), parameters.get("subject")) {
            (Some(issuer), Some(subject)) => (issuer, subject),
            (None, None) => return self.end_own_sessions(incoming, caller, &parameters).await,
            _ => {
                return Err(invalid_request("The parameters issuer and subject belong together."));
            }
        };
        let admin = self.session_admin.as_ref().ok_or_else(|| AuthError::Forbidden {
            required: "an administrator of sessions (`session_admin`)".into(),
        })?;
        admin.check(&GuardRequest::of_parts(&incoming.head, caller, self.auth.now()))?;
        let whose = match self.ends_sessions_in_all_tenants {
            true => Whose::Subject { issuer, subject },
            false => {
                let tenant = caller.identity().tenant_id().map(TenantId::as_str);
                Whose::User { issuer, subject, tenant }
            }
        };
        let sessions = self.sessions.as_ref().ok_or(NO_SESSIONS)?;
        let ended = sessions.end_where(whose, None, EndReason::EndedByAdministrator).await?;
        Ok(self.ok(&Ended { ended, end_session_url: None }))
    }

    async fn end_own_sessions(
        &self,
        incoming: &EndpointRequest,
        caller: &AuthContext,
        parameters: &Parameters,
    ) -> Result<Response<Bytes>, Failure> {
        let only_others = match parameters.get("others") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(invalid_request("The parameter others is not true or false.")),
        };
        let (sessions, current) = self.own_session(incoming)?;
        let current = &sessions.newest(current).await?;
        let (whose, except) = (Whose::of(caller.identity()), only_others.then_some(current));
        let ended = sessions.end_where(whose, except, EndReason::EndedByUser).await?;
        if only_others {
            return Ok(self.ok(&Ended { ended, end_session_url: None }));
        }
        let mut response =
            self.ok(&Ended { ended, end_session_url: url_at_provider(sessions, current).await });
        forget(sessions, current, &mut response).await;
        Ok(response)
    }

    /// Returns the session of the request. A bearer token alone lists and ends no sessions: it may have been issued
    /// for much less.
    fn own_session<'r>(
        &'r self,
        incoming: &'r EndpointRequest,
    ) -> Result<(&'r Sessions, &'r Session), Failure> {
        let required = "a browser session";
        let missing = || AuthError::Forbidden { required: required.into() };
        Ok(self.current_session(incoming)?.ok_or_else(missing)?)
    }
}

/// Clears the cookie of the session of the request, which has ended, and revokes its refresh token.
async fn forget(sessions: &Sessions, session: &Session, response: &mut Response<Bytes>) {
    let cookie = sessions.clear_cookie(session);
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    sessions.refuse_access_token(session).await;
    // `revoke` logs its failure. The session has ended in any case.
    let _ = sessions.revoke(session).await;
}

/// Returns where the browser ends the session of the provider, if sign-outs end it. The session here has ended, also
/// if the provider does not answer.
async fn url_at_provider(sessions: &Sessions, session: &Session) -> Option<String> {
    sessions.post_logout_redirect_uri()?;
    Some(sessions.end_session_url(Some(session), None).await.ok()?.into())
}

fn unknown_session() -> Response<Bytes> {
    let mut response = json_response(
        StatusCode::NOT_FOUND,
        &json!({
            "type": "urn:scaikey-auth:session_unknown",
            "title": "Not Found",
            "status": 404,
            "detail": "You have no session with this handle.",
        }),
    );
    let media_type = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

const NO_SESSIONS: Failure = Failure::NotConfigured("sessions are not configured");
