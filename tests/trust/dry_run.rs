//! Dry runs: decisions of late under a policy that is not in force, and policies that lock out their writer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scaikey_auth::Identity;
use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::{ClaimsMapping, Provenance, Scopes};
use scaikey_auth::replay::MemoryReplayLog;
use scaikey_auth::testing::{Fault, ManualClock, Provider, ProviderEndpoint};
use scaikey_auth::trust::{DecisionFilter, DryRun, TrustEvaluator, TrustPolicy};
use serde_json::json;

use super::fixture::{
    REPORTER, ask, bare, evaluator, grant, platform, pod, policy, reporter, trust, trust_called,
    why,
};

const NAME: &str = "https://k8s.example";

/// A trust for `NAME`, whose keys `cluster` has.
fn k8s(cluster: &Provider, more: &str) -> String {
    trust_called(NAME, "k8s", cluster, more)
}

fn dry_run(evaluator: &TrustEvaluator, policy: &TrustPolicy) -> DryRun {
    evaluator.dry_run(policy, &DecisionFilter::new())
}

/// Returns the changes as `before -> after: differences`, the earliest first, and the number of unknown outcomes.
fn effect(evaluator: &TrustEvaluator, parts: &[String]) -> (Vec<String>, usize) {
    let DryRun { mut changes, unknown, .. } = dry_run(evaluator, &policy(parts));
    changes.reverse();
    let text = changes.iter().map(|change| {
        format!("{} -> {}: {}", change.before, change.after, change.differences.join(" "))
    });
    (text.collect(), unknown)
}

fn changes(texts: &[&str]) -> (Vec<String>, usize) {
    (texts.iter().map(|text| (*text).to_owned()).collect(), 0)
}

fn unknown(count: usize) -> (Vec<String>, usize) {
    (Vec::new(), count)
}

/// An evaluator that decided about one token of the reporter.
async fn after_one(clock: &ManualClock, cluster: &Provider, parts: &[String]) -> TrustEvaluator {
    let evaluator = evaluator(clock, parts);
    let _ = ask(&evaluator, &pod(cluster).issuer(NAME).sign()).await;
    evaluator
}

#[tokio::test]
async fn work_of_a_dry_run_is_limited() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let head = trust("k8s", &cluster, "");
    let evaluator = evaluator(&clock, &[head.clone(), reporter()]);
    for nth in 0..60 {
        let subject = format!("s:{nth}");
        let _ = ask(&evaluator, &pod(&cluster).subject(&subject).sign()).await;
    }
    let rules = |count| {
        let rule = |nth| {
            format!(
                "[[trust.grant]]\nname=\"{nth}\"\nsubject=\"s:{nth}\"\nmap={{identity=\"sa:{nth}\",tenant=\"t\",scopes=[\"r\"]}}\n"
            )
        };
        policy(&[head.clone(), (0..count).map(rule).collect()])
    };
    let small = dry_run(&evaluator, &rules(60));
    assert_eq!((small.considered, small.skipped, small.changes.len()), (60, 0, 60));
    // 10,000 rules are compared with the latest 50 tokens only.
    let large = dry_run(&evaluator, &rules(10_000));
    assert_eq!((large.considered, large.skipped, large.changes.len()), (50, 10, 50));
    assert_eq!(large.changes[..], small.changes[..50]);
}

