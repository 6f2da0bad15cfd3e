//! Isolation: the identity comes only from the verified token.

use std::collections::HashSet;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::any;
use scaikey_auth::config::Algorithm;
use scaikey_auth::error::InvalidToken;
use scaikey_auth::identity::IdentityKind;
use scaikey_auth::testing::{Provider, SigningKey};
use scaikey_auth::{AuthContext, AuthError, Identity, Tenant};

use crate::support::{Server, World, local_with_all_algorithms};

async fn who(identity: Option<Identity>, tenant: Option<Tenant>) -> String {
    match (identity, tenant) {
        (Some(identity), Some(tenant)) => format!("{} of {}", identity.subject(), tenant.id()),
        _ => "anonymous".to_owned(),
    }
}

#[tokio::test]
async fn identity_headers_are_ignored() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let server =
        Server::axum(Router::new().fallback(any(who)).layer(auth.layer().optional())).await;
    let spoofed = [
        ("x-tenant-id", "tenant-2"),
        ("x-user", "root"),
        ("x-user-id", "root"),
        ("x-forwarded-user", "root"),
        ("x-forwarded-access-token", "x"),
        ("x-auth-provenance", "mock"),
        ("x-scope", "admin"),
        ("remote-user", "root"),
        ("forwarded", "for=127.0.0.1"),
    ];
    assert_eq!(server.get("/", &spoofed).await.body, "anonymous");
    let bearer = format!("Bearer {}", world.provider.token().sign());
    let mut headers = spoofed.to_vec();
    headers.push(("authorization", &bearer));
    let answer = server.get("/", &headers).await;
    assert_eq!(answer.body, "alice-id of tenant-1");
    assert_eq!(answer.header_opt("x-auth-provenance"), None);
}

#[tokio::test]
async fn inner_layer_replaces_outer_identity() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let root = auth.authenticate(&world.provider.token().subject("root").sign()).await.unwrap();
    let plant = move |mut request: Request, next: Next| {
        request.extensions_mut().insert::<AuthContext>(root.clone());
        next.run(request)
    };
    let app = Router::new().fallback(any(who)).layer(auth.layer().optional()).layer(from_fn(plant));
    let server = Server::axum(app).await;
    assert_eq!(server.get("/", &[]).await.body, "anonymous");
    let token = world.provider.token().sign();
    assert_eq!(server.get_as("/", &token).await.body, "alice-id of tenant-1");
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    let answer = server.send(crate::support::request("OPTIONS", "/", &preflight)).await;
    assert_eq!(answer.body, "anonymous");
}

#[tokio::test]
async fn nested_layers_decide_independently() {
    let world = World::new().await;
    let (outer, inner) = (crate::support::mock(), world.auth().build().unwrap());
    let app = Router::new().fallback(any(who)).layer(inner.layer()).layer(outer.layer());
    let server = Server::axum(app).await;
    assert_eq!(server.get_as("/", "mock").await.status, 401, "the inner layer verifies");
    let answer = server.get_as("/", &world.provider.token().sign()).await;
    assert_eq!(answer.body, "alice-id of tenant-1");
}

#[tokio::test]
async fn equal_kids_of_issuers_are_separate() {
    let (a, b) = (World::new().await, Provider::builder().algorithms([]).start().await);
    a.provider.rotate_to(SigningKey::with_kid(Algorithm::ES256, "shared"));
    b.rotate_to(SigningKey::with_kid(Algorithm::ES256, "shared"));
    let sign = |provider: &Provider| provider.token().algorithm(Algorithm::ES256);
    let auth = a.auth().issuer(local_with_all_algorithms(&b.issuer())).build().unwrap();
    for provider in [&a.provider, &b] {
        let context = auth.authenticate(&sign(provider).sign()).await.unwrap();
        assert_eq!(context.identity().issuer(), provider.issuer());
    }
    for (signer, claimed) in [(&a.provider, &b), (&b, &a.provider)] {
        let forged = sign(signer).issuer(&claimed.issuer()).sign();
        let refusal = auth.authenticate(&forged).await.unwrap_err();
        assert!(matches!(refusal, AuthError::InvalidToken(InvalidToken::Signature)), "{refusal}");
    }
}

#[tokio::test]
async fn untrusted_issuer_is_refused() {
    let (a, b) = (World::new().await, World::new().await);
    let auth = a.auth().build().unwrap();
    let refusal = auth.authenticate(&b.provider.token().sign()).await.unwrap_err();
    assert!(matches!(refusal, AuthError::InvalidToken(InvalidToken::Issuer)), "{refusal}");
    assert_eq!(
        (b.provider.discovery_requests(), b.provider.jwks_requests()),
        (0, 0),
        "it was not contacted"
    );
}

#[tokio::test]
async fn identity_includes_issuer_tenant_and_kind() {
    let (a, b) = (World::new().await, World::new().await);
    let auth = a.auth().issuer(b.issuer()).build().unwrap();
    let tokens = [
        a.provider.token().subject("same").sign(),
        a.provider.token().subject("same").tenant("tenant-2").sign(),
        a.provider.service_token("same").sign(),
        b.provider.token().subject("same").sign(),
    ];
    let mut keys = HashSet::new();
    for token in &tokens {
        keys.insert(auth.authenticate(token).await.unwrap().identity().key());
    }
    assert_eq!(keys.len(), tokens.len());
    let again = a.provider.token().subject("same").email("new@example.com").sign();
    let key = auth.authenticate(&again).await.unwrap().identity().key();
    assert!(!keys.insert(key), "another token of the same identity is the same");
    let kinds: HashSet<_> = keys.iter().map(|key| key.kind).collect();
    assert_eq!(kinds, HashSet::from([IdentityKind::User, IdentityKind::ServiceAccount]));
}
