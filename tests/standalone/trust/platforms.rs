//! Tokens shaped like those of real platforms: who gets in, and who nearly does.

use scaikey_auth::testing::{ManualClock, TestIssuer, TokenBuilder};
use serde_json::json;

use super::fixture::{ask, bare, grant, platform, pod, trust, trust_called, trusts, why};

const GITHUB: &str = "https://token.actions.githubusercontent.com";

#[tokio::test]
async fn a_pod_becomes_the_service_account_its_rule_names() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let rule = r#"
        [[trust.grant]]
        name = "reports"
        subject = "system:serviceaccount:reports:*"
        claims = { "/kubernetes.io/serviceaccount/uid" = { eq = "6a2d" } }
        map = { identity = "sa:{trust}:{sub}", tenant = "tnt_acme", scopes = ["a"] }
    "#;
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ""), rule.to_owned()]);
    let granted = ask(&trusts, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(granted.identity, "sa:k8s:system:serviceaccount:reports:reporter");
    assert_eq!((granted.trust.as_str(), granted.grant.as_str()), ("k8s", "reports"));
    assert_eq!((granted.tenant.as_str(), granted.scopes.as_str()), ("tnt_acme", "a"));
    assert_eq!(granted.workload.issuer(), cluster.issuer());
    assert_eq!(granted.kind, granted.workload.kind());

    let table: [(&str, TokenBuilder, &str); 9] = [
        (
            "of another account",
            pod(&cluster).subject("system:serviceaccount:billing:x"),
            "grant_none",
        ),
        ("of five parts", pod(&cluster).subject("system:serviceaccount:reports:a:b"), "grant_none"),
        (
            "of an account created anew",
            pod(&cluster).claim("kubernetes.io", json!({"serviceaccount": {"uid": "77"}})),
            "grant_none",
        ),
        (
            "for the API server",
            pod(&cluster).audience("https://kubernetes.default.svc"),
            "trust_none",
        ),
        (
            "of one year",
            pod(&cluster).expires_in(std::time::Duration::from_secs(31_536_000)),
            "token_lifetime",
        ),
        (
            "of the old kind",
            pod(&cluster).issuer("kubernetes/serviceaccount").without("exp").without("aud"),
            "trust_none",
        ),
        ("without a beginning", pod(&cluster).without("iat"), "token_lifetime"),
        ("expired", pod(&cluster).expired(), "token_expired"),
        ("of a transaction", pod(&cluster).typ(Some("txntoken+jwt")), "token_type"),
    ];
    for (what, token, expected) in table {
        assert_eq!(why(&trusts, &token.sign()).await, expected, "a token {what}");
    }
}

fn job(github: &TestIssuer, subject: &str) -> TokenBuilder {
    bare(github)
        .issuer(GITHUB)
        .subject(subject)
        .claim("repository", "acme/app")
        .claim("repository_id", "74")
        .claim("repository_owner", "acme")
        .claim("repository_owner_id", "65")
        .claim("ref", "refs/heads/main")
        .claim("actor", "alice")
        .claim("run_id", "1")
}

#[tokio::test]
async fn a_job_is_known_by_its_repositorys_number_in_either_format_of_subject() {
    let clock = ManualClock::new();
    let github = platform(&clock).await;
    let rule = grant(
        "deploy",
        "claims = { repository_id = { eq = \"74\" }, ref = { eq = \"refs/heads/main\" } }",
    );
    let trusts = trusts(&clock, &[trust_called(GITHUB, "github", &github, ""), rule]);
    for subject in ["repo:acme/app:ref:refs/heads/main", "repo:acme@65/app@74:ref:refs/heads/main"]
    {
        let granted = ask(&trusts, &job(&github, subject).sign()).await.unwrap();
        assert_eq!(granted.identity, "sa:github:deploy");
    }
    let refused = [
        job(&github, "repo:acme/app:ref:refs/heads/main").claim("repository_id", "99"),
        job(&github, "repo:acme/app:ref:refs/heads/main").claim("repository_id", 74),
        job(&github, "repo:acme/app:pull_request").claim("ref", "refs/pull/7/merge"),
        job(&github, "repo:acme/app:ref:refs/heads/main").without("repository_id"),
    ];
    for token in refused {
        assert_eq!(why(&trusts, &token.sign()).await, "grant_none");
    }
    let for_the_owner = job(&github, "x").audience("https://github.com/acme").sign();
    assert_eq!(why(&trusts, &for_the_owner).await, "trust_none");
}

#[tokio::test]
async fn a_wildcard_does_not_reach_into_a_neighbouring_name() {
    let clock = ManualClock::new();
    let github = platform(&clock).await;
    let rule = grant(
        "any",
        "subject = \"repo:acme/*:environment:prod\"\nclaims = { repository_owner_id = { eq = \"65\" } }",
    );
    let trusts = trusts(&clock, &[trust_called(GITHUB, "github", &github, ""), rule]);
    assert!(ask(&trusts, &job(&github, "repo:acme/app:environment:prod").sign()).await.is_ok());
    for subject in [
        "repo:acme-evil/app:environment:prod",
        "repo:acme/app:environment:prod:V1",
        "repo:acme/a/b:environment:prod",
        "repo:acme/:environment:prod",
        "repo:acme/app:environment:prod%3AV1",
    ] {
        assert_eq!(why(&trusts, &job(&github, subject).sign()).await, "grant_none", "{subject}");
    }
}