#[tokio::test]
async fn policy_in_force_changes_nothing() {
    let clock = ManualClock::new();
    let (cluster, mesh) = (platform(&clock).await, platform(&clock).await);
    let svids = format!(
        "[[trust]]\nid = \"mesh\"\ntrust_domain = \"prod.example\"\njwks = {{ url = \"{}\" }}\nallow_loopback_http = true\naudiences = [\"scaivault\"]\n",
        mesh.jwks_uri(),
    );
    let parts = [
        k8s(&cluster, "single_use_jti = true\nmax_age = \"30m\""),
        reporter(),
        grant("doubled", "subject = \"a:b\""),
        grant("doubled-2", "subject = \"a:*\""),
        grant("by-claim", "subject = \"c:c\"\nclaims = { team = { eq = \"a\" } }")
            .replace("sa:{trust}:by-claim", "sa:{trust}:by-claim:{/gone}"),
        trust_called("https://audit.example", "audit", &cluster, "mode = \"audit\""),
        grant("all", "subject = \"x:y\""),
        trust_called("https://over.example", "over", &cluster, "not_after = \"2020-01-01\""),
        svids,
        grant("svid", "subject = \"spiffe://prod.example/ns/reports\""),
    ];
    let evaluator = evaluator(&clock, &parts);
    let at = |issuer: &str| pod(&cluster).issuer(&format!("https://{issuer}.example"));
    let used = at("k8s").sign();
    let forged = format!("{}AAAA", &used[..used.len() - 4]);
    let svid = bare(&mesh).subject("spiffe://prod.example/ns/reports").without("iss").sign();
    let tokens = [
        used.clone(),
        used,
        forged,
        at("k8s").subject("a:b").sign(),
        at("k8s").subject("c:c").claim("team", "a").sign(),
        at("k8s").subject("none").sign(),
        at("k8s").without("jti").sign(),
        at("k8s").expired().sign(),
        at("k8s").expires_in(Duration::from_secs(99_999)).sign(),
        at("audit").subject("x:y").sign(),
        at("over").sign(),
        at("other").sign(),
        svid.clone(),
        svid,
        "junk".to_owned(),
    ];
    for token in &tokens {
        for (id, scopes) in [(None, ""), (Some("k8s"), ""), (Some("gone"), ""), (None, "admin")] {
            let _ = evaluator.evaluate(token, id, &scopes.parse().unwrap()).await;
        }
    }
    clock.advance(Duration::from_secs(7 * 24 * 3600));
    let dry_run = dry_run(&evaluator, &policy(&parts));
    assert_eq!(dry_run.changes, []);
    assert_eq!((dry_run.considered, dry_run.unknown), (4 * tokens.len() - 4, 0));
    let outcomes: std::collections::BTreeSet<_> =
        evaluator.decisions(&DecisionFilter::new()).iter().map(|it| it.outcome).collect();
    assert!(outcomes.len() > 14, "{outcomes:?}");
}

#[tokio::test]
async fn rule_changes_are_found() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let with = |rules: &[String]| [&[k8s(&cluster, "")], rules].concat();
    let evaluator = after_one(&clock, &cluster, &with(&[reporter()])).await;
    let all = "subject = \"system:serviceaccount:reports:*\"";
    for (rules, expected) in [
        (vec![reporter()], vec![]),
        (vec![grant("reporting", all)], vec![]),
        (vec![reporter(), grant("other", "subject = \"x\"")], vec![]),
        (vec![], vec!["granted -> grant_none: outcome"]),
        (vec![grant("other", "subject = \"x\"")], vec!["granted -> grant_none: outcome"]),
        (vec![reporter(), grant("all", all)], vec!["granted -> grant_ambiguous: outcome"]),
        (vec![grant("renamed", all)], vec!["granted -> granted: identity"]),
        (vec![reporter().replace("tnt_acme", "tnt_b")], vec!["granted -> granted: tenant"]),
        (vec![reporter().replace(", \"secrets:list\"", "")], vec!["granted -> granted: scopes"]),
        (
            vec![reporter().replace("sa:{trust}:reporting", "sa:{trust}:by-claim:{/gone}")],
            vec!["granted -> identity: outcome"],
        ),
    ] {
        assert_eq!(effect(&evaluator, &with(&rules)), changes(&expected), "{rules:?}");
    }
}

