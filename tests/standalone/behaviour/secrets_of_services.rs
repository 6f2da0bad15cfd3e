//! The credentials of a service, and tokens that are not signed JWTs, do not appear in logs, errors, `Debug` output
//! or answers.

use scaikey_auth::exchange::ServiceTokenRequest;
use scaikey_auth::issuer::{ClientAuth, WorkloadToken};
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint};
use scaikey_auth::{ExchangeRequest, TokenExchangeClient};

use crate::support::{File, Log, World};

const CANARY: &str = "cAnArY-5up3r-53cr3t";

fn assert_clean(text: &str, needles: &[String], place: &str) {
    for needle in needles.iter().map(String::as_str).chain([CANARY]) {
        assert!(!text.contains(needle), "{place} contains {needle}: {text}");
    }
}

/// Returns the parts of tokens that differ between tokens.
fn parts<'t>(tokens: impl IntoIterator<Item = &'t str>) -> Vec<String> {
    let parts = tokens.into_iter().flat_map(|token| token.split('.').skip(1));
    parts.filter(|part| part.len() > 20).map(str::to_owned).collect()
}

#[tokio::test]
async fn no_workload_token_appears_in_output() {
    let log = Log::start();
    let world = World::new().await;
    let platform = Provider::start().await;
    let token = || {
        let token = platform.token().audience(&world.provider.issuer());
        token.subject("system:serviceaccount:prod:wave").claim("note", CANARY)
    };
    let (good, expired) = (token().sign(), token().expired().sign());
    let other = token().audience("https://other.example").sign();
    let pod = token().audience("https://kubernetes.default.svc");
    let pod = pod.claim("kubernetes.io", serde_json::json!({ "namespace": "prod" })).sign();
    let file = File::new("token", &good);
    let source = WorkloadToken::file(file.path());
    let auth = ClientAuth::assertion("wave", source.clone());
    let client = TokenExchangeClient::builder(world.provider.issuer())
        .allow_loopback_http(true)
        .client_auth(auth.clone())
        .build()
        .unwrap();
    let needles = parts([&good, &expired, &other, &pod].map(String::as_str));
    let request = ExchangeRequest::of_workload(source.clone(), "scaivault");
    let faults = [Fault::Status(500), Fault::OAuthError(401, "invalid_client"), Fault::HangUp];
    for content in [&good, &expired, &other, &pod, CANARY, "", &format!("{good}\n{good}")] {
        file.write(content);
        for fault in faults.clone() {
            world.provider.fail(ProviderEndpoint::Token, fault);
            let service = client.service_token(ServiceTokenRequest::default()).await;
            let exchanged = client.exchange(&request).await;
            for failed in [service.unwrap_err(), exchanged.unwrap_err()] {
                assert_clean(&format!("{failed:?} {failed}"), &needles, "the error");
            }
        }
        let check = TokenExchangeClient::builder(world.provider.issuer())
            .allow_loopback_http(true)
            .client_auth(auth.clone());
        assert_clean(&format!("{:?}", check.build()), &needles, "the fault");
    }
    let sent = world.provider.received(ProviderEndpoint::Token);
    assert!(!sent.is_empty(), "the good token is sent");
    assert!(sent.iter().all(|request| !request.target.contains("eyJ")), "never in a URL");
    assert_clean(&format!("{client:?} {auth:?} {source:?} {request:?}"), &needles, "Debug");
    assert_clean(&log.text(), &needles, "the log");
}

#[cfg(feature = "jwe")]
#[tokio::test]
async fn no_decryption_key_appears_in_output() {
    use scaikey_auth::config::DecryptionKeys;
    use scaikey_auth::testing::EncryptionKey;
    use serde_json::{Value, json};

    use crate::support::{Server, Spy};

    let log = Log::start();
    let world = World::new().await;
    let (rsa, ecdh) = (EncryptionKey::generate("RSA-OAEP-256"), EncryptionKey::generate("ECDH-ES"));
    let private = [rsa.private_jwk(), ecdh.private_jwk()];
    let members = private.iter().flat_map(|key| {
        ["d", "p", "q", "dp", "dq", "qi"].into_iter().filter_map(|name| key[name].as_str())
    });
    let mut needles: Vec<String> = members.map(str::to_owned).collect();
    assert_eq!(needles.len(), 7);
    let set = |keys: &[Value]| DecryptionKeys::jwks(json!({ "keys": keys }).to_string());
    let keys = set(&private).unwrap();
    let issuer = world.issuer().decrypt(keys.clone());
    let auth = world.auth_with(issuer.clone()).build().unwrap();
    let server = Server::axum(Spy::default().app().layer(auth.layer())).await;

    let inner = world.provider.token().claim("note", CANARY).sign();
    needles.extend(parts([inner.as_str()]));
    let mut bad = inner.clone();
    bad.truncate(bad.len() - 4);
    let other = EncryptionKey::generate("ECDH-ES").with_kid(ecdh.kid());
    let tokens = [
        (rsa.encrypt(&inner, json!({})), 200),
        (ecdh.encrypt(&inner, json!({})), 200),
        (ecdh.encrypt(bad + "AAAA", json!({})), 401),
        (ecdh.encrypt(CANARY, json!({})), 401),
        (ecdh.encrypt(&inner, json!({ "kid": CANARY })), 401),
        (ecdh.encrypt(&inner, json!({ "zip": CANARY })), 401),
        (other.encrypt(&inner, json!({})), 401),
        (inner, 401),
    ];
    for (token, status) in &tokens {
        let answer = server.get_as("/", token).await;
        assert_eq!(answer.status, *status, "{answer:?}");
        assert_clean(&format!("{answer:?}"), &needles, "the answer");
    }
    for (name, value) in
        [("use", "sig"), ("alg", CANARY), ("kty", "oct"), ("x", CANARY), ("d", CANARY)]
    {
        let mut key = private[1].clone();
        key[name] = value.into();
        let fault = set(&[key]).unwrap_err();
        let text = format!("{fault} {fault:?}");
        assert!(needles.iter().all(|needle| !text.contains(needle.as_str())), "{name}: {text}");
    }
    let cut = format!("{}", private[0]);
    let fault = DecryptionKeys::jwks(cut[..cut.len() - 9].to_owned()).unwrap_err();
    assert_clean(&format!("{fault} {fault:?}"), &needles, "the fault");
    assert_clean(&format!("{keys:?} {issuer:?} {auth:?} {rsa:?}"), &needles, "Debug");
    needles.extend(tokens.iter().flat_map(|(token, _)| parts([token.as_str()])));
    assert_clean(&log.text(), &needles, "the log");
}
