//! What the layer adds to a request over HTTP/1.1: processor time of the server's thread, over that of
//! the same hyper server without the layer, as ratios taken in interleaved rounds of one run. On one
//! processor, or the scheduler decides which of the servers shares one with its clients:
//! `taskset -c 0 cargo bench --bench wire`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use scaikey_auth::{Algorithm, Auth};
use tower::{Layer, service_fn};

use support::wire::{self, Connection, answer, listen, serve};
use support::{ROUNDS, median, provider, trusting};

/// How many clients ask at once, each on a connection of its own.
const CLIENTS: usize = 8;
/// How often each of them asks in a round.
const REQUESTS: usize = 50;

/// A server on a thread of its own, and its clients.
struct Server {
    /// Where Linux says how long the thread ran.
    meter: PathBuf,
    clients: Vec<Connection>,
}

fn main() {
    if !Path::new("/proc/thread-self/schedstat").exists() {
        println!("Nothing is measured: this system does not say how long a thread ran.");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let provider = runtime.block_on(provider());
    let mut bare = Server::start(None);
    let mut known = Server::start(Some(runtime.block_on(trusting(&provider, 16 << 20))));
    let mut fresh = Server::start(Some(runtime.block_on(trusting(&provider, 0))));
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

impl Server {
    fn start(auth: Option<Auth>) -> Self {
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let thread = fs::read_link("/proc/thread-self").expect("this thread");
                let (listener, port) = listen().await;
                tell.send((port, thread)).expect("somebody waits");
                match auth {
                    Some(auth) => serve(listener, auth.layer().layer(service_fn(answer))).await,
                    None => serve(listener, service_fn(answer)).await,
                }
            });
        });
        let (port, thread) = told.recv().expect("the server listens");
        let meter = Path::new("/proc").join(thread).join("schedstat");
        Self { meter, clients: (0..CLIENTS).map(|_| Connection::open(port)).collect() }
    }

    /// Microseconds of the server's thread per request.
    fn cost(&mut self, request: &[u8], expected: u16) -> f64 {
        let before = self.ran();
        for _ in 0..REQUESTS {
            self.clients.iter_mut().for_each(|client| client.send(request));
            for client in &mut self.clients {
                assert_eq!(client.status(), expected);
            }
        }
        (self.ran() - before) as f64 / 1e3 / (CLIENTS * REQUESTS) as f64
    }

    /// Nanoseconds the thread ran. What it did last counts only once it has gone to sleep.
    fn ran(&self) -> u64 {
        let mut last = None;
        loop {
            thread::sleep(Duration::from_micros(300));
            let line = fs::read_to_string(&self.meter).expect("the thread lives");
            let ran = line.split(' ').next().and_then(|it| it.parse().ok());
            let ran: u64 = ran.expect("a time");
            if last == Some(ran) {
                return ran;
            }
            last = Some(ran);
        }
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
