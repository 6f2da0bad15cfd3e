//! Evaluators follow the store of their policy, and save new versions in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::clock::Clock as _;
use scaikey_auth::error::BoxError;
use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::trust::{
    Appended, MemoryPolicies, NewPolicyVersion, PolicyAuthor, PolicyChange, PolicyStore,
    PolicyVersion, PolicyVersionId, SaveError, SyncError, TrustEvaluator, TrustPolicy,
};
use tokio::task::JoinSet;

use crate::support::{Log, until, within_timeout};

use super::fixture::{ask, grant, platform, pod, trust, why};

pub(crate) const PERIOD: Duration = Duration::from_secs(5);

/// The state of a store.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Works,
    Fails(&'static str),
    Hangs,
    Empty,
}

/// A store in memory that can fail. Clones share everything, like the stores of two processes.
#[derive(Debug, Clone)]
struct Controlled {
    policies: MemoryPolicies,
    state: Arc<Mutex<State>>,
    latest_calls: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
}

impl Controlled {
    fn new() -> Self {
        Self {
            policies: MemoryPolicies::new(),
            state: Arc::new(Mutex::new(State::Works)),
            latest_calls: Arc::default(),
            reads: Arc::default(),
        }
    }

    /// Appends a text as another process would, without any check.
    async fn write(&self, text: &str) -> PolicyVersionId {
        let version = NewPolicyVersion::new(text, ManualClock::new().now());
        let latest = self.policies.latest().await.unwrap();
        match self.policies.append(version, latest.as_ref()).await.unwrap() {
            Appended::Done(id) => id,
            Appended::Conflict(id) => panic!("{id:?}"),
        }
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap() = state;
    }

    fn latest_calls(&self) -> u64 {
        self.latest_calls.load(Ordering::SeqCst)
    }

    async fn works(&self) -> Result<(), BoxError> {
        let state = *self.state.lock().unwrap();
        match state {
            State::Works | State::Empty => Ok(()),
            State::Fails(error) => Err(error.into()),
            State::Hangs => std::future::pending().await,
        }
    }

    fn evaluator(&self, clock: &ManualClock) -> TrustEvaluator {
        TrustEvaluator::builder()
            .store(self.clone())
            .own_issuer("https://own.example")
            .clock(clock.clone())
            .build()
            .unwrap()
    }
}

#[async_trait]
impl PolicyStore for Controlled {
    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        self.latest_calls.fetch_add(1, Ordering::SeqCst);
        self.works().await?;
        let is_empty = *self.state.lock().unwrap() == State::Empty;
        if is_empty { Ok(None) } else { self.policies.latest().await }
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.works().await?;
        self.policies.read(number).await
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        self.works().await?;
        self.policies.append(version, expected).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        self.works().await?;
        self.policies.history(before, limit).await
    }
}

/// A policy with one rule of this name for the reporter.
pub(crate) fn text(cluster: &Provider, rule: &str) -> String {
    let rule = grant(rule, "subject = \"system:serviceaccount:reports:reporter\"");
    format!("{}{rule}", trust("k8s", cluster, ""))
}

pub(crate) fn new(text: &str) -> NewPolicyVersion {
    NewPolicyVersion::new(text, ManualClock::new().now())
}

/// Returns the name of the rule that grants a token of the reporter's pod.
pub(crate) async fn rule(evaluator: &TrustEvaluator, cluster: &Provider) -> String {
    ask(evaluator, &pod(cluster).sign()).await.unwrap().rule
}

#[tokio::test]
async fn first_decision_loads_the_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    let evaluator = store.evaluator(&clock);
    assert_eq!(store.latest_calls(), 0, "`build` does no I/O");
    assert!(evaluator.current().is_missing());

    // An empty store is a policy without trusts.
    assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "trust_none");
    assert!(!evaluator.current().is_missing());
    assert_eq!((evaluator.version(), store.latest_calls()), (None, 1));

    let id = store.write(&text(&cluster, "first")).await;
    let other = store.evaluator(&clock);
    assert_eq!(rule(&other, &cluster).await, "first");
    assert_eq!(other.version(), Some(id));
    assert_eq!(other.current().version().unwrap().text, text(&cluster, "first"));
}

