//! The tenant of a request.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::routing::any;
use http::HeaderName;
use scaikey_auth::error::BoxError;
use scaikey_auth::layer::TenantSource;
use scaikey_auth::tenant::{MemoryTenants, TenantStatus};
use scaikey_auth::{Auth, Identity, Tenant, TenantId, TenantResolver};

use crate::support::{Answer, Server, World, tenant_id};

const HEADER: HeaderName = HeaderName::from_static("x-tenant-id");

fn tenants() -> MemoryTenants {
    let suspended = Tenant::with_row(tenant_id("suspended"), TenantStatus::Suspended, ());
    let active = ["tenant-1", "tenant-2", "tenant-3"].map(|id| Tenant::new(tenant_id(id)));
    active.into_iter().chain([suspended]).collect()
}

async fn who(identity: Identity, tenant: Option<Tenant>) -> String {
    let tenant = tenant.map_or("none".to_owned(), |tenant| tenant.id().to_string());
    format!("{} in {tenant}", identity.subject())
}

fn app() -> Router {
    Router::new().fallback(any(who))
}

async fn server(auth: &Auth) -> Server {
    Server::axum(app().layer(auth.layer())).await
}

fn problem(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    let kind = json["type"].as_str().unwrap().strip_prefix("urn:scaikey-auth:").unwrap();
    (answer.status, kind.to_owned())
}

#[tokio::test]
async fn tenant_must_be_present_known_and_active() {
    let world = World::new().await;
    let tenants = tenants();
    let auth = world.auth().tenants(tenants.clone()).build().unwrap();
    let server = server(&auth).await;
    let token = || world.provider.token();
    for (token, status, kind) in [
        (token().tenant("tenant-9"), 403, "tenant_unknown"),
        (token().tenant("Tenant-1"), 403, "tenant_unknown"),
        (token().tenant("suspended"), 403, "tenant_suspended"),
        (token().without("tenant_id"), 403, "tenant_missing"),
        (token().claim("tenant_id", serde_json::Value::Null), 403, "tenant_missing"),
        (token().tenant(""), 401, "token_invalid"),
        (token().tenant("a b"), 401, "token_invalid"),
        (token().claim("tenant_id", 1), 401, "token_invalid"),
        (token().claim("tenant_id", vec!["tenant-1"]), 401, "token_invalid"),
    ] {
        let token = token.sign();
        let answer = server.get_as("/", &token).await;
        assert_eq!(problem(&answer), (status, kind.to_owned()), "{token}");
    }
    let good = token().sign();
    assert_eq!(server.get_as("/", &good).await.body, "alice-id in tenant-1");
    tenants.remove(&tenant_id("tenant-1"));
    assert_eq!(problem(&server.get_as("/", &good).await), (403, "tenant_unknown".to_owned()));
}

#[tokio::test]
async fn unknown_tenant_may_answer_404() {
    let world = World::new().await;
    let auth = world.auth().tenants(tenants()).unknown_tenant_is_not_found().build().unwrap();
    let server = server(&auth).await;
    let answer = server.get_as("/", &world.provider.token().tenant("tenant-9").sign()).await;
    assert_eq!(problem(&answer), (404, "tenant_unknown".to_owned()));
    assert_eq!(answer.json()["status"], 404);
    assert_eq!(answer.json()["title"], "Not Found");
    let answer = server.get_as("/", &world.provider.token().tenant("suspended").sign()).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn missing_tenant_passes_only_if_optional() {
    let world = World::new().await;
    let auth = world.auth().tenants(tenants()).tenant_optional().build().unwrap();
    let server = server(&auth).await;
    let answer = server.get_as("/", &world.provider.token().without("tenant_id").sign()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "alice-id in none"));
    let answer = server.get_as("/", &world.provider.token().tenant("tenant-9").sign()).await;
    assert_eq!(answer.status, 403, "a named tenant must be known");
}

/// A faulty store, which answers immediately or after waiting.
#[derive(Debug, Clone)]
struct FaultyStore {
    is_immediate: bool,
    answer: Option<&'static str>,
}

impl FaultyStore {
    fn lookup(&self) -> Result<Option<Tenant>, BoxError> {
        match self.answer {
            None => Err("the store is unavailable".into()),
            Some(id) => Ok(Some(Tenant::new(tenant_id(id)))),
        }
    }
}

#[async_trait]
impl TenantResolver for FaultyStore {
    fn try_resolve(&self, _: &TenantId) -> Option<Result<Option<Tenant>, BoxError>> {
        self.is_immediate.then(|| self.lookup())
    }

    async fn resolve(&self, _: &TenantId) -> Result<Option<Tenant>, BoxError> {
        self.lookup()
    }
}