#[tokio::test]
async fn trust_changes_are_found_or_unknown() {
    // 2026-05-16T13:51:07Z
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_939_467);
    let clock = ManualClock::at(start);
    let (cluster, other) = (platform(&clock).await, platform(&clock).await);
    let evaluator = evaluator(&clock, &[k8s(&cluster, ""), reporter()]);
    let token = pod(&cluster).issuer(NAME).sign();
    clock.advance(Duration::from_secs(3630));
    ask(&evaluator, &token).await.unwrap(); // within the leeway
    clock.advance(Duration::from_secs(30 * 24 * 3600));
    let changed = |after: &str| changes(&[&format!("granted -> {after}: outcome")]);
    let none = || changes(&[]);
    let rs256 = Algorithm::RS256;
    let rsa = Provider::builder().clock(clock.clone()).algorithms([rs256]).start().await;
    for (trust, expected) in [
        (k8s(&cluster, ""), none()),
        (k8s(&cluster, "leeway = \"31s\""), none()),
        (k8s(&cluster, "leeway = \"30s\""), changed("token_expired")),
        (k8s(&cluster, "leeway = \"10m\""), none()),
        (k8s(&cluster, "max_lifetime = \"1h\""), none()),
        (k8s(&cluster, "max_lifetime = \"59m\""), changed("token_lifetime")),
        (k8s(&cluster, "max_age = \"60m\""), none()),
        (k8s(&cluster, "max_age = \"50m\""), changed("token_age")),
        (k8s(&cluster, "not_after = \"2026-05-16\""), none()),
        (k8s(&cluster, "not_after = \"2026-05-15\""), changed("trust_ended")),
        (k8s(&cluster, "mode = \"audit\""), changed("audit_mode")),
        (k8s(&cluster, "named_only = true"), changed("trust_none")),
        (k8s(&cluster, "").replace("[\"scaivault\"]", "[\"other\"]"), changed("trust_none")),
        (k8s(&cluster, "").replace("[\"scaivault\"]", "[\"x\", \"scaivault\"]"), none()),
        (trust("k8s", &cluster, ""), changed("trust_none")),
        (k8s(&cluster, "algorithms = [\"ES256\", \"PS256\", \"RS256\"]"), none()),
        (k8s(&cluster, "algorithms = [\"ES256\"]"), unknown(1)),
        (k8s(&other, ""), unknown(1)),
        (k8s(&rsa, ""), unknown(1)),
        (
            k8s(&cluster, "").replace("jwks = ", "discovery_url = \"https://x.example\" # "),
            unknown(1),
        ),
        (trust_called(NAME, "renamed", &cluster, ""), changes(&["granted -> granted: identity"])),
    ] {
        assert_eq!(effect(&evaluator, &[trust.clone(), reporter()]), expected, "{trust}");
    }
    assert_eq!(effect(&evaluator, &[]), changed("trust_none"));
}

#[tokio::test]
async fn named_trust_stays_named() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[k8s(&cluster, "named_only = true"), reporter()]);
    let token = pod(&cluster).issuer(NAME).sign();
    evaluator.evaluate(&token, Some("k8s"), &Scopes::new()).await.unwrap();
    let renamed = trust_called(NAME, "renamed", &cluster, "");
    let other_audience = k8s(&cluster, "").replace("[\"scaivault\"]", "[\"other\"]");
    for (trust, expected) in [
        (k8s(&cluster, ""), changes(&[])),
        (renamed, changes(&["granted -> trust_unknown: outcome"])),
        (other_audience, changes(&["granted -> token_audience: outcome"])),
        (trust("k8s", &cluster, ""), unknown(1)),
    ] {
        assert_eq!(effect(&evaluator, &[trust.clone(), reporter()]), expected, "{trust}");
    }
}

#[tokio::test]
async fn requested_scopes_are_judged_again() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[k8s(&cluster, ""), reporter()]);
    for scopes in ["secrets:read", "secrets:list", "admin", ""] {
        let token = pod(&cluster).issuer(NAME).sign();
        let _ = evaluator.evaluate(&token, None, &scopes.parse().unwrap()).await;
    }
    let scopes = |list: &str| reporter().replace("\"secrets:read\", \"secrets:list\"", list);
    for (list, expected) in [
        ("\"secrets:read\"", vec!["granted -> scope: outcome", "granted -> granted: scopes"]),
        (
            "\"admin\", \"secrets:read\", \"secrets:list\"",
            vec!["scope -> granted: outcome", "granted -> granted: scopes"],
        ),
        ("\"secrets:list\", \"secrets:read\"", vec![]),
    ] {
        assert_eq!(effect(&evaluator, &[k8s(&cluster, ""), scopes(list)]), changes(&expected));
    }
}

