//! Measures the time from the start of a process to its first authenticated answer, relative to a
//! process that only fetches the same documents with the same HTTP client. The ratios are medians
//! over interleaved rounds.

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

/// Prints the port, then serves until the process is killed.
async fn child(kind: &str, issuer: &str, keys: &str) {
    let (listener, port) = listen().await;
    let issuer = IssuerConfig::new(issuer).allow_loopback_http(true);
    match kind {
        "jwks_uri, floor" => floor(listener, port, &[keys.to_owned()]).await,
        "discovery, floor" => {
            let metadata = format!("{}/.well-known/openid-configuration", issuer.issuer);
            floor(listener, port, &[metadata, keys.to_owned()]).await;
        }
        "discovery" => protected(listener, port, issuer).await,
        _ => protected(listener, port, issuer.jwks_uri(keys)).await,
    }
}

async fn protected(listener: TcpListener, port: u16, issuer: IssuerConfig) {
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build();
    let auth = auth.expect("a configuration");
    println!("{port}");
    serve(listener, auth.layer().layer(service_fn(answer))).await;
}

/// Fetches these URLs before the first answer, and ignores their contents.
async fn floor(listener: TcpListener, port: u16, urls: &[String]) {
    let (urls, fetched) = (Arc::<[String]>::from(urls), Arc::new(OnceCell::new()));
    let service = move |request| {
        let (urls, fetched) = (urls.clone(), fetched.clone());
        async move {
            fetched.get_or_init(|| fetch(&urls)).await;
            answer(request).await
        }
    };
    println!("{port}");
    serve(listener, service_fn(service)).await;
}

async fn fetch(urls: &[String]) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for url in urls {
        let response = client.get(url).send().await.expect("an answer");
        response.bytes().await.expect("a document");
    }
}

fn compare(provider: &Provider) {
    println!(
        "process start to first 200, and its ratio to a process that only fetches the same documents"
    );
    println!("{:32} {:>10} {:>10} {:>8}", "", "floor", "layer", "ratio");
    let request = wire::get(Some(&provider.token().sign()));
    for (name, kind) in
        [("key set URL configured", "jwks_uri"), ("key set URL discovered", "discovery")]
    {
        let (mut floors, mut layers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let floor = first_answer(provider, &format!("{kind}, floor"), &request);
            let layer = first_answer(provider, kind, &request);
            ratios.push(layer / floor);
            floors.push(floor);
            layers.push(layer);
        }
        let (floor, layer) = (median(&mut floors), median(&mut layers));
        println!("{name:32} {floor:>7.1} ms {layer:>7.1} ms {:>8.2}", median(&mut ratios));
    }
}

/// Returns the milliseconds from the start of a child process to its first answer.
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
