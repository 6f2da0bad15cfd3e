//! Decisions of late and the use of each trust: what is kept, for how long, and what is not.

use std::time::Duration;

use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::ManualClock;
use scaikey_auth::trust::{Decision, DecisionFilter};
use serde_json::json;

use crate::support::Log;

use super::fixture::{
    REPORTER, ask, evaluator, grant, platform, pod, policy, reporter, trust, trust_called, why,
};

/// printf %s system:serviceaccount:reports:reporter | sha256sum
const REPORTER_SHA256: &str = "ac787648293acaaf625497c52fd43b5b152574cacc60c0dd941a5e3915ebab44";

fn all() -> DecisionFilter {
    DecisionFilter::new()
}

fn outcomes(decisions: &[Decision]) -> Vec<&'static str> {
    decisions.iter().map(|decision| decision.outcome).collect()
}

#[tokio::test]
async fn decision_says_trust_rule_and_outcome() {
    let clock =
        ManualClock::at(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_939_467));
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    clock.advance(Duration::from_millis(1500));
    let list = "secrets:list".parse().unwrap();
    evaluator.evaluate(&pod(&cluster).sign(), Some("k8s"), &list).await.unwrap();
    let decisions = evaluator.decisions(&all());
    assert_eq!(
        serde_json::to_value(&decisions).unwrap(),
        json!([
            {
                "number": 1_778_939_468_500_000_u64, "at": "2026-05-16T13:51:08Z", "trust": "k8s", "rule": "reporting",
                "outcome": "granted", "tenant": "tnt_acme", "subject_sha256": REPORTER_SHA256,
                "scopes": ["secrets:list"],
            },
            {
                "number": 1_778_939_467_000_000_u64, "at": "2026-05-16T13:51:07Z", "trust": "k8s", "rule": "reporting",
                "outcome": "granted", "tenant": "tnt_acme", "subject_sha256": REPORTER_SHA256,
                "scopes": ["secrets:read", "secrets:list"],
            },
        ])
    );
}

