//! Runs the examples that print `curl` lines or results, and pastes the lines into a shell.

use tokio::net::TcpListener;
use tokio::process::Command;

#[cfg(feature = "trust")]
use crate::support::files::File;
use crate::support::process::Program;

const FREE_PORT: (&str, &str) = ("LISTEN", "127.0.0.1:0");

/// Runs a line in a shell with only `PATH` set, and returns its output.
async fn paste(line: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let (code, stdout, stderr) = Program::spawn(shell).end().await;
    assert_ne!(code, Some(127), "`curl` is missing: install the Debian package `curl`");
    assert_eq!(code, Some(0), "{line}\n{stderr}");
    stdout
}

#[tokio::test]
async fn quickstart_commands_return_the_printed_status() {
    let mut quickstart = Program::example("quickstart", &[FREE_PORT]);
    for (path, status, text) in [
        ("/me", "200", "You are alice of tenant-1."),
        ("/admin", "403", r#""required_scope":"admin""#),
        ("/me", "401", "The token has expired."),
        ("/me", "401", "This resource needs a bearer token."),
    ] {
        quickstart.stdout.line(&format!("  {status}  ")).await;
        let line = quickstart.stdout.line("curl ").await;
        assert!(line.starts_with("curl ") && line.contains(path), "{line}");
        let answer = paste(&line).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}\n{answer}");
        assert!(answer.contains(text), "{line}\n{answer}");
        assert_eq!(answer.contains("www-authenticate: Bearer "), status != "200", "{answer}");
    }
    quickstart.stdout.line("Ctrl-C").await;
}

#[tokio::test]
async fn quickstart_names_a_working_sign_in_command() {
    let mut quickstart = Program::example("quickstart", &[FREE_PORT]);
    let command = quickstart.stdout.line("browser_login").await;
    let (variable, example) = command.split_once(" cargo run --example ").unwrap();
    let environment = [variable.split_once('=').unwrap()];
    // `quickstart` is still running.
    Program::example(example, &environment).stdout.line("Open http://localhost:").await;
}

#[tokio::test]
async fn quickstart_debug_log_gives_the_reason() {
    let log = ("RUST_LOG", "scaikey_auth=debug");
    let mut quickstart = Program::example("quickstart", &[FREE_PORT, log]);
    let line = loop {
        let line = quickstart.stdout.line("curl ").await;
        if line.contains("/admin") {
            break line;
        }
    };
    paste(&line).await;
    quickstart.stdout.line("insufficient_scope").await;
}

#[tokio::test]
async fn opaque_token_is_accepted_until_revoked() {
    let mut example = Program::example("opaque_tokens", &[FREE_PORT]);
    for (status, text) in [
        ("200", "You are alice of tenant-1, by introspection."),
        ("200", "You are alice of tenant-1, by a signature."),
        ("401", "The token is not valid here."),
        ("200", ""),
        ("401", "The token is not valid here."),
        ("401", "The token is not valid here."),
    ] {
        example.stdout.line(&format!("  {status}  ")).await;
        let line = example.stdout.line("curl ").await;
        let answer = paste(&line).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}\n{answer}");
        assert!(answer.contains(text), "{line}\n{answer}");
    }
    example.stdout.line("Ctrl-C").await;
}

/// The examples that listen first. `axum_service` needs a database before, so its tests do this.
const LISTENING: [&str; 9] = [
    "quickstart",
    "hyper",
    "service",
    "streams",
    "browser_login",
    "web_app",
    "custom_tenants",
    "opaque_tokens",
    "trust_admin",
];

#[tokio::test]
async fn unusable_listen_address_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (listen, problem) in [(taken.as_str(), "in use"), ("here", "invalid")] {
        for example in LISTENING {
            let environment = [("LISTEN", listen), ("SCAIWAVE_AUTH_MODE", "mock")];
            let (code, _, stderr) = Program::example(example, &environment).end().await;
            assert_eq!(code, Some(1), "{example}: {stderr}");
            for part in [listen, "LISTEN", problem] {
                assert!(stderr.contains(part), "{example}: {stderr}");
            }
        }
    }
}

#[tokio::test]
async fn hyper_commands_return_the_printed_status() {
    let mut hyper = Program::example("hyper", &[FREE_PORT]);
    for (status, text) in [("401", "This resource needs a bearer token."), ("200", "hello, alice")]
    {
        hyper.stdout.line(&format!("# {status}")).await;
        let answer = paste(&hyper.stdout.line("curl ").await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(text), "{answer}");
    }
}

