//! Measures cached token exchanges. Each ratio is a median over interleaved rounds. Measured are:
//!
//! - a hit in memory, relative to a bare moka `get`;
//! - many parallel requests for one token, relative to one round trip;
//! - a hit in Redis, relative to a bare `GET` and to the minimal work for sealed tokens. Needs
//!   `--features redis` and a `redis-server` on the `PATH`.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use scaikey_auth::exchange::{AccessToken, CacheStatus, ServiceTokenRequest};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Fault, Provider, ProviderEndpoint};
use scaikey_auth::{ExchangeRequest, TokenExchangeClient};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const ROUNDS: usize = 41;
const CALLERS: usize = 1000;
const PROVIDER_DELAY: Duration = Duration::from_millis(20);

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let (provider, client) = runtime.block_on(setup());
    memory(&runtime, &provider, &client);
    parallel_callers(&runtime, &provider, &client);
    #[cfg(feature = "redis")]
    redis_cache::compare(&runtime, &provider);
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

/// Measures a hit in the memory cache, from the request to the token.
fn memory(runtime: &Runtime, provider: &Provider, client: &TokenExchangeClient) {
    println!("a token in the memory cache, and its ratio to a bare moka get of the same value");
    println!("{:28} {:>10} {:>14} {:>14} {:>7}", "", "cost", "32-byte key", "text key", "allocs");
    let subject = provider.token().sign();
    let request = ExchangeRequest::new(subject.as_str(), "vault");
    let token = runtime.block_on(client.exchange(&request)).expect("a token");
    row("exchange", &token, &subject, || finish_now(client.exchange(black_box(&request))));

    let service = ServiceTokenRequest::default();
    let token = runtime.block_on(client.service_token(service.clone())).expect("a token");
    row("service_token", &token, "service", || finish_now(client.service_token(service.clone())));
}

fn row(name: &str, token: &AccessToken, text: &str, hit: impl Fn() -> AccessToken) {
    assert_eq!(hit().cache_status(), CacheStatus::Hit);
    let by_bytes: Cache<[u8; 32], AccessToken> = Cache::new(10_000);
    let by_text: Cache<String, AccessToken> = Cache::new(10_000);
    by_bytes.insert([7; 32], token.clone());
    by_text.insert(text.to_owned(), token.clone());
    let (mut costs, mut to_bytes, mut to_text) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ours = time(2000, &hit);
        let bytes = time(2000, || by_bytes.get(black_box(&[7; 32])).expect("an entry"));
        let texts = time(2000, || by_text.get(black_box(text)).expect("an entry"));
        costs.push(ours);
        to_bytes.push(ours / bytes);
        to_text.push(ours / texts);
    }
    let allocations = allocations::measure(|| drop(black_box(hit()))).count;
    println!(
        "{:28} {:>7.0} ns {:>12.2} × {:>12.2} × {:>7}",
        name,
        1000.0 * median(&mut costs),
        median(&mut to_bytes),
        median(&mut to_text),
        allocations
    );
}