#[tokio::test]
async fn first_use_is_never_guessed() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let once = k8s(&cluster, "single_use_jti = true");
    let often = k8s(&cluster, "");
    let with = |trust: &String, rule: String| [trust.clone(), rule];

    let evaluator_once = evaluator(&clock, &with(&once, reporter()));
    let token = pod(&cluster).issuer(NAME).sign();
    ask(&evaluator_once, &token).await.unwrap();
    assert_eq!(why(&evaluator_once, &token).await, "replayed");
    assert_eq!(
        why(&evaluator_once, &pod(&cluster).issuer(NAME).without("jti").sign()).await,
        "jti_missing"
    );
    let renamed = reporter().replace("tnt_acme", "tnt_b");
    assert_eq!(
        effect(&evaluator_once, &with(&once, renamed)),
        changes(&["granted -> granted: tenant"])
    );
    assert_eq!(
        effect(&evaluator_once, &with(&often, reporter())),
        changes(&["replayed -> granted: outcome", "jti_missing -> granted: outcome"])
    );

    let evaluator_often = evaluator(&clock, &with(&often, reporter()));
    ask(&evaluator_often, &token).await.unwrap();
    ask(&evaluator_often, &pod(&cluster).issuer(NAME).without("jti").sign()).await.unwrap();
    let (texts, count) = effect(&evaluator_often, &with(&once, reporter()));
    assert_eq!((texts, count), (vec!["granted -> jti_missing: outcome".to_owned()], 1));

    // The log was not asked about a token that no rule matched.
    let none = grant("other", "subject = \"other\"");
    let unmatched = after_one(&clock, &cluster, &with(&once, none)).await;
    assert_eq!(effect(&unmatched, &with(&once, reporter())), unknown(1));
    assert_eq!(
        effect(&unmatched, &with(&often, reporter())),
        changes(&["grant_none -> granted: outcome"])
    );

    // Nor does a log that was full say anything.
    let full = TrustEvaluator::builder()
        .policy(policy(&with(&once, reporter())))
        .replay_log(Arc::new(MemoryReplayLog::with_clock(0, Arc::new(clock.clone()))))
        .clock(clock.clone())
        .build()
        .unwrap();
    assert_eq!(why(&full, &token).await, "unavailable");
    assert_eq!(effect(&full, &with(&once, reporter())), changes(&[]));
    assert_eq!(
        effect(&full, &with(&often, reporter())),
        changes(&["unavailable -> granted: outcome"])
    );
}

#[tokio::test]
async fn end_of_audit_mode_is_judged() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let audit = k8s(&cluster, "mode = \"audit\"");
    let evaluator = after_one(&clock, &cluster, &[audit.clone(), reporter()]).await;
    let enforced = [k8s(&cluster, ""), reporter()];
    assert_eq!(effect(&evaluator, &enforced), changes(&["audit_mode -> granted: outcome"]));
    let other_tenant = [audit, reporter().replace("tnt_acme", "tnt_b")];
    assert_eq!(effect(&evaluator, &other_tenant), changes(&["audit_mode -> audit_mode: tenant"]));
}

#[tokio::test]
async fn unverified_tokens_are_never_changes() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let over = k8s(&cluster, "not_after = \"2020-01-01\"");
    let ended = after_one(&clock, &cluster, &[over.clone(), reporter()]).await;
    assert_eq!(effect(&ended, &[over, reporter()]), changes(&[]));
    assert_eq!(effect(&ended, &[k8s(&cluster, ""), reporter()]), unknown(1));
    assert_eq!(effect(&ended, &[]), changes(&[]));

    let unlisted = after_one(&clock, &cluster, &[]).await;
    assert_eq!(effect(&unlisted, &[k8s(&cluster, ""), reporter()]), unknown(1));
    assert_eq!(effect(&unlisted, &[trust("other", &cluster, "")]), changes(&[]));

    let parts = [k8s(&cluster, ""), reporter()];
    let evaluator = evaluator(&clock, &parts);
    assert_eq!(
        why(&evaluator, &pod(&cluster).issuer(NAME).expired().sign()).await,
        "token_expired"
    );
    assert_eq!(effect(&evaluator, &parts), changes(&[]));
    assert_eq!(effect(&evaluator, &[]), changes(&[]));
    assert_eq!(effect(&evaluator, &[k8s(&cluster, "leeway = \"10m\""), reporter()]), unknown(1));
    assert_eq!(why(&evaluator, "junk").await, "token_malformed");
    assert_eq!(dry_run(&evaluator, &policy(&parts)).considered, 1, "junk has no claims");
}

