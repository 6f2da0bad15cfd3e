//! Two clusters with the same issuer string: each accepts only its own keys.

use std::time::Duration;

use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{ManualClock, SigningKey, TestIssuer};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::fixture::{ask, evaluator, platform, pod, reporter, trust_called, why};
use crate::support::File;
use crate::support::tls::acceptor;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn cluster(id: &str, issuer: &TestIssuer, audience: &str, more: &str) -> String {
    let audiences = format!("audiences = [\"{audience}\"]");
    trust_called(ISSUER, id, issuer, more).replace("audiences = [\"scaivault\"]", &audiences)
}

#[tokio::test]
async fn audience_selects_the_cluster() {
    let clock = ManualClock::new();
    let (eu, us) = (platform(&clock).await, platform(&clock).await);
    // Both keys have the same `kid`, so only the trust distinguishes them.
    for issuer in [&eu, &us] {
        issuer.rotate_to(SigningKey::with_kid(scaikey_auth::config::Algorithm::ES256, "k1"));
    }
    let parts = [
        cluster("eu", &eu, "scaivault-eu", ""),
        reporter(),
        cluster("us", &us, "scaivault-us", ""),
        reporter(),
    ];
    let evaluator = evaluator(&clock, &parts);
    let token = |by: &TestIssuer, audience: &str| pod(by).issuer(ISSUER).audience(audience).sign();
    for _ in 0..2 {
        assert_eq!(ask(&evaluator, &token(&eu, "scaivault-eu")).await.unwrap().trust, "eu");
        assert_eq!(ask(&evaluator, &token(&us, "scaivault-us")).await.unwrap().trust, "us");
        // A token signed by one cluster with the audience of the other.
        assert_eq!(why(&evaluator, &token(&us, "scaivault-eu")).await, "token_signature");
        assert_eq!(why(&evaluator, &token(&eu, "scaivault-us")).await, "token_signature");
    }
    let both = pod(&eu).issuer(ISSUER).claim("aud", ["scaivault-eu", "scaivault-us"].as_slice());
    assert_eq!(why(&evaluator, &both.clone().sign()).await, "trust_ambiguous");
    let named = evaluator.evaluate(&both.sign(), Some("eu"), &Scopes::new()).await;
    assert_eq!(named.unwrap().trust, "eu");
}

#[tokio::test]
async fn trust_id_selects_cluster_with_shared_audience() {
    let clock = ManualClock::new();
    let (eu, us) = (platform(&clock).await, platform(&clock).await);
    let parts = [
        cluster("eu", &eu, "scaivault", "named_only = true"),
        reporter(),
        cluster("us", &us, "scaivault", "named_only = true"),
        reporter(),
    ];
    let evaluator = evaluator(&clock, &parts);
    let all = Scopes::new();
    let us_token = pod(&us).issuer(ISSUER).sign();
    let named = evaluator.evaluate(&us_token, Some("us"), &all).await;
    assert_eq!(named.unwrap().identity, "sa:us:reporting");
    let wrong = evaluator.evaluate(&us_token, Some("eu"), &all).await.unwrap_err();
    assert_eq!(wrong.reason().as_str(), "token_key_unknown");
    let stranger = evaluator.evaluate(&us_token, Some("../eu\n"), &all).await.unwrap_err();
    assert_eq!(stranger.reason().as_str(), "trust_unknown");
    assert_eq!(why(&evaluator, &us_token).await, "trust_none");
    // Naming a trust does not skip its issuer check.
    let elsewhere = pod(&us).sign();
    let other = evaluator.evaluate(&elsewhere, Some("us"), &all).await.unwrap_err();
    assert_eq!(other.reason().as_str(), "token_issuer");
}

#[tokio::test]
async fn inline_keys_cause_no_request() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let inline = |set: &str| {
        format!(
            "[[trust]]\nid = \"k8s\"\nissuer = \"{ISSUER}\"\naudiences = [\"scaivault\"]\njwks = {{ inline = '''{set}''' }}\n"
        )
    };
    let evaluator = evaluator(&clock, &[inline(&cluster.jwks().to_string()), reporter()]);
    let token = || pod(&cluster).issuer(ISSUER);
    assert!(ask(&evaluator, &token().sign()).await.is_ok());
    // Neither the age of the keys nor an unknown key causes a request.
    clock.advance(Duration::from_secs(40 * 24 * 3600));
    assert!(ask(&evaluator, &token().sign()).await.is_ok());
    let strange = SigningKey::generate(scaikey_auth::config::Algorithm::ES256);
    for _ in 0..5 {
        assert_eq!(why(&evaluator, &token().signed_by(&strange).sign()).await, "token_key_unknown");
    }
    assert_eq!(
        (cluster.jwks_requests(), cluster.discovery_requests(), cluster.stray_requests()),
        (0, 0, 0)
    );
}

/// A cluster's API server: has a self-signed certificate, and serves the keys to clients with the
/// token. Returns its URL and its certificate.
async fn api_server(keys: String, token: &'static str) -> (String, String) {
    let (acceptor, certificate) = acceptor("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/openid/v1/jwks", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let is_authorised = request.contains(&format!("\r\nauthorization: bearer {token}\r\n"));
            let (status, body) =
                if is_authorised { ("200 OK", keys.as_str()) } else { ("401 No", "") };
            let head = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    (url, certificate)
}

#[tokio::test]
async fn key_fetch_uses_ca_and_bearer_files() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let (url, certificate) = api_server(cluster.jwks().to_string(), "pod-token").await;
    let (_, other) = api_server(String::new(), "").await;
    let (ca, wrong_ca) = (File::new("ca.pem", &certificate), File::new("wrong.pem", &other));
    let (token, wrong_token) = (File::new("token", "pod-token\n"), File::new("wrong", "other"));
    let no_pem = File::new("no.pem", "no certificate");
    let policy = |jwks: &str| {
        format!(
            "[[trust]]\nid = \"k8s\"\nissuer = \"{ISSUER}\"\naudiences = [\"scaivault\"]\njwks = {{ url = \"{url}\"{jwks} }}\n"
        )
    };
    let files = |ca: &File, token: &File| {
        let (ca, token) = (ca.path_text(), token.path_text());
        policy(&format!(", ca_file = \"{ca}\", bearer_file = \"{token}\""))
    };
    let pod = pod(&cluster).issuer(ISSUER).sign();
    for refused in [
        policy(""),
        policy(&format!(", ca_file = \"{}\"", ca.path_text())),
        policy(&format!(", bearer_file = \"{}\"", token.path_text())),
        files(&wrong_ca, &token),
        files(&no_pem, &token),
        files(&ca, &wrong_token),
        files(&ca, &File::new("gone", "")),
    ] {
        let evaluator = evaluator(&clock, &[refused.clone(), reporter()]);
        assert_eq!(why(&evaluator, &pod).await, "unavailable", "{refused}");
        let error = evaluator.health()[0].1.last_error.clone().unwrap();
        assert!(!error.contains("pod-token"), "{error}");
    }
    let late = File::new("late", "other");
    let evaluator = evaluator(&clock, &[files(&ca, &late), reporter()]);
    assert_eq!(why(&evaluator, &pod).await, "unavailable");
    // The platform replaced the token file. The service reads it again without a restart.
    late.write("pod-token");
    clock.advance(Duration::from_secs(61));
    assert_eq!(ask(&evaluator, &pod).await.unwrap().identity, "sa:k8s:reporting");
}
