//! Whose revocation refuses a token: also that of the actor, and whichever validator accepted it.

use async_trait::async_trait;
use scaikey_auth::identity::{ClaimsMapping, Provenance};
use scaikey_auth::revocation::Revocation;
use scaikey_auth::validator::Credentials;
use scaikey_auth::{Auth, AuthError, Identity, TokenValidator};
use serde_json::{Value, json};

use super::Revocable;

async fn reason(auth: &Auth, token: &str) -> &'static str {
    auth.authenticate(token).await.map_or_else(|error| error.reason(), |_| "active")
}

#[tokio::test]
async fn revoked_actor_acts_for_no_user() {
    let foreign = "https://other.example";
    let acting = json!({ "sub": "robot", "client_id": "crawler" });
    let of_other = json!({ "sub": "robot", "iss": foreign });
    let before = json!({ "sub": "gateway", "act": { "sub": "robot" } });
    type Revoke = fn(String) -> Revocation;
    let table: [(&Value, Revoke, bool); 9] = [
        (&acting, |issuer| Revocation::subject(issuer, "robot"), true),
        (&acting, |issuer| Revocation::client(issuer, "crawler"), true),
        (&acting, |issuer| Revocation::subject(issuer, "robot").in_tenant(acme()), true),
        (&acting, |issuer| Revocation::client(issuer, "crawler").in_tenant(acme()), true),
        (&acting, |issuer| Revocation::subject(issuer, "crawler"), false),
        (&acting, |_| Revocation::subject("https://other.example", "robot"), false),
        (&of_other, |_| Revocation::subject("https://other.example", "robot"), true),
        (&of_other, |issuer| Revocation::subject(issuer, "robot"), false),
        // Earlier actors are for audit only (RFC 8693 §4.1).
        (&before, |issuer| Revocation::subject(issuer, "robot"), false),
    ];
    for (nth, (act, revocation, is_refused)) in table.into_iter().enumerate() {
        let service = Revocable::new().await;
        let token = || service.token().tenant("acme").claim("act", act.clone()).sign();
        let old = token();
        assert_eq!(service.status(&old).await, 200, "{nth}");
        service.revoke(revocation(service.issuer())).await;
        assert_eq!(service.status(&old).await == 401, is_refused, "{nth}");
        assert_eq!(service.status(&service.token().tenant("acme").sign()).await, 200, "{nth}");
        service.advance(10);
        assert_eq!(service.status(&token()).await, 200, "{nth}: issued afterwards");
    }
}

fn acme() -> scaikey_auth::TenantId {
    "acme".parse().unwrap()
}

/// Accepts every token that begins with `own_`, without `iat`.
#[derive(Debug)]
struct Own;

#[async_trait]
impl TokenValidator for Own {
    fn accepts(&self, presented: &Credentials<'_>) -> bool {
        presented.token().starts_with("own_")
    }

    async fn validate(&self, presented: &Credentials<'_>) -> Result<Identity, AuthError> {
        let claims = json!({
            "iss": "https://own.example",
            "sub": presented.token(),
            "exp": 4_000_000_000_u64,
        });
        let provenance = Provenance::Introspected;
        Ok(Identity::from_claims(&claims, &ClaimsMapping::default(), provenance)?)
    }
}

/// Its validator may have a cache of its own, so its answer is not newer than the revocation.
#[tokio::test]
async fn undated_tokens_of_own_validators_stay_refused() {
    let service = Revocable::new().await;
    let auth = service.world.auth().validator(Own).tenant_optional().build().unwrap();
    assert_eq!(reason(&auth, "own_alice").await, "active");
    let alice = Revocation::subject("https://own.example", "own_alice");
    auth.revocations().revoke(alice).await.unwrap();
    for seconds in [0, 3600] {
        service.advance(seconds);
        assert_eq!(reason(&auth, "own_alice").await, "token_revoked");
        assert_eq!(reason(&auth, "own_bob").await, "active");
    }
}

#[cfg(feature = "mock")]
#[tokio::test]
async fn mock_users_can_be_revoked() {
    let auth = crate::support::mock();
    let caller = auth.authenticate("anything").await.unwrap();
    let (issuer, subject) = (caller.identity().issuer(), caller.identity().subject());
    auth.revocations().revoke(Revocation::subject(issuer, subject)).await.unwrap();
    assert_eq!(reason(&auth, "anything").await, "token_revoked");
    assert!(caller.is_revoked());
}
