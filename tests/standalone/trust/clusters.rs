//! Two clusters with one issuer string: each is believed by its own keys only.

use std::sync::Arc;
use std::time::Duration;

use scaikey_auth::identity::Scopes;
use scaikey_auth::testing::{ManualClock, SigningKey, TestIssuer};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};

use super::fixture::{ask, platform, pod, reporter, trust_called, trusts, why};
use crate::support::File;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn cluster(id: &str, issuer: &TestIssuer, audience: &str, more: &str) -> String {
    let audiences = format!("audiences = [\"{audience}\"]");
    trust_called(ISSUER, id, issuer, more).replace("audiences = [\"scaivault\"]", &audiences)
}

#[tokio::test]
async fn an_audience_of_its_own_leads_a_token_to_its_cluster() {
    let clock = ManualClock::new();
    let (eu, us) = (platform(&clock).await, platform(&clock).await);
    // The same name for both keys: only the trust tells them apart.
    for issuer in [&eu, &us] {
        issuer.rotate_to(SigningKey::with_kid(scaikey_auth::config::Algorithm::ES256, "k1"));
    }
    let parts = [
        cluster("eu", &eu, "scaivault-eu", ""),
        reporter(),
        cluster("us", &us, "scaivault-us", ""),
        reporter(),
    ];
    let trusts = trusts(&clock, &parts);
    let token = |by: &TestIssuer, audience: &str| pod(by).issuer(ISSUER).audience(audience).sign();
    for _ in 0..2 {
        assert_eq!(ask(&trusts, &token(&eu, "scaivault-eu")).await.unwrap().trust, "eu");
        assert_eq!(ask(&trusts, &token(&us, "scaivault-us")).await.unwrap().trust, "us");
        // One cluster's signature under the other's name.
        assert_eq!(why(&trusts, &token(&us, "scaivault-eu")).await, "token_signature");
        assert_eq!(why(&trusts, &token(&eu, "scaivault-us")).await, "token_signature");
    }
    let both = pod(&eu).issuer(ISSUER).claim("aud", ["scaivault-eu", "scaivault-us"].as_slice());
    assert_eq!(why(&trusts, &both.clone().sign()).await, "trust_ambiguous");
    let named = trusts.evaluate(&both.sign(), Some("eu"), &Scopes::new()).await;
    assert_eq!(named.unwrap().trust, "eu");
}

#[tokio::test]
async fn with_one_audience_the_caller_says_which_cluster_is_meant() {
    let clock = ManualClock::new();
    let (eu, us) = (platform(&clock).await, platform(&clock).await);
    let parts = [
        cluster("eu", &eu, "scaivault", "named_only = true"),
        reporter(),
        cluster("us", &us, "scaivault", "named_only = true"),
        reporter(),
    ];
    let trusts = trusts(&clock, &parts);
    let all = Scopes::new();
    let of_us = pod(&us).issuer(ISSUER).sign();
    let named = trusts.evaluate(&of_us, Some("us"), &all).await;
    assert_eq!(named.unwrap().identity, "sa:us:reporting");
    let wrong = trusts.evaluate(&of_us, Some("eu"), &all).await.unwrap_err();
    assert_eq!(wrong.reason().as_str(), "token_key_unknown");
    let stranger = trusts.evaluate(&of_us, Some("../eu\n"), &all).await.unwrap_err();
    assert_eq!(stranger.reason().as_str(), "trust_unknown");
    assert_eq!(why(&trusts, &of_us).await, "trust_none");
    // Who names a trust does not get around its issuer.
    let elsewhere = pod(&us).sign();
    let other = trusts.evaluate(&elsewhere, Some("us"), &all).await.unwrap_err();
    assert_eq!(other.reason().as_str(), "token_issuer");
}

#[tokio::test]
async fn keys_in_the_policy_are_asked_of_nobody() {
    let clock = ManualClock::new();
    let cluster = platform(&clock).await;
    let inline = |set: &str| {
        format!(
            "[[trust]]\nid = \"k8s\"\nissuer = \"{ISSUER}\"\naudiences = [\"scaivault\"]\njwks = {{ inline = '''{set}''' }}\n"
        )
    };
    let trusts = trusts(&clock, &[inline(&cluster.jwks().to_string()), reporter()]);
    let token = || pod(&cluster).issuer(ISSUER);
    assert!(ask(&trusts, &token().sign()).await.is_ok());
    // As an idle service meets it: long after, and with a key it does not know.
    clock.advance(Duration::from_secs(40 * 24 * 3600));
    assert!(ask(&trusts, &token().sign()).await.is_ok());
    let strange = SigningKey::generate(scaikey_auth::config::Algorithm::ES256);
    for _ in 0..5 {
        assert_eq!(why(&trusts, &token().signed_by(&strange).sign()).await, "token_key_unknown");
    }
    assert_eq!(
        (cluster.jwks_requests(), cluster.discovery_requests(), cluster.stray_requests()),
        (0, 0, 0)
    );
}

/// A cluster's API server: TLS with a certificate of its own, and keys for whoever shows the token.
/// Returns its URL and its certificate.
async fn api_server(keys: String, token: &'static str) -> (String, String) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/openid/v1/jwks", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let shown = request.contains(&format!("\r\nauthorization: bearer {token}\r\n"));
            let (status, body) = if shown { ("200 OK", keys.as_str()) } else { ("401 No", "") };
            let head = format!(
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    (url, own.cert.pem())
}

#[tokio::test]
async fn a_clusters_own_certificate_and_token_open_its_keys_and_nothing_else_does() {
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
        let (ca, token) = (ca.name(), token.name());
        policy(&format!(", ca_file = \"{ca}\", bearer_file = \"{token}\""))
    };
    let pod = pod(&cluster).issuer(ISSUER).sign();
    for refused in [
        policy(""),
        policy(&format!(", ca_file = \"{}\"", ca.name())),
        policy(&format!(", bearer_file = \"{}\"", token.name())),
        files(&wrong_ca, &token),
        files(&no_pem, &token),
        files(&ca, &wrong_token),
        files(&ca, &File::new("gone", "")),
    ] {
        let trusts = trusts(&clock, &[refused.clone(), reporter()]);
        assert_eq!(why(&trusts, &pod).await, "unavailable", "{refused}");
        let told = trusts.health()[0].1.last_error.clone().unwrap();
        assert!(!told.contains("pod-token"), "{told}");
    }
    let late = File::new("late", "other");
    let trusts = trusts(&clock, &[files(&ca, &late), reporter()]);
    assert_eq!(why(&trusts, &pod).await, "unavailable");
    // The token was exchanged, as the platform does: nothing has to be started anew.
    late.write("pod-token");
    clock.advance(Duration::from_secs(61));
    assert_eq!(ask(&trusts, &pod).await.unwrap().identity, "sa:k8s:reporting");
}
