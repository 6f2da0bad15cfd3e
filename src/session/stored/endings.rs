//! The ends of sessions: sign-out, the list of a user's sessions, and ends by others.

use std::time::SystemTime;

use http::HeaderValue;

use super::owner::{SessionOwner, Whose};
use super::{Started, StoredSessions};
use crate::error::AuthError;
use crate::exchange::identity_of;
use crate::session::store::{SessionId, StoredSession};
use crate::session::{Session, Sessions};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::telemetry;

/// The reason why a session ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The user signed out.
    SignedOut,
    /// The browser signed in again. The new session may be of the same session of the provider.
    Replaced,
    /// The user ended it in another session.
    EndedByUser,
    /// An administrator or the service ended it.
    EndedByAdministrator,
    /// The provider refuses the refresh token, or the new tokens are not those of the user.
    Refused,
}

impl EndReason {
    /// Returns the value of a metric's label. The reason of a refusal is counted elsewhere.
    fn as_str(self) -> Option<&'static str> {
        match self {
            Self::SignedOut => Some("signed_out"),
            Self::Replaced => Some("replaced"),
            Self::EndedByUser => Some("ended_by_user"),
            Self::EndedByAdministrator => Some("ended_by_administrator"),
            Self::Refused => None,
        }
    }
}

/// A session in the list of its user.
pub(crate) struct ListedSession {
    /// Names the session, but reveals neither its cookie nor its key in the store.
    pub(crate) handle: String,
    pub(crate) started_at: SystemTime,
    pub(crate) used_at: SystemTime,
    pub(crate) is_current: bool,
}

/// A session that was signed out.
pub(crate) struct SignedOut {
    /// The cookie that ends it in the browser. The layer clears the other cookies.
    pub(crate) cookie: Option<HeaderValue>,
    /// The session with its last tokens, which another request may have renewed.
    pub(crate) session: Session,
}

impl Sessions {
    /// Ends all sessions of the subject of an issuer, in every tenant, and returns their number. For a user who is
    /// blocked, or whose device is lost. Sessions must have a [store](crate::session::SessionsBuilder::store).
    ///
    /// *Not* ended: the session at the provider, which may sign the user in again without a question; access tokens that
    /// were passed on to other services; and refresh tokens, which no process can read any more.
    ///
    /// ```
    /// use scaikey_auth::session::Sessions;
    /// use scaikey_auth::{AuthError, Identity};
    ///
    /// async fn block(sessions: &Sessions, user: &Identity) -> Result<(), AuthError> {
    ///     let ended = sessions.end_sessions_of(user.issuer(), user.subject()).await?;
    ///     println!("{ended} sessions ended");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`AuthError::Unavailable`] if the store failed, so that some sessions may still be valid, or if there is no store.
    pub async fn end_sessions_of(&self, issuer: &str, subject: &str) -> Result<u64, AuthError> {
        if !self.has_store() {
            let problem = "sessions in cookies cannot be ended by the server";
            return Err(AuthError::unavailable("session store", None, problem));
        }
        let whose = Whose::Subject { issuer, subject };
        self.end_where(whose, None, EndReason::EndedByAdministrator).await
    }

    /// Ends a session of this browser. Its refresh token is still valid.
    pub(crate) async fn end(&self, session: &Session) -> Result<SignedOut, AuthError> {
        let mut last = session.clone();
        if let (Some(stored), Some(part)) = (self.stored(), &session.stored) {
            let newest = self.load_stored(stored, &part.secret, &session.id).await?;
            stored.store.remove(&part.id()).await?;
            last = newest.unwrap_or(last);
        }
        self.ended(self.owner_of_session(session), EndReason::SignedOut).await;
        Ok(SignedOut { cookie: self.clear_cookie(session), session: last })
    }

    /// Returns the cookie that ends a session in the browser.
    pub(crate) fn clear_cookie(&self, session: &Session) -> Option<HeaderValue> {
        self.0.cookies.clear_marker(&session.id)
    }

    /// Ends the session that a browser had before it signed in.
    pub(crate) async fn end_replaced(&self, session: &Session) -> Result<(), AuthError> {
        if let (Some(stored), Some(part)) = (self.stored(), &session.stored)
            && stored.store.remove(&part.id()).await?
        {
            self.ended(self.owner_of(&part.record), EndReason::Replaced).await;
        }
        Ok(())
    }

