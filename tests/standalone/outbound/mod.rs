//! Tests of the layer for HTTP clients: each destination gets its token, and no other server gets one.

mod callers;
mod destinations;
mod grpc;
mod reqwest_client;
mod revoked;
mod secrecy;
mod tokens;
mod tower_contracts;
mod unauthorized;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::TokenExchangeBuilder;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::outbound::{OutboundBuilder, OutboundError, OutboundLayer, OutboundToken};
use scaikey_auth::testing::{self, ManualClock, Provider};
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{Auth, AuthContext, TokenExchangeClient};
use serde_json::Value;
use tower::{Layer, ServiceExt};

use crate::support::{Server, local, mock, within_timeout};

type Http = Client<HttpConnector, Full<Bytes>>;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SERVICE: &str = "client_credentials";

/// A provider, the service `scaiwave` that trusts it, and the service's client, with one clock.
struct World {
    provider: Provider,
    clock: ManualClock,
    auth: Auth,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let provider = Provider::builder().algorithms([Algorithm::ES256]).clock(clock.clone());
        let provider = provider.start().await;
        provider.register_client(drive());
        let auth = Auth::builder()
            .issuer(local(provider.issuer()))
            .audience("scaiwave")
            .clock(clock.clone());
        Self {
            auth: auth.tenant_optional().verified_tokens_bytes(1 << 20).build().unwrap(),
            provider,
            clock,
        }
    }

    fn client_builder(&self) -> TokenExchangeBuilder {
        TokenExchangeClient::builder(self.provider.issuer())
            .client_auth(ClientAuth::basic("drive", "a secret"))
            .allow_loopback_http(true)
            .clock(self.clock.clone())
    }

    fn builder(&self) -> OutboundBuilder {
        let client = self.client_builder().build().unwrap();
        OutboundLayer::builder(client).allow_loopback_http(true)
    }

    /// A layer with one destination.
    fn layer(&self, to: &Downstream, token: OutboundToken) -> OutboundLayer {
        self.builder().destination(to.url(), token).build().unwrap()
    }

    /// Returns an authenticated user of tenant `tenant-1` whose token lives for a day.
    async fn caller(&self, subject: &str) -> AuthContext {
        let token = self.provider.token().subject(subject).expires_in(secs(86_400)).sign();
        self.auth.authenticate(&token).await.unwrap()
    }
}

fn drive() -> testing::Client {
    let drive = testing::Client::new("drive", "a secret").scopes("read write");
    drive.may_exchange("scaivault", "vault:read vault:write")
}

/// Returns a mock user, who has no real token.
async fn mock_caller() -> AuthContext {
    mock().authenticate("anything").await.unwrap()
}

/// A request that a downstream service received.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    /// All `Authorization` values.
    authorization: Vec<String>,
    body: Bytes,
}

impl Seen {
    /// Returns the only token.
    fn token(&self) -> &str {
        let [value] = self.authorization.as_slice() else { panic!("not one token: {self:?}") };
        value.strip_prefix("Bearer ").unwrap()
    }

    fn claims(&self) -> Value {
        insecure_decode_claims(self.token()).unwrap()
    }
}

/// A service on a real socket that records its requests. Dropping it stops the server.
struct Downstream {
    server: Server,
    book: Book,
}

#[derive(Clone, Default)]
struct Book {
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The next statuses; 200 when empty.
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Downstream {
    async fn start() -> Self {
        let book = Book::default();
        let app = Router::new().fallback(record).with_state(book.clone());
        Self { server: Server::axum(app).await, book }
    }

    fn url(&self) -> String {
        self.server.url()
    }

    fn address(&self) -> String {
        self.url().replace("http://", "")
    }

    fn get(&self, path: &str) -> Request<Full<Bytes>> {
        Request::get(format!("{}{path}", self.url())).body(Full::default()).unwrap()
    }

    fn will_answer(&self, statuses: impl IntoIterator<Item = u16>) {
        self.book.answers.lock().unwrap().extend(statuses);
    }

    fn seen(&self) -> Vec<Seen> {
        self.book.seen.lock().unwrap().clone()
    }

    /// Returns the only request.
    fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

async fn record(State(book): State<Book>, request: Request<Body>) -> StatusCode {
    let (head, body) = request.into_parts();
    let values = head.headers.get_all(AUTHORIZATION).iter();
    let authorization = values.map(|value| value.to_str().unwrap().to_owned()).collect();
    let body = axum::body::to_bytes(body, 10_000).await.unwrap();
    book.seen.lock().unwrap().push(Seen { path: head.uri.path().to_owned(), authorization, body });
    let status = book.answers.lock().unwrap().pop_front();
    StatusCode::from_u16(status.unwrap_or(200)).unwrap()
}

fn http() -> Http {
    Client::builder(TokioExecutor::new()).build(HttpConnector::new())
}

/// Sends a request through the layer and a real client.
async fn send(
    layer: &OutboundLayer,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, BoxError> {
    within_timeout(layer.layer(http()).oneshot(request)).await
}

/// A kind of HTTP client. The layer has the same rules for both.
#[derive(Debug, Clone, Copy)]
enum Via {
    Tower,
    Reqwest,
}

impl Via {
    const BOTH: [Self; 2] = [Self::Tower, Self::Reqwest];

    /// Sends a request through the layer and a real client. Returns the status, or why it was not sent.
    async fn send(
        self,
        layer: &OutboundLayer,
        request: Request<Full<Bytes>>,
    ) -> Result<u16, OutboundError> {
        match self {
            Self::Tower => {
                let sent = send(layer, request).await;
                sent.map(|answer| answer.status().as_u16())
                    .map_err(|error| why(Err::<(), _>(error)))
            }
            Self::Reqwest => {
                let client = reqwest_client::client(layer);
                let sent = reqwest_client::execute(&client, request).await;
                sent.map(|answer| answer.status().as_u16()).map_err(reqwest_client::why)
            }
        }
    }
}

/// Adds the caller to the request.
fn by(caller: &AuthContext, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(caller.clone());
    request
}

/// Returns the reason why a request was not sent.
fn why<T: std::fmt::Debug>(outcome: Result<T, BoxError>) -> OutboundError {
    *outcome.unwrap_err().downcast::<OutboundError>().expect("an OutboundError")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
