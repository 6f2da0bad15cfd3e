//! Tokens in the format of real platforms, matching and almost matching.

use scaikey_auth::testing::{ManualClock, TestIssuer, TokenBuilder};
use scaikey_auth::trust::{TrustPolicy, presets};
use serde_json::json;

use super::fixture::{
    REPORTER, ask, bare, evaluator, grant, platform, pod, trust, trust_called, why,
};

const GITHUB: &str = "https://token.actions.githubusercontent.com";

#[tokio::test]
async fn pod_becomes_its_service_account() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let rule = r#"
        [[trust.grant]]
        name = "reports"
        subject = "system:serviceaccount:reports:*"
        claims = { "/kubernetes.io/serviceaccount/uid" = { eq = "6a2d" } }
        map = { identity = "sa:{trust}:{sub}", tenant = "tnt_acme", scopes = ["a"] }
    "#;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), rule.to_owned()]);
    let granted = ask(&evaluator, &pod(&cluster).sign()).await.unwrap();
    assert_eq!(granted.identity, "sa:k8s:system:serviceaccount:reports:reporter");
    assert_eq!((granted.trust.as_str(), granted.rule.as_str()), ("k8s", "reports"));
    assert_eq!((granted.tenant.as_str(), granted.scopes.as_str()), ("tnt_acme", "a"));
    assert_eq!(granted.workload.issuer(), cluster.issuer());
    assert_eq!(granted.kind, granted.workload.kind());

    let table: [(&str, TokenBuilder, &str); 9] = [
        (
            "with another account",
            pod(&cluster).subject("system:serviceaccount:billing:x"),
            "grant_none",
        ),
        (
            "with five segments",
            pod(&cluster).subject("system:serviceaccount:reports:a:b"),
            "grant_none",
        ),
        (
            "with a recreated account",
            pod(&cluster).claim("kubernetes.io", json!({"serviceaccount": {"uid": "77"}})),
            "grant_none",
        ),
        (
            "for the API server",
            pod(&cluster).audience("https://kubernetes.default.svc"),
            "trust_none",
        ),
        (
            "with a lifetime of one year",
            pod(&cluster).expires_in(std::time::Duration::from_secs(31_536_000)),
            "token_lifetime",
        ),
        (
            "of the legacy kind",
            pod(&cluster).issuer("kubernetes/serviceaccount").without("exp").without("aud"),
            "trust_none",
        ),
        ("without iat", pod(&cluster).without("iat"), "token_lifetime"),
        ("expired", pod(&cluster).expired(), "token_expired"),
        ("of type txntoken", pod(&cluster).typ(Some("txntoken+jwt")), "token_type"),
    ];
    for (kind, token, expected) in table {
        assert_eq!(why(&evaluator, &token.sign()).await, expected, "a token {kind}");
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
async fn github_job_is_identified_by_repository_id() {
    let clock = ManualClock::new();
    let github = platform(&clock).await;
    let rule = grant(
        "deploy",
        "claims = { repository_id = { eq = \"74\" }, ref = { eq = \"refs/heads/main\" } }",
    );
    let evaluator = evaluator(&clock, &[trust_called(GITHUB, "github", &github, ""), rule]);
    for subject in ["repo:acme/app:ref:refs/heads/main", "repo:acme@65/app@74:ref:refs/heads/main"]
    {
        let granted = ask(&evaluator, &job(&github, subject).sign()).await.unwrap();
        assert_eq!(granted.identity, "sa:github:deploy");
    }
    let refused = [
        job(&github, "repo:acme/app:ref:refs/heads/main").claim("repository_id", "99"),
        job(&github, "repo:acme/app:ref:refs/heads/main").claim("repository_id", 74),
        job(&github, "repo:acme/app:pull_request").claim("ref", "refs/pull/7/merge"),
        job(&github, "repo:acme/app:ref:refs/heads/main").without("repository_id"),
    ];
    for token in refused {
        assert_eq!(why(&evaluator, &token.sign()).await, "grant_none");
    }
    let owner_audience = job(&github, "x").audience("https://github.com/acme").sign();
    assert_eq!(why(&evaluator, &owner_audience).await, "trust_none");
}

/// The claims are those of GitLab's documentation, which has numbers and flags as strings.
#[tokio::test]
async fn gitlab_preset_accepts_one_protected_branch() {
    const GITLAB: &str = "https://gitlab.com";
    let clock = ManualClock::new();
    let gitlab = platform(&clock).await;
    let values = [
        ("<this service's own audience>", "scaivault"),
        ("<name of this rule>", "deploy"),
        ("<tenant id>", "tnt_acme"),
        ("<scope>", "a"),
        ("<the project's number>", "20"),
        ("<the number of the project's namespace>", "72"),
        ("<branch>", "main"),
        // The platform of this test signs with ES256, on loopback.
        ("algorithms = [\"RS256\"]", "allow_loopback_http = true"),
    ];
    let filled = values.iter().fold(presets::gitlab().to_owned(), |text, (placeholder, value)| {
        assert!(text.contains(placeholder), "{placeholder}");
        text.replace(placeholder, value)
    });
    let keys = format!("id = \"gitlab\"\njwks = {{ url = \"{}\" }}", gitlab.jwks_uri());
    let evaluator = evaluator(&clock, &[filled.replace("id = \"gitlab\"", &keys)]);
    let job = || {
        bare(&gitlab)
            .issuer(GITLAB)
            .subject("project_path:my-group/my-project:ref_type:branch:ref:main")
            .claim("jti", "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b")
            .claim("project_id", "20")
            .claim("namespace_id", "72")
            .claim("ref_type", "branch")
            .claim("ref", "main")
            .claim("ref_protected", "true")
    };
    let refused = [
        job().claim("project_id", "21"),
        job().claim("project_id", 20),
        job().without("project_id"),
        job().claim("namespace_id", "73"),
        job().claim("ref", "feature"),
        job().claim("ref_type", "tag"),
        job().claim("ref_protected", "false"),
        job().claim("ref_protected", true),
    ];
    for token in refused {
        assert_eq!(why(&evaluator, &token.sign()).await, "grant_none");
    }
    let token = job().sign();
    assert_eq!(ask(&evaluator, &token).await.unwrap().identity, "sa:gitlab:20");
    assert_eq!(why(&evaluator, &token).await, "replayed");
}

#[tokio::test]
async fn wildcard_does_not_match_neighbouring_names() {
    let clock = ManualClock::new();
    let github = platform(&clock).await;
    let rule = grant(
        "any",
        "subject = \"repo:acme/*:environment:prod\"\nclaims = { repository_owner_id = { eq = \"65\" } }",
    );
    let evaluator = evaluator(&clock, &[trust_called(GITHUB, "github", &github, ""), rule]);
    assert!(ask(&evaluator, &job(&github, "repo:acme/app:environment:prod").sign()).await.is_ok());
    for subject in [
        "repo:acme-evil/app:environment:prod",
        "repo:acme/app:environment:prod:V1",
        "repo:acme/a/b:environment:prod",
        "repo:acme/:environment:prod",
        "repo:acme/app:environment:prod%3AV1",
    ] {
        assert_eq!(why(&evaluator, &job(&github, subject).sign()).await, "grant_none", "{subject}");
    }
}

#[tokio::test]
async fn google_service_account_is_identified_by_number() {
    let clock = ManualClock::new();
    let google = platform(&clock).await;
    let rule = grant("vm", "subject = \"1087\"");
    let name = "https://accounts.google.com";
    let evaluator = evaluator(&clock, &[trust_called(name, "gcp", &google, ""), rule]);
    let token = || {
        bare(&google)
            .issuer(name)
            .subject("1087")
            .claim("azp", "1087")
            .email("sa@p.iam.gserviceaccount.com")
            .claim("email_verified", true)
    };
    assert_eq!(ask(&evaluator, &token().sign()).await.unwrap().identity, "sa:gcp:vm");
    // A recreated account, and the ID token of a user.
    assert_eq!(why(&evaluator, &token().subject("2099").sign()).await, "grant_none");
    let person = token().subject("1087").claim("at_hash", "x").claim("nonce", "y");
    assert_eq!(why(&evaluator, &person.sign()).await, "token_type");
}

#[tokio::test]
async fn aws_principal_must_match_arn_exactly() {
    let clock = ManualClock::new();
    let aws = platform(&clock).await;
    let rule = grant(
        "batch",
        "subject = \"arn:aws:iam::123456789012:role/A\"\nclaims = { \"/https:~1~1sts.amazonaws.com~1/aws_account\" = { eq = \"123456789012\" }, \"/https:~1~1sts.amazonaws.com~1/request_tags/team\" = { eq = \"x\" } }",
    );
    let evaluator = evaluator(&clock, &[trust("aws", &aws, ""), rule]);
    let token = |subject: &str| {
        let nested = json!({ "aws_account": "123456789012", "request_tags": { "team": "x" } });
        bare(&aws).subject(subject).claim("https://sts.amazonaws.com/", nested).sign()
    };
    assert!(ask(&evaluator, &token("arn:aws:iam::123456789012:role/A")).await.is_ok());
    for subject in ["arn:aws:iam::123456789012:role/AB", "arn:aws:iam::123456789012:role/a"] {
        assert_eq!(why(&evaluator, &token(subject)).await, "grant_none");
    }
    for audience in ["sts.amazonaws.com", "pods.eks.amazonaws.com"] {
        let token = bare(&aws).subject("arn:aws:iam::123456789012:role/A").audience(audience);
        assert_eq!(why(&evaluator, &token.sign()).await, "trust_none");
    }
}

#[tokio::test]
async fn azure_identity_uses_separate_discovery_url() {
    let clock = ManualClock::new();
    let entra = platform(&clock).await;
    // As with Entra's v1 tokens, the discovery document is not under the issuer's URL.
    let tenant = entra.tenant("9d-11", "contoso");
    let more = format!("discovery_url = \"{}\"", tenant.discovery_url());
    let rule = grant("vm", "claims = { oid = { eq = \"0b-77\" }, tid = { eq = \"9d-11\" } }");
    let evaluator = evaluator(&clock, &[trust("azure", &tenant, &more), rule]);
    let token = || {
        bare(&tenant)
            .subject("0b-77")
            .claim("oid", "0b-77")
            .claim("tid", "9d-11")
            .claim("roles", json!({"odd": 1}))
    };
    assert_eq!(ask(&evaluator, &token().sign()).await.unwrap().identity, "sa:azure:vm");
    assert_eq!(why(&evaluator, &token().claim("oid", "0b-78").sign()).await, "grant_none");
    assert_eq!(
        why(&evaluator, &token().audience("api://AzureADTokenExchange").sign()).await,
        "trust_none"
    );
}

/// Workloads of Azure DevOps and AKS have this audience, and can choose no other.
#[tokio::test]
async fn fixed_audience_of_azure_needs_opt_in() {
    const SHARED: &str = "api://AzureADTokenExchange";
    let clock = ManualClock::new();
    let [devops, aks] = [platform(&clock).await, platform(&clock).await];
    let connection = "sc://acme/orders/deploy";
    let rules = [
        trust("devops", &devops, "insecure_shared_audience = true").replace("scaivault", SHARED),
        grant("deploy", &format!("subject = \"{connection}\"")),
        trust("aks", &aks, "insecure_shared_audience = true").replace("scaivault", SHARED),
        grant("reports", &format!("subject = \"{REPORTER}\"")),
    ];
    let evaluator = evaluator(&clock, &rules);
    let job = || bare(&devops).subject(connection).audience(SHARED);
    let pod = || pod(&aks).audience(SHARED);
    assert_eq!(ask(&evaluator, &job().sign()).await.unwrap().identity, "sa:devops:deploy");
    assert_eq!(ask(&evaluator, &pod().sign()).await.unwrap().identity, "sa:aks:reports");
    for (token, expected) in [
        (job().subject("sc://acme/orders/other"), "grant_none"),
        (pod().subject("system:serviceaccount:reports:other"), "grant_none"),
        (job().audience("scaivault"), "trust_none"),
        (pod().audience("api://azureadtokenexchange"), "trust_none"),
    ] {
        assert_eq!(why(&evaluator, &token.sign()).await, expected);
    }
    let strict = rules.map(|rule| rule.replace("insecure_shared_audience = true", ""));
    let refused = TrustPolicy::from_toml(&strict.concat()).unwrap_err().to_string();
    assert!(refused.contains("insecure_shared_audience"), "{refused}");
}

/// Subjects contain project names, which users choose freely. Characters that an identity cannot
/// contain are encoded, so that two subjects never give the same identity.
#[tokio::test]
async fn unusual_subjects_become_distinct_identities() {
    let clock = ManualClock::new();
    let ci = platform(&clock).await;
    let rule = r#"
        [[trust.grant]]
        name = "jobs"
        subject = "project:*:ref:main"
        map = { identity = "sa:{trust}:{sub}", tenant = "tnt_acme", scopes = ["a"] }
    "#;
    let evaluator = evaluator(&clock, &[trust("ci", &ci, ""), rule.to_owned()]);
    let table = [
        ("project:my app:ref:main", "sa:ci:project:my%20app:ref:main"),
        ("project:my%20app:ref:main", "sa:ci:project:my%2520app:ref:main"),
        ("project:{trust}:ref:main", "sa:ci:project:%7Btrust%7D:ref:main"),
        ("project:a\tb\n:ref:main", "sa:ci:project:a%09b%0A:ref:main"),
        ("project:é\u{202e}:ref:main", "sa:ci:project:%C3%A9%E2%80%AE:ref:main"),
        ("project:a+b~c=d@e:ref:main", "sa:ci:project:a+b~c=d@e:ref:main"),
    ];
    for (subject, identity) in table {
        let granted = ask(&evaluator, &bare(&ci).subject(subject).sign()).await;
        assert_eq!(granted.unwrap().identity, identity, "{subject:?}");
    }
}

#[tokio::test]
async fn several_claims_give_distinct_identities() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let rule = r#"
        [[trust.grant]]
        name = "all"
        subject = "system:serviceaccount:*:*"
        map = { identity = "sa:{trust}:{ns}:{name}", tenant = "acme", scopes = ["a"] }
    "#;
    let evaluator = evaluator(&clock, &[trust("k8s", &cluster, ""), rule.to_owned()]);
    let mut seen = std::collections::BTreeSet::new();
    let pairs = [("team-a", "b"), ("team", "a-b"), ("a:b", "c"), ("a", "b:c"), ("a/b", "c")];
    for (ns, name) in pairs {
        let token = pod(&cluster).claim("ns", ns).claim("name", name).sign();
        let granted = ask(&evaluator, &token).await.unwrap();
        assert!(seen.insert(granted.identity.clone()), "{} twice", granted.identity);
    }
    assert!(seen.contains("sa:k8s:a%3Ab:c") && seen.contains("sa:k8s:a%2Fb:c"), "{seen:?}");
}
