//! [`RedisPolicies`]: the versions of a trust policy in Redis or Valkey.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::stored::StoredChange;
use super::{
    Appended, NewPolicyVersion, PolicyChange, PolicyStore, PolicyVersion, PolicyVersionId,
};
use crate::error::BoxError;
use crate::exchange::cache::{Part, SharedList};
use crate::exchange::{RedisCache, SealingKeys};
use crate::support::seal::{OpenError, Purpose};

/// A policy store in Redis 6 or later, or Valkey (features `redis` and `trust`). Clones share the connection.
///
/// Use it if the service has a Redis that keeps its data, and no database. Otherwise prefer
/// [`SqlPolicies`](super::SqlPolicies) or [`FilePolicies`](super::FilePolicies), which lose nothing when a server
/// restarts.
///
/// **Set up the server** so that it forgets nothing: persistence with an append-only file (`appendonly yes`), and
/// `maxmemory-policy noeviction`. A server without persistence is empty after a restart. A replica may lack the latest
/// version when it takes over; `min-replicas-to-write` limits how many. Redis accepts no version when it is full.
///
/// ```
/// use scaikey_auth::Secret;
/// use scaikey_auth::exchange::{RedisCache, SealingKeys};
/// use scaikey_auth::trust::RedisPolicies;
///
/// /// `keys` is the output of `openssl rand -base64 32`, the same in all processes.
/// fn policies(keys: &Secret) -> Result<RedisPolicies, Box<dyn std::error::Error>> {
///     let redis = RedisCache::open(&"redis://:password@redis.internal:6379".into())?;
///     Ok(RedisPolicies::new(&redis.prefix("scaivault"), SealingKeys::parse(keys)?))
/// }
/// # policies(&"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=".into()).unwrap();
/// ```
///
/// The versions are one list without an expiry, under a key such as `scaivault:-:trust-policy`. One script compares the
/// version in force and appends, so exactly one of several concurrent writers succeeds. To look for a new version, a
/// process reads the data of the latest one without its text.
///
/// Each version is sealed (AES-256-GCM) under the [`SealingKeys`], and bound to its number and to the key of the list.
/// So whoever can write to Redis, but does not have the keys, cannot write a policy, nor change or reorder versions, nor
/// copy them from another prefix. Use different keys in each environment, because a list that was copied from another
/// server under the same prefix and keys is valid. A version that cannot be opened is an error, and the policy that a
/// process has loaded stays in force.
///
/// *Not* protected: whoever can write to Redis can delete the list, or restore an older copy of it. A process does not
/// go back: [`latest`](PolicyStore::latest) is then an error, until the list has the versions that the process has
/// seen. To accept the older list, restart the processes, or [append](PolicyStore::append) a version to it. A process
/// that starts later trusts the list as it is.
///
/// A version's text has up to 1 MiB; its author and note together have up to 63 KiB.
///
/// The calls wait up to the [`write_timeout`](RedisCache::write_timeout) of the cache (2 s) for an answer.
#[derive(Clone)]
pub struct RedisPolicies {
    list: SharedList,
    keys: SealingKeys,
    /// The latest version that this process has seen.
    seen: Arc<Mutex<Option<PolicyVersionId>>>,
}

/// The name of the list, under the prefix of the cache.
const LIST: &str = "trust-policy";

/// Sealed versions do not expire.
const NEVER: u64 = u64::MAX;

/// The last version of the list.
struct Latest {
    entries: u64,
    /// The sealed change, or nothing if the list is empty.
    head: Vec<u8>,
    id: Option<PolicyVersionId>,
}

impl RedisPolicies {
    /// Creates a store with the connection, prefix, timeout and clock of this cache. Services that share a server need
    /// different [prefixes](RedisCache::prefix).
    pub fn new(redis: &RedisCache, keys: SealingKeys) -> Self {
        Self { list: redis.list(LIST), keys, seen: Arc::default() }
    }

    /// Seals all versions again under the first of the [`SealingKeys`], so that the other one can be removed. Call it
    /// in one process, when all processes have both keys. It may be repeated. The versions stay the same.
    ///
    /// # Errors
    /// A version cannot be opened, Redis failed, or another process sealed the versions at the same time. Some versions
    /// may have been sealed again: call this again before you remove a key.
    pub async fn reseal(&self) -> Result<(), BoxError> {
        let entries = self.list.read(Part::Head, u64::MAX, 0).await?.entries;
        for number in 1..=entries {
            for part in [Part::Head, Part::Body] {
                let page = self.list.read(part, number, 1).await?;
                let old = page.values.first().ok_or(EntryError::Changed(number))?;
                let new = self.seal(part, number, &self.open(part, number, old)?)?;
                if !self.list.replace(part, number, old, &new).await? {
                    return Err(EntryError::Changed(number).into());
                }
            }
        }
        Ok(())
    }

    async fn find_latest(&self) -> Result<Latest, BoxError> {
        let page = self.list.read(Part::Head, u64::MAX, 1).await?;
        let Some(head) = page.values.into_iter().next() else {
            return Ok(Latest { entries: 0, head: Vec::new(), id: None });
        };
        let id = self.open_change(page.entries, &head)?.id;
        Ok(Latest { entries: page.entries, head, id: Some(id) })
    }

    fn open_change(&self, number: u64, head: &[u8]) -> Result<PolicyChange, EntryError> {
        let json = self.open(Part::Head, number, head)?;
        let stored: Option<StoredChange> = serde_json::from_slice(&json).ok();
        let change = stored.and_then(|stored| PolicyChange::try_from(stored).ok());
        change.filter(|change| change.id.number() == number).ok_or(EntryError::Changed(number))
    }

