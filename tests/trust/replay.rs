//! Single-use tokens.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use scaikey_auth::clock::Clock;
use scaikey_auth::error::BoxError;
use scaikey_auth::identity::Scopes;
use scaikey_auth::replay::{MemoryReplayLog, ReplayKey, ReplayLog};
use scaikey_auth::testing::ManualClock;
use scaikey_auth::testing::conformance::replay_log;
use scaikey_auth::trust::TrustEvaluator;
use tokio::task::JoinSet;

use super::fixture::{ask, evaluator, platform, pod, policy, reporter, trust, why};

const ONCE: &str = "single_use_jti = true";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_concurrent_uses_wins() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ONCE), reporter()]);
    for _ in 0..20 {
        let token = pod(&cluster).sign();
        let barrier = Arc::new(tokio::sync::Barrier::new(32));
        let mut tasks = JoinSet::new();
        for _ in 0..32 {
            let (evaluator, token, barrier) = (evaluator.clone(), token.clone(), barrier.clone());
            tasks.spawn(async move {
                barrier.wait().await;
                ask(&evaluator, &token).await
            });
        }
        let outcomes = tasks.join_all().await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for denied in lost {
            assert_eq!(denied.unwrap_err().reason().as_str(), "replayed");
        }
    }
}

#[tokio::test]
async fn only_granted_token_counts_as_used() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ONCE), reporter()]);
    let token = pod(&cluster).sign();
    let excessive = evaluator.evaluate(&token, None, &"admin".parse().unwrap()).await.unwrap_err();
    assert_eq!(excessive.code(), "invalid_scope");
    evaluator.explain(&token, None).await;
    assert!(ask(&evaluator, &token).await.is_ok());
    assert_eq!(why(&evaluator, &token).await, "replayed");
    for token in [pod(&cluster).without("jti"), pod(&cluster).claim("jti", "")] {
        assert_eq!(why(&evaluator, &token.sign()).await, "jti_missing");
    }
}

#[tokio::test]
async fn token_is_remembered_until_it_expires() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Arc::new(MemoryReplayLog::with_clock(2, Arc::new(clock.clone())));
    let evaluator = TrustEvaluator::builder()
        .policy(policy(&[trust("k8s", &cluster, ONCE), reporter()]))
        .clock(clock.clone())
        .replay_log(log.clone())
        .build()
        .unwrap();
    let token = pod(&cluster).sign();
    ask(&evaluator, &token).await.unwrap();
    // The last second of the leeway.
    clock.advance(Duration::from_secs(3600 + 59));
    // This use makes the log remove expired entries.
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(why(&evaluator, &token).await, "replayed");
    clock.advance(Duration::from_secs(1));
    assert_eq!(why(&evaluator, &token).await, "token_expired");
    assert_eq!(log.len(), 2);
    // Its entry has expired.
    clock.advance(Duration::from_secs(2));
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(log.len(), 2);
}

#[tokio::test]
async fn full_log_denies_new_tokens() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Arc::new(MemoryReplayLog::with_clock(3, Arc::new(clock.clone())));
    let evaluator = TrustEvaluator::builder()
        .policy(policy(&[trust("k8s", &cluster, ONCE), reporter()]))
        .clock(clock.clone())
        .replay_log(log.clone())
        .build()
        .unwrap();
    let used: Vec<String> = (0..3).map(|_| pod(&cluster).sign()).collect();
    for token in &used {
        ask(&evaluator, token).await.unwrap();
    }
    let denied = ask(&evaluator, &pod(&cluster).sign()).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.reason().as_str()),
        ("temporarily_unavailable", "unavailable")
    );
    for token in &used {
        assert_eq!(why(&evaluator, token).await, "replayed");
    }
    assert_eq!(log.len(), 3);
    clock.advance(Duration::from_secs(3662));
    assert!(ask(&evaluator, &pod(&cluster).sign()).await.is_ok());
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn used_tokens_survive_clock_jumps() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ONCE), reporter()]);
    let token = pod(&cluster).sign();
    ask(&evaluator, &token).await.unwrap();
    let now = clock.now();
    clock.set_wall(now + Duration::from_secs(100_000));
    // This use makes the log remove expired entries.
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    clock.set_wall(now);
    assert_eq!(why(&evaluator, &token).await, "replayed");
    clock.set_wall(now - Duration::from_secs(50));
    clock.advance(Duration::from_secs(3661));
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(why(&evaluator, &token).await, "replayed");
}

