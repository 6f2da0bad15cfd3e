//! One decision: scopes, ambiguity, trial, ends, outages, and what the caller learns.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint, SigningKey};
use scaikey_auth::trust::Denied;

use super::fixture::{REPORTER, ask, bare, grant, platform, pod, reporter, trust, trusts, why};

#[tokio::test]
async fn a_trust_without_a_rule_grants_nothing() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let alone = trusts(&clock, &[trust("k8s", &cluster, "")]);
    assert_eq!(why(&alone, &pod(&cluster).sign()).await, "grant_none");
}

#[tokio::test]
async fn a_rule_of_one_trust_says_nothing_about_anothers_tokens() {
    let clock = ManualClock::new();
    let (one, other) = (platform(&clock).await, platform(&clock).await);
    let parts = [trust("one", &one, ""), reporter(), trust("other", &other, "")];
    let trusts = trusts(&clock, &parts);
    assert!(ask(&trusts, &pod(&one).sign()).await.is_ok());
    assert_eq!(why(&trusts, &pod(&other).sign()).await, "grant_none");
}

#[tokio::test]
async fn two_rules_that_match_are_nobody_in_particular() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let both = [
        trust("k8s", &cluster, ""),
        reporter(),
        grant("all", "subject = \"system:serviceaccount:reports:*\""),
    ];
    let trusts = trusts(&clock, &both);
    assert_eq!(why(&trusts, &pod(&cluster).sign()).await, "grant_ambiguous");
    let neighbour = pod(&cluster).subject("system:serviceaccount:reports:other").sign();
    assert_eq!(ask(&trusts, &neighbour).await.unwrap().grant, "all");
}

#[tokio::test]
async fn scopes_are_what_was_asked_for_within_what_the_rule_permits() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let token = pod(&cluster).claim("scope", "admin").sign();
    let asked = async |scopes: &str| {
        let granted = trusts.evaluate(&token, None, &scopes.parse().unwrap()).await;
        granted.map(|granted| granted.scopes.to_string()).map_err(|denied| denied.code())
    };
    assert_eq!(asked("").await, Ok("secrets:read secrets:list".to_owned()));
    assert_eq!(asked("secrets:list").await, Ok("secrets:list".to_owned()));
    assert_eq!(asked("secrets:read admin").await, Err("invalid_scope"));
    assert_eq!(asked("admin").await, Err("invalid_scope"));
}

#[tokio::test]
async fn a_trust_on_trial_judges_and_grants_nothing() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let trusts = trusts(&clock, &[trust("k8s", &cluster, "mode = \"audit\""), reporter()]);
    assert_eq!(why(&trusts, &pod(&cluster).sign()).await, "audit_mode");
    assert_eq!(why(&trusts, &pod(&cluster).subject("x").sign()).await, "grant_none");
    let explained = trusts.explain(&pod(&cluster).sign(), None).await;
    assert_eq!(explained.grant(), Some("reporting"));
    assert_eq!(explained.refusal().map(|reason| reason.as_str()), Some("audit_mode"));
}

#[tokio::test]
async fn a_trust_ends_with_its_last_day_and_so_does_what_it_grants() {
    // 2026-05-16T13:51:07Z
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_939_467);
    let clock = ManualClock::at(start);
    let cluster = platform(&clock).await;
    let more = "not_after = \"2026-05-16\"";
    let trusts = trusts(&clock, &[trust("k8s", &cluster, more), reporter()]);
    let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_976_000);
    let granted = ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(granted.expires_at, start + Duration::from_secs(3600));
    clock.advance(midnight.duration_since(start).unwrap() - Duration::from_secs(1));
    let granted = ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(granted.expires_at, midnight);
    clock.advance(Duration::from_secs(1));
    assert_eq!(why(&trusts, &pod(&cluster).sign()).await, "trust_ended");
}

#[tokio::test]
async fn a_token_may_be_too_old_though_it_has_not_expired() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let more = "max_age = \"5m\"\nleeway = \"0s\"\nmax_lifetime = \"1h\"";
    let trusts = trusts(&clock, &[trust("k8s", &cluster, more), reporter()]);
    let token = pod(&cluster).sign();
    clock.advance(Duration::from_secs(299));
    assert!(ask(&trusts, &token).await.is_ok());
    clock.advance(Duration::from_secs(2));
    assert_eq!(why(&trusts, &token).await, "token_age");
    let long = pod(&cluster).expires_in(Duration::from_secs(3601)).sign();
    assert_eq!(why(&trusts, &long).await, "token_lifetime");
}

#[tokio::test]
async fn an_unknown_issuer_costs_no_request() {
    let clock = ManualClock::new();
    let (cluster, evil) = (platform(&clock).await, platform(&clock).await);
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ""), reporter()]);
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
        assert!(ask(&trusts, &token).await.is_err());
    }
    for platform in [&cluster, &evil] {
        assert_eq!(
            (platform.jwks_requests(), platform.discovery_requests(), platform.stray_requests()),
            (0, 0, 0)
        );
    }
}

#[tokio::test]
async fn while_the_platform_is_away_the_answer_is_later_and_not_no() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    cluster.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ""), reporter()]);
    let denied = ask(&trusts, &pod(&cluster).sign()).await.unwrap_err();
    assert_eq!((denied.code(), denied.status().as_u16()), ("temporarily_unavailable", 503));
    assert!(denied.retry_after().is_some());
    assert_eq!(trusts.health()[0].0, "k8s");
    cluster.heal(ProviderEndpoint::Jwks);
    clock.advance(Duration::from_secs(61));
    assert!(ask(&trusts, &pod(&cluster).sign()).await.is_ok());
}

#[tokio::test]
async fn the_caller_learns_the_same_whatever_is_wrong_with_the_token() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let parts = [
        trust("k8s", &cluster, "single_use_jti = true"),
        reporter(),
        grant("doubled", "subject = \"a:b\""),
        grant("doubled-2", "subject = \"a:*\""),
    ];
    let trusts = trusts(&clock, &parts);
    let used = pod(&cluster).sign();
    ask(&trusts, &used).await.unwrap();
    let strange = SigningKey::generate(Algorithm::ES256);
    let forged = format!("{}A", &used[..used.len() - 1]);
    let tokens = [
        used,
        forged,
        "garbage".to_owned(),
        pod(&cluster).subject("somebody").sign(),
        pod(&cluster).subject("a:b").sign(),
        pod(&cluster).expired().sign(),
        pod(&cluster).audience("other").sign(),
        pod(&cluster).issuer("https://other.example").sign(),
        pod(&cluster).signed_by(&strange).sign(),
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
        let denied: Denied = ask(&trusts, token).await.unwrap_err();
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
    let unknown = trusts.evaluate(&tokens[0], Some("other"), &Scopes::new()).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.public_message()), {
        let (code, message, ..) = answers.first().unwrap();
        (*code, *message)
    });
}
