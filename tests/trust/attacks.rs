//! Attacks on stores, following, saving and the log of decisions.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::Identity;
use scaikey_auth::error::BoxError;
use scaikey_auth::identity::{ClaimsMapping, Provenance, Scopes};
use scaikey_auth::testing::ManualClock;
use scaikey_auth::trust::{
    Appended, FilePolicies, MemoryPolicies, NewPolicyVersion, PolicyChange, PolicyStore,
    PolicyVersion, PolicyVersionId, TrustEvaluator, TrustPolicy,
};
use serde_json::json;

use super::fixture::{ask, evaluator, grant, platform, pod, policy, reporter, trust};
use super::following::{PERIOD, new, rule, text};
use crate::support::{File, Log};

/// A store that returns what it is told.
#[derive(Debug, Clone, Default)]
struct Liar {
    policies: MemoryPolicies,
    /// Returned instead of the text of each version.
    other_text: Arc<Mutex<Option<String>>>,
    panics: Arc<AtomicBool>,
    /// The latest version that it shows, as a replica that lags behind.
    lags_at: Arc<Mutex<Option<PolicyVersionId>>>,
}

#[async_trait]
impl PolicyStore for Liar {
    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        assert!(!self.panics.load(Ordering::SeqCst), "the store panics");
        if let Some(id) = &*self.lags_at.lock().unwrap() {
            return Ok(Some(id.clone()));
        }
        self.policies.latest().await
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        let mut version = self.policies.read(number).await?;
        if let (Some(version), Some(text)) = (&mut version, &*self.other_text.lock().unwrap()) {
            version.text.clone_from(text);
        }
        Ok(version)
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        self.policies.append(version, expected).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        self.policies.history(before, limit).await
    }
}

impl Liar {
    fn evaluator(&self, clock: &ManualClock) -> TrustEvaluator {
        TrustEvaluator::builder().store(self.clone()).clock(clock.clone()).build().unwrap()
    }

    async fn write(&self, text: &str) -> PolicyVersionId {
        let latest = self.policies.latest().await.unwrap();
        match self.policies.append(new(text), latest.as_ref()).await.unwrap() {
            Appended::Done(id) => id,
            Appended::Conflict(id) => panic!("{id:?}"),
        }
    }
}

#[tokio::test]
async fn text_of_another_version_is_refused() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Liar::default();
    store.write(&text(&cluster, "first")).await;
    let evaluator = store.evaluator(&clock);
    assert_eq!(rule(&evaluator, &cluster).await, "first");

    store.write(&text(&cluster, "second")).await;
    *store.other_text.lock().unwrap() = Some(text(&cluster, "forged"));
    clock.advance(PERIOD);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    assert!(evaluator.sync().await.is_err());
}

#[tokio::test]
async fn panic_of_store_is_an_outage() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Liar::default();
    store.write(&text(&cluster, "first")).await;
    let evaluator = store.evaluator(&clock);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    store.panics.store(true, Ordering::SeqCst);
    clock.advance(PERIOD);
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    assert!(evaluator.current().is_store_away());
}

#[tokio::test]
async fn going_back_is_warned_of() {
    let log = Log::start();
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Liar::default();
    let first = store.write(&text(&cluster, "revoked")).await;
    store.write(&text(&cluster, "second")).await;
    let evaluator = store.evaluator(&clock);
    assert_eq!(rule(&evaluator, &cluster).await, "second");
    *store.lags_at.lock().unwrap() = Some(first);
    clock.advance(PERIOD);
    let now = rule(&evaluator, &cluster).await;
    let lines = log.text();
    assert!(now == "second" || lines.contains("WARN"), "{now}\n{lines}");
}

#[tokio::test]
async fn saved_policy_with_lower_number_is_loaded() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let file = File::new("trust.toml", &text(&cluster, "first"));
    let store = FilePolicies::new(file.path());
    let first = store.latest().await.unwrap();
    let evaluator =
        TrustEvaluator::builder().file(file.path()).clock(clock.clone()).build().unwrap();
    evaluator.save(new(&text(&cluster, "second")), first.as_ref()).await.unwrap();
    fs::write(file.path(), text(&cluster, "edited")).unwrap();
    clock.advance(PERIOD);
    assert!(evaluator.sync().await.is_ok());
    // The edit is taken back, which this process has not seen yet.
    fs::write(file.path(), text(&cluster, "second")).unwrap();
    let latest = store.latest().await.unwrap();
    let saved = evaluator.save(new(&text(&cluster, "third")), latest.as_ref()).await.unwrap();
    assert_eq!(evaluator.version(), Some(saved));
}

