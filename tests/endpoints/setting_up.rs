//! Configurations that could never work are refused when they are built.

use scaikey_auth::{
    Auth, AuthConfig, ClientAuth, ConfigError, Endpoint, SessionKeys, Sessions, SignIn,
    TokenExchangeBuilder, TokenExchangeClient,
};

use super::stores::Nowhere;

const TEMPLATE: &str = "https://id.example/tenants/{tenant_id}";
const AUTHORIZE: &str = "https://id.example/authorize";
const TOKEN: &str = "https://id.example/token";

fn client(issuer: &str) -> TokenExchangeBuilder {
    TokenExchangeClient::builder(issuer).client_auth(ClientAuth::basic("wave", "secret"))
}

fn sign_in() -> SignIn {
    SignIn::new("https://wave.example/v1/auth/login")
}

fn auth() -> Auth {
    Auth::builder().issuer("https://id.example").audience("wave").build().unwrap()
}

fn signing_in(client: TokenExchangeBuilder, sign_in: SignIn) -> Result<(), ConfigError> {
    auth().endpoints().client(client.build()?).sign_in(sign_in).build().map(drop)
}

#[track_caller]
fn refused<T>(outcome: Result<T, ConfigError>, field: &str, problem: &str) {
    let error = outcome.err().expect("is refused").to_string();
    assert!(error.contains(field) && error.contains(problem), "{error}");
}

#[test]
fn template_issuer_without_token_url_is_refused() {
    refused(client(TEMPLATE).build(), "issuer", "has no metadata");
    let place = format!("{TEMPLATE}/.well-known/openid-configuration");
    let client = client("https://id.example");
    refused(client.discovery_url(place).build(), "discovery_url", "{tenant_id}");
}

#[test]
fn template_issuer_for_sign_in_is_refused() {
    let told = || client(TEMPLATE).token_url(TOKEN).revocation_url("https://id.example/revoke");
    told().build().unwrap();
    refused(signing_in(told(), sign_in()), "issuer", "one issuer");
    let located = || told().authorization_url(AUTHORIZE);
    refused(signing_in(located(), sign_in()), "issuer", "one issuer");
    // Without ID tokens the name of the issuer does not matter.
    signing_in(located(), sign_in().scopes("docs:read")).unwrap();
    refused(signing_in(told(), sign_in().scopes("docs:read")), "authorization_url", "is missing");
    signing_in(client("https://id.example"), sign_in()).unwrap();
}

#[test]
fn placeholders_nobody_fills_are_refused() {
    let with = || client("https://id.example").token_url(TOKEN);
    let place = "https://id.example/{tenant_id}/x";
    refused(with().authorization_url(place).build(), "authorization_url", "{tenant_id}");
    refused(with().revocation_url(place).build(), "revocation_url", "{tenant_id}");
}

#[test]
fn tenants_token_endpoints_for_sign_in_are_refused() {
    let by_url = || client("https://id.example").token_url("https://id.example/{tenant_id}/token");
    let by_store = || client("https://id.example").token_urls(Nowhere);
    for client in [by_url(), by_store()] {
        refused(signing_in(client, sign_in()), "token_url", "depends on the tenant");
    }
    // Whoever refreshes here names no tenant.
    let client = by_url().build().unwrap();
    let endpoints = || auth().endpoints().client(client.clone());
    refused(endpoints().build(), "token_url", "depends on the tenant");
    endpoints().without(Endpoint::Refresh).without(Endpoint::Token).build().unwrap();
    let sessions = Sessions::builder(&auth(), client.clone(), SessionKeys::random().unwrap());
    let endpoints = endpoints().without(Endpoint::Refresh).without(Endpoint::Token);
    let endpoints = endpoints.sessions(sessions.build().unwrap());
    refused(endpoints.build(), "token_url", "depends on the tenant");
}

#[test]
fn timeout_of_zero_is_refused() {
    let client = client("https://id.example").timeout(std::time::Duration::ZERO);
    refused(client.build(), "timeout", "0");
}

#[test]
fn template_issuer_is_named_by_its_variable() {
    let variables = |more: &[(&str, &str)]| {
        let all = [("ISSUER", TEMPLATE), ("CLIENT_ID", "wave"), ("CLIENT_SECRET", "s")];
        let sign_in = [("REDIRECT_URI", "https://wave.example/v1/auth/login")];
        let all = all.iter().chain(&sign_in).chain(more);
        let all = all.map(|(name, value)| (format!("P_{name}"), (*value).to_owned()));
        let config = AuthConfig::from_vars("P", all);
        auth().endpoints().configured(&config).build()
    };
    refused(variables(&[]), "P_ISSUER", "has no metadata");
    refused(variables(&[("TOKEN_URL", TOKEN)]), "P_AUTHORIZATION_URL", "is missing");
}
