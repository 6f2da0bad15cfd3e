//! The contracts of tower middleware, with several kinds of HTTP clients.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use scaikey_auth::outbound::{OutboundLayer, OutboundToken, with_caller};
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

use super::{World, secs, within_timeout};

/// A service that panics when it is called without `poll_ready`. A clone is not ready, even if the
/// original is. Answers 401 for the number of `refusals`.
#[derive(Debug, Default)]
struct Strict {
    calls: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
    is_ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        let (calls, refusals) = (self.calls.clone(), self.refusals.clone());
        Self { calls, refusals, is_ready: false }
    }
}

impl<B> Service<Request<B>> for Strict {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        let less = |left: usize| left.checked_sub(1);
        let is_refused =
            self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
        let mut answer = Response::new(());
        if is_refused {
            *answer.status_mut() = http::StatusCode::UNAUTHORIZED;
        }
        ready(Ok(answer))
    }
}

const URL: &str = "https://vault.example/";

fn layer(world: &World) -> OutboundLayer {
    world.builder().destination(URL, OutboundToken::service()).build().unwrap()
}

fn request(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

/// Sends accepted, rejected and retried requests, one by one and concurrently.
async fn exercise<S>(world: &World, refusals: &AtomicUsize, mut service: S)
where
    S: Service<Request<Full<Bytes>>, Response = Response<()>, Error = BoxError>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    for _ in 0..3 {
        let ready = within_timeout(service.ready()).await.unwrap();
        assert_eq!(within_timeout(ready.call(request(URL))).await.unwrap().status(), 200);
        let ready = within_timeout(service.ready()).await.unwrap();
        within_timeout(ready.call(request("https://evil.example/"))).await.unwrap_err();
        world.clock.advance(secs(11));
        refusals.store(1, Ordering::SeqCst);
        let ready = within_timeout(service.ready()).await.unwrap();
        assert_eq!(within_timeout(ready.call(request(URL))).await.unwrap().status(), 200);
        let concurrent: Vec<_> =
            (0..8).map(|_| tokio::spawn(service.clone().oneshot(request(URL)))).collect();
        for answer in concurrent {
            assert_eq!(within_timeout(answer).await.unwrap().unwrap().status(), 200);
        }
    }
}

#[tokio::test]
async fn ready_instance_is_the_one_called() {
    let world = World::new().await;
    let inner = Strict::default();
    let (calls, refusals) = (inner.calls.clone(), inner.refusals.clone());
    exercise(&world, &refusals, layer(&world).layer(inner)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 3 * (1 + 2 + 8));
}

#[tokio::test]
async fn limits_and_buffers_compose_with_the_layer() {
    let world = World::new().await;
    let inner = Strict::default();
    let refusals = inner.refusals.clone();
    let outbound = layer(&world);
    let stack = || ServiceBuilder::new();
    let inside = stack().layer(outbound.clone()).concurrency_limit(1).service(inner.clone());
    exercise(&world, &refusals, inside).await;
    let outside = stack().concurrency_limit(1).layer(outbound.clone()).service(inner.clone());
    exercise(&world, &refusals, outside).await;
    let inside = stack().layer(outbound.clone()).buffer(1).service(inner.clone());
    exercise(&world, &refusals, inside).await;
    let outside = stack().buffer(1).layer(outbound).service(inner);
    exercise(&world, &refusals, outside).await;
}

#[tokio::test]
async fn rejection_releases_reserved_capacity() {
    let world = World::new().await;
    let limited = ServiceBuilder::new().layer(layer(&world)).concurrency_limit(1);
    let limited = limited.service(Strict::default());
    let mut kept = Vec::new();
    for uri in ["https://evil.example/", "/", URL] {
        let mut service = limited.clone();
        let ready =
            within_timeout(ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)).await.unwrap();
        let _ = within_timeout(ready.call(request(uri))).await;
        kept.push(service);
    }
}

#[tokio::test]
async fn dropped_future_releases_capacity() {
    let world = World::new().await;
    let inner = Strict::default();
    let calls = inner.calls.clone();
    let mut service = layer(&world).layer(ConcurrencyLimit::new(inner, 1));
    world.provider.fail(ProviderEndpoint::Token, Fault::Hang);
    let held = Arc::new(());
    for _ in 0..3 {
        let mut request = request(URL);
        request.extensions_mut().insert(held.clone());
        let ready =
            within_timeout(ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)).await.unwrap();
        let mut response = Box::pin(ready.call(request));
        // The future requests its token, and is dropped.
        assert!(poll_once(&mut response).await.is_pending());
        drop(response);
        assert_eq!(Arc::strong_count(&held), 1);
    }
    world.provider.heal(ProviderEndpoint::Token);
    let ready =
        within_timeout(ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)).await.unwrap();
    assert_eq!(within_timeout(ready.call(request(URL))).await.unwrap().status(), 200);
    assert_eq!((calls.load(Ordering::SeqCst), world.provider.token_requests()), (1, 1));
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

#[tokio::test]
async fn request_without_token_is_forwarded_synchronously() {
    let world = World::new().await;
    let builder = world.builder().destination(URL, OutboundToken::none());
    let twin = "https://twin.example/";
    let outbound = builder.destination(twin, OutboundToken::forwarded()).build().unwrap();
    let inner = Strict::default();
    let calls = inner.calls.clone();
    let mut service = outbound.layer(inner);
    let alice = world.caller("alice-id").await;
    for (nth, uri) in [URL, twin].into_iter().enumerate() {
        let ready =
            within_timeout(ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)).await.unwrap();
        let mut response = ready.call(super::by(&alice, request(uri)));
        // The client is called before the first poll, and the first poll returns its answer.
        assert_eq!(calls.load(Ordering::SeqCst), nth + 1, "{uri}");
        let answer = poll_once(&mut response).await;
        assert!(matches!(answer, Poll::Ready(Ok(_))), "{uri}");
    }
}

#[tokio::test]
async fn client_errors_are_passed_through() {
    let world = World::new().await;
    let broken = |_: Request<Full<Bytes>>| async { Err::<Response<()>, BoxError>("own".into()) };
    let service = layer(&world).layer(tower::service_fn(broken));
    assert_eq!(service.oneshot(request(URL)).await.unwrap_err().to_string(), "own");
}

#[tokio::test]
async fn layer_is_sync_and_future_is_send() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sent<T: Send + 'static>(value: T) -> T {
        value
    }
    let world = World::new().await;
    let outbound = layer(&world);
    shared(&outbound);
    shared(&scaikey_auth::outbound::CallerLayer);
    let mut service = outbound.layer(Strict::default());
    shared(&service);
    let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut service).await.unwrap();
    let caller = world.caller("alice-id").await;
    let answer = sent(with_caller(caller, sent(ready.call(request(URL))))).await;
    assert_eq!(answer.unwrap().status(), 200);
    // A body that cannot be copied and is not `Sync`.
    let streamed = world.builder().destination(URL, OutboundToken::service());
    let streamed = streamed.resend(|_: &axum::body::Body| None).build().unwrap();
    let mut service = streamed.layer(Strict::default());
    let request = Request::get(URL).body(axum::body::Body::empty()).unwrap();
    let ready = ServiceExt::<Request<axum::body::Body>>::ready(&mut service).await.unwrap();
    assert_eq!(sent(ready.call(request)).await.unwrap().status(), 200);
}
