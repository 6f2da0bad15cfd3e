//! The limit of the sessions of one user.

use super::{EndReason, StoredSessions, Whose};
use crate::error::AuthError;
use crate::identity::Identity;
use crate::session::Sessions;
use crate::session::store::{MAX_LISTED, SessionSelector};

/// The largest number of sessions of a user in one tenant. More than a person has; few enough that one account cannot
/// fill the store.
const MAX_SESSIONS: usize = 100;

impl Sessions {
    /// Ends the sessions that a user has too many, in the background: those used longest ago. If the store fails, the
    /// next sign-in tries again.
    pub(crate) fn end_surplus(&self, user: &Identity) {
        let Some(stored) = self.stored() else { return };
        let selector = Whose::of(user).selector(&self.0.keys, &**self.0.auth.clock());
        let Some(label) = selector.labels().first().copied() else { return };
        let sessions = self.clone();
        drop(stored.surplus.run(label, move || async move {
            if let Some(stored) = sessions.stored() {
                // The store has logged it.
                let _ = sessions.end_all_surplus(stored, &selector).await;
            }
        }));
    }

    async fn end_all_surplus(
        &self,
        stored: &StoredSessions,
        selector: &SessionSelector,
    ) -> Result<(), AuthError> {
        loop {
            let mut records = stored.store.list(selector).await?;
            let is_whole = records.len() < MAX_LISTED;
            let now = self.0.auth.now();
            records.retain(|record| record.expires_at > now);
            let Some(surplus) = records.len().checked_sub(MAX_SESSIONS) else { return Ok(()) };
            records.sort_by_key(|record| (record.used_at, record.started_at));
            let mut ended = 0;
            for record in records.iter().take(surplus) {
                if stored.store.remove(&record.id).await? {
                    ended += 1;
                    EndReason::Replaced.count();
                }
            }
            if is_whole || ended == 0 {
                return Ok(());
            }
        }
    }
}