    /// Removes a session that has just started, but whose sign-in failed afterwards.
    pub(crate) async fn discard(&self, started: &Started) {
        if let (Some(stored), Some(id)) = (self.stored(), &started.stored) {
            // No browser has its cookie, so it ends unused.
            let _ = stored.store.remove(id).await;
        }
    }

    /// Returns the valid sessions, those that started last first.
    pub(crate) async fn list(
        &self,
        whose: Whose<'_>,
        current: &Session,
    ) -> Result<Vec<ListedSession>, AuthError> {
        let Some(stored) = self.stored() else { return Ok(Vec::new()) };
        let current = current.stored.as_ref().map(|part| part.id());
        let now = self.0.auth.now();
        let records = self.records(stored, whose).await?.into_iter();
        let records = records.filter(|record| record.expires_at > now);
        Ok(records.map(|record| ListedSession::new(&record, current)).collect())
    }

    /// Ends one of these sessions. Returns `None` if none has this handle, and otherwise whether it is `current`.
    pub(crate) async fn end_listed(
        &self,
        whose: Whose<'_>,
        handle: &str,
        current: &Session,
    ) -> Result<Option<bool>, AuthError> {
        let Some(stored) = self.stored() else { return Ok(None) };
        let records = self.records(stored, whose).await?;
        let found = records.iter().find(|record| handle_of(&record.id) == handle);
        let Some(record) = found else { return Ok(None) };
        if stored.store.remove(&record.id).await? {
            self.ended(self.owner_of(record), EndReason::EndedByUser).await;
        }
        Ok(Some(current.stored.as_ref().is_some_and(|part| part.id() == record.id)))
    }

    /// Ends these sessions, except one. Returns their number.
    pub(crate) async fn end_where(
        &self,
        whose: Whose<'_>,
        except: Option<&Session>,
        reason: EndReason,
    ) -> Result<u64, AuthError> {
        let Some(stored) = self.stored() else { return Ok(0) };
        let selector = whose.selector(&self.0.keys, &**self.0.auth.clock());
        let selector = match except.and_then(|session| session.stored.as_ref()) {
            Some(part) => selector.except(part.id()),
            None => selector,
        };
        // They are not listed before: a user may have so many sessions that the list takes too long to end any.
        let removed = stored.store.remove_where(&selector).await?;
        for _ in 0..removed {
            self.ended(None, reason).await;
        }
        Ok(removed)
    }

    async fn records(
        &self,
        stored: &StoredSessions,
        whose: Whose<'_>,
    ) -> Result<Vec<StoredSession>, AuthError> {
        stored.store.list(&whose.selector(&self.0.keys, &**self.0.auth.clock())).await
    }

    /// Returns whose a session is. A session in cookies says it in its tokens, if they can be read.
    fn owner_of_session(&self, session: &Session) -> Option<SessionOwner> {
        if let Some(part) = &session.stored {
            return self.owner_of(&part.record);
        }
        let mapping = self.0.client.claims_mapping();
        let tokens = [Some(session.token.secret()), session.token.id_token()];
        let user = tokens.into_iter().flatten().find_map(|token| identity_of(token, mapping))?;
        Some(SessionOwner::new(&user, &session.token))
    }

    /// Every early end of a session passes through here, after the session has ended. `owner` is unknown if many
    /// sessions ended together, if it was sealed under a key that this process does not have, or if the tokens of a session
    /// in cookies cannot be read.
    pub(super) async fn ended(&self, owner: Option<SessionOwner>, reason: EndReason) {
        let _ = owner;
        if let Some(reason) = reason.as_str() {
            telemetry::session_closed(reason);
        }
    }
}

impl ListedSession {
    fn new(record: &StoredSession, current: Option<SessionId>) -> Self {
        Self {
            handle: handle_of(&record.id),
            started_at: record.started_at,
            used_at: record.used_at,
            is_current: current == Some(record.id),
        }
    }
}

/// Returns the name of a session for its user: 128 bits.
fn handle_of(id: &SessionId) -> String {
    let digest = crypto::sha256_of_parts(["handle of a session", &id.to_string()]);
    let (handle, _) = digest.split_at(digest.len() / 2);
    base64url::encode(handle)
}