#[cfg(unix)]
#[tokio::test]
async fn pipes_beside_the_file_do_not_hang() {
    for name in
        ["trust.toml.lock", "trust.toml.history/pending.json", "trust.toml.history/00000001.json"]
    {
        let file = File::new("trust.toml", "# first\n");
        let pipe: PathBuf = file.path().parent().unwrap().join(name);
        fs::create_dir_all(pipe.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let path = file.path().to_owned();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let store = FilePolicies::new(path);
                if let Ok(latest) = store.latest().await {
                    let _ = store.append(new("# second\n"), latest.as_ref()).await;
                }
                let _ = sender.send(());
            });
        });
        assert!(receiver.recv_timeout(Duration::from_secs(15)).is_ok(), "{name} hangs");
    }
}

#[tokio::test]
async fn failed_append_leaves_no_files() {
    let file = File::new("trust.toml", "# first\n");
    let store = FilePolicies::new(file.path());
    let first = store.latest().await.unwrap();
    // The history cannot be written: its next entry exists as a folder.
    store.append(new("# second\n"), first.as_ref()).await.unwrap();
    let second = store.latest().await.unwrap();
    fs::create_dir(file.path().with_file_name("trust.toml.history").join("pending.json")).unwrap();
    let appended = store.append(new("# third\n"), second.as_ref()).await;
    assert!(appended.is_err());
    let names: Vec<_> = fs::read_dir(file.path().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().ends_with(".new"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn file_of_old_time_is_saved() {
    let file = File::new("trust.toml", "# first\n");
    for at in ["1960-01-01", "9999-12-31", "2400-01-01"] {
        let _ = std::process::Command::new("touch").args(["-d", at]).arg(file.path()).status();
        let store = FilePolicies::new(file.path());
        let latest = store.latest().await.unwrap();
        let text = format!("# {at}\n");
        store.append(new(&text), latest.as_ref()).await.unwrap();
        assert!(store.history(None, 100).await.is_ok());
        fs::write(file.path(), format!("# edited after {at}\n")).unwrap();
    }
}

/// A caller with a token of this service.
fn caller(subject: &str, tenant: &str, scopes: &str) -> Identity {
    let claims = json!({
        "iss": "https://vault.example", "sub": subject, "exp": 4_102_444_800_u64,
        "tenant_id": tenant, "scope": scopes,
    });
    Identity::from_claims(&claims, &ClaimsMapping::default(), Provenance::Verified).unwrap()
}

#[tokio::test]
async fn changed_trust_locks_out() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    let own = caller("sa:k8s:reporting", "tnt_acme", "secrets:read");
    let mut missed = Vec::new();
    let header = |issuer: &str, audience: &str, more: &str| {
        format!(
            "[[trust]]\nid = \"k8s\"\nissuer = \"{issuer}\"\nallow_loopback_http = true\naudiences = [\"{audience}\"]\n{more}\n"
        )
    };
    let issuer = cluster.issuer();
    for (what, head) in [
        ("issuer", header("https://elsewhere.example", "scaivault", "")),
        ("audience", header(&issuer, "another", "")),
        (
            "keys",
            header(&issuer, "scaivault", "jwks = { url = \"https://elsewhere.example/keys\" }"),
        ),
        ("algorithms", header(&issuer, "scaivault", "algorithms = [\"RS256\"]")),
        ("lifetime", header(&issuer, "scaivault", "max_lifetime = \"1s\"")),
        ("named only", header(&issuer, "scaivault", "named_only = true")),
    ] {
        let parts = [head, reporter()];
        if !evaluator.would_lock_out(&policy(&parts), &own, own.tenant_id()) {
            missed.push(what);
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[tokio::test]
async fn explanation_agrees_with_decision() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let mut differences = Vec::new();
    for mode in ["enforce", "audit"] {
        for single_use in [false, true] {
            for more in
                ["", "max_age = \"5m\"", "not_after = \"2020-01-01\"", "max_lifetime = \"10m\""]
            {
                let settings = format!("mode = \"{mode}\"\nsingle_use_jti = {single_use}\n{more}");
                for rules in [
                    vec![],
                    vec![reporter()],
                    vec![grant("all", "subject = \"system:serviceaccount:*:*\""), reporter()],
                ] {
                    let text = [vec![trust("k8s", &cluster, &settings)], rules].concat().join("\n");
                    let Ok(read) = TrustPolicy::from_toml(&text) else { continue };
                    let evaluator = TrustEvaluator::builder()
                        .policy(read)
                        .clock(clock.clone())
                        .build()
                        .unwrap();
                    let tokens = [
                        ("plain", pod(&cluster).sign()),
                        ("no jti", pod(&cluster).without("jti").sign()),
                        ("empty jti", pod(&cluster).claim("jti", "").sign()),
                        ("number jti", pod(&cluster).claim("jti", 7).sign()),
                        ("no sub", pod(&cluster).without("sub").sign()),
                        ("other sub", pod(&cluster).subject("system:serviceaccount:x:y").sign()),
                        ("no iat", pod(&cluster).without("iat").sign()),
                        ("other audience", pod(&cluster).audience("other").sign()),
                        ("cnf", pod(&cluster).claim("cnf", json!({ "jkt": "x" })).sign()),
                        ("junk", "a.b.c".to_owned()),
                    ];
                    for (name, token) in tokens {
                        let explained = evaluator.explain(&token, None).await;
                        let explained = explained.denial().map_or("granted", |it| it.as_str());
                        let decided = evaluator.evaluate(&token, None, &Scopes::new()).await;
                        let decided =
                            decided.as_ref().err().map_or("granted", |it| it.reason().as_str());
                        if explained != decided {
                            differences.push(format!("{name} ({mode}, single use {single_use}, {more}): explain {explained}, evaluate {decided}"));
                        }
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A valid policy of about 1 MiB.
fn large(nth: usize) -> String {
    format!("# {nth}\n{}", format!("# {}\n", "x".repeat(997)).repeat(1030))
}

#[tokio::test(flavor = "multi_thread")]
async fn history_delays_no_decision() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let file = File::new("trust.toml", "");
    let store = FilePolicies::new(file.path());
    let mut latest = store.latest().await.unwrap();
    for nth in 0..8 {
        let text = format!("{}{}", large(nth), text(&cluster, "first"));
        assert!(text.len() <= TrustPolicy::MAX_TEXT_BYTES, "{}", text.len());
        match store.append(new(&text), latest.as_ref()).await.unwrap() {
            Appended::Done(id) => latest = Some(id),
            Appended::Conflict(id) => panic!("{id:?}"),
        }
    }
    let evaluator =
        TrustEvaluator::builder().file(file.path()).clock(clock.clone()).build().unwrap();
    assert_eq!(rule(&evaluator, &cluster).await, "first");
    // Administrators open the page with the history.
    let store = evaluator.policy_store().unwrap().clone();
    let begin = std::time::Instant::now();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.history(None, 100).await.map(|it| it.len()) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    clock.advance(PERIOD);
    let token = pod(&cluster).sign();
    let asked = std::time::Instant::now();
    ask(&evaluator, &token).await.unwrap();
    let waited = asked.elapsed();
    let is_away = evaluator.current().is_store_away();
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    println!("8 histories of 8 versions: {:?}; the decision waited {waited:?}", begin.elapsed());
    assert!(!is_away, "the store works, but is shown as away; the decision waited {waited:?}");
}

/// Counts the reads of a store in memory.
#[derive(Debug, Clone, Default)]
struct Counted(MemoryPolicies, Arc<std::sync::atomic::AtomicUsize>);

#[async_trait]
impl PolicyStore for Counted {
    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        self.0.latest().await
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.read(number).await
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        self.0.append(version, expected).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        self.0.history(before, limit).await
    }
}

#[tokio::test]
async fn rejected_version_is_parsed_once() {
    let clock = ManualClock::new();
    let store = Counted::default();
    store.0.append(new("faulty = 1"), None).await.unwrap();
    let evaluator =
        TrustEvaluator::builder().store(store.clone()).clock(clock.clone()).build().unwrap();
    for _ in 0..20 {
        assert!(evaluator.sync().await.is_err());
    }
    let reads = store.1.load(Ordering::SeqCst);
    assert!(reads <= 2, "{reads} reads of one version that cannot be used");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_syncs_load_once() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let store = Counted::default();
    store.0.append(new(&text(&cluster, "first")), None).await.unwrap();
    let evaluator =
        TrustEvaluator::builder().store(store.clone()).clock(clock.clone()).build().unwrap();
    let syncs: Vec<_> = (0..50)
        .map(|_| {
            let evaluator = evaluator.clone();
            tokio::spawn(async move { evaluator.sync().await.is_ok() })
        })
        .collect();
    for sync in syncs {
        assert!(sync.await.unwrap());
    }
    let reads = store.1.load(Ordering::SeqCst);
    assert!(reads <= 4, "{reads} concurrent loads of one version");
}

/// Needs a small disk: `mount -t tmpfs -o size=256k tmpfs /tmp/break-a-small`.
#[tokio::test]
async fn full_disk_loses_nothing() {
    let folder = std::path::Path::new("/tmp/break-a-small");
    if !folder.exists() {
        return;
    }
    for fill in [0_usize, 8, 16, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap()
            } else {
                fs::remove_file(path).unwrap()
            }
        }
        let path = folder.join("trust.toml");
        let store = FilePolicies::new(&path);
        let first = "# first\n".repeat(2000);
        let second = "# second\n".repeat(2000);
        let Appended::Done(id) = store.append(new(&first), None).await.unwrap() else { panic!() };
        let edited = "# edited\n".repeat(2000);
        fs::write(&path, &edited).unwrap();
        let edit = store.latest().await.unwrap();
        let mut junk = vec![0_u8; (256 - 60 - fill) * 1024];
        while fs::write(folder.join("junk"), &junk).is_err() {
            junk.truncate(junk.len() - 4096);
        }
        let appended = store.append(new(&second), edit.as_ref()).await;
        let now = fs::read_to_string(&path).unwrap();
        match &appended {
            Ok(Appended::Done(_)) => assert_eq!(now, second),
            Ok(conflict) => panic!("{conflict:?}"),
            Err(error) => {
                assert!(now == edited || now == second, "{error}");
                assert!(error.to_string().contains("free space"), "{error}");
            }
        }
        println!("{fill} KiB: {appended:?}");
        // With space again, everything works, and nothing is left.
        fs::remove_file(folder.join("junk")).unwrap();
        let fresh = FilePolicies::new(&path);
        let latest = fresh.latest().await.unwrap();
        fresh.append(new("# last\n"), latest.as_ref()).await.unwrap();
        assert_eq!(fresh.read(1).await.unwrap().unwrap().change.id, id);
        let texts: Vec<_> = {
            let mut texts = Vec::new();
            for change in fresh.history(None, 100).await.unwrap() {
                texts.push(fresh.read(change.id.number()).await.unwrap().unwrap().text);
            }
            texts
        };
        assert!(texts.contains(&edited), "the edit by hand is lost");
        let left: Vec<_> =
            fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }
}

#[tokio::test]
async fn extra_scope_keeps_the_lockout_check() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    let own = caller("sa:k8s:reporting", "tnt_acme", "openid secrets:read");
    assert!(evaluator.would_lock_out(&TrustPolicy::default(), &own, own.tenant_id()));
}

#[tokio::test]
async fn removed_scope_locks_out() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let head = trust("k8s", &cluster, "");
    let evaluator = evaluator(&clock, &[head.clone(), reporter()]);
    let own = caller("sa:k8s:reporting", "tnt_acme", "openid secrets:read secrets:list");
    let locks_out = |rule: String| {
        evaluator.would_lock_out(&policy(&[head.clone(), rule]), &own, own.tenant_id())
    };
    assert!(!locks_out(reporter()));
    assert!(locks_out(reporter().replace(", \"secrets:list\"", "")));
}

#[tokio::test]
async fn other_rules_do_not_hide_a_lockout() {
    let clock = ManualClock::new();
    let (cluster, second) = (platform(&clock).await, platform(&clock).await);
    let head = trust("k8s", &cluster, "");
    // Gives the identity of the reporter, too, but to another workload.
    let stand_in = grant("stand-in", "subject = \"x:y\"")
        .replace("sa:{trust}:stand-in", "sa:k8s:reporting")
        .replace(", \"secrets:list\"", "");
    let both = [head.clone(), reporter(), stand_in.clone()];
    let own = caller("sa:k8s:reporting", "tnt_acme", "secrets:read secrets:list");
    let locks_out = |evaluator: &TrustEvaluator, parts: &[String]| {
        evaluator.would_lock_out(&policy(parts), &own, own.tenant_id())
    };
    // It has more scopes by its own rule than by the other one.
    let unseen = evaluator(&clock, &both);
    let fewer = [head.clone(), reporter().replace(", \"secrets:list\"", ""), stand_in.clone()];
    assert!(!locks_out(&unseen, &both));
    assert!(locks_out(&unseen, &fewer));
    // Its last token would get another identity, or nothing.
    let all = stand_in.replace("\"secrets:read\"", "\"secrets:read\", \"secrets:list\"");
    let seen = evaluator(&clock, &[head.clone(), reporter()]);
    ask(&seen, &pod(&cluster).sign()).await.unwrap();
    let renamed = reporter().replace("sa:{trust}:reporting", "sa:{trust}:renamed");
    assert!(locks_out(&seen, &[head.clone(), renamed, all.clone()]));
    let audit = trust("k8s", &cluster, "mode = \"audit\"");
    assert!(locks_out(&seen, &[audit, reporter(), trust("b", &second, ""), all]));
}
