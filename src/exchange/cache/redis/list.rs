//! [`SharedList`]: an append-only list in Redis, for data that is not a token.

use std::sync::Arc;

use redis::Value;

use super::RedisCache;
use super::commands::{self, MAX_SINGLE_USE_VALUE, MAX_VALUE};
use super::shared_connection::{CallMode, SharedConnection};
use crate::clock::Clock;
use crate::error::BoxError;

/// The number of heads or bodies that one call returns, so that a call never blocks the server for long.
const PAGE: u64 = 100;

/// A list under one key that is never changed, except at its end. Each entry has a number, from 1, and two values: a
/// small head, and a body. It uses the connection of a cache, and like its single-use keys it waits for an answer.
#[derive(Clone)]
pub(crate) struct SharedList {
    connection: Arc<SharedConnection>,
    key: String,
}

/// One of the two values of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Head,
    Body,
}

impl Part {
    /// Returns the place of the value, counted from the end of its entry.
    fn offset(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Body => 2,
        }
    }

    /// The largest value, in bytes.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Head => MAX_VALUE,
            Self::Body => MAX_SINGLE_USE_VALUE,
        }
    }
}

/// The number of entries, and the values of some of them, newest first.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: u64,
    /// A value that is larger than this crate writes is empty.
    pub(crate) values: Vec<Vec<u8>>,
}

impl RedisCache {
    /// Returns the list of this name, under the prefix of the cache.
    pub(crate) fn list(&self, name: &str) -> SharedList {
        let key = format!("{}:-:{name}", self.connection.settings.prefix);
        SharedList { connection: self.connection.clone(), key }
    }
}

impl SharedList {
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.connection.settings.clock
    }

    /// Returns one part of up to `count` entries, at most 100. Begins with number `from`, or with the last entry if
    /// there are fewer.
    pub(crate) async fn read(&self, part: Part, from: u64, count: u64) -> Result<Page, BoxError> {
        let (key, count, offset) = (self.key.as_str(), count.min(PAGE), part.offset());
        let read = |connection| {
            commands::read_list(connection, key, from, count, offset, part.max_bytes())
        };
        let answer = self.connection.call(CallMode::Required, key, read).await?;
        let mut values = answer.into_iter();
        let Some(Value::Int(length @ 0..)) = values.next() else {
            return Err(
                format!("the Redis key {key} is not a list: another program wrote it").into()
            );
        };
        if length % 2 != 0 {
            return Err(
                format!("the Redis list {key} is damaged: half of an entry is missing").into()
            );
        }
        let values = values.map(|value| match value {
            Value::BulkString(value) => value,
            _ => Vec::new(),
        });
        Ok(Page { entries: length.unsigned_abs() / 2, values: values.collect() })
    }

    /// Appends an entry, if the list still has `entries` entries, and ends with the head `last`. Returns whether it
    /// did. Both values reach the list, or none.
    pub(crate) async fn append(
        &self,
        entries: u64,
        last: &[u8],
        head: &[u8],
        body: &[u8],
    ) -> Result<bool, BoxError> {
        let key = self.key.as_str();
        let append =
            |connection| commands::append_to_list(connection, key, 2 * entries, last, [body, head]);
        Ok(self.connection.call(CallMode::Required, key, append).await?)
    }
    /// Replaces a value, if it is `old`. Returns whether it did.
    pub(crate) async fn replace(
        &self,
        part: Part,
        number: u64,
        old: &[u8],
        new: &[u8],
    ) -> Result<bool, BoxError> {
        let (key, index) = (self.key.as_str(), 2 * number - u64::from(part.offset()));
        let replace = |connection| commands::replace_in_list(connection, key, index, old, new);
        Ok(self.connection.call(CallMode::Required, key, replace).await?)
    }
}
