//! Revoked subject and actor tokens are not exchanged, not even from a cache.

use std::time::Duration;

use scaikey_auth::exchange::{
    CacheStatus, ExchangeError, MemoryCache, PasswordRequest, SessionTokens, TokenType,
};
use scaikey_auth::revocation::Revocation;
use scaikey_auth::testing::{ManualClock, Provider};
use scaikey_auth::validator::insecure_decode_claims;
use scaikey_auth::{Auth, ExchangeRequest, TokenExchangeClient};

use super::{builder, timed_with};
use crate::support::local;

/// A service whose endpoints share their client with its handlers.
struct Service {
    provider: Provider,
    clock: ManualClock,
    auth: Auth,
    client: TokenExchangeClient,
}

impl Service {
    async fn new() -> Self {
        // The exchange of these tests needs no requested type.
        let (provider, client, clock) =
            timed_with(|it| it.requested_token_type(None).enable_password_grant()).await;
        let auth = Auth::builder().issuer(local(provider.issuer())).audience("scaiwave");
        let auth = auth.clock(clock.clone()).build().unwrap();
        drop(auth.endpoints().client(client.clone()).build().unwrap());
        Self { provider, clock, auth, client }
    }

    async fn revoke(&self, revocation: Revocation) {
        self.auth.revocations().revoke(revocation).await.unwrap();
    }

    async fn outcome(&self, request: &ExchangeRequest) -> &'static str {
        match self.client.exchange(request).await {
            Ok(token) if token.cache_status() == CacheStatus::Hit => "hit",
            Ok(_) => "new",
            Err(ExchangeError::Revoked) => "revoked",
            Err(_) => "failed",
        }
    }
}

#[tokio::test]
async fn every_kind_of_revocation_refuses() {
    let revocations: [fn(String) -> Revocation; 7] = [
        |issuer| Revocation::token(issuer, "7"),
        |issuer| Revocation::session(issuer, "8"),
        |issuer| Revocation::subject(issuer, "alice").in_tenant("acme".parse().unwrap()),
        |issuer| Revocation::subject(issuer, "alice"),
        |issuer| Revocation::client(issuer, "app"),
        |issuer| Revocation::tenant(issuer, "acme".parse().unwrap()),
        |issuer| Revocation::issuer(issuer),
    ];
    for (nth, revocation) in revocations.into_iter().enumerate() {
        let service = Service::new().await;
        let token = service.provider.token().subject("alice").claim("client_id", "app");
        let token = token.claim("jti", "7").claim("sid", "8").tenant("acme").sign();
        let request = ExchangeRequest::new(token, "scaivault");
        let other = ExchangeRequest::new(service.provider.token().sign(), "scaivault");
        for expected in ["new", "hit"] {
            assert_eq!(service.outcome(&request).await, expected, "{nth}");
            assert_eq!(service.outcome(&other).await, expected, "{nth}");
        }
        service.revoke(revocation(service.provider.issuer())).await;
        assert_eq!(service.outcome(&request).await, "revoked", "{nth}");
        assert_eq!(service.provider.token_requests(), 2, "{nth}");
        let is_of_issuer = nth == 6;
        let expected = if is_of_issuer { "revoked" } else { "hit" };
        assert_eq!(service.outcome(&other).await, expected, "{nth}: another user");
    }
}

#[tokio::test]
async fn new_sign_in_gets_a_token() {
    let service = Service::new().await;
    let request =
        || ExchangeRequest::new(service.provider.token().subject("alice").sign(), "scaivault");
    service.revoke(Revocation::subject(service.provider.issuer(), "alice")).await;
    assert_eq!(service.outcome(&request()).await, "revoked");
    service.clock.advance(Duration::from_secs(10));
    assert_eq!(service.outcome(&request()).await, "new");
}

#[tokio::test]
async fn revoked_actor_gets_no_token() {
    let service = Service::new().await;
    let user = service.provider.token().subject("alice").sign();
    let robot = service.provider.service_token("robot").sign();
    let request = |actor: &str| {
        ExchangeRequest::new(user.as_str(), "scaivault").actor(actor, TokenType::AccessToken)
    };
    assert_eq!(service.outcome(&request(&robot)).await, "new");
    service.revoke(Revocation::client(service.provider.issuer(), "robot")).await;
    assert_eq!(service.outcome(&request(&robot)).await, "revoked");
    let crawler = service.provider.service_token("crawler").sign();
    assert_eq!(service.outcome(&request(&crawler)).await, "new");
}

