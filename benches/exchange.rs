//! What a token for another service costs when it is kept, as ratios taken in interleaved rounds of
//! one run: from memory against a bare moka `get`, for a herd against one round trip, and from Redis
//! (with `--features redis`, and a `redis-server` on the `PATH`) against a bare `GET`, beside what is
//! the least that sealed tokens take.

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
    let allocations = allocations::measure(|| drop(black_box(hit()))).count;
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
    provider.fail(ProviderEndpoint::Token, Fault::Slow(UPSTREAM));
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
    provider.heal(ProviderEndpoint::Token);
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

    use aws_lc_rs::{aead, digest, hmac};
    use base64_simd::URL_SAFE_NO_PAD;
    use redis::AsyncCommands as _;
    use redis::aio::MultiplexedConnection;
    use scaikey_auth::Secret;
    use scaikey_auth::exchange::{RedisCache, SealingKeys};
    use tokio::runtime::Builder;

    use super::*;

    const CALLS: usize = 300;

    /// Microseconds for one call, from many. A macro, because a task takes no asynchronous closure
    /// that borrows.
    macro_rules! each {
        ($call:expr) => {{
            let begun = Instant::now();
            for _ in 0..CALLS {
                black_box($call.await);
            }
            begun.elapsed().as_secs_f64() * 1e6 / CALLS as f64
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
            // In a task, as the handlers of a service are.
            let row = runtime.block_on(runtime.spawn(case.measure())).expect("an end");
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
            let kept = names.first().expect("the token is kept");
            let floor = Floor::new(self.request.subject.expose());
            floor.put(&bare, hit.secret().expose()).await;

            let (mut costs, mut gets) = (Vec::new(), Vec::new());
            let (mut ratios, mut floors) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let cost = each!(async { client.exchange(&self.request).await.expect("a token") });
                let get = each!(got(&bare, kept));
                let least = each!(floor.get(&bare));
                costs.push(cost);
                gets.push(get);
                ratios.push(cost / get);
                floors.push(least / get);
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

    /// What it takes to keep tokens sealed, and nothing else: a name that tells nobody what was
    /// asked, and a key that the subject token goes into. No deadline, no herd kept together, no
    /// refusal remembered, nothing wiped.
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

        /// What a token is kept under, and what it is sealed with.
        fn place(&self) -> (String, aead::LessSafeKey) {
            let subject = digest::digest(&digest::SHA256, self.subject.as_bytes());
            let name = hmac::sign(&self.index, subject.as_ref());
            let name = URL_SAFE_NO_PAD.encode_to_string(name);
            let key = hmac::sign(&self.sealing, subject.as_ref());
            let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.as_ref()).expect("a key");
            (format!("floor:-:token:{name}"), aead::LessSafeKey::new(key))
        }

        async fn put(&self, bare: &MultiplexedConnection, token: &str) {
            let (name, key) = self.place();
            let (nonce, bound, mut sealed) = (nonce(), bound(&name), token.as_bytes().to_vec());
            key.seal_in_place_append_tag(nonce, bound, &mut sealed).expect("sealed");
            let () = bare.clone().set(name, sealed).await.expect("it is kept");
        }

        async fn get(&self, bare: &MultiplexedConnection) -> String {
            let (name, key) = self.place();
            let mut sealed = got(bare, &name).await;
            let token =
                key.open_in_place(nonce(), bound(&name), &mut sealed).expect("what was put");
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
