//! A validator of the service's own, for tokens that are not JWTs.

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use scaikey_auth::error::InvalidToken;
use scaikey_auth::identity::{ClaimsMapping, IdentityKind, Provenance};
use scaikey_auth::validator::Credentials;
use scaikey_auth::{AuthError, Identity, TokenValidator};
use serde_json::{Value, json};

use crate::support::{Server, World};

/// Accepts the keys `sk_good` and `sk_expired`.
#[derive(Debug)]
struct ApiKeys;

#[async_trait]
impl TokenValidator for ApiKeys {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        presented.token().starts_with("sk_")
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        if presented.token() != "sk_good" {
            return Err(InvalidToken::Unrecognised.into());
        }
        Ok(Identity::from_claims(&claims(), &ClaimsMapping::default(), Provenance::Verified)?)
    }
}

fn claims() -> Value {
    json!({"iss": "https://keys.example", "sub": "robot", "client_id": "robot", "exp": 4_000_000_000_u64,
        "tenant_id": "acme", "scope": "docs:read", "roles": ["reader"]})
}

async fn subject(identity: Identity) -> String {
    identity.subject().to_owned()
}

#[tokio::test]
async fn own_validator_builds_identities_from_claims() {
    let world = World::new().await;
    let auth = world.auth().validator(ApiKeys).build().unwrap();
    let server = Server::axum(Router::new().route("/", get(subject)).layer(auth.layer())).await;
    let answer = server.get_as("/", "sk_good").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "robot"));
    assert_eq!(server.get_as("/", "sk_bad").await.status, 401);
}

#[test]
fn claims_become_the_same_identity_as_tokens() {
    let read = |claims: &Value| {
        Identity::from_claims(claims, &ClaimsMapping::default(), Provenance::Introspected)
    };
    let robot = read(&claims()).unwrap();
    assert_eq!((robot.issuer(), robot.subject()), ("https://keys.example", "robot"));
    assert_eq!(robot.kind(), IdentityKind::ServiceAccount);
    assert_eq!(robot.provenance(), Provenance::Introspected);
    assert!(robot.scopes().contains("docs:read") && robot.has_role("reader"));
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        read(&claims).err()
    };
    for name in ["iss", "sub", "exp"] {
        assert_eq!(without(name), Some(InvalidToken::MissingClaim(name)), "{name}");
    }
    assert!(without("scope").is_none());
    for claims in [json!([]), json!("sub"), json!({"iss": 7, "sub": "a", "exp": 1})] {
        assert!(matches!(
            read(&claims),
            Err(InvalidToken::Malformed(_) | InvalidToken::MalformedClaim("iss"))
        ));
    }
}
