//! Discovery: the URLs of the metadata, and the metadata that are accepted.

use std::time::Duration;

use scaikey_auth::endpoints::Endpoints;
use scaikey_auth::exchange::{SealingKeys, ServiceTokenRequest, TokenExchangeBuilder};
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Fault, ManualClock, ProviderEndpoint, TestIssuer};
use scaikey_auth::{Auth, IssuerConfig, Secret, TokenExchangeClient};

use super::fixture::{provider, service, status, token, trust};

fn paths(issuer: &TestIssuer) -> Vec<String> {
    issuer.received(ProviderEndpoint::Discovery).into_iter().map(|request| request.target).collect()
}

/// An issuer with the slug in its URL and the id in `iss`.
fn by_slug(provider: &scaikey_auth::testing::Provider, acme: &TestIssuer) -> IssuerConfig {
    IssuerConfig::new(format!("{}/api/v1/auth/tenants/acme", provider.url()))
        .expected_issuer(acme.issuer())
        .allow_loopback_http(true)
}

async fn last_error(config: IssuerConfig, clock: &ManualClock, token: &str) -> String {
    let auth = service([config], clock);
    assert_eq!(status(&auth, token).await, 503);
    auth.issuers().health()[0].last_error.clone().unwrap()
}

#[tokio::test]
async fn rfc_8414_url_is_tried_first() {
    let (provider, clock) = provider().await;
    let auth = service([trust(&provider)], &clock);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    assert_eq!(paths(&provider), ["/.well-known/oauth-authorization-server"]);
}

#[tokio::test]
async fn openid_metadata_url_is_found_and_remembered() {
    let (provider, clock) = provider().await;
    let acme = provider.tenant("tnt-7", "acme");
    let auth = service([by_slug(&provider, &acme)], &clock);
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    assert_eq!(paths(&acme), ["/api/v1/auth/tenants/acme/.well-known/openid-configuration"]);
    assert_eq!(provider.stray_requests(), 2, "both URLs with an inserted path were tried before");

    // One hour later, the URL that answered is tried first.
    clock.advance(Duration::from_secs(3601));
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    acme.wait_for_jwks_requests(2).await;
    assert_eq!((acme.discovery_requests(), provider.stray_requests()), (2, 2));
}

#[tokio::test]
async fn metadata_is_cached_for_one_hour() {
    let (provider, clock) = provider().await;
    let auth = service([trust(&provider)], &clock);
    auth.ready().await.unwrap();
    for nth in 2..5 {
        clock.advance(Duration::from_secs(331));
        assert_eq!(status(&auth, &token(&provider)).await, 200);
        provider.wait_for_jwks_requests(nth).await;
        crate::support::until(|| {
            auth.issuers().health()[0].state == scaikey_auth::issuer::KeyState::Fresh
        })
        .await;
        assert_eq!(provider.discovery_requests(), 1);
    }
}

#[tokio::test]
async fn configured_discovery_url_is_the_only_one() {
    let (provider, clock) = provider().await;
    let acme = provider.tenant("tnt-7", "acme");
    let config = IssuerConfig::new(acme.issuer())
        .discovery_url(acme.discovery_url())
        .allow_loopback_http(true);
    let auth = service([config.clone()], &clock);
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    assert_eq!((acme.discovery_requests(), provider.stray_requests()), (1, 0));

    let lost = config.discovery_url(format!("{}/nowhere", provider.url()));
    assert!(last_error(lost, &clock, &token(&acme)).await.contains("answered 404"));
    assert_eq!((acme.discovery_requests(), provider.stray_requests()), (1, 1));
}

