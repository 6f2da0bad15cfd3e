//! A comparison with `jsonwebtoken`, which shares no code with this crate except the cryptography.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm as Theirs, DecodingKey, EncodingKey, Header, TokenData, Validation};
use scaikey_auth::clock::Clock;
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::TokenDataError;
use scaikey_auth::identity::{ClaimsMapping, Provenance};
use scaikey_auth::testing::{Fault, ProviderEndpoint, forge};
use scaikey_auth::validator::Credentials;
use scaikey_auth::{AuthContext, AuthError, Identity, TokenValidator};
use serde_json::{Value, json};

use crate::support::{Server, Spy, World};

/// Makes a key for `jsonwebtoken`, without the test provider.
fn encoding_key(algorithm: Theirs) -> EncodingKey {
    let ecdsa = |algorithm| EcdsaKeyPair::generate(algorithm).unwrap().to_pkcs8v1().unwrap();
    let pem = |der: &[u8]| {
        let body = STANDARD.encode(der);
        let lines: Vec<_> =
            body.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    };
    match algorithm {
        Theirs::ES256 => {
            let der = ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
            EncodingKey::from_ec_pem(pem(der.as_ref()).as_bytes()).unwrap()
        }
        Theirs::ES384 => {
            let der = ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING);
            EncodingKey::from_ec_pem(pem(der.as_ref()).as_bytes()).unwrap()
        }
        Theirs::EdDSA => {
            let der = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
            EncodingKey::from_ed_pem(pem(der.as_ref()).as_bytes()).unwrap()
        }
        _ => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
            EncodingKey::from_rsa_pem(pem(der.as_ref()).as_bytes()).unwrap()
        }
    }
}

const THEIRS: [Theirs; 9] = [
    Theirs::RS256,
    Theirs::RS384,
    Theirs::RS512,
    Theirs::PS256,
    Theirs::PS384,
    Theirs::PS512,
    Theirs::ES256,
    Theirs::ES384,
    Theirs::EdDSA,
];

fn claims(world: &World) -> Value {
    let now = world.clock.now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    json!({
        "iss": world.provider.issuer(), "aud": "scaiwave", "sub": "alice", "tenant_id": "t",
        "exp": now.as_secs() + 600, "name": "Ålice ☂ \u{1F511}",
    })
}

#[tokio::test]
async fn tokens_of_jsonwebtoken_are_accepted() {
    let world = World::new().await;
    let keys: Vec<_> = THEIRS.map(|algorithm| (algorithm, encoding_key(algorithm))).into();
    let publish = |(algorithm, key): &(Theirs, EncodingKey)| {
        let mut jwk = Jwk::from_encoding_key(key, *algorithm).unwrap();
        jwk.common.key_id = Some(format!("{algorithm:?}"));
        serde_json::to_value(jwk).unwrap()
    };
    let set: Value = keys.iter().map(publish).collect();
    world.provider.fail(ProviderEndpoint::Jwks, Fault::replace_member("keys", set));
    let auth = world.auth().build().unwrap();
    for (algorithm, key) in &keys {
        for kid in [Some(format!("{algorithm:?}")), None] {
            let mut header = Header::new(*algorithm);
            // Without a kid only a few matching keys are tried, and all RSA keys match each other.
            let is_rsa = !matches!(algorithm, Theirs::ES256 | Theirs::ES384 | Theirs::EdDSA);
            if kid.is_none() && is_rsa {
                continue;
            }
            header.kid = kid;
            let token = jsonwebtoken::encode(&header, &claims(&world), key).unwrap();
            let context = auth.authenticate(&token).await;
            assert_eq!(context.unwrap().identity().subject(), "alice", "{algorithm:?}");
            // The signature of another key is refused.
            let (_, other) = keys
                .iter()
                .find(|(other, _)| other != algorithm && same_family(*other, *algorithm))
                .unwrap_or(&keys[0]);
            if same_family(*algorithm, Theirs::RS256) {
                let forged = jsonwebtoken::encode(&header, &claims(&world), other).unwrap();
                assert!(auth.authenticate(&forged).await.is_err(), "{algorithm:?}");
            }
        }
    }
}

