//! A transmitter that is polled (RFC 8936), on a real socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::Server;

/// How the transmitter answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// As RFC 8936 says.
    #[default]
    Works,
    /// With this status.
    Status(u16),
    /// With more bytes than a receiver may read.
    Huge,
    /// With a text that is no answer.
    Malformed,
    /// With a redirect to another path, where it works.
    Redirect,
    /// Immediately, without waiting for an event, and with the same tokens again and again.
    Repeats,
}

#[derive(Default)]
struct Content {
    mode: Mode,
    sets: BTreeMap<String, Value>,
    polls: Vec<Value>,
    headers: Vec<HeaderMap>,
    acks: Vec<String>,
    errors: BTreeMap<String, Value>,
    waiting: usize,
}

#[derive(Clone, Default)]
struct Shared {
    content: Arc<Mutex<Content>>,
    changed: Arc<Notify>,
}

impl Shared {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

pub(super) struct Transmitter {
    shared: Shared,
    server: Server,
}

impl Transmitter {
    pub(super) async fn new() -> Self {
        let shared = Shared::default();
        let app = Router::new().route("/poll", post(poll)).route("/moved", post(poll));
        let server = Server::axum(app.with_state(shared.clone())).await;
        Self { shared, server }
    }

    pub(super) fn url(&self) -> String {
        format!("{}/poll", self.server.url())
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.shared.content().mode = mode;
        self.shared.changed.notify_waiters();
    }

    /// Adds a token under this `jti`.
    pub(super) fn send(&self, id: &str, token: impl Into<Value>) {
        self.shared.content().sets.insert(id.to_owned(), token.into());
        self.shared.changed.notify_waiters();
    }

    /// Returns the bodies of all requests.
    pub(super) fn polls(&self) -> Vec<Value> {
        self.shared.content().polls.clone()
    }

    /// Returns a header of the last request.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let content = self.shared.content();
        Some(content.headers.last()?.get(name)?.to_str().unwrap().to_owned())
    }

    pub(super) fn has_ack(&self, id: &str) -> bool {
        self.shared.content().acks.iter().any(|ack| ack == id)
    }

    pub(super) fn acks(&self) -> Vec<String> {
        self.shared.content().acks.clone()
    }

    /// Returns the code for a refused token.
    pub(super) fn error(&self, id: &str) -> Option<String> {
        let error = self.shared.content().errors.get(id)?.clone();
        assert!(error["description"].is_string(), "{error}");
        Some(error["err"].as_str().unwrap().to_owned())
    }

    /// Returns the number of requests whose answer waits for an event.
    pub(super) fn waiting(&self) -> usize {
        self.shared.content().waiting
    }
}

/// Counts a request that waits, until it is answered or its connection ends.
struct Waiting(Shared);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.content().waiting -= 1;
    }
}

async fn poll(State(shared): State<Shared>, headers: HeaderMap, body: Json<Value>) -> Response {
    let request = body.0;
    let mode = shared.content().mode;
    {
        let mut content = shared.content();
        content.polls.push(request.clone());
        content.headers.push(headers);
        if mode == Mode::Works {
            accept(&mut content, &request);
        }
    }
    match mode {
        Mode::Works => answer(&shared, &request).await,
        Mode::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Mode::Huge => Json(json!({ "sets": { "x": "x".repeat(6 << 20) } })).into_response(),
        Mode::Malformed => "sets".into_response(),
        Mode::Redirect => Redirect::temporary("/moved").into_response(),
        Mode::Repeats => page(&shared.content(), 100),
    }
}

fn accept(content: &mut Content, request: &Value) {
    for ack in request["ack"].as_array().into_iter().flatten() {
        let ack = ack.as_str().unwrap().to_owned();
        content.sets.remove(&ack);
        content.acks.push(ack);
    }
    for (id, error) in request["setErrs"].as_object().into_iter().flatten() {
        content.sets.remove(id);
        content.errors.insert(id.clone(), error.clone());
    }
}

async fn answer(shared: &Shared, request: &Value) -> Response {
    let most = usize::try_from(request["maxEvents"].as_u64().unwrap()).unwrap();
    shared.content().waiting += 1;
    let waiting = Waiting(shared.clone());
    loop {
        let changed = shared.changed.notified();
        {
            let content = shared.content();
            if !content.sets.is_empty() || request["returnImmediately"] == true {
                let page = page(&content, most);
                drop(content);
                drop(waiting);
                return page;
            }
            if content.mode != Mode::Works {
                drop(content);
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        }
        changed.await;
    }
}

fn page(content: &Content, most: usize) -> Response {
    let sets: BTreeMap<_, _> = content.sets.iter().take(most).collect();
    let more = content.sets.len() > most;
    let body = json!({ "sets": sets, "moreAvailable": more });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
