//! Mock and hybrid mode: the tokens that they accept, and the environments in which they refuse to start.

use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::any;
use scaikey_auth::config::{Algorithm, MockUser};
use scaikey_auth::error::BoxError;
use scaikey_auth::guard::verified_token;
use scaikey_auth::identity::IdentityKind;
use scaikey_auth::testing::{Fault, ProviderEndpoint, forge};
use scaikey_auth::{Auth, AuthConfig, AuthMode, Identity, Tenant, TenantId, TenantResolver};
use serde_json::json;

use crate::support::{Server, Spy, World, mock};

async fn who(identity: Identity, tenant: Tenant) -> String {
    format!("{} {} {}", identity.subject(), tenant.id(), identity.provenance().as_str())
}

async fn server(auth: &Auth) -> Server {
    Server::axum(Router::new().fallback(any(who)).layer(auth.layer())).await
}

const MOCK: &str = "mock-user mock-tenant mock";
const REAL: &str = "alice-id tenant-1 verified";

#[tokio::test]
async fn mock_mode_accepts_every_nonempty_token() {
    let world = World::new().await;
    let server = server(&mock()).await;
    let real = world.provider.token().expired().sign();
    for token in ["x", "a.b.c", "...", "mock", "not-a-token==", real.as_str()] {
        let answer = server.get_as("/", token).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, MOCK), "{token}");
        assert_eq!(answer.header_opt("x-auth-provenance"), Some("mock"));
    }
    for (authorization, status) in
        [(None, 401), (Some("Basic eA=="), 401), (Some("Bearer"), 400), (Some("Bearer "), 400)]
    {
        let headers: Vec<_> = authorization.iter().map(|a| ("authorization", *a)).collect();
        let answer = server.get("/", &headers).await;
        assert_eq!(answer.status, status, "{authorization:?}");
        assert_eq!(answer.header_opt("x-auth-provenance"), None);
    }
    assert_eq!(world.provider.jwks_requests() + world.provider.discovery_requests(), 0);
}

#[tokio::test]
async fn mock_user_comes_from_the_configuration() {
    let mut user = MockUser::default();
    let claims = json!({
        "sub": "robot", "client_id": "robot", "tenant_id": "t", "scope": "a b", "roles": ["boss"],
        "iss": "https://scaikey.example", "exp": 1, "amr": ["mfa"], "auth_time": 7,
    });
    user.claims = claims.as_object().unwrap().clone();
    let auth = Auth::builder()
        .mode(AuthMode::Mock)
        .mock_user(user)
        .insecure_allow_mock_in_production()
        .build()
        .unwrap();
    let context = auth.authenticate("x").await.unwrap();
    let identity = context.identity();
    assert!(identity.is_mock() && identity.has_role("boss") && identity.scopes().contains("b"));
    assert_eq!((identity.subject(), identity.kind()), ("robot", IdentityKind::ServiceAccount));
    assert_eq!(identity.issuer(), "urn:scaikey-auth:mock", "never the issuer of a provider");
    let claims: serde_json::Value = identity.claims().unwrap();
    assert_eq!(claims["iss"], "urn:scaikey-auth:mock");
    assert!(identity.expires_at() > std::time::SystemTime::now());
}

/// A resolver that accepts every tenant after a wait.
#[derive(Debug)]
struct SlowTenants;

#[async_trait]
impl TenantResolver for SlowTenants {
    async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, BoxError> {
        tokio::task::yield_now().await;
        Ok(Some(Tenant::new(id.clone())))
    }
}

#[tokio::test]
async fn delayed_mock_response_is_marked() {
    let auth = Auth::builder()
        .mode(AuthMode::Mock)
        .insecure_allow_mock_in_production()
        .tenants(SlowTenants)
        .build()
        .unwrap();
    let answer = server(&auth).await.get_as("/", "x").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, MOCK));
    assert_eq!(answer.header_opt("x-auth-provenance"), Some("mock"));
}

