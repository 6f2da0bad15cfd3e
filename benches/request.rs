//! Measures the time and the allocations of a protected request, relative to the bare signature
//! verification with a parsed key (the floor). The ratios are medians over interleaved rounds. On a
//! busy machine, count instructions instead: `cargo bench --bench instructions`.

mod support;

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderValue, Request, header};
use scaikey_auth::config::Algorithm;
use tower::{Layer, Service, service_fn};

use support::{ROUNDS, bearer, floor, handler, median, service, status, time, verified};

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // No cache of verified tokens: every token is verified.
    let (provider, auth) = runtime.block_on(service(0));
    let mut protected = auth.layer().layer(service_fn(handler));
    let mut bare = service_fn(handler);

    let validator = runtime.block_on(support::validator(&provider, 0));
    println!(
        "new token: the validator alone, and the time that the layer adds to the bare service,"
    );
    println!("with their ratios to the bare verification");
    println!(
        "{:10} {:>12} {:>12} {:>8} {:>12} {:>8} {:>8}",
        "algorithm", "floor", "validator", "ratio", "layer", "ratio", "allocs"
    );
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519] {
        let token = provider.token().algorithm(algorithm);
        let token = token
            .roles(["docs_internal", "tenant_admin"])
            .groups(["group-eng", "group-sre"])
            .sign();
        let (key, signed, signed_by) = floor(&provider, algorithm, &token);
        let bearer = bearer(&token);
        assert_eq!(status(&mut protected, Some(&bearer)), 200);
        let (mut floors, mut alone, mut layers) = (Vec::new(), Vec::new(), Vec::new());
        let (mut by_floor, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let floor =
                time(60, || key.verify_sig(black_box(&signed), &signed_by).expect("verifies"));
            let validated = time(60, || verified(&validator, &token));
            let with = time(60, || status(&mut protected, Some(&bearer)));
            let without = time(600, || status(&mut bare, Some(&bearer)));
            by_floor.push(validated / floor);
            ratios.push((with - without) / floor);
            alone.push(validated);
            floors.push(floor);
            layers.push(with - without);
        }
        let allocations = allocated(|| status(&mut protected, Some(&bearer)))
            - allocated(|| status(&mut bare, Some(&bearer)));
        println!(
            "{:10} {:>9.2} µs {:>9.2} µs {:>8.3} {:>9.2} µs {:>8.3} {:>8}",
            algorithm.as_str(),
            median(&mut floors),
            median(&mut alone),
            median(&mut by_floor),
            median(&mut layers),
            median(&mut ratios),
            allocations
        );
    }

    println!(
        "\nrejections: time over the bare service, as a share of one RS256 verification; and the ratio"
    );
    println!("of the whole request in an axum router to the bare router");
    println!(
        "{:24} {:>10} {:>8} {:>8} {:>12} {:>8}",
        "request", "cost", "share", "allocs", "bare router", "ratio"
    );
    let mut bare_router = Router::new().route("/", get(|| async {}));
    let mut router = bare_router.clone().layer(auth.layer());
    let token = provider.token().sign();
    let (key, signed, signed_by) = floor(&provider, Algorithm::RS256, &token);
    let garbage = "A".repeat(1000);
    let expired = provider.token().expired().sign();
    let unknown = provider.token().kid(Some("nobody")).sign();
    for _ in 0..3 {
        // The first unknown keys make the validator fetch the key set again, until the limit of
        // such fetches is reached.
        let refused = runtime.block_on(auth.authenticate(&unknown));
        assert!(refused.is_err(), "there is no such key");
    }
    let refused = [
        ("no token", None),
        ("garbage, 1000 bytes", Some(bearer(&garbage))),
        ("expired", Some(bearer(&expired))),
        ("another audience", Some(bearer(&provider.token().audience("other").sign()))),
        ("unknown key", Some(bearer(&unknown))),
        ("bad signature", Some(bearer(&tampered(&token)))),
    ];
    for (name, header) in refused {
        assert_ne!(status(&mut protected, header.as_ref()), 200, "{name}");
        assert_ne!(routed(&mut router, header.as_ref()), 200, "{name}");
        let (mut shares, mut costs) = (Vec::new(), Vec::new());
        let (mut bares, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let floor =
                time(60, || key.verify_sig(black_box(&signed), &signed_by).expect("verifies"));
            let with = time(600, || status(&mut protected, header.as_ref()));
            let without = time(600, || status(&mut bare, header.as_ref()));
            shares.push((with - without) / floor);
            costs.push(with - without);
            let with = time(600, || routed(&mut router, header.as_ref()));
            let without = time(600, || routed(&mut bare_router, header.as_ref()));
            bares.push(without);
            ratios.push(with / without);
        }
        let allocations = allocated(|| status(&mut protected, header.as_ref()))
            - allocated(|| status(&mut bare, header.as_ref()));
        println!(
            "{:24} {:>7.3} µs {:>6.1} % {:>8} {:>9.3} µs {:>8.2}",
            name,
            median(&mut costs),
            100.0 * median(&mut shares),
            allocations,
            median(&mut bares),
            median(&mut ratios)
        );
    }
}

/// Sends a request through a router, which must answer without waiting. Returns the status.
fn routed(router: &mut Router, authorization: Option<&HeaderValue>) -> u16 {
    let mut request = Request::new(Body::empty());
    if let Some(value) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    let answer = pin!(router.call(black_box(request)));
    match answer.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => black_box(response).status().as_u16(),
        Poll::Pending => panic!("the router must answer without waiting"),
    }
}

fn allocated(call: impl FnOnce() -> u16) -> i64 {
    let mut answered = 0;
    let allocated = allocations::measure(|| answered = call()).count;
    assert!(answered > 0);
    allocated as i64
}

fn tampered(token: &str) -> String {
    let (signed, _) = token.rsplit_once('.').expect("a token");
    format!("{signed}.{}", "A".repeat(342))
}
