//! [`StoredSessions`]: sessions whose tokens are in a store. The browser has one small cookie.

mod endings;
#[cfg(feature = "testing")]
pub(crate) mod fuzz;
mod guarded;
mod layer;
mod owner;
mod renewal;
mod secret;
mod surplus;
mod tidying;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use super::content;
use super::cookie::CookieId;
use super::store::{
    SessionId, SessionLabel, SessionStore, StoredSession, to_milliseconds, whole_milliseconds,
};
use super::{Session, Sessions};
use crate::clock::Clock;
use crate::error::AuthError;
use crate::identity::Identity;
use crate::support::seal::Purpose;
use crate::support::single_flight::SingleFlight;
use crate::support::telemetry;
use guarded::GuardedStore;
use renewal::StoredRenewal;
pub(super) use secret::SessionSecret;

pub(crate) use endings::{EndReason, ListedSession};
pub(super) use layer::Loaded;
pub(crate) use layer::{OlderSessions, UnavailableSession};
pub(super) use owner::SessionOwner;
pub(crate) use owner::Whose;

/// Default time without a request after which a stored session ends.
pub(super) const DEFAULT_IDLE: Duration = Duration::from_secs(30 * 60);

/// The shortest idle limit, so that the pause between two writes is not too short.
pub(super) const MIN_IDLE: Duration = Duration::from_secs(60);

/// The pause after a write before another request writes that the session is in use. A write for each request would
/// cost the store as much as the service saves.
const TOUCH_PAUSE: Duration = Duration::from_secs(60);

/// The largest value of a session, in bytes.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// The store of sessions, and the work on it that concurrent requests share.
pub(super) struct StoredSessions {
    store: GuardedStore,
    idle: Duration,
    renewals: SingleFlight<SessionId, StoredRenewal>,
    touches: SingleFlight<SessionId, ()>,
    /// The limits of users' sessions that are being enforced, by the label of the user.
    surplus: SingleFlight<SessionLabel, ()>,
}

/// The part of a session that is in the store, as it was loaded, and the secret in its cookie.
#[derive(Debug)]
pub(super) struct StoredPart {
    secret: SessionSecret,
    record: StoredSession,
    owner: Arc<SessionOwner>,
}

/// A session that has just started.
pub(crate) struct Started {
    /// The cookies of the session.
    pub(crate) cookies: Vec<HeaderValue>,
    /// The session in the store, if there is one.
    pub(super) stored: Option<SessionId>,
}

impl StoredSessions {
    pub(super) fn new(store: Arc<dyn SessionStore>, idle: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            store: GuardedStore::new(store, clock),
            idle,
            renewals: SingleFlight::default(),
            touches: SingleFlight::default(),
            surplus: SingleFlight::default(),
        }
    }

    /// Returns the time from which on a session that is used now is not valid.
    fn expiry(&self, now: SystemTime, ends_at: SystemTime) -> SystemTime {
        now.checked_add(self.idle).map_or(ends_at, |idle| idle.min(ends_at))
    }

    fn touch_pause(&self) -> Duration {
        TOUCH_PAUSE.min(self.idle / 4)
    }
}

impl StoredPart {
    fn id(&self) -> SessionId {
        self.record.id
    }

    pub(super) fn owner(&self) -> &Arc<SessionOwner> {
        &self.owner
    }

    /// Returns the sealed owner and the sealed content.
    fn value(&self) -> Option<(&[u8], &[u8])> {
        split_value(&self.record.value)
    }
}

impl Sessions {
    /// Returns the store, if the sessions have one.
    pub(super) fn stored(&self) -> Option<&StoredSessions> {
        self.0.stored.as_ref()
    }

    /// Returns whether the server keeps the sessions, so that it can list and end them.
    pub(crate) fn has_store(&self) -> bool {
        self.0.stored.is_some()
    }

    /// Stores a new session. Returns `None` if its tokens are too large.
    pub(super) async fn start_stored(
        &self,
        stored: &StoredSessions,
        session: Session,
        user: &Identity,
    ) -> Result<Option<Started>, AuthError> {
        let clock = &**self.0.auth.clock();
        let secret = SessionSecret::random()
            .map_err(|error| AuthError::unavailable("random numbers", None, error))?;
        let owner = SessionOwner::new(user, &session.token);
        let provider = self.0.client.issuer();
        let labels = owner.labels(provider, &self.0.keys, clock);
        let ends_at = session.started_at + self.0.lifetime;
        let value = self
            .seal_owner(&secret, &owner, ends_at)
            .and_then(|owner| self.seal_value(&secret, &owner, &session));
        let Some(value) = value else { return Ok(None) };
        let mut record =
            StoredSession::new(secret.session_id(), value, session.started_at, ends_at);
        record.expires_at = whole_milliseconds(stored.expiry(record.used_at, record.ends_at));
        let id = record.id;
        let name = self.0.cookies.marker_value(&session.id, &secret.to_text(), self.0.lifetime);
        let Some(cookie) = name else { return Ok(None) };
        stored.store.create(record, &labels).await?;
        Ok(Some(Started { cookies: vec![cookie], stored: Some(id) }))
    }

