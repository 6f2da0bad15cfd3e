//! Web sockets, `EventSource`s, and the end of a stream.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::OriginalUri;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use scaikey_auth::identity::{ClaimsMapping, Provenance};
use scaikey_auth::layer::TokenSource;
use scaikey_auth::validator::Credentials;
use scaikey_auth::{Auth, AuthContext, AuthError, Identity, TokenValidator};
use tokio::sync::Notify;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::trace::TraceLayer;

use crate::support::{Log, Server, World, mock, request, within_timeout};

/// Sends the protocols that it sees and the subject, and selects the protocol `chat`.
async fn socket(context: AuthContext, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let seen: Vec<_> = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().collect();
    let seen = format!("{seen:?} {}", context.identity().subject());
    upgrade.protocols(["chat"]).on_upgrade(async move |mut socket: WebSocket| {
        let _ = socket.send(seen.into()).await;
    })
}

async fn socket_server(world: &World) -> Server {
    let sources = [TokenSource::Authorization, TokenSource::WebSocketProtocol];
    let layer = world.auth().build().unwrap().layer().tokens_from(sources);
    Server::axum(Router::new().route("/", any(socket)).layer(layer)).await
}

/// Opens a web socket. Returns the selected protocol and the first message, or the status and the
/// body of a refusal.
async fn open(server: &Server, headers: &[(&str, &str)]) -> Result<(String, String), u16> {
    let url = server.url().replace("http", "ws");
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        let name: header::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((mut socket, answer)) => {
            let selected = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            let selected = selected.map_or("", |value| value.to_str().unwrap()).to_owned();
            let message = within_timeout(socket.next()).await.unwrap().unwrap();
            Ok((selected, message.into_text().unwrap().to_string()))
        }
        Err(Error::Http(refusal)) => Err(refusal.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

const PROTOCOL: &str = "sec-websocket-protocol";

#[tokio::test]
async fn web_socket_token_is_read_and_removed() {
    let world = World::new().await;
    let server = socket_server(&world).await;
    let token = world.provider.token().subject("alice").sign();
    let opened = async |protocols: &str| open(&server, &[(PROTOCOL, protocols)]).await.unwrap();
    let (selected, seen) = opened(&format!("bearer, {token}")).await;
    assert_eq!((selected.as_str(), seen.as_str()), ("bearer", "[\"bearer\"] alice"));
    // The token is cached now.
    let (selected, seen) = opened(&format!("v2,bearer,{token},chat")).await;
    assert_eq!((selected.as_str(), seen.as_str()), ("chat", "[\"v2, bearer, chat\"] alice"));
    let lines = [(PROTOCOL, "bearer"), (PROTOCOL, &*format!("{token}, v2"))];
    let (selected, seen) = open(&server, &lines).await.unwrap();
    assert_eq!((selected.as_str(), seen.as_str()), ("bearer", "[\"bearer, v2\"] alice"));
    // Without the pair, nothing changes.
    let bearer = ("authorization", &*format!("Bearer {token}"));
    let (selected, seen) = open(&server, &[bearer]).await.unwrap();
    assert_eq!((selected.as_str(), seen.as_str()), ("", "[] alice"));
}

#[tokio::test]
async fn web_socket_without_valid_token_is_refused() {
    let world = World::new().await;
    let server = socket_server(&world).await;
    let token = world.provider.token().sign();
    let pair = format!("bearer, {token}");
    let expired = format!("bearer, {}", world.provider.token().expired().sign());
    let bearer = ("authorization", &*format!("Bearer {token}"));
    for (headers, status) in [
        (vec![], 401),
        (vec![(PROTOCOL, "chat")], 401),
        (vec![(PROTOCOL, "bearer, chat")], 401),
        (vec![(PROTOCOL, expired.as_str())], 401),
        (vec![(PROTOCOL, "bearer")], 400),
        (vec![(PROTOCOL, pair.as_str()), bearer], 400),
        (vec![(PROTOCOL, pair.as_str()), (PROTOCOL, pair.as_str())], 400),
    ] {
        assert_eq!(open(&server, &headers).await, Err(status), "{headers:?}");
    }
    // Only a request for a web socket carries the token there.
    assert_eq!(server.get("/", &[(PROTOCOL, &pair)]).await.status, 401);
}

#[tokio::test]
async fn protocol_is_selected_for_extended_connect() {
    let layer = mock().layer().tokens_from([TokenSource::WebSocketProtocol]);
    let answer = |status: u16| {
        let service = service_fn(move |request: Request<Body>| {
            assert_eq!(request.headers()[PROTOCOL], "bearer");
            let answer = Response::builder().status(status).body(Body::empty()).unwrap();
            ready(Ok::<_, Infallible>(answer))
        });
        let request = Request::builder().method(Method::CONNECT).uri("/");
        let request = request.header("sec-websocket-version", "13");
        let request = request.header(PROTOCOL, "bearer, x").body(Body::empty()).unwrap();
        layer.layer(service).oneshot(request)
    };
    assert_eq!(answer(200).await.unwrap().headers()[PROTOCOL], "bearer");
    assert!(!answer(400).await.unwrap().headers().contains_key(PROTOCOL));
}

/// Answers with the URIs that a handler sees.
async fn uris(uri: Uri, OriginalUri(original): OriginalUri) -> String {
    format!("{uri} {original}")
}

async fn never_cached() -> Sse<impl stream::Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::empty())
}

