//! Explanations for administrators, and the audit log: neither contains the token.

use scaikey_auth::testing::ManualClock;
use scaikey_auth::trust::{DecisionFilter, TrustEvaluator, TrustPolicy};
use serde_json::{Value, json};

use crate::support::Log;

use super::fixture::{
    REPORTER, ask, evaluator, grant, platform, pod, policy, reporter, trust, trust_called, why,
};

#[tokio::test]
async fn explanation_lists_all_rules() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let name = "https://k8s.example";
    let parts = [
        trust_called(name, "k8s", &cluster, "single_use_jti = true"),
        reporter(),
        grant("billing", "subject = \"system:serviceaccount:billing:*\""),
        grant(
            "by-uid",
            "claims = { \"/kubernetes.io/serviceaccount/uid\" = { one_of = [\"1\", \"2\"] } }",
        ),
        grant(
            "by-node",
            "claims = { \"/kubernetes.io/node/name\" = { eq = \"n1\" }, x = { contains = true } }",
        ),
    ];
    let evaluator = evaluator(&clock, &parts);
    let explain = async |token: String, id| evaluator.explain(&token, id).await.to_string();
    let token = || pod(&cluster).issuer(name);
    assert_eq!(
        explain(token().sign(), None).await,
        "\
trust `k8s`: the token's signature, audience and times are valid
rule `reporting`: matches
rule `billing`: does not match: `sub` is \"system:serviceaccount:reports:reporter\", but the rule requires \"system:serviceaccount:billing:*\"
rule `by-uid`: does not match: `/kubernetes.io/serviceaccount/uid` is \"6a2d\", but the rule requires one of \"1\" \"2\"
rule `by-node`: does not match: `/kubernetes.io/node/name` is absent, but the rule requires \"n1\"
the workload becomes `sa:k8s:reporting` in tenant `tnt_acme`; permitted scopes: secrets:read secrets:list
earlier use of the token was not checked
granted"
    );
    assert_eq!(
        explain(token().issuer("https://x.example\n\u{1b}[31m").sign(), None).await,
        "\
the token's `iss` is \"https://x.example\\n\\u{1b}[31m\"
the token's `sub` is \"system:serviceaccount:reports:reporter\"
the token's `aud` is \"scaivault\"
denied: no trust has the token's issuer, or the trust domain of its `sub`, and its audience"
    );
    assert_eq!(
        explain(token().expired().sign(), Some("k8s")).await,
        "\
trust `k8s`: the token was not verified
earlier use of the token was not checked
denied: the token is invalid: expired"
    );
    assert_eq!(
        explain("no token".to_owned(), None).await,
        "denied: the token is invalid: malformed: the token does not have three parts"
    );
    let long = token().subject(&"s".repeat(500)).sign();
    let long = explain(long, None).await;
    assert!(long.contains("(cut)") && !long.contains(&"s".repeat(121)), "{long}");
}

#[tokio::test]
async fn decision_log_has_only_digests() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Log::start();
    let evaluator =
        evaluator(&clock, &[trust("k8s", &cluster, "single_use_jti = true"), reporter()]);
    let token = || pod(&cluster).claim("jti", "canary-jti").claim("note", "canary-note");
    let good = token().sign();
    let unmatched = token().subject("canary-subject").claim("jti", "canary-2").sign();
    let mut texts = Vec::new();
    for token in [&good, &good, &unmatched] {
        let outcome = ask(&evaluator, token).await;
        texts.extend(outcome.err().map(|denied| format!("{denied} {denied:?}")));
        let explanation = evaluator.explain(token, None).await;
        assert!(!explanation.to_string().contains("canary-note"));
        texts.push(format!("{explanation} {explanation:?}"));
    }
    let logged = log.text();
    let count = |needle: &str| logged.matches(needle).count();
    assert_eq!(count("outcome=\"granted\""), 1, "{logged}");
    assert_eq!(count("outcome=\"replayed\""), 1);
    assert_eq!(count("outcome=\"grant_none\""), 1);
    assert_eq!(count("rule=\"reporting\""), 2);
    assert_eq!(count("trust=\"k8s\""), 3);
    assert_eq!(count("tenant=\"tnt_acme\""), 2);
    // printf %s canary-jti | sha256sum
    let digest = "jti_sha256=\"205c60b74b46836314b03ea837be2dc488be50cf8fefd05e416e50f2def21d99\"";
    assert_eq!(count(digest), 2);
    assert_eq!(count("subject_sha256=\"") + count("jti_sha256=\""), 6);
    for secret in ["canary", REPORTER] {
        assert_eq!(count(secret), 0, "{secret} is in {logged}");
    }
    texts.push(logged);
    for token in [&good, &unmatched] {
        for part in token.split('.') {
            assert!(texts.iter().all(|text| !text.contains(part)), "{texts:?}");
        }
    }
}

