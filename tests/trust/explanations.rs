//! Explanations for administrators, and the audit log: neither contains the token.

use scaikey_auth::testing::ManualClock;

use crate::support::Log;

use super::fixture::{
    REPORTER, ask, evaluator, grant, platform, pod, reporter, trust, trust_called,
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
    assert_eq!(count("grant=\"reporting\""), 2);
    assert_eq!(count("trust=\"k8s\""), 3);
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
