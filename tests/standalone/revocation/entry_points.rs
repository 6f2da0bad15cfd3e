//! Every path that admits callers judges the revocations.

use std::sync::Arc;

use axum::Router;
use http::Request;
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::error::InvalidToken;
use scaikey_auth::revocation::{Revocation, Revocations};
use scaikey_auth::tenant::MemoryTenants;
use scaikey_auth::testing::identity;
use scaikey_auth::{AuthContext, AuthError};
use serde_json::json;

use super::Revocable;
use crate::support::{Server, Spy, World};

#[tokio::test]
async fn every_entry_point_judges_revocations() {
    let service = Revocable::new().await;
    let endpoints = service.auth.endpoints().introspection_requires(|_: &AuthContext| Ok(()));
    let server = Server::axum(Router::new().layer(endpoints.build().unwrap())).await;
    let own = service.token().claim("jti", "own").sign();
    let subject = service.token().claim("sid", "one").sign();
    let introspect = async || {
        let request = Request::post("/v1/auth/introspect");
        let request = request.header("authorization", format!("Bearer {own}"));
        let request = request.header("content-type", "application/json");
        server.send(request.body(json!({ "token": subject }).to_string()).unwrap()).await
    };
    assert!(service.auth.authenticate(&subject).await.is_ok());
    assert_eq!(introspect().await.json()["active"], true);
    service.revoke(Revocation::session(service.issuer(), "one")).await;
    let refused = service.auth.authenticate(&subject).await.unwrap_err();
    assert!(matches!(refused, AuthError::InvalidToken(InvalidToken::Revoked)));
    assert_eq!(server.get_as("/v1/auth/whoami", &subject).await.status, 401);
    assert_eq!(introspect().await.json(), json!({ "active": false }));
    service.revoke(Revocation::token(service.issuer(), "own")).await;
    assert_eq!(introspect().await.status, 401);
}

/// A revoked caller learns nothing about the tenant, and does not become anonymous.
#[tokio::test]
async fn revocations_come_before_tenants() {
    let world = World::new().await;
    let auth = world.auth().tenants(MemoryTenants::new()).build().unwrap();
    let spy = Spy::default();
    let server = Server::axum(spy.app().layer(auth.layer().optional())).await;
    let token = world.provider.token().claim("sid", "one").sign();
    assert_eq!(server.get_as("/", &token).await.status, 403);
    let session = Revocation::session(world.provider.issuer(), "one");
    auth.revocations().revoke(session).await.unwrap();
    assert_eq!(server.get_as("/", &token).await.status, 401);
    assert_eq!(spy.calls(), 0);
}

#[tokio::test]
async fn services_may_share_revocations() {
    let world = Arc::new(World::new().await);
    let first = Revocable::of(&world, |builder| builder).await;
    let shared = world.auth().revocations(first.auth.revocations().clone()).build().unwrap();
    let separate = world.auth().build().unwrap();
    let token = world.provider.token().subject("alice").sign();
    first.revoke(Revocation::subject(first.issuer(), "alice")).await;
    assert!(shared.authenticate(&token).await.is_err());
    assert!(separate.authenticate(&token).await.is_ok(), "each Auth has its own by default");
}

#[tokio::test]
async fn revocations_are_an_admission_check() {
    let revocations = Revocations::default();
    let caller = identity(json!({ "iss": "https://a", "sub": "alice" }));
    let request = AdmissionRequest::new(&caller, std::time::SystemTime::now());
    let decide = async || {
        let tried = revocations.try_admit(&request).unwrap().unwrap();
        let admitted = revocations.admit(&request).await.unwrap();
        let is_denied =
            |it| matches!(it, Admission::Deny(error) if error.reason() == "token_revoked");
        [is_denied(tried), is_denied(admitted)]
    };
    assert_eq!(decide().await, [false; 2]);
    revocations.revoke(Revocation::subject("https://a", "alice")).await.unwrap();
    assert_eq!(decide().await, [true; 2]);
}
