//! What a token for another service costs when it is kept, as ratios taken in interleaved rounds of
//! one run: from memory against a bare moka `get`, for a herd against one round trip, and from Redis
//! (with `--features redis`, and a `redis-server` on the `PATH`) against a bare `GET`.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use scaikey_auth::testing::{Client, Endpoint, Fault, Provider};
use scaikey_auth::{
    AccessToken, CacheStatus, ClientAuth, ExchangeRequest, ServiceTokenRequest, TokenExchangeClient,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const ROUNDS: usize = 41;
const HERD: usize = 1000;
const UPSTREAM: Duration = Duration::from_millis(20);

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let (provider, client) = runtime.block_on(setup());
    memory(&runtime, &provider, &client);
    herd(&runtime, &provider, &client);
    #[cfg(feature = "redis")]
    redis_level::compare(&runtime, &provider);
}

async fn setup() -> (Provider, TokenExchangeClient) {
    let provider = Provider::start().await;
    provider.register_client(Client::new("drive", "secret").may_exchange("vault", "vault:read"));
    let client = TokenExchangeClient::builder(provider.issuer())
        .client_auth(ClientAuth::basic("drive", "secret"))
        .allow_loopback_http(true)
        .build()
        .expect("a configuration");
    (provider, client)
}

/// A hit in memory, from the request to the token.
fn memory(runtime: &Runtime, provider: &Provider, client: &TokenExchangeClient) {
    println!("a token kept in memory, by a bare moka get of the same value");
    println!(
        "{:28} {:>10} {:>14} {:>14} {:>7}",
        "", "cost", "by 32 octets", "by its text", "allocs"
    );
    let subject = provider.token().sign();
    let request = ExchangeRequest::new(subject.as_str(), "vault");
    let token = runtime.block_on(client.exchange(&request)).expect("a token");
    row("exchange", &token, &subject, || at_once(client.exchange(black_box(&request))));

    let service = ServiceTokenRequest::default();
    let token = runtime.block_on(client.service_token(service.clone())).expect("a token");
    row("service_token", &token, "service", || at_once(client.service_token(service.clone())));
}

fn row(name: &str, token: &AccessToken, text: &str, hit: impl Fn() -> AccessToken) {
    assert_eq!(hit().cache_status(), CacheStatus::Hit);
    let by_octets: Cache<[u8; 32], AccessToken> = Cache::new(10_000);
    let by_text: Cache<String, AccessToken> = Cache::new(10_000);
    by_octets.insert([7; 32], token.clone());
    by_text.insert(text.to_owned(), token.clone());
    let (mut costs, mut to_octets, mut to_text) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ours = time(2000, &hit);
        let octets = time(2000, || by_octets.get(black_box(&[7; 32])).expect("kept"));
        let texts = time(2000, || by_text.get(black_box(text)).expect("kept"));
        costs.push(ours);
        to_octets.push(ours / octets);
        to_text.push(ours / texts);
    }
    let allocations = allocation_counter::measure(|| drop(black_box(hit()))).count_total;
    println!(
        "{:28} {:>7.0} ns {:>12.2} × {:>12.2} × {:>7}",
        name,
        1000.0 * median(&mut costs),
        median(&mut to_octets),
        median(&mut to_text),
        allocations
    );
}

