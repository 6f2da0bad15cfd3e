//! [`RedisRevocations`]: revocations in Redis or Valkey, shared by all processes of a service.

use std::fmt;

use async_trait::async_trait;

use super::RedisCache;
use super::stream::{MAX_ENTRY, SharedStream};
use crate::clock::unix_time;
use crate::error::BoxError;
use crate::exchange::SealingKeys;
use crate::revocation::{InvalidLogEntry, LogCursor, LogEntry, LogPage, RevocationLog};
use crate::support::seal::{OpenError, Purpose};

/// The name of the stream, under the prefix of the cache. It is the same for all who append and read.
const STREAM: &str = "revocations";

/// A log of revocations in Redis 6 or later, or Valkey, which all processes of a service share (feature `redis`).
/// Clones share the connection.
///
/// ```
/// use scaikey_auth::exchange::{RedisCache, RedisRevocations, SealingKeys};
/// use scaikey_auth::revocation::Revocations;
/// use scaikey_auth::{Auth, Secret};
///
/// /// `keys` is the output of `openssl rand -base64 32`, the same in all processes.
/// fn auth(keys: &Secret) -> Result<Auth, Box<dyn std::error::Error>> {
///     let redis = RedisCache::open(&"redis://:password@redis.internal:6379".into())?.prefix("docs");
///     let log = RedisRevocations::new(&redis, SealingKeys::parse(keys)?);
///     let revocations = Revocations::builder().log(log).build();
///     let auth = Auth::builder().issuer("https://scaikey.example").audience("docs");
///     Ok(auth.revocations(revocations).build()?)
/// }
/// # auth(&"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=".into()).unwrap();
/// ```
///
/// The log is one stream under a key such as `docs:-:revocations`. Each entry is sealed (AES-256-GCM) under the
/// [`SealingKeys`] and bound to this key, so a writer to Redis who does not have the keys can neither revoke
/// anything nor read who is revoked. An entry that cannot be opened is ignored, logged and counted
/// (`scaikey_auth_revocations_unreadable_total`). The order of the entries does not matter.
///
/// An entry is removed a minute after the end that its writer knows, never because there are many. If the stream is
/// lost, because the server restarted without persistence or removed it for lack of memory, each process notices that
/// when it reads next, and appends what is in force there. A process that starts before another one has done so does
/// not know what was lost. So configure persistence (`appendonly yes`), and `maxmemory-policy noeviction`. A full
/// server accepts no revocation: [`revoke`](crate::revocation::Revocations::revoke) fails. A replica that takes over
/// may lack the latest entries: the process that reads next notices it if it had read one of them.
///
/// *Not* protected: a writer to Redis can delete the stream or withhold entries. Processes append again what
/// they know.
///
/// A call waits up to the [`write_timeout`](RedisCache::write_timeout) of the cache (2 s) for an answer. Each process
/// reads [four times a second](crate::revocation::RevocationsBuilder::check_every).
#[derive(Clone)]
pub struct RedisRevocations {
    stream: SharedStream,
    keys: SealingKeys,
}

impl RedisRevocations {
    /// Creates a log with the connection, prefix, timeout and clock of this cache. Services with the same
    /// [prefix](RedisCache::prefix) share the log, so they need the same keys.
    pub fn new(redis: &RedisCache, keys: SealingKeys) -> Self {
        Self { stream: redis.stream(STREAM), keys }
    }

    fn open(&self, sealed: &[u8]) -> Result<LogEntry, InvalidLogEntry> {
        let (name, clock) = (self.stream.key(), self.stream.clock());
        let opened = self.keys.open_bytes(Purpose::Revocation, name, sealed, clock);
        let plain = opened.map_err(|error| match error {
            OpenError::Invalid => {
                InvalidLogEntry::new("was changed, or copied from another stream, or is forged")
            }
            OpenError::UnknownKey(id) => InvalidLogEntry::new(format!(
                "was sealed under the key {id}, which is none of the sealing keys of this process ({:?})",
                self.keys
            )),
        })?;
        LogEntry::from_bytes(&plain)
    }
}

#[async_trait]
impl RevocationLog for RedisRevocations {
    async fn append(&self, entry: &LogEntry) -> Result<LogCursor, BoxError> {
        let (name, clock, plain) = (self.stream.key(), self.stream.clock(), entry.to_bytes());
        let until = entry.until();
        let ends = (unix_time(until) * 1000.0) as u64;
        let sealed = self.keys.seal_bytes(Purpose::Revocation, name, &plain, ends, clock);
        let sealed = sealed.ok_or("the operating system cannot supply random bytes")?;
        if sealed.len() > MAX_ENTRY {
            return Err("the ids of the revocation are longer than 64 KiB".into());
        }
        self.stream.append(&sealed, until).await.map(LogCursor::new)
    }

    async fn read(&self, after: Option<&LogCursor>, limit: usize) -> Result<LogPage, BoxError> {
        let page = self.stream.read(after.map(LogCursor::as_str), limit).await?;
        let entries = page.entries.into_iter();
        let entries = entries.map(|(id, sealed)| (LogCursor::new(id), self.open(&sealed)));
        Ok(LogPage { entries: entries.collect(), was_reset: page.was_reset })
    }
}

/// The output omits the URL, which may contain a password.
impl fmt::Debug for RedisRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRevocations").field("key", &self.stream.key()).finish_non_exhaustive()
    }
}
