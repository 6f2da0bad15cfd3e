//! The renewal of a stored session: one process at a time takes a lease, and uses the refresh token.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{StoredPart, StoredSessions};
use crate::clock::{CHECK_TIMEOUT, jittered, sleep};
use crate::error::AuthError;
use crate::exchange::Freshness;
use crate::session::store::whole_milliseconds;
use crate::session::{Session, Sessions, revoke};
use crate::support::secret::Secret;
use crate::support::single_flight::Waiter;

/// The renewed session, or `None` if it ended.
pub(super) type StoredRenewal = Result<Option<Session>, AuthError>;

/// A renewal in progress.
pub(super) type Renewal = Waiter<StoredRenewal>;

/// The mean pause between two looks at a session that another process is renewing.
const POLL: Duration = Duration::from_millis(40);

/// The mean pause between two attempts to write the new tokens.
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// The largest number of attempts to write the new tokens, for a clock that stands still.
const MAX_WRITES: usize = 100;

/// The number of lost attempts to take the lease, after which the session counts as unavailable.
const MAX_CONFLICTS: usize = 100;

impl Sessions {
    /// Starts or joins the renewal of a stored session. Dropping the waiter does not stop it.
    pub(super) fn renew_stored(
        &self,
        stored: &StoredSessions,
        session: &Session,
        part: &Arc<StoredPart>,
    ) -> Renewal {
        let (sessions, session, part) = (self.clone(), session.clone(), part.clone());
        stored.renewals.run(part.id(), move || async move {
            match sessions.stored() {
                Some(stored) => sessions.renew_in_turn(stored, &session, &part).await,
                None => Ok(Some(session)),
            }
        })
    }

    /// Renews the session, or returns the one that another process has renewed. Waits for that process only if the
    /// token is about to expire.
    async fn renew_in_turn(
        &self,
        stored: &StoredSessions,
        session: &Session,
        part: &StoredPart,
    ) -> StoredRenewal {
        let lease = self.0.client.refresh_lease();
        let (mut waited, mut conflicts) = (Duration::ZERO, 0);
        while conflicts < MAX_CONFLICTS {
            let found = self.load_stored(stored, &part.secret, &session.id).await?;
            let Some((current, part)) = found.and_then(with_part) else { return Ok(None) };
            let refresh = current.token.refresh_token().cloned();
            let (Some(refresh), Freshness::Due | Freshness::Expired) =
                (refresh, self.freshness(&current))
            else {
                return Ok(Some(current));
            };
            // A process that died has its lease until the end, and a clock may stand still.
            if waited < lease && part.is_leased_at(self.0.auth.now()) {
                if !self.is_about_to_expire(&current) {
                    return Ok(Some(current));
                }
                waited += pause(POLL).await;
                continue;
            }
            let until = self.0.auth.now().checked_add(lease);
            if let Some(leased) = self.write(stored, &current, &part, until, None).await? {
                return self.renew_under_lease(stored, leased, refresh).await;
            }
            conflicts += 1;
        }
        let busy = "other processes change the session all the time";
        Err(AuthError::unavailable("session store", None, busy))
    }

    async fn renew_under_lease(
        &self,
        stored: &StoredSessions,
        leased: Session,
        refresh: Secret,
    ) -> StoredRenewal {
        match self.clone().use_refresh_token(leased.clone(), refresh.clone()).await {
            Ok(Some(renewed)) => {
                Ok(self.store_renewed(stored, leased.renewed_with(renewed), &refresh).await)
            }
            Ok(None) => self.end_refused(stored, leased, &refresh).await,
            Err(error) => {
                if let Some((leased, part)) = with_part(leased) {
                    // If this fails, the lease ends by itself.
                    let _ = self.write(stored, &leased, &part, None, None).await;
                }
                let component = error.unavailable_component();
                Err(AuthError::unavailable(component, error.retry_after(), error))
            }
        }
    }

