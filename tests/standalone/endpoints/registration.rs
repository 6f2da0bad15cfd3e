//! Registration of users: at sign-in, and without workspaces.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use async_trait::async_trait;
use axum::http::Method;
use scaikey_auth::Identity;
use scaikey_auth::endpoints::Endpoint;
use scaikey_auth::registrar::{
    MemoryRegistrar, ParticipantId, Profile, Registrar, RegistrarError, Registration,
};
use scaikey_auth::tenant::TenantStatus;
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint, TokenBuilder};
use serde_json::json;

use super::env::{REDIRECT, Setup, TestEnv};
use crate::support::tenants::{Store, StoreMode, tenant};
use crate::support::{Log, local};

/// A table of users without workspaces, which fails on demand.
#[derive(Debug, Clone, Default)]
struct Users {
    store: MemoryRegistrar,
    state: Arc<AtomicU8>,
    calls: Arc<AtomicU64>,
}

const UNAVAILABLE: u8 = 1;
const REFUSES: u8 = 2;

#[async_trait]
impl Registrar for Users {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match self.state.load(Ordering::SeqCst) {
            UNAVAILABLE => Err(RegistrarError::store("the disk is full")),
            REFUSES => {
                let reason = "it is not on the list";
                Err(RegistrarError::InvalidIdentity { part: "subject", reason })
            }
            _ => {
                let mut known = self.store.register(identity).await?;
                known.workspace_id = None;
                Ok(known)
            }
        }
    }
}

impl Users {
    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Returns the stored profile of the user of `token`.
    async fn profile(&self, env: &TestEnv, token: TokenBuilder) -> Profile {
        let path = "/v1/auth/register";
        let bearer = format!("Bearer {}", token.sign());
        let bearer = [("authorization", bearer.as_str())];
        let answer = env.visitor().send(Method::POST, path, &bearer, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.json()["participant_id"].as_str().unwrap().to_owned();
        self.store.profile(&ParticipantId::new(&id).unwrap()).unwrap()
    }
}

/// A service that registers at sign-in.
async fn env(setup: Setup, users: &Users) -> TestEnv {
    let users = users.clone();
    setup.endpoints(|endpoints| endpoints.registrar(users).register_at_sign_in()).build().await
}

/// A token of bob without profile claims.
fn bare(env: &TestEnv) -> TokenBuilder {
    bare_of(&env.provider)
}

fn bare_of(provider: &Provider) -> TokenBuilder {
    let token = provider.token().subject("bob-id");
    ["preferred_username", "email", "name"].iter().fold(token, |token, name| token.without(name))
}

#[tokio::test]
async fn registration_without_workspace_omits_the_field() {
    let env = env(Setup::default(), &Users::default()).await;
    let bearer = format!("Bearer {}", env.provider.token().sign());
    let bearer = [("authorization", bearer.as_str())];
    let answer = env.visitor().send(Method::POST, "/v1/auth/register", &bearer, "").await;
    assert_eq!(answer.status, 201);
    let body = answer.json();
    let names: BTreeSet<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["created_at", "participant_id"]));
}

#[tokio::test]
async fn sign_in_registers_before_the_session() {
    let users = Users::default();
    let env = env(Setup::with_sessions(), &users).await;
    let browser = env.visitor();
    assert_eq!(env.sign_in(&browser).await.header("location"), "/me");
    assert_eq!(users.calls(), 1);
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(users.calls(), 1, "requests register no user");
    // The participant is that of the access token.
    let known = users.profile(&env, bare(&env)).await;
    assert_eq!(known.display_name.as_deref(), Some("bob"));
}

#[tokio::test]
async fn default_sign_in_registers_nobody() {
    let users = Users::default();
    let own = users.clone();
    let setup = Setup::with_sessions().endpoints(|endpoints| endpoints.registrar(own));
    let env = setup.build().await;
    env.sign_in(&env.visitor()).await;
    assert_eq!(users.calls(), 0);
}

#[tokio::test]
async fn unavailable_store_fails_the_sign_in() {
    let users = Users::default();
    let setup = Setup::with_sessions().sign_in(|it| it.failure_page("/sorry"));
    let env = env(setup, &users).await;
    let browser = env.visitor();
    users.set(UNAVAILABLE);
    let answer = env.sign_in(&browser).await;
    assert_eq!(answer.header("location"), "/sorry?error=temporarily_unavailable");
    assert!(browser.session_cookies().is_empty(), "{:?}", browser.cookie_names());
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0, "it may be repeated");
    users.set(0);
    assert_eq!(env.sign_in(&browser).await.header("location"), "/me");
    assert_eq!(browser.get("/me").await.status, 200);
}