#[tokio::test]
async fn a_google_service_account_is_its_number_and_a_person_is_nobody() {
    let clock = ManualClock::new();
    let google = platform(&clock).await;
    let rule = grant("vm", "subject = \"1087\"");
    let name = "https://accounts.google.com";
    let trusts = trusts(&clock, &[trust_called(name, "gcp", &google, ""), rule]);
    let token = || {
        bare(&google)
            .issuer(name)
            .subject("1087")
            .claim("azp", "1087")
            .email("sa@p.iam.gserviceaccount.com")
            .claim("email_verified", true)
    };
    assert_eq!(ask(&trusts, &token().sign()).await.unwrap().identity, "sa:gcp:vm");
    // The account deleted and created anew, and a person who signed in to an app of ours.
    assert_eq!(why(&trusts, &token().subject("2099").sign()).await, "grant_none");
    let person = token().subject("1087").claim("at_hash", "x").claim("nonce", "y");
    assert_eq!(why(&trusts, &person.sign()).await, "token_type");
}

#[tokio::test]
async fn an_aws_principal_is_its_arn_letter_for_letter() {
    let clock = ManualClock::new();
    let aws = platform(&clock).await;
    let rule = grant(
        "batch",
        "subject = \"arn:aws:iam::123456789012:role/A\"\nclaims = { \"/https:~1~1sts.amazonaws.com~1/aws_account\" = { eq = \"123456789012\" }, \"/https:~1~1sts.amazonaws.com~1/request_tags/team\" = { eq = \"x\" } }",
    );
    let trusts = trusts(&clock, &[trust("aws", &aws, ""), rule]);
    let token = |subject: &str| {
        let nested = json!({ "aws_account": "123456789012", "request_tags": { "team": "x" } });
        bare(&aws).subject(subject).claim("https://sts.amazonaws.com/", nested).sign()
    };
    assert!(ask(&trusts, &token("arn:aws:iam::123456789012:role/A")).await.is_ok());
    for subject in ["arn:aws:iam::123456789012:role/AB", "arn:aws:iam::123456789012:role/a"] {
        assert_eq!(why(&trusts, &token(subject)).await, "grant_none");
    }
    for audience in ["sts.amazonaws.com", "pods.eks.amazonaws.com"] {
        let token = bare(&aws).subject("arn:aws:iam::123456789012:role/A").audience(audience);
        assert_eq!(why(&trusts, &token.sign()).await, "trust_none");
    }
}

#[tokio::test]
async fn a_managed_identity_is_its_object_id_under_an_issuer_found_elsewhere() {
    let clock = ManualClock::new();
    let entra = platform(&clock).await;
    // As for Entra's v1 tokens: the discovery document is under another address than the issuer.
    let tenant = entra.tenant("9d-11", "contoso");
    let more = format!("discovery_url = \"{}\"", tenant.discovery_url());
    let rule = grant("vm", "claims = { oid = { eq = \"0b-77\" }, tid = { eq = \"9d-11\" } }");
    let trusts = trusts(&clock, &[trust("azure", &tenant, &more), rule]);
    let token = || {
        bare(&tenant)
            .subject("0b-77")
            .claim("oid", "0b-77")
            .claim("tid", "9d-11")
            .claim("roles", json!({"odd": 1}))
    };
    assert_eq!(ask(&trusts, &token().sign()).await.unwrap().identity, "sa:azure:vm");
    assert_eq!(why(&trusts, &token().claim("oid", "0b-78").sign()).await, "grant_none");
    assert_eq!(
        why(&trusts, &token().audience("api://AzureADTokenExchange").sign()).await,
        "trust_none"
    );
}

/// Platforms write what people chose to call their projects. Every character that an identity does not
/// take as it is gets encoded, so that two subjects never become one identity.
#[tokio::test]
async fn strange_subjects_become_distinct_identities() {
    let clock = ManualClock::new();
    let ci = platform(&clock).await;
    let rule = r#"
        [[trust.grant]]
        name = "jobs"
        subject = "project:*:ref:main"
        map = { identity = "sa:{trust}:{sub}", tenant = "tnt_acme", scopes = ["a"] }
    "#;
    let trusts = trusts(&clock, &[trust("ci", &ci, ""), rule.to_owned()]);
    let table = [
        ("project:my app:ref:main", "sa:ci:project:my%20app:ref:main"),
        ("project:my%20app:ref:main", "sa:ci:project:my%2520app:ref:main"),
        ("project:{trust}:ref:main", "sa:ci:project:%7Btrust%7D:ref:main"),
        ("project:a\tb\n:ref:main", "sa:ci:project:a%09b%0A:ref:main"),
        ("project:é\u{202e}:ref:main", "sa:ci:project:%C3%A9%E2%80%AE:ref:main"),
        ("project:a+b~c=d@e:ref:main", "sa:ci:project:a+b~c=d@e:ref:main"),
    ];
    for (subject, identity) in table {
        let granted = ask(&trusts, &bare(&ci).subject(subject).sign()).await;
        assert_eq!(granted.unwrap().identity, identity, "{subject:?}");
    }
}

#[tokio::test]
async fn several_claims_stay_apart_in_an_identity() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let rule = r#"
        [[trust.grant]]
        name = "all"
        subject = "system:serviceaccount:*:*"
        map = { identity = "sa:{trust}:{ns}:{name}", tenant = "acme", scopes = ["a"] }
    "#;
    let trusts = trusts(&clock, &[trust("k8s", &cluster, ""), rule.to_owned()]);
    let mut seen = std::collections::BTreeSet::new();
    let pairs = [("team-a", "b"), ("team", "a-b"), ("a:b", "c"), ("a", "b:c"), ("a/b", "c")];
    for (ns, name) in pairs {
        let token = pod(&cluster).claim("ns", ns).claim("name", name).sign();
        let granted = ask(&trusts, &token).await.unwrap();
        assert!(seen.insert(granted.identity.clone()), "{} twice", granted.identity);
    }
    assert!(seen.contains("sa:k8s:a%3Ab:c") && seen.contains("sa:k8s:a%2Fb:c"), "{seen:?}");
}
