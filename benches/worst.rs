//! Measures the most expensive requests that a caller without credentials can send: the CPU time of
//! the server thread, relative to a bare hyper server that reads the same request. The ratios are
//! medians over interleaved rounds. No request should cost more than 20 times ([`MAX_RATIO`]) the
//! bare request. Run it on one processor: `taskset -c 0 cargo bench --bench worst --features jwe`.
//! `-- claims` runs only the requests whose name contains "claims".
//!
//! Two kinds of tokens cost more, because no cheap check comes before the operation with a key. They
//! must be allowed by the configuration: encrypted tokens, and ML-DSA signatures.

mod support;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use scaikey_auth::endpoints::{
    Attempt, Endpoints, PasswordDecision, SignIn, Throttle, ThrottleDecision, TrustedProxies,
};
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::Provider;
use scaikey_auth::{Auth, TokenExchangeClient};
use tower::{Layer, service_fn};

use support::wire::{Answer, Server};
use support::{median, provider, trusting};

const MAX_RATIO: f64 = 20.0;

const ROUNDS: usize = 11;

/// The largest body that the endpoints read, in bytes.
const BODY: usize = 64 * 1024;

/// The longest token that the validator decodes, in bytes.
const TOKEN: usize = 16 * 1024;

/// A throttle that admits addresses and denies accounts, so that no request reaches the provider.
#[derive(Debug)]
struct NoAccounts;

#[async_trait]
impl Throttle for NoAccounts {
    fn try_admit(&self, attempt: &Attempt<'_>, _: Duration) -> Option<ThrottleDecision> {
        Some(match attempt.account {
            None => ThrottleDecision::Allow,
            Some(_) => ThrottleDecision::Deny { retry_after: Duration::from_secs(1) },
        })
    }

    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
    ) -> Result<ThrottleDecision, BoxError> {
        self.try_admit(attempt, now).ok_or_else(|| "no answer".into())
    }
}

