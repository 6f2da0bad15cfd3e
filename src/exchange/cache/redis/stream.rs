//! [`SharedStream`]: a stream in Redis, for entries that are removed after their end.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use redis::{Cmd, RedisResult, Value};

use super::RedisCache;
use super::commands::{AtomicScript, MAX_VALUE};
use super::server::Connection;
use super::shared_connection::{CallMode, SharedConnection};
use crate::clock::{Clock, unix_time};
use crate::error::BoxError;

/// The largest value of an entry, in bytes.
pub(super) const MAX_ENTRY: usize = MAX_VALUE;

/// The number of entries that one call returns at most, so that a call never blocks the server for long.
const MAX_PAGE: usize = 500;

/// The number of entries that are looked at for removal when one is appended.
const TRIM: usize = 16;

/// The time for which an entry is stored after its end, in milliseconds, because the clocks of processes differ.
const MARGIN: u64 = 60_000;

/// How far ahead of the server's clock an id may be, in seconds. Ids are times, and none is below the last one, so an
/// attacker who adds an entry of the far future would make the next ids times of the future, or stop the stream.
const MAX_AHEAD: u64 = 3600;

/// The beginning of a stream.
const START: &str = "-";

/// A stream under one key, of values with an end. It uses the connection of a cache, and like its single-use keys it
/// waits for an answer.
#[derive(Clone)]
pub(super) struct SharedStream {
    connection: Arc<SharedConnection>,
    key: String,
    /// The id of the entry from which on others are looked at for removal.
    trim_from: Arc<Mutex<String>>,
}

/// Some entries of a stream, oldest first.
#[derive(Debug, Default)]
pub(super) struct StreamPage {
    /// Whether the stream lacks the entry at the cursor, so that it begins at the first entry.
    pub(super) was_reset: bool,
    /// The ids and values. A value that is larger than this crate writes is empty.
    pub(super) entries: Vec<(String, Vec<u8>)>,
}

impl RedisCache {
    /// Returns the stream of this name, under the prefix of the cache.
    pub(super) fn stream(&self, name: &str) -> SharedStream {
        let key = format!("{}:-:{name}", self.connection.settings.prefix);
        SharedStream {
            connection: self.connection.clone(),
            key,
            trim_from: Arc::new(Mutex::new(START.to_owned())),
        }
    }
}

impl SharedStream {
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.connection.settings.clock
    }

    /// Appends a value, and returns its id. Removes some values that have ended before, but none without a successor
    /// that is older than a minute, because a reader looks for the one that it has seen last. Entries of the far future
    /// are stored again with ids of now.
    pub(super) async fn append(&self, value: &[u8], until: SystemTime) -> Result<String, BoxError> {
        let key = self.key.as_str();
        let milliseconds = |at| (unix_time(at) * 1000.0) as u64;
        let removable = milliseconds(self.clock().now()).saturating_sub(MARGIN);
        let from = self.trim_from.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let append = |connection| {
            append_to_stream(connection, key, value, milliseconds(until), &from, removable)
        };
        let (id, next) = self.connection.call(CallMode::Required, key, append).await?;
        *self.trim_from.lock().unwrap_or_else(PoisonError::into_inner) = next;
        if id.is_empty() { Err(self.not_a_stream()) } else { Ok(id) }
    }

    /// Returns up to `limit` entries after the one with this id, or from the beginning.
    pub(super) async fn read(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<StreamPage, BoxError> {
        let key = self.key.as_str();
        let (after, mut missing) = (after.unwrap_or_default(), limit);
        let mut page = StreamPage::default();
        while missing > 0 {
            let count = missing.min(MAX_PAGE);
            let after = page.entries.last().map_or(after, |(id, _)| id);
            let read = |connection| read_stream(connection, key, after, count);
            let answer = self.connection.call(CallMode::Required, key, read).await?;
            let found = self.page(answer)?;
            let is_last = found.entries.len() < count;
            missing -= found.entries.len();
            if found.was_reset && !page.entries.is_empty() {
                return Err(format!("the Redis stream {key} was lost while it was read").into());
            }
            page.was_reset |= found.was_reset;
            page.entries.extend(found.entries);
            if is_last {
                break;
            }
        }
        Ok(page)
    }

    fn page(&self, answer: Vec<Value>) -> Result<StreamPage, BoxError> {
        let mut answer = answer.into_iter();
        let Some(Value::Int(was_reset @ 0..=1)) = answer.next() else {
            return Err(self.not_a_stream());
        };
        let mut page = StreamPage { was_reset: was_reset == 1, entries: Vec::new() };
        while let (Some(Value::BulkString(id)), Some(Value::BulkString(value))) =
            (answer.next(), answer.next())
        {
            page.entries.push((String::from_utf8(id)?, value));
        }
        Ok(page)
    }

    fn not_a_stream(&self) -> BoxError {
        format!("the Redis key {} is not a stream: another program wrote it", self.key).into()
    }
}

