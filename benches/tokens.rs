//! Compares the kinds of tokens with a signed JWT (ES256). The ratios are medians over interleaved
//! rounds of one run.
//!
//! - A known token: the time that the layer adds to the bare service, relative to a known JWT.
//! - A new token: the same time, relative to the bare cryptographic operations that the token needs.

mod support;

use std::hint::black_box;

use http::HeaderValue;
use scaikey_auth::Auth;
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::{Provider, TokenBuilder};
use tokio::runtime::Runtime;
use tower::{Layer, service_fn};

use support::{ROUNDS, bearer, floor, handler, median, status, time, trusting};

const MIB: usize = 1 << 20;

/// A kind of token, with a service that accepts it.
struct Kind {
    name: String,
    token: String,
    auth: Auth,
}

/// A kind of token, with a service that verifies it for each request, and the bare operations.
struct New {
    kind: Kind,
    bare: Box<dyn FnMut()>,
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let provider = runtime.block_on(support::provider());
    let caching = runtime.block_on(trusting(&provider, 16 * MIB));
    let fresh = runtime.block_on(trusting(&provider, 0));

    let signed = |algorithm| token(&provider, algorithm).sign();
    let kind = |name: &str, token: String, auth: &Auth| Kind {
        name: name.to_owned(),
        token,
        auth: auth.clone(),
    };
    known(&[
        kind("JWT, ES256", signed(Algorithm::ES256), &caching),
        kind("JWT, RS256", signed(Algorithm::RS256), &caching),
    ]);

    let jwt = |algorithm: Algorithm| {
        let token = signed(algorithm);
        let bare = verification(&provider, algorithm, &token);
        New { kind: kind(&format!("JWT, {algorithm}"), token, &fresh), bare }
    };
    first_seen([jwt(Algorithm::ES256), jwt(Algorithm::RS256)]);
}

fn token(provider: &Provider, algorithm: Algorithm) -> TokenBuilder {
    let token = provider.token().algorithm(algorithm);
    token.roles(["docs_internal", "tenant_admin"]).groups(["group-eng", "group-sre"])
}

/// Returns the bare verification of a token's signature.
fn verification(provider: &Provider, algorithm: Algorithm, token: &str) -> Box<dyn FnMut()> {
    let (key, signed, signature) = floor(provider, algorithm, token);
    Box::new(move || key.verify_sig(black_box(&signed), &signature).expect("verifies"))
}

/// Measures tokens that were seen before. The first kind is the baseline of the others.
fn known(kinds: &[Kind]) {
    println!("known token, whole request: time that the layer adds to the bare service, and its");
    println!("ratio to {}", kinds[0].name);
    println!("{:24} {:>12} {:>10} {:>8} {:>8}", "token", "characters", "adds", "ratio", "allocs");
    let headers: Vec<HeaderValue> = kinds.iter().map(|kind| bearer(&kind.token)).collect();
    let layer = |kind: &Kind| kind.auth.layer().layer(service_fn(handler));
    let mut services: Vec<_> = kinds.iter().map(layer).collect();
    let mut bare = service_fn(handler);
    for (service, header) in services.iter_mut().zip(&headers) {
        assert_eq!(status(service, Some(header)), 200);
    }
    let mut added = vec![Vec::new(); kinds.len()];
    let mut ratios = added.clone();
    for _ in 0..ROUNDS {
        for (nth, (service, header)) in services.iter_mut().zip(&headers).enumerate() {
            let with = time(4000, || status(service, Some(header)));
            let without = time(4000, || status(&mut bare, Some(header)));
            added[nth].push(with - without);
        }
        let baseline = *added[0].last().expect("a time");
        for (ratios, added) in ratios.iter_mut().zip(&added) {
            ratios.push(added.last().expect("a time") / baseline);
        }
    }
    for (nth, kind) in kinds.iter().enumerate() {
        let header = Some(&headers[nth]);
        let allocations = allocated(|| status(&mut services[nth], header))
            - allocated(|| status(&mut bare, header));
        println!(
            "{:24} {:>12} {:>7.0} ns {:>8.2} {allocations:>8}",
            kind.name,
            kind.token.len(),
            1e3 * median(&mut added[nth]),
            median(&mut ratios[nth])
        );
    }
}

/// Measures tokens that are verified for each request.
fn first_seen(kinds: impl IntoIterator<Item = New>) {
    println!("\nnew token, whole request: time that the layer adds to the bare service, and its");
    println!("ratio to the bare cryptographic operations");
    println!("{:24} {:>12} {:>12} {:>8}", "token", "bare", "adds", "ratio");
    for New { kind, mut bare } in kinds {
        let header = bearer(&kind.token);
        let mut service = kind.auth.layer().layer(service_fn(handler));
        let mut unprotected = service_fn(handler);
        assert_eq!(status(&mut service, Some(&header)), 200);
        let (mut floors, mut added, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let floor = time(60, &mut bare);
            let with = time(60, || status(&mut service, Some(&header)));
            let without = time(600, || status(&mut unprotected, Some(&header)));
            floors.push(floor);
            added.push(with - without);
            ratios.push((with - without) / floor);
        }
        println!(
            "{:24} {:>9.2} µs {:>9.2} µs {:>8.3}",
            kind.name,
            median(&mut floors),
            median(&mut added),
            median(&mut ratios)
        );
    }
}

fn allocated(call: impl FnOnce() -> u16) -> i64 {
    allocations::measure(|| assert_eq!(call(), 200)).count as i64
}
