//! `reqwest` clients whose requests carry tokens. The tests in the other files show that they follow the rules
//! of the tower layer.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Redirect;
use axum::routing::get;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, LOCATION};
use http::{Extensions, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use reqwest::redirect::Policy;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use scaikey_auth::AuthContext;
use scaikey_auth::outbound::{
    CallerLayer, OutboundError, OutboundLayer, OutboundToken, with_caller,
};
use tower::ServiceBuilder;
use url::Url;

use crate::support::Server;
use crate::support::tls::TlsFront;

use super::{Downstream, World, secs, within_timeout};

type Outcome = reqwest_middleware::Result<reqwest::Response>;

/// Returns a builder for clients that ignore the proxies of this machine.
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

pub(super) fn client(layer: &OutboundLayer) -> ClientWithMiddleware {
    layer.reqwest_client(builder()).unwrap()
}

/// Sends a request for tower clients with a `reqwest` client.
pub(super) async fn execute(
    client: &ClientWithMiddleware,
    request: Request<Full<Bytes>>,
) -> Outcome {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let url = head.uri.to_string().parse().unwrap();
    let mut request = reqwest::Request::new(head.method, url);
    *request.headers_mut() = head.headers;
    *request.body_mut() = Some(body.into());
    let mut extensions = head.extensions;
    within_timeout(client.execute_with_extensions(request, &mut extensions)).await
}

/// Returns the reason why a request was not sent.
pub(super) fn why(error: reqwest_middleware::Error) -> OutboundError {
    let reqwest_middleware::Error::Middleware(error) = error else { panic!("{error:?}") };
    error.downcast::<OutboundError>().expect("an OutboundError")
}

/// A middleware that stores the headers of each request.
#[derive(Clone, Default)]
struct Spy {
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    /// Whether requests reach the client. If not, the answer is 200.
    sends: bool,
}

#[async_trait::async_trait]
impl Middleware for Spy {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Outcome {
        self.seen.lock().unwrap().push(request.headers().clone());
        match self.sends {
            true => next.run(request, extensions).await,
            false => Ok(reqwest::Response::from(Response::new(""))),
        }
    }
}

/// Sends a request that does not reach the network. Returns the `Authorization` header, `-` if there is none,
/// or the error.
pub(super) async fn token_sent(layer: &OutboundLayer, url: Url, hosts: &[&str]) -> String {
    let spy = Spy::default();
    let client = ClientBuilder::from_client(client(layer)).with(spy.clone()).build();
    let mut request = reqwest::Request::new(Method::GET, url);
    for host in hosts {
        request.headers_mut().append(HOST, host.parse().unwrap());
    }
    let outcome = within_timeout(client.execute(request)).await;
    let seen = spy.seen.lock().unwrap();
    match (outcome, &seen[..]) {
        (Ok(_), [headers]) => {
            let token = headers.get(AUTHORIZATION).map(|token| token.to_str().unwrap());
            token.unwrap_or("-").to_owned()
        }
        (Err(error), []) => format!("{:?}", why(error)),
        (outcome, seen) => panic!("{outcome:?} and {seen:?}"),
    }
}

#[tokio::test]
async fn handler_sends_the_callers_token() {
    async fn handler(
        State((http, vault)): State<(ClientWithMiddleware, String)>,
        Path(name): Path<String>,
    ) -> Result<String, StatusCode> {
        let answer = http.get(format!("{vault}/{name}")).send().await;
        answer.map(|answer| answer.status().to_string()).map_err(|_| StatusCode::BAD_GATEWAY)
    }
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let layers = ServiceBuilder::new().layer(world.auth.layer()).layer(CallerLayer);
    let app = Router::new().route("/{name}", get(handler)).layer(layers);
    let server = Server::axum(app.with_state((client(&layer), vault.url()))).await;
    for name in ["alice", "bob"] {
        let token = world.provider.token().subject(name).sign();
        let answer = within_timeout(server.get_as(&format!("/{name}"), &token)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "200 OK"));
    }
    let seen = vault.seen();
    assert_eq!(seen.len(), 2);
    for one in seen {
        assert_eq!(one.path, format!("/{}", one.claims()["sub"].as_str().unwrap()));
        assert_eq!(one.claims()["aud"], "scaivault");
    }
}

