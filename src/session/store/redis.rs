//! [`RedisSessions`]: sessions in Redis or Valkey.

use std::cmp::Reverse;
use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{
    MAX_LISTED, SessionId, SessionLabel, SessionSelector, SessionStore, StoredSession,
    from_milliseconds, to_milliseconds,
};
use crate::error::BoxError;
use crate::exchange::RedisCache;
use crate::exchange::cache::SharedEntries;
use crate::support::crypto;

/// The time for which an expired session stays, because the clocks of processes differ.
const LEEWAY: Duration = Duration::from_secs(60);

/// The number of ids with one label at which those of ended sessions are removed, and every multiple of it.
const TIDY_AT: u64 = 256;

/// The name of the entries, under the prefix of the cache.
const NAME: &str = "session";

/// A session store in Redis 6 or later, or Valkey (feature `redis`). Clones share the connection.
///
/// It uses the connection, the prefix and the write timeout (2 s) of a [`RedisCache`], which may cache tokens, too.
///
/// **Set up the server** so that it forgets no session: with `maxmemory-policy noeviction`, or enough memory. A session
/// that the server loses is like a sign-out: after a restart without persistence, an eviction, or a failover to a
/// replica that lags behind. With an older copy of the data, a session that was ended may be there again, until it
/// expires.
///
/// ```
/// use scaikey_auth::exchange::{RedisCache, SealingKeys};
/// use scaikey_auth::session::{RedisSessions, Sessions};
/// use scaikey_auth::{Auth, ConfigError, Secret, TokenExchangeClient};
///
/// /// `keys` is the output of `openssl rand -base64 32`, the same in all processes.
/// fn sessions(
///     auth: &Auth,
///     client: TokenExchangeClient,
///     keys: &Secret,
/// ) -> Result<Sessions, ConfigError> {
///     let redis = RedisCache::open(&"redis://:password@redis.internal:6379".into())?;
///     let store = RedisSessions::new(&redis.prefix("scaiwave"));
///     Sessions::builder(auth, client, SealingKeys::parse(keys)?).store(store).build()
/// }
/// ```
///
/// A session is a string under a key such as `scaiwave:-:session:0a1f…`, which expires a minute after the session. One
/// script compares the version and replaces it. Sorted sets under keys such as `scaiwave:-:session-of:77c0…` have the
/// ids of a user's sessions, or of those of one session of the provider. They may have ids of sessions that ended,
/// until the longest of these sessions would have expired, or the set has 256 ids. Each call concerns one key, so it
/// works in a cluster. For many sessions, up to 100 calls are made at the same time. Each has its own timeout, and
/// sessions that were removed stay removed if a later call fails.
///
/// Of more than 1000 sessions of a user, those are [listed](SessionStore::list) that can last longest.
#[derive(Clone)]
pub struct RedisSessions {
    entries: SharedEntries,
}

impl RedisSessions {
    /// Creates a store with the connection, prefix and timeout of this cache. Services that share a server need
    /// different [prefixes](RedisCache::prefix).
    pub fn new(redis: &RedisCache) -> Self {
        Self { entries: redis.entries(NAME) }
    }

    /// Returns up to 1000 sessions with this label, and maybe some more.
    async fn latest(
        &self,
        label: &SessionLabel,
        except: Option<&SessionId>,
    ) -> Result<Vec<StoredSession>, BoxError> {
        let (label, mut sessions, mut skip) = (label.to_string(), Vec::new(), 0);
        while sessions.len() < MAX_LISTED {
            let ids = self.entries.labelled(&label, skip).await?;
            if ids.is_empty() {
                break;
            }
            skip += ids.len();
            let ids =
                ids.into_iter().filter(|id| parse_id(id).is_some_and(|id| except != Some(&id)));
            for (id, value) in self.entries.read_all(ids.collect()).await? {
                sessions.extend(parse_id(&id).map(|id| decoded(id, &value)).transpose()?);
            }
        }
        Ok(sessions)
    }

    /// Removes the ids of ended sessions from those with this label, in the background. A failure is ignored: it is
    /// tried again when there are more ids.
    fn tidy(&self, label: String) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let entries = self.entries.clone();
        runtime.spawn(async move { drop(entries.remove_labels_without_entry(&label).await) });
    }
}

#[async_trait]
impl SessionStore for RedisSessions {
    async fn create(
        &self,
        session: StoredSession,
        labels: &[SessionLabel],
    ) -> Result<(), BoxError> {
        let id = session.id.to_string();
        let (now, ends_at) = (to_milliseconds(session.used_at), to_milliseconds(session.ends_at));
        let leeway = LEEWAY.as_millis() as u64;
        let (now, until) = (now.saturating_sub(leeway), ends_at.saturating_add(leeway));
        // First, so that an id with a label and without a session is that of a session that ended. If a label cannot be
        // written, the sign-in fails, so no browser can use the session.
        if !self.entries.insert(&id, &encode(&session)?, ttl(&session)).await? {
            return Err("there is a session with this id".into());
        }
        for label in labels {
            let label = label.to_string();
            if self.entries.label(&label, &id, now, until).await? % TIDY_AT == 0 {
                self.tidy(label);
            }
        }
        Ok(())
    }

