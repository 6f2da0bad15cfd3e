//! What the layer adds to a request over HTTP/1.1: processor time of the server's thread, over that of
//! the same hyper server without the layer, as ratios taken in interleaved rounds of one run. On one
//! processor, or the scheduler decides which of the servers shares one with its clients:
//! `taskset -c 0 cargo bench --bench wire`.

mod support;

use std::path::Path;

use scaikey_auth::Auth;
use scaikey_auth::config::Algorithm;
use tower::{Layer, service_fn};

use support::wire::{self, Server, answer};
use support::{ROUNDS, median, provider, trusting};

fn main() {
    if !Path::new("/proc/thread-self/schedstat").exists() {
        println!("Nothing is measured: this system does not say how long a thread ran.");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let provider = runtime.block_on(provider());
    let behind = |auth: Auth| auth.layer().layer(service_fn(answer));
    let mut bare = Server::start(service_fn(answer));
    let mut known = Server::start(behind(runtime.block_on(trusting(&provider, 16 << 20))));
    let mut fresh = Server::start(behind(runtime.block_on(trusting(&provider, 0))));
    let token = |algorithm| wire::get(Some(&provider.token().algorithm(algorithm).sign()));

    println!("processor time of the server per request, by that of the bare server");
    println!("{:24} {:>10} {:>10} {:>8}", "request", "bare", "layer", "ratio");
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let name = format!("known {}", algorithm.as_str());
        compare(&name, &mut known, &mut bare, &token(algorithm), 200);
    }
    compare("no token", &mut known, &mut bare, &wire::get(None), 401);
    compare("garbage, 1000 bytes", &mut known, &mut bare, &wire::get(Some(&"x".repeat(1000))), 401);
    let unknown = provider.token().kid(Some("nobody")).sign();
    compare("unknown key", &mut known, &mut bare, &wire::get(Some(&unknown)), 401);
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let name = format!("first-seen {}", algorithm.as_str());
        compare(&name, &mut fresh, &mut bare, &token(algorithm), 200);
    }
}

/// The same request to both, in turn.
fn compare(name: &str, layered: &mut Server, bare: &mut Server, request: &[u8], expected: u16) {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // A first round fills what is filled once.
    layered.cost(request, expected);
    for _ in 0..ROUNDS {
        let theirs = bare.cost(request, 200);
        let ours = layered.cost(request, expected);
        ratios.push(ours / theirs);
        with.push(ours);
        without.push(theirs);
    }
    let (with, without) = (median(&mut with), median(&mut without));
    println!("{name:24} {without:>7.2} µs {with:>7.2} µs {:>8.3}", median(&mut ratios));
}
