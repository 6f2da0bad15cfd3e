//! The `axum_service` example, with a PostgreSQL server of its own.

use std::time::Duration;

use scaikey_auth::testing::Provider;
use serde_json::json;

#[path = "../databases/postgres.rs"]
#[allow(dead_code, reason = "the tests of databases use the rest")]
mod postgres;

use self::postgres::Postgres;
use crate::support::http::{Answer, client, get, send};
use crate::support::process::Program;
use crate::support::within_timeout;

const ACME: &str = "0190a3c4-7a1e-7c2a-9f00-5d1b52f0a001";
const LATE: &str = "0190a3c4-7a1e-7c2a-9f00-5d1b52f0a002";
const BETA: &str = "0190a3c4-7a1e-7c2a-9f00-5d1b52f0a003";
const FREE_PORT: (&str, &str) = ("LISTEN", "127.0.0.1:0");
const MOCK: (&str, &str) = ("SCAIWAVE_AUTH_MODE", "mock");

/// Starts the example, and returns it with its URL.
async fn start(database: &Postgres, environment: &[(&str, &str)]) -> (Program, String) {
    let url = database.url();
    let environment = [&[FREE_PORT, ("DATABASE_URL", url.expose())], environment].concat();
    let mut service = Program::example("axum_service", &environment);
    let line = service.stdout.line("listening on ").await;
    (service, line.replace("listening on ", ""))
}

async fn post(url: &str, token: &str, text: &'static str) -> Answer {
    send(client().post(url).bearer_auth(token).body(text)).await
}

async fn stream(url: &str, token: &str) -> reqwest::Response {
    client().get(format!("{url}/events")).bearer_auth(token).send().await.unwrap()
}

#[tokio::test]
async fn notes_belong_to_workspaces() {
    let (database, provider) = (Postgres::start(), Provider::start().await);
    let issuer = provider.issuer();
    let environment = [
        ("SCAIWAVE_ISSUER", issuer.as_str()),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
        ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true"),
    ];
    let (_service, url) = start(&database, &environment).await;
    let notes = format!("{url}/notes");
    let member = provider.token().tenant(ACME);
    let editor = member.clone().roles(["editor"]).sign();
    let member = member.sign();
    assert_eq!(post(&notes, &editor, "buy milk").await.status, 201);
    assert_eq!(post(&notes, &member, "no").await.status, 403, "lacks the role");
    assert_eq!(get(&notes, Some(&member)).await.json(), json!(["buy milk"]));
    let neighbour = provider.token().tenant(BETA).roles(["editor"]).sign();
    assert_eq!(get(&notes, Some(&neighbour)).await.json(), json!([]));
    let mut events = stream(&url, &neighbour).await;
    assert_eq!(post(&notes, &editor, "buy bread").await.status, 201);
    assert_eq!(post(&notes, &neighbour, "sell milk").await.status, 201);
    let event = within_timeout(events.chunk()).await.unwrap().unwrap();
    assert_eq!(event, "data: sell milk\n\n".as_bytes(), "the first event of its own workspace");
    assert_eq!(get(&notes, Some(&neighbour)).await.json(), json!(["sell milk"]));
    // In upper case, it is another tenant id.
    for tenant in [LATE, &ACME.to_uppercase(), "0190a3c4-7a1e-7c2a-9f00-5d1b52f0a004", "acme"] {
        let token = provider.token().tenant(tenant).sign();
        assert_eq!(get(&notes, Some(&token)).await.status, 403, "{tenant}");
    }
    assert_eq!(get(&notes, None).await.status, 401);
    assert_eq!(get(&url, None).await.body, "Hello stranger.\n");
    assert_eq!(get(&url, Some(&member)).await.body, "Hello alice-id of acme.\n");
    let expired = provider.token().tenant(ACME).expired().sign();
    assert_eq!(get(&url, Some(&expired)).await.status, 401, "optional, but not invalid");
}

#[tokio::test]
async fn events_end_with_the_token() {
    let (database, provider) = (Postgres::start(), Provider::start().await);
    let issuer = provider.issuer();
    let environment = [
        ("SCAIWAVE_ISSUER", issuer.as_str()),
        ("SCAIWAVE_AUDIENCE", "scaiwave"),
        ("SCAIWAVE_ALLOW_LOOPBACK_HTTP", "true"),
        ("SCAIWAVE_LEEWAY_SECONDS", "0"),
    ];
    let (_service, url) = start(&database, &environment).await;
    let member = provider.token().tenant(ACME);
    let editor = member.clone().roles(["editor"]).sign();
    let mut seconds = 2;
    let mut stream = loop {
        let token = member.clone().expires_in(Duration::from_secs(seconds)).sign();
        let stream = stream(&url, &token).await;
        if stream.status() == 200 {
            break stream;
        }
        // This machine is slow: the token had expired when it arrived.
        seconds *= 2;
    };
    assert_eq!(post(&format!("{url}/notes"), &editor, "buy milk").await.status, 201);
    let mut received = String::new();
    // Ends with the token, not with an error.
    while let Some(part) = within_timeout(stream.chunk()).await.unwrap() {
        received.push_str(std::str::from_utf8(&part).unwrap());
    }
    // On a slow machine, the note comes after the end.
    assert!(["", "data: buy milk\n\n"].contains(&received.as_str()), "{received}");
}

#[tokio::test]
async fn mock_mode_needs_no_provider() {
    let database = Postgres::start();
    let (mut service, url) = start(&database, &[MOCK]).await;
    service.stderr.line("WARN").await; // about the mode
    let mut events = stream(&url, "x").await;
    assert_eq!(post(&format!("{url}/notes"), "x", "buy milk").await.status, 201);
    let event = within_timeout(events.chunk()).await.unwrap().unwrap();
    assert_eq!(event, "data: buy milk\n\n".as_bytes());
}

#[tokio::test]
async fn start_errors_name_the_remedy() {
    let nothing = ("DATABASE_URL", "postgres://postgres@127.0.0.1:1/notes");
    let database = Postgres::start();
    let url = database.url();
    let works = ("DATABASE_URL", url.expose());
    for (environment, parts) in [
        (vec![MOCK], ["DATABASE_URL", "docker run"]),
        (vec![MOCK, nothing], ["No database at DATABASE_URL", ""]),
        (vec![MOCK, works, ("LISTEN", "here")], ["Cannot listen on here", "LISTEN="]),
        (vec![works], ["SCAIWAVE_ISSUER is missing", "SCAIWAVE_AUDIENCE is missing"]),
    ] {
        let (code, _, stderr) = Program::example("axum_service", &environment).end().await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    }
}