#[tokio::test]
async fn configured_jwks_uri_needs_no_discovery() {
    let (provider, clock) = provider().await;
    provider.fail(ProviderEndpoint::Discovery, Fault::Status(500));
    let acme = provider.tenant("tnt-7", "acme");
    let config =
        IssuerConfig::new(acme.issuer()).jwks_uri(acme.jwks_uri()).allow_loopback_http(true);
    let auth = service([config], &clock);
    assert_eq!(status(&auth, &token(&acme)).await, 200);
    assert_eq!(
        (acme.discovery_requests(), acme.jwks_requests(), provider.stray_requests()),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn metadata_of_another_issuer_is_refused() {
    let (provider, clock) = provider().await;
    let acme = provider.tenant("tnt-7", "acme");
    // The document is valid, but for another issuer.
    let mut config = by_slug(&provider, &acme);
    config.expected_issuer = None;
    let token = acme.token().issuer(&config.issuer).sign();
    assert!(last_error(config, &clock, &token).await.contains("is not for the issuer"));

    for issuer in ["https://evil.example".to_owned(), format!("{}/", provider.issuer())] {
        provider.fail(ProviderEndpoint::Discovery, Fault::replace_member("issuer", issuer.clone()));
        let error = last_error(trust(&provider), &clock, &provider.token().sign()).await;
        assert!(error.contains("is not for the issuer"), "{issuer}: {error}");
    }
    let slash = Fault::replace_member("issuer", format!("{}/", provider.issuer()));
    provider.fail(ProviderEndpoint::Discovery, slash);
    let error = last_error(trust(&provider), &clock, &provider.token().sign()).await;
    let both = format!(
        "is not for the issuer `{0}`, but for `{0}/`: set expected_issuer",
        provider.issuer()
    );
    assert!(error.contains(&both), "{error}");
    provider.fail(ProviderEndpoint::Discovery, Fault::remove_member("issuer"));
    let error = last_error(trust(&provider), &clock, &provider.token().sign()).await;
    assert!(error.contains("is not for the issuer"), "{error}");
    assert_eq!((provider.jwks_requests(), acme.jwks_requests()), (0, 0));
}

#[tokio::test]
async fn wrong_expected_issuer_is_the_named_cause() {
    let (provider, clock) = provider().await;
    let config = trust(&provider).expected_issuer("https://typo.example");
    let token = provider.token().issuer("https://typo.example").sign();
    let error = last_error(config, &clock, &token).await;
    let cause = "is not for `https://typo.example`, the value of expected_issuer: correct";
    assert!(error.contains(cause), "{error}");
}

#[tokio::test]
async fn missing_or_forbidden_jwks_uri_is_refused() {
    let (provider, clock) = provider().await;
    let table = [
        (Fault::remove_member("jwks_uri"), "no usable jwks_uri"),
        (Fault::replace_member("jwks_uri", 7), "no usable jwks_uri"),
        (Fault::replace_member("jwks_uri", ""), "no usable jwks_uri"),
        (Fault::replace_member("jwks_uri", "/keys"), "no usable jwks_uri"),
        (Fault::replace_member("jwks_uri", "http://keys.example/"), "not https"),
        (Fault::replace_member("jwks_uri", "ftp://127.0.0.1/keys"), "not https"),
        (Fault::replace_member("jwks_uri", "file:///etc/passwd"), "not https"),
        (Fault::replace_member("jwks_uri", "https://10.0.0.1/keys"), "private network"),
        (Fault::replace_member("jwks_uri", "https://169.254.169.254/latest"), "private network"),
        (Fault::replace_member("jwks_uri", "https://[::1]/keys"), "private network"),
        (Fault::replace_member("jwks_uri", "https://[::ffff:10.0.0.1]/keys"), "private network"),
        (Fault::replace_member("jwks_uri", "https://localhost/keys"), "private network"),
        (Fault::html(), "not a JSON object"),
        (Fault::Status(404), "answered 404"),
    ];
    for (fault, why) in table {
        provider.fail(ProviderEndpoint::Discovery, fault.clone());
        let error = last_error(trust(&provider), &clock, &token(&provider)).await;
        assert!(error.contains(why), "{fault:?}: {error}");
    }
    assert_eq!((provider.jwks_requests(), provider.stray_requests()), (0, 0));
}

#[tokio::test]
async fn changed_jwks_uri_is_followed() {
    let (provider, clock) = provider().await;
    let acme = provider.tenant("tnt-7", "acme");
    let auth = service([trust(&provider)], &clock);
    auth.ready().await.unwrap();
    // The old URL fails, and the metadata names a new one.
    provider.fail(ProviderEndpoint::Jwks, Fault::Status(404));
    provider.fail(ProviderEndpoint::Discovery, Fault::replace_member("jwks_uri", acme.jwks_uri()));
    clock.advance(Duration::from_secs(331));
    drop(auth.issuers().health());
    provider.wait_for_jwks_requests(2).await;
    let token = provider.token().signed_by(&acme.key()).sign();
    crate::support::until(|| auth.issuers().health()[0].last_error.is_some()).await;
    clock.advance(Duration::from_secs(61));
    assert_eq!(status(&auth, &token).await, 200);
    assert_eq!((provider.jwks_requests(), acme.jwks_requests()), (2, 1));
}

fn client(provider: &TestIssuer) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(provider.issuer())
        .client_auth(ClientAuth::basic("scaiwave", "s3cr3t"))
        .allow_loopback_http(true)
}

/// The first calls of a service: it verifies a token, requests one, and revokes one.
async fn start(auth: &Auth, client: &TokenExchangeClient, provider: &TestIssuer) {
    let (token, ended) = (token(provider), Secret::new("a-refresh-token"));
    let (status, got, ended) = tokio::join!(
        status(auth, &token),
        client.service_token(ServiceTokenRequest::default()),
        client.revoke(&ended),
    );
    assert_eq!(status, 200);
    drop((got, ended));
    assert!(provider.token_requests() > 0 && provider.requests(ProviderEndpoint::Revocation) > 0);
}

#[tokio::test]
async fn client_and_issuer_share_metadata() {
    let (provider, clock) = provider().await;
    let auth = service([trust(&provider)], &clock);
    let client = client(&provider).clock(clock.clone()).issuers(auth.issuers()).build().unwrap();
    start(&auth, &client, &provider).await;
    assert_eq!(provider.discovery_requests(), 1);
    clock.advance(Duration::from_secs(3601));
    start(&auth, &client, &provider).await;
    assert_eq!(provider.discovery_requests(), 2, "both use the metadata for one hour");
}

#[tokio::test]
async fn endpoints_and_sessions_share_the_metadata() {
    let (provider, clock) = provider().await;
    for with_sessions in [false, true] {
        let auth = service([trust(&provider)], &clock);
        let client = client(&provider).clock(clock.clone()).build().unwrap();
        let before = provider.discovery_requests();
        match with_sessions {
            true => {
                let keys = SealingKeys::random().unwrap();
                drop(Sessions::builder(&auth, client.clone(), keys).build().unwrap());
            }
            false => {
                let endpoints: Endpoints = auth.endpoints().client(client.clone()).build().unwrap();
                drop(endpoints);
            }
        }
        start(&auth, &client, &provider).await;
        assert_eq!(provider.discovery_requests(), before + 1, "sessions: {with_sessions}");
    }
}

#[tokio::test]
async fn client_of_another_issuer_fetches_own_metadata() {
    let (provider, clock) = provider().await;
    let acme = provider.tenant("tnt-7", "acme");
    let auth = service([trust(&provider)], &clock);
    let client = client(&acme)
        .discovery_url(acme.discovery_url())
        .clock(clock.clone())
        .issuers(auth.issuers())
        .build()
        .unwrap();
    drop(client.revoke(&Secret::new("a-refresh-token")).await);
    assert_eq!((provider.discovery_requests(), acme.discovery_requests()), (0, 1));
    assert_eq!(acme.requests(ProviderEndpoint::Revocation), 1);
}

#[tokio::test]
async fn client_with_other_urls_fetches_own_metadata() {
    let (provider, clock) = provider().await;
    let auth = service([trust(&provider)], &clock);
    let client = client(&provider).discovery_url(provider.discovery_url()).clock(clock.clone());
    let client = client.issuers(auth.issuers()).build().unwrap();
    drop(client.revoke(&Secret::new("a-refresh-token")).await);
    assert_eq!(provider.requests(ProviderEndpoint::Revocation), 1);
    assert_eq!(paths(&provider), ["/.well-known/openid-configuration"]);
}

#[tokio::test]
async fn metadata_of_another_issuer_is_not_shared() {
    let (provider, clock) = provider().await;
    let acme = provider.tenant("tnt-7", "acme");
    let auth = service([trust(&provider).discovery_url(provider.discovery_url())], &clock);
    let client = client(&acme).discovery_url(provider.discovery_url()).clock(clock.clone());
    let client = client.issuers(auth.issuers()).build().unwrap();
    drop(client.revoke(&Secret::new("a-refresh-token")).await);
    assert_eq!(
        provider.requests(ProviderEndpoint::Revocation),
        0,
        "its metadata is not the client's"
    );
}

#[tokio::test]
async fn shared_metadata_is_fetched_hourly() {
    let (provider, clock) = provider().await;
    let auth = service([trust(&provider)], &clock);
    let client = client(&provider).clock(clock.clone()).issuers(auth.issuers()).build().unwrap();
    for nth in 1..=3 {
        drop(client.revoke(&Secret::new("a-refresh-token")).await);
        assert_eq!(
            (provider.discovery_requests(), provider.requests(ProviderEndpoint::Revocation)),
            (nth, nth)
        );
        clock.advance(Duration::from_secs(3601));
    }
}

/// The server listens on `127.0.0.1`. No name server and no `hosts` file knows the name.
#[tokio::test]
async fn names_under_localhost_reach_loopback() {
    let (provider, clock) = provider().await;
    let here = |url: String| url.replace("127.0.0.1", "keycloak.localhost");
    let jwks_uri = here(provider.jwks_uri());
    provider.fail(ProviderEndpoint::Discovery, Fault::replace_member("jwks_uri", jwks_uri));
    let config = IssuerConfig::new(here(provider.url())).expected_issuer(provider.issuer());
    let error = Auth::builder().issuer(config.clone()).audience("scaiwave").build().unwrap_err();
    assert!(error.to_string().contains("allow_loopback_http"), "{error}");
    let auth = service([config.allow_loopback_http(true)], &clock);
    assert_eq!(status(&auth, &token(&provider)).await, 200);
    let requests = (provider.discovery_requests(), provider.jwks_requests());
    assert_eq!(requests, (1, 1));

    let client = client(&provider).token_url(here(format!("{}/oauth/token", provider.url())));
    drop(client.build().unwrap().service_token(ServiceTokenRequest::default()).await);
    let host = provider.received(ProviderEndpoint::Token)[0].headers["host"].clone();
    assert!(host.to_str().unwrap().starts_with("keycloak.localhost:"), "{host:?}");
}
