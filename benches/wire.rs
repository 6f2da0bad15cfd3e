//! Measures the cost of the layer in a request over HTTP/1.1: the CPU time of the server thread,
//! relative to the same hyper server without the layer. The ratios are medians over interleaved
//! rounds. Run it on one processor, so that both servers share it with their clients: `taskset -c 0
//! cargo bench --bench wire`.

mod support;

use std::path::Path;

use scaikey_auth::Auth;
use scaikey_auth::config::Algorithm;
use tower::{Layer, service_fn};

use support::wire::{self, Server, answer};
use support::{ROUNDS, median, provider, trusting};

fn main() {
    if !Path::new("/proc/thread-self/schedstat").exists() {
        println!("Nothing is measured: this system does not report the CPU time of a thread.");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let provider = runtime.block_on(provider());
    let protected = |auth: Auth| auth.layer().layer(service_fn(answer));
    let mut bare = Server::start(service_fn(answer));
    let mut cached = Server::start(protected(runtime.block_on(trusting(&provider, 16 << 20))));
    let mut fresh = Server::start(protected(runtime.block_on(trusting(&provider, 0))));
    let token = |algorithm| wire::get(Some(&provider.token().algorithm(algorithm).sign()));

    println!("CPU time of the server per request, and its ratio to the bare server");
    println!("{:24} {:>10} {:>10} {:>8}", "request", "bare", "layer", "ratio");
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let name = format!("cached {}", algorithm.as_str());
        compare(&name, &mut cached, &mut bare, &token(algorithm), 200);
    }
    compare("no token", &mut cached, &mut bare, &wire::get(None), 401);
    compare(
        "garbage, 1000 bytes",
        &mut cached,
        &mut bare,
        &wire::get(Some(&"x".repeat(1000))),
        401,
    );
    let unknown = provider.token().kid(Some("nobody")).sign();
    compare("unknown key", &mut cached, &mut bare, &wire::get(Some(&unknown)), 401);
    for algorithm in [Algorithm::RS256, Algorithm::ES256] {
        let name = format!("new {}", algorithm.as_str());
        compare(&name, &mut fresh, &mut bare, &token(algorithm), 200);
    }
}

/// Sends the same request to both servers alternately, and prints the costs and their ratio.
fn compare(name: &str, layered: &mut Server, bare: &mut Server, request: &[u8], expected: u16) {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first round fills the caches and is not counted.
    layered.cost(request, expected);
    for _ in 0..ROUNDS {
        let floor = bare.cost(request, 200);
        let cost = layered.cost(request, expected);
        ratios.push(cost / floor);
        with.push(cost);
        without.push(floor);
    }
    let (with, without) = (median(&mut with), median(&mut without));
    println!("{name:24} {without:>7.2} µs {with:>7.2} µs {:>8.3}", median(&mut ratios));
}
