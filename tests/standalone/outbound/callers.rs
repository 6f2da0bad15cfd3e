//! Tests of [`CallerLayer`] and [`with_caller`]: outgoing requests have the right caller.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use scaikey_auth::layer::{RequestHead, TokenSource};
use scaikey_auth::outbound::{
    CallerLayer, OutboundError, OutboundService, OutboundToken, with_caller,
};
use scaikey_auth::{Auth, AuthContext, AuthError};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::{Server, within_timeout};

use super::{Downstream, Http, World, http, why};

type Calls = OutboundService<Http>;

/// A service whose handlers call the vault without passing the caller on.
#[derive(Clone)]
struct Drive {
    calls: Calls,
    vault: String,
    all_here: Arc<Barrier>,
}

impl Drive {
    fn new(world: &World, vault: &Downstream, together: usize) -> Self {
        let layer = world.layer(vault, OutboundToken::on_behalf_of_caller("scaivault"));
        let all_here = Arc::new(Barrier::new(together));
        Self { calls: layer.layer(http()), vault: vault.url(), all_here }
    }

    async fn ask(&self, path: &str) -> Result<u16, scaikey_auth::error::BoxError> {
        let request = Request::get(format!("{}{path}", self.vault)).body(Full::default()).unwrap();
        Ok(self.calls.clone().oneshot(request).await?.status().as_u16())
    }

    /// Sends `name` in the path, so that the test can compare it with the token.
    async fn handler(
        State(drive): State<Self>,
        Path(name): Path<String>,
    ) -> Result<String, StatusCode> {
        // All handlers run at the same time, and may resume on any thread.
        within_timeout(drive.all_here.wait()).await;
        for round in 0..3 {
            tokio::task::yield_now().await;
            let status = drive.ask(&format!("/{name}/{round}")).await;
            status.map_err(|_| StatusCode::BAD_GATEWAY)?;
        }
        Ok(name)
    }
}

fn guarded(drive: Drive, auth: &Auth) -> Router {
    let layers = ServiceBuilder::new().layer(auth.layer()).layer(CallerLayer);
    Router::new().route("/{name}", get(Drive::handler)).layer(layers).with_state(drive)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_users_get_their_own_tokens() {
    const USERS: usize = 60;
    let (world, vault) = (World::new().await, Downstream::start().await);
    let server = Server::axum(guarded(Drive::new(&world, &vault, USERS), &world.auth)).await;
    let url = server.url();
    let (client, mut requests) = (http(), JoinSet::new());
    for user in 0..USERS {
        let token = world.provider.token().subject(&format!("user-{user}")).sign();
        let request = Request::get(format!("{url}/user-{user}"));
        let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        requests.spawn(client.request(request.body(Full::<Bytes>::default()).unwrap()));
    }
    for answer in within_timeout(requests.join_all()).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let seen = vault.seen();
    assert_eq!(seen.len(), 3 * USERS);
    for one in seen {
        let claims = one.claims();
        let user = claims["sub"].as_str().unwrap();
        assert!(one.path.starts_with(&format!("/{user}/")), "{user} at {}", one.path);
    }
}

/// Reads the cookie `token`.
fn cookie(head: RequestHead<'_>) -> Result<Option<HeaderValue>, AuthError> {
    let cookies = head.headers.get(COOKIE).and_then(|value| value.to_str().ok());
    let token = cookies.and_then(|all| all.split("; ").find_map(|one| one.strip_prefix("token=")));
    Ok(token.map(|token| HeaderValue::try_from(token).unwrap()))
}

#[tokio::test]
async fn context_has_the_token_of_any_source() {
    let header = HeaderName::from_static("x-token");
    let cases = [
        (TokenSource::Authorization, "authorization", "Bearer "),
        (TokenSource::Authorization, "authorization", "bEARER   "),
        (TokenSource::Header(header), "x-token", ""),
        (TokenSource::Custom(Arc::new(cookie)), "cookie", "theme=dark; token="),
    ];
    for (source, name, before) in cases {
        let world = World::new().await;
        let token = world.provider.token().sign();
        let handler = async |request: Request<String>| {
            let context = request.extensions().get::<AuthContext>().unwrap();
            assert!(!format!("{context:?}").contains(context.token().unwrap()));
            let body = Full::<Bytes>::from(context.token().unwrap().to_owned());
            Ok::<_, Infallible>(Response::new(body))
        };
        let layer = world.auth.layer().tokens_from([source]);
        let service = layer.layer(tower::service_fn(handler));
        // The first request waits for keys, the second one does not.
        for _ in 0..2 {
            let request = Request::get("/").header(name, format!("{before}{token}"));
            let answer =
                within_timeout(service.clone().oneshot(request.body(String::new()).unwrap()))
                    .await
                    .unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body == token.as_str(), "{name}: {before}");
        }
    }
}