#[tokio::test]
async fn denials_name_rule_only_if_one_matches() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let parts = [
        trust("k8s", &cluster, "single_use_jti = true"),
        reporter(),
        grant("doubled", "subject = \"a:b\""),
        grant("doubled-2", "subject = \"a:*\""),
    ];
    let evaluator = evaluator(&clock, &parts);
    let token = pod(&cluster).sign();
    ask(&evaluator, &token).await.unwrap();
    assert_eq!(why(&evaluator, &token).await, "replayed");
    let admin = "admin".parse().unwrap();
    evaluator.evaluate(&pod(&cluster).sign(), None, &admin).await.unwrap_err();
    let others = [
        (pod(&cluster).subject("a:b").sign(), "grant_ambiguous"),
        (pod(&cluster).subject("x").sign(), "grant_none"),
        (pod(&cluster).without("jti").sign(), "jti_missing"),
        (pod(&cluster).expired().sign(), "token_expired"),
        (pod(&cluster).issuer("https://x.example").sign(), "trust_none"),
    ];
    for (token, reason) in &others {
        assert_eq!(why(&evaluator, token).await, *reason);
    }
    evaluator.evaluate(&token, Some("canary"), &Scopes::new()).await.unwrap_err();
    let seen: Vec<_> = evaluator
        .decisions(&all())
        .into_iter()
        .map(|it| {
            (
                it.outcome,
                it.trust.is_some(),
                it.rule.is_some(),
                it.tenant.is_some(),
                it.scopes.is_empty(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("trust_unknown", false, false, false, true),
            ("trust_none", false, false, false, true),
            ("token_expired", true, false, false, true),
            ("jti_missing", true, true, true, true),
            ("grant_none", true, false, false, true),
            ("grant_ambiguous", true, false, false, true),
            ("scope", true, true, true, true),
            ("replayed", true, true, true, true),
            ("granted", true, true, true, false),
        ]
    );
}

#[tokio::test]
async fn filter_conditions_must_all_hold() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let other = grant("other", "subject = \"other\"").replace("tnt_acme", "tnt_other");
    let parts = [
        trust_called("https://a.example", "a", &cluster, ""),
        reporter(),
        other,
        trust_called("https://b.example", "b", &cluster, ""),
        reporter(),
    ];
    let evaluator = evaluator(&clock, &parts);
    for (issuer, subject) in
        [("a", REPORTER), ("a", "other"), ("b", REPORTER), ("b", "x"), ("a", "x"), ("c", "x")]
    {
        let issuer = format!("https://{issuer}.example");
        let _ = ask(&evaluator, &pod(&cluster).issuer(&issuer).subject(subject).sign()).await;
    }
    let before_first = evaluator.decisions(&all())[5].number - 1;
    let numbers = |filter: DecisionFilter| -> Vec<u64> {
        evaluator.decisions(&filter).iter().map(|it| it.number - before_first).collect()
    };
    let tenant = |id: &str| id.parse().unwrap();
    assert_eq!(numbers(all()), [6, 5, 4, 3, 2, 1]);
    assert_eq!(numbers(all().trust("a")), [5, 2, 1]);
    assert_eq!(numbers(all().outcome("granted")), [3, 2, 1]);
    assert_eq!(numbers(all().trust("a").outcome("granted")), [2, 1]);
    assert_eq!(numbers(all().tenant(tenant("tnt_other"))), [2]);
    assert_eq!(numbers(all().tenant(tenant("tnt_acme")).trust("b")), [3]);
    assert!(numbers(all().tenant(tenant("tnt_none"))).is_empty());
    assert_eq!(numbers(all().after(before_first + 4)), [6, 5]);
    assert!(numbers(all().after(before_first + 6)).is_empty());
    assert_eq!(numbers(all().limit(2)), [6, 5]);
    assert_eq!(numbers(all().outcome("granted").limit(1)), [3]);
    assert!(numbers(all().limit(0)).is_empty());
}

#[tokio::test]
async fn junk_evicts_no_verified_decision() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let good = pod(&cluster).sign();
    let forged = format!("{}AAAA", &good[..good.len() - 4]);
    ask(&evaluator, &good).await.unwrap();
    for _ in 0..1500 {
        ask(&evaluator, "junk").await.unwrap_err();
    }
    for _ in 0..300 {
        assert_eq!(why(&evaluator, &forged).await, "token_signature");
    }
    let kept = evaluator.decisions(&all());
    assert_eq!((kept.len(), kept.last().unwrap().outcome), (201, "granted"));
    assert_eq!(kept[0].number - kept[200].number, 1800);
    assert_eq!(kept[199].number - kept[200].number, 1601, "the latest are kept");
}

#[tokio::test]
async fn last_thousand_verified_decisions_are_kept() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let token = pod(&cluster).sign();
    ask(&evaluator, "junk").await.unwrap_err();
    for _ in 0..Decision::CAPACITY + 5 {
        ask(&evaluator, &token).await.unwrap();
    }
    let kept = evaluator.decisions(&all());
    assert_eq!(kept.len(), Decision::CAPACITY + 1);
    let numbers: Vec<_> = kept.iter().map(|it| it.number - kept[1000].number).collect();
    assert_eq!((numbers[0], numbers[999]), (1005, 6));
    assert!(numbers.is_sorted_by(|a, b| a > b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_decisions_get_distinct_numbers() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let token = pod(&cluster).sign();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (evaluator, token) = (evaluator.clone(), token.clone());
            tokio::spawn(async move {
                for _ in 0..50 {
                    ask(&evaluator, &token).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let decisions = evaluator.decisions(&all());
    let numbers: Vec<_> = decisions.iter().map(|it| it.number - decisions[399].number).collect();
    assert_eq!(numbers, (0..400).rev().collect::<Vec<u64>>());
    assert_eq!(evaluator.usage()[0].granted, 400);
}

#[tokio::test]
async fn audit_mode_records_scopes_of_match() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, "mode = \"audit\""), reporter()]);
    assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "audit_mode");
    let decision = evaluator.decisions(&all()).remove(0);
    assert_eq!(decision.rule.as_deref(), Some("reporting"));
    assert_eq!(decision.scopes.as_str(), "secrets:read secrets:list");
    let usage = evaluator.usage().remove(0);
    assert_eq!((usage.granted, usage.denied, usage.last_used.is_some()), (0, 1, true));
}

