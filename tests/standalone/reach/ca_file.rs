//! A private CA, for metadata, keys and tokens.

use std::time::Duration;

use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint};
use scaikey_auth::{Auth, AuthConfig, IssuerConfig, TokenExchangeClient};

use super::{auth, client, faults, has_token, is_accepted, last_error, provider};
use crate::support::File;
use crate::support::http::get;
use crate::support::tls::{TlsFront, acceptor};

#[tokio::test]
async fn provider_with_private_ca_needs_file() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let front = TlsFront::start("localhost", provider.address()).await;
    let keys = Fault::replace_member("jwks_uri", front.url(&provider.jwks_uri()));
    provider.fail(ProviderEndpoint::Discovery, keys);
    let (ca, other) =
        (File::new("ca.pem", &front.certificate), File::new("other.pem", &acceptor("localhost").1));
    let both = File::new("both.pem", &format!("{}{}", acceptor("a").1, front.certificate));
    let issuer = || {
        let issuer = IssuerConfig::new(front.url(&provider.issuer()));
        issuer.expected_issuer(provider.issuer())
    };
    let token = provider.token().sign();
    for (issuer, works) in [
        (issuer().ca_file(ca.path()), true),
        (issuer().ca_file(both.path()), true),
        (issuer().jwks_uri(front.url(&provider.jwks_uri())).ca_file(ca.path()), true),
        (issuer(), false),
        (issuer().ca_file(other.path()), false),
        (issuer().jwks_uri(front.url(&provider.jwks_uri())), false),
    ] {
        let before = provider.jwks_requests();
        let auth = auth(issuer.clone(), &clock).build().unwrap();
        assert_eq!(is_accepted(&auth, &token).await, works, "{issuer:?} {}", last_error(&auth));
        assert_eq!(provider.jwks_requests() > before, works);
        assert!(works || last_error(&auth).contains("certificate"), "{}", last_error(&auth));
    }
}

#[tokio::test]
async fn token_request_uses_current_ca_file() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let front = TlsFront::start("localhost", provider.address()).await;
    let metadata = get(&provider.discovery_url(), None).await.json();
    let token_url = front.url(metadata["token_endpoint"].as_str().unwrap());
    let ca = File::new("ca.pem", &acceptor("localhost").1);
    let client = client("https://a.example", &clock).token_url(token_url).ca_file(ca.path());
    let client = client.build().unwrap();
    let has_new_token = async || {
        // Longer than the lifetime of a token and every pause after a failure.
        clock.advance(Duration::from_secs(4000));
        has_token(&client).await
    };
    assert!(!has_new_token().await);
    ca.write(&front.certificate);
    assert!(has_new_token().await && has_new_token().await);
    assert_eq!(provider.token_requests(), 2);
    ca.remove();
    assert!(!has_new_token().await);
    ca.write(&front.certificate);
    assert!(has_new_token().await);
}

#[test]
fn unusable_ca_file_is_a_fault() {
    let clock = ManualClock::new();
    let none = File::reserve("ca.pem");
    let empty = File::new("empty.pem", "");
    let key = File::new("key.pem", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    let block = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let garbage = File::new("garbage.pem", block);
    for (file, why) in [
        (&none, "cannot be read: No such file"),
        (&empty, "has no certificate"),
        (&key, "has no certificate"),
        (&garbage, "cannot be used"),
    ] {
        let path = file.path_text();
        let issuer = IssuerConfig::new("https://a.example").ca_file(&path);
        let error = faults(auth(issuer, &clock).build());
        assert!(error[0].starts_with(&format!("issuers[0].ca_file {path} {why}")), "{error:?}");
        let error = faults(client("https://a.example", &clock).ca_file(&path).build());
        assert!(error[0].starts_with(&format!("ca_file {path} {why}")), "{error:?}");
    }
}

#[test]
fn client_inherits_ca_file_of_issuer() {
    let ca = File::new("ca.pem", &acceptor("localhost").1);
    let config = |file: String| {
        let pairs = [("ISSUER", "https://a.example"), ("AUDIENCE", "scaiwave")];
        let pairs = pairs.iter().chain(&[("CLIENT_ID", "wave"), ("CLIENT_SECRET", "x")]);
        let pairs = pairs.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        AuthConfig::from_vars("P", pairs.chain([("P_CA_FILE".to_owned(), file)]))
    };
    Auth::from_config(config(ca.path_text())).build().unwrap();
    TokenExchangeClient::from_config(&config(ca.path_text())).build().unwrap();
    let missing = config("/nonexistent/ca.pem".to_owned());
    for error in [
        faults(Auth::from_config(missing.clone()).build()),
        faults(TokenExchangeClient::from_config(&missing).build()),
    ] {
        assert!(error[0].starts_with("P_CA_FILE /nonexistent/ca.pem cannot be read"), "{error:?}");
    }
    let mut own = missing;
    own.client.ca_file = Some(ca.path().to_owned());
    TokenExchangeClient::from_config(&own).build().unwrap();
}

#[test]
fn client_variable_replaces_the_issuers_file() {
    let ca = File::new("ca.pem", &acceptor("localhost").1);
    let config = |client: &str| {
        let pairs = [("ISSUER", "https://a.example"), ("AUDIENCE", "scaiwave")];
        let pairs = pairs.iter().chain(&[("CLIENT_ID", "wave"), ("CLIENT_SECRET", "x")]);
        let files = [("CA_FILE", "/nonexistent/ca.pem"), ("CLIENT_CA_FILE", client)];
        let pairs = pairs.copied().chain(files);
        AuthConfig::from_vars("P", pairs.map(|(name, value)| (format!("P_{name}"), value.into())))
    };
    TokenExchangeClient::from_config(&config(&ca.path_text())).build().unwrap();
    let missing = "/nonexistent/client.pem";
    let error = faults(TokenExchangeClient::from_config(&config(missing)).build());
    assert!(
        error[0].starts_with(&format!("P_CLIENT_CA_FILE {missing} cannot be read")),
        "{error:?}"
    );
    let own = TokenExchangeClient::from_config(&config(missing)).ca_file(ca.path());
    own.build().unwrap();
}