/// A shared cache may have the token from another process.
#[tokio::test]
async fn entry_of_another_process_is_not_served() {
    let service = Service::new().await;
    let cache = MemoryCache::default();
    let client = || {
        let builder = builder(&service.provider).requested_token_type(None).cache(cache.clone());
        builder.clock(service.clock.clone()).build().unwrap()
    };
    let request =
        ExchangeRequest::new(service.provider.token().subject("alice").sign(), "scaivault");
    client().exchange(&request).await.unwrap();
    let bound = client();
    drop(service.auth.endpoints().client(bound.clone()).build().unwrap());
    assert_eq!(bound.exchange(&request).await.unwrap().cache_status(), CacheStatus::Hit);
    service.revoke(Revocation::subject(service.provider.issuer(), "alice")).await;
    bound.exchange(&request).await.unwrap_err();
}

/// A text without claims is judged by the provider only.
#[tokio::test]
async fn unreadable_tokens_are_left_to_the_provider() {
    let service = Service::new().await;
    service.revoke(Revocation::issuer(service.provider.issuer())).await;
    for token in ["", "opaque", "a.b.c", "a.b.c.d.e", "eyJhbGciOiJub25lIn0.e30."] {
        assert_eq!(service.outcome(&ExchangeRequest::new(token, "scaivault")).await, "failed");
    }
}

/// Without `sub`, `iat` or `exp`, a token is still judged by the rest.
#[tokio::test]
async fn incomplete_tokens_are_judged() {
    let service = Service::new().await;
    let issuer = service.provider.issuer();
    service.revoke(Revocation::token(&*issuer, "7")).await;
    service.revoke(Revocation::client(&*issuer, "app")).await;
    for missing in ["sub", "iat", "exp", "aud"] {
        for (name, value) in [("jti", "7"), ("client_id", "app")] {
            let token = service.provider.token().claim("client_id", "other").without(missing);
            let token = token.claim(name, value).sign();
            let request = ExchangeRequest::new(token, "scaivault");
            assert_eq!(service.outcome(&request).await, "revoked", "{missing} {name}");
        }
    }
}

#[tokio::test]
async fn revoked_session_tokens_end() {
    let service = Service::new().await;
    let issuer = service.provider.issuer();
    let revocations: [fn(String, &str) -> Revocation; 2] = [
        |issuer, _| Revocation::subject(issuer, "bob-id"),
        |issuer, sid| Revocation::session(issuer, sid),
    ];
    for revocation in revocations {
        service.clock.advance(Duration::from_secs(10));
        let first = service.client.password(&PasswordRequest::new("bob", "hunter2")).await.unwrap();
        let claims: serde_json::Value = insecure_decode_claims(first.secret().expose()).unwrap();
        let session = SessionTokens::new(service.client.clone(), first);
        session.access_token().await.unwrap();
        let asked = service.provider.token_requests();
        service.revoke(revocation(issuer.clone(), claims["sid"].as_str().unwrap())).await;
        for seconds in [0, 3000, 4000] {
            service.clock.advance(Duration::from_secs(seconds));
            let refused = session.access_token().await.unwrap_err();
            assert!(matches!(refused, ExchangeError::Revoked), "{refused}");
        }
        assert_eq!(service.provider.token_requests(), asked, "the refresh token is not used");
    }
}

#[tokio::test]
async fn builder_sets_revocations() {
    let service = Service::new().await;
    let client = builder(&service.provider).requested_token_type(None);
    let client = client.revocations(service.auth.revocations()).build().unwrap();
    let unbound = builder(&service.provider).requested_token_type(None).build().unwrap();
    let request =
        ExchangeRequest::new(service.provider.token().subject("alice").sign(), "scaivault");
    client.exchange(&request).await.unwrap();
    service.revoke(Revocation::subject(service.provider.issuer(), "alice")).await;
    let refused = client.exchange(&request).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::Revoked));
    assert!(refused.oauth_error().is_none() && refused.retry_after().is_none());
    assert!(unbound.exchange(&request).await.is_ok());
}
