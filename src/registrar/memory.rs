//! [`MemoryRegistrar`]: participants held in memory, and the worked example of a registrar.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{Entry, ParticipantId, Profile, Registrar, RegistrarError, Registration, WorkspaceId};
use crate::clock::{Clock, SystemClock, unix_seconds};
use crate::identity::{Identity, IdentityKey};

/// Participants in memory: gone when the process ends. Clones share them.
///
/// For tests and demonstrations. It forgets nobody while it lives, so it grows with everyone who
/// registers.
#[derive(Clone)]
pub struct MemoryRegistrar {
    known: Arc<Mutex<HashMap<IdentityKey, Participant>>>,
    clock: Arc<dyn Clock>,
}

struct Participant {
    registration: Registration,
    profile: Profile,
}

impl MemoryRegistrar {
    /// Nobody is registered.
    pub fn new() -> Self {
        Self { known: Arc::default(), clock: Arc::new(SystemClock::default()) }
    }

    /// Where `created_at` comes from. Default: [`SystemClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What a participant is shown as; `None` for an unknown one. Looks at all of them.
    pub fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        let known = self.known();
        let found = known.values().find(|p| p.registration.participant_id == *participant);
        found.map(|participant| participant.profile.clone())
    }

    /// A panic while the lock is held leaves the map whole, so poisoning carries no information.
    fn known(&self) -> MutexGuard<'_, HashMap<IdentityKey, Participant>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, profile: Profile) -> Result<Participant, RegistrarError> {
        let now = Duration::from_secs(unix_seconds(self.clock.now()));
        let created_at = SystemTime::UNIX_EPOCH + now;
        let (participant, workspace) = (ParticipantId::random()?, WorkspaceId::random()?);
        let registration = Registration::new(participant, workspace, created_at);
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
        let Entry { key, profile } = Entry::of(identity)?;
        // One lock over looking and creating: between two, somebody else would create as well.
        match self.known().entry(key) {
            Occupied(mut participant) => {
                participant.get_mut().profile.refresh(&profile);
                Ok(participant.get().registration.clone())
            }
            Vacant(place) => {
                let found = place.insert(self.create(profile)?).registration.clone();
                Ok(Registration { created: true, ..found })
            }
        }
    }
}

impl fmt::Debug for MemoryRegistrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegistrar").field("participants", &self.known().len()).finish()
    }
}
