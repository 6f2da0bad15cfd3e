//! [`SharedEntries`]: entries with versions and labels in Redis, for data that is not a token.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult, cmd};
use tokio::task::JoinSet;

use super::RedisCache;
use super::commands::{self, AtomicScript, Entry, MAX_SINGLE_USE_VALUE, milliseconds};
use super::server::Connection;
use super::shared_connection::{CallMode, SharedConnection};
use crate::error::BoxError;

/// The length of the version at the start of a value.
pub(crate) const VERSION_BYTES: usize = 8;

/// The number of calls about many ids that are made at the same time.
const PARALLEL: usize = 100;

/// The number of ids that one call returns, so that a call never blocks the server for long.
const PAGE: usize = 1000;

/// Entries under one key each, which begin with a version of 8 bytes. Sets of their ids, one for each label, are under
/// other keys, so in a cluster they may be on other nodes. It uses the connection of a cache, and like its single-use
/// keys it waits for an answer.
#[derive(Clone)]
pub(crate) struct SharedEntries {
    connection: Arc<SharedConnection>,
    prefix: String,
}

impl RedisCache {
    /// Returns the entries of this name, under the prefix of the cache.
    pub(crate) fn entries(&self, name: &str) -> SharedEntries {
        let prefix = format!("{}:-:{name}", self.connection.settings.prefix);
        SharedEntries { connection: self.connection.clone(), prefix }
    }
}

impl SharedEntries {
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn key(&self, id: &str) -> String {
        format!("{}:{id}", self.prefix)
    }

    fn label_key(&self, label: &str) -> String {
        format!("{}-of:{label}", self.prefix)
    }

    /// Reads an entry.
    pub(crate) async fn read(&self, id: &str) -> Result<Option<Vec<u8>>, BoxError> {
        let key = self.key(id);
        let read = |connection| commands::get(connection, &key, MAX_SINGLE_USE_VALUE);
        match self.connection.call(CallMode::Required, &key, read).await? {
            Entry::Missing => Ok(None),
            Entry::Value(value) => Ok(Some(value)),
            Entry::Invalid => {
                Err(format!("the Redis key {key} was written by another program").into())
            }
        }
    }