async fn query_server(world: &World) -> Server {
    let sources = [TokenSource::Authorization, TokenSource::insecure_query("access_token")];
    let layer = world.auth().build().unwrap().layer().tokens_from(sources);
    let cached = get(|| async { [(header::CACHE_CONTROL, "private, max-age=60")] });
    let api = Router::new()
        .route("/uris", any(uris))
        .route("/events", get(never_cached))
        .route("/cached", cached)
        .layer(TraceLayer::new_for_http())
        .layer(layer);
    Server::axum(Router::new().nest("/api", api)).await
}

#[tokio::test]
async fn query_token_is_read_and_removed() {
    let log = Log::start();
    let world = World::new().await;
    let server = query_server(&world).await;
    let token = world.provider.token().sign();
    let answer = server.get(&format!("/api/uris?a=1&access_token={token}&b"), &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "/uris?a=1&b /api/uris?a=1&b"));
    assert_eq!(answer.header("cache-control"), "private, no-store");
    let answer = server.get(&format!("/api/events?access_token={token}"), &[]).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "private, no-store"));
    let answer = server.get(&format!("/api/cached?access_token={token}"), &[]).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "private, max-age=60"));
    // A preflight has the same URI.
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    let path = format!("/api/uris?access_token={token}");
    let answer = server.send(request("OPTIONS", &path, &preflight)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "/uris /api/uris"));
    // With the header, nothing changes.
    let answer = server.get_as("/api/events?a=1", &token).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-cache"));
    let text = log.text();
    assert!(text.contains("uri=/uris?a=1&b") && !text.contains(&token), "{text}");
}

#[tokio::test]
async fn query_without_valid_token_is_refused() {
    let log = Log::start();
    let world = World::new().await;
    let server = query_server(&world).await;
    let token = world.provider.token().sign();
    let expired = world.provider.token().expired().sign();
    let bearer = [("authorization", &*format!("Bearer {token}"))];
    for (query, headers, status) in [
        ("a=1", &[][..], 401),
        (&format!("access_token={expired}"), &[], 401),
        ("access_token=", &[], 400),
        ("access_token=%0a", &[], 400),
        (&format!("access_token={token}&access%5ftoken={token}"), &[], 400),
        (&format!("access_token={token}"), &bearer, 400),
    ] {
        let answer = server.get(&format!("/api/uris?{query}"), headers).await;
        assert_eq!(answer.status, status, "{query}");
        assert_eq!(answer.header("cache-control"), "no-store", "{query}");
        let shown = format!("{answer:?}{}", log.text());
        assert!(!shown.contains(&token) && !shown.contains(&expired), "{shown}");
    }
}

