//! Reloading and replacing a policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
use scaikey_auth::{Auth, AuthConfig, TokenExchangeClient};

use crate::support::{File, Log};

use super::fixture::{ask, evaluator, grant, platform, pod, policy, reporter, trust, why};

fn text(cluster: &Provider, rule: &str) -> String {
    format!("{}{rule}", trust("k8s", cluster, "single_use_jti = true"))
}

#[tokio::test]
async fn bad_file_keeps_current_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Log::start();
    let file = File::new("bad.toml", &text(&cluster, &reporter()));
    let evaluator =
        TrustEvaluator::builder().file(file.path()).clock(clock.clone()).build().unwrap();
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    let before = evaluator.policy();

    file.write("[[trust]]\nid = \"k8s\"\nissuer = \"http://x\"\nmode = \"off\"\n");
    assert_eq!(evaluator.reload().unwrap_err().faults().len(), 3);
    assert!(log.text().contains("trust policy rejected"));
    file.remove();
    assert!(evaluator.reload().unwrap_err().to_string().contains("cannot be read"));
    assert_eq!(evaluator.policy(), before);
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();

    file.write("");
    evaluator.reload().unwrap();
    assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "trust_none");
}

#[tokio::test]
async fn endpoints_expose_their_trust_evaluator() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let file = File::new("endpoints.toml", "");
    let path = file.path_text();
    let variables = [
        ("ISSUER", "https://scaikey.example"),
        ("AUDIENCE", "scaivault"),
        ("CLIENT_ID", "scaivault"),
        ("CLIENT_SECRET", "secret"),
        ("TRUST_FILE", &path),
    ];
    let variables = variables.map(|(name, value)| (format!("P_{name}"), value.to_owned()));
    let config = AuthConfig::from_vars("P", variables);
    let auth = Auth::from_config(config.clone()).build().unwrap();
    assert!(auth.endpoints().build().unwrap().workloads().is_none());
    let client = TokenExchangeClient::from_config(&config).build().unwrap();
    let endpoints = auth.endpoints().client(client).configured(&config).build().unwrap();
    let evaluator = endpoints.workloads().unwrap().evaluator();
    assert!(evaluator.health().is_empty());
    file.write(&text(&cluster, &reporter()));
    evaluator.reload().unwrap();
    assert_eq!(evaluator.health()[0].0, "k8s");
}

#[tokio::test]
async fn reload_keeps_keys_and_replay_log() {
    let clock = ManualClock::new();
    let (cluster, other) = (platform(&clock).await, platform(&clock).await);
    let file = File::new("kept.json", "");
    let json = |parts: &[String]| serde_json::to_string(&policy(parts)).unwrap();
    file.write(&json(&[text(&cluster, &reporter())]));
    let evaluator =
        TrustEvaluator::builder().file(file.path()).clock(clock.clone()).build().unwrap();
    let used = pod(&cluster).sign();
    ask(&evaluator, &used).await.unwrap();
    assert_eq!(cluster.jwks_requests(), 1);

    let renamed = grant("renamed", "subject = \"system:serviceaccount:reports:*\"");
    file.write(&json(&[text(&cluster, &renamed), trust("other", &other, "")]));
    evaluator.reload().unwrap();
    assert_eq!(why(&evaluator, &used).await, "replayed");
    assert_eq!(ask(&evaluator, &pod(&cluster).sign()).await.unwrap().rule, "renamed");
    assert_eq!((cluster.jwks_requests(), other.jwks_requests()), (1, 0));

    // Keys from another URL replace the cached ones.
    let elsewhere = format!("jwks = {{ url = \"{}\" }}", other.jwks_uri());
    evaluator.replace(policy(&[trust("k8s", &cluster, &elsewhere), renamed])).unwrap();
    assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "token_key_unknown");
    assert_eq!(other.jwks_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decision_uses_one_whole_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    // Each policy has its own pair of tenant and identity.
    let version = |name: &str| -> TrustPolicy {
        let rule = reporter().replace("tnt_acme", name).replace("{trust}", name);
        policy(&[trust("k8s", &cluster, ""), rule])
    };
    let (a, b) = (version("tnt-a"), version("tnt-b"));
    let evaluator =
        TrustEvaluator::builder().policy(a.clone()).clock(clock.clone()).build().unwrap();
    let token = pod(&cluster).sign();
    ask(&evaluator, &token).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::task::spawn_blocking({
        let (evaluator, done) = (evaluator.clone(), done.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                evaluator.replace(b.clone()).unwrap();
                evaluator.replace(a.clone()).unwrap();
            }
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let granted = ask(&evaluator, &token).await.unwrap();
        assert_eq!(granted.identity, format!("sa:{}:reporting", granted.tenant));
        seen.insert(granted.tenant.to_string());
    }
    done.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert_eq!(seen.len(), 2, "both policies were used");
    assert_eq!(cluster.jwks_requests(), 1);
}

#[test]
fn policy_and_file_exclude_each_other() {
    let both = TrustEvaluator::builder().policy(TrustPolicy::default()).file("x.toml").build();
    assert!(both.unwrap_err().to_string().contains("give one"));
    assert!(evaluator(&ManualClock::new(), &[]).reload().is_err());
    assert!(TrustEvaluator::builder().file("does/not/exist.toml").build().is_err());
}
