//! A session is judged like a token: its [`Auth`](crate::Auth) has the revocations.

use std::sync::Arc;
use std::time::SystemTime;

use super::stored::SessionOwner;
use super::{Session, Sessions};
use crate::error::AuthError;
use crate::exchange::identity_of;
use crate::identity::Identity;
use crate::revocation::{Revocation, SessionFacts};
use crate::support::mac::Mac;
use crate::support::secret::Secret;
use crate::support::telemetry;
use crate::validator::signed_token;

impl Sessions {
    /// Returns whether a session is revoked, or `None` if the history of the revocation log is not read yet.
    ///
    /// # Errors
    /// It is unknown, because the log has not been read for too long.
    pub(super) fn try_is_revoked(&self, session: &Session) -> Result<Option<bool>, AuthError> {
        let revocations = self.0.auth.revocations();
        if revocations.is_idle() {
            return Ok(Some(false));
        }
        Ok(revocations.try_judging()?.then(|| self.is_revoked(session)))
    }

    /// Returns whether a session is revoked. Waits for the history of the log.
    pub(super) async fn until_judged(&self, session: &Session) -> Result<bool, AuthError> {
        if let Some(is_revoked) = self.try_is_revoked(session)? {
            return Ok(is_revoked);
        }
        self.0.auth.revocations().until_judging().await?;
        Ok(self.is_revoked(session))
    }

    /// Returns whether a session is revoked, as far as this process knows. If its owner is unknown, only its tokens are
    /// judged, by the inner layer.
    pub(super) fn is_revoked(&self, session: &Session) -> bool {
        if !self.0.auth.revocations().may_mean_sessions() {
            return false;
        }
        let means = |owner: &SessionOwner| self.is_revoked_for(owner, session.started_at);
        match &session.stored {
            Some(part) => means(part.owner()),
            None => {
                self.is_signed_out(session)
                    || self.owner_of_session(session).is_some_and(|owner| means(&owner))
            }
        }
    }

    /// Returns whether a session in cookies was signed out. Copies of its cookies may remain.
    fn is_signed_out(&self, session: &Session) -> bool {
        let name = self.0.cookies.marker(&session.id);
        self.0.auth.revocations().is_signed_out(self.0.client.issuer(), &name)
    }

    /// Makes copies of the cookies of a session worthless, also those with earlier tokens.
    pub(super) fn end_of_copies(&self, session: &Session) -> Option<Revocation> {
        if session.stored.is_some() {
            return None;
        }
        let (issuer, name) = (self.0.client.issuer(), self.0.cookies.marker(&session.id));
        let copies = Revocation::tokens_of_session(issuer, name);
        let copies = match self.owner_of_session(session) {
            Some(owner) => {
                copies.of_subject(owner.id_token_subject.as_deref().unwrap_or(&owner.subject))
            }
            None => copies,
        };
        Some(copies.until(session.started_at.checked_add(self.0.lifetime)?))
    }

    /// Counts a session in cookies that a revocation ended. One in a store is counted when it is removed.
    pub(super) fn count_revoked(&self, session: &Session) {
        if session.stored.is_none() && !self.is_signed_out(session) {
            telemetry::session_closed("revoked");
        }
    }

    /// Returns whether a session of this owner is revoked. The provider's logout tokens name the subject as its ID
    /// tokens do.
    pub(super) fn is_revoked_for(&self, owner: &SessionOwner, started_at: SystemTime) -> bool {
        let (revocations, client) = (self.0.auth.revocations(), &self.0.client);
        let facts = SessionFacts {
            issuer: &owner.issuer,
            subject: &owner.subject,
            session_id: owner.provider_session.as_deref(),
            tenant: owner.tenant.as_deref(),
            client_id: client.client_id(),
            started_at,
        };
        let subject = owner.id_token_subject.as_deref().unwrap_or(&owner.subject);
        let at_provider = SessionFacts { issuer: client.issuer(), subject, ..facts };
        let differs = (at_provider.issuer, subject) != (facts.issuer, facts.subject);
        revocations.is_session_revoked(&facts)
            || (differs && revocations.is_session_revoked(&at_provider))
    }

    /// Returns whose a session is. A session in cookies says it in its tokens, if they can be read.
    pub(super) fn owner_of_session(&self, session: &Session) -> Option<Arc<SessionOwner>> {
        match &session.stored {
            Some(part) => Some(part.owner().clone()),
            None => self.owner_in_cookies(session),
        }
    }

    fn read_owner(&self, session: &Session) -> Option<SessionOwner> {
        let by_access_token = || self.user_of_access_token(session);
        let by_id_token = || {
            let id_token = session.token.id_token()?;
            identity_of(id_token, self.0.client.claims_mapping())
        };
        let user = match self.0.id_tokens {
            Some(_) => by_id_token().or_else(by_access_token),
            None => by_access_token().or_else(by_id_token),
        };
        Some(SessionOwner::new(&user?, &session.token))
    }

    /// Returns whose a session in cookies is. Its access token may be long, or encrypted, so the answer is remembered.
    fn owner_in_cookies(&self, session: &Session) -> Option<Arc<SessionOwner>> {
        let token = Mac::of(session.token.secret().expose().as_bytes());
        if let Some(owner) = self.0.owners.get(&token) {
            return Some(owner);
        }
        let owner = Arc::new(self.read_owner(session)?);
        self.0.owners.insert(token, owner.clone());
        Some(owner)
    }

    /// Returns from when on a session may get a new token in place of one that is refused only because it was issued
    /// before a revocation.
    /// The session itself goes on: the provider's session that it began in is known, and is not revoked.
    pub(super) fn new_token_from(&self, session: &Session) -> Option<SystemTime> {
        let revocations = self.0.auth.revocations();
        if !revocations.may_mean_earlier_tokens() || self.0.id_tokens.is_some() {
            return None;
        }
        session.token.refresh_token()?;
        self.owner_of_session(session)?.provider_session.as_ref()?;
        let from = revocations.refused_as_earlier(&self.user_of_access_token(session)?)?;
        (!self.is_revoked(session)).then_some(from)
    }

    /// Returns the identity in the access token, if this service can read it.
    pub(super) fn user_of_access_token(&self, session: &Session) -> Option<Identity> {
        let (auth, client) = (&self.0.auth, &self.0.client);
        let token: &Secret = session.token.secret();
        let signed = signed_token(auth.issuers(), &**auth.clock(), client.issuer(), token.expose());
        let signed = signed.ok()?;
        identity_of(signed.as_ref().unwrap_or(token), client.claims_mapping())
    }

    /// Removes a session that is revoked, or whose token is, from its store. If that fails, it is judged again. Copies
    /// of cookies are refused.
    pub(super) async fn remove_revoked(&self, session: &Session) {
        match (self.stored(), &session.stored) {
            (Some(stored), Some(part)) => self.remove_revoked_part(stored, part).await,
            _ => {
                self.count_revoked(session);
                self.refuse_copies(session).await;
            }
        }
    }
}
