//! What a protected request costs, as ratios taken in interleaved rounds of one run, and what it
//! allocates. The floor is the bare signature verification with a prepared key.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use scaikey_auth::testing::Provider;
use scaikey_auth::{Algorithm, Auth, IssuerConfig};
use tower::{Layer, Service, service_fn};

const ROUNDS: usize = 41;

type Answer = Result<Response<Bytes>, Infallible>;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (provider, auth) = runtime.block_on(setup());
    let mut protected = auth.layer().layer(service_fn(handler));
    let mut bare = service_fn(handler);

    println!("first-seen token: the layer's share over the bare service, by the bare verification");
    println!("{:10} {:>12} {:>12} {:>8} {:>8}", "algorithm", "floor", "layer", "ratio", "allocs");
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519] {
        let token = provider.token().algorithm(algorithm).sign();
        let (key, signed, signed_by) = floor(&provider, algorithm, &token);
        let bearer = bearer(&token);
        assert_eq!(status(&mut protected, Some(&bearer)), 200);
        let mut ratios = Vec::new();
        let (mut floors, mut layers) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let floor =
                time(60, || key.verify_sig(black_box(&signed), &signed_by).expect("verifies"));
            let with = time(60, || status(&mut protected, Some(&bearer)));
            let without = time(600, || status(&mut bare, Some(&bearer)));
            ratios.push((with - without) / floor);
            floors.push(floor);
            layers.push(with - without);
        }
        let allocations =
            allocations(&mut protected, Some(&bearer)) - allocations(&mut bare, Some(&bearer));
        println!(
            "{:10} {:>9.2} µs {:>9.2} µs {:>8.3} {:>8}",
            algorithm.as_str(),
            median(&mut floors),
            median(&mut layers),
            median(&mut ratios),
            allocations
        );
    }

    println!("\nrefusals: their share over the bare service, by one RS256 verification");
    println!("{:24} {:>10} {:>8} {:>8}", "request", "cost", "share", "allocs");
    let token = provider.token().sign();
    let (key, signed, signed_by) = floor(&provider, Algorithm::RS256, &token);
    let garbage = "A".repeat(1000);
    let expired = provider.token().expired().sign();
    let refused = [
        ("no token", None),
        ("garbage, 1000 bytes", Some(bearer(&garbage))),
        ("expired", Some(bearer(&expired))),
        ("another audience", Some(bearer(&provider.token().audience("other").sign()))),
        ("bad signature", Some(bearer(&tampered(&token)))),
    ];
    for (name, header) in refused {
        assert_ne!(status(&mut protected, header.as_ref()), 200, "{name}");
        let (mut shares, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let floor =
                time(60, || key.verify_sig(black_box(&signed), &signed_by).expect("verifies"));
            let with = time(600, || status(&mut protected, header.as_ref()));
            let without = time(600, || status(&mut bare, header.as_ref()));
            shares.push((with - without) / floor);
            costs.push(with - without);
        }
        let allocations = allocations(&mut protected, header.as_ref()) as i64
            - allocations(&mut bare, header.as_ref()) as i64;
        println!(
            "{:24} {:>7.3} µs {:>6.1} % {:>8}",
            name,
            median(&mut costs),
            100.0 * median(&mut shares),
            allocations
        );
    }
}

async fn setup() -> (Provider, Auth) {
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519];
    let provider = Provider::builder().algorithms(algorithms).start().await;
    let issuer =
        IssuerConfig::new(provider.issuer()).algorithms(algorithms).allow_loopback_http(true);
    let auth =
        Auth::builder().issuer(issuer).audience("scaiwave").build().expect("a configuration");
    auth.ready().await.expect("keys");
    (provider, auth)
}

fn handler(_request: Request<()>) -> Ready<Answer> {
    ready(Ok(Response::new(Bytes::new())))
}

/// One request through `service`, which must answer without waiting.
fn status<S>(service: &mut S, authorization: Option<&HeaderValue>) -> u16
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible>,
{
    let mut request = Request::new(());
    if let Some(value) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    let response = pin!(service.call(black_box(request)));
    match response.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => black_box(response).status().as_u16(),
        Poll::Pending => panic!("the answer should have been at hand"),
    }
}

fn allocations<S>(service: &mut S, authorization: Option<&HeaderValue>) -> u64
where
    S: Service<Request<()>, Response = Response<Bytes>, Error = Infallible>,
{
    allocation_counter::measure(|| {
        status(service, authorization);
    })
    .count_total
}

/// What verifying `token` needs and nothing else: prepared key, signed text, decoded signature.
fn floor(
    provider: &Provider,
    algorithm: Algorithm,
    token: &str,
) -> (ParsedPublicKey, Vec<u8>, Vec<u8>) {
    use base64::Engine;
    let library: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        _ => &signature::ED25519,
    };
    let key =
        ParsedPublicKey::new(library, provider.key_for(algorithm).public_key()).expect("a key");
    let (signed, encoded) = token.rsplit_once('.').expect("a token");
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).expect("base64");
    (key, signed.as_bytes().to_vec(), decoded)
}

fn bearer(token: &str) -> HeaderValue {
    format!("Bearer {token}").parse().expect("a header value")
}

fn tampered(token: &str) -> String {
    let (signed, _) = token.rsplit_once('.').expect("a token");
    format!("{signed}.{}", "A".repeat(342))
}

/// Microseconds per call.
fn time<T>(calls: u32, mut call: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
