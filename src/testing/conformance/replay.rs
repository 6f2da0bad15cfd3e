//! The conformance suite for a [`ReplayLog`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;

use crate::replay::{ReplayKey, ReplayLog};

/// The number of parallel callers.
const CALLERS: usize = 32;

/// Runs the conformance suite for a [`ReplayLog`] (feature `testing`). `now` is the current time of
/// the log's clock.
///
/// The suite tests that:
/// - only the first use of a token is reported as the first;
/// - of many parallel uses of one token exactly one is the first;
/// - tokens do not affect each other;
/// - a use of an expired token is never the first.
///
/// It leaves 80 entries in the log, which expire after one hour. It does *not* test an outage,
/// which must be an `Err`, nor that the log survives a restart.
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
/// Panics if the log breaks a rule. The message names the rule.
pub async fn replay_log(log: Arc<dyn ReplayLog>, now: SystemTime) {
    let hour = now + Duration::from_secs(3600);
    let keys: Vec<ReplayKey> = (0..16).map(|_| fresh()).collect();
    for key in &keys {
        expect(&log, *key, hour, true, "the first use of a token is reported as the first").await;
    }
    for key in &keys {
        expect(&log, *key, hour, false, "the second use of a token is not the first").await;
        let later = hour + Duration::from_secs(3600);
        expect(&log, *key, later, false, "the same token with a later expiry is not a new token")
            .await;
    }
    for _ in 0..64 {
        parallel_uses(&log, hour).await;
    }
    for expired in [now, now - Duration::from_secs(1)] {
        expect(&log, fresh(), expired, false, "the use of an expired token is not the first").await;
    }
}

async fn parallel_uses(log: &Arc<dyn ReplayLog>, until: SystemTime) {
    let key = fresh();
    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        let log = log.clone();
        tasks.spawn(async move { matches!(log.first_use(key, until).await, Ok(true)) });
    }
    let first = tasks.join_all().await.into_iter().filter(|first| *first).count();
    assert_eq!(
        first, 1,
        "rule broken: of {CALLERS} parallel uses of one token exactly one is the first"
    );
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
        Ok(first) => assert_eq!(first, expected, "rule broken: {rule}"),
        Err(error) => panic!("rule broken: {rule}: {error}"),
    }
}

/// Returns a key that is unique across processes, because the log may be persistent.
fn fresh() -> ReplayKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let jti = format!("{}-{}-{number}", std::process::id(), started.as_nanos());
    ReplayKey::new("conformance", [jti.as_str()])
}
