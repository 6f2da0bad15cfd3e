//! Run with `cargo run --example workload_identity --features trust`
//!
//! Pods, CI jobs and virtual machines come with the tokens of their platforms and no secret of
//! ours. A policy says which are believed, as whom; the program shows what it grants, what it
//! denies, and what an administrator reads about either. It ends by itself.

use std::error::Error;

use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Scopes;
use scaikey_auth::mint::{LocalMinter, WorkloadExchange, WorkloadRequest};
use scaikey_auth::testing::{Provider, SigningKey, TestIssuer, TokenBuilder};
use scaikey_auth::trust::{Granted, TrustEvaluator, TrustPolicy, presets};
use scaikey_auth::validator::insecure_decode_claims;
use serde_json::{Value, json};

/// As the file of a real service, but for where the keys come from: the platforms of this program
/// are on this machine, so that it needs no network.
fn policy(k8s: &TestIssuer, github: &TestIssuer, google: &TestIssuer) -> String {
    let local = |issuer: &TestIssuer| {
        format!("jwks = {{ url = \"{}\" }}\nallow_loopback_http = true", issuer.jwks_uri())
    };
    format!(
        r#"
[[trust]]
id = "k8s-prod-eu"
issuer = "https://kubernetes.default.svc.cluster.local"
{k8s}
algorithms = ["ES256"]
audiences = ["scaivault"]
max_lifetime = "1h"

[[trust.grant]]
name = "reporting"
subject = "system:serviceaccount:reports:reporter"
claims = {{ "/kubernetes.io/namespace" = {{ eq = "reports" }} }}
map = {{ identity = "sa:{{trust}}:{{sub}}", tenant = "tnt_acme_prod", scopes = ["secrets:read"] }}

[[trust]]
id = "github"
issuer = "https://token.actions.githubusercontent.com"
{github}
algorithms = ["ES256"]
audiences = ["scaivault"]
max_lifetime = "1h"
single_use_jti = true                                  # a job uses its token once

[[trust.grant]]
name = "deploy"
claims = {{ repository_id = {{ eq = "7411" }}, ref = {{ eq = "refs/heads/main" }} }}
map = {{ identity = "sa:deploy", tenant = "tnt_acme_prod", scopes = ["secrets:read", "secrets:write"] }}

[[trust]]
id = "gcp"
issuer = "https://accounts.google.com"
{google}
algorithms = ["ES256"]
audiences = ["scaivault"]
max_lifetime = "1h"
mode = "audit"                                         # on trial: judged, and granted nothing

[[trust.grant]]
name = "batch"
subject = "108712345"
map = {{ identity = "sa:batch", tenant = "tnt_acme_prod", scopes = ["secrets:read"] }}
"#,
        k8s = local(k8s),
        github = local(github),
        google = local(google),
    )
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init(); // silent, unless RUST_LOG says otherwise
    let platform = || Provider::builder().algorithms([Algorithm::ES256]).start();
    let (k8s, github, google) = (platform().await, platform().await, platform().await);

    println!("# A preset as it comes\n\n{}\n", refusal(presets::github_actions()));
    println!("# A policy with mistakes\n\n{}\n", refusal(MISTAKES));

    let policy = TrustPolicy::from_toml(&policy(&k8s, &github, &google))?;
    // What our own provider signs is not foreign, whatever a policy says.
    let trusts =
        TrustEvaluator::builder().policy(policy).own_issuer("https://scaikey.example").build()?;

    let job = job(&github);
    show(&trusts, "A pod of the reports", &pod(&k8s, "reports", "reporter"), "").await;
    show(&trusts, "A pod of somebody else", &pod(&k8s, "billing", "reporter"), "").await;
    show(&trusts, "A job on the main branch", &job, "secrets:write").await;
    show(&trusts, "The same token once more", &job, "secrets:write").await;
    let fork = workload(&github, "https://token.actions.githubusercontent.com")
        .subject("repo:acme-evil/app:ref:refs/heads/main")
        .claim("repository_id", "9999")
        .claim("ref", "refs/heads/main");
    show(&trusts, "A job of a repository that is called nearly so", &fork.sign(), "").await;
    show(&trusts, "A pod that wants more", &pod(&k8s, "reports", "reporter"), "admin").await;
    let vm = workload(&google, "https://accounts.google.com").subject("108712345").sign();
    show(&trusts, "A machine whose trust is on trial", &vm, "").await;
    let stranger = workload(&google, "https://elsewhere.example").subject("108712345").sign();
    show(&trusts, "A stranger", &stranger, "").await;

    // With a service that mints by itself, the pod's token becomes one of the service's.
    let key = SigningKey::generate(Algorithm::ES256).private_pem();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, key, "minter-1")?;
    let exchange = WorkloadExchange::new(trusts, minter, "scaivault");
    let request = WorkloadRequest::new(pod(&k8s, "reports", "reporter"));
    let minted = exchange.exchange(&request).await?;
    let claims: Value = insecure_decode_claims(minted.access_token.expose())?;
    println!("# What the pod of the reports gets for its token\n\n{claims:#}");
    Ok(())
}

/// A rule for everybody's repositories, a typo, and a token that would live for a month.
const MISTAKES: &str = r#"
[[trust]]
id = "github"
issuer = "https://token.actions.githubusercontent.com"
audience = "scaivault"
max_lifetime = "30d"

[[trust.grant]]
name = "deploy"
subject = "repo:acme*"
map = { identity = "{sub}", tenant = "tnt_acme_prod", scopes = ["secrets:read"] }
"#;

fn refusal(policy: &str) -> String {
    TrustPolicy::from_toml(policy).map_or_else(|error| error.to_string(), |_| "taken".to_owned())
}

async fn show(trusts: &TrustEvaluator, who: &str, token: &str, scopes: &str) {
    println!("# {who}\n");
    let scopes: Scopes = scopes.parse().unwrap_or_default();
    match trusts.evaluate(token, None, &scopes).await {
        Ok(Granted { identity, tenant, scopes, .. }) => {
            println!("granted:          {identity} in {tenant}, with {scopes}");
        }
        Err(denied) => {
            println!("the caller reads: {}: {}", denied.code(), denied.public_message());
            println!("the log reads:    {denied}");
        }
    }
    println!("an administrator reads:");
    for line in trusts.explain(token, None).await.to_string().lines() {
        println!("    {line}");
    }
    println!();
}

/// A token for `scaivault` that says nothing yet about whose it is.
fn workload(platform: &TestIssuer, issuer: &str) -> TokenBuilder {
    let person = ["tenant_id", "preferred_username", "email", "roles", "groups"];
    let token = platform.token().issuer(issuer).audience("scaivault");
    person.into_iter().fold(token, TokenBuilder::without)
}

fn pod(k8s: &TestIssuer, namespace: &str, account: &str) -> String {
    workload(k8s, "https://kubernetes.default.svc.cluster.local")
        .subject(&format!("system:serviceaccount:{namespace}:{account}"))
        .claim("kubernetes.io", json!({ "namespace": namespace }))
        .sign()
}

fn job(github: &TestIssuer) -> String {
    workload(github, "https://token.actions.githubusercontent.com")
        .subject("repo:acme@65/app@7411:ref:refs/heads/main")
        .claim("repository_id", "7411")
        .claim("ref", "refs/heads/main")
        .sign()
}