/// Measures 1,000 parallel requests for one token that is not cached.
fn parallel_callers(runtime: &Runtime, provider: &Provider, client: &TokenExchangeClient) {
    println!(
        "\n{CALLERS} parallel requests for one token that is not cached; the provider takes {PROVIDER_DELAY:?}"
    );
    println!("{:28} {:>10} {:>14} {:>14}", "", "p99", "ratio to one", "requests");
    provider.fail(ProviderEndpoint::Token, Fault::Slow(PROVIDER_DELAY));
    let (mut p99s, mut ratios, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..11 {
        let alone = runtime.block_on(wait(client, &fresh(provider)));
        let before = provider.token_requests();
        let request = fresh(provider);
        let mut waits: Vec<f64> = runtime.block_on(async {
            let mut callers = JoinSet::new();
            for _ in 0..CALLERS {
                let (client, request) = (client.clone(), request.clone());
                callers.spawn(async move { wait(&client, &request).await });
            }
            callers.join_all().await
        });
        waits.sort_by(f64::total_cmp);
        let p99 = waits[CALLERS * 99 / 100];
        p99s.push(p99);
        ratios.push(p99 / alone);
        requests.push((provider.token_requests() - before) as f64);
    }
    provider.heal(ProviderEndpoint::Token);
    println!(
        "{:28} {:>7.1} ms {:>12.2} × {:>14}",
        "exchange",
        median(&mut p99s),
        median(&mut ratios),
        requests.iter().fold(0.0_f64, |most, some| most.max(*some))
    );
}

/// Measures a hit in Redis, without a memory cache in front.
#[cfg(feature = "redis")]
mod redis_cache {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    use aws_lc_rs::{aead, digest, hmac};
    use base64_simd::URL_SAFE_NO_PAD;
    use redis::AsyncCommands as _;
    use redis::aio::MultiplexedConnection;
    use scaikey_auth::Secret;
    use scaikey_auth::exchange::{RedisCache, SealingKeys};
    use tokio::runtime::Builder;

    use super::*;

    const CALLS: usize = 300;

    /// Returns the microseconds per call. A macro, because a task cannot run an async closure that
    /// borrows.
    macro_rules! each {
        ($call:expr) => {{
            let start = Instant::now();
            for _ in 0..CALLS {
                black_box($call.await);
            }
            start.elapsed().as_secs_f64() * 1e6 / CALLS as f64
        }};
    }

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    pub(super) fn compare(runtime: &Runtime, provider: &Provider) {
        println!(
            "\na token in Redis, and its ratio to a bare GET of as many bytes over the same kind of connection"
        );
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = free.expect("a free port").port().to_string();
        let mut command = Command::new("redis-server");
        let command = command.args(["--port", &port, "--save", ""]).stdout(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("Nothing is measured: there is no `redis-server`.");
            return;
        };
        let _server = Server(child);
        println!(
            "{:28} {:>10} {:>14} {:>14} {:>14}",
            "exchange", "cost", "bare GET", "ratio", "floor"
        );
        for (name, runtime) in [
            ("on one thread", &Builder::new_current_thread().enable_all().build().expect("one")),
            ("on several threads", runtime),
        ] {
            let case = Case {
                url: format!("redis://127.0.0.1:{port}"),
                issuer: provider.issuer().to_owned(),
                request: fresh(provider),
            };
            // Runs in a task, like the handlers of a service.
            let row = runtime.block_on(runtime.spawn(case.measure())).expect("the task finishes");
            println!("{name:28} {row}");
        }
    }

    struct Case {
        url: String,
        issuer: String,
        request: ExchangeRequest,
    }

    impl Case {
        async fn measure(self) -> String {
            let mut bare = connected(&self.url).await;
            let cache = RedisCache::open(&Secret::new(self.url)).expect("a URL");
            let client = TokenExchangeClient::builder(self.issuer)
                .client_auth(ClientAuth::basic("drive", "secret"))
                .allow_loopback_http(true)
                .cache(cache.budget(Duration::from_secs(5)))
                .cache_keys(SealingKeys::random().expect("random numbers"))
                .build()
                .expect("a configuration");
            client.exchange(&self.request).await.expect("a token");
            let hit = client.exchange(&self.request).await.expect("a token");
            assert_eq!(hit.cache_status(), CacheStatus::Hit);
            let names: Vec<String> = bare.keys("*").await.expect("an answer");
            let name = names.first().expect("the token is in Redis");
            let floor = Floor::new(self.request.subject.expose());
            floor.put(&bare, hit.secret().expose()).await;

            let (mut costs, mut gets) = (Vec::new(), Vec::new());
            let (mut ratios, mut floors) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let cost = each!(async { client.exchange(&self.request).await.expect("a token") });
                let get = each!(got(&bare, name));
                let minimum = each!(floor.get(&bare));
                costs.push(cost);
                gets.push(get);
                ratios.push(cost / get);
                floors.push(minimum / get);
            }
            format!(
                "{:>7.1} µs {:>11.1} µs {:>12.2} × {:>12.2} ×",
                median(&mut costs),
                median(&mut gets),
                median(&mut ratios),
                median(&mut floors)
            )
        }
    }

    async fn connected(url: &str) -> MultiplexedConnection {
        let client = redis::Client::open(url).expect("a URL");
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn got(bare: &MultiplexedConnection, name: &str) -> Vec<u8> {
        bare.clone().get(name).await.expect("a value")
    }

    /// The minimal work for sealed tokens: a name that reveals nothing about the request, and a
    /// sealing key derived from the subject token. It has no timeout, no single flight, no cached
    /// refusals and no zeroised memory.
    struct Floor {
        subject: String,
        index: hmac::Key,
        sealing: hmac::Key,
    }

    impl Floor {
        fn new(subject: &str) -> Self {
            let key = |fill| hmac::Key::new(hmac::HMAC_SHA256, &[fill; 32]);
            Self { subject: subject.to_owned(), index: key(1), sealing: key(2) }
        }

        /// Returns the name and the sealing key of the token.
        fn name_and_key(&self) -> (String, aead::LessSafeKey) {
            let subject = digest::digest(&digest::SHA256, self.subject.as_bytes());
            let name = hmac::sign(&self.index, subject.as_ref());
            let name = URL_SAFE_NO_PAD.encode_to_string(name);
            let key = hmac::sign(&self.sealing, subject.as_ref());
            let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.as_ref()).expect("a key");
            (format!("floor:-:token:{name}"), aead::LessSafeKey::new(key))
        }

        async fn put(&self, bare: &MultiplexedConnection, token: &str) {
            let (name, key) = self.name_and_key();
            let (nonce, bound, mut sealed) = (nonce(), bound(&name), token.as_bytes().to_vec());
            key.seal_in_place_append_tag(nonce, bound, &mut sealed).expect("sealed");
            let () = bare.clone().set(name, sealed).await.expect("the value is set");
        }

        async fn get(&self, bare: &MultiplexedConnection) -> String {
            let (name, key) = self.name_and_key();
            let mut sealed = got(bare, &name).await;
            let token = key
                .open_in_place(nonce(), bound(&name), &mut sealed)
                .expect("the value that was set");
            std::str::from_utf8(token).expect("a token").to_owned()
        }
    }

    fn nonce() -> aead::Nonce {
        aead::Nonce::assume_unique_for_key([7; aead::NONCE_LEN])
    }

    fn bound(name: &str) -> aead::Aad<&[u8]> {
        aead::Aad::from(name.as_bytes())
    }
}

fn fresh(provider: &Provider) -> ExchangeRequest {
    ExchangeRequest::new(provider.token().sign(), "vault")
}

/// Exchanges a token and returns the time in milliseconds.
async fn wait(client: &TokenExchangeClient, request: &ExchangeRequest) -> f64 {
    let start = Instant::now();
    client.exchange(request).await.expect("a token");
    start.elapsed().as_secs_f64() * 1e3
}

/// Returns the result of a call that must not wait.
fn finish_now<T, E: std::fmt::Debug>(call: impl Future<Output = Result<T, E>>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome.expect("a token"),
        Poll::Pending => panic!("the token must be cached"),
    }
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
