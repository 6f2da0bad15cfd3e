//! [`MemoryRegistrar`]: participants in memory, and an example of a registrar.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    ParticipantId, Profile, Registrar, RegistrarError, Registration, StorableIdentity, WorkspaceId,
};
use crate::clock::{Clock, SystemClock, unix_seconds};
use crate::identity::{Identity, IdentityKey};

/// A registrar in memory. Its participants are lost when the process ends. Clones share them. Each participant
/// has a workspace.
///
/// Use it for tests and demonstrations only, because its memory grows with each registration.
///
/// ```
/// use scaikey_auth::Auth;
/// use scaikey_auth::endpoints::Endpoint;
/// use scaikey_auth::registrar::MemoryRegistrar;
///
/// # fn main() -> Result<(), scaikey_auth::ConfigError> {
/// let auth = Auth::builder().issuer("https://id.example").audience("wave").build()?;
/// let participants = MemoryRegistrar::new();
/// let endpoints = auth.endpoints().registrar(participants.clone()).build()?;
/// assert!(endpoints.enabled().contains(&Endpoint::Register));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryRegistrar {
    participants: Arc<Mutex<HashMap<IdentityKey, Participant>>>,
    clock: Arc<dyn Clock>,
}

struct Participant {
    registration: Registration,
    profile: Profile,
}

impl MemoryRegistrar {
    /// Creates a registrar without participants.
    pub fn new() -> Self {
        Self { participants: Arc::default(), clock: Arc::new(SystemClock::default()) }
    }

    /// Sets the clock for `created_at`. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns a participant's profile, or `None` for an unknown participant. The cost is linear in the
    /// number of participants.
    pub fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        let participants = self.participants();
        let found = participants.values().find(|p| p.registration.participant_id == *participant);
        found.map(|participant| participant.profile.clone())
    }

    fn participants(&self) -> MutexGuard<'_, HashMap<IdentityKey, Participant>> {
        // A panic cannot leave the map half written, so poisoning is ignored.
        self.participants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, profile: Profile) -> Result<Participant, RegistrarError> {
        let now = Duration::from_secs(unix_seconds(self.clock.now()));
        let created_at = SystemTime::UNIX_EPOCH + now;
        let registration = Registration::new(ParticipantId::random()?, created_at)
            .with_workspace(WorkspaceId::random()?);
        Ok(Participant { registration, profile })
    }
}

impl Default for MemoryRegistrar {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Registrar for MemoryRegistrar {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        let StorableIdentity { key, profile } = StorableIdentity::new(identity)?;
        // The lock covers lookup and creation. Otherwise two callers could both create a participant.
        match self.participants().entry(key) {
            Occupied(mut participant) => {
                participant.get_mut().profile.update(&profile);
                Ok(participant.get().registration.clone())
            }
            Vacant(entry) => {
                let created = entry.insert(self.create(profile)?).registration.clone();
                Ok(Registration { created: true, ..created })
            }
        }
    }
}

impl fmt::Debug for MemoryRegistrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegistrar").field("participants", &self.participants().len()).finish()
    }
}