#[tokio::test]
async fn grpc_mesh_prints_calls_and_codes() {
    let (code, stdout, stderr) = Program::example("grpc_mesh", &[]).end().await;
    assert_eq!(code, Some(0), "{stderr}");
    let expected = [
        "health: Ok",
        "the version: Ok: 1.0",
        "a quote without a token: Unauthenticated: This resource needs a bearer token.",
        "a quote: Ok: 12 apples, asked by alice through shop",
        "a restock without the scope: PermissionDenied: The token lacks a scope that this resource needs.",
        "a restock: Ok: 100 apples more, asked by shop through no service",
        "a method without a rule: PermissionDenied: The token does not grant access to this resource.",
        "the warehouse with a token for the shop: Unauthenticated: The token is not valid here.",
        "2 token requests reached the provider",
    ];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
    let remedy = r#"add `.path("/shop.Orders/Purge", guard)`"#;
    assert!(stderr.contains(remedy), "{stderr}");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn custom_tenants_commands_return_the_printed_status() {
    let mut tenants = Program::example("custom_tenants", &[FREE_PORT]);
    for (status, text) in [
        ("200", "workspace 1 on plan gold"),
        ("403", "The tenant is suspended."),
        ("403", "The tenant is not known here."),
    ] {
        tenants.stdout.line(&format!("gets {status}")).await;
        let answer = paste(&tenants.stdout.line("curl ").await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(text), "{answer}");
    }
}

#[tokio::test]
async fn token_exchange_requests_each_token_once() {
    let (code, stdout, stderr) = Program::example("token_exchange", &[]).end().await;
    assert_eq!(code, Some(0), "{stderr}");
    let statuses: Vec<&str> =
        stdout.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let hits = ["miss", "miss", "hit", "hit", "1000", "hit", "hit", "hit", "the", "the"];
    assert_eq!(statuses, hits, "{stdout}");
    for line in ["  1000 tokens, 2 requests to the provider", "with 400: invalid_target"] {
        assert!(stdout.contains(line), "{stdout}");
    }
    assert!(!stdout.contains("eyJ"), "a token is printed: {stdout}");
}

#[tokio::test]
async fn background_worker_caches_one_token_per_tenant() {
    let (code, stdout, stderr) = Program::example("background_worker", &[]).end().await;
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 9, "{stdout}");
    for (nth, line) in lines.iter().enumerate() {
        let (status, tenant) =
            (["miss", "hit "][usize::from(nth >= 3)], ["acme", "umbrella", "initech"][nth % 3]);
        let round = nth / 3 + 1;
        let expected = format!("round {round}, {status}: the documents of {tenant}, for indexer");
        assert_eq!(*line, expected);
    }
}

#[tokio::test]
async fn on_behalf_of_shows_the_vaults_claims() {
    let (code, stdout, stderr) = Program::example("on_behalf_of", &[]).end().await;
    assert_eq!(code, Some(0), "{stderr}");
    let seen: Vec<serde_json::Value> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  the vault saw "))
        .map(|claims| serde_json::from_str(claims).unwrap())
        .collect();
    let user = |name: &str| {
        serde_json::json!({
            "sub": name, "aud": "scaivault", "act": "scaidrive", "scope": "vault:read"
        })
    };
    let service = serde_json::json!({
        "sub": "scaidrive", "aud": "scaivault", "act": null, "scope": "audit:write"
    });
    assert_eq!(seen, [user("alice"), user("bob"), user("alice"), service], "{stdout}");
    assert!(
        stdout.contains(
            "no answer: no destination of the outbound layer matches this URL on `127.0.0.1`"
        ),
        "{stdout}"
    );
    assert!(stdout.contains("3 token requests reached the provider"), "{stdout}");
    assert!(!stdout.contains("eyJ"), "a token is printed: {stdout}");
}

#[tokio::test]
async fn keyless_client_follows_the_token_file() {
    let (code, stdout, stderr) = Program::example("keyless_client", &[]).end().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.matches("status: miss").count(), 2, "{stdout}");
    for part in [
        "different assertions so far: 2",
        "scopes: vault:read",
        "has a token that expired",
        "requests: 0",
        "a token for the API server of Kubernetes (\"https://kubernetes.default.svc\")",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(!stdout.contains("eyJ"), "a token is printed: {stdout}");
}

#[cfg(feature = "trust")]
#[tokio::test]
async fn workload_identity_follows_the_trust_policy() {
    let (code, stdout, stderr) = Program::example("workload_identity", &[]).end().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stdout.matches("granted:  ").count(), 2, "{stdout}");
    assert_eq!(stdout.matches("the caller reads: invalid_request").count(), 5, "{stdout}");
    assert_eq!(stdout.matches("the caller reads: invalid_scope").count(), 1, "{stdout}");
    assert!(stdout.contains("rule `deploy`: does not match: `repository_id` is"), "{stdout}");
}

#[cfg(feature = "trust")]
#[tokio::test]
async fn trust_admin_commands_return_the_printed_status() {
    // The example keeps its policy in the folder for temporary files.
    let file = File::reserve("policy");
    let folder = file.path().parent().unwrap().display().to_string();
    let mut example = Program::example("trust_admin", &[FREE_PORT, ("TMPDIR", &folder)]);
    let page = example.stdout.line("Open http").await;
    let page = paste(&format!("curl -si {}", page.split(' ').nth(1).unwrap())).await;
    assert!(page.contains("<title>Access → Token Exchange</title>"), "{page}");
    for (statuses, text) in [
        (&["200"][..], "name = \"backup\""),
        (&["200"], "still has the placeholder"),
        (&["200"], r#""outcome":"grant_none""#),
        (&["200", "412"], "urn:scaikey-auth:precondition_failed"),
        (&["200"], r#""access_token":""#),
        (&["200"], r#""rule":"nightly""#),
        (&["200"], r#""note":"nightly""#),
        (&["200"], "name = \"deploy\""),
        (&["200"], r#""restores":1"#),
    ] {
        example.stdout.line("  200  ").await;
        let line = example.stdout.line("curl ").await;
        let mut answer = String::new();
        for status in statuses {
            answer = paste(&line).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}\n{answer}");
        }
        assert!(answer.contains(text), "{line}\n{answer}");
        assert!(!text.contains("deploy") || !answer.contains("backup"), "{answer}");
    }
    example.stdout.line("Ctrl-C").await;
}
