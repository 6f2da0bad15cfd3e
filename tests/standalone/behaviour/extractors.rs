//! Extractors of axum handlers.

use axum::Router;
use axum::routing::{any, get};
use scaikey_auth::error::{Challenge, InvalidToken};
use scaikey_auth::extract::{Claims, TenantRow};
use scaikey_auth::tenant::{MemoryTenants, TenantStatus};
use scaikey_auth::{AuthContext, AuthError, Identity, Tenant};
use serde::Deserialize;

use crate::support::{Server, World, request, tenant_id};

#[derive(Debug, Clone, Deserialize)]
struct UserClaims {
    preferred_username: String,
    level: u8,
}

#[derive(Debug, Clone)]
struct Row {
    plan: &'static str,
}

async fn everything(
    context: AuthContext,
    identity: Identity,
    tenant: Tenant,
    claims: Claims<UserClaims>,
    row: TenantRow<Row>,
) -> String {
    assert_eq!(context.identity().key(), identity.key());
    assert_eq!(context.tenant().map(Tenant::id), Some(tenant.id()));
    format!("{} {} {}", claims.preferred_username, claims.0.level, row.plan)
}

fn app() -> Router {
    Router::new()
        .route("/all", get(everything))
        .route("/claims", get(|_: Claims<UserClaims>| async {}))
        .route("/row", get(|_: TenantRow<u8>| async {}))
        .route("/tenant", get(|_: Tenant| async {}))
        .route("/identity", get(|_: Identity| async {}))
        .route("/context", get(|_: AuthContext| async {}))
        .route("/maybe", get(|_: Option<Identity>| async {}))
        .route("/error", get(|| async { Err::<(), _>(AuthError::TenantSuspended) }))
}

#[tokio::test]
async fn extractors_return_their_values() {
    let world = World::new().await;
    let row = Tenant::with_row(tenant_id("tenant-1"), TenantStatus::Active, Row { plan: "gold" });
    let auth = world.auth().tenants(MemoryTenants::from_iter([row])).build().unwrap();
    let server = Server::axum(app().layer(auth.layer())).await;
    let token = world.provider.token().claim("level", 7).sign();
    let answer = server.get_as("/all", &token).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "alice 7 gold"));
    // Claims of another type are a fault of the token; a row of another type is a fault of the
    // service.
    let answer = server.get_as("/claims", &world.provider.token().claim("level", 700).sign()).await;
    assert_eq!(answer.status, 401);
    assert_eq!(server.get_as("/row", &token).await.status, 500);
    let answer = server.get_as("/error", &token).await;
    assert_eq!((answer.status, answer.json()["status"].as_u64()), (403, Some(403)));
}

/// RFC 9110 §15.5.2: every 401 has a challenge, also one of an extractor behind the layer.
#[tokio::test]
async fn each_401_of_extractors_has_challenge() {
    let world = World::new().await;
    let auth = world.auth().challenge(Challenge::new("ApiKey")).build().unwrap();
    let server = Server::axum(app().layer(auth.layer())).await;
    let token = world.provider.token().claim("level", 700).sign();
    let answer = server.get_as("/claims", &token).await;
    assert_eq!(answer.status, 401);
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, [r#"Bearer realm="scaiwave", error="invalid_token""#, "ApiKey"]);
    let any_method = Router::new().fallback(any(|_: Identity| async {}));
    let server = Server::axum(any_method.layer(auth.layer())).await;
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    let answer = server.send(request("OPTIONS", "/", &preflight)).await;
    assert_eq!(answer.status, 401);
    let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, [r#"Bearer realm="scaiwave""#, "ApiKey"]);
}

#[tokio::test]
async fn each_401_of_handlers_has_challenge() {
    let app = Router::new()
        .route("/missing", get(|| async { AuthError::MissingCredentials }))
        .route("/expired", get(|| async { AuthError::from(InvalidToken::Expired) }))
        .route("/scope", get(|| async { AuthError::InsufficientScope { required: "a".into() } }))
        .route(
            "/own",
            get(|| async {
                AuthError::from(InvalidToken::Unproven).with_challenge(Challenge::new("DPoP"))
            }),
        )
        .route("/suspended", get(|| async { AuthError::TenantSuspended }));
    let server = Server::axum(app).await;
    let invalid = r#"Bearer realm="scaikey", error="invalid_token""#;
    let expired = format!(r#"{invalid}, error_description="The token has expired""#);
    for (path, status, expected) in [
        ("/missing", 401, vec![r#"Bearer realm="scaikey""#]),
        ("/expired", 401, vec![&expired]),
        ("/scope", 403, vec![r#"Bearer realm="scaikey", error="insufficient_scope", scope="a""#]),
        ("/own", 401, vec![invalid, "DPoP"]),
        ("/suspended", 403, vec![]),
    ] {
        let answer = server.get(path, &[]).await;
        let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(challenges, expected, "{path}");
    }
}

#[tokio::test]
async fn missing_tenant_gives_403_or_none() {
    let world = World::new().await;
    let auth = world.auth().tenant_optional().build().unwrap();
    let maybe = get(|tenant: Option<Tenant>| async move { tenant.is_none().to_string() });
    let server = Server::axum(app().route("/maybe-tenant", maybe).layer(auth.layer())).await;
    let token = world.provider.token().without("tenant_id").sign();
    let answer = server.get_as("/tenant", &token).await;
    assert_eq!(
        (answer.status, answer.json()["type"].as_str()),
        (403, Some("urn:scaikey-auth:tenant_missing"))
    );
    assert_eq!(server.get_as("/maybe-tenant", &token).await.body, "true");
}

#[tokio::test]
async fn extractors_without_layer_answer_500() {
    let world = World::new().await;
    let server = Server::axum(app()).await;
    let token = world.provider.token().sign();
    for path in ["/all", "/claims", "/row", "/tenant", "/identity", "/context", "/maybe"] {
        let answer = server.get_as(path, &token).await;
        assert_eq!(answer.status, 500, "{path}");
        assert_eq!(answer.json()["detail"], "The service is misconfigured.", "{path}");
    }
}