#[tokio::test]
async fn repeated_callback_registers_after_outage() {
    let users = Users::default();
    let env = env(Setup::with_sessions(), &users).await;
    let browser = env.visitor();
    let redirect = browser.get("/v1/auth/login?return_to=/me").await;
    let callback = env.callback_path(redirect.header("location"));
    users.set(UNAVAILABLE);
    let answer = browser.get(&callback).await;
    answer.assert_oauth_error(503, "temporarily_unavailable");
    assert!(answer.body.contains("The store of participants is unavailable"), "{answer:?}");
    users.set(0);
    assert_eq!(browser.get(&callback).await.header("location"), "/me");
    assert_eq!(browser.get("/me").await.status, 200);
    assert_eq!(env.provider.requests(ProviderEndpoint::Token), 1, "the code is redeemed once");
    assert!(browser.cookie_names().iter().all(|name| name.starts_with("__Host-session")));
}

#[tokio::test]
async fn refused_identity_gets_no_session() {
    let users = Users::default();
    let setup = Setup::with_sessions().sign_in(|it| it.failure_page("/sorry"));
    let env = env(setup, &users).await;
    let browser = env.visitor();
    users.set(REFUSES);
    let log = Log::start();
    let answer = env.sign_in(&browser).await;
    assert_eq!(answer.header("location"), "/sorry?error=access_denied");
    assert!(browser.cookie_names().is_empty());
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1, "the tokens are revoked");
    assert!(log.text().contains("it is not on the list"), "{}", log.text());
    assert!(!answer.body.contains("list"), "{answer:?}");
}

#[tokio::test]
async fn clients_are_registered_before_they_get_tokens() {
    let users = Users::default();
    let env = env(Setup::default(), &users).await;
    let visitor = env.visitor();
    let verifier = scaikey_auth::exchange::PkceVerifier::generate().unwrap();
    let post = async || {
        let code = env.provider.authorize("bob", "wave", REDIRECT, &verifier.challenge());
        let form = format!("code={code}&code_verifier={}", verifier.secret().expose());
        visitor.post_form("/v1/auth/login", &form).await
    };
    assert!(post().await.json()["access_token"].is_string());
    assert_eq!(users.calls(), 1);
    users.set(UNAVAILABLE);
    post().await.assert_oauth_error(503, "temporarily_unavailable");
    users.set(REFUSES);
    post().await.assert_oauth_error(400, "access_denied");
    users.set(0);
    // An access token for another service names no user of this one.
    let elsewhere = env.provider.token().audience("elsewhere").subject("bob-id").sign();
    let fault = Fault::replace_member("access_token", elsewhere);
    env.provider.fail(ProviderEndpoint::Token, fault);
    let setup = Setup::default().sign_in(|it| it.scopes("docs:read"));
    let own = users.clone();
    let setup = setup.endpoints(|endpoints| endpoints.registrar(own).register_at_sign_in());
    let env = env.start_process(setup).await;
    let calls = users.calls();
    env.sign_in(&env.visitor()).await.assert_oauth_error(500, "server_error");
    assert_eq!(users.calls(), calls);
}

/// A service that registers at sign-in, and has these tenants.
async fn env_with_tenants(setup: Setup, tenants: Store, users: &Users) -> TestEnv {
    let setup = setup.sign_in(|it| it.failure_page("/sorry"));
    env(setup.auth(|auth| auth.tenants(tenants)), users).await
}

#[tokio::test]
async fn sign_in_registers_none_of_refused_tenants() {
    let suspended = tenant("tenant-1", TenantStatus::Suspended);
    for tenants in [Store::with(&["another"]), Store::over([suspended].into_iter().collect())] {
        let users = Users::default();
        let env = env_with_tenants(Setup::with_sessions(), tenants, &users).await;
        let bearer = format!("Bearer {}", bare(&env).sign());
        let bearer = [("authorization", bearer.as_str())];
        let register = env.visitor().send(Method::POST, "/v1/auth/register", &bearer, "").await;
        let browser = env.visitor();
        let answer = env.sign_in(&browser).await;
        assert_eq!((register.status, users.calls()), (403, 0), "{register:?}");
        assert_eq!(answer.header("location"), "/sorry?error=access_denied");
        assert!(browser.cookie_names().is_empty(), "there is no session");
        assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 1);
    }
}

