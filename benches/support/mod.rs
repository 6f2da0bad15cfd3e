//! Helpers for all benches: a test provider, a service that trusts it, and ways to call the
//! service.

#![allow(dead_code, reason = "each bench uses a part of this module")]

pub(crate) mod wire;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Empty;
use scaikey_auth::config::{Algorithm, JwksSettings};
use scaikey_auth::testing::Provider;
use scaikey_auth::validator::Credentials;
use scaikey_auth::{Auth, AuthConfig, Identity, IssuerConfig, JwksValidator, TokenValidator};
use tower::Service;

pub(crate) const ROUNDS: usize = 41;

pub(crate) type Answer = Result<Response<Bytes>, Infallible>;

const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519];

/// Starts a provider whose tokens are valid for longer than the bench runs.
pub(crate) async fn provider() -> Provider {
    let lifetime = Duration::from_secs(7 * 24 * 3600);
    Provider::builder().algorithms(ALGORITHMS).token_lifetime(lifetime).start().await
}

/// Builds a service that trusts the provider and has fetched its keys.
pub(crate) async fn trusting(provider: &Provider, verified_tokens_bytes: usize) -> Auth {
    trusting_all([issuer(&provider.issuer())], verified_tokens_bytes).await
}

/// Builds a service that trusts all these issuers and has fetched their keys.
pub(crate) async fn trusting_all(
    issuers: impl IntoIterator<Item = IssuerConfig>,
    verified_tokens_bytes: usize,
) -> Auth {
    let mut config = AuthConfig::default();
    config.issuers.extend(issuers);
    config.audience.push("scaiwave".to_owned());
    config.verified_tokens_bytes = verified_tokens_bytes;
    let auth = Auth::from_config(config).build().expect("a configuration");
    auth.ready().await.expect("keys");
    auth
}

/// Builds a validator alone, without a layer and tenants.
pub(crate) async fn validator(provider: &Provider, verified_tokens_bytes: usize) -> JwksValidator {
    let mut config = AuthConfig::default();
    config.issuers.push(issuer(&provider.issuer()));
    config.audience.push("scaiwave".to_owned());
    config.verified_tokens_bytes = verified_tokens_bytes;
    let validator = JwksValidator::new(&config).expect("a configuration");
    validator.issuers().ready().await.expect("keys");
    validator
}

/// Validates a token without waiting, and returns its identity.
pub(crate) fn verified(validator: &JwksValidator, token: &str) -> Identity {
    let outcome = validator.try_validate(&Credentials::bearer(token));
    outcome.expect("the keys are fetched").expect("a valid token")
}

/// Returns an issuer configuration whose keys are not refreshed while the bench runs.
pub(crate) fn issuer(name: &str) -> IssuerConfig {
    let mut jwks = JwksSettings::default();
    jwks.ttl = Duration::from_secs(7 * 24 * 3600);
    jwks.max_stale = jwks.ttl;
    IssuerConfig::new(name).algorithms(ALGORITHMS).allow_loopback_http(true).jwks(jwks)
}

/// Starts a provider and builds a service that trusts it.
pub(crate) async fn service(verified_tokens_bytes: usize) -> (Provider, Auth) {
    let provider = provider().await;
    let auth = trusting(&provider, verified_tokens_bytes).await;
    (provider, auth)
}

pub(crate) fn handler(_request: Request<Empty<Bytes>>) -> Ready<Answer> {
    ready(Ok(Response::new(Bytes::new())))
}

/// Sends a request through `service`, which must answer without waiting. Returns the status.
pub(crate) fn status<S, B>(service: &mut S, authorization: Option<&HeaderValue>) -> u16
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = Infallible>,
{
    let mut request = Request::new(Empty::new());
    if let Some(value) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    let response = pin!(service.call(black_box(request)));
    match response.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => black_box(response).status().as_u16(),
        Poll::Pending => panic!("the service must answer without waiting"),
    }
}

/// Returns a function that sends a request with `token` and returns whether the status is 200.
pub(crate) fn served<S, B>(mut service: S, token: &str) -> impl FnMut() -> bool
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = Infallible>,
{
    let header = bearer(token);
    move || status(&mut service, Some(&header)) == 200
}

/// Returns the inputs of a bare signature verification: parsed key, signed bytes, decoded
/// signature.
pub(crate) fn floor(
    provider: &Provider,
    algorithm: Algorithm,
    token: &str,
) -> (ParsedPublicKey, Vec<u8>, Vec<u8>) {
    floor_of(algorithm, &provider.key_for(algorithm).public_key(), token)
}

/// Returns the inputs of [`floor`] for a given public key.
pub(crate) fn floor_of(
    algorithm: Algorithm,
    public_key: &[u8],
    token: &str,
) -> (ParsedPublicKey, Vec<u8>, Vec<u8>) {
    use base64::Engine;
    let library: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        // The library verifies this format without a conversion.
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_ASN1,
        Algorithm::MLDSA44 => &signature::ML_DSA_44,
        Algorithm::MLDSA65 => &signature::ML_DSA_65,
        Algorithm::MLDSA87 => &signature::ML_DSA_87,
        _ => &signature::ED25519,
    };
    let key = ParsedPublicKey::new(library, public_key).expect("a key");
    let (signed, encoded) = token.rsplit_once('.').expect("a token");
    let decoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).expect("base64");
    let decoded = if algorithm == Algorithm::ES256 { asn1(&decoded) } else { decoded };
    (key, signed.as_bytes().to_vec(), decoded)
}

/// Encodes an ECDSA signature (r ‖ s) in DER. Each length must fit into one byte.
fn asn1(signature: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        let zero = if digits.first().is_some_and(|byte| *byte < 0x80) { vec![] } else { vec![0] };
        [&[2, (zero.len() + digits.len()) as u8], &*zero, &*digits].concat()
    };
    let (r, s) = signature.split_at(signature.len() / 2);
    let content = [integer(r), integer(s)].concat();
    [&[0x30, content.len() as u8], &*content].concat()
}

pub(crate) fn bearer(token: &str) -> HeaderValue {
    format!("Bearer {token}").parse().expect("a header value")
}

/// Returns the microseconds per call.
pub(crate) fn time<T>(calls: u32, mut call: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
}

/// Prints the time per call of two parallel threads, and its ratio to one thread alone. Each thread
/// makes its own requests, as a connection would: the threads share only what the service shares.
pub(crate) fn contend<C>(name: &str, calls: u32, make: impl Fn() -> C + Sync)
where
    C: FnMut() -> bool,
{
    let (mut alone, mut together, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS / 2 {
        let one = time(calls, make());
        let start = Barrier::new(2);
        let timed = || {
            let call = make();
            start.wait();
            time(calls, call)
        };
        let two = thread::scope(|scope| {
            let other = scope.spawn(timed);
            (timed() + other.join().expect("a time")) / 2.0
        });
        ratios.push(two / one);
        alone.push(one);
        together.push(two);
    }
    let (alone, together) = (1e3 * median(&mut alone), 1e3 * median(&mut together));
    println!("{name:24} {alone:>7.0} ns {together:>7.0} ns {:>8.2}", median(&mut ratios));
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
