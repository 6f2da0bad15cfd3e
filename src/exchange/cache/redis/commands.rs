//! The commands sent to Redis. Each is atomic.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, Script, ServerErrorKind, cmd};

use super::super::Fence;
use super::server::Connection;

/// The largest value that is written or read, in bytes. Sealed tokens of most providers are smaller.
pub(super) const MAX_VALUE: usize = 64 << 10;

/// The largest value under a single-use key, in bytes: the largest answer of a provider (1 MiB), and
/// the overhead of sealing.
pub(super) const MAX_SINGLE_USE_VALUE: usize = (1 << 20) + (64 << 10);

/// The shortest expiry: Redis counts in milliseconds, and rejects an expiry of 0.
pub(super) const MIN_TTL: Duration = Duration::from_millis(1);

/// The longest expiry: Redis rejects one that overflows when it is added to the current time.
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);

/// The result of [`get`].
pub(super) enum Entry {
    Missing,
    Value(Vec<u8>),
    /// A value that this crate never writes: too large, or not a string.
    Invalid,
}

pub(super) async fn get(
    mut connection: Connection,
    key: &str,
    max_bytes: usize,
) -> RedisResult<Entry> {
    // GET would transfer a huge value completely.
    let mut range = cmd("GETRANGE");
    range.arg(key).arg(0).arg(max_bytes);
    match connection.query::<Vec<u8>>(&range).await {
        Ok(value) if value.is_empty() => Ok(Entry::Missing),
        Ok(value) if value.len() > max_bytes => Ok(Entry::Invalid),
        Ok(value) => Ok(Entry::Value(value)),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Entry::Invalid),
        Err(error) => Err(error),
    }
}

/// Writes a value. With a fence, writes only if the fence holds the lock, or if there is neither a lock
/// nor a value.
pub(super) async fn put(
    mut connection: Connection,
    key: &str,
    value: &[u8],
    ttl: Duration,
    fence: Option<&Fence>,
) -> RedisResult<()> {
    let Some(fence) = fence else {
        let mut set = cmd("SET");
        set.arg(key).arg(value).arg("PX").arg(milliseconds(ttl));
        return connection.query(&set).await;
    };
    let lock = lock_key(key);
    let fill = |command: &mut Cmd| {
        command.arg(2).arg(key).arg(&lock).arg(fence.as_str()).arg(value);
        command.arg(milliseconds(ttl));
    };
    PUT.run::<bool>(&mut connection, fill).await.map(drop)
}

pub(super) async fn remove(mut connection: Connection, key: &str) -> RedisResult<()> {
    connection.query(cmd("DEL").arg(key)).await
}

/// Writes the fence under `key` if the key is absent. Returns whether the key was absent or already
/// held this fence.
pub(super) async fn insert_if_absent(
    mut connection: Connection,
    key: &str,
    fence: &Fence,
    lifetime: Duration,
) -> RedisResult<bool> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(key).arg(fence.as_str()).arg(milliseconds(lifetime));
    };
    INSERT_IF_ABSENT.run(&mut connection, fill).await
}

/// Takes the lock of `key`. Returns false if another fence holds it. A lock without an expiry is
/// replaced, because this crate always sets one.
pub(super) async fn lock(
    mut connection: Connection,
    key: &str,
    fence: &Fence,
    lifetime: Duration,
) -> RedisResult<bool> {
    let lock = lock_key(key);
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(&lock).arg(fence.as_str()).arg(milliseconds(lifetime));
    };
    LOCK.run(&mut connection, fill).await
}

pub(super) async fn unlock(
    mut connection: Connection,
    key: &str,
    fence: &Fence,
) -> RedisResult<()> {
    let lock = lock_key(key);
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(&lock).arg(fence.as_str());
    };
    UNLOCK.run::<bool>(&mut connection, fill).await.map(drop)
}

/// Escapes a part of a key. Braces would change the hash slot, and the lock has to be in the same slot
/// as its token.
pub(super) fn escape(part: &str) -> Cow<'_, str> {
    if part.contains(['%', '{', '}']) {
        part.replace('%', "%25").replace('{', "%7B").replace('}', "%7D").into()
    } else {
        part.into()
    }
}

fn lock_key(key: &str) -> String {
    format!("{key}:lock")
}

/// Returns the period in milliseconds, within the limits of Redis.
pub(super) fn milliseconds(period: Duration) -> u64 {
    period.clamp(MIN_TTL, MAX_TTL).as_millis() as u64
}

/// A Lua script, called by its hash. The text is sent only if the server does not have it.
pub(super) struct AtomicScript {
    text: &'static str,
    hash: String,
}

impl AtomicScript {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }

    /// Runs the script, and returns its answer: for most scripts, whether the condition in it held.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut Connection,
        fill: impl Fn(&mut Cmd),
    ) -> RedisResult<T> {
        let command = |verb, script: &str| {
            let mut command = cmd(verb);
            command.arg(script);
            fill(&mut command);
            command
        };
        match connection.query(&command("EVALSHA", &self.hash)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.query(&command("EVAL", self.text)).await
            }
            outcome => outcome,
        }
    }
}

// `pcall`, because a value of another type, such as a list, counts as a lock of another holder and not
// as an error.
static PUT: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "local held = redis.pcall('GET', KEYS[2]) \
         if held == ARGV[1] then \
           redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
           return 1 \
         end \
         if not held and redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then \
           return 1 \
         end \
         return 0",
    )
});

// Also succeeds if this fence is already stored, because a call whose answer was lost is repeated.
static INSERT_IF_ABSENT: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
         if redis.pcall('GET', KEYS[1]) == ARGV[1] then return 1 end \
         return 0",
    )
});

// A call whose answer was lost is repeated with the same fence.
static LOCK: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
         if redis.call('PTTL', KEYS[1]) ~= -1 and redis.pcall('GET', KEYS[1]) ~= ARGV[1] then \
           return 0 \
         end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return 1",
    )
});

static UNLOCK: LazyLock<AtomicScript> = LazyLock::new(|| {
    AtomicScript::new(
        "if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('DEL', KEYS[1])",
    )
});