    /// Adds an entry. Returns whether it did: `false` if there is another one.
    pub(crate) async fn insert(
        &self,
        id: &str,
        value: &[u8],
        ttl: Duration,
    ) -> Result<bool, BoxError> {
        let key = self.key(id);
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(&key).arg(value).arg(milliseconds(ttl));
        };
        let insert = |connection| run(&INSERT, connection, fill);
        Ok(self.connection.call(CallMode::Required, &key, insert).await?)
    }

    /// Replaces an entry, if its value begins with `version`. Returns whether it did.
    pub(crate) async fn replace(
        &self,
        id: &str,
        version: [u8; VERSION_BYTES],
        value: &[u8],
        ttl: Duration,
    ) -> Result<bool, BoxError> {
        let key = self.key(id);
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(&key).arg(&version[..]).arg(value).arg(milliseconds(ttl));
        };
        let replace = |connection| run(&REPLACE, connection, fill);
        Ok(self.connection.call(CallMode::Required, &key, replace).await?)
    }

    /// Removes an entry. Returns whether it was there.
    pub(crate) async fn remove(&self, id: &str) -> Result<bool, BoxError> {
        let key = self.key(id);
        let remove = |connection| delete(connection, &key);
        Ok(self.connection.call(CallMode::Required, &key, remove).await?)
    }

    /// Reads the entries with these ids. Those that are not there are left out.
    pub(crate) async fn read_all(
        &self,
        ids: Vec<String>,
    ) -> Result<Vec<(String, Vec<u8>)>, BoxError> {
        let read = |entries: Self, id: String| async move {
            Ok(entries.read(&id).await?.map(|value| (id, value)))
        };
        self.each(&ids, read).await
    }

    /// Removes the entries with these ids. Returns the number of those that were there.
    pub(crate) async fn remove_all(&self, ids: &[String]) -> Result<u64, BoxError> {
        let remove =
            |entries: Self, id: String| async move { Ok(entries.remove(&id).await?.then_some(())) };
        Ok(self.each(ids, remove).await?.len() as u64)
    }

    /// Makes a call for each id, and returns the values that are there. Each call concerns one key, as a cluster needs,
    /// and has its own timeout.
    async fn each<T, F>(
        &self,
        ids: &[String],
        call: impl Fn(Self, String) -> F,
    ) -> Result<Vec<T>, BoxError>
    where
        T: Send + 'static,
        F: Future<Output = Result<Option<T>, BoxError>> + Send + 'static,
    {
        let mut values = Vec::new();
        for ids in ids.chunks(PARALLEL) {
            let calls = ids.iter().map(|id| call(self.clone(), id.clone()));
            let mut calls: JoinSet<_> = calls.collect();
            while let Some(value) = calls.join_next().await {
                values.extend(value??);
            }
        }
        Ok(values)
    }

    /// Adds an id to the ids with this label until the time `until`. Removes those whose time has passed at `now`. Both
    /// are in milliseconds since 1970. Returns the number of ids with this label.
    pub(crate) async fn label(
        &self,
        label: &str,
        id: &str,
        now: u64,
        until: u64,
    ) -> Result<u64, BoxError> {
        let key = self.label_key(label);
        let ttl = milliseconds(Duration::from_millis(until.saturating_sub(now)));
        let fill = |command: &mut Cmd| {
            command.arg(1).arg(&key).arg(now).arg(until).arg(id).arg(ttl);
        };
        let add = |connection| run(&ADD_LABEL, connection, fill);
        Ok(self.connection.call(CallMode::Required, &key, add).await?)
    }

    /// Returns up to 1000 ids with this label after the first `skip`, those with the latest time first. Some of them
    /// may have no entry.
    pub(crate) async fn labelled(&self, label: &str, skip: usize) -> Result<Vec<String>, BoxError> {
        let key = self.label_key(label);
        let members = |connection| members(connection, &key, skip);
        Ok(self.connection.call(CallMode::Required, &key, members).await?)
    }

    /// Removes ids from those with this label.
    pub(crate) async fn remove_labels(&self, label: &str, ids: &[String]) -> Result<(), BoxError> {
        let key = self.label_key(label);
        let remove = |connection| remove_members(connection, &key, ids);
        Ok(self.connection.call(CallMode::Required, &key, remove).await?)
    }

    /// Removes the ids without an entry from those with this label.
    pub(crate) async fn remove_labels_without_entry(&self, label: &str) -> Result<(), BoxError> {
        let missing = |entries: Self, id: String| async move {
            Ok((!entries.exists(&id).await?).then_some(id))
        };
        let mut skip = 0;
        loop {
            let ids = self.labelled(label, skip).await?;
            let missing = self.each(&ids, missing).await?;
            skip += ids.len() - missing.len();
            if !missing.is_empty() {
                self.remove_labels(label, &missing).await?;
            }
            if ids.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn exists(&self, id: &str) -> Result<bool, BoxError> {
        let key = self.key(id);
        let exists = |connection| exists(connection, &key);
        Ok(self.connection.call(CallMode::Required, &key, exists).await?)
    }
}

async fn run<T: FromRedisValue>(
    script: &LazyLock<AtomicScript>,
    mut connection: Connection,
    fill: impl Fn(&mut Cmd),
) -> RedisResult<T> {
    script.run(&mut connection, fill).await
}

async fn delete(mut connection: Connection, key: &str) -> RedisResult<bool> {
    connection.query(cmd("DEL").arg(key)).await
}

async fn exists(mut connection: Connection, key: &str) -> RedisResult<bool> {
    connection.query(cmd("EXISTS").arg(key)).await
}

async fn members(mut connection: Connection, key: &str, skip: usize) -> RedisResult<Vec<String>> {
    connection.query(cmd("ZREVRANGE").arg(key).arg(skip).arg(skip + PAGE - 1)).await
}

async fn remove_members(mut connection: Connection, key: &str, ids: &[String]) -> RedisResult<()> {
    connection.query(cmd("ZREM").arg(key).arg(ids)).await
}

// Also succeeds if the value is already there, because a call whose answer was lost is repeated.
static INSERT: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
         if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end \
         return 0",
    )
});

// Also succeeds if the value is already there.
static REPLACE: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "local version = redis.call('GETRANGE', KEYS[1], 0, 7) \
         if version == ARGV[1] then \
           redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
           return 1 \
         end \
         if version ~= '' and redis.call('GET', KEYS[1]) == ARGV[2] then return 1 end \
         return 0",
    )
});

// The set lives as long as the last of its ids.
static ADD_LABEL: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1]) \
         redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3]) \
         if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then \
           redis.call('PEXPIRE', KEYS[1], ARGV[4]) \
         end \
         return redis.call('ZCARD', KEYS[1])",
    )
});
