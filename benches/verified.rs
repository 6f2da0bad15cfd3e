//! Measures the cost of a cached verified token, relative to a `moka` cache keyed by the token
//! text. The ratios are medians over interleaved rounds. `cargo bench --bench verified -- 1000000`
//! sets the number of tokens in the memory measurement. On a busy machine, count instructions
//! instead: `cargo bench --bench instructions`.

mod support;

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use scaikey_auth::config::Algorithm;
use scaikey_auth::testing::Provider;
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{Auth, Identity, JwksValidator};
use serde::Deserialize;
use tokio::runtime::Runtime;
use tower::{Layer, service_fn};

use support::{
    ROUNDS, bearer, contend, floor, handler, median, served, service, status, time, trusting,
    verified,
};

type Moka = moka::sync::Cache<String, Identity>;

const MIB: usize = 1 << 20;

const CONTENDED_CALLS: u32 = 100_000;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let (provider, auth) = runtime.block_on(service(256 * MIB));
    let fresh = runtime.block_on(trusting(&provider, 0));
    let validator = runtime.block_on(support::validator(&provider, 256 * MIB));
    let many: Vec<_> = (0..10_000).map(|_| token(&provider, Algorithm::ES256)).collect();

    println!("cached token, validator alone, and its ratio to a moka get by the token text");
    println!(
        "(MAC and map: the lookup alone, that is, an AES-GMAC of the token and a quick_cache get)"
    );
    println!(
        "{:24} {:>10} {:>14} {:>10} {:>8} {:>14}",
        "tokens", "cached", "MAC and map", "moka", "ratio", "MAC/moka"
    );
    let one = [token(&provider, Algorithm::RS256)];
    lookups("one, RS256", &validator, &one);
    lookups("one, ES256", &validator, &many[..1]);
    lookups("10,000, ES256", &validator, &many);

    println!(
        "\ncached token, whole request: time that the layer adds to the bare service; and the time to"
    );
    println!("insert an identity into the request, which every such layer must do");
    println!(
        "{:24} {:>10} {:>10} {:>8} {:>12} {:>12}",
        "tokens", "insertion", "cached", "allocs", "new", "new/cached"
    );
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519] {
        let tokens = [token(&provider, algorithm)];
        requests(&format!("one, {}", algorithm.as_str()), &runtime, [&auth, &fresh], &tokens);
    }
    requests("10,000, ES256", &runtime, [&auth, &fresh], &many);

    println!("\ntime that caching adds to a new token");
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::Ed25519] {
        // A cache of the default size: empty at first, later full.
        let auth = runtime.block_on(trusting(&provider, 16 * MIB));
        caching(&provider, algorithm, &auth, &fresh);
    }

    println!("\ntwo threads with one cached token: time per call, and its ratio to one thread");
    contend("arithmetic only", CONTENDED_CALLS / 10, || arithmetic);
    contend("validator", CONTENDED_CALLS, || || verified(&validator, &one[0]).is_mock());
    let moka = Moka::new(1000);
    moka.insert(one[0].clone(), verified(&validator, &one[0]));
    contend("moka", CONTENDED_CALLS, || || black_box(moka.get(one[0].as_str())).is_some());
    contend("whole request, cached", CONTENDED_CALLS, || {
        served(auth.layer().layer(service_fn(handler)), &one[0])
    });
    contend("whole request, bare", CONTENDED_CALLS, || served(service_fn(handler), &one[0]));

    let count = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(20_000);
    println!("\n{count} cached tokens, Ed25519");
    let [validator, fresh] =
        [4096 * MIB, 0].map(|bytes| runtime.block_on(support::validator(&provider, bytes)));
    memory(&provider, &validator, &fresh, count);
}

fn token(provider: &Provider, algorithm: Algorithm) -> String {
    let token = provider.token().algorithm(algorithm);
    token.roles(["docs_internal", "tenant_admin"]).groups(["group-eng", "group-sre"]).sign()
}

/// Does arithmetic without memory accesses. Two threads slow each other down only if they share a
/// processor core.
fn arithmetic() -> bool {
    let sums = (0..500_u64)
        .fold([1, 2, 3, 4], |sums, n| sums.map(|sum: u64| black_box(n ^ sum).wrapping_mul(3)));
    black_box(sums).iter().any(|sum| *sum > 0)
}