/// Appends an entry. Returns its id, and the id from which on the next call looks for ended entries. The first is empty
/// if the key has a value that is not a stream.
async fn append_to_stream(
    mut connection: Connection,
    key: &str,
    value: &[u8],
    until: u64,
    trim_from: &str,
    removable: u64,
) -> RedisResult<(String, String)> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(key).arg(value).arg(until).arg(trim_from).arg(removable).arg(TRIM);
        command.arg(MAX_AHEAD).arg(MAX_ENTRY);
    };
    APPEND_TO_STREAM.run(&mut connection, fill).await
}

/// Returns whether the entry `after` is missing (0 or 1), and ids and values of up to `count` entries. The first is -1
/// if the key has a value that is not a stream.
async fn read_stream(
    mut connection: Connection,
    key: &str,
    after: &str,
    count: usize,
) -> RedisResult<Vec<Value>> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(key).arg(after).arg(count).arg(MAX_ENTRY);
    };
    READ_STREAM.run(&mut connection, fill).await
}

// An entry without an end is none of this crate's, so it is removed. An ended entry stays for a minute after the next
// one was appended, because it is the cursor of each reader that has not read the next one yet.
//
// If the last id of the stream is in the far future, all entries from there on are removed, and the first thousand of
// them stored again: an honest one may be among them. A reader whose cursor was one of them reads all again. Some
// servers do not set the last id back: then the whole stream is written anew. A server without memory fails before
// that.
static APPEND_TO_STREAM: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "local key = KEYS[1] \
         local kind = redis.call('TYPE', key).ok \
         if kind ~= 'none' and kind ~= 'stream' then return {'', '-'} end \
         local function parts(entry) \
           local value, ends \
           for i = 1, #entry[2] - 1, 2 do \
             if entry[2][i] == 'entry' then value = entry[2][i + 1] end \
             if entry[2][i] == 'until' then ends = entry[2][i + 1] end \
           end \
           return value, ends \
         end \
         local count = tonumber(ARGV[5]) \
         local next = '-' \
         if kind == 'stream' then \
           local entries = redis.call('XRANGE', key, ARGV[3], '+', 'COUNT', count) \
           for n = 1, #entries - 1 do \
             local _, ends = parts(entries[n]) \
             local after = tonumber(string.match(entries[n + 1][1], '^%d+')) \
             if (tonumber(ends) or 0) < tonumber(ARGV[4]) and after < tonumber(ARGV[4]) then \
               redis.call('XDEL', key, entries[n][1]) \
             end \
           end \
           if #entries == count then next = entries[count][1] end \
         end \
         local function add(id, value, ends) \
           return redis.pcall('XADD', key, id, 'entry', value, 'until', ends) \
         end \
         local id = add('*', ARGV[1], ARGV[2]) \
         if type(id) == 'table' and not string.find(id.err, 'exhausted') then return id end \
         local first = (tonumber(redis.call('TIME')[1]) + tonumber(ARGV[6])) * 1000 \
         local info = redis.call('XINFO', 'STREAM', key) \
         local last = 0 \
         for i = 1, #info - 1, 2 do \
           if info[i] == 'last-generated-id' then \
             last = tonumber(string.match(info[i + 1], '^%d+')) \
           end \
         end \
         if last < first then return {id, next} end \
         first = string.format('%.0f', first) \
         local found = redis.call('XRANGE', key, first, '+', 'COUNT', 1000) \
         local moved = found \
         while #found > 0 do \
           for n = 1, #found do redis.call('XDEL', key, found[n][1]) end \
           found = redis.call('XRANGE', key, first, '+', 'COUNT', 1000) \
         end \
         local top = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1] \
         if redis.pcall('XSETID', key, top and top[1] or '0-1').err then \
           local rest = redis.call('XRANGE', key, '-', '+') \
           redis.call('DEL', key) \
           for n = 1, #rest do \
             local value, ends = parts(rest[n]) \
             if value and ends then add(rest[n][1], value, ends) end \
           end \
         end \
         for n = 1, #moved do \
           local value, ends = parts(moved[n]) \
           if moved[n][1] ~= id and value and ends and #value <= tonumber(ARGV[7]) then \
             add('*', value, ends) \
           end \
         end \
         id = add('*', ARGV[1], ARGV[2]) \
         if type(id) == 'table' then return id end \
         return {id, '-'}",
    )
});

// XREAD, because exclusive ranges need Redis 6.2.
static READ_STREAM: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "local kind = redis.call('TYPE', KEYS[1]).ok \
         local after = ARGV[1] \
         local answer = {0} \
         if kind == 'none' then \
           if after ~= '' then answer[1] = 1 end \
           return answer \
         end \
         if kind ~= 'stream' then return {-1} end \
         if after ~= '' and #redis.call('XRANGE', KEYS[1], after, after) == 0 then \
           answer[1] = 1 \
           after = '' \
         end \
         if after == '' then after = '0-0' end \
         local streams = redis.call('XREAD', 'COUNT', ARGV[2], 'STREAMS', KEYS[1], after) \
         if not streams then return answer end \
         for _, entry in ipairs(streams[1][2]) do \
           local value = '' \
           for i = 1, #entry[2] - 1, 2 do \
             if entry[2][i] == 'entry' then value = entry[2][i + 1] end \
           end \
           if #value > tonumber(ARGV[3]) then value = '' end \
           answer[#answer + 1] = entry[1] \
           answer[#answer + 1] = value \
         end \
         return answer",
    )
});
