//! The ends of sessions: sign-out, the list of a user's sessions, and ends by others.

use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::owner::{SessionOwner, Whose};
use super::{OlderSessions, Started, StoredPart, StoredSessions};
use crate::clock::{CHECK_TIMEOUT, with_timeout};
use crate::error::AuthError;
use crate::revocation::{Revocation, Revocations};
use crate::session::store::{SessionId, SessionSelector, StoredSession};
use crate::session::{Session, Sessions};
use crate::support::base64url;
use crate::support::crypto;
use crate::support::telemetry::{self, Causes};

/// The time after its end at which a token is accepted at the latest: an issuer's greatest leeway, and a minute.
const GRACE: Duration = Duration::from_secs(660);

/// The reason why a session ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The user signed out.
    SignedOut,
    /// The browser signed in again, or the user has too many sessions. The new session may be of the same session of
    /// the provider.
    Replaced,
    /// The user ended it in another session.
    EndedByUser,
    /// An administrator or the service ended it.
    EndedByAdministrator,
    /// A revocation means it, or its token.
    Revoked,
}

impl EndReason {
    /// Logs and counts the early end of a session, after it has ended. Those that the provider refuses to renew are
    /// counted elsewhere.
    pub(super) fn count(self) {
        telemetry::session_closed(match self {
            Self::SignedOut => "signed_out",
            Self::Replaced => "replaced",
            Self::EndedByUser => "ended_by_user",
            Self::EndedByAdministrator => "ended_by_administrator",
            Self::Revoked => "revoked",
        });
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
    /// blocked, or whose device is lost. Sessions must have a [store](crate::session::SessionsBuilder::store); without
    /// one, [revoke](crate::revocation::Revocations::revoke) the tokens of the subject.
    ///
    /// **Check first that the caller may end sessions of every tenant.** Administrators of one tenant use
    /// `DELETE /v1/auth/sessions` with
    /// [`session_admin`](crate::endpoints::EndpointsBuilder::session_admin), which ends those of their own tenant only.
    ///
    /// All tokens of the subject that were issued until now are [revoked](crate::revocation::Revocation::subject), also
    /// those that other programs have. If that fails, a warning is logged.
    ///
    /// *Not* ended: the session at the provider, which may sign the user in again without a question; refresh tokens,
    /// which no process can read any more; and the use of access tokens at services that do not share these
    /// revocations.
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
    /// [`AuthError::Unavailable`] if the store failed, or if there is no store. With a store, the tokens are revoked in
    /// any case, and sessions that are still in the store end at their next request.
    pub async fn end_sessions_of(&self, issuer: &str, subject: &str) -> Result<u64, AuthError> {
        if !self.has_store() {
            let problem = "sessions in cookies cannot be ended by the server";
            return Err(AuthError::unavailable("session store", None, problem));
        }
        let whose = Whose::Subject { issuer, subject };
        self.end_where(whose, None, EndReason::EndedByAdministrator).await
    }

    /// Returns the session with its newest tokens, which another request may have stored.
    pub(crate) async fn newest(&self, session: &Session) -> Result<Session, AuthError> {
        let (Some(stored), Some(part)) = (self.stored(), &session.stored) else {
            return Ok(session.clone());
        };
        let newest = self.load_stored(stored, &part.secret, &session.id).await?;
        Ok(newest.unwrap_or_else(|| session.clone()))
    }

    /// Ends a session of this browser. Its refresh token is still valid.
    pub(crate) async fn end(&self, session: &Session) -> Result<SignedOut, AuthError> {
        let last = self.newest(session).await?;
        let removed = match (self.stored(), &session.stored) {
            (Some(stored), Some(part)) => stored.store.remove(&part.id()).await,
            _ => Ok(true),
        };
        // Also if the store failed: the session may have ended, and then no other request can do this.
        self.refuse_access_token(&last).await;
        removed?;
        EndReason::SignedOut.count();
        Ok(SignedOut { cookie: self.clear_cookie(session), session: last })
    }

    /// Ends the older sessions of a browser that signs out, or it would go on with one of them. Their refresh tokens
    /// are still valid. Returns the sessions, and the cookies that end them in the browser.
    pub(crate) async fn end_older(
        &self,
        older: &OlderSessions,
    ) -> Result<(Vec<Session>, Vec<HeaderValue>), AuthError> {
        let (mut sessions, mut cookies) = (Vec::new(), Vec::new());
        let (Some(stored), Some(older)) = (self.stored(), older.of(self)) else {
            return Ok((sessions, cookies));
        };
        for (id, secret) in older {
            if let Some(session) = self.load_stored(stored, secret, id).await? {
                sessions.push(self.end(&session).await?.session);
            }
            cookies.extend(self.0.cookies.clear_marker(id));
        }
        Ok((sessions, cookies))
    }

    /// Returns the cookie that ends a session in the browser.
    pub(crate) fn clear_cookie(&self, session: &Session) -> Option<HeaderValue> {
        self.0.cookies.clear_marker(&session.id)
    }

    /// Returns the key of a session in the store, if there is one.
    pub(crate) fn stored_id(session: &Session) -> Option<SessionId> {
        session.stored.as_ref().map(|part| part.id())
    }

    /// Ends the session that a browser had before it signed in.
    pub(crate) async fn end_replaced(&self, id: &SessionId) -> Result<(), AuthError> {
        if let Some(stored) = self.stored()
            && stored.store.remove(id).await?
        {
            EndReason::Replaced.count();
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
        let judges = self.revocations().may_mean_sessions();
        let records = records.filter(|record| {
            let owner = if judges { self.owner_of_record(record) } else { None };
            !owner.is_some_and(|owner| self.is_revoked_for(&owner, record.started_at))
        });
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
        let is_current = current.stored.as_ref().is_some_and(|part| part.id() == record.id);
        let removed = stored.store.remove(&record.id).await;
        // Also if it is gone: an earlier request may have removed it without an answer.
        let owner = self.owner_of_record(record);
        let owner = owner.filter(|owner| is_current || !shares_sid(owner, current));
        let tokens = owner.and_then(|owner| self.tokens_of(&owner));
        self.revoke_tokens(tokens.into_iter().collect()).await;
        if removed? {
            EndReason::EndedByUser.count();
        }
        Ok(Some(is_current))
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
        // Only their tokens need a list. A user may have so many sessions that it fails.
        let tokens = match except {
            Some(current) => self.tokens_of_others(stored, &selector, current).await,
            None => Vec::new(),
        };
        let removed = stored.store.remove_where(&selector).await;
        for _ in 0..*removed.as_ref().unwrap_or(&0) {
            reason.count();
        }
        let all = whose.revocation();
        let tokens = match (reason, except, &removed) {
            (EndReason::EndedByAdministrator, ..) => all.into_iter().collect(),
            (EndReason::EndedByUser, None, Ok(_)) => {
                all.map(|all| all.issued_before(self.before_new_tokens())).into_iter().collect()
            }
            (EndReason::EndedByUser, Some(_), Ok(_)) => tokens,
            _ => Vec::new(),
        };
        self.revoke_tokens(tokens).await;
        removed
    }

    /// Returns what refuses the tokens of these sessions, if they can be listed.
    async fn tokens_of_others(
        &self,
        stored: &StoredSessions,
        selector: &SessionSelector,
        current: &Session,
    ) -> Vec<Revocation> {
        let records = stored.store.list(selector).await.unwrap_or_default();
        let owners = records.iter().filter_map(|record| self.owner_of_record(record));
        let others = owners.filter(|owner| !shares_sid(owner, current));
        let mut tokens: Vec<Revocation> = Vec::new();
        for revocation in others.filter_map(|owner| self.tokens_of(&owner)) {
            if !tokens.contains(&revocation) {
                tokens.push(revocation);
            }
        }
        tokens
    }

    /// Returns what refuses the tokens of a session of the provider that were issued before. A user who signs in again
    /// at the same moment, in the same session of the provider, gets in.
    fn tokens_of(&self, owner: &SessionOwner) -> Option<Revocation> {
        let tokens =
            Revocation::tokens_of_session(&*owner.issuer, owner.provider_session.as_deref()?);
        Some(tokens.of_subject(&*owner.subject).issued_before(self.before_new_tokens()))
    }

    /// Returns the time before which tokens are refused, so that those of a sign-in that follows are not: also if the
    /// clock of the provider is behind by the leeway.
    fn before_new_tokens(&self) -> SystemTime {
        let revocations = self.revocations();
        revocations.without_leeway(revocations.without_leeway(self.0.auth.now()))
    }

    /// Refuses copies of the cookies of a session that ended, until its lifetime ends.
    pub(in crate::session) async fn refuse_copies(&self, session: &Session) {
        self.revoke_tokens(self.end_of_copies(session).into_iter().collect()).await;
    }

    /// Removes the answer about an opaque access token, which has no readable id: its issuer is asked again.
    pub(in crate::session) fn forget_answer(&self, session: &Session) {
        let token = session.token.secret().expose();
        self.0.auth.introspected_tokens().forget(token.as_bytes());
    }

    /// Refuses the access token of a session that ended, which others may have.
    pub(crate) async fn refuse_access_token(&self, session: &Session) {
        self.forget_answer(session);
        let user = self.user_of_access_token(session);
        let by_id = user.and_then(|user| {
            let token = Revocation::token(user.issuer(), user.token_id()?);
            let token = token.of_subject(user.subject());
            Some(match user.expires_at().checked_add(GRACE) {
                Some(end) => token.until(end),
                None => token,
            })
        });
        let by_sid = || self.owner_of_session(session).and_then(|owner| self.tokens_of(&owner));
        self.revoke_tokens(by_id.or_else(by_sid).into_iter().collect()).await;
    }

    fn revocations(&self) -> &Revocations {
        self.0.auth.revocations()
    }

    /// Puts revocations in force. A failure is logged, and hinders no other: the sessions have ended in any case. It
    /// goes on in the background if the log is slow.
    async fn revoke_tokens(&self, tokens: Vec<Revocation>) {
        if tokens.is_empty() {
            return;
        }
        let revocations = self.revocations().clone();
        let work = async move {
            let mut failure = None;
            for revocation in tokens {
                failure = revocations.revoke(revocation).await.err().or(failure);
            }
            if let Some(error) = failure {
                telemetry::tokens_of_session_not_revoked(&Causes(&error));
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(with_timeout(CHECK_TIMEOUT, runtime.spawn(work)).await),
            Err(_) => work.await,
        }
    }

    pub(in crate::session) async fn remove_revoked_part(
        &self,
        stored: &StoredSessions,
        part: &StoredPart,
    ) {
        if matches!(stored.store.remove(&part.id()).await, Ok(true)) {
            EndReason::Revoked.count();
        }
    }

    pub(super) async fn records(
        &self,
        stored: &StoredSessions,
        whose: Whose<'_>,
    ) -> Result<Vec<StoredSession>, AuthError> {
        stored.store.list(&whose.selector(&self.0.keys, &**self.0.auth.clock())).await
    }
}

/// Returns whether the current session began in the same session of the provider.
fn shares_sid(owner: &SessionOwner, current: &Session) -> bool {
    let current = current.stored.as_ref();
    current.is_some_and(|part| part.owner().provider_session == owner.provider_session)
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
