//! Measures how the cost of a request grows with the number of keys of an issuer, with the number
//! of issuers, and with two parallel threads. The ratios are medians over interleaved rounds.

mod support;

use std::hint::black_box;

use aws_lc_rs::signature::ParsedPublicKey;
use http::HeaderValue;
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::{Provider, SigningKey};
use scaikey_auth::{Auth, IssuerConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::{Layer, service_fn};

use support::{
    ROUNDS, bearer, contend, floor, handler, issuer, median, provider, served, status, time,
    trusting_all,
};

/// The default maximum of keys of an issuer.
const KEYS: usize = 100;
const ISSUERS: usize = 1000;
/// Many short rounds, so that other processes disturb only a few of them.
const TURNS: usize = 5 * ROUNDS;
/// A cache size for all tokens of this bench, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// A service with and without a cache of verified tokens, and the tokens to send in turn.
struct Setup {
    cached: Auth,
    fresh: Auth,
    headers: Vec<HeaderValue>,
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let provider = runtime.block_on(provider());
    println!(
        "time that the layer adds to the bare service, with one and with many keys or issuers"
    );
    for [one, many, ratio, new_one, new_many, new_ratio] in [
        ["cached", "cached", "cached", "new", "new", "new"],
        ["one", "many", "ratio", "one", "many", "ratio"],
    ] {
        println!(
            "{:32} {one:>8} {many:>8} {ratio:>7} {new_one:>12} {new_many:>9} {new_ratio:>7}",
            ""
        );
    }
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519] {
        let name = format!("1 → {KEYS} keys, {}", algorithm.as_str());
        let few = keys(&runtime, &provider, algorithm, 1);
        grow(&name, &few, &keys(&runtime, &provider, algorithm, KEYS));
    }
    let one = issuers(&runtime, &provider, &[ISSUERS / 2], &[ISSUERS / 2]);
    let all: Vec<_> = (0..ISSUERS).collect();
    let many = issuers(&runtime, &provider, &all, &[ISSUERS / 2]);
    grow(&format!("1 → {ISSUERS} issuers, one token"), &one, &many);
    let one = issuers(&runtime, &provider, &[ISSUERS / 2], &[ISSUERS / 2; ISSUERS]);
    let many = issuers(&runtime, &provider, &all, &all);
    grow(&format!("1 → {ISSUERS} issuers, {ISSUERS} tokens"), &one, &many);
    scattered(&provider);
    threads(&runtime, &provider);
}

/// Builds services that trust an issuer with this many keys, the last of which signs the token.
fn keys(runtime: &Runtime, provider: &Provider, algorithm: Algorithm, count: usize) -> Setup {
    let own = provider.key_for(algorithm).jwk();
    // The other keys share their material, because generating 99 RSA keys takes a minute.
    let other = SigningKey::generate(algorithm).jwk();
    let named = |nth: usize| {
        let mut jwk = other.clone();
        jwk["kid"] = Value::from(format!("other-{nth}"));
        jwk
    };
    let keys: Vec<Value> = (1..count).map(named).chain([own]).collect();
    let issuer = issuer(&provider.issuer()).keys(&json!({ "keys": keys }).to_string());
    let token = provider.token().algorithm(algorithm).sign();
    setup(runtime, &[issuer], vec![bearer(&token)])
}

/// Builds services that trust these issuers, and one token for each issuer in `senders`.
fn issuers(runtime: &Runtime, provider: &Provider, all: &[usize], senders: &[usize]) -> Setup {
    let name = |nth: &usize| format!("https://issuer-{nth:04}.example");
    let set = json!({ "keys": [provider.key_for(Algorithm::RS256).jwk()] }).to_string();
    let all: Vec<_> = all.iter().map(|nth| issuer(&name(nth)).keys(&set)).collect();
    let token = |nth| bearer(&provider.token().issuer(&name(nth)).sign());
    setup(runtime, &all, senders.iter().map(token).collect())
}

