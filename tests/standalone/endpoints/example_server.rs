//! The server of the examples closes connections whose request head does not arrive.

use std::fs;
use std::path::Path;
use std::time::Duration;

use axum::{Router, routing::get};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[path = "../../../examples/serve/mod.rs"]
mod serve;

/// Only a server that hangs takes this long.
const FOR_EVER: Duration = Duration::from_secs(120);

async fn connection(head: Duration) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/", get(async || "hello"));
    tokio::spawn(serve::serve(listener, app, head));
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn incomplete_heads_are_dropped() {
    for half in ["", "P", "GET / HTTP/1.1\r\nHost: here\r\n", "PRI * HTTP/2.0\r\n\r\nS"] {
        let mut connection = connection(Duration::from_millis(50)).await;
        connection.write_all(half.as_bytes()).await.unwrap();
        let end = timeout(FOR_EVER, connection.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "the server waits for the rest of {half:?}");
    }
}

#[tokio::test]
async fn complete_heads_are_answered() {
    let mut connection = connection(serve::HEAD_TIMEOUT).await;
    let request = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
    connection.write_all(request).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[test]
fn examples_serve_with_head_timeouts() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").read_dir().unwrap();
    let files = examples.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut servers = 0;
    for file in files.filter(|path| path.extension().is_some_and(|it| it == "rs")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("axum::serve(") && !text.contains("serve_connection"), "{file:?}");
        servers += usize::from(text.contains("serve::HEAD_TIMEOUT"));
    }
    assert!(servers >= 5, "{servers}");
}
