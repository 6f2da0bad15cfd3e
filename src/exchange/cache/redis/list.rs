//! [`SharedList`]: an append-only list in Redis, for data that is not a token.

use std::sync::{Arc, LazyLock};

use redis::{Cmd, RedisResult, Value};

use super::RedisCache;
use super::commands::{AtomicScript, MAX_SINGLE_USE_VALUE, MAX_VALUE};
use super::server::Connection;
use super::shared_connection::{CallMode, SharedConnection};
use crate::clock::Clock;
use crate::error::BoxError;

/// The number of heads or bodies that one call returns, so that a call never blocks the server for long.
const PAGE: u64 = 100;

/// A list under one key, to which entries are only added (and [sealed again](SharedList::replace)). Each entry has a number, from 1, and two values: a
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
        let read = |connection| read_list(connection, key, from, count, offset, part.max_bytes());
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
        let append = |connection| append_to_list(connection, key, 2 * entries, last, [body, head]);
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
        let replace = |connection| replace_in_list(connection, key, index, old, new);
        Ok(self.connection.call(CallMode::Required, key, replace).await?)
    }
}

/// Returns the length of a list of pairs, and one value of up to `count` pairs, the last first: the `offset`th from the
/// end of each pair. Begins with the pair of the number `from`, or with the last one if there are fewer. The length is
/// -1 for a value that is not a list. A value above `max_bytes` is empty.
async fn read_list(
    mut connection: Connection,
    key: &str,
    from: u64,
    count: u64,
    offset: u8,
    max_bytes: usize,
) -> RedisResult<Vec<Value>> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(key).arg(from).arg(count).arg(offset).arg(max_bytes);
    };
    READ_LIST.run(&mut connection, fill).await
}

/// Appends two values to a list, if it has this length and this last value. Returns whether it did.
async fn append_to_list(
    mut connection: Connection,
    key: &str,
    length: u64,
    last: &[u8],
    [body, head]: [&[u8]; 2],
) -> RedisResult<bool> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(key).arg(length).arg(last).arg(body).arg(head);
    };
    APPEND_TO_LIST.run(&mut connection, fill).await
}

/// Replaces the value at this index of a list, if it is `old`. Returns whether it did.
async fn replace_in_list(
    mut connection: Connection,
    key: &str,
    index: u64,
    old: &[u8],
    new: &[u8],
) -> RedisResult<bool> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(key).arg(index).arg(old).arg(new);
    };
    REPLACE_IN_LIST.run(&mut connection, fill).await
}

// Selects values on the server, because LRANGE would also transfer the other value of each pair, and values of any
// size.
static READ_LIST: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "local kind = redis.call('TYPE', KEYS[1]).ok \
         if kind == 'none' then return {0} end \
         if kind ~= 'list' then return {-1} end \
         local length = redis.call('LLEN', KEYS[1]) \
         local from = math.min(tonumber(ARGV[1]), math.floor(length / 2)) \
         local answer = {length} \
         for number = from, math.max(from - tonumber(ARGV[2]) + 1, 1), -1 do \
           local value = redis.call('LINDEX', KEYS[1], 2 * number - tonumber(ARGV[3])) \
           if #value > tonumber(ARGV[4]) then value = '' end \
           answer[#answer + 1] = value \
         end \
         return answer",
    )
});

// Also succeeds if the value is already at the end, because a call whose answer was lost is repeated.
static APPEND_TO_LIST: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "local last = redis.call('LINDEX', KEYS[1], -1) \
         if last == ARGV[4] then return 1 end \
         if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) or (last or '') ~= ARGV[2] then \
           return 0 \
         end \
         redis.call('RPUSH', KEYS[1], ARGV[3], ARGV[4]) \
         return 1",
    )
});

static REPLACE_IN_LIST: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "if redis.call('LINDEX', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end \
         redis.call('LSET', KEYS[1], ARGV[1], ARGV[3]) \
         return 1",
    )
});
