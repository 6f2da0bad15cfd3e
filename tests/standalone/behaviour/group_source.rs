//! Groups that the provider left out of a token, and the source that returns them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use scaikey_auth::error::BoxError;
use scaikey_auth::guard::group;
use scaikey_auth::testing::{Provider, TokenBuilder};
use scaikey_auth::validator::{Credentials, GroupRequest, GroupSource};
use scaikey_auth::{Auth, AuthConfig, Identity, JwksValidator, TokenValidator};
use serde_json::json;

use crate::support::{Log, Server, World, config, local};

/// A directory with the groups of each user, by `oid`.
#[derive(Debug, Clone, Default)]
struct Directory {
    calls: Arc<AtomicU64>,
    is_down: Arc<AtomicBool>,
    /// The tokens that were presented.
    tokens: Arc<Mutex<Vec<String>>>,
    /// Whether the answer takes an asynchronous call.
    is_slow: bool,
}

impl Directory {
    fn both() -> [Self; 2] {
        [Self::default(), Self { is_slow: true, ..Self::default() }]
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn answer(&self, request: &GroupRequest<'_>) -> Result<Vec<String>, BoxError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.tokens.lock().unwrap().push(request.token().to_owned());
        if self.is_down.load(Ordering::SeqCst) {
            return Err("secret cause".into());
        }
        assert!(request.identity.has_group_overage());
        let claims: serde_json::Value = request.identity.claims()?;
        let oid = claims["oid"].as_str().ok_or("no oid")?;
        Ok(["admins", "é", oid, "admins"].map(str::to_owned).into())
    }
}

#[async_trait]
impl GroupSource for Directory {
    fn try_groups(&self, request: &GroupRequest<'_>) -> Option<Result<Vec<String>, BoxError>> {
        (!self.is_slow).then(|| self.answer(request))
    }