#[derive(Debug)]
struct Unavailable;

#[async_trait]
impl ReplayLog for Unavailable {
    async fn first_use(&self, _: ReplayKey, _: SystemTime) -> Result<bool, BoxError> {
        Err("the store is unavailable".into())
    }
}

#[tokio::test]
async fn unavailable_log_denies_single_use_tokens() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let build = |more| {
        let policy = policy(&[trust("k8s", &cluster, more), reporter()]);
        TrustEvaluator::builder()
            .policy(policy)
            .clock(clock.clone())
            .replay_log(Unavailable)
            .build()
            .unwrap()
    };
    let denied = ask(&build(ONCE), &pod(&cluster).sign()).await.unwrap_err();
    assert_eq!((denied.code(), denied.status().as_u16()), ("temporarily_unavailable", 503));
    // Without single use the log is not needed.
    assert!(ask(&build(""), &pod(&cluster).sign()).await.is_ok());
}

#[tokio::test]
async fn same_jti_may_occur_in_two_trusts() {
    let clock = ManualClock::new();
    let (one, other) = (platform(&clock).await, platform(&clock).await);
    let parts = [trust("one", &one, ONCE), reporter(), trust("other", &other, ONCE), reporter()];
    let evaluator = evaluator(&clock, &parts);
    for platform in [&one, &other] {
        let token = pod(platform).claim("jti", "7").sign();
        assert!(evaluator.evaluate(&token, None, &Scopes::new()).await.is_ok());
        assert_eq!(why(&evaluator, &token).await, "replayed");
    }
}

/// A faulty log whose check and insertion are not atomic.
#[derive(Debug, Default)]
struct CheckThenInsert(Mutex<Vec<ReplayKey>>);

#[async_trait]
impl ReplayLog for CheckThenInsert {
    async fn first_use(&self, key: ReplayKey, _: SystemTime) -> Result<bool, BoxError> {
        let is_used = self.0.lock().unwrap().contains(&key);
        tokio::task::yield_now().await;
        self.0.lock().unwrap().push(key);
        Ok(!is_used)
    }
}

#[tokio::test]
async fn conformance_suite_rejects_non_atomic_log() {
    let now = SystemTime::now();
    replay_log(Arc::new(MemoryReplayLog::default()), now).await;
    // A stopped clock, and a log with exactly enough capacity.
    let clock = ManualClock::new();
    let log = MemoryReplayLog::with_clock(80, Arc::new(clock.clone()));
    replay_log(Arc::new(Arc::new(log)), clock.now()).await;
    let failed =
        tokio::spawn(replay_log(Arc::new(CheckThenInsert::default()), now)).await.unwrap_err();
    let message = failed.into_panic().downcast::<String>().unwrap();
    assert!(message.contains("exactly one is the first"), "{message}");
}

/// A log that fails while the flag is set.
#[derive(Debug, Default)]
struct SwitchableLog(std::sync::atomic::AtomicBool);

#[async_trait]
impl ReplayLog for SwitchableLog {
    async fn first_use(&self, _: ReplayKey, _: SystemTime) -> Result<bool, BoxError> {
        match self.0.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err("the disk is full".into()),
            false => Ok(true),
        }
    }
}

#[tokio::test]
async fn replay_log_outage_is_logged_once() {
    let output = crate::support::Log::start();
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Arc::new(SwitchableLog::default());
    let evaluator = TrustEvaluator::builder()
        .policy(policy(&[trust("k8s", &cluster, ONCE), reporter()]))
        .clock(clock.clone())
        .replay_log(log.clone())
        .build()
        .unwrap();
    for outage in 1..=2 {
        log.0.store(true, std::sync::atomic::Ordering::SeqCst);
        for _ in 0..10 {
            assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "unavailable");
        }
        log.0.store(false, std::sync::atomic::Ordering::SeqCst);
        for _ in 0..3 {
            ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
        }
        let text = output.text();
        let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), outage, "{errors:#?}");
        assert!(errors[0].contains("the disk is full"), "{errors:#?}");
        assert_eq!(text.matches("replay log works again").count(), outage);
    }
}