fn main() {
    if !Path::new("/proc/thread-self/schedstat").exists() {
        println!("Nothing is measured: this system does not report the CPU time of a thread.");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let provider = runtime.block_on(provider());
    let auth = runtime.block_on(trusting(&provider, 16 << 20));
    let (endpoints, sessions) = endpoints(&provider, &auth);
    let layered = sessions.layer().layer(endpoints.service());
    let mut ours = Server::start(layered);
    let mut bare = Server::start(service_fn(read_body));

    println!("{:44} {:>10} {:>10} {:>7}", "request", "bare", "endpoints", "ratio");
    let chosen = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    for (name, request, expected) in requests(&provider) {
        if !name.contains(&chosen) {
            continue;
        }
        compare(&name, &mut ours, &mut bare, &request, expected);
    }

    #[cfg(feature = "jwe")]
    {
        let auth = runtime.block_on(kinds::service(&provider));
        let mut ours = Server::start(auth.layer().layer(service_fn(support::wire::answer)));
        for (name, token) in kinds::tokens(&provider) {
            if name.contains(&chosen) {
                compare(&name, &mut ours, &mut bare, &whoami(&token), 401);
            }
        }
    }
}

/// Tokens that anyone can make, and that need an operation with a key before they are refused.
#[cfg(feature = "jwe")]
mod kinds {
    use std::sync::LazyLock;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use josekit::jwk::Jwk;
    use scaikey_auth::Auth;
    use scaikey_auth::config::{Algorithm, DecryptionKeys};
    use scaikey_auth::testing::{EncryptionKey, Provider, SigningKey};
    use serde_json::json;

    use super::support::{issuer, trusting_all};

    const RSA: [u32; 2] = [2048, 4096];

    const SIGNATURES: [Algorithm; 4] =
        [Algorithm::ES256, Algorithm::MLDSA44, Algorithm::MLDSA65, Algorithm::MLDSA87];

    struct Keys {
        rsa: Vec<Jwk>,
        agreement: Vec<EncryptionKey>,
        signing: Vec<SigningKey>,
    }

    static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
        rsa: RSA.map(rsa).into(),
        agreement: ["P-256", "P-384", "X25519"]
            .map(|curve| EncryptionKey::generate_on("ECDH-ES", curve).with_kid(curve))
            .into(),
        signing: SIGNATURES.map(SigningKey::generate).into(),
    });

    fn rsa(bits: u32) -> Jwk {
        let mut key = Jwk::generate_rsa_key(bits).expect("a key");
        key.set_key_id(bits.to_string());
        key.set_key_use("enc");
        key.set_algorithm("RSA-OAEP-256");
        key
    }

    /// Builds a service that allows all these kinds of tokens.
    pub(super) async fn service(provider: &Provider) -> Auth {
        let private = KEYS.rsa.iter().map(|key| json!(key));
        let private = private.chain(KEYS.agreement.iter().map(EncryptionKey::private_jwk));
        let private = json!({ "keys": private.collect::<Vec<_>>() }).to_string();
        let public: Vec<_> = KEYS.signing.iter().map(SigningKey::jwk).collect();
        let issuer = issuer(&provider.issuer()).algorithms(SIGNATURES);
        let issuer = issuer.keys(&json!({ "keys": public }).to_string());
        let issuer = issuer.decrypt(DecryptionKeys::jwks(private).expect("keys"));
        trusting_all([issuer.also_unencrypted()], 0).await
    }

    pub(super) fn tokens(provider: &Provider) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for key in &KEYS.signing {
            let token = altered(provider.token().signed_by(key).sign());
            all.push((format!("{} with a bad signature", key.algorithm()), token));
        }
        for (key, bits) in KEYS.rsa.iter().zip(RSA) {
            let kid = key.key_id().expect("an id");
            let named =
                json!({ "alg": "RSA-OAEP-256", "enc": "A256GCM", "cty": "JWT", "kid": kid });
            let part = |length: usize| URL_SAFE_NO_PAD.encode(vec![0x40; length]);
            let header = URL_SAFE_NO_PAD.encode(named.to_string());
            let key = part(bits as usize / 8);
            let token = format!("{header}.{key}.{}.{}.{}", part(12), part(800), part(16));
            all.push((format!("JWE, RSA {bits}, invented"), token));
        }
        for key in &KEYS.agreement {
            let token = key.encrypt("A".repeat(800), json!({}));
            all.push((format!("JWE, ECDH-ES on {}, no JWT inside", key.kid()), token));
        }
        let bad = altered(provider.token().signed_by(&KEYS.signing[0]).sign());
        let token = KEYS.agreement[0].encrypt(bad, json!({}));
        all.push(("JWE, ECDH-ES on P-256, ES256 with a bad signature".to_owned(), token));
        let longest = KEYS.agreement[0].clone().content_encryption("A256CBC-HS512");
        let token = longest.encrypt("A".repeat(12 * 1024), json!({}));
        all.push(("JWE, ECDH-ES on P-256, 16 KiB of A256CBC-HS512".to_owned(), token));
        all
    }

    /// Changes the signed part, so that the signature is well-formed but wrong.
    fn altered(token: String) -> String {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let claims = URL_SAFE_NO_PAD.decode(&parts[1]).expect("base64");
        let claims = String::from_utf8(claims).expect("text").replace("\"sub\":\"", "\"sub\":\"x");
        parts[1] = URL_SAFE_NO_PAD.encode(claims);
        parts.join(".")
    }
}

fn endpoints(provider: &Provider, auth: &Auth) -> (Endpoints, Sessions) {
    let client = TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("wave", "secret"))
        .enable_password_grant()
        .build()
        .expect("a client");
    let keys = SealingKeys::random().expect("random numbers");
    let sessions = Sessions::builder(auth, client.clone(), keys).build().expect("sessions");
    let endpoints = auth
        .endpoints()
        .client(client)
        .sign_in(SignIn::new("https://wave.example/v1/auth/login"))
        .sessions(sessions.clone())
        .password_grant(|_| PasswordDecision::Allow)
        .throttle(NoAccounts)
        .peer_address(|_| Some([10, 0, 0, 1].into()))
        .trusted_proxies(TrustedProxies::new(["10.0.0.0/8"]).expect("a network"))
        .build();
    (endpoints.expect("endpoints"), sessions)
}

