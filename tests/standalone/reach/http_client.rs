//! Clients of the service's own: from memory, and `reqwest` through a proxy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use scaikey_auth::IssuerConfig;
use scaikey_auth::error::BoxError;
use scaikey_auth::exchange::{ExchangeError, ServiceTokenRequest};
use scaikey_auth::issuer::HttpClient;
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint};
use serde_json::json;

use super::{auth, client, faults, has_token, is_accepted, last_error, provider};
use crate::support::tls::{ForwardProxy, TlsFront};
use crate::support::{File, within_timeout};

const ISSUER: &str = "https://idp.example";

type Answer = fn(Response<Vec<u8>>) -> Result<Response<Vec<u8>>, BoxError>;

/// A provider in memory: bodies by URL.
#[derive(Debug)]
struct Memory {
    bodies: HashMap<String, String>,
    received: Mutex<Vec<Request<Vec<u8>>>>,
    change: Answer,
}

impl Memory {
    fn new(jwks: &serde_json::Value, change: Answer) -> Arc<Self> {
        let metadata = json!({ "issuer": ISSUER, "jwks_uri": "https://keys.example/set",
            "token_endpoint": "https://idp.example/token" });
        let token = json!({ "access_token": "secret", "token_type": "Bearer", "expires_in": 60 });
        let bodies = [
            ("https://idp.example/.well-known/oauth-authorization-server", &metadata),
            ("https://keys.example/set", jwks),
            ("https://idp.example/token", &token),
        ];
        let bodies = bodies.map(|(url, body)| (url.to_owned(), body.to_string()));
        Arc::new(Self { bodies: bodies.into(), received: Mutex::default(), change })
    }

    fn urls(&self) -> Vec<String> {
        self.received.lock().unwrap().iter().map(|request| request.uri().to_string()).collect()
    }
}

#[async_trait]
impl HttpClient for Memory {
    async fn send(
        &self,
        request: Request<Vec<u8>>,
        _: usize,
    ) -> Result<Response<Vec<u8>>, BoxError> {
        let body = self.bodies.get(&request.uri().to_string()).cloned();
        self.received.lock().unwrap().push(request);
        let mut response = Response::new(body.clone().unwrap_or_default().into_bytes());
        if body.is_none() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        (self.change)(response)
    }
}

#[tokio::test]
async fn memory_client_replaces_the_network() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let memory = Memory::new(&provider.jwks(), Ok);
    let auth = auth(IssuerConfig::new(ISSUER), &clock).http_client(memory.clone()).build().unwrap();
    assert!(is_accepted(&auth, &provider.token().issuer(ISSUER).sign()).await);
    assert!(!is_accepted(&auth, &provider.token().issuer("https://other.example").sign()).await);
    let client = client(ISSUER, &clock).http_client(memory.clone()).build().unwrap();
    assert!(has_token(&client).await);
    let metadata = "https://idp.example/.well-known/oauth-authorization-server";
    let expected = [metadata, "https://keys.example/set", metadata, "https://idp.example/token"];
    assert_eq!(memory.urls(), expected);
    let received = memory.received.lock().unwrap();
    let text = |nth: usize, name: &str| received[nth].headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (text(1, "accept-encoding"), received[1].method().as_str()),
        ("identity".into(), "GET")
    );
    assert!(text(3, "authorization").starts_with("Basic "));
    assert_eq!(text(3, "content-type"), "application/x-www-form-urlencoded");
    assert_eq!(received[3].body(), b"grant_type=client_credentials");
    assert_eq!((provider.discovery_requests(), provider.jwks_requests()), (0, 0));
}

#[tokio::test]
async fn limits_apply_to_own_client() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let table: &[(Answer, &str)] = &[
        (
            |mut it| {
                it.body_mut().extend(vec![b' '; 1_100_000]);
                Ok(it)
            },
            "more than 262144 bytes",
        ),
        (
            |mut it| {
                *it.body_mut() = vec![0x1f, 0x8b, 8];
                Ok(it)
            },
            "content coding gzip",
        ),
        (
            |mut it| {
                it.headers_mut().insert("content-encoding", "br".parse()?);
                Ok(it)
            },
            "content coding br",
        ),
        (
            |mut it| {
                *it.status_mut() = StatusCode::FOUND;
                Ok(it)
            },
            "answered 302",
        ),
        (|_| Err("the middleware refused".into()), "the middleware refused"),
    ];
    for (change, why) in table {
        let memory = Memory::new(&provider.jwks(), *change);
        let auth = auth(IssuerConfig::new(ISSUER), &clock).http_client(memory.clone());
        let auth = auth.build().unwrap();
        assert!(!is_accepted(&auth, &provider.token().issuer(ISSUER).sign()).await, "{why}");
        assert!(last_error(&auth).contains(why), "{why}: {}", last_error(&auth));
        let client = client(ISSUER, &clock).http_client(memory).build().unwrap();
        assert!(!has_token(&client).await, "{why}");
    }
}