#[tokio::test]
async fn wrong_store_answer_is_an_outage() {
    let world = World::new().await;
    for is_immediate in [true, false] {
        for answer in [None, Some("tenant-2")] {
            let resolver = Arc::new(FaultyStore { is_immediate, answer });
            let auth = world.auth().tenants(resolver).build().unwrap();
            let server = server(&auth).await;
            let answer = server.get_as("/", &world.provider.token().sign()).await;
            assert_eq!(problem(&answer), (503, "unavailable".to_owned()), "{is_immediate}");
            assert_eq!(answer.header_opt("retry-after"), Some("1"));
        }
    }
    let auth = world.auth().tenants(FaultyStore { is_immediate: false, answer: Some("tenant-1") });
    let server = server(&auth.build().unwrap()).await;
    assert_eq!(server.get_as("/", &world.provider.token().sign()).await.status, 200);
}

#[tokio::test]
async fn request_cannot_name_another_tenant() {
    let world = World::new().await;
    let auth = world.auth().tenants(tenants()).build().unwrap();
    let layer = auth
        .layer()
        .tenant_from(TenantSource::header(HEADER))
        .tenant_from(TenantSource::path("/v1/t/{tenant_id}/"));
    let server = Server::axum(app().layer(layer)).await;
    let bearer = format!("Bearer {}", world.provider.token().sign());
    let token = ("authorization", bearer.as_str());
    let expired = format!("Bearer {}", world.provider.token().expired().sign());
    let bad = ("authorization", expired.as_str());
    let header = |id| ("x-tenant-id", id);
    let table = [
        ("/", vec![token], 200),
        ("/", vec![token, header("tenant-1")], 200),
        ("/v1/t/tenant-1/docs", vec![token], 200),
        ("/v1/t/tenant-1/docs", vec![token, header("tenant-1")], 200),
        ("/", vec![token, header("tenant-2")], 403),
        ("/", vec![token, header("")], 403),
        ("/", vec![token, header("tenant-1"), header("tenant-1")], 403),
        ("/v1/t/tenant-2/docs", vec![token], 403),
        ("/v1/t/%74enant-1/docs", vec![token], 403),
        ("/v1/t/tenant-1/docs", vec![token, header("tenant-2")], 403),
        ("/v1/t/tenant-2/docs", vec![token, header("tenant-1")], 403),
        ("/", vec![header("tenant-1")], 401),
        // A bad token is reported first.
        ("/", vec![bad, header("tenant-2")], 401),
        ("/", vec![bad, header(""), header("")], 401),
    ];
    for (path, headers, status) in table {
        let answer = server.get(path, &headers).await;
        assert_eq!(answer.status, status, "{path} {headers:?}: {answer:?}");
    }
}

#[tokio::test]
async fn other_tenant_is_not_resolved_without_authoriser() {
    let world = World::new().await;
    let auth =
        world.auth().tenants(FaultyStore { is_immediate: false, answer: None }).build().unwrap();
    let layer = auth.layer().tenant_from(TenantSource::header(HEADER));
    let server = Server::axum(app().layer(layer)).await;
    let bearer = format!("Bearer {}", world.provider.token().sign());
    for (tenant, status) in [("tenant-1", 503), ("tenant-2", 403)] {
        let headers = [("authorization", bearer.as_str()), ("x-tenant-id", tenant)];
        assert_eq!(server.get("/", &headers).await.status, status, "{tenant}");
    }
}

#[tokio::test]
async fn authoriser_admits_callers_to_other_tenants() {
    let world = World::new().await;
    let auth = world.auth().tenants(tenants()).tenant_optional().build().unwrap();
    let partner = |identity: &Identity, tenant: &Tenant| {
        identity.has_role("partner_admin") && tenant.id().as_str() != "tenant-3"
    };
    let layer = auth.layer().tenant_from(TenantSource::header(HEADER).authorised_by(partner));
    let server = Server::axum(app().layer(layer)).await;
    let admin = world.provider.token().roles(["partner_admin"]).sign();
    let platform = world.provider.token().roles(["partner_admin"]).without("tenant_id").sign();
    let user = world.provider.token().sign();
    let ask = async |token: &str, tenant: &str| {
        let bearer = format!("Bearer {token}");
        server.get("/", &[("authorization", &bearer), ("x-tenant-id", tenant)]).await
    };
    assert_eq!(ask(&admin, "tenant-2").await.body, "alice-id in tenant-2");
    assert_eq!(ask(&admin, "tenant-1").await.body, "alice-id in tenant-1");
    assert_eq!(ask(&user, "tenant-1").await.body, "alice-id in tenant-1");
    assert_eq!(ask(&platform, "tenant-2").await.body, "alice-id in tenant-2");
    // A caller without permission does not learn whether the tenant exists or is suspended.
    let forbidden = ask(&user, "tenant-2").await;
    assert_eq!(problem(&forbidden), (403, "tenant_mismatch".to_owned()));
    for (token, tenant) in [
        (&user, "tenant-9"),
        (&user, "suspended"),
        (&admin, "tenant-3"),
        (&admin, "tenant-9"),
        (&platform, "tenant-9"),
    ] {
        let answer = ask(token, tenant).await;
        assert_eq!((answer.status, &answer.body), (403, &forbidden.body), "{tenant}");
        assert_eq!(
            answer.headers.get("www-authenticate"),
            forbidden.headers.get("www-authenticate")
        );
    }
    assert_eq!(problem(&ask(&admin, "suspended").await), (403, "tenant_suspended".to_owned()));
}