async fn read_body(request: Request<Incoming>) -> Answer {
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    std::hint::black_box(body);
    Ok(http::Response::new(Full::from("hello")))
}

/// Returns the requests, each with its name and its expected status.
fn requests(provider: &Provider) -> Vec<(String, Vec<u8>, u16)> {
    let mut all = Vec::new();
    let mut add = |name: &str, request, status| all.push((name.to_owned(), request, status));
    let form = |path, body: &str| post(path, "application/x-www-form-urlencoded", body);
    let json = |path, body: &str| post(path, "application/json", body);
    let fill = |unit: &str| unit.repeat(BODY / unit.len());

    let names: Vec<_> = (0..16_383).map(|nth| format!("{nth:03x}")).collect();
    add("form of 16,383 names", form("refresh", &names.join("&")[..BODY - 1]), 400);
    add("form of & only", form("refresh", &fill("&")), 400);
    let escaped_value = format!("grant_type={}", &fill("%C3%A4")[12..]);
    add("form of one escaped value", form("token", &escaped_value), 400);
    let pad = "n".repeat(1000);
    let long: Vec<_> = (0..64).map(|nth| format!("{pad}{nth:02}")).collect();
    add("form of 64 long names with one prefix", form("refresh", &long.join("&")), 400);
    let scopes: Vec<_> = (0..1000).map(|nth| format!("{nth:03x}")).collect();
    let scopes = format!("grant_type=password&username=x&password=x&scope={}", scopes.join("+"));
    add("form of 1,000 scopes", form("token", &scopes), 429);
    let user = |name: &str| {
        let name = name.repeat(1024 / name.len());
        let name = url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>();
        form("token", &format!("grant_type=password&password=x&username={name}"))
    };
    add("user name that grows when normalised", user("\u{fdfa}"), 429);
    add("user name of accents", user("\u{345}\u{301}"), 429);

    let members: Vec<_> = (0..9_000).map(|nth| format!("\"{nth:03x}\":\"\"")).collect();
    let object = format!("{{{}}}", members.join(","));
    add("JSON of many members", json("login", &object[..BODY - 1]), 400);
    add("JSON of one deep list", json("login", &format!("{{\"a\":{}", fill("["))[..BODY]), 400);
    add("JSON of one long list", json("login", &format!("{{\"a\":[{}", fill("0,"))[..BODY]), 400);
    add("JSON of one escaped text", json("login", &escaped()), 400);

    for (name, claims) in hostile_claims() {
        add(name, whoami(&unsigned(provider, &claims)), 401);
    }
    add("token of dots", whoami(&".".repeat(300_000)), 401);
    add("cookies", get_with_header("Cookie", &"a=b; ".repeat(60_000)), 401);
    add("session of invalid cookies", get_with_header("Cookie", &made_up_session(3800, 19)), 401);
    add("session of many small cookies", get_with_header("Cookie", &made_up_session(1, 1500)), 401);
    let hops = "X-Forwarded-For: 10.0.0.1,10.0.0.1,10.0.0.1\r\n".repeat(80);
    add("list of many proxies", raw("POST", "refresh", &hops, ""), 400);
    all
}

/// Returns cookies with a session marker and this many generations of session data (see
/// `src/session/cookie.rs`), none of which can be decrypted.
fn made_up_session(part: usize, generations: usize) -> String {
    let name = format!("__Host-session-{}", "0".repeat(20));
    let value = "A".repeat(part);
    let mut cookies = format!("{name}=1");
    for generation in 0..generations {
        for nth in 0..4 {
            let count = if nth == 0 { "4." } else { "" };
            cookies.push_str(&format!("; {name}.{generation}.{nth}={count}{value}"));
        }
    }
    cookies
}

fn escaped() -> String {
    format!("{{\"a\":\"{}\",\"b\":0}}", "\\u0061".repeat((BODY - 20) / 6))
}