#[tokio::test]
async fn explanation_serializes_with_all_rules() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let name = "https://k8s.example";
    let billing = grant("billing", "subject = \"system:serviceaccount:billing:*\"");
    let parts = [trust_called(name, "k8s", &cluster, ""), reporter(), billing];
    let evaluator = evaluator(&clock, &parts);
    let explanation = evaluator.explain(&pod(&cluster).issuer(name).sign(), None).await;
    let problem = "`sub` is \"system:serviceaccount:reports:reporter\", but the rule requires \"system:serviceaccount:billing:*\"";
    assert_eq!(
        serde_json::to_value(&explanation).unwrap(),
        json!({
            "verified": true,
            "trust": "k8s",
            "rule": "reporting",
            "outcome": "granted",
            "problem": null,
            "identity": "sa:k8s:reporting",
            "tenant": "tnt_acme",
            "scopes": ["secrets:read", "secrets:list"],
            "rules": [
                { "name": "reporting", "matches": true, "problem": null },
                { "name": "billing", "matches": false, "problem": problem },
            ],
            "lines": explanation.to_string().lines().collect::<Vec<_>>(),
        })
    );
    let denied = evaluator.explain(&pod(&cluster).issuer(name).expired().sign(), None).await;
    assert_eq!(
        serde_json::to_value(&denied).unwrap(),
        json!({
            "verified": false,
            "trust": "k8s",
            "rule": null,
            "outcome": "token_expired",
            "problem": "the token is invalid: expired",
            "identity": null,
            "tenant": null,
            "scopes": [],
            "rules": [],
            "lines": denied.to_string().lines().collect::<Vec<_>>(),
        })
    );
    assert!(explanation.is_verified() && !denied.is_verified());
    assert_eq!(explanation.identity(), Some("sa:k8s:reporting"));
    assert_eq!(explanation.tenant().map(|tenant| tenant.as_str()), Some("tnt_acme"));
    assert_eq!(explanation.scopes().as_str(), "secrets:read secrets:list");
    assert_eq!(explanation.rules()[1].problem.as_deref(), Some(problem));
}

/// A policy without a platform: claims are explained without keys.
fn offline() -> TrustEvaluator {
    let text = r#"
        [[trust]]
        id = "ci"
        issuer = "https://ci.example"
        audiences = ["scaivault"]
        [[trust.grant]]
        name = "deploy"
        subject = "project:7:*"
        map = { identity = "sa:{trust}:{sub}", tenant = "tnt_acme", scopes = ["secrets:read"] }
        [[trust.grant]]
        name = "main"
        subject = "project:7:main"
        claims = { "/job/n" = { eq = 1 } }
        map = { identity = "sa:main", tenant = "tnt_acme", scopes = ["secrets:read"] }

        [[trust]]
        id = "ci-named"
        issuer = "https://ci.example"
        audiences = ["scaivault"]
        named_only = true

        [[trust]]
        id = "over"
        issuer = "https://over.example"
        audiences = ["scaivault"]
        not_after = "2020-01-01"

        [[trust]]
        id = "watched"
        issuer = "https://watched.example"
        audiences = ["scaivault"]
        mode = "audit"
        [[trust.grant]]
        name = "all"
        subject = "x:*"
        map = { identity = "sa:watched", tenant = "tnt_acme", scopes = ["secrets:read"] }

        [[trust]]
        id = "mesh"
        trust_domain = "prod.example"
        bundle = { url = "https://bundle.example" }
        audiences = ["scaivault"]
        [[trust.grant]]
        name = "reporters"
        subject = "spiffe://prod.example/ns/*"
        map = { identity = "sa:{trust}:{sub}", tenant = "tnt_mesh", scopes = ["secrets:read"] }
    "#;
    let policy = TrustPolicy::from_toml(text).unwrap_or_else(|error| panic!("{error}"));
    TrustEvaluator::builder().policy(policy).clock(ManualClock::new()).build().unwrap()
}

