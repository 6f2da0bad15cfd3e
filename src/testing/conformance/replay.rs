//! The exam for a log of used tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use crate::replay::{ReplayKey, ReplayLog};

/// How many callers come at once.
const CROWD: usize = 32;

/// The exam for a [`ReplayLog`] (feature `testing`). `now`: the present moment by the log's clock.
///
/// Tests that the first use of a token is told from every later one; that of a crowd with one token
/// exactly one is the first; that tokens do not disturb each other; that a token which is over
/// already is never the first. The log is left with 80 entries for an hour. What is *not* tested:
/// an outage, which must be an `Err`, and that the log outlives a process where it should.
///
/// ```
/// use std::sync::Arc;
/// use std::time::SystemTime;
/// use scaikey_auth::testing::conformance::replay_log;
/// use scaikey_auth::replay::MemoryReplayLog;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// replay_log(Arc::new(MemoryReplayLog::default()), SystemTime::now()).await;
/// # }
/// ```
///
/// # Panics
/// When a rule is broken; the message names it.
pub async fn replay_log(log: Arc<dyn ReplayLog>, now: SystemTime) {
    let hour = now + Duration::from_secs(3600);
    let keys: Vec<ReplayKey> = (0..16).map(|_| fresh()).collect();
    for key in &keys {
        expect(&log, *key, hour, true, "the first use of a token is the first").await;
    }
    for key in &keys {
        expect(&log, *key, hour, false, "the second use of a token is not the first").await;
        let later = hour + Duration::from_secs(3600);
        expect(&log, *key, later, false, "another expiry makes no other token").await;
    }
    for _ in 0..64 {
        crowd(&log, hour).await;
    }
    for over in [now, now - Duration::from_secs(1)] {
        expect(&log, fresh(), over, false, "a token that is over is not used at all").await;
    }
}

async fn crowd(log: &Arc<dyn ReplayLog>, until: SystemTime) {
    let key = fresh();
    let mut tasks = JoinSet::new();
    for _ in 0..CROWD {
        let log = log.clone();
        tasks.spawn(async move { matches!(log.first_use(key, until).await, Ok(true)) });
    }
    let first = tasks.join_all().await.into_iter().filter(|first| *first).count();
    assert_eq!(first, 1, "of {CROWD} callers with one token exactly one is the first");
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
async fn expect(
    log: &Arc<dyn ReplayLog>,
    key: ReplayKey,
    until: SystemTime,
    expected: bool,
    rule: &str,
) {
    match log.first_use(key, until).await {
        Ok(first) => assert_eq!(first, expected, "{rule}"),
        Err(error) => panic!("{rule}: {error}"),
    }
}

/// A key that no exam had before, in this process or another: the log may be a lasting one.
fn fresh() -> ReplayKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let jti = format!("{}-{}-{number}", std::process::id(), started.as_nanos());
    ReplayKey::of("conformance", [jti.as_str()])
}