fn lookups(name: &str, validator: &JwksValidator, tokens: &[String]) {
    let (moka, mac) = (Moka::new(1_000_000), mac());
    let map = quick_cache::sync::Cache::new(1_000_000);
    for token in tokens {
        moka.insert(token.clone(), verified(validator, token));
        map.insert(mac(token), verified(validator, token));
    }
    let [mut cached, mut found, mut moka_times] = [const { Vec::new() }; 3];
    let [mut ratios, mut found_ratios] = [const { Vec::new() }; 2];
    let calls = tokens.len().max(2000) as u32;
    for _ in 0..ROUNDS {
        let turns = || tokens.iter().cycle();
        let mut turn = turns();
        let ours = time(calls, || verified(validator, turn.next().expect("a token")));
        let mut turn = turns();
        let finding = time(calls, || map.get(&mac(turn.next().expect("a token"))));
        let mut turn = turns();
        let theirs = time(calls, || moka.get(turn.next().expect("a token").as_str()));
        ratios.push(ours / theirs);
        found_ratios.push(finding / theirs);
        cached.push(ours);
        found.push(finding);
        moka_times.push(theirs);
    }
    let [cached, found, in_moka] =
        [&mut cached, &mut found, &mut moka_times].map(|times| 1e3 * median(times));
    let (ratio, found_ratio) = (median(&mut ratios), median(&mut found_ratios));
    println!(
        "{name:24} {cached:>7.0} ns {found:>11.0} ns {in_moka:>7.0} ns {ratio:>8.3} {found_ratio:>14.3}"
    );
}

/// Returns the MAC that identifies a cached token.
fn mac() -> impl Fn(&str) -> [u8; 16] {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key"));
    move |token| {
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(token), &mut []);
        tag.expect("a tag").as_ref().try_into().expect("16 bytes")
    }
}

fn requests(name: &str, runtime: &Runtime, [auth, fresh]: [&Auth; 2], tokens: &[String]) {
    let mut cached = auth.layer().layer(service_fn(handler));
    let mut uncached = fresh.layer().layer(service_fn(handler));
    let mut bare = service_fn(handler);
    // The minimum for every such layer: insert the identity into the request.
    let context = runtime.block_on(auth.authenticate(&tokens[0])).expect("a good token");
    let mut inserting = service_fn(|mut request: Request<Empty<bytes::Bytes>>| {
        request.extensions_mut().insert(context.clone());
        handler(request)
    });
    let headers: Vec<HeaderValue> = tokens.iter().map(|token| bearer(token)).collect();
    for header in &headers {
        assert_eq!(status(&mut cached, Some(header)), 200);
    }
    let (mut floors, mut shares) = (Vec::new(), Vec::new());
    let (mut firsts, mut ratios) = (Vec::new(), Vec::new());
    let calls = headers.len().max(2000) as u32;
    for _ in 0..ROUNDS {
        let mut turn = headers.iter().cycle();
        let with = time(calls, || status(&mut cached, turn.next()));
        let mut turn = headers.iter().cycle();
        let without = time(calls, || status(&mut bare, turn.next()));
        let mut turn = headers.iter().cycle();
        let inserted = time(calls, || status(&mut inserting, turn.next()));
        let first = time(50, || status(&mut uncached, headers.first()));
        floors.push(inserted - without);
        shares.push(with - without);
        firsts.push(first - without);
        ratios.push((first - without) / (with - without));
    }
    let of = |call: &mut dyn FnMut() -> u16| allocations::measure(|| assert_eq!(call(), 200)).count;
    let allocations = of(&mut || status(&mut cached, headers.first()))
        - of(&mut || status(&mut bare, headers.first()));
    println!(
        "{name:24} {:>7.0} ns {:>7.0} ns {allocations:>8} {:>9.2} µs {:>12.1}",
        1e3 * median(&mut floors),
        1e3 * median(&mut shares),
        median(&mut firsts),
        median(&mut ratios)
    );
}