    /// Loads the session with this cookie. Returns `None` if it ended, or if the cookie does not open it.
    async fn load_stored(
        &self,
        stored: &StoredSessions,
        secret: &SessionSecret,
        id: &CookieId,
    ) -> Result<Option<Session>, AuthError> {
        let record = stored.store.load(&secret.session_id()).await?;
        Ok(record.and_then(|record| self.open_record(stored, record, secret, id)))
    }

    fn open_record(
        &self,
        stored: &StoredSessions,
        record: StoredSession,
        secret: &SessionSecret,
        id: &CookieId,
    ) -> Option<Session> {
        let clock = &**self.0.auth.clock();
        let now = clock.now();
        // The limit may have become shorter since the last write.
        if now >= record.expires_at || now >= stored.expiry(record.used_at, record.ends_at) {
            return None;
        }
        let (_, sealed) = split_value(&record.value)?;
        let purpose = Purpose::StoredSession(secret.key());
        let opened = self.0.keys.open_bytes(purpose, &record.id.to_string(), sealed, clock);
        let plain = opened.inspect_err(|_| telemetry::stored_session_not_opened()).ok()?;
        let content = content::from_bytes(&plain, clock)?;
        // A session that cannot be judged is none.
        let owner = Arc::new(self.owner_of_record(&record)?);
        let age = now.duration_since(content.started_at).unwrap_or_default();
        (age < self.0.lifetime).then(|| Session {
            token: content.token,
            started_at: content.started_at,
            id: id.clone(),
            user: content.user,
            stored: Some(Arc::new(StoredPart { secret: secret.clone(), record, owner })),
        })
    }

    /// Seals the owner under the keys of the server alone.
    fn seal_owner(
        &self,
        secret: &SessionSecret,
        owner: &SessionOwner,
        ends_at: SystemTime,
    ) -> Option<Vec<u8>> {
        let plain = serde_json::to_vec(owner).ok()?;
        let (name, ends_at) = (secret.session_id().to_string(), to_milliseconds(ends_at));
        let clock = &**self.0.auth.clock();
        self.0.keys.seal_bytes(Purpose::SessionOwner, &name, &plain, ends_at, clock)
    }

    /// Returns the owner of a session, if this process has the key.
    fn owner_of_record(&self, record: &StoredSession) -> Option<SessionOwner> {
        let (sealed, _) = split_value(&record.value)?;
        let clock = &**self.0.auth.clock();
        let name = record.id.to_string();
        let plain = self.0.keys.open_bytes(Purpose::SessionOwner, &name, sealed, clock).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// Seals the tokens under the key in the cookie, and puts the sealed owner before them. Returns `None` if the value
    /// is too large.
    fn seal_value(
        &self,
        secret: &SessionSecret,
        owner: &[u8],
        session: &Session,
    ) -> Option<Vec<u8>> {
        let clock = &**self.0.auth.clock();
        let tokens = session.token.to_bytes_with_id_token(clock);
        let plain = content::to_bytes(session.started_at, session.user, tokens);
        let ends_at = to_milliseconds(session.started_at.checked_add(self.0.lifetime)?);
        let (purpose, name) =
            (Purpose::StoredSession(secret.key()), secret.session_id().to_string());
        let sealed = self.0.keys.seal_bytes(purpose, &name, &plain, ends_at, clock)?;
        let value = join_value(owner, &sealed)?;
        if value.len() > MAX_VALUE_BYTES {
            telemetry::stored_session_too_large(value.len());
            return None;
        }
        Some(value)
    }

    /// Returns whether the store takes the tokens of this session.
    pub(super) fn fits_into_store(&self, part: &StoredPart, session: &Session) -> bool {
        let owner = part.value().map(|(owner, _)| owner);
        owner.and_then(|owner| self.seal_value(&part.secret, owner, session)).is_some()
    }

    /// Returns the next version of a session, which is used now.
    fn next_record(&self, stored: &StoredSessions, record: &StoredSession) -> StoredSession {
        let now = whole_milliseconds(self.0.auth.now()).max(record.used_at);
        StoredSession {
            version: record.version.saturating_add(1),
            used_at: now,
            expires_at: whole_milliseconds(stored.expiry(now, record.ends_at)),
            ..record.clone()
        }
    }

    /// Writes that the session is in use, unless another request did so a short time ago. If the store fails, the next
    /// request tries again.
    async fn touch(&self, stored: &StoredSessions, part: &Arc<StoredPart>) {
        let now = self.0.auth.now();
        let age = now.duration_since(part.record.used_at).unwrap_or_default();
        if age < stored.touch_pause() || part.record.renewing_until.is_some_and(|end| end > now) {
            return;
        }
        let (sessions, part) = (self.clone(), part.clone());
        let touch = stored.touches.run(part.id(), move || async move {
            if let Some(stored) = sessions.stored() {
                let record = sessions.next_record(stored, &part.record);
                // Another version means that another process has written it.
                let _ = stored.store.replace(record, part.record.version).await;
            }
        });
        touch.wait().await;
    }
}

/// Returns the value that [`split_value`] splits.
fn join_value(owner: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(owner.len()).ok()?.to_be_bytes();
    Some([&length[..], owner, content].concat())
}

fn split_value(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = value.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

impl fmt::Debug for StoredSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSessions")
            .field("store", &self.store)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}