#[tokio::test]
async fn usage_outlives_policy_changes() {
    let clock =
        ManualClock::at(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_939_467));
    let (one, other) = (platform(&clock).await, platform(&clock).await);
    let evaluator =
        evaluator(&clock, &[trust("one", &one, ""), reporter(), trust("other", &other, "")]);
    let usage = || serde_json::to_value(evaluator.usage()).unwrap();
    ask(&evaluator, &pod(&one).sign()).await.unwrap();
    ask(&evaluator, &pod(&one).subject("x").sign()).await.unwrap_err();
    clock.advance(Duration::from_secs(60));
    ask(&evaluator, &pod(&one).expired().sign()).await.unwrap_err();
    ask(&evaluator, "junk").await.unwrap_err();
    let one_used =
        json!({"trust": "one", "last_used": "2026-05-16T13:51:07Z", "granted": 1, "denied": 2});
    let unused =
        |trust: &str| json!({"trust": trust, "last_used": null, "granted": 0, "denied": 0});
    assert_eq!(usage(), json!([one_used, unused("other")]));
    // Another order, other keys, other fields: the same id.
    let renamed = trust_called("https://one.example", "one", &one, "leeway = \"5s\"");
    evaluator.replace(policy(&[trust("new", &other, ""), renamed])).unwrap();
    assert_eq!(usage(), json!([unused("new"), one_used]));
    evaluator.replace(policy(&[trust("other", &other, "")])).unwrap();
    evaluator.replace(policy(&[trust("one", &one, "")])).unwrap();
    assert_eq!(usage(), json!([unused("one")]), "the id was gone in between");
    assert_eq!(outcomes(&evaluator.decisions(&all())).len(), 4, "decisions stay");
}

#[tokio::test]
async fn decisions_contain_neither_claims_nor_token() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Log::start();
    let evaluator =
        evaluator(&clock, &[trust("k8s", &cluster, "single_use_jti = true"), reporter()]);
    let token = || pod(&cluster).claim("jti", "canary-jti").claim("note", "canary-note");
    let html = "<img src=x onerror=canary>";
    let tokens = [
        token().sign(),
        token().sign(),
        token().subject("canary-subject").sign(),
        token().subject(html).sign(),
        token().issuer("https://canary.example").sign(),
        token().expired().sign(),
    ];
    for token in &tokens {
        let canary = "canary-scope".parse().unwrap();
        for (id, scopes) in [(None, &Scopes::new()), (Some("canary-id"), &canary), (None, &canary)]
        {
            let _ = evaluator.evaluate(token, id, scopes).await;
        }
    }
    let decisions = evaluator.decisions(&all());
    assert_eq!(decisions.len(), 18);
    let debug = format!("{evaluator:?}");
    assert!(!debug.contains("canary") && !debug.contains("onerror"), "{debug}");
    let texts = [
        format!("{decisions:?}"),
        serde_json::to_string(&decisions).unwrap(),
        format!("{:?}", evaluator.usage()),
        log.text(),
    ];
    for text in texts {
        // Unlike the policy, decisions have no subject.
        for secret in ["canary", "onerror", REPORTER] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        for part in tokens.iter().flat_map(|token| token.split('.')) {
            assert!(!text.contains(part) && !debug.contains(part), "{part} is in {text}");
        }
    }
}
