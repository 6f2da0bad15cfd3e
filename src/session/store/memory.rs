//! [`MemorySessions`]: sessions in the memory of one process.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::{MAX_LISTED, SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession};
use crate::error::BoxError;

/// The number of sessions from which on expired ones are removed.
const MIN_SWEEP: usize = 1024;

/// The largest number of sessions.
const MAX_SESSIONS: usize = 100_000;

/// A session store in memory, for tests and for services with one process. A restart ends all sessions. Clones share
/// the sessions.
///
/// A session needs about 2 kB and its tokens. Expired sessions are removed when the number of sessions has doubled. The
/// store has at most 100,000 sessions: when another starts, the one used longest ago ends, because a sign-in that fails
/// would be worse.
///
/// ```
/// use scaikey_auth::exchange::SealingKeys;
/// use scaikey_auth::session::{MemorySessions, Sessions};
/// use scaikey_auth::{Auth, ConfigError, TokenExchangeClient};
///
/// fn sessions(auth: &Auth, client: TokenExchangeClient) -> Result<Sessions, ConfigError> {
///     let keys = SealingKeys::random()?;
///     Sessions::builder(auth, client, keys).store(MemorySessions::new()).build()
/// }
/// ```
#[derive(Clone, Default)]
pub struct MemorySessions(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, (StoredSession, Vec<SessionLabel>)>,
    by_label: HashMap<SessionLabel, BTreeSet<SessionId>>,
    by_use: BTreeSet<(SystemTime, SessionId)>,
    /// The number of sessions at which expired ones are removed next.
    sweep_at: usize,
}

impl MemorySessions {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn create(&mut self, session: StoredSession, labels: &[SessionLabel]) -> Result<(), BoxError> {
        let id = session.id;
        if self.sessions.contains_key(&id) {
            return Err("there is a session with this id".into());
        }
        if self.sessions.len() >= self.sweep_at.max(MIN_SWEEP) {
            self.sweep(session.used_at);
        }
        while self.sessions.len() >= MAX_SESSIONS
            && let Some((_, oldest)) = self.by_use.first().copied()
        {
            self.remove(&oldest);
        }
        self.by_use.insert((session.used_at, id));
        for label in labels {
            self.by_label.entry(*label).or_default().insert(id);
        }
        self.sessions.insert(id, (session, labels.to_vec()));
        Ok(())
    }

    fn replace(&mut self, session: StoredSession, version: u64) -> bool {
        let found = self.sessions.get_mut(&session.id);
        let Some((found, _)) = found.filter(|(found, _)| found.version == version) else {
            return false;
        };
        self.by_use.remove(&(found.used_at, session.id));
        self.by_use.insert((session.used_at, session.id));
        *found = session;
        true
    }

    fn sweep(&mut self, now: SystemTime) {
        let expired = |(session, _): &&(StoredSession, _)| session.expires_at < now;
        let expired: Vec<_> =
            self.sessions.values().filter(expired).map(|(session, _)| session.id).collect();
        for id in &expired {
            self.remove(id);
        }
        self.sweep_at = 2 * self.sessions.len();
    }

    fn remove(&mut self, id: &SessionId) -> bool {
        let Some((session, labels)) = self.sessions.remove(id) else { return false };
        self.by_use.remove(&(session.used_at, *id));
        for label in labels {
            if let Some(ids) = self.by_label.get_mut(&label) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
        true
    }

    fn selected(&self, selector: &SessionSelector) -> BTreeSet<SessionId> {
        let labels = selector.labels().iter();
        let ids = labels.filter_map(|label| self.by_label.get(label)).flatten().copied();
        ids.filter(|id| selector.excepted() != Some(id)).collect()
    }
}

#[async_trait]
impl SessionStore for MemorySessions {
    async fn create(
        &self,
        session: StoredSession,
        labels: &[SessionLabel],
    ) -> Result<(), BoxError> {
        self.lock().create(session, labels)
    }

    async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
        Ok(self.lock().sessions.get(id).map(|(session, _)| session.clone()))
    }

    async fn replace(&self, session: StoredSession, version: u64) -> Result<bool, BoxError> {
        Ok(self.lock().replace(session, version))
    }

    async fn remove(&self, id: &SessionId) -> Result<bool, BoxError> {
        Ok(self.lock().remove(id))
    }

    async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, BoxError> {
        let mut state = self.lock();
        let selected = state.selected(selector);
        Ok(selected.iter().map(|id| u64::from(state.remove(id))).sum())
    }

    async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
        let state = self.lock();
        let selected = state.selected(selector);
        let sessions = selected.iter().filter_map(|id| state.sessions.get(id));
        let mut sessions: Vec<_> = sessions.map(|(session, _)| session.clone()).collect();
        sessions.sort_by_key(|session| std::cmp::Reverse(session.started_at));
        sessions.truncate(MAX_LISTED);
        Ok(sessions)
    }
}

impl fmt::Debug for MemorySessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySessions").field("sessions", &self.lock().sessions.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn id(nth: u64) -> SessionId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&nth.to_be_bytes());
        SessionId::from_bytes(id)
    }

    #[test]
    fn expired_sessions_are_swept() {
        let mut state = State::default();
        let label = SessionLabel::from_bytes([1; 32]);
        for nth in 0..10_000 {
            let session = StoredSession::new(id(nth), vec![0; 10], at(nth), at(nth + 100));
            state.create(session, &[label]).unwrap();
        }
        assert!(state.sessions.len() <= MIN_SWEEP, "{}", state.sessions.len());
        assert_eq!(state.by_label[&label].len(), state.sessions.len());
        assert_eq!(state.by_use.len(), state.sessions.len());
        assert!((9900..10_000).all(|nth| state.sessions.contains_key(&id(nth))));
    }

    #[test]
    fn session_used_longest_ago_ends() {
        let (mut state, max) = (State::default(), MAX_SESSIONS as u64);
        for nth in 0..max {
            let session = StoredSession::new(id(nth), Vec::new(), at(nth), at(10 * max));
            state.create(session, &[]).unwrap();
        }
        let mut used = state.sessions[&id(0)].0.clone();
        (used.version, used.used_at) = (2, at(max));
        assert!(state.replace(used, 1));
        for nth in max..max + 2 {
            let session = StoredSession::new(id(nth), Vec::new(), at(nth), at(10 * max));
            state.create(session, &[]).unwrap();
        }
        let (count, uses) = (state.sessions.len(), state.by_use.len());
        assert_eq!((count, uses), (MAX_SESSIONS, MAX_SESSIONS));
        let ended: Vec<_> =
            (0..max + 2).filter(|nth| !state.sessions.contains_key(&id(*nth))).collect();
        assert_eq!(ended, [1, 2]);
    }
}