#[tokio::test]
async fn claims_are_explained_without_token() {
    let evaluator = offline();
    let ci = |sub: &str| json!({"iss": "https://ci.example", "aud": "scaivault", "sub": sub});
    let with = |name: &str, value: Value| {
        let mut claims = ci("project:7:x");
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = ci("project:7:x");
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let both = json!({"iss": "https://ci.example", "aud": ["scaivault"], "sub": "project:7:main", "job": {"n": 1}});
    let svid = |sub: &str| json!({"aud": ["scaivault"], "sub": sub});
    let at = |issuer: &str, sub: &str| json!({"iss": issuer, "aud": "scaivault", "sub": sub});
    for (claims, id, outcome) in [
        (ci("project:7:x"), None, "granted"),
        (ci("project:7:x"), Some("ci"), "granted"),
        (ci("project:8:x"), None, "grant_none"),
        (both, None, "grant_ambiguous"),
        (ci("project:7:x"), Some("ci-named"), "grant_none"),
        (ci("project:7:x"), Some("none"), "trust_unknown"),
        (ci("project:7:x"), Some("mesh"), "token_issuer"),
        (at("https://other.example", "x"), None, "trust_none"),
        (at("https://other.example", "x"), Some("ci"), "token_issuer"),
        (at("https://over.example", "x"), None, "trust_ended"),
        (at("https://watched.example", "x:y"), None, "audit_mode"),
        (at("https://watched.example", "y"), None, "grant_none"),
        (with("aud", json!("other")), None, "trust_none"),
        (with("aud", json!("other")), Some("ci"), "token_audience"),
        (with("aud", json!(7)), Some("ci"), "token_audience"),
        (with("iss", json!(7)), None, "token_claim_malformed"),
        (with("iss", json!(7)), Some("ci"), "token_claim_malformed"),
        (without("iss"), None, "token_claim_missing"),
        (without("sub"), None, "token_claim_missing"),
        (with("sub", json!("")), None, "token_claim_missing"),
        (with("sub", json!(7)), None, "token_claim_malformed"),
        (with("jti", json!(7)), None, "token_claim_malformed"),
        (with("cnf", json!({"jkt": "A".repeat(43)})), None, "token_unproven"),
        (with("exp", json!(1)), None, "granted"),
        (svid("spiffe://prod.example/ns/a"), None, "granted"),
        (svid("spiffe://prod.example/ns/a"), Some("mesh"), "granted"),
        (svid("spiffe://PROD.example/ns/a"), Some("mesh"), "token_claim_missing"),
        (svid("spiffe://other.example/ns/a"), Some("mesh"), "token_issuer"),
        (svid("spiffe://prod.example/x/a"), None, "grant_none"),
    ] {
        let explanation = evaluator.explain_claims(&claims.to_string(), id).await;
        let reached = explanation.denial().map_or("granted", |reason| reason.as_str());
        assert_eq!(reached, outcome, "{claims} for {id:?}: {explanation}");
        assert!(!explanation.is_verified());
        assert!(!explanation.to_string().contains("valid\n"), "{explanation}");
    }
    let explained = evaluator.explain_claims(&ci("project:7:x").to_string(), None).await;
    assert_eq!(
        explained.to_string(),
        "\
trust `ci`: claims without a token: signature and times were not checked
rule `deploy`: matches
rule `main`: does not match: `sub` is \"project:7:x\", but the rule requires \"project:7:main\"
the workload becomes `sa:ci:project:7:x` in tenant `tnt_acme`; permitted scopes: secrets:read
granted"
    );
    assert!(evaluator.decisions(&DecisionFilter::new()).is_empty(), "explaining decides nothing");
}

#[tokio::test]
async fn hostile_claims_have_clear_outcome() {
    let evaluator = offline();
    let long = |length: usize| {
        let claims = r#"{"iss":"https://ci.example","aud":"scaivault","sub":"project:7:x","x":""}"#;
        claims.replace("\"\"}", &format!("\"{}\"}}", "x".repeat(length - claims.len())))
    };
    let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    for (claims, problem) in [
        (String::new(), "it is not a JSON object"),
        ("[]".to_owned(), "it is not a JSON object"),
        ("7".to_owned(), "it is not a JSON object"),
        ("{} {}".to_owned(), "it is not a JSON object"),
        ("{\"a\":".to_owned(), "it is not a JSON object"),
        ("eyJhbGciOiJub25lIn0.e30.".to_owned(), "it is not a JSON object"),
        (deep(10_000), "it has too many members, or is nested too deeply"),
        ("{\"a\":".repeat(10_000), "it has too many members, or is nested too deeply"),
        ("{\"sub\":\"a\",\"sub\":\"b\"}".to_owned(), "a member name occurs twice"),
        ("{\"sub\":\"a\",\"s\\u0075b\":\"b\"}".to_owned(), "a member name occurs twice"),
        (long(64 * 1024 + 1), "the claims are longer than 64 KiB"),
        ("{".repeat(10_000_000), "the claims are longer than 64 KiB"),
    ] {
        let explanation = evaluator.explain_claims(&claims, None).await;
        assert_eq!(
            explanation.to_string(),
            format!("denied: the token is invalid: malformed: {problem}")
        );
        assert_eq!(explanation.denial().unwrap().as_str(), "token_malformed");
    }
    assert!(evaluator.explain_claims(&long(64 * 1024), None).await.denial().is_none());
}

#[tokio::test]
async fn explanation_can_use_unsaved_policy() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, "")]);
    let unsaved = policy(&[trust("k8s", &cluster, ""), reporter()]);
    let token = pod(&cluster).sign();
    let explained = evaluator.explain(&token, None).await;
    assert_eq!(explained.denial().map(|reason| reason.as_str()), Some("grant_none"));
    let fetched = cluster.jwks_requests();
    let explained = evaluator.explain_with(&unsaved, &token, None).await.unwrap();
    assert_eq!(explained.rule(), Some("reporting"));
    assert_eq!(cluster.jwks_requests(), fetched, "the trust keeps its keys");
    assert_eq!(evaluator.policy().trust_ids().count(), 1);
    assert_eq!(why(&evaluator, &token).await, "grant_none");
    let claims = json!({"iss": cluster.issuer(), "aud": "scaivault", "sub": REPORTER}).to_string();
    assert_eq!(evaluator.explain_claims_with(&unsaved, &claims, None).rule(), Some("reporting"));
    let missing = trust("k8s", &cluster, "jwks = { file = \"/nowhere/keys.json\" }");
    assert!(evaluator.explain_with(&policy(&[missing]), &token, None).await.is_err());
}