fn same_family(one: Theirs, other: Theirs) -> bool {
    let is_rsa = |algorithm| !matches!(algorithm, Theirs::ES256 | Theirs::ES384 | Theirs::EdDSA);
    is_rsa(one) == is_rsa(other)
}

/// Returns whether `jsonwebtoken` lacks an algorithm.
fn is_ours_only(alg: &Value) -> bool {
    ["ES512", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87"].iter().any(|name| alg == name)
}

/// Verifies a token with `jsonwebtoken`, with rules as close to those of this crate as possible.
fn verify_with_jsonwebtoken(world: &World, token: &str) -> Result<Value, String> {
    let header = jsonwebtoken::decode_header(token).map_err(|e| e.to_string())?;
    let mut rules = Validation::new(header.alg);
    rules.set_audience(&["scaiwave"]);
    rules.set_issuer(&[world.provider.issuer()]);
    rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    rules.validate_nbf = true;
    rules.leeway = 60;
    let mut last = "no key".to_owned();
    for mut jwk in world.provider.jwks()["keys"].as_array().unwrap().clone() {
        // `jsonwebtoken` uses the older name of the algorithm.
        if jwk["alg"] == "Ed25519" {
            jwk["alg"] = json!("EdDSA");
        }
        if header.kid.as_ref().is_some_and(|kid| jwk["kid"] != **kid) || is_ours_only(&jwk["alg"]) {
            continue;
        }
        let jwk: Jwk = serde_json::from_value(jwk).unwrap();
        match jsonwebtoken::decode::<Value>(token, &DecodingKey::from_jwk(&jwk).unwrap(), &rules) {
            Ok(decoded) => return Ok(decoded.claims),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

#[tokio::test]
async fn jsonwebtoken_accepts_tokens_of_test_provider() {
    let world = World::with(Algorithm::ALL).await;
    for algorithm in Algorithm::ALL {
        // `jsonwebtoken` has another name for Ed25519.
        if is_ours_only(&json!(algorithm)) {
            continue;
        }
        let token = world.provider.token().algorithm(algorithm);
        let token = match algorithm {
            Algorithm::Ed25519 => token.header("alg", "EdDSA").sign(),
            _ => token.sign(),
        };
        let claims = verify_with_jsonwebtoken(&world, &token).unwrap();
        assert_eq!(claims["sub"], "alice-id", "{algorithm}");
    }
}

/// Variations of a valid token: other claims, other headers, and texts changed after signing.
fn variations(world: &World) -> Vec<(String, String)> {
    let token = || world.provider.token();
    let now =
        world.clock.now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut all = Vec::new();
    for name in ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "tenant_id", "scope", "roles"] {
        all.push((format!("without {name}"), token().without(name).sign()));
        for value in [
            json!(null),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(1e300),
            json!(now - 61),
            json!(now + 61),
            json!(now - 30),
            json!(now + 30),
            json!(""),
            json!("x"),
            json!("scaiwave"),
            json!([]),
            json!(["scaiwave"]),
            json!(["x", "scaiwave"]),
            json!([1]),
            json!({}),
            json!(true),
            json!(now.to_string()),
            json!(world.provider.issuer()),
        ] {
            all.push((format!("{name} = {value}"), token().claim(name, value).sign()));
        }
    }
    for name in ["alg", "kid", "typ", "crit", "b64", "zip", "cty", "x5c", "jku", "x"] {
        for value in [
            json!(null),
            json!(1),
            json!(""),
            json!("x"),
            json!("none"),
            json!("HS256"),
            json!("RS256"),
            json!("ES256"),
            json!("JWT"),
            json!([]),
            json!(["exp"]),
            json!({}),
            json!(false),
        ] {
            all.push((format!("header {name} = {value}"), token().header(name, value).sign()));
        }
    }
    let good = token().sign();
    for at in 0..good.len() {
        let mut flipped = good.clone().into_bytes();
        flipped[at] ^= 1;
        if let Ok(flipped) = String::from_utf8(flipped) {
            all.push((format!("bit flipped at {at}"), flipped));
        }
        if at % 5 == 0 {
            all.push((format!("cut at {at}"), good[..at].to_owned()));
            all.push((
                format!("doubled at {at}"),
                format!("{}{}", &good[..at], &good[at.saturating_sub(1)..]),
            ));
        }
    }
    let parts: Vec<_> = good.split('.').collect();
    let other = token().subject("mallory").sign();
    let others: Vec<_> = other.split('.').collect();
    let join = |parts: [&str; 3]| parts.join(".");
    all.push(("payload swapped".to_owned(), join([parts[0], others[1], parts[2]])));
    all.push(("signature swapped".to_owned(), join([parts[0], parts[1], others[2]])));
    all.push(("order swapped".to_owned(), join([parts[1], parts[0], parts[2]])));
    all.push(("signature dropped".to_owned(), join([parts[0], parts[1], ""])));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    all.push(("alg none".to_owned(), join([&none, parts[1], ""])));
    all
}

#[tokio::test]
async fn tokens_refused_by_jsonwebtoken_are_refused() {
    let world = World::with([Algorithm::ES256, Algorithm::RS256]).await;
    let auth = world.auth().tenant_optional().build().unwrap();
    let (mut both, mut stricter, mut laxer) = (0, 0, Vec::new());
    let honest = forge::valid(&world.provider).into_iter().map(|h| (h.name.to_owned(), h.token));
    for (name, token) in variations(&world).into_iter().chain(honest) {
        match (auth.authenticate(&token).await, verify_with_jsonwebtoken(&world, &token)) {
            (Ok(context), Ok(claims)) => {
                assert_eq!(context.identity().claims::<Value>().unwrap(), claims, "{name}");
                both += 1;
            }
            (Err(_), Ok(_)) => stricter += 1,
            // `jsonwebtoken` checks the types of these members. This crate ignores them, because keys come
            // only from the issuer.
            (Ok(_), Err(_)) if name.starts_with("header x5c") || name.starts_with("header jku") => {
            }
            (Ok(_), Err(why)) => laxer.push(format!("{name}: {why}")),
            (Err(_), Err(_)) => {}
        }
    }
    assert!(laxer.is_empty(), "{laxer:#?}");
    assert!(
        both > 50 && stricter > 10,
        "too few cases: {both} accepted by both, {stricter} refused by this crate only"
    );
}

/// The key set of the provider, in the type of `jsonwebtoken`.
fn jwk_set(keys: &Value) -> JwkSet {
    serde_json::from_value(keys.clone()).unwrap()
}

#[tokio::test]
async fn jwk_set_verifies_what_it_names() {
    let world = World::with(Algorithm::ALL).await;
    let set = jwk_set(&world.provider.jwks());
    let auth = world.auth_with(world.issuer().jwk_set(&set)).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
    for algorithm in Algorithm::ALL {
        // The set has lost the names of the others' algorithms.
        let expected = if is_ours_only(&json!(algorithm)) { 401 } else { 200 };
        let token = world.provider.token().algorithm(algorithm).sign();
        assert_eq!(server.get_as("/", &token).await.status, expected, "{algorithm}");
    }
    let health = auth.issuers().health().remove(0);
    assert_eq!((health.keys, health.unusable_keys), (9, 4));
    assert!(health.unusable.iter().all(|key| !key.is_fault && key.kid.is_some()), "{health:?}");
    assert_eq!(world.provider.jwks_requests(), 0);
}

#[tokio::test]
async fn jwk_set_with_secrets_is_refused() {
    let world = World::with([Algorithm::ES256]).await;
    let good = world.provider.jwks()["keys"][0].clone();
    let ml_dsa = json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "priv": "AA" });
    for (keys, why) in [
        (json!([good, { "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }]), "private or symmetric"),
        (json!([good, ml_dsa]), "private or symmetric"),
        (json!([{ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AA" }]), "type or curve"),
        (json!([]), "key"),
    ] {
        let set = jwk_set(&json!({ "keys": keys }));
        let error = world.auth_with(world.issuer().jwk_set(&set)).build().unwrap_err().to_string();
        assert!(error.contains("keys") && error.contains(why), "{keys}: {error}");
    }
}

/// A validator of opaque and encrypted tokens, such as a program may have.
#[derive(Debug)]
struct Others(Provenance);

#[async_trait::async_trait]
impl TokenValidator for Others {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        presented.token().starts_with("other")
    }

    async fn validate(&self, _presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        let claims =
            json!({ "iss": "https://other.example", "sub": "o", "exp": 4_000_000_000_u64 });
        Ok(Identity::from_claims(&claims, &ClaimsMapping::default(), self.0)?)
    }
}

#[derive(Debug, serde::Deserialize)]
struct Subject {
    sub: String,
}

/// The handler of a service that was written for `jsonwebtoken`.
async fn subject_and_header(context: AuthContext) -> String {
    match context.token_data::<Subject>() {
        Ok(TokenData { header, claims }) => {
            format!("{} {:?} {}", claims.sub, header.alg, header.kid.unwrap_or_default())
        }
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn token_data_has_header_and_claims() {
    let world = World::with(Algorithm::ALL).await;
    let auth = world.auth().build().unwrap();
    let app = Router::new().route("/", get(subject_and_header)).layer(auth.layer());
    let server = Server::axum(app).await;
    for algorithm in Algorithm::ALL {
        let key = world.provider.key_for(algorithm);
        let token = world.provider.token().algorithm(algorithm).header("x", 1).sign();
        let answer = server.get_as("/", &token).await;
        let expected = match Theirs::try_from(algorithm) {
            Ok(theirs) => format!("alice-id {theirs:?} {}", key.kid()),
            Err(_) => TokenDataError::Algorithm(algorithm.as_str().to_owned()).to_string(),
        };
        assert_eq!((answer.status, answer.body), (200, expected));
    }
    let token = world.provider.token().header("x5c", 7).sign();
    let answer = server.get_as("/", &token).await;
    assert_eq!(answer.body, TokenDataError::Header.to_string(), "their type wants a list");
}

#[tokio::test]
async fn token_data_needs_a_verified_header() {
    let error = |context: &AuthContext| context.token_data::<Subject>().unwrap_err().to_string();
    let mock = crate::support::mock().authenticate("a.b.c").await.unwrap();
    assert_eq!(error(&mock), TokenDataError::NoToken.to_string());
    let jws = "other.e30.AA";
    for (provenance, token, expected) in [
        (Provenance::Verified, "other", TokenDataError::NotSigned),
        (Provenance::Introspected, "other", TokenDataError::NotSigned),
        (Provenance::Introspected, jws, TokenDataError::NotSigned),
        (Provenance::Verified, "other.a.b.c.d", TokenDataError::Encrypted),
        (Provenance::Verified, jws, TokenDataError::Header),
    ] {
        let world = World::new().await;
        let auth = world.auth().validator(Others(provenance)).tenant_optional().build().unwrap();
        let context = auth.authenticate(token).await.unwrap();
        assert_eq!(error(&context), expected.to_string(), "{token} {provenance:?}");
    }
    let world = World::new().await;
    let context = world.auth().build().unwrap().authenticate(&world.provider.token().sign()).await;
    let wrong = context.unwrap().token_data::<Vec<u8>>();
    assert!(matches!(wrong, Err(TokenDataError::Claims(_))), "{wrong:?}");
}
