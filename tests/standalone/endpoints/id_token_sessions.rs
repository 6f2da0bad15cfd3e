//! Sessions whose ID tokens name the users, because only the provider can read the access tokens.

use std::collections::BTreeMap;

use axum::Router;
use axum::http::Method;
use axum::routing::get;
use scaikey_auth::config::IdentitySource;
use scaikey_auth::endpoints::SignIn;
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, Fault, Provider, ProviderEndpoint};
use scaikey_auth::{Auth, AuthConfig, Identity, TokenExchangeClient};

use super::env::{BYE, MINUTE, REDIRECT, Setup, TestEnv, Visitor};
use crate::support::{Server, local, request};

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

async fn who(identity: Identity) -> String {
    format!("{} of {}", identity.subject(), identity.issuer())
}

/// A signed-in browser, as another process with other layers sees it.
struct Cookies {
    env: TestEnv,
    keys: SealingKeys,
    header: String,
}

impl Cookies {
    /// Signs in at a provider with opaque access tokens.
    async fn new() -> Self {
        let keys = SealingKeys::random().unwrap();
        let mut setup = Setup { sessions: Some(keys.clone()), ..Setup::default() };
        setup.session_settings =
            Box::new(|sessions| sessions.identity_from(IdentitySource::IdToken));
        let env = setup.build().await;
        let wave = Client::new("wave", "secret").scopes("openid docs:read").redirect_uri(REDIRECT);
        env.provider.register_client(wave.opaque_access_tokens("ya29."));
        let browser = env.visitor();
        assert_eq!(env.sign_in(&browser).await.status, 303);
        let pairs = browser.session_cookies();
        let pairs = pairs.iter().map(|(name, value)| format!("{name}={value}"));
        let header = pairs.collect::<Vec<_>>().join("; ");
        Self { env, keys, header }
    }

    fn sessions(&self, name: &str) -> Sessions {
        Sessions::builder(&self.env.auth, self.env.client.clone(), self.keys.clone())
            .identity_from(IdentitySource::IdToken)
            .cookie_name(name)
            .build()
            .unwrap()
    }

    async fn status(&self, app: Router, path: &str) -> u16 {
        Server::axum(app).await.get(path, &[("cookie", &self.header)]).await.status
    }
}

#[tokio::test]
async fn session_counts_only_for_its_service() {
    let it = Cookies::new().await;
    let other = Provider::builder().clock(it.env.clock.clone()).start().await;
    let admin = Auth::builder().issuer(local(other.issuer())).audience("admin");
    let admin = admin.clock(it.env.clock.clone()).build().unwrap();
    let client = TokenExchangeClient::builder(other.issuer()).allow_loopback_http(true);
    let client = client.client_auth(ClientAuth::basic("admin", "secret")).build().unwrap();
    let sessions = Sessions::builder(&admin, client.clone(), SealingKeys::random().unwrap())
        .identity_from(IdentitySource::IdToken)
        .cookie_name("admin")
        .build()
        .unwrap();
    let endpoints = admin.endpoints().client(client).sign_in(SignIn::new(REDIRECT));
    let app = Router::new()
        .route("/admin", get(who))
        .layer(admin.layer())
        .route("/me", get(who).layer(it.env.auth.layer()))
        .layer(endpoints.sessions(sessions).build().unwrap())
        .layer(it.sessions("session").layer());
    assert_eq!(it.status(app.clone(), "/me").await, 200);
    assert_eq!(it.status(app.clone(), "/admin").await, 401);
    // The sign-out of one service does not send the tokens of another one to its provider.
    let headers = [("cookie", it.header.as_str()), ("sec-fetch-site", "same-origin")];
    let out = Server::axum(app).await.send(request("POST", "/v1/auth/logout", &headers)).await;
    assert_eq!(out.status, 400, "{}", out.body);
    assert_eq!(other.requests(ProviderEndpoint::Revocation), 0);
}

#[tokio::test]
async fn session_passes_layer_of_other_sessions() {
    for has_inner in [false, true] {
        let it = Cookies::new().await;
        let (outer, inner) = (it.sessions("session"), it.sessions("drive"));
        let endpoints = it.env.auth.endpoints().client(it.env.client.clone());
        let endpoints = endpoints.sign_in(SignIn::new(REDIRECT)).sessions(outer.clone());
        let app = Router::new().route("/me", get(who)).layer(it.env.auth.layer());
        let app = app.layer(endpoints.build().unwrap());
        let app = if has_inner { app.layer(inner.layer()) } else { app };
        let app = app.layer(outer.layer());
        assert_eq!(it.status(app.clone(), "/me").await, 200);
        let headers = [("cookie", it.header.as_str()), ("sec-fetch-site", "same-origin")];
        let out = Server::axum(app).await.send(request("POST", "/v1/auth/logout", &headers)).await;
        assert_eq!(out.status, 204, "{}", out.body);
    }
}
