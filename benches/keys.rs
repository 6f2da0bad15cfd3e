//! Whether a request costs more when its issuer has many keys, when the service has many issuers, and
//! when two threads verify at once, as ratios taken in interleaved rounds of one run.

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

/// As many as an issuer may have by default.
const KEYS: usize = 100;
const ISSUERS: usize = 1000;
/// Many short rounds: what else the machine does interrupts few of them.
const TURNS: usize = 5 * ROUNDS;
/// Room for all tokens of this bench.
const REMEMBERED: usize = 64 << 20;

/// A service twice, with and without known tokens, and the tokens it is asked with in turn.
struct Side {
    known: Auth,
    fresh: Auth,
    headers: Vec<HeaderValue>,
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let provider = runtime.block_on(provider());
    println!("the layer's share over the bare service: with few, and with many");
    println!(
        "{:32} {:>8} {:>8} {:>7} {:>12} {:>9} {:>7}",
        "", "known", "many", "ratio", "first seen", "many", "ratio"
    );
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

/// An issuer with so many keys; its tokens are signed with the last one.
fn keys(runtime: &Runtime, provider: &Provider, algorithm: Algorithm, count: usize) -> Side {
    let own = provider.key_for(algorithm).jwk();
    // Other keys in all but their material, which takes a minute to make for RSA.
    let other = SigningKey::generate(algorithm).jwk();
    let named = |nth: usize| {
        let mut jwk = other.clone();
        jwk["kid"] = Value::from(format!("other-{nth}"));
        jwk
    };
    let keys: Vec<Value> = (1..count).map(named).chain([own]).collect();
    let issuer = issuer(&provider.issuer()).keys(&json!({ "keys": keys }).to_string());
    let token = provider.token().algorithm(algorithm).sign();
    side(runtime, &[issuer], vec![bearer(&token)])
}

/// So many issuers, and one token each of those in `asking`.
fn issuers(runtime: &Runtime, provider: &Provider, all: &[usize], asking: &[usize]) -> Side {
    let name = |nth: &usize| format!("https://issuer-{nth:04}.example");
    let set = json!({ "keys": [provider.key_for(Algorithm::RS256).jwk()] }).to_string();
    let all: Vec<_> = all.iter().map(|nth| issuer(&name(nth)).keys(&set)).collect();
    let token = |nth| bearer(&provider.token().issuer(&name(nth)).sign());
    side(runtime, &all, asking.iter().map(token).collect())
}

fn side(runtime: &Runtime, issuers: &[IssuerConfig], headers: Vec<HeaderValue>) -> Side {
    let trusting = |bytes| runtime.block_on(trusting_all(issuers.iter().cloned(), bytes));
    Side { known: trusting(REMEMBERED), fresh: trusting(0), headers }
}

fn grow(name: &str, few: &Side, many: &Side) {
    let known = compare(300, few, many, |side| &side.known);
    let fresh = compare(20, few, many, |side| &side.fresh);
    println!(
        "{name:32} {:>5.0} ns {:>5.0} ns {:>7.3} {:>9.2} µs {:>6.2} µs {:>7.3}",
        1e3 * known.0,
        1e3 * known.1,
        known.2,
        fresh.0,
        fresh.1,
        fresh.2
    );
}

/// What the layer adds to a request here and there, in microseconds, and there by here.
fn compare(calls: u32, few: &Side, many: &Side, auth: fn(&Side) -> &Auth) -> (f64, f64, f64) {
    let mut to_few = asking(auth(few), &few.headers);
    let mut to_many = asking(auth(many), &many.headers);
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

/// Asks with one token after the other, all of them once before.
fn asking(auth: &Auth, headers: &[HeaderValue]) -> impl FnMut() -> u16 {
    let mut service = auth.layer().layer(service_fn(handler));
    for header in headers {
        assert_eq!(status(&mut service, Some(header)), 200);
    }
    let mut turn = headers.iter().cycle();
    move || status(&mut service, turn.next())
}

/// What so many keys cost by being in so many places of memory, without the layer.
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

/// Known tokens in two threads: see the bench `verified`.
fn threads(runtime: &Runtime, provider: &Provider) {
    println!("\ntwo threads, first-seen RS256 token: time per call, by that of one thread alone");
    let token = provider.token().sign();
    let (key, signed, signed_by) = floor(provider, Algorithm::RS256, &token);
    let auth = runtime.block_on(trusting_all([issuer(&provider.issuer())], 0));
    contend("verification alone", 2000, || {
        || key.verify_sig(black_box(&signed), &signed_by).is_ok()
    });
    contend("whole request", 2000, || served(auth.layer().layer(service_fn(handler)), &token));
}
