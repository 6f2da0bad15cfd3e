//! Decisions about tokens: scopes, ambiguity, audit mode, expiry, outages, and public answers.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint, SigningKey};
use scaikey_auth::trust::Denied;

use super::fixture::{REPORTER, ask, bare, evaluator, grant, platform, pod, reporter, trust, why};

#[tokio::test]
async fn trust_without_rule_grants_nothing() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let alone = evaluator(&clock, &[trust("k8s", &cluster, "")]);
    assert_eq!(why(&alone, &pod(&cluster).sign()).await, "grant_none");
}

#[tokio::test]
async fn rule_applies_only_to_its_trust() {
    let clock = ManualClock::new();
    let (one, other) = (platform(&clock).await, platform(&clock).await);
    let parts = [trust("one", &one, ""), reporter(), trust("other", &other, "")];
    let evaluator = evaluator(&clock, &parts);
    assert!(ask(&evaluator, &pod(&one).sign()).await.is_ok());
    assert_eq!(why(&evaluator, &pod(&other).sign()).await, "grant_none");
}

#[tokio::test]
async fn two_matching_rules_are_ambiguous() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let both = [
        trust("k8s", &cluster, ""),
        reporter(),
        grant("all", "subject = \"system:serviceaccount:reports:*\""),
    ];
    let evaluator = evaluator(&clock, &both);
    assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "grant_ambiguous");
    let neighbour = pod(&cluster).subject("system:serviceaccount:reports:other").sign();
    assert_eq!(ask(&evaluator, &neighbour).await.unwrap().rule, "all");
}

#[tokio::test]
async fn rule_limits_requested_scopes() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let token = pod(&cluster).claim("scope", "admin").sign();
    let scopes_for = async |scopes: &str| {
        let granted = evaluator.evaluate(&token, None, &scopes.parse().unwrap()).await;
        granted.map(|granted| granted.scopes.to_string()).map_err(|denied| denied.code())
    };
    assert_eq!(scopes_for("").await, Ok("secrets:read secrets:list".to_owned()));
    assert_eq!(scopes_for("secrets:list").await, Ok("secrets:list".to_owned()));
    assert_eq!(scopes_for("secrets:read admin").await, Err("invalid_scope"));
    assert_eq!(scopes_for("admin").await, Err("invalid_scope"));
}

#[tokio::test]
async fn audit_mode_grants_nothing() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, "mode = \"audit\""), reporter()]);
    assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "audit_mode");
    assert_eq!(why(&evaluator, &pod(&cluster).subject("x").sign()).await, "grant_none");
    let explained = evaluator.explain(&pod(&cluster).sign(), None).await;
    assert_eq!(explained.rule(), Some("reporting"));
    assert_eq!(explained.denial().map(|reason| reason.as_str()), Some("audit_mode"));
}

#[tokio::test]
async fn not_after_limits_trust_and_expiry() {
    // 2026-05-16T13:51:07Z
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_939_467);
    let clock = ManualClock::at(start);
    let cluster = platform(&clock).await;
    let more = "not_after = \"2026-05-16\"";
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, more), reporter()]);
    let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_976_000);
    let granted = ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(granted.expires_at, start + Duration::from_secs(3600));
    clock.advance(midnight.duration_since(start).unwrap() - Duration::from_secs(1));
    let granted = ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(granted.expires_at, midnight);
    clock.advance(Duration::from_secs(1));
    assert_eq!(why(&evaluator, &pod(&cluster).sign()).await, "trust_ended");
}

#[tokio::test]
async fn max_age_denies_unexpired_token() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let more = "max_age = \"5m\"\nleeway = \"0s\"\nmax_lifetime = \"1h\"";
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, more), reporter()]);
    let token = pod(&cluster).sign();
    clock.advance(Duration::from_secs(299));
    assert!(ask(&evaluator, &token).await.is_ok());
    clock.advance(Duration::from_secs(2));
    assert_eq!(why(&evaluator, &token).await, "token_age");
    let long = pod(&cluster).expires_in(Duration::from_secs(3601)).sign();
    assert_eq!(why(&evaluator, &long).await, "token_lifetime");
}

#[tokio::test]
async fn unknown_issuer_causes_no_request() {
    let clock = ManualClock::new();
    let (cluster, evil) = (platform(&clock).await, platform(&clock).await);
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let tokens = [
        pod(&evil).sign(),
        pod(&evil).header("jku", evil.jwks_uri()).issuer("http://169.254.169.254").sign(),
        pod(&cluster).issuer(&format!("{}/evil", cluster.issuer())).sign(),
        pod(&cluster).claim("iss", 7).sign(),
        pod(&cluster).claim("aud", 7).sign(),
        "a.b.c".to_owned(),
        String::new(),
    ];
    for token in tokens {
        assert!(ask(&evaluator, &token).await.is_err());
    }
    for platform in [&cluster, &evil] {
        assert_eq!(
            (platform.jwks_requests(), platform.discovery_requests(), platform.stray_requests()),
            (0, 0, 0)
        );
    }
}

#[tokio::test]
async fn unavailable_keys_give_temporarily_unavailable() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    cluster.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let denied = ask(&evaluator, &pod(&cluster).sign()).await.unwrap_err();
    assert_eq!((denied.code(), denied.status().as_u16()), ("temporarily_unavailable", 503));
    assert!(denied.retry_after().is_some());
    assert_eq!(evaluator.health()[0].0, "k8s");
    cluster.heal(ProviderEndpoint::Jwks);
    clock.advance(Duration::from_secs(61));
    assert!(ask(&evaluator, &pod(&cluster).sign()).await.is_ok());
}

#[tokio::test]
async fn public_response_is_same_for_all_faults() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let parts = [
        trust("k8s", &cluster, "single_use_jti = true"),
        reporter(),
        grant("doubled", "subject = \"a:b\""),
        grant("doubled-2", "subject = \"a:*\""),
    ];
    let evaluator = evaluator(&clock, &parts);
    let used = pod(&cluster).sign();
    ask(&evaluator, &used).await.unwrap();
    let unknown_key = SigningKey::generate(Algorithm::ES256);
    let forged = format!("{}A", &used[..used.len() - 1]);
    let tokens = [
        used,
        forged,
        "garbage".to_owned(),
        pod(&cluster).subject("other").sign(),
        pod(&cluster).subject("a:b").sign(),
        pod(&cluster).expired().sign(),
        pod(&cluster).audience("other").sign(),
        pod(&cluster).issuer("https://other.example").sign(),
        pod(&cluster).signed_by(&unknown_key).sign(),
        pod(&cluster).without("jti").sign(),
        pod(&cluster).expires_in(Duration::from_secs(999_999)).sign(),
        bare(&cluster)
            .subject(REPORTER)
            .claim("cnf", serde_json::json!({"jkt": "A".repeat(43)}))
            .sign(),
    ];
    let mut answers = BTreeSet::new();
    let mut reasons = BTreeSet::new();
    for token in &tokens {
        let denied: Denied = ask(&evaluator, token).await.unwrap_err();
        answers.insert((
            denied.code(),
            denied.public_message(),
            denied.status(),
            denied.retry_after(),
        ));
        reasons.insert(denied.reason().as_str());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers.first().unwrap().0, "invalid_request");
    assert!(reasons.len() > 9 && reasons.contains("token_unproven"), "{reasons:?}");
    let unknown = evaluator.evaluate(&tokens[0], Some("other"), &Scopes::new()).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.public_message()), {
        let (code, message, ..) = answers.first().unwrap();
        (*code, *message)
    });
}