    async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
        let value = self.entries.read(&id.to_string()).await?;
        value.map(|value| decoded(*id, &value)).transpose()
    }

    async fn replace(&self, session: StoredSession, version: u64) -> Result<bool, BoxError> {
        let id = session.id.to_string();
        let (version, value) = (version.to_be_bytes(), encode(&session)?);
        self.entries.replace(&id, version, &value, ttl(&session)).await
    }

    async fn remove(&self, id: &SessionId) -> Result<bool, BoxError> {
        self.entries.remove(&id.to_string()).await
    }

    async fn remove_where(&self, selector: &SessionSelector) -> Result<u64, BoxError> {
        let (mut removed, except) = (0, selector.excepted().map(ToString::to_string));
        for label in selector.labels() {
            let label = label.to_string();
            loop {
                let mut ids = self.entries.labelled(&label, 0).await?;
                ids.retain(|id| except.as_ref() != Some(id));
                if ids.is_empty() {
                    break;
                }
                removed += self.entries.remove_all(&ids).await?;
                self.entries.remove_labels(&label, &ids).await?;
            }
        }
        Ok(removed)
    }

    async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
        let mut sessions = Vec::new();
        for label in selector.labels() {
            sessions.extend(self.latest(label, selector.excepted()).await?);
        }
        sessions.sort_by_key(|session| (Reverse(session.started_at), session.id));
        sessions.dedup_by_key(|session| session.id);
        sessions.truncate(MAX_LISTED);
        Ok(sessions)
    }
}

/// Returns the time for which the server has the entry.
fn ttl(session: &StoredSession) -> Duration {
    session.expires_at.duration_since(session.used_at).unwrap_or_default() + LEEWAY
}

/// The number of eight-byte numbers before the value: the version, and five times.
const NUMBERS: usize = 6;

/// The length of the random bytes that each write has, between the numbers and the value. A write whose answer was lost
/// is repeated, and then succeeds if it is already there. Without them, two processes that write the same at the same
/// time, to take the same lease, would both succeed.
const FENCE: usize = 16;

fn encode(session: &StoredSession) -> Result<Vec<u8>, BoxError> {
    let StoredSession { version, started_at, used_at, expires_at, ends_at, .. } = session;
    let renewing_until = session.renewing_until.map_or(0, to_milliseconds);
    let [started_at, used_at, expires_at, ends_at] =
        [started_at, used_at, expires_at, ends_at].map(|at| to_milliseconds(*at));
    let numbers: [u64; NUMBERS] =
        [*version, started_at, used_at, expires_at, ends_at, renewing_until];
    let mut bytes = Vec::with_capacity(8 * NUMBERS + FENCE + session.value.len());
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
    bytes.extend_from_slice(&crypto::random::<FENCE>()?);
    bytes.extend_from_slice(&session.value);
    Ok(bytes)
}

fn decoded(id: SessionId, bytes: &[u8]) -> Result<StoredSession, BoxError> {
    decode(id, bytes).ok_or_else(|| format!("the session {id} in Redis is damaged").into())
}

fn decode(id: SessionId, mut bytes: &[u8]) -> Option<StoredSession> {
    let mut numbers = [0; NUMBERS];
    for number in &mut numbers {
        let (first, rest) = bytes.split_first_chunk()?;
        (*number, bytes) = (u64::from_be_bytes(*first), rest);
    }
    let [version, started_at, used_at, expires_at, ends_at, renewing_until] = numbers;
    let (_, value) = bytes.split_first_chunk::<FENCE>()?;
    let at: fn(u64) -> SystemTime = from_milliseconds;
    let mut session = StoredSession::new(id, value.to_vec(), at(started_at), at(ends_at));
    session.version = version;
    session.used_at = at(used_at);
    session.expires_at = at(expires_at);
    session.renewing_until = (renewing_until > 0).then(|| at(renewing_until));
    Some(session)
}

/// Checks that an entry that can be decoded is the same after it was encoded again.
#[cfg(feature = "testing")]
pub(in crate::session) fn check_redis_entry(bytes: &[u8]) {
    let decode = |bytes: &[u8]| decode(SessionId::from_bytes([7; 32]), bytes);
    if let Some(session) = decode(bytes) {
        let again = encode(&session).ok().and_then(|bytes| decode(&bytes));
        assert_eq!(again, Some(session));
    }
}

fn parse_id(text: &str) -> Option<SessionId> {
    let mut id = [0; 32];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(SessionId::from_bytes(id)).filter(|id| id.to_string() == text)
}

/// The output omits the URL, which may contain a password.
impl fmt::Debug for RedisSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessions").field("prefix", &self.entries.prefix()).finish()
    }
}
