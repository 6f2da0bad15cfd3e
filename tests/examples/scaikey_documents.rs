//! Follows the two ScaiKey documents that this crate implements, with `curl` against the `service`
//! example.

use std::fs;

use scaikey_auth::exchange::PkceVerifier;
use scaikey_auth::testing::{Client, Provider, User};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::File;
use crate::support::http::get;
use crate::support::process::Program;

#[tokio::test]
async fn scaikey_documents_work_line_by_line() {
    let (scaikey, cluster) = (Provider::start().await, Provider::start().await);
    let redirect = "http://127.0.0.1:1/v1/auth/login";
    scaikey.register_client(
        Client::new("scaiwave", "secret")
            .scopes("openid profile email offline_access")
            .redirect_uri(redirect)
            .may_exchange("scaidrive", "drive:read")
            .may_exchange("scaiwave", "secrets:read"),
    );
    let alice = User::new("alice", "wonderland").claim("email_verified", true);
    scaikey.register_user(
        alice
            .claim("roles", json!(["docs_internal", "tenant_admin"]))
            .claim("groups", json!(["group-eng", "group-sre"])),
    );
    scaikey.trust_workloads(&cluster, "reporting-service", "tenant-1");
    let trust = File::new("trust.toml", &policy(&cluster));
    let (issuer, trust_file) = (scaikey.issuer(), trust.path_text());
    let environment = [
        ("SCAIWAVE_ISSUER", issuer.as_str()),
        ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true"),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
        ("SCAIWAVE_CLIENT_ID", "scaiwave"),
        ("SCAIWAVE_CLIENT_SECRET", "secret"),
        ("SCAIWAVE_TENANT_PARAMETER", "tenant_id"),
        ("SCAIWAVE_RESOURCE", "https://scaiwave.example"),
        ("SCAIWAVE_REDIRECT_URI", redirect),
        ("SCAIWAVE_PASSWORD_GRANT", "true"),
        ("SCAIWAVE_TRUST_FILE", trust_file.as_str()),
    ];
    let (_service, base) = Program::service(&environment).await;

    let verifier = PkceVerifier::generate().unwrap();
    let code = scaikey.authorize("alice", "scaiwave", redirect, &verifier.challenge());
    let admin = scaikey.token().subject("gateway").scope("admin").sign();
    let pod = cluster.token().audience("scaiwave").without("tenant_id");
    let pod = pod.subject("system:serviceaccount:reports:reporter").sign();
    let mut walk = Command::new("sh");
    walk.arg("tests/scaikey_documents/walk.sh").env_clear().envs([
        ("PATH", std::env::var("PATH").unwrap().as_str()),
        ("BASE", &base),
        ("ISSUER", &issuer),
        ("USER", "alice"),
        ("PASS", "wonderland"),
        ("CODE", &code),
        ("VERIFIER", verifier.secret().expose()),
        ("SELF_TOKEN", &admin),
        ("WORKLOAD_TOKEN", &pod),
    ]);
    let (status, walked, problems) = Program::spawn(walk).end().await;
    assert_eq!(status, Some(0), "{problems}\n{walked}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write("tests/scaikey_documents/walk.txt", &walked).unwrap();
    }
    let expected = fs::read_to_string("tests/scaikey_documents/walk.txt").unwrap_or_default();
    assert_eq!(in_order(&walked), in_order(&expected));
}

/// Sorts the members of JSON answers: another crate may switch on `preserve_order` of serde_json.
fn in_order(walk: &str) -> String {
    let sorted = |line: &str| {
        let answer = serde_json::from_str(&line.replace("<seconds>", "\"<seconds>\""));
        let Ok(mut answer): Result<Value, _> = answer else { return format!("{line}\n") };
        answer.sort_all_objects();
        format!("{answer}\n")
    };
    walk.lines().map(sorted).collect()
}

#[tokio::test]
async fn trust_policy_is_reloaded_on_sighup() {
    let (scaikey, cluster) = (Provider::start().await, Provider::start().await);
    let trust = File::new("trust.toml", "");
    let (issuer, trust_file) = (scaikey.issuer(), trust.path_text());
    let environment = [
        ("SCAIWAVE_ISSUER", issuer.as_str()),
        ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true"),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
        ("SCAIWAVE_CLIENT_ID", "scaiwave"),
        ("SCAIWAVE_CLIENT_SECRET", "secret"),
        ("SCAIWAVE_TRUST_FILE", trust_file.as_str()),
    ];
    let (mut service, base) = Program::service(&environment).await;
    let trusts = async || get(&format!("{base}/healthz"), None).await.json()["trusts"].clone();
    assert_eq!(trusts().await, serde_json::json!([]));
    trust.write("[[trust]]\n");
    service.signal("HUP").await;
    service.stderr.line("trust policy rejected").await;
    trust.write(&policy(&cluster));
    service.signal("HUP").await;
    service.stderr.line("trust policy loaded").await;
    assert_eq!(trusts().await[0][0], "k8s");
}

fn policy(cluster: &Provider) -> String {
    format!(
        r#"
        [[trust]]
        id = "k8s"
        issuer = "{}"
        allow_loopback_http = true
        audiences = ["scaiwave"]
        [[trust.grant]]
        name = "reporting"
        subject = "system:serviceaccount:reports:reporter"
        map = {{ identity = "sa:reporter", tenant = "tenant-1", scopes = ["secrets:read"] }}
        "#,
        cluster.issuer()
    )
}
