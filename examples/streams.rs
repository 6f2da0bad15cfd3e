//! Run with `cargo run --example streams`
//!
//! Then open the printed address. The page gets a short-lived token from a test provider, and opens a
//! web socket (the token is in `Sec-WebSocket-Protocol`), an `EventSource` (in the query, because it
//! can set no header) and a stream of events with `fetch` (in `Authorization`). All of them end when
//! the token expires. `LISTEN` sets the address (default `127.0.0.1:8080`), `TOKEN_SECONDS` the
//! lifetime of the token (default 10).

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::response::{Html, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::BoxError;
use scaikey_auth::layer::TokenSource;
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, AuthContext, ConfigError, IssuerConfig};

mod serve;

const PAGE: &str = include_str!("streams.html");

/// The close code `Unauthorized` in IANA's registry of web socket close codes.
const UNAUTHORIZED: u16 = 3000;

/// Counts, twice per second.
fn count() -> impl Stream<Item = u64> + Send {
    stream::unfold(1, async |nth| {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Some((nth, nth + 1))
    })
}

async fn events(context: AuthContext) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let subject = context.identity().subject().to_owned();
    let event = move |nth| Ok(Event::default().data(format!("{nth} for {subject}")));
    Sse::new(count().map(event).take_until(context.until_expired()))
}

async fn feed(context: AuthContext, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket: WebSocket| {
        let subject = context.identity().subject();
        let mut counted = std::pin::pin!(count());
        let mut expired = std::pin::pin!(context.until_expired());
        loop {
            tokio::select! {
                () = &mut expired => break,
                Some(nth) = counted.next() => {
                    let text = format!("{nth} for {subject}");
                    if socket.send(text.into()).await.is_err() { return }
                }
                // A client that closes its socket, or sends something, which this example ignores.
                received = socket.recv() => if !matches!(received, Some(Ok(_))) { return },
            }
        }
        let reason = "the token has expired".into();
        let close = Message::Close(Some(CloseFrame { code: UNAUTHORIZED, reason }));
        let _ = socket.send(close).await;
    })
}

/// Builds the service. Each route reads the token only where its clients put it.
fn app(issuer: String) -> Result<Router, ConfigError> {
    // The test provider has no TLS, and its clock is this one, so no leeway is needed.
    let issuer = IssuerConfig::new(issuer).allow_loopback_http(true).leeway(Duration::ZERO);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build()?;
    let layer = |source| auth.layer().tokens_from([TokenSource::Authorization, source]);
    let feed = Router::new().route("/feed", any(feed));
    let events = Router::new().route("/events", get(events));
    Ok(Router::new()
        .merge(feed.route_layer(layer(TokenSource::WebSocketProtocol)))
        .merge(events.route_layer(layer(TokenSource::insecure_query("access_token"))))
        .route("/", get(Html(PAGE))))
}

#[tokio::main]
async fn main() -> ExitCode {
    serve::log_warnings();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let listener = serve::listen().await?;
    let here = format!("http://{}", listener.local_addr()?);
    let seconds = std::env::var("TOKEN_SECONDS").ok().and_then(|text| text.parse().ok());
    let lifetime = Duration::from_secs(seconds.unwrap_or(10));
    let provider = Arc::new(Provider::builder().algorithms([Algorithm::ES256]).start().await);
    println!(
        "\
Open {here} in a browser, and start the three streams.

  service   {here}
  provider  {provider}   the test provider: signs tokens that live {lifetime:?}

Press Ctrl-C to stop both.",
        provider = provider.url(),
    );
    let app = app(provider.issuer())?;
    // In a real service, the page gets its token from a sign-in. It is never public like here.
    let token = async move || {
        let token = provider.token().subject("alice").expires_in(lifetime).sign();
        Json(serde_json::json!({ "access_token": token }))
    };
    serve::serve(listener, app.route("/token", get(token)), serve::HEAD_TIMEOUT).await;
    Ok(())
}
