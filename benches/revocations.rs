//! Measures the price of revocations for a request with a cached token: without entries, and with a million. The
//! differences are medians over interleaved rounds. `cargo bench --bench revocations -- 100000` sets another number.
//!
//! With `--features redis` and `REDIS_URL`, also the time from an event in one process to the refusal in another.

mod support;

use std::time::Instant;

use futures_util::FutureExt as _;
use scaikey_auth::Auth;
use scaikey_auth::revocation::{Revocation, Revocations};
use scaikey_auth::testing::Provider;
use tokio::runtime::Runtime;
use tower::{Layer, service_fn};

use support::{ROUNDS, bearer, handler, issuer, median, status, time};

const MIB: usize = 1 << 20;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    #[cfg(feature = "redis")]
    if let [Ok(issuer), Ok(redis)] = OTHER.map(std::env::var) {
        return runtime.block_on(OtherProcess::run(&issuer, &redis));
    }
    let entries = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000);
    let provider = runtime.block_on(support::provider());
    let empty = Revocations::default();
    let services = [
        ("sessions only", session as Create),
        ("sessions of subjects", session_of_subject),
        ("subjects", subject),
    ];
    println!("{entries} entries; time of a request with a cached token, without and with them");
    println!(
        "{:24} {:>10} {:>10} {:>10} {:>12} {:>10}",
        "entries", "tokens", "without", "with", "difference", "insertion"
    );
    for (name, create) in services {
        let full = Revocations::builder().max_entries(2 * entries).build();
        let start = Instant::now();
        for n in 0..entries / create(&provider, 0).1 {
            let revoked = full.revoke(create(&provider, n).0);
            revoked.now_or_never().expect("without a log").expect("room");
        }
        let insertion = start.elapsed().as_secs_f64() * 1e6 / entries as f64;
        for count in [1, 10_000] {
            row(name, &runtime, &provider, [&empty, &full], count, insertion);
        }
    }
    #[cfg(feature = "redis")]
    if let Ok(url) = std::env::var("REDIS_URL") {
        runtime.block_on(propagation(&provider, &url));
    }
}

/// Creates a revocation, and returns the number of its entries.
type Create = fn(&Provider, usize) -> (Revocation, usize);

fn session(provider: &Provider, n: usize) -> (Revocation, usize) {
    (Revocation::session(provider.issuer(), format!("session {n}")), 1)
}

fn session_of_subject(provider: &Provider, n: usize) -> (Revocation, usize) {
    (session(provider, n).0.of_subject(format!("subject {n}")), 2)
}

fn subject(provider: &Provider, n: usize) -> (Revocation, usize) {
    (Revocation::subject(provider.issuer(), format!("subject {n}")), 1)
}

fn service(runtime: &Runtime, provider: &Provider, revocations: &Revocations) -> Auth {
    let builder = Auth::builder().issuer(issuer(&provider.issuer())).audience("scaiwave");
    let builder = builder.verified_tokens_bytes(256 * MIB).revocations(revocations.clone());
    let auth = builder.build().expect("a configuration");
    runtime.block_on(auth.ready()).expect("keys");
    auth
}

fn row(
    name: &str,
    runtime: &Runtime,
    provider: &Provider,
    revocations: [&Revocations; 2],
    count: usize,
    insertion: f64,
) {
    let tokens: Vec<_> = (0..count)
        .map(|n| {
            let token = provider.token().subject(&format!("user {n}"));
            bearer(&token.claim("sid", format!("of user {n}")).sign())
        })
        .collect();
    let mut services =
        revocations.map(|it| service(runtime, provider, it).layer().layer(service_fn(handler)));
    let calls = count.max(2000) as u32;
    let [mut without, mut with, mut differences] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let times = services.each_mut().map(|service| {
            let mut turn = tokens.iter().cycle();
            time(calls, || {
                let status = status(service, turn.next());
                assert_eq!(status, 200);
            })
        });
        without.push(1e3 * times[0]);
        with.push(1e3 * times[1]);
        differences.push(1e3 * (times[1] - times[0]));
    }
    let [without, with, difference] =
        [&mut without, &mut with, &mut differences].map(|times| median(times));
    println!(
        "{name:24} {count:>10} {without:>7.0} ns {with:>7.0} ns {difference:>9.0} ns {insertion:>7.2} µs"
    );
}

