//! A token that works once works once.

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

use super::fixture::{ask, platform, pod, policy, reporter, trust, trusts, why};

const ONCE: &str = "single_use_jti = true";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_tasks_with_one_token_exactly_one_wins() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ONCE), reporter()]);
    for _ in 0..20 {
        let token = pod(&cluster).sign();
        let together = Arc::new(tokio::sync::Barrier::new(32));
        let mut tasks = JoinSet::new();
        for _ in 0..32 {
            let (trusts, token, together) = (trusts.clone(), token.clone(), together.clone());
            tasks.spawn(async move {
                together.wait().await;
                ask(&trusts, &token).await
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
async fn a_token_is_used_up_only_by_a_grant() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ONCE), reporter()]);
    let token = pod(&cluster).sign();
    let too_much = trusts.evaluate(&token, None, &"admin".parse().unwrap()).await.unwrap_err();
    assert_eq!(too_much.code(), "invalid_scope");
    trusts.explain(&token, None).await;
    assert!(ask(&trusts, &token).await.is_ok());
    assert_eq!(why(&trusts, &token).await, "replayed");
    for token in [pod(&cluster).without("jti"), pod(&cluster).claim("jti", "")] {
        assert_eq!(why(&trusts, &token.sign()).await, "jti_missing");
    }
}

#[tokio::test]
async fn a_token_is_remembered_as_long_as_it_would_be_taken() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Arc::new(MemoryReplayLog::with_clock(2, Arc::new(clock.clone())));
    let trusts = TrustEvaluator::builder()
        .policy(policy(&[trust("k8s", &cluster, ONCE), reporter()]))
        .clock(clock.clone())
        .replay_log(log.clone())
        .build()
        .unwrap();
    let token = pod(&cluster).sign();
    ask(&trusts, &token).await.unwrap();
    // To the last second of the leeway.
    clock.advance(Duration::from_secs(3600 + 59));
    // Whoever comes now makes the log tidy up.
    ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(why(&trusts, &token).await, "replayed");
    clock.advance(Duration::from_secs(1));
    assert_eq!(why(&trusts, &token).await, "token_expired");
    assert_eq!(log.len(), 2);
    // Its place is free now.
    clock.advance(Duration::from_secs(2));
    ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(log.len(), 2);
}

#[tokio::test]
async fn a_full_log_denies_and_forgets_nothing() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Arc::new(MemoryReplayLog::with_clock(3, Arc::new(clock.clone())));
    let trusts = TrustEvaluator::builder()
        .policy(policy(&[trust("k8s", &cluster, ONCE), reporter()]))
        .clock(clock.clone())
        .replay_log(log.clone())
        .build()
        .unwrap();
    let used: Vec<String> = (0..3).map(|_| pod(&cluster).sign()).collect();
    for token in &used {
        ask(&trusts, token).await.unwrap();
    }
    let denied = ask(&trusts, &pod(&cluster).sign()).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.reason().as_str()),
        ("temporarily_unavailable", "unavailable")
    );
    for token in &used {
        assert_eq!(why(&trusts, token).await, "replayed");
    }
    assert_eq!(log.len(), 3);
    clock.advance(Duration::from_secs(3662));
    assert!(ask(&trusts, &pod(&cluster).sign()).await.is_ok());
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn setting_the_clock_forth_and_back_makes_no_token_new() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ONCE), reporter()]);
    let token = pod(&cluster).sign();
    ask(&trusts, &token).await.unwrap();
    let now = clock.now();
    clock.set_wall(now + Duration::from_secs(100_000));
    // Whoever comes now makes the log tidy up.
    ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    clock.set_wall(now);
    assert_eq!(why(&trusts, &token).await, "replayed");
    clock.set_wall(now - Duration::from_secs(50));
    clock.advance(Duration::from_secs(3661));
    ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(why(&trusts, &token).await, "replayed");
}

#[derive(Debug)]
struct Away;

#[async_trait]
impl ReplayLog for Away {
    async fn first_use(&self, _: ReplayKey, _: SystemTime) -> Result<bool, BoxError> {
        Err("the store is away".into())
    }
}