#[tokio::test]
async fn unavailable_keys_are_not_judged() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    cluster.fail(ProviderEndpoint::Jwks, Fault::Status(500));
    let parts = [k8s(&cluster, ""), reporter()];
    let evaluator = after_one(&clock, &cluster, &parts).await;
    assert_eq!(evaluator.decisions(&DecisionFilter::new())[0].outcome, "unavailable");
    assert_eq!(effect(&evaluator, &parts), changes(&[]));
    assert_eq!(effect(&evaluator, &[k8s(&cluster, "leeway = \"1s\""), reporter()]), unknown(1));
}

#[tokio::test]
async fn claims_above_limit_are_unknown() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let parts = [k8s(&cluster, ""), reporter()];
    let evaluator = evaluator(&clock, &parts);
    let token = |length: usize| pod(&cluster).issuer(NAME).claim("pad", "x".repeat(length)).sign();
    ask(&evaluator, &token(7000)).await.unwrap();
    assert_eq!(effect(&evaluator, &[]), changes(&["granted -> trust_none: outcome"]));
    ask(&evaluator, &token(8192)).await.unwrap();
    assert_eq!(effect(&evaluator, &parts), unknown(1));
    let long_id = "x".repeat(9000);
    evaluator.evaluate(&token(1), Some(&long_id), &Scopes::new()).await.unwrap_err();
    assert_eq!(effect(&evaluator, &parts), unknown(2));
    let texts = format!("{:?}{evaluator:?}", evaluator.decisions(&DecisionFilter::new()));
    assert!(!texts.contains(&long_id[..100]));
}

#[tokio::test]
async fn workload_identities_are_judged_again() {
    let clock = ManualClock::new();
    let mesh = platform(&clock).await;
    let domain = |name: &str, more: &str| {
        format!(
            "[[trust]]\nid = \"mesh\"\ntrust_domain = \"{name}\"\njwks = {{ url = \"{}\" }}\nallow_loopback_http = true\naudiences = [\"scaivault\"]\n{more}\n",
            mesh.jwks_uri(),
        )
    };
    let rule =
        |path: &str| grant("svid", &format!("subject = \"spiffe://prod.example/ns/{path}\""));
    let evaluator = evaluator(&clock, &[domain("prod.example", ""), rule("reports")]);
    let svid = bare(&mesh).subject("spiffe://prod.example/ns/reports").without("iat");
    ask(&evaluator, &svid.sign()).await.unwrap();
    let prod = |more: &str| domain("prod.example", more);
    for (parts, expected) in [
        (vec![prod(""), rule("*")], vec![]),
        (vec![prod("max_lifetime = \"1h\""), rule("reports")], vec![]),
        (
            vec![prod("max_lifetime = \"59m\""), rule("reports")],
            vec!["granted -> token_lifetime: outcome"],
        ),
        (
            vec![prod("max_age = \"1h\""), rule("reports")],
            vec!["granted -> token_lifetime: outcome"],
        ),
        (vec![prod(""), rule("billing")], vec!["granted -> grant_none: outcome"]),
        (vec![domain("dev.example", "")], vec!["granted -> trust_none: outcome"]),
    ] {
        assert_eq!(effect(&evaluator, &parts), changes(&expected), "{parts:?}");
    }
}

#[tokio::test]
async fn dry_run_covers_selected_decisions() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let other = grant("other", "subject = \"other\"").replace("tnt_acme", "tnt_b");
    let evaluator = evaluator(&clock, &[k8s(&cluster, ""), reporter(), other]);
    for subject in [REPORTER, "other", "other", "none"] {
        let _ = ask(&evaluator, &pod(&cluster).issuer(NAME).subject(subject).sign()).await;
    }
    let of = |filter: DecisionFilter| {
        let DryRun { considered, changes, .. } =
            evaluator.dry_run(&TrustPolicy::default(), &filter);
        (considered, changes.len())
    };
    assert_eq!(of(DecisionFilter::new()), (4, 4));
    assert_eq!(of(DecisionFilter::new().tenant("tnt_b".parse().unwrap())), (2, 2));
    assert_eq!(of(DecisionFilter::new().tenant("tnt_b".parse().unwrap()).limit(1)), (1, 1));
}

