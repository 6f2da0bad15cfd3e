//! A policy is exchanged whole, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
use scaikey_auth::{Auth, AuthConfig, TokenExchangeClient};

use crate::support::{File, Log};

use super::fixture::{ask, grant, platform, pod, policy, reporter, trust, trusts, why};

fn text(cluster: &Provider, rule: &str) -> String {
    format!("{}{rule}", trust("k8s", cluster, "single_use_jti = true"))
}

#[tokio::test]
async fn a_bad_file_leaves_the_policy_in_force_and_every_fault_is_told() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Log::start();
    let file = File::new("bad.toml", &text(&cluster, &reporter()));
    let trusts = TrustEvaluator::builder().file(file.path()).clock(clock.clone()).build().unwrap();
    ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    let before = trusts.policy();

    file.write("[[trust]]\nid = \"k8s\"\nissuer = \"http://x\"\nmode = \"off\"\n");
    assert_eq!(trusts.reload().unwrap_err().faults().len(), 3);
    assert!(log.text().contains("trust policy refused"));
    file.remove();
    assert!(trusts.reload().unwrap_err().to_string().contains("cannot be read"));
    assert_eq!(trusts.policy(), before);
    ask(&trusts, &pod(&cluster).sign()).await.unwrap();

    file.write("");
    trusts.reload().unwrap();
    assert_eq!(why(&trusts, &pod(&cluster).sign()).await, "trust_none");
}

#[tokio::test]
async fn endpoints_hand_out_their_trusts() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let file = File::new("endpoints.toml", "");
    let path = file.name();
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
    let trusts = endpoints.workloads().unwrap().evaluator();
    assert!(trusts.health().is_empty());
    file.write(&text(&cluster, &reporter()));
    trusts.reload().unwrap();
    assert_eq!(trusts.health()[0].0, "k8s");
}

#[tokio::test]
async fn keys_at_hand_and_tokens_used_outlive_the_policy() {
    let clock = ManualClock::new();
    let (cluster, other) = (platform(&clock).await, platform(&clock).await);
    let file = File::new("kept.json", "");
    let json = |parts: &[String]| serde_json::to_string(&policy(parts)).unwrap();
    file.write(&json(&[text(&cluster, &reporter())]));
    let trusts = TrustEvaluator::builder().file(file.path()).clock(clock.clone()).build().unwrap();
    let used = pod(&cluster).sign();
    ask(&trusts, &used).await.unwrap();
    assert_eq!(cluster.jwks_requests(), 1);

    let renamed = grant("renamed", "subject = \"system:serviceaccount:reports:*\"");
    file.write(&json(&[text(&cluster, &renamed), trust("other", &other, "")]));
    trusts.reload().unwrap();
    assert_eq!(why(&trusts, &used).await, "replayed");
    assert_eq!(ask(&trusts, &pod(&cluster).sign()).await.unwrap().grant, "renamed");
    assert_eq!((cluster.jwks_requests(), other.jwks_requests()), (1, 0));

    // Another source of keys is another source of keys.
    let elsewhere = format!("jwks = {{ url = \"{}\" }}", other.jwks_uri());
    trusts.replace(policy(&[trust("k8s", &cluster, &elsewhere), renamed])).unwrap();
    assert_eq!(why(&trusts, &pod(&cluster).sign()).await, "token_key_unknown");
    assert_eq!(other.jwks_requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_decision_sees_half_of_a_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    // Under each policy the tenant and the identity belong together.
    let version = |name: &str| -> TrustPolicy {
        let rule = reporter().replace("tnt_acme", name).replace("{trust}", name);
        policy(&[trust("k8s", &cluster, ""), rule])
    };
    let (a, b) = (version("tnt-a"), version("tnt-b"));
    let trusts = TrustEvaluator::builder().policy(a.clone()).clock(clock.clone()).build().unwrap();
    let token = pod(&cluster).sign();
    ask(&trusts, &token).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let changing = tokio::task::spawn_blocking({
        let (trusts, done) = (trusts.clone(), done.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                trusts.replace(b.clone()).unwrap();
                trusts.replace(a.clone()).unwrap();
            }
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let granted = ask(&trusts, &token).await.unwrap();
        assert_eq!(granted.identity, format!("sa:{}:reporting", granted.tenant));
        seen.insert(granted.tenant.to_string());
    }
    done.store(true, Ordering::Relaxed);
    changing.await.unwrap();
    assert_eq!(seen.len(), 2, "both were in force");
    assert_eq!(cluster.jwks_requests(), 1);
}

#[test]
fn there_is_one_source_of_the_policy() {
    let both = TrustEvaluator::builder().policy(TrustPolicy::default()).file("x.toml").build();
    assert!(both.unwrap_err().to_string().contains("give one"));
    assert!(trusts(&ManualClock::new(), &[]).reload().is_err());
    assert!(TrustEvaluator::builder().file("does/not/exist.toml").build().is_err());
}
