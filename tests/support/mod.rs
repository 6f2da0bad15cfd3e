//! What the tests of all binaries stand on: a provider, servers on real sockets, a small client, and a spy.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

pub(crate) mod client;
mod log;
pub(crate) mod process;
pub(crate) mod tenants;

pub(crate) use log::Log;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use scaikey_auth::testing::challenge::{self, Challenge};
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::{
    Algorithm, Auth, AuthBuilder, AuthConfig, AuthMode, BoxError, IssuerConfig, TenantId,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A provider and the time it shares with the services that trust it.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) clock: ManualClock,
}

impl World {
    /// A provider that signs with ES256, the cheapest key to make.
    pub(crate) async fn new() -> Self {
        Self::with([Algorithm::ES256]).await
    }

    pub(crate) async fn with(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let clock = ManualClock::new();
        let provider =
            Provider::builder().algorithms(algorithms).clock(clock.clone()).start().await;
        Self { provider, clock }
    }

    /// The provider as an issuer of any algorithm.
    pub(crate) fn issuer(&self) -> IssuerConfig {
        trusted(&self.provider.issuer())
    }

    /// A service called `scaiwave` that trusts the provider.
    pub(crate) fn auth(&self) -> AuthBuilder {
        self.auth_with(self.issuer())
    }

    pub(crate) fn auth_with(&self, issuer: IssuerConfig) -> AuthBuilder {
        // The default size takes an unoptimised build longer to empty than most tests take.
        let builder = Auth::builder().known_tokens_bytes(1 << 20);
        builder.issuer(issuer).audience("scaiwave").clock(self.clock.clone())
    }
}

/// An issuer on this machine, with every algorithm allowed.
pub(crate) fn trusted(url: &str) -> IssuerConfig {
    let mut config = IssuerConfig::new(url).algorithms(Algorithm::ALL).allow_loopback_http(true);
    config.jwks.wait = Duration::from_secs(60);
    config
}

/// A service that asks nobody.
pub(crate) fn mock() -> Auth {
    let auth = Auth::builder().known_tokens_bytes(0).mode(AuthMode::Mock);
    auth.dangerous_allow_mock_in_production().build().unwrap()
}

pub(crate) fn tenant_id(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

/// A configuration as a file would give it.
pub(crate) fn config(json: serde_json::Value) -> AuthConfig {
    serde_json::from_value(json).unwrap()
}

/// Counts how often the service behind the layer was called.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spy(Arc<AtomicU64>);

impl Spy {
    pub(crate) fn called(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// An app that counts whatever reaches it and answers 200.
    pub(crate) fn app(&self) -> Router {
        let spy = self.clone();
        Router::new().fallback(move || async move { spy.called() })
    }
}

/// A server on a free port of the loopback interface. It ends with its value.
pub(crate) struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves an axum app.
    pub(crate) async fn axum(app: Router) -> Self {
        Self::start(|listener| async move { axum::serve(listener, app).await.unwrap() }).await
    }

    /// Serves a tower service on hyper, without any framework.
    pub(crate) async fn hyper<S, B>(service: S) -> Self
    where
        S: tower::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError> + Send,
        S::Future: Send,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let serve = |listener: TcpListener| async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let connection = auto::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        };
        Self::start(serve).await
    }

    /// Serves whatever `serve` makes of a listener.
    pub(crate) async fn start<F>(serve: impl FnOnce(TcpListener) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, task: tokio::spawn(serve(listener)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request over a connection of its own.
    pub(crate) async fn send(&self, request: Request<impl Into<Bytes>>) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = request.map(|body| Full::new(body.into()));
        request.headers_mut().entry("host").or_insert(http::HeaderValue::from_static("service"));
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// `GET` with these headers.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers)).await
    }

    /// `GET` with a bearer token.
    pub(crate) async fn get_as(&self, path: &str, token: &str) -> Answer {
        self.get(path, &[("authorization", &format!("Bearer {token}"))]).await
    }
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<&'static str> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body("").unwrap()
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// The value of a header that may be there once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        first
    }

    /// The challenge, which must be one, for `Bearer`, and well formed.
    pub(crate) fn challenge(&self) -> Option<Challenge> {
        let mut challenges = challenge::parse(self.header("www-authenticate")?).unwrap();
        assert_eq!(challenges.len(), 1, "{self:?}");
        let challenge = challenges.remove(0);
        assert_eq!(challenge.scheme, "Bearer");
        Some(challenge)
    }

    /// The `error` of the challenge.
    pub(crate) fn error(&self) -> Option<String> {
        self.challenge()?.param("error").map(str::to_owned)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A future that must end soon, because nothing it waits for is late.
pub(crate) async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(120), work).await.expect("ends soon")
}

/// An axum request, for services called without a socket.
pub(crate) fn axum_request(token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().uri("/");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}