    fn open(&self, part: Part, number: u64, sealed: &[u8]) -> Result<Vec<u8>, EntryError> {
        let name = self.entry_name(part, number);
        let opened = self.keys.open_bytes(Purpose::TrustPolicy, &name, sealed, self.list.clock());
        opened.map(|plain| plain.to_vec()).map_err(|error| match error {
            OpenError::Invalid => EntryError::Changed(number),
            OpenError::UnknownKey(id) => {
                EntryError::UnknownKey { number, id, known: format!("{:?}", self.keys) }
            }
        })
    }

    fn seal(&self, part: Part, number: u64, plain: &[u8]) -> Result<Vec<u8>, BoxError> {
        let name = self.entry_name(part, number);
        let clock = self.list.clock();
        let sealed = self.keys.seal_bytes(Purpose::TrustPolicy, &name, plain, NEVER, clock);
        let sealed = sealed.ok_or("the operating system cannot supply random bytes")?;
        match (sealed.len() <= part.max_bytes(), part) {
            (true, _) => Ok(sealed),
            (false, Part::Head) => {
                Err("the author and the note of the version are too long".into())
            }
            (false, Part::Body) => Err("the text of the policy is larger than 1 MiB".into()),
        }
    }

    /// Returns the name that a value is bound to.
    fn entry_name(&self, part: Part, number: u64) -> String {
        let part = match part {
            Part::Head => "change",
            Part::Body => "text",
        };
        format!("{}:{number}:{part}", self.list.key())
    }

    fn seen(&self) -> MutexGuard<'_, Option<PolicyVersionId>> {
        // A panic cannot leave the id half written, so poisoning is ignored.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl PolicyStore for RedisPolicies {
    fn kind(&self) -> &'static str {
        "redis"
    }

    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        // A version that another call sees meanwhile does not count.
        let before = self.seen().clone();
        let found = self.find_latest().await?.id;
        let number = |id: &Option<PolicyVersionId>| id.as_ref().map_or(0, PolicyVersionId::number);
        if number(&found) < number(&before)
            || (number(&found) == number(&before) && found != before)
        {
            return Err(EntryError::WentBack { seen: shown(&before), found: shown(&found) }.into());
        }
        let mut seen = self.seen();
        if number(&found) > number(&seen) {
            seen.clone_from(&found);
        }
        Ok(found)
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        let head = self.list.read(Part::Head, number, 1).await?;
        let Some(sealed) = head.values.first().filter(|_| number <= head.entries) else {
            return Ok(None);
        };
        let change = self.open_change(number, sealed)?;
        let body = self.list.read(Part::Body, number, 1).await?;
        let text = self.open(Part::Body, number, body.values.first().map_or(&[], |it| it))?;
        let text = String::from_utf8(text).ok().filter(|text| change.id.is_of(text));
        Ok(Some(PolicyVersion { text: text.ok_or(EntryError::Changed(number))?, change }))
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        let latest = self.find_latest().await?;
        if latest.id.as_ref() != expected {
            return Ok(Appended::Conflict(latest.id));
        }
        let number = latest.entries + 1;
        let PolicyVersion { change, text } = PolicyVersion::new(number, version);
        let id = change.id.clone();
        let json = serde_json::to_vec(&StoredChange::from(change))?;
        let head = self.seal(Part::Head, number, &json)?;
        let body = self.seal(Part::Body, number, text.as_bytes())?;
        if self.list.append(latest.entries, &latest.head, &head, &body).await? {
            *self.seen() = Some(id.clone());
            return Ok(Appended::Done(id));
        }
        Ok(Appended::Conflict(self.find_latest().await?.id))
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        let mut next = before.unwrap_or(u64::MAX).saturating_sub(1);
        let mut changes = Vec::new();
        while next > 0 && changes.len() < limit {
            let missing = (limit - changes.len()) as u64;
            let page = self.list.read(Part::Head, next, missing).await?;
            next = next.min(page.entries);
            if page.values.is_empty() {
                break;
            }
            for head in page.values {
                changes.push(match self.open_change(next, &head) {
                    Err(EntryError::Changed(number)) => PolicyChange::damaged(number),
                    opened => opened?,
                });
                next -= 1;
            }
        }
        Ok(changes)
    }
}

fn shown(id: &Option<PolicyVersionId>) -> String {
    id.as_ref().map_or_else(|| "an empty list".to_owned(), |id| format!("version {id}"))
}

/// The list in Redis is not what this crate wrote.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(
        "version {0} of the trust policy in Redis was changed, moved or copied from another list: restore the list"
    )]
    Changed(u64),
    #[error(
        "version {number} of the trust policy in Redis was sealed under the key {id}, which is none of the sealing \
         keys of this process ({known}): pass the keys of the process that wrote it"
    )]
    UnknownKey { number: u64, id: String, known: String },
    #[error(
        "the trust policy in Redis went back from {seen} to {found}: the list was deleted, or is an older copy; \
         restore it, or restart the processes to accept it"
    )]
    WentBack { seen: String, found: String },
}

/// The output omits the URL, which may contain a password.
impl fmt::Debug for RedisPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.seen().clone();
        f.debug_struct("RedisPolicies")
            .field("key", &self.list.key())
            .field("seen", &seen)
            .finish_non_exhaustive()
    }
}