#[tokio::test]
async fn request_extension_overrides_task_caller() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let http = client(&world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault")));
    let (alice, bob) = (world.caller("alice-id").await, world.caller("bob-id").await);
    let own = http.get(vault.url()).with_extension::<AuthContext>(bob);
    with_caller(alice.clone(), within_timeout(own.send())).await.unwrap();
    with_caller(alice.clone(), within_timeout(http.get(vault.url()).send())).await.unwrap();
    // The client is also a tower service.
    let request = http.get(vault.url()).build().unwrap();
    let sent = tower::ServiceExt::oneshot(http.clone(), request);
    with_caller(alice, within_timeout(sent)).await.unwrap();
    let subjects: Vec<_> = vault.seen().iter().map(|seen| seen.claims()["sub"].clone()).collect();
    assert_eq!(subjects, ["bob-id", "alice-id", "alice-id"]);
    let error = within_timeout(http.get(vault.url()).send()).await.unwrap_err();
    assert!(matches!(why(error), OutboundError::NoCaller));
}

#[tokio::test]
async fn redirect_is_never_followed() {
    let (world, evil) = (World::new().await, Downstream::start().await);
    let elsewhere = format!("{}/stolen", evil.url());
    let app = Router::new()
        .route("/api/other", get(move || async move { Redirect::temporary(&elsewhere) }))
        .route("/api/same", get(|| async { Redirect::permanent("/admin") }))
        .route("/admin", get(async || StatusCode::OK));
    let server = Server::axum(app).await;
    let destination = format!("{}/api", server.url());
    let layer = world.builder().destination(destination, OutboundToken::service());
    let layer = layer.build().unwrap();
    for policy in [Policy::default(), Policy::limited(3), Policy::custom(|hop| hop.follow())] {
        let http = layer.reqwest_client(builder().redirect(policy)).unwrap();
        for (path, status) in [("/api/other", 307), ("/api/same", 308)] {
            let answer = http.get(format!("{}{path}", server.url())).send();
            let answer = within_timeout(answer).await.unwrap();
            assert_eq!(answer.status(), status);
            assert!(answer.headers().contains_key(LOCATION));
        }
    }
    assert_eq!(evil.seen().len(), 0);
}

#[tokio::test]
async fn own_authorization_is_refused() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let http = client(&world.layer(&vault, OutboundToken::service()));
    let userinfo = vault.url().replace("http://", "http://user:word@");
    for request in [
        http.get(vault.url()).bearer_auth("own"),
        http.get(vault.url()).basic_auth("user", Some("word")),
        // `reqwest` converts user information to a header.
        http.get(userinfo),
    ] {
        let error = within_timeout(request.send()).await.unwrap_err();
        assert!(matches!(why(error), OutboundError::HasAuthorization));
    }
    assert_eq!((vault.seen().len(), world.provider.token_requests()), (0, 0));
    // A destination without a token accepts it.
    let http = client(&world.layer(&vault, OutboundToken::none()));
    within_timeout(http.get(vault.url()).bearer_auth("own").send()).await.unwrap();
    assert_eq!(vault.only().token(), "own");
}

#[tokio::test]
async fn body_in_memory_is_sent_again() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let http = client(&world.layer(&vault, OutboundToken::service()));
    vault.will_answer([200, 401, 201]);
    for status in [200, 201] {
        let request = http.post(vault.url()).body("a letter").timeout(Duration::from_secs(60));
        assert_eq!(within_timeout(request.send()).await.unwrap().status(), status);
        world.clock.advance(secs(10));
    }
    let seen = vault.seen();
    assert_eq!(seen.iter().map(|one| &one.body[..]).collect::<Vec<_>>(), [b"a letter"; 3]);
    assert_eq!(seen[0].token(), seen[1].token());
    assert_ne!(seen[1].token(), seen[2].token());
}

#[tokio::test]
async fn refusal_of_a_stream_arrives_whole() {
    let world = World::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let refuse = async move || {
        counter.fetch_add(1, Ordering::SeqCst);
        (StatusCode::UNAUTHORIZED, [("x-reason", "expired")], "the whole reason")
    };
    let server = Server::axum(Router::new().fallback(refuse)).await;
    let layer = world.builder().destination(server.url(), OutboundToken::service());
    let http = client(&layer.build().unwrap());
    // The first refusal comes too early for a new token; the body of the second cannot be copied.
    let mut answers = Vec::new();
    for _ in 0..2 {
        let stream = reqwest::Body::wrap(Empty::<Bytes>::new());
        let answer = within_timeout(http.post(server.url()).body(stream).send()).await.unwrap();
        world.clock.advance(secs(10));
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["x-reason"]),
            (401, &"expired".parse().unwrap())
        );
        answers.push(answer.text().await.unwrap());
    }
    assert_eq!(answers, ["the whole reason"; 2]);
    assert_eq!((calls.load(Ordering::SeqCst), world.provider.token_requests()), (2, 2));
}

