//! The server of the examples closes connections whose request head does not arrive, and stops without
//! cutting requests.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade, close_code};
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::{Router, routing::get};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::{connect_async, tungstenite};

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
        assert!(!text.contains("\"LISTEN\""), "{file:?}: `serve::listen` explains its errors");
        servers += usize::from(text.contains("serve::HEAD_TIMEOUT"));
    }
    assert!(servers >= 5, "{servers}");
}

/// A server that stops when the test says so.
struct Stopping {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    /// Whether all requests ended within the limit.
    ended: JoinHandle<bool>,
}

impl Stopping {
    async fn serve(app: Router, limit: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap() };
        let server = serve::serve_until(listener, app, serve::HEAD_TIMEOUT, stopped, limit);
        Self { address, stop, ended: tokio::spawn(server) }
    }

    /// Sends a request. Returns its connection when the answer has arrived up to `part`.
    async fn open(&self, path: &str, part: &str) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains(part) {
            assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0, "{answer:?}");
        }
        connection
    }

    /// Stops the server, and waits until it refuses connections.
    async fn stop(self) -> JoinHandle<bool> {
        self.stop.send(()).unwrap();
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        self.ended
    }
}

/// Returns what arrives until the server closes the connection.
async fn rest(mut connection: TcpStream) -> String {
    let mut rest = String::new();
    timeout(FOR_EVER, connection.read_to_string(&mut rest)).await.unwrap().unwrap();
    rest
}

/// Sends the event `first`, and `last` when `end` is ready.
fn events(end: impl Future<Output = ()> + Send + 'static) -> impl IntoResponse {
    let event = |text| Ok::<_, Infallible>(Event::default().data(text));
    let last = stream::once(async move {
        end.await;
        event("last")
    });
    Sse::new(stream::iter([event("first")]).chain(last))
}

#[tokio::test]
async fn stop_finishes_requests_in_flight() {
    let (release, released) = watch::channel(false);
    let slow = move || {
        let mut released = released.clone();
        async move { events(async move { _ = released.wait_for(|it| *it).await }) }
    };
    let app = Router::new().route("/", get(async || "hello")).route("/slow", get(slow));
    let server = Stopping::serve(app, FOR_EVER).await;
    let idle = server.open("/", "hello").await;
    let slow = server.open("/slow", "first").await;
    let ended = server.stop().await;
    assert_eq!(rest(idle).await, "", "an idle connection is closed");
    assert!(!ended.is_finished(), "a request is in flight");
    release.send(true).unwrap();
    assert!(rest(slow).await.contains("last"), "the answer is whole");
    assert!(ended.await.unwrap());
}

#[tokio::test]
async fn endless_streams_are_cut_off() {
    let app = Router::new().route("/", get(async || events(std::future::pending())));
    let server = Stopping::serve(app, Duration::ZERO).await;
    let _connection = server.open("/", "first").await;
    assert!(!server.stop().await.await.unwrap());
}

/// The server waits for web sockets, which are no requests any more.
#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let sse = async |Extension(mut stop): Extension<serve::Stop>| {
        events(async move { stop.requested().await })
    };
    let socket = async |upgrade: WebSocketUpgrade, Extension(mut stop): Extension<serve::Stop>| {
        upgrade.on_upgrade(async move |mut socket| {
            stop.requested().await;
            let frame = CloseFrame { code: close_code::AWAY, reason: "restart".into() };
            socket.send(Message::Close(Some(frame))).await.unwrap();
            // Until the client has seen it.
            while socket.recv().await.is_some() {}
        })
    };
    let app = Router::new().route("/events", get(sse)).route("/socket", get(socket));
    let server = Stopping::serve(app, FOR_EVER).await;
    let events = server.open("/events", "first").await;
    let (mut socket, _) = connect_async(format!("ws://{}/socket", server.address)).await.unwrap();
    let ended = server.stop().await;
    assert!(rest(events).await.contains("last"));
    assert!(!ended.is_finished(), "the web socket is open");
    let close = timeout(FOR_EVER, socket.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(close, tungstenite::Message::Close(Some(it)) if it.reason == "restart"));
    assert!(socket.next().await.is_none());
    drop(socket);
    assert!(timeout(FOR_EVER, ended).await.unwrap().unwrap());
}
