//! What is said to the server: a few commands, each of them atomic.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind, cmd};

use super::super::Fence;
use super::server::Link;

/// Larger values are neither written nor read. The provider's answers are smaller, garbage need
/// not be.
pub(super) const MAX_VALUE: usize = 64 << 10;

/// The same for what can be spent once only: all that a provider may send, and what sealing adds.
pub(super) const MAX_SINGLE_USE_VALUE: usize = (1 << 20) + (64 << 10);

/// The server counts in milliseconds, and takes 0 for a mistake.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// Longer times could be more than the server can add up.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What is there under a name.
pub(super) enum Found {
    Nothing,
    Value(Vec<u8>),
    /// Something nobody puts there.
    Garbage,
}

pub(super) async fn get(mut link: Link, name: &str, longest: usize) -> RedisResult<Found> {
    // Unlike GET, it reads no more of a huge value than it takes to see that it is one.
    let mut range = cmd("GETRANGE");
    range.arg(name).arg(0).arg(longest);
    match link.ask::<Vec<u8>>(&range).await {
        Ok(value) if value.is_empty() => Ok(Found::Nothing),
        Ok(value) if value.len() > longest => Ok(Found::Garbage),
        Ok(value) => Ok(Found::Value(value)),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Found::Garbage),
        Err(error) => Err(error),
    }
}

/// With a fence: unless another one holds, or none does and something is there.
pub(super) async fn put(
    mut link: Link,
    name: &str,
    value: &[u8],
    ttl: Duration,
    fence: Option<&Fence>,
) -> RedisResult<()> {
    let Some(fence) = fence else {
        let mut set = cmd("SET");
        set.arg(name).arg(value).arg("PX").arg(milliseconds(ttl));
        return link.ask(&set).await;
    };
    let lock = lock_of(name);
    let fill = |command: &mut Cmd| {
        command.arg(2).arg(name).arg(&lock).arg(fence.as_str()).arg(value);
        command.arg(milliseconds(ttl));
    };
    PUT.run(&mut link, fill).await.map(drop)
}

pub(super) async fn remove(mut link: Link, name: &str) -> RedisResult<()> {
    link.ask(cmd("DEL").arg(name)).await
}

/// Notes a name for so long; whether it was not noted before, but by this fence. The server does
/// both in one step.
pub(super) async fn note(
    mut link: Link,
    name: &str,
    fence: &Fence,
    life: Duration,
) -> RedisResult<bool> {
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(name).arg(fence.as_str()).arg(milliseconds(life));
    };
    NOTE.run(&mut link, fill).await
}

/// Whether the lock was free, or is held without an end, as none of ours is.
pub(super) async fn lock(
    mut link: Link,
    name: &str,
    fence: &Fence,
    life: Duration,
) -> RedisResult<bool> {
    let lock = lock_of(name);
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(&lock).arg(fence.as_str()).arg(milliseconds(life));
    };
    LOCK.run(&mut link, fill).await
}

pub(super) async fn unlock(mut link: Link, name: &str, fence: &Fence) -> RedisResult<()> {
    let lock = lock_of(name);
    let fill = |command: &mut Cmd| {
        command.arg(1).arg(&lock).arg(fence.as_str());
    };
    UNLOCK.run(&mut link, fill).await.map(drop)
}

/// A part of a name. Braces would move a lock to another slot of a cluster than its token.
pub(super) fn names(part: &str) -> Cow<'_, str> {
    if part.contains(['%', '{', '}']) {
        part.replace('%', "%25").replace('{', "%7B").replace('}', "%7D").into()
    } else {
        part.into()
    }
}

fn lock_of(name: &str) -> String {
    format!("{name}:lock")
}

fn milliseconds(period: Duration) -> u64 {
    period.clamp(SHORTEST, LONGEST).as_millis() as u64
}

/// A script, run by its hash; the server is sent the text when it does not have it.
struct Atomic {
    text: &'static str,
    hash: String,
}

impl Atomic {
    fn new(text: &'static str) -> Self {
        Self { text, hash: Script::new(text).get_hash().to_owned() }
    }

    /// Whether it did what it does.
    async fn run(&self, link: &mut Link, fill: impl Fn(&mut Cmd)) -> RedisResult<bool> {
        let command = |verb, script: &str| {
            let mut command = cmd(verb);
            command.arg(script);
            fill(&mut command);
            command
        };
        match link.ask(&command("EVALSHA", &self.hash)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                link.ask(&command("EVAL", self.text)).await
            }
            outcome => outcome,
        }
    }
}

// `pcall`, because a lock that somebody made a list is a lock that is not ours, and no error.
static PUT: LazyLock<Atomic> = LazyLock::new(|| {
    Atomic::new(
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

// As with locks, the same fence may come twice.
static NOTE: LazyLock<Atomic> = LazyLock::new(|| {
    Atomic::new(
        "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
         if redis.pcall('GET', KEYS[1]) == ARGV[1] then return 1 end \
         return 0",
    )
});

// The same fence comes twice when the answer to the first time was lost with its connection.
static LOCK: LazyLock<Atomic> = LazyLock::new(|| {
    Atomic::new(
        "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
         if redis.call('PTTL', KEYS[1]) ~= -1 and redis.pcall('GET', KEYS[1]) ~= ARGV[1] then \
           return 0 \
         end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return 1",
    )
});

static UNLOCK: LazyLock<Atomic> = LazyLock::new(|| {
    Atomic::new(
        "if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('DEL', KEYS[1])",
    )
});