#[tokio::test]
async fn change_serializes_without_claims() {
    let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_778_939_467));
    let cluster = platform(&clock).await;
    let parts = [k8s(&cluster, ""), reporter()];
    let evaluator = after_one(&clock, &cluster, &parts).await;
    let dry_run = dry_run(&evaluator, &TrustPolicy::default());
    assert_eq!(
        serde_json::to_value(&dry_run).unwrap(),
        json!({
            "considered": 1,
            "changes": [{
                "number": 1_778_939_467_000_000_u64,
                "at": "2026-05-16T13:51:07Z",
                "trust": "k8s",
                "rule": "reporting",
                "subject_sha256": evaluator.decisions(&DecisionFilter::new())[0].subject_sha256,
                "before": "granted",
                "after": "trust_none",
                "differences": ["outcome"],
            }],
            "unknown": 0,
            "skipped": 0,
        })
    );
    assert!(!format!("{dry_run:?}").contains(REPORTER));
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
async fn policy_without_own_rule_locks_out() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[k8s(&cluster, ""), reporter()]);
    let locks_out = |parts: &[String], caller: &Identity| {
        evaluator.would_lock_out(&policy(parts), caller, caller.tenant_id())
    };
    let own = caller("sa:k8s:reporting", "tnt_acme", "secrets:read");
    let rest = [
        (vec![k8s(&cluster, ""), reporter()], false),
        (vec![], true),
        (vec![k8s(&cluster, "")], true),
        (vec![k8s(&cluster, "mode = \"audit\""), reporter()], true),
        (vec![k8s(&cluster, "not_after = \"2020-01-01\""), reporter()], true),
        (vec![k8s(&cluster, ""), reporter().replace("tnt_acme", "tnt_b")], true),
        (vec![k8s(&cluster, ""), reporter().replace("\"secrets:read\", ", "")], true),
        (vec![k8s(&cluster, ""), reporter().replace(", \"secrets:list\"", "")], false),
        (vec![k8s(&cluster, ""), reporter().replace(":reporting\"", ":{sub}\"")], false),
        (vec![k8s(&cluster, ""), grant("other", &format!("subject = \"{REPORTER}\""))], true),
    ];
    for (parts, expected) in &rest {
        assert_eq!(locks_out(parts, &own), *expected, "{parts:?}");
    }
    // Callers whose identity comes from elsewhere.
    for other in [
        caller("alice", "tnt_acme", "secrets:read"),
        caller("sa:k8s:reporting", "tnt_b", "secrets:read"),
        caller("sa:k8s:reporting", "tnt_acme", "trust:admin"),
    ] {
        assert!(!locks_out(&[], &other), "{other:?}");
    }
    // A kept decision shows that the conditions exclude the workload.
    let narrowed = [
        k8s(&cluster, ""),
        grant("reporting", "subject = \"system:serviceaccount:reports:other\""),
    ];
    assert!(!locks_out(&narrowed, &own), "no token was seen");
    ask(&evaluator, &pod(&cluster).issuer(NAME).sign()).await.unwrap();
    assert!(locks_out(&narrowed, &own));
    assert!(!locks_out(&[k8s(&cluster, ""), reporter()], &own));
}

/// 1,000 decisions and 10,000 rules in one trust: prints how long it takes (`--release --nocapture`). The test asserts
/// only the result, because a busy machine takes any time.
#[tokio::test]
async fn many_rules_are_judged() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[k8s(&cluster, ""), reporter()]);
    let token = pod(&cluster).issuer(NAME).sign();
    let (decisions, rules) = if cfg!(debug_assertions) { (20, 500) } else { (1000, 9_999) };
    for _ in 0..decisions {
        ask(&evaluator, &token).await.unwrap();
    }
    let others = (0..rules).map(|nth| {
        let subject = format!("subject = \"system:serviceaccount:reports:other-{nth}\"");
        grant(&format!("r{nth}"), &subject)
    });
    let parts: Vec<_> = [k8s(&cluster, "")].into_iter().chain(others).collect();
    let policy = policy(&parts);
    let begin = std::time::Instant::now();
    let dry_run = dry_run(&evaluator, &policy);
    println!("{decisions} decisions, {rules} rules: {:?}", begin.elapsed());
    assert_eq!((dry_run.considered, dry_run.changes.len()), (decisions, decisions));
    assert_eq!(dry_run.changes[0].after, "grant_none");
}