#[tokio::test]
async fn callers_do_not_leak_between_connections() {
    // hyper polls all requests of a connection in one task, so no caller may stay behind in it.
    let (world, vault) = (World::new().await, Downstream::start().await);
    let auth = world.auth.layer().optional();
    let layers = ServiceBuilder::new().layer(auth).layer(CallerLayer);
    let drive = Drive::new(&world, &vault, 1);
    let app = Router::new().route("/{name}", get(Drive::handler)).layer(layers).with_state(drive);
    let server = Server::axum(app).await;
    let url = server.url();
    let client = http();
    for name in ["alice", "nobody", "bob", "nobody", "alice"] {
        let mut request = Request::get(format!("{url}/{name}"));
        if name != "nobody" {
            let token = world.provider.token().subject(name).sign();
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer =
            within_timeout(client.request(request.body(Full::<Bytes>::default()).unwrap())).await;
        let status = if name == "nobody" { 502 } else { 200 };
        assert_eq!(answer.unwrap().status(), status, "{name}");
    }
    let mut callers: Vec<_> =
        vault.seen().iter().map(|one| one.claims()["sub"].as_str().unwrap().to_owned()).collect();
    callers.dedup();
    assert_eq!(callers, ["alice", "bob", "alice"]);
}

#[tokio::test]
async fn spawned_task_has_no_caller_by_default() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let drive = Drive::new(&world, &vault, 1);
    let alice = world.caller("alice-id").await;
    let given = alice.clone();
    let (without, with) = with_caller(alice, async move {
        let (first, second) = (drive.clone(), drive);
        let without = tokio::spawn(async move { first.ask("/").await });
        let with = tokio::spawn(with_caller(given, async move { second.ask("/").await }));
        (without.await.unwrap(), with.await.unwrap())
    })
    .await;
    assert!(matches!(why(without), OutboundError::NoCaller));
    assert_eq!(with.unwrap(), 200);
    assert_eq!(vault.only().claims()["sub"], "alice-id");
}

#[tokio::test]
async fn caller_does_not_leak_between_polls() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let drive = Drive::new(&world, &vault, 1);
    let (alice, bob) = (world.caller("alice-id").await, world.caller("bob-id").await);
    let outer = {
        let drive = drive.clone();
        with_caller(alice, async move {
            let inner = drive.clone();
            let both = join_in_one_task(
                with_caller(bob, async move {
                    tokio::task::yield_now().await;
                    inner.ask("/bob").await
                }),
                async {
                    tokio::task::yield_now().await;
                    drive.ask("/alice").await
                },
            );
            both.await
        })
    };
    let (bob, alice) = outer.await;
    assert_eq!((bob.unwrap(), alice.unwrap()), (200, 200));
    assert!(matches!(why(drive.ask("/").await), OutboundError::NoCaller));
    for one in vault.seen() {
        let claims = one.claims();
        let name = claims["sub"].as_str().unwrap().strip_suffix("-id").unwrap();
        assert_eq!(one.path, format!("/{name}"));
    }
    assert_eq!(vault.seen().len(), 2);
}

/// Polls both in one task.
async fn join_in_one_task<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    tokio::join!(a, b)
}

#[tokio::test]
async fn anonymous_request_hides_outer_caller() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let drive = Drive::new(&world, &vault, 1);
    // Sends one request during `call`, and one during `poll`.
    let service = tower::service_fn(move |_: Request<()>| {
        let (started, later) = (drive.calls.clone(), drive.clone());
        let request = Request::get(&drive.vault).body(Full::<Bytes>::default()).unwrap();
        let started = started.oneshot(request);
        let called = {
            let mut ready = drive.calls.clone();
            let request = Request::get(&drive.vault).body(Full::<Bytes>::default()).unwrap();
            ready.call(request)
        };
        async move {
            let outcomes =
                [started.await.map(drop), called.await.map(drop), later.ask("/").await.map(drop)];
            Ok::<_, scaikey_auth::error::BoxError>(outcomes)
        }
    });
    let service = CallerLayer.layer(service);
    let alice = world.caller("alice-id").await;
    let mut asked = Request::new(());
    asked.extensions_mut().insert(alice.clone());
    for outcome in service.clone().oneshot(asked).await.unwrap() {
        outcome.unwrap();
    }
    assert_eq!(vault.seen().len(), 3);
    let nested = with_caller(alice, service.oneshot(Request::new(())));
    for outcome in nested.await.unwrap() {
        assert!(matches!(why(outcome), OutboundError::NoCaller));
    }
    assert_eq!(vault.seen().len(), 3);
}

#[tokio::test]
async fn response_body_has_no_caller() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let drive = Drive::new(&world, &vault, 1);
    let service = CallerLayer.layer(tower::service_fn(move |_: Request<()>| {
        let drive = drive.clone();
        async move { Ok::<_, scaikey_auth::error::BoxError>(async move { drive.ask("/").await }) }
    }));
    let mut request = Request::new(());
    request.extensions_mut().insert(world.caller("alice-id").await);
    let left = service.oneshot(request).await.unwrap();
    assert!(matches!(why(left.await), OutboundError::NoCaller));
    assert_eq!(vault.seen().len(), 0);
}

#[tokio::test]
async fn buffer_outside_the_caller_layer_loses_caller() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let alice = world.caller("alice-id").await;
    let inside = ServiceBuilder::new().layer(layer.clone()).buffer(4).service(http());
    let answer = with_caller(alice.clone(), inside.oneshot(vault.get("/"))).await;
    assert_eq!(answer.unwrap().status(), 200);
    let around = ServiceBuilder::new().buffer(4).layer(layer).service(http());
    let lost = with_caller(alice.clone(), around.clone().oneshot(vault.get("/"))).await;
    assert!(matches!(why(lost), OutboundError::NoCaller));
    // Request extensions pass through the buffer.
    let answer = around.oneshot(super::by(&alice, vault.get("/"))).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(vault.seen().len(), 2);
}
