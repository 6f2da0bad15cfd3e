//! [`RedisSessions`]: sessions in Redis or Valkey.

use std::cmp::Reverse;
use std::collections::BTreeSet;
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

/// The name of the entries, under the prefix of the cache.
const NAME: &str = "session";

/// A session store in Redis 6 or later, or Valkey (feature `redis`). Clones share the connection.
///
/// It uses the connection, the prefix and the write timeout (2 s) of a [`RedisCache`], which may cache tokens, too.
///
/// **Set up the server** so that it forgets no session: with `maxmemory-policy noeviction`, or enough memory. A session
/// that the server loses is like a sign-out: after a restart without persistence, an eviction, or a failover to a replica
/// that lags behind. With an older copy of the data, a session that was ended may be there again, until it expires.
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
/// script compares the version and replaces it. Sorted sets under keys such as `scaiwave:-:session-of:77c0…` have the ids
/// of a user's sessions, or of those of one session of the provider. They may have ids of sessions that ended, until the
/// longest of these sessions would have expired. Each call concerns one key, so it works in a cluster.
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

    async fn read(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
        let Some(bytes) = self.entries.read(&id.to_string()).await? else { return Ok(None) };
        let damaged = || format!("the session {id} in Redis is damaged");
        Ok(Some(decode(*id, &bytes).ok_or_else(damaged)?))
    }

    /// Returns the selected ids, some of which may have no session.
    async fn ids(&self, selector: &SessionSelector) -> Result<BTreeSet<String>, BoxError> {
        let mut ids = BTreeSet::new();
        for label in selector.labels() {
            ids.extend(self.entries.labelled(&label.to_string()).await?);
        }
        if let Some(id) = selector.excepted() {
            ids.remove(&id.to_string());
        }
        Ok(ids)
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
        // First, so that no session is without its labels.
        for label in labels {
            let (now, until) = (now.saturating_sub(leeway), ends_at.saturating_add(leeway));
            self.entries.label(&label.to_string(), &id, now, until).await?;
        }
        match self.entries.insert(&id, &encode(&session)?, ttl(&session)).await? {
            true => Ok(()),
            false => Err("there is a session with this id".into()),
        }
    }

    async fn load(&self, id: &SessionId) -> Result<Option<StoredSession>, BoxError> {
        self.read(id).await
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
        let mut removed = 0;
        for id in self.ids(selector).await? {
            // An id without a session may be that of a session that is just being created.
            if self.entries.remove(&id).await? {
                removed += 1;
                for label in selector.labels() {
                    self.entries.remove_label(&label.to_string(), &id).await?;
                }
            }
        }
        Ok(removed)
    }

    async fn list(&self, selector: &SessionSelector) -> Result<Vec<StoredSession>, BoxError> {
        let mut sessions = Vec::new();
        for id in self.ids(selector).await? {
            if let Some(id) = parse_id(&id) {
                sessions.extend(self.read(&id).await?);
            }
        }
        sessions.sort_by_key(|session| Reverse(session.started_at));
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