/// A middleware that sends a request again after a 503.
struct Retries;

#[async_trait::async_trait]
impl Middleware for Retries {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Outcome {
        let copy = request.try_clone().unwrap();
        match next.clone().run(request, extensions).await {
            Ok(answer) if answer.status() == 503 => next.run(copy, extensions).await,
            outcome => outcome,
        }
    }
}

#[tokio::test]
async fn only_inner_middleware_sees_the_token() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::service());
    let (outer, inner) =
        (Spy { sends: true, ..Spy::default() }, Spy { sends: true, ..Spy::default() });
    let outside: Vec<Arc<dyn Middleware>> = vec![Arc::new(outer.clone()), Arc::new(Retries)];
    let http = layer.reqwest_client_behind(outside, builder()).unwrap();
    let http = ClientBuilder::from_client(http).with(inner.clone()).build();
    vault.will_answer([503, 201]);
    assert_eq!(within_timeout(http.get(vault.url()).send()).await.unwrap().status(), 201);
    let (outer, inner) = (outer.seen.lock().unwrap(), inner.seen.lock().unwrap());
    assert_eq!((outer.len(), inner.len(), vault.seen().len()), (1, 2, 2));
    assert!(!outer[0].contains_key(AUTHORIZATION));
    for headers in &inner[..] {
        assert_eq!(format!("{headers:?}"), r#"{"authorization": Sensitive}"#);
    }
}

/// The error of a service that calls others.
#[derive(Debug, thiserror::Error)]
#[error("the vault did not answer")]
struct Own(#[source] reqwest_middleware::Error);

#[tokio::test]
async fn reason_is_found_in_any_error() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let http = client(&world.layer(&vault, OutboundToken::service()));
    let refused =
        async || within_timeout(http.get("https://evil.example/").send()).await.unwrap_err();
    let is_unknown = |error: &(dyn Error + 'static)| {
        let found = OutboundError::find_in(error);
        matches!(found, Some(OutboundError::UnknownDestination(host)) if host == "evil.example")
    };
    let error = refused().await;
    assert!(is_unknown(&error) && error.to_string().contains("evil.example"), "{error}");
    assert!(is_unknown(&Own(error)));
    // An outer middleware wraps the error.
    assert!(is_unknown(&reqwest_middleware::Error::middleware(Own(refused().await))));
    let boxed: scaikey_auth::error::BoxError = Box::new(OutboundError::NoCaller);
    assert!(matches!(OutboundError::find_in(&*boxed), Some(OutboundError::NoCaller)));
    drop(vault);
    let down = world.builder().destination("http://127.0.0.1:1", OutboundToken::service());
    let http = client(&down.build().unwrap());
    let error = within_timeout(http.get("http://127.0.0.1:1").send()).await.unwrap_err();
    assert!(error.is_connect() && OutboundError::find_in(&error).is_none(), "{error:?}");
}

/// A middleware that replaces `https` with `http`.
struct Downgrade;

#[async_trait::async_trait]
impl Middleware for Downgrade {
    async fn handle(
        &self,
        mut request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Outcome {
        request.url_mut().set_scheme("http").unwrap();
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn client_refuses_http_without_http_destination() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let url = vault.url().replace("http://", "https://");
    let layer = world.builder().destination(&url, OutboundToken::service()).build().unwrap();
    let http = layer.reqwest_client(builder().https_only(false)).unwrap();
    let http = ClientBuilder::from_client(http).with(Downgrade).build();
    let error = within_timeout(http.get(url).send()).await.unwrap_err();
    assert!(error.is_builder(), "{error:?}");
    assert_eq!(vault.seen().len(), 0);
}

#[tokio::test]
async fn settings_of_the_builder_count() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let front = TlsFront::start("localhost", vault.address().parse().unwrap()).await;
    let url = front.url("http://vault/secrets");
    let layer = world.builder().destination(&url, OutboundToken::service()).build().unwrap();
    let error = within_timeout(client(&layer).get(&url).send()).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    let ca = reqwest::Certificate::from_pem(front.certificate.as_bytes()).unwrap();
    let http = layer.reqwest_client(builder().tls_certs_only([ca]).user_agent("drive")).unwrap();
    assert_eq!(within_timeout(http.get(&url).send()).await.unwrap().status(), 200);
    assert_eq!(vault.only().claims()["sub"], "drive");
}