#[tokio::test]
async fn guard_refusal_of_mock_is_marked() {
    let world = World::new().await;
    let auth =
        world.auth().mode(AuthMode::Hybrid).insecure_allow_mock_in_production().build().unwrap();
    let app = Spy::default().app().layer(auth.require(verified_token())).layer(auth.layer());
    let server = Server::axum(app).await;
    let answer = server.get_as("/", "mock").await;
    assert_eq!((answer.status, answer.header_opt("x-auth-provenance")), (403, Some("mock")));
    let answer = server.get_as("/", &world.provider.token().sign()).await;
    assert_eq!((answer.status, answer.header_opt("x-auth-provenance")), (200, None));
}

#[tokio::test]
async fn hybrid_mode_verifies_tokens_with_a_dot() {
    let world = World::new().await;
    let auth =
        world.auth().mode(AuthMode::Hybrid).insecure_allow_mock_in_production().build().unwrap();
    let server = server(&auth).await;
    let token = || world.provider.token();
    let good = token().sign();
    let (tampered, cut, dotless) = (
        format!("{}AAAA", &good[..good.len() - 4]),
        &good[..good.rfind('.').unwrap()],
        good.replace('.', ""),
    );
    let mut named_mock = token().header("alg", "none").sign();
    named_mock.insert_str(0, "mock");
    let table = [
        (good.as_str(), Some(REAL)),
        ("mock", Some(MOCK)),
        ("mock-of-bob", Some(MOCK)),
        ("Mock", None),
        ("amock", None),
        ("x", None),
        ("mock.", None),
        ("mock.a.b", None),
        ("mock.a.b.c", None),
        (&named_mock, None),
        (&tampered, None),
        (cut, None),
        (&dotless, None),
        (&token().expired().sign(), None),
        (&token().audience("other").sign(), None),
        (&token().issuer("urn:scaikey-auth:mock").sign(), None),
    ];
    for (token, expected) in table {
        let answer = server.get_as("/", token).await;
        match expected {
            Some(body) => assert_eq!((answer.status, answer.body.as_str()), (200, body), "{token}"),
            None => assert_eq!(
                (answer.status, answer.header_opt("x-auth-provenance")),
                (401, None),
                "{token}"
            ),
        }
    }
}

#[tokio::test]
async fn hybrid_mode_refuses_forged_tokens() {
    let world = World::with([Algorithm::RS256, Algorithm::ES256]).await;
    let auth =
        world.auth().mode(AuthMode::Hybrid).insecure_allow_mock_in_production().build().unwrap();
    for forged in forge::all(&world.provider) {
        let result = auth.authenticate(&forged.token).await;
        assert!(result.is_err(), "{}: {}", forged.name, forged.why);
    }
}

#[tokio::test]
async fn hybrid_mode_without_keys_answers_503() {
    let mut world = World::new().await;
    let auth =
        world.auth().mode(AuthMode::Hybrid).insecure_allow_mock_in_production().build().unwrap();
    let server = server(&auth).await;
    let real = world.provider.token().sign();
    world.provider.pause().await;
    let answer = server.get_as("/", &real).await;
    assert_eq!((answer.status, answer.header_opt("retry-after").is_some()), (503, true));
    assert_eq!(server.get_as("/", "mock").await.body, MOCK);
    assert_eq!(server.get_as("/", &world.provider.token().expired().sign()).await.status, 401);
    world.provider.resume().await;
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(server.get_as("/", &real).await.body, REAL, "it recovers without a restart");
}

#[tokio::test]
async fn hybrid_mode_keeps_cached_keys_during_outage() {
    let mut world = World::new().await;
    let auth =
        world.auth().mode(AuthMode::Hybrid).insecure_allow_mock_in_production().build().unwrap();
    let server = server(&auth).await;
    assert_eq!(server.get_as("/", &world.provider.token().sign()).await.body, REAL);
    world.provider.pause().await;
    world.clock.advance(Duration::from_secs(3600));
    let real = world.provider.token().sign();
    assert_eq!(server.get_as("/", &real).await.body, REAL);
    let tampered = format!("{}AAAA", &real[..real.len() - 4]);
    assert_eq!(server.get_as("/", &tampered).await.status, 401);
    assert_eq!(server.get_as("/", "mock").await.body, MOCK);
}

