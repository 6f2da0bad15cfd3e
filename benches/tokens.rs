//! Compares the kinds of tokens with a signed JWT (ES256): encrypted tokens, post-quantum
//! signatures and opaque tokens. The ratios are medians over interleaved rounds of one run. The
//! rounds are short, so that most of them are not interrupted on a busy machine.
//! `cargo bench --bench tokens --features jwe`
//!
//! - A known token: the time that the layer adds to the bare service, relative to a known JWT.
//! - A new token: the same time, relative to the bare cryptographic operations that it needs.
//! - An opaque token that is asked about: relative to a bare request to the introspection endpoint.

mod support;

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyUncompressedBin};
use http::HeaderValue;
use scaikey_auth::config::Algorithm;
use scaikey_auth::config::DecryptionKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{
    Client, EncryptionKey, Fault, Provider, ProviderEndpoint, TokenBuilder,
};
use scaikey_auth::validator::OpaqueTokens;
use scaikey_auth::{Auth, AuthConfig, IssuerConfig};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tower::{Layer, service_fn};

use support::{bearer, floor, handler, issuer, median, status, time};

const MIB: usize = 1 << 20;

const ROUNDS: usize = 201;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

const CALLERS: usize = 1000;

/// The algorithms of the bench, without those of the other benches.
const POST_QUANTUM: [Algorithm; 3] = [Algorithm::MLDSA44, Algorithm::MLDSA65, Algorithm::MLDSA87];

/// A kind of token, with a service that accepts it.
struct Kind {
    name: String,
    token: String,
    auth: Auth,
}

impl Kind {
    fn new(name: impl Into<String>, token: String, auth: &Auth) -> Self {
        Self { name: name.into(), token, auth: auth.clone() }
    }
}

/// A kind of token whose service verifies it for each request, and the bare operations.
type NewKind = (Kind, Box<dyn FnMut()>);

/// The provider, and services that remember tokens or verify each one.
struct Bench {
    runtime: Runtime,
    provider: Provider,
    encryption: EncryptionKey,
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let algorithms = [Algorithm::ES256, Algorithm::RS256].into_iter().chain(POST_QUANTUM);
    let provider = Provider::builder().algorithms(algorithms).token_lifetime(WEEK).start();
    let provider = runtime.block_on(provider);
    provider.register_client(Client::new("scaiwave", "secret"));
    let encryption = EncryptionKey::generate("ECDH-ES").content_encryption("A256GCM");
    let bench = Bench { runtime, provider, encryption };
    bench.known();
    bench.first_seen();
    bench.asked();
    bench.callers();
}

impl Bench {
    /// Builds a service with this issuer, which remembers opaque tokens for this time.
    fn service(&self, issuer: IssuerConfig, remembered: usize, cache_for: Duration) -> Auth {
        let mut config = AuthConfig::default();
        config.issuers.push(issuer);
        config.audience.push("scaiwave".to_owned());
        config.verified_tokens_bytes = remembered;
        let client = ClientAuth::basic("scaiwave", "secret");
        let opaque = OpaqueTokens::new(self.provider.issuer(), client).cache_for(cache_for);
        let auth = Auth::from_config(config).opaque_tokens(opaque).build();
        let auth = auth.expect("a configuration");
        self.runtime.block_on(auth.ready()).expect("keys");
        auth
    }

    fn issuer(&self) -> IssuerConfig {
        let algorithms = [Algorithm::ES256, Algorithm::RS256].into_iter().chain(POST_QUANTUM);
        issuer(&self.provider.issuer()).algorithms(algorithms)
    }

