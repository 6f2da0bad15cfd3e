//! What administrators read, what the audit log learns, and what neither ever sees.

use scaikey_auth::testing::ManualClock;

use crate::support::Log;

use super::fixture::{REPORTER, ask, grant, platform, pod, reporter, trust, trust_called, trusts};

#[tokio::test]
async fn an_explanation_goes_through_the_rules() {
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
    let trusts = trusts(&clock, &parts);
    let explain = async |token: String, id| trusts.explain(&token, id).await.to_string();
    let token = || pod(&cluster).issuer(name);
    assert_eq!(
        explain(token().sign(), None).await,
        "\
trust `k8s`: its signature, audience and times hold
rule `reporting`: matches
rule `billing`: does not match: `sub` is \"system:serviceaccount:reports:reporter\", and the rule wants \"system:serviceaccount:billing:*\"
rule `by-uid`: does not match: `/kubernetes.io/serviceaccount/uid` is \"6a2d\", and the rule wants one of \"1\" \"2\"
rule `by-node`: does not match: `/kubernetes.io/node/name` is absent, and the rule wants \"n1\"
it becomes `sa:k8s:reporting` in tenant `tnt_acme`, with at most: secrets:read secrets:list
whether it was used before was not looked at
granted"
    );
    assert_eq!(
        explain(token().issuer("https://x.example\n\u{1b}[31m").sign(), None).await,
        "\
the token says it is from \"https://x.example\\n\\u{1b}[31m\"
the token says it is for \"scaivault\"
denied: no trust has the token's issuer and audience"
    );
    assert_eq!(
        explain(token().expired().sign(), Some("k8s")).await,
        "\
trust `k8s`: it was not verified
whether it was used before was not looked at
denied: the token does not hold: expired"
    );
    assert_eq!(
        explain("no token".to_owned(), None).await,
        "denied: the token does not hold: malformed: not of three parts"
    );
    let long = token().subject(&"s".repeat(500)).sign();
    let long = explain(long, None).await;
    assert!(long.contains("(cut)") && !long.contains(&"s".repeat(121)), "{long}");
}

#[tokio::test]
async fn decisions_are_logged_with_digests_and_nothing_of_the_token() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let log = Log::start();
    let trusts = trusts(&clock, &[trust("k8s", &cluster, "single_use_jti = true"), reporter()]);
    let token = || pod(&cluster).claim("jti", "canary-jti").claim("note", "canary-note");
    let good = token().sign();
    let stranger = token().subject("canary-subject").claim("jti", "canary-2").sign();
    let mut texts = Vec::new();
    for token in [&good, &good, &stranger] {
        let outcome = ask(&trusts, token).await;
        texts.extend(outcome.err().map(|denied| format!("{denied} {denied:?}")));
        let explanation = trusts.explain(token, None).await;
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
    for token in [&good, &stranger] {
        for part in token.split('.') {
            assert!(texts.iter().all(|text| !text.contains(part)), "{texts:?}");
        }
    }
}
