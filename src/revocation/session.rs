//! Browser sessions are judged as tokens are: by the time of their sign-in in place of `iat`.

use std::time::{Duration, SystemTime};

use super::index::{Entry, KINDS, TIMELESS};
use super::key::{Attributes, Key, Kind};
use super::{Revocations, unavailable};
use crate::clock::unix_seconds;
use crate::error::AuthError;
use crate::identity::Identity;

/// What a revocation may say about a session. A token's id says nothing: a renewal replaces the token.
const KINDS_OF_SESSIONS: u32 = KINDS & !Kind::Token.bit();

/// What is known about a browser session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionFacts<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) subject: &'a str,
    /// The `sid` of the provider's session.
    pub(crate) session_id: Option<&'a str>,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) client_id: &'a str,
    /// The time of the sign-in.
    pub(crate) started_at: SystemTime,
}

impl Revocations {
    /// Returns whether a revocation may mean a session. If not, nothing needs to be known about it.
    #[inline]
    pub(crate) fn may_mean_sessions(&self) -> bool {
        self.0.index.state() & KINDS_OF_SESSIONS != 0
    }

    /// Returns whether a session is revoked. Does not wait for the log.
    pub(crate) fn is_session_revoked(&self, facts: &SessionFacts<'_>) -> bool {
        let SessionFacts { issuer, subject, session_id, tenant, client_id, started_at } = *facts;
        let client_id = Some(client_id);
        let attributes =
            Attributes { issuer, subject, token_id: None, session_id, tenant, client_id };
        let inner = &self.0;
        // Read anew for each kind, as for tokens.
        let has_entries = |kind: &Kind| inner.index.state() & KINDS_OF_SESSIONS & kind.bit() != 0;
        let mut kinds = Kind::ALL.into_iter().filter(has_entries);
        kinds.any(|kind| {
            let entry = attributes.key(kind).and_then(|key| inner.index.get(key));
            let entry = entry.filter(|entry| !means_tokens_only(entry));
            entry.is_some_and(|entry| inner.refuses(&entry, unix_seconds(started_at)))
        })
    }

    /// Returns whether a session in cookies was signed out. Its name is revoked as if it was a session of the issuer.
    pub(crate) fn is_signed_out(&self, issuer: &str, name: &str) -> bool {
        let has_entries = self.0.index.state() & Kind::Session.bit() != 0;
        let entry = || self.0.index.get(Key::new(Kind::Session, issuer, &[name]));
        has_entries && entry().is_some_and(|entry| self.0.refuses(&entry, 0))
    }

    /// Returns from when on new tokens of a session are accepted, if the token of this identity is refused only because
    /// it was issued before: it has no `sid`, so that it is unknown whether it belongs to a session that ended, or only
    /// the earlier tokens of its `sid` are refused.
    pub(crate) fn refused_as_earlier(&self, identity: &Identity) -> Option<SystemTime> {
        let inner = &self.0;
        let end = |entry: Entry| match entry.kind {
            Kind::SubjectWithoutSession | Kind::Session => inner.end_of(&entry),
            _ => None,
        };
        let ends = inner.refusing(identity).map(end).collect::<Option<Vec<_>>>()?;
        // The clock of the issuer may be behind.
        let end = ends.into_iter().max()?.saturating_add(inner.leeway);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end))
    }

    /// Returns whether tokens may be refused because they were issued before.
    pub(crate) fn may_mean_earlier_tokens(&self) -> bool {
        let kinds = Kind::SubjectWithoutSession.bit() | Kind::Session.bit();
        self.0.index.state() & kinds != 0
    }

    /// Returns whether sessions can be judged now. Otherwise [`until_judging`](Self::until_judging) waits.
    ///
    /// # Errors
    /// The log has not been read for too long.
    pub(crate) fn try_judging(&self) -> Result<bool, AuthError> {
        match self.0.index.state() & !KINDS {
            0 => Ok(true),
            _ => self.0.may_judge().map_err(unavailable),
        }
    }

    /// Waits until sessions can be judged: for the history of the log, if it is not read yet.
    ///
    /// # Errors
    /// The log has not been read for too long.
    pub(crate) async fn until_judging(&self) -> Result<(), AuthError> {
        if !self.try_judging()? {
            self.0.until_read().await;
            self.try_judging()?;
        }
        Ok(())
    }

    /// Returns the time for [`issued_before`](super::Revocation::issued_before) that means "before the second of this
    /// time", without leeway: a user who signs in again in this second gets in.
    pub(crate) fn without_leeway(&self, time: SystemTime) -> SystemTime {
        let seconds = unix_seconds(time).saturating_sub(self.0.leeway);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Returns whether all sessions that exist now, and two seconds from now, began before a revocation.
    pub(crate) fn means_all_until_now(&self, issued_before: SystemTime) -> bool {
        let leeway = Duration::from_secs(self.0.leeway);
        let end = issued_before.checked_add(leeway);
        end.is_none_or(|end| end > self.0.clock.now() + Duration::from_secs(2))
    }
}

/// The provider's session, and others that began in it, go on.
fn means_tokens_only(entry: &Entry) -> bool {
    entry.kind == Kind::Session && entry.issued_before != TIMELESS
}

#[cfg(test)]
mod tests {
    use super::super::Revocation;
    use super::*;

    #[tokio::test]
    async fn dated_entries_end_no_session() {
        let revocations = Revocations::default();
        let facts = SessionFacts {
            issuer: "a",
            subject: "alice",
            session_id: Some("1"),
            tenant: None,
            client_id: "wave",
            started_at: SystemTime::UNIX_EPOCH,
        };
        revocations.revoke(Revocation::tokens_of_session("a", "1")).await.unwrap();
        assert!(!revocations.is_session_revoked(&facts));
        revocations.revoke(Revocation::session("a", "1")).await.unwrap();
        assert!(revocations.is_session_revoked(&facts));
    }

    #[tokio::test]
    async fn signed_out_sessions_are_known_by_name() {
        let revocations = Revocations::default();
        revocations.revoke(Revocation::tokens_of_session("a", "1")).await.unwrap();
        let names = [("a", "1"), ("a", "2"), ("b", "1")];
        let known = names.map(|(issuer, name)| revocations.is_signed_out(issuer, name));
        assert_eq!(known, [true, false, false]);
    }
}