/// A client that never answers.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl HttpClient for Hanging {
    async fn send(&self, _: Request<Vec<u8>>, _: usize) -> Result<Response<Vec<u8>>, BoxError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn hanging_client_meets_the_time_limit() {
    let clock = ManualClock::new();
    let limit = std::time::Duration::from_millis(50);
    let mut issuer = IssuerConfig::new(ISSUER);
    issuer.jwks.timeout = limit;
    let auth = auth(issuer, &clock).http_client(Hanging).build().unwrap();
    assert!(within_timeout(auth.ready()).await.is_err());
    assert!(last_error(&auth).contains("did not answer within 50ms"), "{}", last_error(&auth));
    let client = client(ISSUER, &clock).http_client(Hanging).timeout(limit).build().unwrap();
    let error = within_timeout(client.service_token(ServiceTokenRequest::default())).await;
    assert!(matches!(error, Err(ExchangeError::Unavailable { .. })));
}

#[tokio::test]
async fn reqwest_client_works_through_proxy() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let front = TlsFront::start("idp.example", provider.address()).await;
    let proxy = ForwardProxy::start(front.address).await;
    let ca = reqwest::Certificate::from_pem(front.certificate.as_bytes()).unwrap();
    let own = reqwest::Client::builder()
        .proxy(reqwest::Proxy::https(proxy.url()).unwrap())
        .tls_certs_only([ca])
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let metadata = provider.discovery_url().replace(&provider.url(), ISSUER);
    let jwks_uri = provider.jwks_uri().replace(&provider.url(), ISSUER);
    let keys = Fault::rewrite(move |mut metadata| {
        metadata["jwks_uri"] = json!(jwks_uri);
        let endpoint = metadata["token_endpoint"].as_str().unwrap().to_owned();
        let path = endpoint.splitn(4, '/').nth(3).unwrap();
        metadata["token_endpoint"] = json!(format!("{ISSUER}/{path}"));
        metadata.to_string()
    });
    provider.fail(ProviderEndpoint::Discovery, keys);
    let issuer = IssuerConfig::new(ISSUER).expected_issuer(provider.issuer());
    let auth = auth(issuer.discovery_url(&metadata), &clock).http_client(own.clone());
    let auth = auth.build().unwrap();
    assert!(is_accepted(&auth, &provider.token().sign()).await, "{}", last_error(&auth));
    assert_eq!(proxy.targets(), ["idp.example:443"], "one connection for both requests");
    let client = client(ISSUER, &clock).expected_issuer(provider.issuer()).discovery_url(&metadata);
    let client = client.http_client(own).build().unwrap();
    assert!(has_token(&client).await);
}

#[tokio::test]
async fn redirected_reqwest_client_is_refused() {
    let clock = ManualClock::new();
    let (provider, other) = (provider(&clock).await, provider(&clock).await);
    provider.fail(ProviderEndpoint::Jwks, Fault::Redirect(other.jwks_uri()));
    let own = reqwest::Client::builder().no_proxy().build().unwrap();
    let issuer = IssuerConfig::new(provider.issuer()).allow_loopback_http(true);
    let auth = auth(issuer, &clock).http_client(own).build().unwrap();
    assert!(!is_accepted(&auth, &other.token().issuer(&provider.issuer()).sign()).await);
    assert!(last_error(&auth).contains("redirect to another origin"), "{}", last_error(&auth));
}

#[test]
fn own_client_excludes_ca_file() {
    let clock = ManualClock::new();
    let ca = File::new("ca.pem", &crate::support::tls::acceptor("localhost").1);
    let issuer = || IssuerConfig::new(ISSUER).ca_file(ca.path());
    let error = faults(auth(issuer(), &clock).http_client(Hanging).build());
    assert!(
        error[0].starts_with("issuers[0].ca_file is set together with http_client"),
        "{error:?}"
    );
    let builder = client(ISSUER, &clock).ca_file(ca.path()).http_client(Hanging);
    assert!(faults(builder.build())[0].starts_with("ca_file is set together with http_client"));
    let auth = auth(IssuerConfig::new(ISSUER), &clock).http_client(Hanging).build().unwrap();
    auth.issuers().add(IssuerConfig::new("https://b.example").ca_file(ca.path())).unwrap_err();
}
