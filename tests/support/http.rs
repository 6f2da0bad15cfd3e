//! Servers on real sockets, and clients that read whole answers.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use scaikey_auth::error::BoxError;
use scaikey_auth::testing::challenge::{self, Challenge};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server on a free port of the loopback interface. It stops on drop.
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

    /// Runs `serve` with a listener.
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

    /// Sends a request over a new connection.
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
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends a `GET` request with these headers.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers)).await
    }

    /// Sends a `GET` request with a bearer token.
    pub(crate) async fn get_as(&self, path: &str, token: &str) -> Answer {
        self.get(path, &[("authorization", &format!("Bearer {token}"))]).await
    }
}

/// Builds a request without a body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<&'static str> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body("").unwrap()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Returns the value of a header, if present. Panics if it is repeated.
    pub(crate) fn header_opt(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        first
    }

    /// Returns the value of a header. Panics if it is missing or repeated.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.header_opt(name).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    /// Returns the challenge, if present. Panics unless it is a single, well-formed `Bearer`
    /// challenge.
    pub(crate) fn challenge(&self) -> Option<Challenge> {
        let mut challenges = challenge::parse(self.header_opt("www-authenticate")?).unwrap();
        assert_eq!(challenges.len(), 1, "{self:?}");
        let challenge = challenges.remove(0);
        assert_eq!(challenge.scheme, "Bearer");
        Some(challenge)
    }

    /// Returns the values of a header that may be repeated, in the order sent.
    pub(crate) fn header_lines(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// Returns the `error` of the challenge.
    pub(crate) fn error(&self) -> Option<String> {
        self.challenge()?.param("error").map(str::to_owned)
    }

    /// Checks that this is an OAuth error with this status and code (RFC 6749 §5.2).
    #[track_caller]
    pub(crate) fn assert_oauth_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.json()["error"], code, "{self:?}");
        assert_eq!(self.header("cache-control"), "no-store");
        assert_eq!(self.header("content-type"), "application/json");
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a `GET` request, with a bearer token if given.
pub(crate) async fn get(url: &str, token: Option<&str>) -> Answer {
    let request = client().get(url);
    send(match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = String::from_utf8(response.bytes().await.unwrap().into()).unwrap();
    Answer { status, headers, body }
}

/// Returns a client that ignores proxy variables and follows no redirects.
pub(crate) fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    client.no_proxy().build().unwrap()
}