/// An authoriser applies to its tenant source only. Another source that names the tenant has its own rule,
/// in any order of the sources.
#[tokio::test]
async fn every_tenant_source_must_allow_the_tenant() {
    let world = World::new().await;
    let auth = world.auth().tenants(tenants()).build().unwrap();
    let header = || TenantSource::header(HEADER);
    let path = || TenantSource::path("/t/{tenant_id}");
    let anyone = |_: &Identity, _: &Tenant| true;
    let no_one = |_: &Identity, _: &Tenant| false;
    let bearer = format!("Bearer {}", world.provider.token().sign());
    let both = [("authorization", bearer.as_str()), ("x-tenant-id", "tenant-2")];
    let table = [
        ([header().authorised_by(anyone), path()], 403),
        ([path(), header().authorised_by(anyone)], 403),
        ([header(), path().authorised_by(anyone)], 403),
        ([header().authorised_by(anyone), path().authorised_by(no_one)], 403),
        ([path().authorised_by(no_one), header().authorised_by(anyone)], 403),
        ([header().authorised_by(anyone), path().authorised_by(anyone)], 200),
    ];
    for (nth, (places, status)) in table.into_iter().enumerate() {
        let layer = places.into_iter().fold(auth.layer(), scaikey_auth::AuthLayer::tenant_from);
        let server = Server::axum(app().layer(layer)).await;
        assert_eq!(server.get("/t/tenant-2", &both).await.status, status, "row {nth}");
        let own = [("authorization", bearer.as_str()), ("x-tenant-id", "tenant-1")];
        assert_eq!(server.get("/t/tenant-1", &own).await.status, 200, "row {nth}, own tenant");
    }
}

#[tokio::test]
async fn forbidden_and_unknown_tenants_are_indistinguishable() {
    let world = World::new().await;
    let auth = world.auth().tenants(tenants()).unknown_tenant_is_not_found().build().unwrap();
    let layer = auth.layer().tenant_from(
        TenantSource::path("/t/{tenant_id}").authorised_by(|_: &Identity, _: &Tenant| false),
    );
    let server = Server::axum(app().layer(layer)).await;
    let token = world.provider.token().sign();
    let (forbidden, unknown) =
        (server.get_as("/t/tenant-2", &token).await, server.get_as("/t/tenant-9", &token).await);
    assert_eq!((forbidden.status, &forbidden.body), (unknown.status, &unknown.body));
    assert_eq!(forbidden.headers.get("content-length"), unknown.headers.get("content-length"));
}

#[tokio::test]
async fn issuer_accepts_only_listed_tenants() {
    let world = World::new().await;
    let issuer = world.issuer().tenants([tenant_id("tenant-1"), tenant_id("tenant-2")]);
    let server = server(&world.auth_with(issuer).build().unwrap()).await;
    let token = || world.provider.token();
    assert_eq!(server.get_as("/", &token().sign()).await.status, 200);
    assert_eq!(server.get_as("/", &token().tenant("tenant-2").sign()).await.status, 200);
    let answer = server.get_as("/", &token().tenant("tenant-3").sign()).await;
    assert_eq!(problem(&answer), (401, "token_invalid".to_owned()));
}

#[tokio::test]
async fn token_without_tenant_is_not_listed() {
    let world = World::new().await;
    let issuer = world.issuer().tenants([tenant_id("tenant-1")]);
    let server = server(&world.auth_with(issuer).tenant_optional().build().unwrap()).await;
    assert_eq!(server.get_as("/", &world.provider.token().sign()).await.status, 200);
    let answer = server.get_as("/", &world.provider.token().without("tenant_id").sign()).await;
    assert_eq!(problem(&answer), (401, "token_invalid".to_owned()));
}
