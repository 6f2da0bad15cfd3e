//! How long it takes from the start of a process to its first authenticated answer, over a process
//! that only fetches the key set with the same HTTP client, in interleaved rounds of one run.
//!
//! The floor is taken twice. The first random number of a process costs aws-lc more than all the rest
//! (it gathers entropy from the jitter of the processor): every TLS handshake needs one, so whoever
//! fetches keys by `https` pays for it. The provider here has no TLS, so one floor asks for a number.

mod support;

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, IssuerConfig};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tower::{Layer, service_fn};

use support::wire::{self, Connection, answer, listen, serve};
use support::{ROUNDS, median, provider};

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let value = |name: &str| arguments.iter().find_map(|it| it.strip_prefix(name));
    if let Some(kind) = value("serve=") {
        let (issuer, keys) = (value("issuer=").expect("an issuer"), value("keys=").expect("a URL"));
        return Runtime::new().expect("a runtime").block_on(child(kind, issuer, keys));
    }
    let runtime = Runtime::new().expect("a runtime");
    let provider = runtime.block_on(provider());
    compare(&provider);
}

/// Runs until killed, after its port is told.
async fn child(kind: &str, issuer: &str, keys: &str) {
    let (listener, port) = listen().await;
    let issuer = IssuerConfig::new(issuer).allow_loopback_http(true);
    match kind {
        "floor" | "random" => {
            println!("{port}");
            floor(listener, keys, kind == "random").await;
        }
        "found" => protected(listener, port, issuer).await,
        _ => protected(listener, port, issuer.jwks_uri(keys)).await,
    }
}

async fn protected(listener: TcpListener, port: u16, issuer: IssuerConfig) {
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build();
    let auth = auth.expect("a configuration");
    println!("{port}");
    serve(listener, auth.layer().layer(service_fn(answer))).await;
}

/// Fetches the key set before the first answer, and does not look at it.
async fn floor(listener: TcpListener, keys: &str, random: bool) {
    let (keys, fetched) = (Arc::<str>::from(keys), Arc::new(OnceCell::new()));
    let service = move |request| {
        let (keys, fetched) = (keys.clone(), fetched.clone());
        async move {
            fetched.get_or_init(|| fetch(&keys, random)).await;
            answer(request).await
        }
    };
    serve(listener, service_fn(service)).await;
}

async fn fetch(url: &str, random: bool) -> bytes::Bytes {
    if random {
        aws_lc_rs::rand::fill(&mut [0; 32]).expect("random numbers");
    }
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let response = client.get(url).send().await.expect("an answer");
    response.bytes().await.expect("a key set")
}

fn compare(provider: &Provider) {
    println!("from process start to the first 200, by one that only fetches the key set");
    println!(
        "{:32} {:>10} {:>12} {:>10} {:>9} {:>14}",
        "", "floor", "with random", "layer", "by floor", "by the second"
    );
    let request = wire::get(Some(&provider.token().sign()));
    for (name, kind) in [("the key set's URL is given", "given"), ("it is discovered", "found")] {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        let (mut to_floor, mut to_second) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let round = ["floor", "random", kind].map(|it| first_answer(provider, it, &request));
            times.iter_mut().zip(round).for_each(|(all, time)| all.push(time));
            to_floor.push(round[2] / round[0]);
            to_second.push(round[2] / round[1]);
        }
        let [floor, random, ours] = times.map(|mut it| median(&mut it));
        let (to_floor, to_second) = (median(&mut to_floor), median(&mut to_second));
        println!(
            "{name:32} {floor:>7.1} ms {random:>9.1} ms {ours:>7.1} ms {to_floor:>7.2} × {to_second:>12.2} ×"
        );
    }
}

/// Milliseconds from the start of a process like this one to its first answer.
fn first_answer(provider: &Provider, kind: &str, request: &[u8]) -> f64 {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command
        .arg(format!("serve={kind}"))
        .arg(format!("issuer={}", provider.issuer()))
        .arg(format!("keys={}", provider.jwks_uri()))
        .stdout(Stdio::piped());
    let begun = Instant::now();
    let mut server = Server(command.spawn().expect("a process"));
    let mut connection = Connection::open(server.port());
    connection.send(request);
    assert_eq!(connection.status(), 200);
    begun.elapsed().as_secs_f64() * 1e3
}

struct Server(Child);

impl Server {
    fn port(&mut self) -> u16 {
        let mut line = String::new();
        let output = self.0.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        line.trim().parse().expect("a port")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
