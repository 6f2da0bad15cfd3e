//! Client authentication at the provider.

use std::time::Duration;

use http::header::AUTHORIZATION;
use scaikey_auth::TokenExchangeClient;
use scaikey_auth::config::Algorithm;
use scaikey_auth::exchange::{ExchangeError, OAuthError, ServiceTokenRequest};
use scaikey_auth::issuer::{ClientAuth, SecretSource};
use scaikey_auth::testing::{Client, ManualClock, ProviderEndpoint, SigningKey};

use crate::support::File;

use super::{SECRET, builder, provider};

#[tokio::test]
async fn secret_is_sent_in_header_or_form() {
    let provider = provider().await;
    for (auth, header) in [
        (ClientAuth::basic("drive:1 %", SECRET), true),
        (ClientAuth::post("drive:1 %", SECRET), false),
    ] {
        let client = builder(&provider).client_auth(auth).build().unwrap();
        client.service_token(ServiceTokenRequest::default()).await.unwrap();
        let sent = provider.received(ProviderEndpoint::Token).pop().unwrap();
        assert_eq!(sent.headers.contains_key(AUTHORIZATION), header);
        let in_form = sent.form().iter().any(|(name, _)| name == "client_secret");
        assert_eq!((in_form, sent.target.as_str()), (!header, "/oauth/token"));
        assert!(!format!("{client:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn private_key_signs_each_request() {
    let provider = provider().await;
    for algorithm in Algorithm::ALL {
        let key = SigningKey::generate(algorithm);
        // Too short to be cached, so that each call sends a request.
        let lifetime = Duration::from_secs(20);
        provider.register_client(Client::with_key("svc", &key).token_lifetime(lifetime));
        let auth =
            ClientAuth::private_key_jwt("svc", algorithm, Some(key.kid()), key.private_pem());
        let client = builder(&provider).client_auth(auth).build().unwrap();
        for _ in 0..2 {
            let got = client.service_token(ServiceTokenRequest::default()).await;
            got.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        }
    }
    // A file that becomes invalid is reported at the request, because it may be corrected meanwhile.
    let file = File::new("key", &SigningKey::generate(Algorithm::ES256).private_pem());
    let source = SecretSource::File(file.path().into());
    let auth = ClientAuth::private_key_jwt("svc", Algorithm::ES256, None, source);
    let client = builder(&provider).client_auth(auth).build().unwrap();
    file.write("hunter2");
    let failed = client.service_token(ServiceTokenRequest::default()).await.unwrap_err();
    assert!(matches!(failed, ExchangeError::ClientAuth(_)));
    assert!(!format!("{failed:?} {failed}").contains("hunter2"));
}

#[tokio::test]
async fn changed_secret_file_is_read_again() {
    let provider = provider().await;
    let drive = Client::new("drive:1 %", SECRET).token_lifetime(Duration::from_secs(20));
    provider.register_client(drive);
    let file = File::new("secret", "old");
    let auth = ClientAuth::basic("drive:1 %", SecretSource::File(file.path().into()));
    let clock = ManualClock::default();
    let client = builder(&provider).client_auth(auth).clock(clock.clone()).build().unwrap();
    let service_token = async || client.service_token(ServiceTokenRequest::default()).await;
    assert_eq!(service_token().await.unwrap_err().oauth_error(), Some(&OAuthError::InvalidClient));
    file.write(&format!("{SECRET}\n"));
    clock.advance(Duration::from_secs(1));
    service_token().await.unwrap();
    file.remove();
    assert!(matches!(service_token().await, Err(ExchangeError::ClientAuth(_))));
    file.write("\n");
    clock.advance(Duration::from_secs(1));
    let empty = service_token().await.unwrap_err();
    assert!(matches!(empty, ExchangeError::ClientAuth(_)), "an empty secret is not sent: {empty}");
}

#[tokio::test]
async fn public_client_gets_no_service_token() {
    let provider = provider().await;
    let client = builder(&provider).client_auth(ClientAuth::none("app")).build().unwrap();
    let refused = client.service_token(ServiceTokenRequest::default()).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::NotConfigured(_)));
    assert_eq!(provider.token_requests(), 0);
}

#[test]
fn unusable_client_auth_is_rejected() {
    let key = SigningKey::generate(Algorithm::ES384).private_pem();
    let missing = || SecretSource::File("/nowhere/hidden".into());
    let empty = File::new("empty", "\n");
    let empty = SecretSource::File(empty.path().into());
    for (auth, why) in [
        (ClientAuth::basic("svc", missing()), "/nowhere/hidden cannot be read"),
        (ClientAuth::post("svc", empty), "is empty"),
        (
            ClientAuth::private_key_jwt("svc", Algorithm::ES256, None, missing()),
            "/nowhere/hidden cannot be read",
        ),
        (ClientAuth::private_key_jwt("svc", Algorithm::ES256, None, "hunter2"), "PKCS #8"),
        (ClientAuth::private_key_jwt("svc", Algorithm::ES256, None, key), "not a key for ES256"),
        (ClientAuth::basic("svc", ""), "empty secret"),
        (ClientAuth::post("svc", ""), "empty secret"),
    ] {
        let builder = TokenExchangeClient::builder("https://scaikey.example").client_auth(auth);
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains("client_auth") && error.contains(why), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn invalid_configuration_does_not_build() {
    let url = "https://scaikey.example";
    let auth = || ClientAuth::basic("a", "b");
    TokenExchangeClient::builder(url).client_auth(auth()).build().unwrap();
    let faults = TokenExchangeClient::builder("http://127.0.0.1:1").build().unwrap_err();
    assert_eq!(faults.faults().len(), 2, "{faults}");
    for bad in ["http://scaikey.example/t", "t", "https://{tenant_id}.scaikey.example/t"] {
        let builder = TokenExchangeClient::builder(url).client_auth(auth()).token_url(bad);
        assert_eq!(builder.build().unwrap_err().faults()[0].field, "token_url", "{bad}");
    }
}