/// Prints how late another process refuses a token, for 1,000 events.
/// Measures the time from a logout token at this process to the refusal of the session's token in another one.
#[cfg(feature = "redis")]
async fn propagation(provider: &Provider, url: &str) {
    let auth = sharing(&provider.issuer(), url).await;
    let endpoints = auth.endpoints().backchannel_logout_for("wave").build().expect("endpoints");
    let here = serve(axum::Router::new().layer(endpoints)).await;
    let report = format!("http://{here}/v1/auth/backchannel_logout");
    let mut other = OtherProcess::start(&provider.issuer(), url);
    let http = reqwest::Client::new();
    let mut times = Vec::new();
    for n in 0..1000 {
        let sid = format!("{n}-{}", std::process::id());
        let access = provider.token().claim("sid", sid.as_str()).sign();
        let status = async || {
            let answer = http.get(&other.url).bearer_auth(&access).send().await;
            answer.expect("the other process").status().as_u16()
        };
        assert_eq!(status().await, 200);
        let event = "http://schemas.openid.net/event/backchannel-logout";
        let logout = provider.token().typ(Some("logout+jwt")).audience("wave");
        let logout = logout.claim("sid", sid).claim("events", serde_json::json!({ event: {} }));
        let logout = logout.expires_in(std::time::Duration::from_secs(120)).sign();
        let start = Instant::now();
        let body = format!("logout_token={logout}");
        let form = ("content-type", "application/x-www-form-urlencoded");
        let answer = http.post(&report).header(form.0, form.1).body(body).send().await;
        assert_eq!(answer.expect("this process").status().as_u16(), 200);
        while status().await != 401 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    other.process.kill().expect("the other process");
    times.sort_by(f64::total_cmp);
    println!(
        "\nfrom the report to the refusal in another process: median {:.0} ms, 99th percentile {:.0} ms",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}

/// The variables that make this program the other process.
#[cfg(feature = "redis")]
const OTHER: [&str; 2] = ["BENCH_ISSUER", "BENCH_REDIS"];

#[cfg(feature = "redis")]
struct OtherProcess {
    process: std::process::Child,
    url: String,
}

#[cfg(feature = "redis")]
impl OtherProcess {
    fn start(issuer: &str, redis: &str) -> Self {
        use std::io::BufRead as _;
        let program = std::env::current_exe().expect("this program");
        let mut process = std::process::Command::new(program)
            .envs(OTHER.into_iter().zip([issuer, redis]))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the other process");
        let output = process.stdout.take().expect("its output");
        let mut url = String::new();
        std::io::BufReader::new(output).read_line(&mut url).expect("its URL");
        Self { process, url: url.trim().to_owned() }
    }

    /// Serves until the process is killed.
    async fn run(issuer: &str, redis: &str) {
        let auth = sharing(issuer, redis).await;
        let app =
            axum::Router::new().route("/", axum::routing::get(async || "")).layer(auth.layer());
        println!("http://{}/", serve(app).await);
        std::future::pending::<()>().await;
    }
}

/// Builds a service that shares its revocations.
#[cfg(feature = "redis")]
async fn sharing(name: &str, redis: &str) -> Auth {
    use scaikey_auth::exchange::{RedisCache, RedisRevocations, SealingKeys};
    let keys = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=".into();
    let keys = SealingKeys::parse(&keys).expect("keys");
    let redis = RedisCache::open(&redis.into()).expect("a URL").prefix("bench");
    let log = Revocations::builder().log(RedisRevocations::new(&redis, keys)).build();
    let auth = Auth::builder().issuer(issuer(name)).audience("scaiwave").revocations(log);
    let auth = auth.build().expect("a configuration");
    auth.ready().await.expect("the provider and Redis");
    auth
}

/// Serves an application in the background. Returns its address.
#[cfg(feature = "redis")]
async fn serve(app: axum::Router) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}