#[tokio::test]
async fn change_is_followed_within_five_seconds() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let (store, log) = (Controlled::new(), Log::start());
    store.write(&text(&cluster, "first")).await;
    let evaluator = store.evaluator(&clock);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    let second = store.write(&text(&cluster, "second")).await;

    clock.advance(PERIOD - Duration::from_millis(1));
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    assert_eq!(store.latest_calls(), 1);
    clock.advance(Duration::from_millis(1));
    assert_eq!(rule(&evaluator, &cluster).await, "second");
    assert_eq!((evaluator.version(), store.latest_calls()), (Some(second), 2));
    assert!(log.text().contains("trust policy loaded trusts=1 version=2"), "{}", log.text());
    assert_eq!(cluster.jwks_requests(), 1, "an unchanged trust keeps its keys");

    // `explain` follows too. An unchanged version is not read again.
    store.write(&text(&cluster, "third")).await;
    clock.advance(PERIOD);
    let explanation = evaluator.explain(&pod(&cluster).sign(), None).await.to_string();
    assert!(explanation.contains("third"), "{explanation}");
    let reads = store.reads.load(Ordering::SeqCst);
    clock.advance(PERIOD);
    rule(&evaluator, &cluster).await;
    assert_eq!(store.reads.load(Ordering::SeqCst), reads);
}

#[tokio::test]
async fn period_of_checks_can_be_set() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    let builder = || TrustEvaluator::builder().store(store.clone()).clock(clock.clone());
    let minute = builder().check_store_every(Duration::from_secs(60)).build().unwrap();
    let always = builder().check_store_every(Duration::ZERO).build().unwrap();
    for name in ["first", "second"] {
        store.write(&text(&cluster, name)).await;
        assert_eq!(rule(&always, &cluster).await, name);
        assert_eq!(rule(&minute, &cluster).await, "first");
        clock.advance(Duration::from_secs(59));
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(rule(&minute, &cluster).await, "second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_decisions_share_one_check() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    store.write(&text(&cluster, "first")).await;
    let evaluator = store.evaluator(&clock);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    store.write(&text(&cluster, "second")).await;
    clock.advance(PERIOD);
    let token = pod(&cluster).sign();
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let (evaluator, token) = (evaluator.clone(), token.clone());
        tasks.spawn(async move { ask(&evaluator, &token).await.unwrap().rule });
    }
    let rules = within_timeout(tasks.join_all()).await;
    assert!(rules.iter().all(|rule| rule == "second"), "{rules:?}");
    assert_eq!(store.latest_calls(), 2);
}

#[tokio::test]
async fn outage_keeps_the_loaded_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let (store, log) = (Controlled::new(), Log::start());
    let first = store.write(&text(&cluster, "first")).await;
    let evaluator = store.evaluator(&clock);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    let second = store.write(&text(&cluster, "second")).await;
    for state in [State::Fails("no route"), State::Empty, State::Fails("no route")] {
        store.set(state);
        for _ in 0..3 {
            let calls = store.latest_calls();
            clock.advance(PERIOD);
            assert_eq!(rule(&evaluator, &cluster).await, "first");
            until(|| store.latest_calls() > calls).await;
            until(|| evaluator.current().is_store_away()).await;
        }
    }
    assert!(matches!(evaluator.sync().await, Err(SyncError::Store(_))));
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 2, "one for each cause: {warnings:#?}");
    assert!(warnings[0].contains("trust policy store failed") && warnings[0].contains("no route"));
    assert!(warnings[1].contains(&format!("is empty, although it had version {first}")));

    store.set(State::Works);
    clock.advance(PERIOD);
    rule(&evaluator, &cluster).await;
    until(|| evaluator.version() == Some(second.clone())).await;
    assert_eq!(rule(&evaluator, &cluster).await, "second");
    assert!(!evaluator.current().is_store_away());
    assert!(log.text().contains("trust policy store"), "{}", log.text());
}

#[tokio::test]
async fn hanging_store_delays_one_decision() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    store.write(&text(&cluster, "first")).await;
    let evaluator = store.evaluator(&clock);
    rule(&evaluator, &cluster).await;
    store.set(State::Hangs);
    clock.advance(PERIOD);
    let begin = std::time::Instant::now();
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    assert!(begin.elapsed() >= Duration::from_secs(1), "a check is worth waiting for");
    until(|| evaluator.current().is_store_away()).await;
    // No later decision waits, and no second check begins beside the first.
    let token = pod(&cluster).sign();
    for _ in 0..3 {
        clock.advance(PERIOD);
        let decision = ask(&evaluator, &token);
        tokio::select! {
            biased;
            granted = decision => assert_eq!(granted.unwrap().rule, "first"),
            () = tokio::time::sleep(Duration::from_millis(900)) => panic!("the decision waits"),
        }
    }
    assert_eq!(store.latest_calls(), 2);
}

