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
#[cfg(feature = "redis")]
async fn propagation(provider: &Provider, url: &str) {
    use scaikey_auth::exchange::{RedisCache, RedisRevocations, SealingKeys};

    let keys = SealingKeys::random().expect("random numbers");
    let [one, other] = [(); 2].map(|()| {
        let redis = RedisCache::open(&url.into()).expect("a URL").prefix("bench");
        Revocations::builder().log(RedisRevocations::new(&redis, keys.clone())).build()
    });
    one.ready().await.expect("the server");
    other.ready().await.expect("the server");
    let mut times = Vec::new();
    for n in 0..1000 {
        let sid = format!("{n}-{}", std::process::id());
        let claims = serde_json::json!({ "iss": provider.issuer(), "sub": "a", "sid": sid });
        let caller = scaikey_auth::testing::identity(claims);
        let start = Instant::now();
        one.revoke(Revocation::session(provider.issuer(), sid)).await.expect("the server");
        while !other.is_revoked(&caller) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    println!(
        "\nfrom the event to the refusal in another process: median {:.0} ms, 99th percentile {:.0} ms",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
}