    async fn groups(&self, request: &GroupRequest<'_>) -> Result<Vec<String>, BoxError> {
        tokio::task::yield_now().await;
        self.answer(request)
    }
}

/// A token as Entra ID issues it for a user in too many groups.
fn entra(world: &World) -> TokenBuilder {
    let source = json!({ "src1": { "endpoint": "https://graph.example/getMemberObjects" } });
    let token = world.provider.token().without("groups").claim("oid", "user-7");
    let token = token.roles(["docs_internal"]);
    token.claim("_claim_names", json!({ "groups": "src1" })).claim("_claim_sources", source)
}

async fn groups_of(identity: Identity) -> String {
    let groups: Vec<_> = identity.groups().collect();
    format!("{groups:?} {} {}", identity.has_group_overage(), identity.has_role("docs_internal"))
}

async fn server(auth: &Auth) -> Server {
    let app = Router::new()
        .route("/groups", get(groups_of))
        .route("/admin", get(|| async {}).route_layer(auth.require(group("admins"))))
        .layer(auth.layer())
        .layer(auth.endpoints().build().unwrap());
    Server::axum(app).await
}

#[tokio::test]
async fn overage_without_source_is_warned_once() {
    let world = World::new().await;
    let server = server(&world.auth().build().unwrap()).await;
    let log = Log::start();
    for _ in 0..3 {
        let token = entra(&world).sign();
        assert_eq!(server.get_as("/admin", &token).await.status, 403);
        assert_eq!(server.get_as("/groups", &token).await.body, "[] true true");
    }
    let text = log.text();
    let warnings = text.lines().filter(|line| line.contains("WARN"));
    let warnings: Vec<_> = warnings.filter(|line| line.contains("a token has no groups")).collect();
    assert_eq!(warnings.len(), 1, "{text}");
    assert!(warnings[0].contains(&world.provider.issuer()), "{warnings:?}");
}

#[tokio::test]
async fn source_is_asked_once_per_token() {
    let world = World::new().await;
    for directory in Directory::both() {
        let auth =
            world.auth().group_source(world.provider.issuer(), directory.clone()).build().unwrap();
        let server = server(&auth).await;
        let token = entra(&world).sign();
        for _ in 0..3 {
            assert_eq!(server.get_as("/admin", &token).await.status, 200);
            let groups = server.get_as("/groups", &token).await.body;
            assert_eq!(groups, r#"["admins", "é", "user-7"] false true"#);
            let whoami = server.get_as("/v1/auth/whoami", &token).await.json();
            assert_eq!(whoami["groups"], json!(["admins", "é", "user-7"]));
        }
        assert_eq!(directory.calls(), 1);
        assert_eq!(*directory.tokens.lock().unwrap(), std::slice::from_ref(&token));
        let next = entra(&world).claim("oid", "user-8").sign();
        assert!(server.get_as("/groups", &next).await.body.contains("user-8"));
        assert!(server.get_as("/groups", &token).await.body.contains("user-7"));
        assert_eq!(directory.calls(), 2);
        auth.verified_tokens().flush();
        assert_eq!(server.get_as("/admin", &token).await.status, 200);
        assert_eq!(directory.calls(), 3);
    }
}

#[tokio::test]
async fn only_overage_asks_the_source() {
    let world = World::new().await;
    for directory in Directory::both() {
        let auth =
            world.auth().group_source(world.provider.issuer(), directory.clone()).build().unwrap();
        let server = server(&auth).await;
        let token = || world.provider.token();
        for token in [
            token(),
            token().without("groups"),
            token().claim("hasgroups", false),
            token().claim("hasgroups", "true"),
            token().claim("_claim_names", json!({ "roles": "src1" })),
            token().claim("_claim_names", "groups"),
            token().claim("_claim_names", json!(["groups"])),
        ] {
            assert_eq!(server.get_as("/admin", &token.sign()).await.status, 403);
        }
        for forged in [
            entra(&world).expired(),
            entra(&world).audience("another"),
            entra(&world).issuer("https://other.example"),
            entra(&world).signed_by(&scaikey_auth::testing::SigningKey::generate(
                scaikey_auth::config::Algorithm::ES256,
            )),
        ] {
            assert_eq!(server.get_as("/admin", &forged.sign()).await.status, 401);
        }
        assert_eq!(directory.calls(), 0);
        let flagged = token().without("groups").claim("hasgroups", true).claim("oid", "user-9");
        assert_eq!(server.get_as("/admin", &flagged.sign()).await.status, 200);
        // What the token has besides is replaced.
        let both = entra(&world).groups(["group-eng"]);
        let groups = server.get_as("/groups", &both.sign()).await.body;
        assert_eq!(groups, r#"["admins", "é", "user-7"] false true"#);
    }
}

#[tokio::test]
async fn failing_source_answers_503() {
    let world = World::new().await;
    for directory in Directory::both() {
        let auth =
            world.auth().group_source(world.provider.issuer(), directory.clone()).build().unwrap();
        let server = server(&auth).await;
        let (cached, token) = (entra(&world).sign(), entra(&world).sign());
        assert_eq!(server.get_as("/admin", &cached).await.status, 200);
        let log = Log::start();
        directory.is_down.store(true, Ordering::SeqCst);
        for path in ["/admin", "/groups", "/v1/auth/whoami"] {
            let answer = server.get_as(path, &token).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{path}");
            assert_eq!(answer.error(), None);
            assert!(!answer.body.contains("secret cause"), "{}", answer.body);
            assert_eq!(server.get_as(path, &cached).await.status, 200, "{path}");
        }
        directory.is_down.store(false, Ordering::SeqCst);
        assert_eq!(server.get_as("/admin", &token).await.status, 200);
        let logged = log.text();
        assert_eq!(logged.matches("WARN").count(), 1, "{logged}");
        assert!(logged.contains("group source failed error=secret cause"), "{logged}");
        assert!(logged.contains("group source works again"), "{logged}");
    }
}

/// A source whose directory never answers.
#[derive(Debug)]
struct Hangs;

#[async_trait]
impl GroupSource for Hangs {
    async fn groups(&self, _: &GroupRequest<'_>) -> Result<Vec<String>, BoxError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn hanging_source_answers_503() {
    let world = World::new().await;
    let server =
        server(&world.auth().group_source(world.provider.issuer(), Hangs).build().unwrap()).await;
    let token = entra(&world).sign();
    let answer = tokio::time::timeout(Duration::from_secs(60), server.get_as("/admin", &token));
    let answer = answer.await.expect("the layer answers within its deadline");
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn validator_alone_asks_its_source() {
    let world = World::new().await;
    let issuer = json!({ "issuer": world.provider.issuer(), "allow_loopback_http": true,
        "algorithms": ["ES256"], "jwks": { "wait_seconds": 60 } });
    let config: AuthConfig = config(json!({ "issuers": [issuer], "audience": ["scaiwave"] }));
    let directory = Directory::default();
    let validator = JwksValidator::with_clock(&config, Arc::new(world.clock.clone())).unwrap();
    let validator = validator.group_source(world.provider.issuer(), Arc::new(directory.clone()));
    let token = entra(&world).sign();
    for _ in 0..2 {
        let identity = validator.validate(&Credentials::bearer(&token)).await.unwrap();
        assert!(identity.in_group("user-7") && !identity.has_group_overage());
    }
    assert_eq!(directory.calls(), 1);
}

/// A source that puts everyone into one group.
#[derive(Debug)]
struct Always(&'static str);

#[async_trait]
impl GroupSource for Always {
    async fn groups(&self, _: &GroupRequest<'_>) -> Result<Vec<String>, BoxError> {
        Ok(vec![self.0.to_owned()])
    }
}

async fn groups_in(auth: &Auth, token: TokenBuilder) -> Vec<String> {
    let context = auth.authenticate(&token.sign()).await.unwrap();
    context.identity().groups().map(str::to_owned).collect()
}

/// Users of another issuer may be able to write `_claim_names` and `oid`.
#[tokio::test]
async fn source_is_only_for_its_issuer() {
    let (world, other) = (World::new().await, Provider::start().await);
    let victim = |provider: &Provider| {
        let token = provider.token().without("groups").claim("oid", "victim");
        token.claim("_claim_names", json!({ "groups": "src1" }))
    };
    let builder = || world.auth().issuer(local(other.issuer()));
    let auth = builder().group_source(world.provider.issuer(), Directory::default());
    let auth = auth.build().unwrap();
    assert_eq!(groups_in(&auth, victim(&world.provider)).await, ["admins", "é", "victim"]);
    assert!(groups_in(&auth, victim(&other)).await.is_empty());
    let auth = builder().group_source(world.provider.issuer(), Always("one"));
    let auth = auth.group_source(other.issuer(), Always("two")).build().unwrap();
    assert_eq!(groups_in(&auth, victim(&world.provider)).await, ["one"]);
    assert_eq!(groups_in(&auth, victim(&other)).await, ["two"]);
}

#[tokio::test]
async fn source_of_template_is_for_tenants() {
    let provider = Provider::start().await;
    let acme = provider.tenant_at("acme", "/tenants/acme");
    let template = local(format!("{}/tenants/{{tenant_id}}", provider.url()));
    let auth = Auth::builder().audience("scaiwave").tenants(scaikey_auth::tenant::AnyTenant);
    let auth = auth.group_source(template.expected(), Always("all")).issuer(template);
    let auth = auth.build().unwrap();
    let token = acme.token().without("groups").claim("hasgroups", true);
    assert_eq!(groups_in(&auth, token).await, ["all"]);
}

#[test]
fn source_of_unknown_issuer_is_warned_about() {
    let log = Log::start();
    let auth = Auth::builder().issuer("https://id.example").audience("docs");
    let auth = auth.group_source("https://id.example", Directory::default());
    auth.group_source("https://id.example/", Directory::default()).build().unwrap();
    let text = log.text();
    assert!(text.contains("group_source is for https://id.example/, which is"), "{text}");
    assert!(!text.contains("group_source is for https://id.example, which is"), "{text}");
}

#[tokio::test]
async fn clones_of_validators_share_no_groups() {
    let world = World::new().await;
    let issuer = world.provider.issuer();
    let mut config = AuthConfig::default();
    config.audience.push("scaiwave".to_owned());
    config.issuers.push(world.issuer());
    let plain = JwksValidator::with_clock(&config, Arc::new(world.clock.clone())).unwrap();
    let admins = plain.clone().group_source(&issuer, Always("admins"));
    let guests = plain.clone().group_source(&issuer, Always("guests"));
    let token = entra(&world).sign();
    let presented = Credentials::bearer(&token);
    assert!(admins.validate(&presented).await.unwrap().in_group("admins"));
    assert!(!guests.validate(&presented).await.unwrap().in_group("admins"));
    assert!(!plain.validate(&presented).await.unwrap().in_group("admins"));
    assert!(admins.validate(&presented).await.unwrap().in_group("admins"));
    assert_eq!(admins.verified_tokens().stats().hits, 1);
}