#[tokio::test]
async fn missing_policy_denies_until_store_answers() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    store.write(&text(&cluster, "first")).await;
    store.set(State::Fails("no route"));
    let evaluator = store.evaluator(&clock);
    let token = pod(&cluster).sign();
    for _ in 0..2 {
        let denied = ask(&evaluator, &token).await.unwrap_err();
        assert_eq!(denied.status().as_u16(), 503);
        assert!(denied.reason().to_string().contains("trust policy unavailable"));
    }
    let explanation = evaluator.explain(&token, None).await.to_string();
    assert!(explanation.contains("trust policy unavailable"), "{explanation}");
    assert_eq!(store.latest_calls(), 1, "a store that failed is not asked for each token");
    assert!(evaluator.policy().trust_ids().next().is_none());
    store.set(State::Works);
    clock.advance(PERIOD);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
}

#[tokio::test]
async fn faulty_version_keeps_the_loaded_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let (store, log) = (Controlled::new(), Log::start());
    let first = store.write(&text(&cluster, "first")).await;
    let evaluator = store.evaluator(&clock);
    rule(&evaluator, &cluster).await;
    let own = "[[trust]]\nid = \"own\"\nissuer = \"https://own.example\"\naudiences = [\"x\"]\n";
    for (nth, faulty) in ["[[trust]]\nid = \"new\"\nquantum = true\n", own].iter().enumerate() {
        let id = store.write(faulty).await;
        for _ in 0..3 {
            clock.advance(PERIOD);
            assert_eq!(rule(&evaluator, &cluster).await, "first");
            assert_eq!(evaluator.current().rejected(), Some(&id));
        }
        assert_eq!(log.lines("ERROR").len(), nth + 1, "{:#?}", log.lines("ERROR"));
        assert!(matches!(evaluator.sync().await, Err(SyncError::Faults(_))));
        assert!(!evaluator.current().is_store_away(), "the store works");
        assert_eq!(evaluator.version(), Some(first.clone()));
    }
    store.write(&text(&cluster, "good")).await;
    clock.advance(PERIOD);
    assert_eq!(rule(&evaluator, &cluster).await, "good");
    assert_eq!(evaluator.current().rejected(), None);

    // A process that starts with a faulty version has no policy.
    store.write("faulty = 1").await;
    let late = store.evaluator(&clock);
    assert_eq!(ask(&late, &pod(&cluster).sign()).await.unwrap_err().status().as_u16(), 503);
}

#[tokio::test]
async fn save_changes_the_policy_of_all() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let (store, log) = (Controlled::new(), Log::start());
    let (writer, other) = (store.evaluator(&clock), store.evaluator(&clock));
    assert_eq!(why(&other, &pod(&cluster).sign()).await, "trust_none");
    let mut version = new(&text(&cluster, "first"));
    version.author = Some(PolicyAuthor::new("https://id.example", "alice@canary.example"));
    version.note = Some("canary-note".to_owned());
    let first = writer.save(version.clone(), None).await.unwrap();
    assert_eq!((first.number(), writer.version()), (1, Some(first.clone())));
    assert_eq!(rule(&writer, &cluster).await, "first");
    clock.advance(PERIOD);
    assert_eq!(rule(&other, &cluster).await, "first");

    let line = log.lines("INFO").into_iter().find(|line| line.contains("trust policy changed"));
    let line = line.unwrap();
    assert!(line.contains("version=1") && line.contains("author_sha256="), "{line}");
    assert!(!log.text().contains("canary"), "{}", log.text());

    let stored = store.policies.read(1).await.unwrap().unwrap();
    assert_eq!(stored, PolicyVersion::new(1, version));
}