#[tokio::test]
async fn while_the_log_is_away_nothing_is_granted() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let build = |more| {
        let policy = policy(&[trust("k8s", &cluster, more), reporter()]);
        TrustEvaluator::builder()
            .policy(policy)
            .clock(clock.clone())
            .replay_log(Away)
            .build()
            .unwrap()
    };
    let denied = ask(&build(ONCE), &pod(&cluster).sign()).await.unwrap_err();
    assert_eq!((denied.code(), denied.status().as_u16()), ("temporarily_unavailable", 503));
    // Who does not ask for single use does not need the log.
    assert!(ask(&build(""), &pod(&cluster).sign()).await.is_ok());
}

#[tokio::test]
async fn one_jti_of_two_trusts_is_two_tokens() {
    let clock = ManualClock::new();
    let (one, other) = (platform(&clock).await, platform(&clock).await);
    let parts = [trust("one", &one, ONCE), reporter(), trust("other", &other, ONCE), reporter()];
    let trusts = trusts(&clock, &parts);
    for platform in [&one, &other] {
        let token = pod(platform).claim("jti", "7").sign();
        assert!(trusts.evaluate(&token, None, &Scopes::new()).await.is_ok());
        assert_eq!(why(&trusts, &token).await, "replayed");
    }
}

/// Asks, and notes only then.
#[derive(Debug, Default)]
struct InTwoSteps(Mutex<Vec<ReplayKey>>);

#[async_trait]
impl ReplayLog for InTwoSteps {
    async fn first_use(&self, key: ReplayKey, _: SystemTime) -> Result<bool, BoxError> {
        let is_known = self.0.lock().unwrap().contains(&key);
        tokio::task::yield_now().await;
        self.0.lock().unwrap().push(key);
        Ok(!is_known)
    }
}

#[tokio::test]
async fn the_exam_is_passed_by_the_log_in_memory_and_failed_by_one_that_asks_first() {
    let now = SystemTime::now();
    replay_log(Arc::new(MemoryReplayLog::default()), now).await;
    // A clock that stands still, to the moment; and a log with no room to spare.
    let clock = ManualClock::new();
    let log = MemoryReplayLog::with_clock(80, Arc::new(clock.clone()));
    replay_log(Arc::new(Arc::new(log)), clock.now()).await;
    let failed = tokio::spawn(replay_log(Arc::new(InTwoSteps::default()), now)).await.unwrap_err();
    let message = failed.into_panic().downcast::<String>().unwrap();
    assert!(message.contains("exactly one is the first"), "{message}");
}

/// A log that fails on demand.
#[derive(Debug, Default)]
struct Moody(std::sync::atomic::AtomicBool);

#[async_trait]
impl ReplayLog for Moody {
    async fn first_use(&self, _: ReplayKey, _: SystemTime) -> Result<bool, BoxError> {
        match self.0.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err("the disk is full".into()),
            false => Ok(true),
        }
    }
}

#[tokio::test]
async fn failing_replay_log_is_told_once() {
    let told = crate::support::Log::start();
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Arc::new(Moody::default());
    let trusts = TrustEvaluator::builder()
        .policy(policy(&[trust("k8s", &cluster, ONCE), reporter()]))
        .clock(clock.clone())
        .replay_log(log.clone())
        .build()
        .unwrap();
    for outage in 1..=2 {
        log.0.store(true, std::sync::atomic::Ordering::SeqCst);
        for _ in 0..10 {
            assert_eq!(why(&trusts, &pod(&cluster).sign()).await, "unavailable");
        }
        log.0.store(false, std::sync::atomic::Ordering::SeqCst);
        for _ in 0..3 {
            ask(&trusts, &pod(&cluster).sign()).await.unwrap();
        }
        let text = told.text();
        let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), outage, "{errors:#?}");
        assert!(errors[0].contains("the disk is full"), "{errors:#?}");
        assert_eq!(text.matches("replay log works again").count(), outage);
    }
}