#[tokio::test]
async fn clients_of_refused_tenants_get_no_tokens() {
    let users = Users::default();
    let env = env_with_tenants(Setup::default(), Store::with(&["another"]), &users).await;
    let verifier = scaikey_auth::exchange::PkceVerifier::generate().unwrap();
    let code = env.provider.authorize("bob", "wave", REDIRECT, &verifier.challenge());
    let form = format!("code={code}&code_verifier={}", verifier.secret().expose());
    let answer = env.visitor().post_form("/v1/auth/login", &form).await;
    answer.assert_oauth_error(400, "access_denied");
    assert_eq!((users.calls(), env.provider.requests(ProviderEndpoint::Revocation)), (0, 1));
}

#[tokio::test]
async fn unavailable_tenants_fail_the_sign_in() {
    let (users, tenants) = (Users::default(), Store::with(&["tenant-1"]));
    let env = env_with_tenants(Setup::with_sessions(), tenants.clone(), &users).await;
    let browser = env.visitor();
    tenants.set_mode(StoreMode::Failing);
    let answer = env.sign_in(&browser).await;
    assert_eq!(answer.header("location"), "/sorry?error=temporarily_unavailable");
    assert_eq!(env.provider.requests(ProviderEndpoint::Revocation), 0, "it may be repeated");
    assert_eq!(users.calls(), 0);
    tenants.set_mode(StoreMode::Normal);
    assert_eq!(env.sign_in(&browser).await.header("location"), "/me");
    assert_eq!(users.calls(), 1);
}

/// A store that does not answer.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl Registrar for Hanging {
    async fn register(&self, _: &Identity) -> Result<Registration, RegistrarError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn hanging_store_fails_the_sign_in() {
    let setup = Setup::with_sessions().sign_in(|it| it.failure_page("/sorry"));
    let setup = setup.endpoints(|endpoints| endpoints.registrar(Hanging).register_at_sign_in());
    let env = setup.build().await;
    let answer = env.sign_in(&env.visitor()).await;
    assert_eq!(answer.header("location"), "/sorry?error=temporarily_unavailable");
}

#[tokio::test]
async fn sessions_start_for_users_of_unknown_tenants() {
    // Each request of the session is refused, until its tenant is known.
    let setup = Setup::with_sessions();
    let env = setup.auth(|auth| auth.tenants(Store::with(&["another"]))).build().await;
    let browser = env.visitor();
    assert_eq!(env.sign_in(&browser).await.header("location"), "/me");
    assert_eq!(browser.get("/me").await.status, 403);
}

/// Signs bob in with these profile claims in the access token and in the ID token, and returns his
/// profile.
async fn profile_after(
    access: &[(&str, serde_json::Value)],
    id: &[(&str, serde_json::Value)],
) -> Profile {
    let users = Users::default();
    // Without a nonce and `at_hash`, which the replaced tokens do not have.
    let env = env(Setup::default(), &users).await;
    let with = |token: TokenBuilder, claims: &[(&str, serde_json::Value)]| {
        claims.iter().fold(token, |token, (name, value)| token.claim(name, value.clone()))
    };
    let access = with(bare(&env), access).sign();
    let id = with(bare(&env).audience("wave").without("tenant_id").without("scope"), id).sign();
    let answer = json!({
        "access_token": access, "id_token": id, "token_type": "Bearer", "expires_in": 600,
    });
    let answer = Fault::Body("application/json", answer.to_string());
    env.provider.fail(ProviderEndpoint::Token, answer);
    let form = format!("code=c&code_verifier={}", "v".repeat(43));
    let answer = env.visitor().post_form("/v1/auth/login", &form).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    users.profile(&env, bare(&env)).await
}

#[tokio::test]
async fn profile_comes_from_access_then_id_token() {
    let profile = profile_after(
        &[],
        &[
            ("name", json!("Bob \"B\" Smith")),
            ("email", json!("bob@acme.example")),
            ("email_verified", json!(true)),
        ],
    )
    .await;
    assert_eq!(profile.display_name.as_deref(), Some("Bob \"B\" Smith"));
    assert_eq!(profile.email.as_deref(), Some("bob@acme.example"));
    assert!(profile.email_verified);
    // The access token's own claims come first, and an address is only as verified as its token says.
    let profile = profile_after(
        &[("email", json!("b@other.example"))],
        &[("email", json!("bob@acme.example")), ("email_verified", json!(true))],
    )
    .await;
    assert_eq!(profile.email.as_deref(), Some("b@other.example"));
    assert!(!profile.email_verified && profile.display_name.is_none());
    let profile =
        profile_after(&[("email_verified", json!(true))], &[("email", json!("bob@acme.example"))])
            .await;
    assert!(!profile.email_verified, "the access token says nothing about this address");
}

