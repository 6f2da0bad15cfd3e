//! The URL of the token endpoint: from metadata, fixed, or for each tenant.

use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{ExchangeError, ServiceTokenRequest, TokenUrls};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::testing::{Client, Fault, ManualClock, ProviderEndpoint};
use scaikey_auth::{AuthConfig, TenantId, TokenExchangeClient};

use crate::support::File;

use super::{SECRET, builder, drive, provider, timed};

/// A lookup of tenants' slugs, as in a service's own store.
#[derive(Debug)]
struct Slugs(String);

#[async_trait]
impl TokenUrls for Slugs {
    async fn token_url(&self, tenant: &TenantId) -> Result<Option<String>, BoxError> {
        match tenant.as_str() {
            "id-of-acme" => Ok(Some(format!("{}/api/v1/auth/tenants/acme/oauth/token", self.0))),
            "elsewhere" => Ok(Some("http://scaikey.example/token".to_owned())),
            "broken" => Err("the store is unavailable".into()),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn token_urls_look_up_tenant_endpoints() {
    let provider = provider().await;
    let acme = provider.tenant("id-of-acme", "acme");
    acme.register_client(Client::new("drive:1 %", SECRET));
    let client = builder(&provider).token_urls(Slugs(provider.url())).build().unwrap();
    let service_token = async |id: &str| client.service_token(TenantId::new(id).unwrap()).await;
    service_token("id-of-acme").await.unwrap();
    assert_eq!(acme.granted("client_credentials"), 1);
    assert!(matches!(service_token("nobody").await, Err(ExchangeError::NotConfigured(_))));
    assert!(matches!(service_token("elsewhere").await, Err(ExchangeError::NotConfigured(_))));
    assert!(matches!(service_token("broken").await, Err(ExchangeError::Unavailable { .. })));
    let without = client.service_token(ServiceTokenRequest::default()).await;
    assert!(matches!(without, Err(ExchangeError::NotConfigured(_))));
    assert_eq!((provider.token_requests(), provider.stray_requests()), (0, 0));
}

#[tokio::test]
async fn metadata_is_refreshed_hourly() {
    let (provider, client, clock) = timed().await;
    provider.set_token_lifetime(Some(Duration::from_secs(20)));
    let service_token = async || client.service_token(ServiceTokenRequest::default()).await;
    for _ in 0..3 {
        service_token().await.unwrap();
    }
    assert_eq!(provider.discovery_requests(), 1);
    provider.fail(ProviderEndpoint::Discovery, Fault::Status(404));
    clock.advance(Duration::from_secs(3600));
    service_token().await.unwrap();
    assert!(provider.discovery_requests() > 1, "the client requested it again");
    provider.heal(ProviderEndpoint::Discovery);
    let before = provider.discovery_requests();
    clock.advance(Duration::from_secs(3600));
    service_token().await.unwrap();
    assert_eq!(provider.discovery_requests(), before + 1);
}

#[tokio::test]
async fn discovery_url_and_issuer_may_differ() {
    let provider = provider().await;
    let acme = provider.tenant("acme", "acme");
    acme.register_client(Client::new("drive:1 %", SECRET));
    let start = || {
        TokenExchangeClient::builder("https://not.asked.example")
            .client_auth(drive())
            .allow_loopback_http(true)
            .discovery_url(acme.discovery_url())
    };
    let client = start().expected_issuer(acme.issuer()).build().unwrap();
    client.service_token(ServiceTokenRequest::default()).await.unwrap();
    let wrong = start().build().unwrap().service_token(ServiceTokenRequest::default()).await;
    assert!(matches!(wrong, Err(ExchangeError::Unavailable { .. })), "{wrong:?}");
}

#[tokio::test]
async fn environment_configures_a_client() {
    let provider = provider().await;
    let key = scaikey_auth::testing::SigningKey::generate(Algorithm::ES256);
    provider.register_client(Client::with_key("svc", &key));
    let secret_file = File::new("secret", &format!("{SECRET}\n"));
    let key_file = File::new("key.pem", &key.private_pem());
    let text = str::to_owned;
    let variables = [
        vec![("CLIENT_ID", text("drive:1 %")), ("CLIENT_SECRET", text(SECRET))],
        vec![("CLIENT_ID", text("drive:1 %")), ("CLIENT_SECRET_FILE", secret_file.path_text())],
        vec![
            ("CLIENT_ID", text("drive:1 %")),
            ("CLIENT_SECRET", text(SECRET)),
            ("CLIENT_AUTH", text("post")),
            ("TOKEN_URL", provider.token_endpoint()),
        ],
        vec![
            ("CLIENT_ID", text("svc")),
            ("CLIENT_AUTH", text("private_key_jwt")),
            ("CLIENT_KEY_FILE", key_file.path_text()),
            ("CLIENT_KEY_ID", text(key.kid())),
            ("CLIENT_KEY_ALGORITHM", text("ES256")),
        ],
    ];
    for variables in variables {
        let common = [("ISSUER", provider.url()), ("ALLOW_LOOPBACK_HTTP", text("true"))];
        let all = common.into_iter().chain(variables.clone());
        let config =
            AuthConfig::from_vars("P", all.map(|(name, value)| (format!("P_{name}"), value)));
        let client = TokenExchangeClient::from_config(&config).build().unwrap();
        let got = client.service_token(ServiceTokenRequest::default()).await;
        got.unwrap_or_else(|error| panic!("{variables:?}: {error}"));
    }
}

#[tokio::test]
async fn assertion_audience_is_configurable() {
    let provider = provider().await;
    let key = scaikey_auth::testing::SigningKey::generate(Algorithm::ES256);
    provider.register_client(Client::with_key("svc", &key));
    let by_key =
        || ClientAuth::private_key_jwt("svc", Algorithm::ES256, Some(key.kid()), key.private_pem());
    for (auth, expected) in [
        (by_key(), provider.issuer()),
        (
            by_key().assertion_audience("https://old.example/token"),
            "https://old.example/token".into(),
        ),
    ] {
        let client =
            builder(&provider).client_auth(auth).clock(ManualClock::new()).build().unwrap();
        let _ = client.service_token(ServiceTokenRequest::default()).await;
        let form = provider.received(ProviderEndpoint::Token).pop().unwrap().form();
        let (_, assertion) = form.iter().find(|(name, _)| name == "client_assertion").unwrap();
        let claims: serde_json::Value =
            scaikey_auth::validator::insecure_decode_claims(assertion).unwrap();
        assert_eq!(claims["aud"], expected);
    }
}
