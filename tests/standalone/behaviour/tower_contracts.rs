//! The contract of a tower middleware: readiness, cancellation, and composable types.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Frame;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::guard::{RequireLayer, verified_token};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::layer::{TenantSource, TokenSource};
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use scaikey_auth::{Auth, AuthLayer, TokenExchangeClient, scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::{Server, Spy, World, axum_request, within_timeout};

type Answer = Response<Body>;

/// A service that panics when it is called without `poll_ready`. A clone of a ready instance is not
/// ready.
#[derive(Debug, Default)]
struct Strict {
    spy: Spy,
    is_ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self { spy: self.spy.clone(), is_ready: false }
    }
}

impl<B> Service<Request<B>> for Strict {
    type Response = Answer;
    type Error = Infallible;
    type Future = Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        self.spy.called();
        ready(Ok(Answer::default()))
    }
}

/// Sends valid and invalid requests through one service and its clones, sequentially and
/// concurrently: first without keys, so that requests wait, then with keys.
async fn exercise<S, B>(world: &World, mut service: S)
where
    B: Send + 'static,
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + std::fmt::Debug + Send,
    S::Future: Send,
{
    let good = world.provider.token().sign();
    let bad = world.provider.token().expired().sign();
    let unknown_tenant = world.provider.token().without("tenant_id").sign();
    for round in 0..3 {
        let mut tasks = Vec::new();
        for _ in 0..8 {
            for (token, status) in
                [(Some(&good), 200), (None, 401), (Some(&bad), 401), (Some(&unknown_tenant), 403)]
            {
                let request = axum_request(token.map(String::as_str));
                let answer = service.clone().oneshot(request);
                tasks.push((tokio::spawn(answer), status));
            }
        }
        for (task, status) in tasks {
            let answer = within_timeout(task).await.unwrap().unwrap();
            assert_eq!(answer.status(), status, "round {round}");
        }
        for (token, status) in [(None, 401), (Some(good.as_str()), 200), (Some(&bad), 401)] {
            let ready =
                within_timeout(ServiceExt::<Request<Body>>::ready(&mut service)).await.unwrap();
            let answer = within_timeout(ready.call(axum_request(token))).await.unwrap();
            assert_eq!(answer.status(), status);
        }
    }
}

async fn fresh() -> (World, Auth) {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    (world, auth)
}

#[tokio::test]
async fn layer_calls_the_ready_instance() {
    let (world, auth) = fresh().await;
    let inner = Strict::default();
    let spy = inner.spy.clone();
    exercise(&world, auth.layer().layer(inner)).await;
    assert_eq!(spy.calls(), 3 * (8 + 1), "only the valid requests");
}

#[tokio::test]
async fn guard_calls_the_ready_instance() {
    let (world, auth) = fresh().await;
    let always = |_: &scaikey_auth::AuthContext| Ok(());
    let service = ServiceBuilder::new().layer(auth.layer()).layer(auth.require(always));
    exercise(&world, service.service(Strict::default())).await;
}

#[tokio::test]
async fn layer_works_with_limits_and_buffers() {
    let (world, auth) = fresh().await;
    exercise(
        &world,
        ServiceBuilder::new().layer(auth.layer()).concurrency_limit(2).service(Strict::default()),
    )
    .await;
    let (world, auth) = fresh().await;
    exercise(
        &world,
        ServiceBuilder::new().concurrency_limit(2).layer(auth.layer()).service(Strict::default()),
    )
    .await;
    let (world, auth) = fresh().await;
    exercise(
        &world,
        ServiceBuilder::new().layer(auth.layer()).buffer(2).service(Strict::default()),
    )
    .await;
    let (world, auth) = fresh().await;
    exercise(
        &world,
        ServiceBuilder::new().buffer(2).layer(auth.layer()).service(Strict::default()),
    )
    .await;
}

/// A body that panics when read, and is not `Send`.
#[derive(Default)]
struct Unread(PhantomData<Rc<()>>);

impl hyper::body::Body for Unread {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body was read")
    }
}

#[tokio::test]
async fn refusal_releases_reserved_permit() {
    let (world, auth) = fresh().await;
    auth.ready().await.unwrap();
    let forbidden = |_: &scaikey_auth::AuthContext| {
        Err(scaikey_auth::AuthError::Forbidden { required: "nothing".into() })
    };
    let limited = ServiceBuilder::new()
        .layer(auth.layer())
        .layer(auth.require(forbidden))
        .concurrency_limit(1)
        .service(Strict::default());
    let token = world.provider.token().sign();
    // Keeps each instance, as a server keeps one for each connection.
    let mut instances = Vec::new();
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", format!("Bearer {token}"))], 403),
        (vec![("authorization", "Bearer garbage".to_owned())], 401),
    ] {
        let mut service = limited.clone();
        let request = headers.iter().fold(Request::builder(), |r, (n, v)| r.header(*n, v));
        let request = request.body(Body::empty()).unwrap();
        let ready = within_timeout(ServiceExt::<Request<Body>>::ready(&mut service)).await.unwrap();
        assert_eq!(ready.call(request).await.unwrap().status(), status);
        instances.push(service);
    }
}