    fn decrypting(&self) -> IssuerConfig {
        let keys = format!(r#"{{"keys":[{}]}}"#, self.encryption.private_jwk());
        let keys = DecryptionKeys::jwks(keys).expect("a key");
        self.issuer().decrypt(keys)
    }

    fn token(&self, algorithm: Algorithm) -> TokenBuilder {
        let token = self.provider.token().algorithm(algorithm);
        token.roles(["docs_internal", "tenant_admin"]).groups(["group-eng", "group-sre"])
    }

    /// Measures tokens that were seen before. The first kind is the baseline of the others.
    fn known(&self) {
        let auth = self.service(self.issuer(), 16 * MIB, Duration::from_secs(300));
        let decrypting = self.service(self.decrypting(), 16 * MIB, Duration::ZERO);
        let jwt = |algorithm: Algorithm| {
            Kind::new(algorithm.as_str(), self.token(algorithm).sign(), &auth)
        };
        let encrypted = self.token(Algorithm::ES256).encrypted_for(&self.encryption).sign();
        let mut kinds = vec![
            jwt(Algorithm::ES256),
            jwt(Algorithm::RS256),
            Kind::new("opaque", self.token(Algorithm::ES256).opaque("skt_"), &auth),
            Kind::new("JWE around ES256", encrypted.clone(), &decrypting),
            // The same characters without encryption: the rest of the row above.
            Kind::new("ES256 of that length", self.padded(encrypted.len()), &auth),
        ];
        for algorithm in POST_QUANTUM {
            let kind = jwt(algorithm);
            let length = kind.token.len();
            kinds.push(kind);
            kinds.push(Kind::new("ES256 of that length", self.padded(length), &auth));
        }
        self.compare(&kinds);
    }

    /// Returns an ES256 token of about this length, whose further claim no mapping reads.
    fn padded(&self, length: usize) -> String {
        let short = self.token(Algorithm::ES256).claim("padding", "").sign().len();
        let padding = "x".repeat(length.saturating_sub(short) / 4 * 3);
        self.token(Algorithm::ES256).claim("padding", padding).sign()
    }

    fn compare(&self, kinds: &[Kind]) {
        println!("known token, whole request: time that the layer adds to the bare service, and");
        println!("its ratio to {}", kinds[0].name);
        println!(
            "{:24} {:>12} {:>10} {:>8} {:>8}",
            "token", "characters", "adds", "ratio", "allocs"
        );
        let headers: Vec<HeaderValue> = kinds.iter().map(|kind| bearer(&kind.token)).collect();
        let layer = |kind: &Kind| kind.auth.layer().layer(service_fn(handler));
        let mut services: Vec<_> = kinds.iter().map(layer).collect();
        let mut bare = service_fn(handler);
        for kind in kinds {
            // The first question about an opaque token must wait for its answer.
            let known = self.runtime.block_on(kind.auth.authenticate(&kind.token));
            known.expect("a good token");
        }
        let mut added = vec![Vec::new(); kinds.len()];
        let mut ratios = added.clone();
        for _ in 0..ROUNDS {
            for (nth, (service, header)) in services.iter_mut().zip(&headers).enumerate() {
                let with = time(500, || accepted(status(service, Some(header))));
                let without = time(500, || status(&mut bare, Some(header)));
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
    fn first_seen(&self) {
        println!("\nnew token, whole request: time that the layer adds to the bare service, and");
        println!("its ratio to the bare cryptographic operations");
        println!("{:24} {:>12} {:>12} {:>8}", "token", "bare", "adds", "ratio");
        let fresh = self.service(self.issuer(), 0, Duration::ZERO);
        let decrypting = self.service(self.decrypting(), 0, Duration::ZERO);
        let jwt = |algorithm: Algorithm| -> NewKind {
            let token = self.token(algorithm).sign();
            let bare = self.verification(algorithm, &token);
            (Kind::new(algorithm.as_str(), token, &fresh), bare)
        };
        let jwe = || -> NewKind {
            let inner = self.token(Algorithm::ES256).sign();
            let (mut verify, mut decrypt) =
                (self.verification(Algorithm::ES256, &inner), decryption(inner.len()));
            let token = self.encryption.encrypt(inner, serde_json::json!({}));
            let both = move || (decrypt(), verify()).1;
            (Kind::new("JWE around ES256", token, &decrypting), Box::new(both))
        };
        let algorithms = [Algorithm::ES256, Algorithm::RS256].into_iter().chain(POST_QUANTUM);
        for (kind, mut bare) in algorithms.map(jwt).chain([jwe()]) {
            let header = bearer(&kind.token);
            let mut service = kind.auth.layer().layer(service_fn(handler));
            let mut unprotected = service_fn(handler);
            accepted(status(&mut service, Some(&header)));
            let (mut floors, mut added, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let floor = time(8, &mut bare);
                let with = time(8, || status(&mut service, Some(&header)));
                let without = time(100, || status(&mut unprotected, Some(&header)));
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

    /// Returns the bare verification of a token's signature.
    fn verification(&self, algorithm: Algorithm, token: &str) -> Box<dyn FnMut()> {
        let (key, signed, signature) = floor(&self.provider, algorithm, token);
        Box::new(move || key.verify_sig(black_box(&signed), &signature).expect("verifies"))
    }

    /// Measures an opaque token about which each request asks.
    fn asked(&self) {
        println!("\nopaque token, asked about for each request: time of `authenticate`, and its");
        println!("ratio to a bare request to the introspection endpoint");
        let auth = self.service(self.issuer(), 0, Duration::ZERO);
        let token = self.token(Algorithm::ES256).opaque("skt_");
        let client = reqwest::Client::new();
        let body = format!("token={token}&token_type_hint=access_token");
        let ask = || async {
            let request = client.post(self.provider.introspection_endpoint());
            let request = request.basic_auth("scaiwave", Some("secret"));
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let answer = request.body(body.clone()).send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            answer.bytes().await.expect("a body")
        };
        let (mut floors, mut costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let floor = time(8, || self.runtime.block_on(ask()));
            let cost =
                time(8, || self.runtime.block_on(auth.authenticate(&token)).expect("a good token"));
            floors.push(floor);
            costs.push(cost);
            ratios.push(cost / floor);
        }
        println!(
            "{:24} {:>9.0} µs {:>9.0} µs {:>8.2}",
            "opaque",
            median(&mut floors),
            median(&mut costs),
            median(&mut ratios)
        );
    }

    /// Counts the questions of parallel requests with one new opaque token.
    fn callers(&self) {
        let auth = self.service(self.issuer(), 0, Duration::from_secs(30));
        let slow = Fault::Slow(Duration::from_millis(50));
        self.provider.fail(ProviderEndpoint::Introspection, slow);
        let questions = || self.provider.requests(ProviderEndpoint::Introspection);
        let before = questions();
        let token = self.token(Algorithm::ES256).opaque("skt_");
        self.runtime.block_on(async {
            let mut callers = JoinSet::new();
            for _ in 0..CALLERS {
                let (auth, token) = (auth.clone(), token.clone());
                callers.spawn(async move { auth.authenticate(&token).await.is_ok() });
            }
            assert!(callers.join_all().await.into_iter().all(|is_good| is_good));
        });
        println!("\n{CALLERS} callers of one new opaque token: {} question", questions() - before);
    }
}

/// Returns the bare operations that decrypt a token of this length: ECDH on P-256 with the
/// ephemeral key of the token, one SHA-256 that derives the content key, and A256GCM.
fn decryption(length: usize) -> Box<dyn FnMut()> {
    let own = PrivateKey::generate(&ECDH_P256).expect("a key");
    let ephemeral = PrivateKey::generate(&ECDH_P256).expect("a key");
    let public = ephemeral.compute_public_key().expect("a public key");
    let public: EcPublicKeyUncompressedBin<'_> = public.as_be_bytes().expect("a point");
    let public = public.as_ref().to_vec();
    let cipher = |key: &[u8]| LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a key"));
    let nonce = || Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let content_key = |own: &PrivateKey, public: &[u8]| {
        let public = UnparsedPublicKey::new(&ECDH_P256, public);
        let derive = |secret: &[u8]| digest::digest(&digest::SHA256, &[secret, &[0; 40]].concat());
        agree(own, public, (), |secret| Ok(derive(secret))).expect("a key")
    };
    let key = content_key(&own, &public);
    let header = [b'a'; 300];
    let mut sealed = vec![b'a'; length];
    let sealing = cipher(key.as_ref());
    sealing.seal_in_place_append_tag(nonce(), Aad::from(&header), &mut sealed).expect("sealed");
    Box::new(move || {
        let key = content_key(&own, black_box(&public));
        let mut text = sealed.clone();
        let opened = cipher(key.as_ref()).open_in_place(nonce(), Aad::from(&header), &mut text);
        black_box(opened.expect("opens"));
    })
}

fn accepted(status: u16) {
    assert_eq!(status, 200);
}

fn allocated(call: impl FnOnce() -> u16) -> i64 {
    allocations::measure(|| accepted(call())).count as i64
}
