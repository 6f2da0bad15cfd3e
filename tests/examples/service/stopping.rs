//! The `service` example stops on a signal, without an error for any caller.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::MOCK;
use crate::support::http::get;
use crate::support::process::Program;

/// The delay never passes by itself: a second signal ends it.
const LONG_DELAY: (&str, &str) = ("STOP_DELAY", "86400");
const LONG_LIMIT: (&str, &str) = ("STOP_LIMIT", "86400");
const NO_DELAY: (&str, &str) = ("STOP_DELAY", "0");

/// A request whose body is not complete.
struct Unfinished(TcpStream);

impl Unfinished {
    async fn send(url: &str) -> Self {
        let mut connection =
            TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        let head = "POST /v1/auth/introspect HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer x\r\n\
                    Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\
                    Expect: 100-continue\r\n\r\n";
        connection.write_all(head.as_bytes()).await.unwrap();
        // The service asks for the body, so it processes the request.
        let mut asks = [0; 25];
        connection.read_exact(&mut asks).await.unwrap();
        assert_eq!(&asks, b"HTTP/1.1 100 Continue\r\n\r\n");
        Self(connection)
    }

    /// Sends the body, and returns the answer.
    async fn finish(mut self) -> String {
        self.0.write_all(b"token=y").await.unwrap();
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn termination_is_unnoticed_by_callers() {
    let (mut service, url) = Program::service(&[MOCK, LONG_DELAY, LONG_LIMIT]).await;
    let health = get(&format!("{url}/healthz"), None).await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ready")));
    let unfinished = Unfinished::send(&url).await;

    service.signal("TERM").await;
    service.stderr.line("not ready any more").await;
    let health = get(&format!("{url}/healthz"), None).await;
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("stopping")));
    assert_eq!(get(&format!("{url}/livez"), None).await.status, 200, "no reason to kill it");
    assert_eq!(get(&format!("{url}/me"), Some("x")).await.status, 200, "still serves");

    service.signal("TERM").await;
    service.stderr.line("accepts no more connections").await;
    assert!(TcpStream::connect(url.strip_prefix("http://").unwrap()).await.is_err());
    let answer = unfinished.finish().await;
    // The mock user lacks a role. On a very slow machine, the time for the body has passed.
    assert!(["HTTP/1.1 403", "HTTP/1.1 408"].iter().any(|it| answer.starts_with(it)), "{answer}");
    let (code, _, stderr) = service.end().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("still in flight"), "{stderr}");
}

#[tokio::test]
async fn signals_end_an_idle_service() {
    for signal in ["TERM", "INT"] {
        let (service, _) = Program::service(&[MOCK, NO_DELAY, LONG_LIMIT]).await;
        service.signal(signal).await;
        let (code, _, stderr) = service.end().await;
        assert_eq!(code, Some(0), "{signal}: {stderr}");
    }
}

#[tokio::test]
async fn unfinished_requests_do_not_hold_it() {
    let (service, url) = Program::service(&[MOCK, NO_DELAY, ("STOP_LIMIT", "0")]).await;
    let _unfinished = Unfinished::send(&url).await;
    service.signal("TERM").await;
    let (code, _, stderr) = service.end().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("requests were still in flight"), "{stderr}");
}

#[tokio::test]
async fn invalid_stop_settings_are_named() {
    let (code, _, stderr) = Program::example("service", &[MOCK, ("STOP_DELAY", "5s")]).end().await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("STOP_DELAY is `5s`"), "{stderr}");
}