fn setup(runtime: &Runtime, issuers: &[IssuerConfig], headers: Vec<HeaderValue>) -> Setup {
    let trusting = |bytes| runtime.block_on(trusting_all(issuers.iter().cloned(), bytes));
    Setup { cached: trusting(CACHE_BYTES), fresh: trusting(0), headers }
}

fn grow(name: &str, few: &Setup, many: &Setup) {
    let cached = compare(300, few, many, |setup| &setup.cached);
    let fresh = compare(20, few, many, |setup| &setup.fresh);
    println!(
        "{name:32} {:>5.0} ns {:>5.0} ns {:>7.3} {:>9.2} µs {:>6.2} µs {:>7.3}",
        1e3 * cached.0,
        1e3 * cached.1,
        cached.2,
        fresh.0,
        fresh.1,
        fresh.2
    );
}

/// Returns the time that the layer adds to a request in the setups `few` and `many`, in
/// microseconds, and the ratio of `many` to `few`.
fn compare(calls: u32, few: &Setup, many: &Setup, auth: fn(&Setup) -> &Auth) -> (f64, f64, f64) {
    let mut to_few = sender(auth(few), &few.headers);
    let mut to_many = sender(auth(many), &many.headers);
    let mut bare = service_fn(handler);
    let (mut fews, mut manys, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let without = time(300, || status(&mut bare, few.headers.first()));
        let few = time(calls, &mut to_few) - without;
        let many = time(calls, &mut to_many) - without;
        fews.push(few);
        manys.push(many);
        ratios.push(many / few);
    }
    (median(&mut fews), median(&mut manys), median(&mut ratios))
}

/// Returns a function that sends the tokens in turn. Sends each once before, to fill the caches.
fn sender(auth: &Auth, headers: &[HeaderValue]) -> impl FnMut() -> u16 {
    let mut service = auth.layer().layer(service_fn(handler));
    for header in headers {
        assert_eq!(status(&mut service, Some(header)), 200);
    }
    let mut turn = headers.iter().cycle();
    move || status(&mut service, turn.next())
}

/// Measures the cost of many keys without the layer: their memory is spread over more cache lines.
fn scattered(provider: &Provider) {
    let signed = |_| {
        let token = provider.token().sign();
        let (key, signed, signed_by) = floor(provider, Algorithm::RS256, &token);
        move |key_of: Option<&ParsedPublicKey>| {
            let key = key_of.unwrap_or(&key);
            key.verify_sig(black_box(&signed), &signed_by).expect("verifies");
        }
    };
    let tokens: Vec<_> = (0..ISSUERS).map(signed).collect();
    let one = floor(provider, Algorithm::RS256, &provider.token().sign()).0;
    let (mut to_one, mut to_own) = (tokens.iter().cycle(), tokens.iter().cycle());
    let (mut ones, mut owns, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let few = time(20, || to_one.next().expect("a token")(Some(&one)));
        let many = time(20, || to_own.next().expect("a token")(None));
        ones.push(few);
        owns.push(many);
        ratios.push(many / few);
    }
    println!(
        "{:57} {:>9.2} µs {:>6.2} µs {:>7.3}",
        "the same, verification alone",
        median(&mut ones),
        median(&mut owns),
        median(&mut ratios)
    );
}

/// Measures two threads with new tokens. The bench `verified` measures cached tokens.
fn threads(runtime: &Runtime, provider: &Provider) {
    println!("\ntwo threads, new RS256 token: time per call, and its ratio to one thread");
    let token = provider.token().sign();
    let (key, signed, signed_by) = floor(provider, Algorithm::RS256, &token);
    let auth = runtime.block_on(trusting_all([issuer(&provider.issuer())], 0));
    contend("verification alone", 2000, || {
        || key.verify_sig(black_box(&signed), &signed_by).is_ok()
    });
    contend("whole request", 2000, || served(auth.layer().layer(service_fn(handler)), &token));
}