#[tokio::test]
async fn stream_ends_with_its_token() {
    let world = World::new().await;
    let started = Arc::new(Notify::new());
    let starting = started.clone();
    let events = async move |context: AuthContext| {
        starting.notify_one();
        let first = stream::once(async { Ok::<_, Infallible>(Event::default().data("1")) });
        let endless = first.chain(stream::pending());
        Sse::new(endless.take_until(context.until_expired())).into_response()
    };
    let layer = world.auth().build().unwrap().layer();
    let server = Server::axum(Router::new().route("/", get(events)).layer(layer)).await;
    let token = world.provider.token().expires_in(Duration::from_secs(60)).sign();
    let (answer, ()) = tokio::join!(within_timeout(server.get_as("/", &token)), async {
        started.notified().await;
        world.clock.advance(Duration::from_secs(120));
    });
    assert_eq!((answer.status, answer.body.as_str()), (200, "data: 1\n\n"));
}

#[tokio::test]
async fn end_has_the_leeway_of_verification() {
    let world = World::new().await;
    let auth = world.auth_with(world.issuer().leeway(Duration::from_secs(30))).build().unwrap();
    let token = world.provider.token().expires_in(Duration::from_secs(60)).sign();
    let cached = auth.authenticate(&token).await.unwrap();
    let context = auth.authenticate(&token).await.unwrap();
    assert_eq!(cached.identity().expires_at(), context.identity().expires_at());
    let end = context.identity().expires_at() + Duration::from_secs(30);
    world.clock.set_wall(end - Duration::from_millis(1));
    assert!(auth.authenticate(&token).await.is_ok());
    for context in [&cached, &context] {
        assert_eq!(context.until_expired().now_or_never(), None);
    }
    let ended = tokio::spawn(context.until_expired());
    tokio::task::yield_now().await;
    world.clock.set_wall(end);
    within_timeout(ended).await.unwrap();
    assert_eq!(context.until_expired().now_or_never(), Some(()));
    assert!(auth.authenticate(&token).await.is_err());
}

/// Accepts `key`, until one minute after the start.
#[derive(Debug)]
struct Keys(u64);

#[async_trait::async_trait]
impl TokenValidator for Keys {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        presented.token() == "key"
    }

    async fn validate(&self, _: &Credentials<'_>) -> Result<Identity, AuthError> {
        let claims = serde_json::json!({
            "iss": "https://keys.example", "sub": "robot", "tenant_id": "acme", "exp": self.0 + 60,
        });
        Ok(Identity::from_claims(&claims, &ClaimsMapping::default(), Provenance::Verified)?)
    }
}

#[tokio::test]
async fn other_identities_end_at_their_expiry() {
    use scaikey_auth::clock::Clock as _;
    let world = World::new().await;
    let start = world.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let auth = world.auth().validator(Keys(start)).build().unwrap();
    let robot = auth.authenticate("key").await.unwrap();
    world.clock.advance(Duration::from_secs(58));
    assert_eq!(robot.until_expired().now_or_never(), None);
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(robot.until_expired().now_or_never(), Some(()));

    let auth = Auth::builder().verified_tokens_bytes(0).mode(scaikey_auth::AuthMode::Mock);
    let auth = auth.insecure_allow_mock_in_production().clock(world.clock.clone()).build().unwrap();
    let mock = auth.authenticate("any").await.unwrap();
    assert_eq!(mock.until_expired().now_or_never(), None);
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(mock.until_expired().now_or_never(), Some(()));
}

#[tokio::test]
async fn optional_layer_refuses_invalid_stream_tokens() {
    let world = World::new().await;
    let sources = [TokenSource::WebSocketProtocol, TokenSource::insecure_query("t")];
    let layer = world.auth().build().unwrap().layer().optional().tokens_from(sources);
    let app = Router::new().route("/", any(|| async { StatusCode::NO_CONTENT })).layer(layer);
    let server = Server::axum(app).await;
    let socket = [("upgrade", "websocket"), (PROTOCOL, "bearer, x")];
    assert_eq!(server.get("/", &socket[..1]).await.status, 204);
    assert_eq!(server.get("/", &socket).await.status, 401);
    assert_eq!(server.get("/?t=x", &[]).await.status, 401);
    assert_eq!(server.get("/?u=x", &[]).await.status, 204);
}