#[tokio::test]
async fn save_stores_nothing_with_faults() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    let evaluator = store.evaluator(&clock);
    let first = evaluator.save(new(&text(&cluster, "first")), None).await.unwrap();
    let own = "[[trust]]\nid = \"own\"\nissuer = \"https://own.example\"\naudiences = [\"x\"]\n";
    let no_file = trust("file", &cluster, "jwks = { file = \"/does/not/exist.json\" }");
    for faulty in ["faulty = 1", "[[", own, &no_file] {
        let error = evaluator.save(new(faulty), Some(&first)).await.unwrap_err();
        let SaveError::Faults(faults) = error else { panic!("{error}") };
        assert!(!faults.faults().is_empty());
    }
    assert_eq!(store.policies.latest().await.unwrap(), Some(first.clone()));
    assert_eq!(evaluator.version(), Some(first));
    assert_eq!(rule(&evaluator, &cluster).await, "first");
}

#[tokio::test]
async fn save_never_loses_another_change() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    let (one, two) = (store.evaluator(&clock), store.evaluator(&clock));
    let first = one.save(new(&text(&cluster, "first")), None).await.unwrap();
    for expected in [None, Some(PolicyVersionId::new(1, "another text"))] {
        match two.save(new(&text(&cluster, "lost")), expected.as_ref()).await {
            Err(SaveError::Conflict(current)) => assert_eq!(current, Some(first.clone())),
            other => panic!("{other:?}"),
        }
    }
    let second = two.save(new(&text(&cluster, "second")), Some(&first)).await.unwrap();
    let conflict = one.save(new(&text(&cluster, "late")), Some(&first)).await.unwrap_err();
    assert!(matches!(conflict, SaveError::Conflict(Some(current)) if current == second));
    for evaluator in [&one, &two] {
        assert_eq!(rule(evaluator, &cluster).await, "second");
    }
}

#[tokio::test]
async fn failed_save_keeps_the_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    let evaluator = store.evaluator(&clock);
    let first = evaluator.save(new(&text(&cluster, "first")), None).await.unwrap();
    store.set(State::Fails("disk full"));
    let error = evaluator.save(new(&text(&cluster, "lost")), Some(&first)).await.unwrap_err();
    assert!(matches!(&error, SaveError::Store(cause) if cause.to_string() == "disk full"));
    assert_eq!(rule(&evaluator, &cluster).await, "first");
}

#[tokio::test]
async fn dropped_save_is_completed() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    let evaluator = store.evaluator(&clock);
    let saved = text(&cluster, "saved");
    let save = evaluator.save(new(&saved), None);
    assert!(tokio::time::timeout(Duration::ZERO, save).await.is_err());
    until(|| evaluator.version().is_some()).await;
    assert_eq!(rule(&evaluator, &cluster).await, "saved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_check_never_replaces_a_newer_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Controlled::new();
    let evaluator = TrustEvaluator::builder()
        .store(store.clone())
        .clock(clock.clone())
        .check_store_every(Duration::ZERO)
        .build()
        .unwrap();
    let token = pod(&cluster).sign();
    let mut expected = None;
    for number in 1..=100_u64 {
        let asker = tokio::spawn({
            let (evaluator, token) = (evaluator.clone(), token.clone());
            async move { drop(ask(&evaluator, &token).await) }
        });
        let saved = text(&cluster, &format!("rule-{number}"));
        expected = Some(evaluator.save(new(&saved), expected.as_ref()).await.unwrap());
        assert_eq!(evaluator.version(), expected);
        asker.await.unwrap();
        assert_eq!(evaluator.version(), expected);
    }
}

#[tokio::test]
async fn store_excludes_other_sources() {
    let clock = ManualClock::new();
    let store = Controlled::new();
    let builder = || TrustEvaluator::builder().store(store.clone());
    for both in [builder().policy(TrustPolicy::default()), builder().file("x.toml")] {
        assert!(both.build().unwrap_err().to_string().contains("give one"));
    }
    let evaluator = store.evaluator(&clock);
    let error = evaluator.replace(TrustPolicy::default()).unwrap_err().to_string();
    assert!(error.contains("use `save`"), "{error}");
    let error = evaluator.reload().unwrap_err().to_string();
    assert!(error.contains("use `sync`"), "{error}");

    let without = TrustEvaluator::builder().build().unwrap();
    without.sync().await.unwrap();
    assert!(without.policy_store().is_none() && without.version().is_none());
    assert!(!without.current().is_missing());
    assert!(matches!(without.save(new(""), None).await, Err(SaveError::ReadOnly)));
    assert!(without.evaluate("x", None, &Scopes::new()).await.is_err());
}
