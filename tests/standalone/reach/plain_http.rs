//! Plain `http` to named hosts: only these, and only if they are named.

use scaikey_auth::testing::{Fault, ManualClock, Provider, ProviderEndpoint};
use scaikey_auth::{Auth, AuthConfig, IssuerConfig};

use super::{auth, client, faults, has_token, is_accepted, last_error, provider};
use crate::support::Log;

/// A host of a mesh.
const MESH: &str = "keycloak.auth.svc";

/// Returns an HTTP client for which `keycloak.auth.svc` is the provider's address.
fn mesh(provider: &Provider) -> reqwest::Client {
    let client = reqwest::Client::builder().resolve(MESH, provider.address());
    client.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// Returns `url` with the name of the mesh instead of the provider's address.
fn in_mesh(url: &str) -> String {
    url.replace("127.0.0.1", MESH)
}

/// Returns the provider under its name in the mesh.
fn named(provider: &Provider) -> IssuerConfig {
    IssuerConfig::new(in_mesh(&provider.issuer())).expected_issuer(provider.issuer())
}

#[tokio::test]
async fn named_address_serves_keys_and_tokens() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let issuer = || IssuerConfig::new(provider.issuer());
    // Neither loopback addresses nor other ports are allowed here.
    let host = provider.address().to_string();
    let token = provider.token().sign();
    for auth in [
        auth(issuer().insecure_http_host(&host), &clock).build().unwrap(),
        auth(issuer(), &clock).insecure_http_host("127.0.0.1").build().unwrap(),
    ] {
        assert!(is_accepted(&auth, &token).await, "{}", last_error(&auth));
    }
    let client = client(&provider.issuer(), &clock).insecure_http_host(&host).build().unwrap();
    assert!(has_token(&client).await);
    client.revoke(&"token".into()).await.unwrap();
}

#[tokio::test]
async fn metadata_may_name_only_named_hosts() {
    let clock = ManualClock::new();
    let provider = provider(&clock).await;
    let token = provider.token().sign();
    let service = || {
        let issuer = named(&provider).insecure_http_host(MESH);
        auth(issuer, &clock).http_client(mesh(&provider)).build().unwrap()
    };
    let discovery = ProviderEndpoint::Discovery;
    let jwks_uri = in_mesh(&provider.jwks_uri());
    provider.fail(discovery, Fault::replace_member("jwks_uri", jwks_uri));
    assert!(is_accepted(&service(), &token).await);
    for (url, why) in [
        ("http://other.auth.svc/keys", "insecure_http_hosts"),
        ("http://keycloak.auth.svc.evil.example/keys", "insecure_http_hosts"),
        ("http://127.0.0.1:1/keys", "not https"),
        ("ftp://keycloak.auth.svc/keys", "not https"),
    ] {
        provider.fail(discovery, Fault::replace_member("jwks_uri", url));
        let auth = service();
        assert!(!is_accepted(&auth, &token).await, "{url}");
        assert!(last_error(&auth).contains(why), "{url}: {}", last_error(&auth));
    }
    assert_eq!(provider.jwks_requests(), 1);
}

#[tokio::test]
async fn redirect_to_other_plain_host_is_refused() {
    let clock = ManualClock::new();
    let (provider, other) = (provider(&clock).await, provider(&clock).await);
    let issuer = IssuerConfig::new(provider.issuer()).insecure_http_host("127.0.0.1");
    provider.fail(ProviderEndpoint::Jwks, Fault::Redirect(other.jwks_uri()));
    let auth = auth(issuer, &clock).build().unwrap();
    assert!(!is_accepted(&auth, &provider.token().sign()).await);
    assert!(last_error(&auth).contains("redirect to another origin"), "{}", last_error(&auth));
    assert_eq!(other.jwks_requests(), 0);
}

#[test]
fn unnamed_http_url_names_the_setting() {
    let clock = ManualClock::new();
    let issuer = || IssuerConfig::new("https://keycloak.example").insecure_http_host("other.svc");
    let plain = "http://keycloak.auth.svc/x";
    for (field, issuer) in [
        ("issuer", IssuerConfig::new(plain)),
        ("jwks_uri", issuer().jwks_uri(plain)),
        ("discovery_url", issuer().discovery_url(plain)),
    ] {
        let faults = faults(auth(issuer, &clock).build());
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(&format!("issuers[0].{field} must be https")), "{faults:?}");
        assert!(faults[0].ends_with("name its host in insecure_http_hosts"), "{faults:?}");
    }
    let base = || client("https://keycloak.example", &clock);
    for (field, builder) in [
        ("issuer", client(plain, &clock)),
        ("token_url", base().token_url(plain)),
        ("revocation_url", base().revocation_url(plain)),
        ("authorization_url", base().authorization_url(plain)),
        ("end_session_url", base().end_session_url(plain)),
        ("discovery_url", base().discovery_url(plain)),
    ] {
        let faults = faults(builder.clone().build());
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(&format!("{field} must be https")), "{faults:?}");
        builder.insecure_http_host("Keycloak.auth.svc").build().unwrap();
    }
    let wrong = auth(issuer().insecure_http_host("http://keycloak.auth.svc"), &clock);
    let faults = faults(wrong.build());
    assert!(faults[0].starts_with("issuers[0].insecure_http_hosts entry 2 is not a host"));
}

#[test]
fn variable_and_file_name_hosts() {
    let config = |hosts: &str| {
        let pairs =
            [("ISSUER", "http://keycloak.auth.svc:8080/realms/wave"), ("AUDIENCE", "scaiwave")];
        let pairs = pairs.iter().chain(&[("CLIENT_ID", "wave"), ("CLIENT_SECRET", "x")]);
        let pairs = pairs.copied().chain([("INSECURE_HTTP_HOSTS", hosts)]);
        AuthConfig::from_vars("P", pairs.map(|(name, value)| (format!("P_{name}"), value.into())))
    };
    let error = faults(Auth::from_config(config("")).build());
    assert!(error[0].starts_with("P_ISSUER must be https"), "{error:?}");
    assert!(error[0].contains("`P_INSECURE_HTTP_HOSTS`"), "{error:?}");
    let error = faults(Auth::from_config(config("*.svc")).build());
    assert!(error[0].starts_with("P_INSECURE_HTTP_HOSTS entry 1 is not a host"), "{error:?}");
    let log = Log::start();
    let named = config("zitadel.svc, keycloak.auth.svc:8080");
    Auth::from_config(named.clone()).build().unwrap();
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("zitadel.svc, keycloak.auth.svc:8080"), "{warnings:?}");
    scaikey_auth::TokenExchangeClient::from_config(&named).build().unwrap();
    let file = serde_json::json!({ "audience": ["scaiwave"], "issuers": [
        { "issuer": "http://keycloak.auth.svc", "insecure_http_hosts": ["keycloak.auth.svc"] }] });
    Auth::from_config(serde_json::from_value(file).unwrap()).build().unwrap();
}