#[tokio::test]
async fn layer_never_reads_request_body() {
    let (world, auth) = fresh().await;
    for token in [world.provider.token().sign(), "x".to_owned()] {
        let request = Request::post("/").header("authorization", format!("Bearer {token}"));
        let service = auth.layer().layer(Strict::default());
        within_timeout(service.oneshot(request.body(Unread::default()).unwrap())).await.unwrap();
    }
    // Over a socket, the response comes before the body.
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let address = server.url().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    within_timeout(stream.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 401");
}

#[tokio::test]
async fn cancelled_request_does_not_cancel_shared_fetch() {
    let (world, auth) = fresh().await;
    world.provider.fail(ProviderEndpoint::Jwks, Fault::Hang);
    let token = world.provider.token().sign();
    let service = auth.layer().layer(Strict::default());
    let send = || Box::pin(service.clone().oneshot(axum_request(Some(&token))));
    let (mut first, mut second) = (send(), send());
    let mut context = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(second.as_mut().poll(&mut context).is_pending());
    world.provider.wait_for_jwks_requests(1).await;
    drop(first);
    world.provider.heal(ProviderEndpoint::Jwks);
    assert_eq!(within_timeout(second).await.unwrap().status(), 200);
    assert_eq!(world.provider.jwks_requests(), 1);
}

#[tokio::test]
async fn concurrent_requests_share_one_key_fetch() {
    let (world, auth) = fresh().await;
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    let token = world.provider.token().sign();
    let server = std::sync::Arc::new(server);
    let send = |_| {
        let (server, token) = (server.clone(), token.clone());
        tokio::spawn(async move { server.get_as("/", &token).await.status })
    };
    for task in (0..50).map(send).collect::<Vec<_>>() {
        assert_eq!(within_timeout(task).await.unwrap(), 200);
    }
    assert_eq!(world.provider.jwks_requests(), 1);
}

#[tokio::test]
async fn service_errors_pass_unchanged() {
    let (world, auth) = fresh().await;
    let inner = tower::service_fn(|_: Request<Body>| async { Err::<Answer, _>("service error") });
    for _ in 0..2 {
        let token = world.provider.token().sign();
        let error = auth.layer().layer(inner).oneshot(axum_request(Some(&token))).await;
        assert_eq!(error.unwrap_err(), "service error");
    }
}

#[test]
fn layers_are_sync_futures_are_send() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>(_: &T) {}
    fn same<T>(_: &T, _: &T) {}
    shared::<Auth>();
    shared::<AuthLayer>();
    shared::<RequireLayer>();
    let auth = crate::support::mock();
    let inner =
        tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Answer::default()) });
    let plain = auth.layer().layer(inner);
    let configured = auth
        .layer()
        .tokens_from([TokenSource::Authorization])
        .tenant_from(TenantSource::path("/t/{tenant_id}"))
        .optional()
        .refuse_preflights()
        .layer(inner);
    same(&plain, &configured);
    sent(&plain.clone().call(axum_request(None)));
    sent(&auth.require(scope("a")).layer(plain).call(axum_request(None)));
    // The same layer serves other body types.
    let full = tower::service_fn(|_: Request<String>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    sent(&auth.layer().layer(full).call(Request::new(String::new())));
}

#[tokio::test]
async fn non_send_services_are_supported() {
    let auth = crate::support::mock();
    let client = TokenExchangeClient::builder("https://id.example");
    let client = client.client_auth(ClientAuth::basic("wave", "secret")).build().unwrap();
    let sessions = Sessions::builder(&auth, client, SealingKeys::random().unwrap());
    let service = tower::service_fn(|request: Request<Unread>| {
        let answer = Response::new(request.into_body());
        async move { Ok::<_, Infallible>(answer) }
    });
    let stack = ServiceBuilder::new().layer(sessions.build().unwrap().layer()).layer(auth.layer());
    let request = || {
        let request = Request::builder().header("authorization", "Bearer x");
        request.body(Unread::default()).unwrap()
    };
    let answer = stack.clone().service(service).oneshot(request()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let stack = stack.layer(auth.require(verified_token())).service(service);
    let answer = stack.oneshot(request()).await.unwrap();
    assert_eq!(answer.status(), 403, "a mock identity is not verified");
}
