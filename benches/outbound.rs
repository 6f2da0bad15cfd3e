//! Measures the cost of the outbound layer for a request whose token is cached: time and
//! allocations over the bare client. A request over a real connection takes a hundred times as
//! long.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{Request, Response};
use http_body_util::Empty;
use scaikey_auth::error::BoxError;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::outbound::{OutboundLayer, OutboundToken};
use scaikey_auth::testing::{Client, Provider};
use scaikey_auth::{Auth, AuthContext, IssuerConfig, TokenExchangeClient};
use tower::{Layer, Service, service_fn};

const ROUNDS: usize = 41;

type Body = Empty<bytes::Bytes>;

const URL: &str = "https://vault.example/secrets";

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let (provider, caller) = runtime.block_on(setup());
    let mut bare = service_fn(client);

    println!("{:28} {:>10} {:>7}", "token for the destination", "adds", "allocs");
    for (name, token) in [
        ("none", OutboundToken::none()),
        ("forwarded", OutboundToken::forwarded()),
        ("service", OutboundToken::service()),
        ("on_behalf_of_caller", OutboundToken::on_behalf_of_caller("vault")),
    ] {
        let mut layered = layer(&provider, token).layer(service_fn(client));
        runtime.block_on(layered.call(request(&caller))).expect("the first answer");
        let mut costs = Vec::new();
        for _ in 0..ROUNDS {
            let with = time(500, || call_now(&mut layered, &caller));
            costs.push(with - time(500, || call_now(&mut bare, &caller)));
        }
        let allocations = allocations(|| call_now(&mut layered, &caller))
            - allocations(|| call_now(&mut bare, &caller));
        println!("{name:28} {:>7.2} µs {allocations:>7}", median(&mut costs));
    }
}

async fn setup() -> (Provider, AuthContext) {
    let provider = Provider::start().await;
    provider.register_client(Client::new("drive", "secret").may_exchange("vault", "vault:read"));
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build();
    let auth = auth.expect("a configuration");
    let caller = auth.authenticate(&provider.token().sign()).await.expect("a caller");
    (provider, caller)
}

fn layer(provider: &Provider, token: OutboundToken) -> OutboundLayer {
    let client = TokenExchangeClient::builder(provider.issuer())
        .client_auth(ClientAuth::basic("drive", "secret"))
        .allow_loopback_http(true)
        .build()
        .expect("a configuration");
    OutboundLayer::builder(client).destination(URL, token).build().expect("a configuration")
}

async fn client(request: Request<Body>) -> Result<Response<()>, BoxError> {
    black_box(request);
    Ok(Response::new(()))
}

fn request(caller: &AuthContext) -> Request<Body> {
    let request = Request::get(URL).header("accept", "application/json");
    request.extension(caller.clone()).body(Body::new()).expect("a request")
}

/// Sends a request through `service`, which must answer without waiting.
fn call_now<S>(service: &mut S, caller: &AuthContext)
where
    S: Service<Request<Body>, Response = Response<()>, Error = BoxError>,
{
    let response = pin!(service.call(black_box(request(caller))));
    match response.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => drop(black_box(answer.expect("an answer"))),
        Poll::Pending => panic!("the token must be cached"),
    }
}

fn allocations(call: impl FnOnce()) -> u64 {
    allocations::measure(call).count
}

/// Returns the microseconds per call.
fn time<T>(calls: u32, mut call: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