#[tokio::test]
async fn default_mode_refuses_mock_tokens() {
    let world = World::new().await;
    world.provider.fail(ProviderEndpoint::Discovery, Fault::Status(500));
    let auth = world.auth().build().unwrap();
    assert_eq!(auth.mode(), AuthMode::ScaiKey);
    let server = server(&auth).await;
    assert_eq!(server.get_as("/", "mock").await.status, 401);
    assert_eq!(server.get_as("/", &world.provider.token().sign()).await.status, 503);
}

/// The variable with the expected error of a child process. The environment of a running process cannot be
/// changed safely, so each case needs a child.
const EXPECTED: &str = "SCAIKEY_AUTH_TEST_EXPECTED";

/// Runs in the child process.
#[test]
#[ignore = "started by other tests"]
fn child() {
    let Ok(expected) = std::env::var(EXPECTED) else { return };
    for mode in [AuthMode::Mock, AuthMode::Hybrid, AuthMode::ScaiKey] {
        let builder = || {
            let config = AuthConfig::from_env("SCAIWAVE");
            Auth::from_config(config).mode(mode).issuer("https://k.example").audience("scaiwave")
        };
        let error = builder().build().map_or_else(|error| error.to_string(), |_| String::new());
        let may_start = expected.is_empty() || mode == AuthMode::ScaiKey;
        assert!(
            if may_start { error.is_empty() } else { error.contains(&expected) },
            "{mode}: {error}"
        );
        assert!(builder().insecure_allow_mock_in_production().build().is_ok(), "{mode}");
        // In a cluster for development, a variable must still name the environment.
        let is_named = std::env::var_os("APP_ENV").is_some();
        let is_objection_met = expected.contains("in_kubernetes") && is_named;
        let outcome = builder().insecure_allow_mock_in_kubernetes().build();
        assert_eq!(outcome.is_ok(), may_start || is_objection_met, "{mode}");
    }
}

#[test]
fn mock_modes_start_only_outside_production() {
    let table: &[(&[(&str, &str)], &str)] = &[
        (&[], if cfg!(debug_assertions) { "" } else { "release build" }),
        (&[("APP_ENV", "development")], ""),
        (&[("APP_ENV", " \"Dev\" ")], ""),
        (&[("SCAIWAVE_ENV", "staging"), ("NODE_ENV", "test")], ""),
        (&[("STAGE", "local"), ("APP_ENV", "")], ""),
        (&[("APP_ENV", "production")], "APP_ENV=production"),
        (&[("APP_ENV", "prod-eu")], "APP_ENV=prod-eu"),
        (&[("APP_ENV", "\"production\"")], "APP_ENV=\"production\""),
        (&[("ENVIRONMENT", "prd")], "ENVIRONMENT=prd"),
        (&[("STAGE", "prod")], "STAGE=prod"),
        (&[("SCAIWAVE_STAGE", "live")], "SCAIWAVE_STAGE=live"),
        (&[("APP_ENV", "development"), ("RUST_ENV", "prod")], "RUST_ENV=prod"),
        (
            &[("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("APP_ENV", "staging")],
            "insecure_allow_mock_in_kubernetes",
        ),
        (&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], "insecure_allow_mock_in_kubernetes"),
    ];
    let binary = std::env::current_exe().unwrap();
    for (variables, expected) in table {
        let mut child = Command::new(&binary);
        child.args(["--exact", "behaviour::modes::child", "--ignored"]).env_clear();
        let child = child.envs(variables.iter().copied()).env(EXPECTED, expected).output().unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{variables:?}: {output}");
    }
}

/// An attacker who can write the file or the environment must not be able to let every caller in.
#[test]
fn only_code_can_allow_mock_in_production() {
    for setting in ["insecure_allow_mock_in_production", "insecure_allow_mock_in_kubernetes"] {
        let text = format!(r#"{{ "mode": "mock", "{setting}": true }}"#);
        assert!(serde_json::from_str::<AuthConfig>(&text).is_err(), "{setting}");
        let variable = (format!("SCAIWAVE_{}", setting.to_uppercase()), "true".to_owned());
        let config = AuthConfig::from_vars("SCAIWAVE", [variable]);
        assert!(!config.insecure_allow_mock_in_production, "{setting}");
        assert!(!config.insecure_allow_mock_in_kubernetes, "{setting}");
    }
}