#[tokio::test]
async fn id_token_of_another_tenant_is_ignored() {
    let claims = [("email", json!("bob@acme.example")), ("tenant_id", json!("globex"))];
    assert_eq!(profile_after(&[], &claims).await, Profile::default());
    let claims = [("email", json!("bob@acme.example")), ("tenant_id", json!("tenant-1"))];
    assert!(profile_after(&[], &claims).await.email.is_some());
}

#[tokio::test]
async fn id_token_of_another_user_is_ignored() {
    let (users, setup) = (Users::default(), Setup::default());
    let second = Provider::builder().clock(setup.clock.clone()).start().await;
    let trusted = local(second.issuer());
    let env = setup.auth(|auth| auth.issuer(trusted)).build().await;
    let env = env.with_client(|client| client.insecure_any_subject()).await;
    let own = users.clone();
    let setup = Setup::default();
    let setup = setup.endpoints(|endpoints| endpoints.registrar(own).register_at_sign_in());
    let env = env.start_process(setup).await;
    let id_token = || {
        let token = bare(&env).audience("wave").without("tenant_id").without("scope");
        token.claim("email", json!("eve@acme.example"))
    };
    let redeem = async |code: &str, access: TokenBuilder, id: TokenBuilder| {
        let answer = json!({
            "access_token": access.sign(), "id_token": id.sign(), "token_type": "Bearer", "expires_in": 600,
        });
        let answer = Fault::Body("application/json", answer.to_string());
        env.provider.fail(ProviderEndpoint::Token, answer);
        let form = format!("code={code}&code_verifier={}", "v".repeat(43));
        let answer = env.visitor().post_form("/v1/auth/login", &form).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    // Another subject; another issuer, whose `bob-id` may be another user.
    redeem("0", bare(&env), id_token().subject("eve-id")).await;
    assert_eq!(users.profile(&env, bare(&env)).await, Profile::default());
    redeem("1", bare_of(&second), id_token()).await;
    assert_eq!(users.profile(&env, bare_of(&second)).await, Profile::default());
    redeem("2", bare(&env), id_token()).await;
    assert!(users.profile(&env, bare(&env)).await.email.is_some());
}

#[tokio::test]
async fn registration_needs_registrar_and_sign_in() {
    let env = TestEnv::new().await;
    let error = env.auth.endpoints().register_at_sign_in().build().unwrap_err().to_string();
    assert!(error.contains("needs a registrar") && error.contains("sign-in"), "{error}");
    let variables = [
        ("P_ISSUER", "https://id.example"),
        ("P_CLIENT_ID", "wave"),
        ("P_CLIENT_SECRET", "secret"),
        ("P_REDIRECT_URI", REDIRECT),
        ("P_REGISTER_AT_SIGN_IN", "true"),
    ];
    let config = scaikey_auth::AuthConfig::from_vars(
        "P",
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let error = env.auth.endpoints().configured(&config).build().unwrap_err().to_string();
    assert!(error.contains("P_REGISTER_AT_SIGN_IN") && error.contains("P_DATABASE_URL"), "{error}");
    let endpoints = env.auth.endpoints().configured(&config).registrar(MemoryRegistrar::new());
    let endpoints = endpoints.without(Endpoint::Register).build().unwrap();
    assert!(!endpoints.enabled().contains(&Endpoint::Register));
    let file: scaikey_auth::AuthConfig =
        serde_json::from_value(json!({ "endpoints": { "register_at_sign_in": true } })).unwrap();
    assert!(file.endpoints.register_at_sign_in);
}

#[tokio::test]
async fn whoami_has_the_email_of_the_token() {
    let env = TestEnv::new().await;
    let known = |claims: serde_json::Value| {
        let claims = claims.as_object().unwrap().clone();
        let token =
            claims.iter().fold(bare(&env), |token, (name, value)| token.claim(name, value.clone()));
        let bearer = format!("Bearer {}", token.sign());
        let visitor = env.visitor();
        async move {
            let bearer = [("authorization", bearer.as_str())];
            let body = visitor.send(Method::GET, "/v1/auth/whoami", &bearer, "").await.json();
            json!([body.get("email"), body.get("email_verified")])
        }
    };
    let address = "bob@acme.example";
    for (claims, expected) in [
        (json!({ "email": address, "email_verified": true }), json!([address, true])),
        (json!({ "email": address, "email_verified": false }), json!([address, false])),
        (json!({ "email": address }), json!([address, null])),
        (json!({ "email": address, "email_verified": "true" }), json!([address, null])),
        (json!({ "email_verified": true }), json!([null, null])),
        (json!({}), json!([null, null])),
    ] {
        assert_eq!(known(claims.clone()).await, expected, "{claims}");
    }
}