fn caching(provider: &Provider, algorithm: Algorithm, auth: &Auth, fresh: &Auth) {
    const CALLS: usize = 60;
    let mut cached = auth.layer().layer(service_fn(handler));
    let mut uncached = fresh.layer().layer(service_fn(handler));
    let headers: Vec<HeaderValue> =
        (0..CALLS * ROUNDS).map(|_| bearer(&token(provider, algorithm))).collect();
    let (key, signed, signed_by) = floor(provider, algorithm, &token(provider, algorithm));
    let mut added = Vec::new();
    let mut headers = headers.chunks(CALLS);
    for _ in 0..ROUNDS {
        let chunk = headers.next().expect("enough tokens");
        let mut turn = chunk.iter();
        let without = time(CALLS as u32, || status(&mut uncached, turn.next()));
        let mut turn = chunk.iter();
        let with = time(CALLS as u32, || status(&mut cached, turn.next()));
        let floor = time(60, || key.verify_sig(black_box(&signed), &signed_by).expect("verifies"));
        added.push((with - without) / floor);
    }
    let share = 100.0 * median(&mut added);
    println!("{:24} {share:>6.1} % of a bare verification", algorithm.as_str());
}

/// The claims that a service would cache itself, for comparison.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only their size matters here")]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: u64,
    iat: u64,
    jti: String,
    azp: String,
    scope: String,
    tenant_id: String,
    partner_id: String,
    name: String,
    preferred_username: String,
    email: String,
    roles: Vec<String>,
    groups: Vec<String>,
}

/// Builds a token of realistic length, with all claims of a user and UUIDs as ids.
fn full_token(provider: &Provider, nth: usize) -> String {
    let uuid = |kind: &str| format!("6f1c2f0e-8a52-4d0b-{kind}-{nth:012x}");
    let token = provider.token().algorithm(Algorithm::Ed25519).subject(&uuid("a3f1"));
    let token = token.tenant(&uuid("b7c4")).claim("jti", uuid("9d2e"));
    let token = token.claim("azp", "scaiwave-web").claim("typ", "Bearer");
    let token = token.claim("partner_id", "ptn_acme").claim("name", "Alice Smith");
    let token = token.roles(["docs_internal", "tenant_admin"]).groups(["group-eng", "group-sre"]);
    token.scope("secrets:read secrets:write audit:read").sign()
}

/// Measures the bytes per cached token, and the time of a lookup among all of them.
fn memory(provider: &Provider, validator: &JwksValidator, fresh: &JwksValidator, count: usize) {
    let tokens: Vec<String> = (0..count).map(|nth| full_token(provider, nth)).collect();
    let each = |fill: &mut dyn FnMut()| allocations::measure(fill).bytes as f64 / count as f64;
    let before = validator.verified_tokens().stats();
    let cached = each(&mut || {
        for token in &tokens {
            verified(validator, token);
        }
    });
    let after = validator.verified_tokens().stats();
    // The share of the table, which is allocated up to the limit as tokens are inserted.
    let table = cached * before.bytes as f64 / before.max_bytes as f64;
    let cached = cached + table;
    let moka = Moka::new(u64::MAX);
    let identities = each(&mut || {
        for token in &tokens {
            moka.insert(token.clone(), verified(fresh, token));
        }
        moka.run_pending_tasks();
    });
    let claims = each(&mut || {
        let moka = moka::sync::Cache::new(u64::MAX);
        for token in &tokens {
            let claims: Claims = insecure_decode_claims(token).expect("claims");
            moka.insert(token.clone(), Arc::new(claims));
        }
        moka.run_pending_tasks();
        // Keeps the cache alive, because dropping it would free the measured memory.
        black_box(std::mem::ManuallyDrop::new(moka));
    });
    println!(
        "bytes per token of {} bytes: {cached:.0} in this cache ({table:.0} of them for the table),\n\
         {identities:.0} in a moka cache of identities (ratio {:.2}), {claims:.0} in a moka cache of claims (ratio {:.2})",
        tokens[0].len(),
        cached / identities,
        cached / claims,
    );
    println!("the cache reports {} of {count} tokens and {} bytes", after.tokens, after.bytes);
    let mut turn = tokens.iter().cycle();
    let ours = time(count as u32, || verified(validator, turn.next().expect("a token")));
    let mut turn = tokens.iter().cycle();
    let theirs = time(count as u32, || moka.get(turn.next().expect("a token").as_str()));
    println!(
        "time per lookup, tokens in turn: cached {:.0} ns, moka {:.0} ns ({:.3})",
        1e3 * ours,
        1e3 * theirs,
        ours / theirs
    );
}