    /// Writes the new tokens. Tries again while the store fails, because the refresh token is used up, but only until
    /// the lease ends: from then on, another process may use it. Returns `None` if the session ended meanwhile.
    async fn store_renewed(
        &self,
        stored: &StoredSessions,
        mut session: Session,
        used: &Secret,
    ) -> Option<Session> {
        let lease_ends = session.stored.as_ref().and_then(|part| part.record.renewing_until);
        for _ in 0..MAX_WRITES {
            let (_, part) = with_part(session.clone())?;
            let value = part
                .value()
                .and_then(|(owner, _)| self.seal_value(&part.secret, owner, &session))?;
            match self.write(stored, &session, &part, None, Some(value)).await {
                Ok(Some(written)) => return Some(written),
                Err(_) => {}
                // Another process changed the session, or the answer to the last write was lost.
                Ok(None) => match self.load_stored(stored, &part.secret, &session.id).await {
                    Ok(Some(current)) if has_refresh_token(&current, used) => {
                        session.stored = current.stored;
                        continue;
                    }
                    Ok(Some(current)) => return Some(current),
                    Ok(None) => {
                        self.revoke_unused(&session).await;
                        return None;
                    }
                    Err(_) => {}
                },
            }
            pause(WRITE_PAUSE).await;
            // The next attempt may take two calls.
            let done_at = self.0.auth.now().checked_add(2 * CHECK_TIMEOUT);
            if done_at > lease_ends {
                break;
            }
        }
        Some(session)
    }

    /// Ends a session whose refresh token the provider refuses, unless another process has renewed it.
    async fn end_refused(
        &self,
        stored: &StoredSessions,
        leased: Session,
        used: &Secret,
    ) -> StoredRenewal {
        let Some((leased, part)) = with_part(leased) else { return Ok(None) };
        match self.load_stored(stored, &part.secret, &leased.id).await? {
            Some(current) if !has_refresh_token(&current, used) => Ok(Some(current)),
            Some(_) => {
                // If this fails, the next renewal is refused again.
                match self.is_revoked_for(part.owner(), leased.started_at) {
                    true => self.remove_revoked_part(stored, &part).await,
                    false => drop(stored.store.remove(&part.id()).await),
                }
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Revokes the new tokens of a session that ended while it was renewed.
    async fn revoke_unused(&self, session: &Session) {
        if let Some(token) = session.token.refresh_token() {
            // `revoke` logs its failure. The session ended in any case.
            let _ = revoke(&self.0.client, token).await;
        }
    }

    /// Writes the next version of a session. Returns `None` if the store has another version.
    async fn write(
        &self,
        stored: &StoredSessions,
        session: &Session,
        part: &StoredPart,
        renewing_until: Option<SystemTime>,
        value: Option<Vec<u8>>,
    ) -> Result<Option<Session>, AuthError> {
        let mut record = self.next_record(stored, &part.record);
        record.renewing_until = renewing_until.map(whole_milliseconds);
        if let Some(value) = value {
            record.value = value;
        }
        if !stored.store.replace(record.clone(), part.record.version).await? {
            return Ok(None);
        }
        let part = StoredPart { secret: part.secret.clone(), owner: part.owner.clone(), record };
        Ok(Some(Session { stored: Some(Arc::new(part)), ..session.clone() }))
    }
}

impl StoredPart {
    fn is_leased_at(&self, now: SystemTime) -> bool {
        self.record.renewing_until.is_some_and(|end| end > now)
    }
}

fn with_part(session: Session) -> Option<(Session, Arc<StoredPart>)> {
    let part = session.stored.clone()?;
    Some((session, part))
}

fn has_refresh_token(session: &Session, token: &Secret) -> bool {
    session.token.refresh_token().is_some_and(|own| own.expose() == token.expose())
}

/// Waits for about this long. Returns for how long.
async fn pause(mean: Duration) -> Duration {
    let pause = jittered(mean, 0.5);
    sleep(pause).await;
    pause
}
