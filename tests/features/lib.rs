//! Behaviour that must not depend on the features of `serde_json`, `reqwest` and `jsonwebtoken` in a program.
#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::time::Duration;

use jsonwebtoken::crypto::CryptoProvider;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm as Theirs, TokenData};
use scaikey_auth::config::{Algorithm, MockUser};
use scaikey_auth::exchange::ServiceTokenRequest;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, ManualClock, Provider};
use scaikey_auth::trust::TrustPolicy;
use scaikey_auth::{Auth, AuthConfig, AuthContext, AuthMode, IssuerConfig, TokenExchangeClient};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt, service_fn};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Shows that the feature is on; without it, the other tests would prove nothing.
#[test]
fn serde_json_keeps_numbers_as_text() {
    assert_eq!(json("4000000000.0").to_string(), "4000000000.0");
    assert_eq!(json("1e400").to_string(), "1e+400");
}

#[tokio::test]
async fn times_are_read_in_every_format() {
    let clock = ManualClock::new();
    let provider = Provider::builder().clock(clock.clone()).start().await;
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").clock(clock).build().unwrap();
    let table = [
        ("4000000000", true),
        ("4000000000.0", true),
        ("4000000000.25", true),
        ("4e9", true),
        ("40.0E+8", true),
        ("1e400", false),
        ("-4e9", false),
        ("1000000000.5", false),
        ("\"4000000000\"", false),
        ("{}", false),
        ("[4000000000]", false),
    ];
    for (text, is_good) in table {
        let token = provider.token().claim("exp", json(text)).sign();
        assert_eq!(auth.authenticate(&token).await.is_ok(), is_good, "{text}");
    }
    let fraction = provider.token().claim("iat", json("1.5e9")).claim("nbf", json("1.5e9"));
    assert!(auth.authenticate(&fraction.sign()).await.is_ok());
    let later = provider.token().claim("nbf", json("3999999999.5")).sign();
    assert!(auth.authenticate(&later).await.is_err());
    let counted = provider.token().claim("visits", json("3.0")).claim("score", json("0.5")).sign();
    let context = auth.authenticate(&counted).await.unwrap();
    let claims: Value = context.identity().claims().unwrap();
    assert_eq!((claims["visits"].as_f64(), claims["score"].as_f64()), (Some(3.0), Some(0.5)));
}

#[tokio::test]
async fn provider_answers_are_read_alike() {
    let provider = Provider::start().await;
    provider.register_client(Client::new("drive", "secret").scopes("read"));
    let client = TokenExchangeClient::builder(provider.issuer())
        .allow_loopback_http(true)
        .client_auth(ClientAuth::basic("drive", "secret"));
    let client = client.build().unwrap();
    let token = client.service_token(ServiceTokenRequest::default()).await.unwrap();
    assert!(token.lifetime().unwrap() > Duration::from_secs(60));
}

/// A key set is requested uncompressed, because a compressed answer may expand a thousandfold.
#[tokio::test]
async fn requests_do_not_accept_compression() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // With the feature, a plain client requests compression.
    let plain = reqwest::Client::new();
    let issuer = IssuerConfig::new(&url).allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build().unwrap();
    let fetch = tokio::spawn(async move { auth.ready().await });
    assert!(!request_head(&listener).await.contains("gzip"));
    fetch.abort();
    let fetch = tokio::spawn(plain.get(url).send());
    assert!(request_head(&listener).await.contains("gzip"));
    fetch.abort();
}

/// Returns the head of the next request.
async fn request_head(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[test]
fn policies_compare_numbers_alike() {
    let text = r#"{ "trust": [{
        "id": "ci", "issuer": "https://ci.example", "audiences": ["scaivault"],
        "grant": [{
            "name": "deploy", "claims": { "project": { "eq": 74 }, "runs": { "one_of": [1, -2] } },
            "map": { "identity": "sa:deploy", "tenant": "acme", "scopes": ["a"] }
        }]
    }] }"#;
    let policy = TrustPolicy::from_json(text).unwrap();
    assert_eq!(serde_json::from_str::<TrustPolicy>(text).unwrap(), policy);
    assert_eq!(serde_json::from_value::<TrustPolicy>(json(text)).unwrap(), policy);
    for refused in ["74.5", "7.4e1", "9007199254740993", "1e400"] {
        let text = text.replace("74", refused);
        assert!(TrustPolicy::from_json(&text).is_err(), "{refused}");
        assert!(serde_json::from_str::<TrustPolicy>(&text).is_err(), "{refused}");
    }
}

#[tokio::test]
async fn settings_of_a_file_are_read_alike() {
    let text = r#"{ "audience": ["scaiwave"], "verified_tokens_bytes": 1048576,
        "issuers": [{ "issuer": "https://k.example", "leeway_seconds": 30 }] }"#;
    let config: AuthConfig = serde_json::from_str(text).unwrap();
    assert_eq!((config.verified_tokens_bytes, config.issuers[0].leeway.as_secs()), (1_048_576, 30));
    let config: AuthConfig = serde_json::from_value(json(text)).unwrap();
    assert_eq!(config.issuers[0].leeway.as_secs(), 30);
    let user =
        r#"{ "claims": { "sub": "dev", "tenant_id": "acme", "amr": ["mfa"], "auth_time": 7.0 } }"#;
    let user: MockUser = serde_json::from_str(user).unwrap();
    let auth = Auth::builder().mode(AuthMode::Mock).mock_user(user);
    let auth = auth.insecure_allow_mock_in_production().build().unwrap();
    let context = auth.authenticate("x").await.unwrap();
    let mfa = context.identity().mfa_verified_at().unwrap();
    assert_eq!(mfa.duration_since(std::time::UNIX_EPOCH).unwrap(), Duration::from_secs(7));
}

/// Shows that both back ends are on; with one, the next test would prove nothing.
#[test]
fn jsonwebtoken_has_no_default_back_end() {
    assert!(CryptoProvider::try_get_default().is_none());
}

#[derive(serde::Deserialize)]
struct Subject {
    sub: String,
}

/// A request needs no back end of `jsonwebtoken`: this crate verifies, and converts types.
#[tokio::test]
async fn types_of_jsonwebtoken_need_no_back_end() {
    let algorithms = [Algorithm::ES256, Algorithm::RS256, Algorithm::PS512, Algorithm::Ed25519];
    let provider = Provider::builder().algorithms(algorithms).start().await;
    let set: JwkSet = serde_json::from_value(provider.jwks()).unwrap();
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let issuer = issuer.algorithms(algorithms).jwk_set(&set);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").build().unwrap();
    let service = service_fn(async |request: http::Request<String>| {
        let context = request.extensions().get::<AuthContext>().unwrap();
        let token: TokenData<Subject> = context.token_data().unwrap();
        let text = format!("{} {:?}", token.claims.sub, token.header.alg);
        let response = http::Response::builder().header("x-token", text);
        Ok::<_, std::convert::Infallible>(response.body(String::new()).unwrap())
    });
    let service = ServiceBuilder::new().layer(auth.layer()).service(service);
    for algorithm in algorithms {
        let theirs = Theirs::try_from(algorithm).unwrap();
        let token = provider.token().algorithm(algorithm).sign();
        let request = http::Request::builder().header("authorization", format!("Bearer {token}"));
        let response = service.clone().oneshot(request.body(String::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200, "{algorithm}");
        assert_eq!(response.headers()["x-token"], format!("alice-id {theirs:?}"));
    }
    assert_eq!(provider.jwks_requests(), 0);
}