/// Returns claims that fill the longest token. A validator parses them before it verifies a
/// signature.
fn hostile_claims() -> Vec<(&'static str, String)> {
    let room = (TOKEN - 600) / 4 * 3 - 200;
    let fill = |unit: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        for nth in 0.. {
            let more = unit(nth);
            if text.len() + more.len() > room {
                break;
            }
            text.push_str(&more);
        }
        text
    };
    vec![
        ("claims of many names", fill(&|nth| format!(",\"{nth:03x}\":0"))),
        (
            "claims of as many names as allowed",
            (0..1010).map(|nth| format!(",\"{nth:05x}\":[]")).collect(),
        ),
        (
            "claims of many names, then an escape",
            fill(&|nth| format!(",\"{nth:03x}\":0")) + ",\"\\u0061\":0",
        ),
        (
            "claims of objects of 33 names",
            fill(&|nth| {
                let names: Vec<_> = (0..33).map(|it| format!("\"{it:02}\":0")).collect();
                format!(",\"o{nth}\":{{{}}}", names.join(","))
            }),
        ),
        (
            "claims of 32 names in many objects",
            fill(&|nth| {
                let names: Vec<_> = (0..32).map(|it| format!("\"{}\":0", 10 + it)).collect();
                format!(",\"o{nth}\":{{{}}}", names.join(","))
            }),
        ),
        ("claims of one deep list", format!(",\"x\":{}", "[".repeat(16))),
        ("claims of one long list", format!(",\"x\":[{}0]", "0,".repeat(room / 2 - 10))),
        (
            "claims of one audience list",
            format!(",\"aud2\":[{}\"\"]", "\"\",".repeat(room / 3 - 10)),
        ),
        ("claims of numbers", fill(&|nth| format!(",\"{nth:03x}\":1.7976931348623157e-308"))),
        ("claims of escapes", format!(",\"x\":\"{}\"", "\\u0061".repeat(room / 6 - 10))),
    ]
}

/// Returns a token without a valid signature: the claims of a valid token and more.
fn unsigned(provider: &Provider, more: &str) -> String {
    let good = provider.token().sign();
    let (header, rest) = good.split_once('.').expect("a token");
    let (claims, signature) = rest.split_once('.').expect("a token");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64");
    let claims = String::from_utf8(claims).expect("text");
    let claims = format!("{}{more}}}", claims.strip_suffix('}').expect("an object"));
    let token = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims));
    assert!(token.len() <= TOKEN, "{}", token.len());
    token
}

fn post(path: &str, media_type: &str, body: &str) -> Vec<u8> {
    assert!(body.len() <= BODY, "{}", body.len());
    raw("POST", path, &format!("Content-Type: {media_type}\r\n"), body)
}

fn whoami(token: &str) -> Vec<u8> {
    raw("GET", "whoami", &format!("Authorization: Bearer {token}\r\n"), "")
}

fn get_with_header(name: &str, value: &str) -> Vec<u8> {
    raw("GET", "whoami", &format!("{name}: {value}\r\n"), "")
}

fn raw(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let line = format!("{method} /v1/auth/{path} HTTP/1.1\r\nHost: localhost\r\n");
    format!("{line}Content-Length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

/// Sends the same request to both servers alternately, and prints the costs and their ratio.
fn compare(name: &str, ours: &mut Server, bare: &mut Server, request: &[u8], expected: u16) {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    ours.cost(request, expected);
    bare.cost(request, 200);
    for _ in 0..ROUNDS {
        let floor = bare.cost(request, 200);
        let cost = ours.cost(request, expected);
        ratios.push(cost / floor);
        with.push(cost);
        without.push(floor);
    }
    let (with, without, ratio) = (median(&mut with), median(&mut without), median(&mut ratios));
    let above = if ratio > MAX_RATIO { "  ABOVE" } else { "" };
    println!("{name:44} {without:>7.1} µs {with:>7.1} µs {ratio:>7.2}{above}");
}
