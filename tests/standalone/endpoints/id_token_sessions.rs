//! Sessions whose ID tokens name the users, because only the provider can read the access tokens.

use std::collections::BTreeMap;

use axum::http::Method;
use scaikey_auth::config::IdentitySource;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Fault, ProviderEndpoint};
use scaikey_auth::{Auth, AuthConfig};

use super::env::{BYE, MINUTE, REDIRECT, Setup, TestEnv, Visitor};

/// Sessions of a provider whose access tokens are opaque, and that has no introspection.
async fn build(source: IdentitySource) -> TestEnv {
    let mut setup = Setup::with_sessions();
    setup.session_settings =
        Box::new(move |sessions| sessions.identity_from(source).end_at_provider(BYE));
    let env = setup.build().await;
    let wave = Client::new("wave", "secret").scopes("openid docs:read").redirect_uri(REDIRECT);
    env.provider.register_client(wave.opaque_access_tokens("ya29."));
    env
}

async fn signed_in() -> (TestEnv, Visitor) {
    let env = build(IdentitySource::IdToken).await;
    let browser = env.visitor();
    let arrived = env.sign_in(&browser).await;
    assert_eq!((arrived.status, arrived.header("location")), (303, "/me"), "{arrived:?}");
    (env, browser)
}

#[tokio::test]
async fn id_token_names_the_user() {
    let (env, browser) = signed_in().await;
    assert_eq!(browser.get("/me").await.body, "bob-id ");
    assert_eq!(browser.get("/v1/auth/whoami").await.json()["subject"], "bob-id");
    assert_eq!(env.visitor().get("/me").await.status, 401);

    let by_access_token = build(IdentitySource::AccessToken).await;
    let refused = by_access_token.sign_in(&by_access_token.visitor()).await;
    assert_eq!(refused.status, 500, "{refused:?}");
}

#[tokio::test]
async fn id_token_is_no_bearer_token() {
    let (env, browser) = signed_in().await;
    assert_eq!(browser.get("/me").await.status, 200);
    let same = [("sec-fetch-site", "same-origin")];
    let signed_out = browser.send(Method::POST, "/v1/auth/logout", &same, "").await;
    let provider = signed_out.json()["end_session_url"].as_str().unwrap().to_owned();
    let query: BTreeMap<_, _> =
        url::Url::parse(&provider).unwrap().query_pairs().into_owned().collect();
    // The session used this very token.
    let bearer = format!("Bearer {}", query["id_token_hint"]);
    for path in ["/me", "/v1/auth/whoami"] {
        let headers = [("authorization", bearer.as_str())];
        assert_eq!(env.visitor().send(Method::GET, path, &headers, "").await.status, 401, "{path}");
    }
    assert!(env.auth.authenticate(&query["id_token_hint"]).await.is_err());
}

#[tokio::test]
async fn renewal_brings_a_new_id_token() {
    let (env, browser) = signed_in().await;
    for hour in 1..4 {
        env.clock.advance(MINUTE * 55);
        assert_eq!(browser.get("/me").await.body, "bob-id ");
        assert_eq!(env.provider.granted("refresh_token"), hour);
    }
    env.clock.advance(MINUTE * 61);
    assert_eq!(browser.get("/me").await.status, 200, "renewed before the request continues");
}

#[tokio::test]
async fn session_ends_with_its_last_id_token() {
    let (env, browser) = signed_in().await;
    env.provider.fail(ProviderEndpoint::Token, Fault::remove_member("id_token"));
    env.clock.advance(MINUTE * 55);
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(env.provider.granted("refresh_token"), 1);
    env.clock.advance(MINUTE * 4);
    assert_eq!(browser.get("/me").await.status, 200);
    env.clock.advance(MINUTE * 3);
    assert_eq!(browser.get("/me").await.status, 401);
    assert!(browser.session_cookies().is_empty());
}

#[tokio::test]
async fn renewed_id_token_must_name_same_user() {
    for (other, why) in [
        (("sub", "alice-id"), "another user"),
        (("aud", "drive"), "another client"),
        (("iss", "https://evil.example"), "another issuer"),
        (("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), "another access token"),
        (("nonce", "n-2"), "another sign-in"),
        (("tenant_id", "globex"), "another tenant"),
    ] {
        let (env, browser) = signed_in().await;
        env.clock.advance(MINUTE * 55);
        let token = env.provider.token().subject("bob-id").audience("wave");
        let token = token.claim(other.0, other.1).sign();
        env.provider.fail(ProviderEndpoint::Token, Fault::replace_member("id_token", token));
        assert_eq!(browser.get("/me").await.status, 200, "{why}: the old token is still valid");
        assert!(browser.session_cookies().is_empty(), "{why}");
        assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1, "{why}");
    }
}

#[tokio::test]
async fn rotated_keys_end_the_session() {
    let (env, browser) = signed_in().await;
    env.provider.rotate();
    env.provider.remove_old_keys();
    env.clock.advance(MINUTE * 10);
    // The key set is fetched again, and the ID token is no longer one of this provider's.
    env.auth.issuers().purge(&env.provider.issuer());
    assert_ne!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn unusable_settings_are_faults() {
    let (env, _) = signed_in().await;
    let other = Auth::builder().issuer("https://other.example").audience("a").build().unwrap();
    let keys = || SealingKeys::random().unwrap();
    let sessions = Sessions::builder(&other, env.client.clone(), keys());
    let error = sessions.identity_from(IdentitySource::IdToken).build().unwrap_err();
    assert_eq!(error.faults()[0].field, "session_identity");

    let vars = |more: &[(&str, &str)]| {
        let base = [("ISSUER", "https://id.example"), ("AUDIENCE", "wave")];
        let all =
            base.iter().chain(more).map(|(name, value)| (format!("P_{name}"), (*value).into()));
        AuthConfig::from_vars("P", all.collect::<Vec<_>>())
    };
    let fields = |config: AuthConfig| {
        let auth = Auth::from_config(config.clone()).build().unwrap();
        let endpoints = auth.endpoints().configured(&config).build();
        let error = endpoints.err().map(|error| error.faults().to_vec()).unwrap_or_default();
        error.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
    };
    let client = [("CLIENT_ID", "wave"), ("CLIENT_SECRET", "s"), ("REDIRECT_URI", REDIRECT)];
    let by_id_token = [&client[..], &[("SESSION_IDENTITY", "id_token")]].concat();
    assert_eq!(fields(vars(&by_id_token)), ["P_SESSION_IDENTITY"]);
    let key = "QUFB".repeat(12);
    let with_keys = [&by_id_token[..], &[("SESSION_KEYS", &key)]].concat();
    assert!(fields(vars(&with_keys)).is_empty());
    let without_scope = [&with_keys[..], &[("SCOPES", "profile")]].concat();
    assert_eq!(fields(vars(&without_scope)), ["P_SCOPES"]);
}