/// A thousand callers of one token that nobody has yet.
fn herd(runtime: &Runtime, provider: &Provider, client: &TokenExchangeClient) {
    println!("\n{HERD} callers at once of a token not kept, the provider taking {UPSTREAM:?}");
    println!("{:28} {:>10} {:>14} {:>14}", "", "p99", "by one call", "requests");
    provider.fail(Endpoint::Token, Fault::Slow(UPSTREAM));
    let (mut p99s, mut ratios, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..11 {
        let alone = runtime.block_on(wait(client, &fresh(provider)));
        let before = provider.token_requests();
        let request = fresh(provider);
        let mut waits: Vec<f64> = runtime.block_on(async {
            let mut callers = JoinSet::new();
            for _ in 0..HERD {
                let (client, request) = (client.clone(), request.clone());
                callers.spawn(async move { wait(&client, &request).await });
            }
            callers.join_all().await
        });
        waits.sort_by(f64::total_cmp);
        let p99 = waits[HERD * 99 / 100];
        p99s.push(p99);
        ratios.push(p99 / alone);
        requests.push((provider.token_requests() - before) as f64);
    }
    provider.heal(Endpoint::Token);
    println!(
        "{:28} {:>7.1} ms {:>12.2} × {:>14}",
        "exchange",
        median(&mut p99s),
        median(&mut ratios),
        requests.iter().fold(0.0_f64, |most, some| most.max(*some))
    );
}

/// A hit in Redis, with no memory in front of it.
#[cfg(feature = "redis")]
mod redis_level {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    use redis::AsyncCommands as _;
    use scaikey_auth::{CacheKeys, RedisCache, Secret};
    use tokio::runtime::Builder;

    use super::*;

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    pub(super) fn compare(runtime: &Runtime, provider: &Provider) {
        println!(
            "\na token kept in Redis, by a bare GET of as many octets on a connection like it"
        );
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = free.expect("a free port").port().to_string();
        let mut command = Command::new("redis-server");
        let command = command.args(["--port", &port, "--save", ""]).stdout(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("there is no `redis-server` here: nothing measured");
            return;
        };
        let _server = Server(child);
        let url = format!("redis://127.0.0.1:{port}");
        println!("{:28} {:>10} {:>14} {:>14}", "exchange", "cost", "bare GET", "ratio");
        let alone = Builder::new_current_thread().enable_all().build().expect("a runtime");
        alone.block_on(measure("on one thread", provider, &url));
        runtime.block_on(measure("on several threads", provider, &url));
    }

    async fn measure(name: &str, provider: &Provider, url: &str) {
        let bare = redis::Client::open(url).expect("a URL");
        let mut bare = loop {
            match bare.get_multiplexed_async_connection().await {
                Ok(connection) => break connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let cache = RedisCache::open(&Secret::new(url)).expect("a URL");
        let client = TokenExchangeClient::builder(provider.issuer())
            .client_auth(ClientAuth::basic("drive", "secret"))
            .allow_loopback_http(true)
            .cache(cache.budget(Duration::from_secs(5)))
            .cache_keys(CacheKeys::random().expect("random numbers"))
            .build()
            .expect("a configuration");
        let request = fresh(provider);
        client.exchange(&request).await.expect("a token");
        let names: Vec<String> = bare.keys("*").await.expect("an answer");
        let kept = names.first().expect("the token is kept");
        assert_eq!(
            client.exchange(&request).await.map(|it| it.cache_status()).ok(),
            Some(CacheStatus::Hit)
        );
        let (mut ours, mut gets, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            for _ in 0..300 {
                black_box(client.exchange(&request).await.expect("a token"));
            }
            let with = begun.elapsed().as_secs_f64() * 1e6 / 300.0;
            let begun = Instant::now();
            for _ in 0..300 {
                let value: Vec<u8> = bare.get(kept).await.expect("a value");
                black_box(value);
            }
            let without = begun.elapsed().as_secs_f64() * 1e6 / 300.0;
            ours.push(with);
            gets.push(without);
            ratios.push(with / without);
        }
        println!(
            "{:28} {:>7.1} µs {:>11.1} µs {:>12.2} ×",
            name,
            median(&mut ours),
            median(&mut gets),
            median(&mut ratios)
        );
    }
}

fn fresh(provider: &Provider) -> ExchangeRequest {
    ExchangeRequest::new(provider.token().sign(), "vault")
}

/// How long a caller waits, in milliseconds.
async fn wait(client: &TokenExchangeClient, request: &ExchangeRequest) -> f64 {
    let begun = Instant::now();
    client.exchange(request).await.expect("a token");
    begun.elapsed().as_secs_f64() * 1e3
}

/// The outcome of a call that must not wait.
fn at_once<T, E: std::fmt::Debug>(call: impl Future<Output = Result<T, E>>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.expect("a token"),
        Poll::Pending => panic!("the token should have been at hand"),
    }
}

/// Microseconds for one call, from many.
fn time<T>(calls: u32, mut call: impl FnMut() -> T) -> f64 {
    let begun = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
