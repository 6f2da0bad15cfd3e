//! The `streams` example, in a real browser and with another client.

use futures_util::StreamExt;
use http::HeaderValue;
use serde_json::Value;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::process::Program;
use crate::support::webdriver::Browser;
use crate::support::{eventually, within_timeout};

/// Starts the example and returns its URL.
async fn start(token_seconds: &str) -> (Program, String) {
    let environment = [("LISTEN", "127.0.0.1:0"), ("TOKEN_SECONDS", token_seconds)];
    let mut example = Program::example("streams", &environment);
    let line = example.stdout.line("Open http").await;
    (example, line.split(' ').nth(1).unwrap().to_owned())
}

/// Returns whether a text of the page says that the stream ended after an event.
fn is_end(text: &str) -> bool {
    text.contains(" after ") && text.ends_with(" for alice")
}

#[tokio::test]
async fn page_sees_the_end_of_its_token() {
    let (_example, here) = start("6").await;
    let browser = Browser::start().await;
    browser.open(&here).await;
    browser.screenshot("streams-1-page").await;
    browser.click("#start").await;
    // Before its end, each stream has shown events.
    browser.shows("the token has expired (3000) after ").await;
    let texts =
        "return ['socket', 'source', 'fetch'].map(id => document.getElementById(id).innerText)";
    eventually(async || {
        let shown = browser.script(texts).await;
        let ended = |text: &Value| text.as_str().is_some_and(is_end);
        shown.as_array().unwrap().iter().all(ended)
    })
    .await;
    browser.screenshot("streams-3-ended").await;
}

#[tokio::test]
async fn web_socket_needs_a_token_as_protocol() {
    let (_example, here) = start("3600").await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let token = http.get(format!("{here}/token")).send().await.unwrap().bytes().await.unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    let token = token["access_token"].as_str().unwrap();
    let open = async |protocols: &str| {
        let mut request = here.replace("http", "ws").into_client_request().unwrap();
        *request.uri_mut() = format!("{}/feed", here.replace("http", "ws")).parse().unwrap();
        let protocols = HeaderValue::try_from(protocols).unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocols);
        match connect_async(request).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(refusal)) => Err(refusal.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    };
    for (protocols, status) in [("chat", 401), ("bearer, x", 401), ("bearer", 400)] {
        assert_eq!(open(protocols).await.err(), Some(status), "{protocols}");
    }
    let mut socket = open(&format!("bearer, {token}")).await.unwrap();
    let message = within_timeout(socket.next()).await.unwrap().unwrap();
    assert_eq!(message, Message::text("1 for alice"));

    let events = async |query: &str| {
        let answer = http.get(format!("{here}/events{query}")).send().await.unwrap();
        let caching = answer.headers()["cache-control"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), caching)
    };
    assert_eq!(events("").await, (401, "no-store".to_owned()));
    let query = format!("?access_token={token}");
    assert_eq!(events(&query).await, (200, "private, no-store".to_owned()));
}
