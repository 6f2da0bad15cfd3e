//! Inline keys, configured tenants, and configurations that could never accept a token.

use async_trait::async_trait;
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::BoxError;
use scaikey_auth::issuer::TenantIssuers;
use scaikey_auth::tenant::AnyTenant;
use scaikey_auth::testing::{Provider, SigningKey};
use scaikey_auth::{Auth, AuthConfig, ConfigError, IssuerConfig, TenantId};
use serde_json::json;

use super::fixture::{outcome, status, token};
use super::tenant_fixture::template;

fn build(issuer: IssuerConfig) -> Result<Auth, ConfigError> {
    Auth::builder().issuer(issuer).audience("scaiwave").build()
}

fn refusal(issuer: IssuerConfig) -> String {
    build(issuer).expect_err("builds").to_string()
}

fn of(url: &str) -> IssuerConfig {
    IssuerConfig::new(url)
}

const TEMPLATE: &str = "https://scaikey.example/tenants/{tenant_id}";

#[test]
fn unusable_inline_keys_are_refused() {
    let private = SigningKey::generate(Algorithm::ES256).private_pem();
    let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    let short =
        json!({ "keys": [{ "kty": "RSA", "kid": "a", "n": "3Q", "e": "AQAB" }] }).to_string();
    let other = json!({ "keys": [SigningKey::generate(Algorithm::ES384).jwk()] }).to_string();
    for (keys, why) in [
        ("garbage", "contains no keys"),
        ("", "contains no keys"),
        ("/etc/ssl/pub.pem", "not as a path or URL"),
        ("https://a.example/jwks.json", "not as a path or URL"),
        ("my-hmac-secret-of-32-characters!", "a shared secret cannot be used"),
        (r#"{"keys":[]}"#, "is empty"),
        (secret.as_str(), "private or symmetric"),
        (short.as_str(), "2048"),
        (other.as_str(), "algorithm"),
        (private.as_str(), "private key"),
        ("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n", "PEM block"),
    ] {
        let error = refusal(of("https://a.example").keys(keys));
        assert!(error.contains("issuers[0].keys") && error.contains(why), "{keys}: {error}");
    }
    // One error reports all faults, and issuers added later are checked, too.
    let metadata = "http://a.example/metadata";
    let error = refusal(of("https://a.example").discovery_url(metadata).keys("garbage"));
    assert!(error.contains("must be https") && error.contains("keys"), "{error}");
    let auth = build(of("https://a.example")).unwrap();
    auth.issuers().add(of("https://b.example").keys("garbage")).unwrap_err();
}

#[tokio::test]
async fn inline_pem_verifies_any_kid() {
    use Algorithm::{ES256, ES512, Ed25519, MLDSA44, MLDSA65, MLDSA87, RS256};
    for algorithm in [RS256, ES256, ES512, Ed25519, MLDSA44, MLDSA65, MLDSA87] {
        let provider = Provider::builder().algorithms([algorithm]).start().await;
        let pem = provider.key().public_pem();
        let issuer = of(&provider.issuer()).allow_loopback_http(true).algorithms([algorithm]);
        let auth = build(issuer.keys(&pem)).unwrap();
        assert_eq!(outcome(&auth, &token(&provider)).await, "accepted", "{algorithm}");
        assert_eq!(status(&auth, &provider.token().kid(None).sign()).await, 200, "{algorithm}");
        let other = SigningKey::with_kid(algorithm, provider.kid());
        let forged = provider.token().signed_by(&other).sign();
        assert_eq!(status(&auth, &forged).await, 401, "{algorithm}");
        assert_eq!(provider.jwks_requests(), 0);
    }
}

#[tokio::test]
async fn inline_jwk_needs_no_list() {
    let provider = Provider::builder().algorithms([Algorithm::ES256]).start().await;
    let issuer = of(&provider.issuer()).allow_loopback_http(true);
    let auth = build(issuer.keys(&provider.key().jwk().to_string())).unwrap();
    assert_eq!(status(&auth, &token(&provider)).await, 200);
}

#[test]
fn tenants_of_template_must_be_configured() {
    let error = refusal(of(TEMPLATE));
    assert!(error.contains("issuers[0].tenants is empty"), "{error}");
    let acme = TenantId::new("acme").unwrap();
    build(of(TEMPLATE).tenants([acme.clone()])).unwrap();
    let builder = || Auth::builder().issuer(TEMPLATE).audience("scaiwave");
    builder().tenants(AnyTenant).build().unwrap();
    let auth =
        Auth::builder().audience("scaiwave").tenant_issuers(TEMPLATE, Elsewhere("x")).build();
    let auth = auth.unwrap();
    // Issuers added later follow the same rule.
    auth.issuers().add(TEMPLATE).unwrap_err();
    auth.issuers().add(of(TEMPLATE).tenants([acme])).unwrap();
}

#[test]
fn tenants_can_be_set_by_environment() {
    let auth = |pairs: &[(&str, &str)]| {
        let always = [("ISSUER", TEMPLATE), ("AUDIENCE", "scaiwave")];
        let pairs = always.iter().chain(pairs);
        let pairs = pairs.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        Auth::from_config(AuthConfig::from_vars("P", pairs)).build()
    };
    let error = auth(&[]).unwrap_err().to_string();
    assert!(error.contains("P_TENANTS is empty"), "{error}");
    auth(&[("ANY_TENANT", "false")]).unwrap_err();
    auth(&[("ANY_TENANT", "true")]).unwrap();
    auth(&[("TENANTS", "acme, globex")]).unwrap();
    let file =
        json!({ "audience": ["a"], "any_tenant": true, "issuers": [{ "issuer": TEMPLATE }] });
    Auth::from_config(serde_json::from_value(file).unwrap()).build().unwrap();
}

#[test]
fn placeholder_before_the_path_is_refused() {
    for url in [
        "https://{tenant_id}/",
        "https://{tenant_id}/tenants/x",
        "https://{tenant_id}.scaikey.example/",
        "https://a-{tenant_id}.scaikey.example/",
        "https://scaikey.{tenant_id}/",
        "https://scaikey.example:{tenant_id}/",
        "https://scaikey.example:1{tenant_id}/",
        "https://{tenant_id}@scaikey.example/",
        "https://x:{tenant_id}@scaikey.example/",
        "https:{tenant_id}/",
        "https:/\\{tenant_id}/",
        "{tenant_id}://scaikey.example/",
    ] {
        let any = |issuer: IssuerConfig| {
            Auth::builder().issuer(issuer).audience("a").tenants(AnyTenant).build()
        };
        any(of(url)).expect_err(url);
        any(of(TEMPLATE).jwks_uri(url)).expect_err(url);
        any(of(TEMPLATE).discovery_url(url)).expect_err(url);
        any(of("https://a.example").jwks_uri("https://a.example/k").expected_issuer(url))
            .expect_err(url);
        let error = any(of(TEMPLATE).jwks_uri("https://{tenant_id}/")).unwrap_err().to_string();
        assert!(error.contains("before its path"), "{error}");
    }
    let fine = of(TEMPLATE).jwks_uri("https://keys.example/?tenant={tenant_id}");
    Auth::builder().issuer(fine).audience("a").tenants(AnyTenant).build().unwrap();
}

/// Finds the keys under a host that the tenant's name decides.
#[derive(Debug)]
struct Elsewhere(&'static str);

#[async_trait]
impl TenantIssuers for Elsewhere {
    async fn resolve(
        &self,
        _: &TenantId,
        template: IssuerConfig,
    ) -> Result<Option<IssuerConfig>, BoxError> {
        Ok(Some(template.jwks_uri(self.0)))
    }
}

#[tokio::test]
async fn resolver_url_with_tenant_host_is_refused() {
    let provider = Provider::start().await;
    // 127.0.0.{tenant_id}: the tenant `1` would lead back to the provider.
    let url = provider.jwks_uri().replace("127.0.0.1", "127.0.0.{tenant_id}");
    let resolver = Elsewhere(Box::leak(url.into_boxed_str()));
    let auth = Auth::builder().audience("scaiwave").tenant_issuers(template(&provider), resolver);
    let auth = auth.build().unwrap();
    let iss = format!("{}/tenants/1", provider.url());
    let token = provider.token().issuer(&iss).tenant("1").sign();
    assert_eq!(status(&auth, &token).await, 503);
    assert_eq!(provider.jwks_requests(), 0);
}

#[test]
fn misspelt_placeholders_are_refused() {
    for url in ["https://a.example/{tenant}", "https://a.example/{tenant_id}/{tenantid}"] {
        for issuer in [of(url), of(TEMPLATE).jwks_uri(url), of(TEMPLATE).discovery_url(url)] {
            let error = refusal(issuer);
            assert!(error.contains("braces other than those of {tenant_id}"), "{error}");
        }
    }
    let tenants = |id: &str| [TenantId::new(id).unwrap()];
    let error = refusal(of(TEMPLATE).tenants(tenants("b/c")));
    assert!(error.contains("issuers[0].tenants entry 1 "), "{error}");
    build(of("https://a.example").tenants(tenants("b/c"))).unwrap();
}

#[test]
fn settings_that_refuse_every_token_fail() {
    let acme = || TenantId::new("acme").unwrap();
    let mut no_tenant_claim = of(TEMPLATE).tenants([acme()]);
    no_tenant_claim.claims.tenant_id.clear();
    for (issuer, why) in [
        (of("https://a.example").jwks_uri("https://a.example/{tenant_id}"), "but `iss` does not"),
        (
            of("https://a.example").discovery_url("https://a.example/{tenant_id}"),
            "but `iss` does not",
        ),
        (of(TEMPLATE).expected_issuer("https://a.example"), "but `iss` does not"),
        (of("https://a.example").expected_issuer("https://a.example "), "white space"),
        (of("https://a.example").audience(" scaiwave"), "white space"),
        (of("https://a.example").max_token_lifetime(std::time::Duration::ZERO), "must not be 0"),
        (of("https://a.example").jwks_uri("https://a.example/k#1"), "fragment"),
        (no_tenant_claim, "need the claim"),
    ] {
        let error = refusal(issuer.clone());
        assert!(error.contains(why), "{issuer:?}: {error}");
    }
    let keys = SigningKey::generate(Algorithm::ES256).public_pem();
    let twice = of("https://a.example").jwks_uri("https://a.example/k").keys(&keys);
    assert!(refusal(twice).contains("set only one of them"));
    let mut config = AuthConfig::default();
    config.issuers.push("https://a.example".into());
    config.audience.push("scaiwave\n".to_owned());
    config.max_token_bytes = 0;
    let error = Auth::from_config(config).build().unwrap_err().to_string();
    assert!(error.contains("white space") && error.contains("max_token_bytes"), "{error}");
}
