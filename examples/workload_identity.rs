//! Run with `cargo run --example workload_identity --features trust`
//!
//! Accepts tokens of workload platforms: pods, CI jobs and virtual machines authenticate with their
//! platform's token, without a shared secret. A trust policy maps these tokens to identities. The
//! program shows granted and denied tokens, and an explanation of each decision for administrators.

use std::error::Error;

use scaikey_auth::config::Algorithm;
use scaikey_auth::identity::Scopes;
use scaikey_auth::mint::{LocalMinter, WorkloadExchange, WorkloadRequest};
use scaikey_auth::testing::{Provider, SigningKey, TestIssuer, TokenBuilder};
use scaikey_auth::trust::{Granted, TrustEvaluator, TrustPolicy, presets};
use scaikey_auth::validator::insecure_decode_claims;
use serde_json::{Value, json};

/// Returns a trust policy like that of a real service. Only the key sets differ: they come from test
/// providers on this machine, so that the example needs no network.
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
single_use_jti = true                                  # a job may use its token only once

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
mode = "audit"                                         # evaluates tokens but grants nothing

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
    tracing_subscriber::fmt::init(); // prints nothing unless RUST_LOG is set
    let platform = || Provider::builder().algorithms([Algorithm::ES256]).start();
    let (k8s, github, google) = (platform().await, platform().await, platform().await);

    println!("# A preset without changes\n\n{}\n", refusal(presets::github_actions()));
    println!("# A policy with mistakes\n\n{}\n", refusal(MISTAKES));

    let policy = TrustPolicy::from_toml(&policy(&k8s, &github, &google))?;
    // The builder refuses a policy that names the service's own provider: a rule must not change the
    // scopes of its tokens.
    let trusts =
        TrustEvaluator::builder().policy(policy).own_issuer("https://scaikey.example").build()?;

    let job = job(&github);
    show(&trusts, "A pod in the namespace reports", &pod(&k8s, "reports", "reporter"), "").await;
    show(&trusts, "A pod in another namespace", &pod(&k8s, "billing", "reporter"), "").await;
    show(&trusts, "A job on the main branch", &job, "secrets:write").await;
    show(&trusts, "The same token a second time", &job, "secrets:write").await;
    let fork = workload(&github, "https://token.actions.githubusercontent.com")
        .subject("repo:acme-evil/app:ref:refs/heads/main")
        .claim("repository_id", "9999")
        .claim("ref", "refs/heads/main");
    show(&trusts, "A job of a repository with a similar name", &fork.sign(), "").await;
    show(&trusts, "A pod that requests another scope", &pod(&k8s, "reports", "reporter"), "admin")
        .await;
    let vm = workload(&google, "https://accounts.google.com").subject("108712345").sign();
    show(&trusts, "A virtual machine under a trust in audit mode", &vm, "").await;
    let unknown = workload(&google, "https://elsewhere.example").subject("108712345").sign();
    show(&trusts, "A token of an unknown issuer", &unknown, "").await;

    // Exchanges the pod's token for a token that this service issues itself.
    let key = SigningKey::generate(Algorithm::ES256).private_pem();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, key, "minter-1")?;
    let exchange = WorkloadExchange::new(trusts, minter, "scaivault");
    let request = WorkloadRequest::new(pod(&k8s, "reports", "reporter"));
    let minted = exchange.exchange(&request).await?;
    let claims: Value = insecure_decode_claims(minted.access_token.expose())?;
    println!("# The claims of the token that the pod gets in exchange\n\n{claims:#}");
    Ok(())
}

/// A policy with four mistakes: a misspelt field, a lifetime of a month, a wildcard that also matches
/// other owners (`acme-evil`), and an identity that names neither its kind nor the trust.
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
    TrustPolicy::from_toml(policy).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

async fn show(trusts: &TrustEvaluator, title: &str, token: &str, scopes: &str) {
    println!("# {title}\n");
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

/// Builds a token for `scaivault` without the claims of a user.
fn workload(platform: &TestIssuer, issuer: &str) -> TokenBuilder {
    let user_claims = ["tenant_id", "preferred_username", "email"];
    let token = platform.token().issuer(issuer).audience("scaivault");
    user_claims.into_iter().fold(token, TokenBuilder::without)
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
