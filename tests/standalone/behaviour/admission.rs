//! Admission checks: callers with a valid token that are denied nevertheless.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use http::Request;
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::error::{BoxError, InvalidToken, StepUp};
use scaikey_auth::identity::Provenance;
use scaikey_auth::tenant::MemoryTenants;
use scaikey_auth::testing::TokenBuilder;
use scaikey_auth::{Auth, AuthContext, AuthError};
use serde_json::json;

use crate::support::{Log, Server, Spy, World};

/// A deny list of sessions and tokens.
#[derive(Debug, Clone, Default)]
struct DenyList {
    denied: Arc<Mutex<HashSet<String>>>,
    calls: Arc<AtomicU64>,
    is_down: Arc<AtomicBool>,
    /// Whether the answer takes an asynchronous call.
    is_slow: bool,
}

impl DenyList {
    fn slow() -> Self {
        Self { is_slow: true, ..Self::default() }
    }

    fn both() -> [Self; 2] {
        [Self::default(), Self::slow()]
    }

    fn deny(&self, id: &str) {
        self.denied.lock().unwrap().insert(id.to_owned());
    }

    fn answer(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err("secret cause".into());
        }
        let ids = [request.identity.session_id(), request.identity.token_id()];
        let denied = self.denied.lock().unwrap();
        Ok(match ids.into_iter().flatten().any(|id| denied.contains(id)) {
            true => Admission::Deny(InvalidToken::Revoked.into()),
            false => Admission::Allow,
        })
    }
}

#[async_trait]
impl AdmissionCheck for DenyList {
    fn try_admit(&self, request: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        (!self.is_slow).then(|| self.answer(request))
    }

    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        tokio::task::yield_now().await;
        self.answer(request)
    }
}

fn token(world: &World) -> TokenBuilder {
    world.provider.token().claim("sid", "session-1").claim("jti", "token-1")
}

async fn server(auth: &Auth) -> (Server, Spy) {
    let spy = Spy::default();
    (Server::axum(spy.app().layer(auth.layer())).await, spy)
}

#[tokio::test]
async fn denied_session_is_refused_despite_cached_token() {
    let world = World::new().await;
    for list in DenyList::both() {
        let auth = world.auth().admission(list.clone()).build().unwrap();
        let (server, spy) = server(&auth).await;
        let token = token(&world).sign();
        for _ in 0..2 {
            assert_eq!(server.get_as("/", &token).await.status, 200);
        }
        list.deny("session-1");
        let hits = auth.verified_tokens().stats().hits;
        let answer = server.get_as("/", &token).await;
        assert_eq!((answer.status, answer.error().as_deref()), (401, Some("invalid_token")));
        assert_eq!(answer.json()["type"], "urn:scaikey-auth:token_revoked");
        assert_eq!(answer.json()["detail"], "The token has been revoked.");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(auth.verified_tokens().stats().hits, hits + 1, "the token is cached");
        assert_eq!((spy.calls(), list.calls.load(Ordering::SeqCst)), (2, 3), "once per request");
        // Other sessions of the same user continue.
        let other = world.provider.token().claim("sid", "session-2").sign();
        assert_eq!(server.get_as("/", &other).await.status, 200);
    }
}

#[tokio::test]
async fn single_token_is_denied_by_jti() {
    let world = World::new().await;
    let list = DenyList::default();
    list.deny("token-1");
    let auth = world.auth().admission(list).build().unwrap();
    let (server, _) = server(&auth).await;
    assert_eq!(server.get_as("/", &token(&world).sign()).await.status, 401);
    assert_eq!(server.get_as("/", &token(&world).claim("jti", "token-2").sign()).await.status, 200);
}

#[tokio::test]
async fn failing_store_answers_503() {
    let world = World::new().await;
    for list in DenyList::both() {
        let auth = world.auth().admission(list.clone()).build().unwrap();
        let (server, spy) = server(&auth).await;
        let token = token(&world).sign();
        assert_eq!(server.get_as("/", &token).await.status, 200);
        let log = Log::start();
        list.is_down.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let answer = server.get_as("/", &token).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
            assert_eq!(answer.error(), None);
            assert!(!answer.body.contains("secret cause"), "{}", answer.body);
        }
        list.is_down.store(false, Ordering::SeqCst);
        assert_eq!(server.get_as("/", &token).await.status, 200);
        let logged = log.text();
        assert_eq!(logged.matches("WARN").count(), 1, "{logged}");
        assert!(logged.contains("admission check failed error=secret cause"), "{logged}");
        assert!(logged.contains("admission check works again"), "{logged}");
        assert_eq!(spy.calls(), 2);
    }
}

/// A check that denies every caller with the given error.
#[derive(Debug, Clone)]
struct Denies(AuthError);

#[async_trait]
impl AdmissionCheck for Denies {
    fn try_admit(&self, _: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        Some(Ok(Admission::Deny(self.0.clone())))
    }

    async fn admit(&self, _: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        unreachable!("try_admit decides")
    }
}

#[tokio::test]
async fn denied_request_gets_error_of_check() {
    let world = World::new().await;
    let day = std::time::Duration::from_secs(86_400);
    for (error, status, code) in [
        (InvalidToken::Revoked.into(), 401, Some("invalid_token")),
        (InvalidToken::Expired.into(), 401, Some("invalid_token")),
        (StepUp::default().max_age(day).into(), 401, Some("insufficient_user_authentication")),
        (AuthError::Forbidden { required: "a paid plan".into() }, 403, Some("insufficient_scope")),
        (AuthError::TooManyRequests { retry_after: day }, 429, None),
        // A denied caller does not become anonymous.
        (AuthError::MissingCredentials, 401, None),
    ] {
        let auth = world.auth().admission(Denies(error.clone())).build().unwrap();
        let spy = Spy::default();
        let server = Server::axum(spy.app().layer(auth.layer().optional())).await;
        let token = token(&world).sign();
        for _ in 0..2 {
            let answer = server.get_as("/", &token).await;
            assert_eq!((answer.status, answer.error().as_deref()), (status, code), "{error:?}");
        }
        assert_eq!(spy.calls(), 0, "{error:?}");
    }
}

#[tokio::test]
async fn all_checks_must_allow() {
    let world = World::new().await;
    for [first, second] in [
        [DenyList::default(), DenyList::default()],
        [DenyList::default(), DenyList::slow()],
        [DenyList::slow(), DenyList::default()],
        [DenyList::slow(), DenyList::slow()],
    ] {
        let auth = world.auth().admission(first.clone()).admission(second.clone());
        let (server, _) = server(&auth.build().unwrap()).await;
        let token = |id: &str| token(&world).claim("jti", id).sign();
        first.deny("one");
        second.deny("two");
        for _ in 0..2 {
            assert_eq!(server.get_as("/", &token("one")).await.status, 401);
            assert_eq!(server.get_as("/", &token("two")).await.status, 401);
            assert_eq!(server.get_as("/", &token("three")).await.status, 200);
        }
    }
}

/// A denied caller learns nothing about the tenant, and an invalid token does not reach the check.
#[tokio::test]
async fn check_runs_before_tenant_lookup() {
    let world = World::new().await;
    for list in DenyList::both() {
        let auth = world.auth().tenants(MemoryTenants::new()).admission(list.clone());
        let (server, _) = server(&auth.build().unwrap()).await;
        let token = token(&world);
        for _ in 0..2 {
            assert_eq!(server.get_as("/", &token.clone().sign()).await.status, 403);
        }
        list.deny("session-1");
        for _ in 0..2 {
            assert_eq!(server.get_as("/", &token.clone().sign()).await.status, 401);
        }
        let before = list.calls.load(Ordering::SeqCst);
        assert_eq!(server.get_as("/", &token.clone().expired().sign()).await.status, 401);
        assert_eq!(server.get("/", &[]).await.status, 401);
        assert_eq!(list.calls.load(Ordering::SeqCst), before);
    }
}

#[tokio::test]
async fn every_entry_point_runs_the_check() {
    let world = World::new().await;
    for list in DenyList::both() {
        let auth = world.auth().admission(list.clone()).build().unwrap();
        let endpoints = auth.endpoints().introspection_requires(|_: &AuthContext| Ok(()));
        let server = Server::axum(Router::new().layer(endpoints.build().unwrap())).await;
        let (own, subject) =
            (world.provider.token().claim("jti", "own").sign(), token(&world).sign());
        let introspect = async || {
            let request = Request::post("/v1/auth/introspect");
            let request = request.header("authorization", format!("Bearer {own}"));
            let request = request.header("content-type", "application/json");
            server.send(request.body(json!({ "token": subject }).to_string()).unwrap()).await
        };
        assert!(auth.authenticate(&subject).await.is_ok());
        assert_eq!(server.get_as("/v1/auth/whoami", &subject).await.status, 200);
        assert_eq!(introspect().await.json()["active"], true);
        list.deny("session-1");
        let refused = auth.authenticate(&subject).await.unwrap_err();
        assert!(matches!(refused, AuthError::InvalidToken(InvalidToken::Revoked)));
        let whoami = server.get_as("/v1/auth/whoami", &subject).await;
        assert_eq!((whoami.status, whoami.error().as_deref()), (401, Some("invalid_token")));
        assert_eq!(introspect().await.json(), json!({ "active": false }));
        list.deny("own");
        assert_eq!(introspect().await.status, 401);
        list.is_down.store(true, Ordering::SeqCst);
        assert_eq!(introspect().await.status, 503);
    }
}

/// A check that expects this time.
#[derive(Debug)]
struct ExpectTime(std::time::SystemTime);

#[async_trait]
impl AdmissionCheck for ExpectTime {
    async fn admit(&self, request: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        let identity = request.identity;
        assert_eq!((identity.subject(), identity.provenance()), ("alice-id", Provenance::Verified));
        assert_eq!(request.now, self.0);
        Ok(Admission::Allow)
    }
}

#[tokio::test]
async fn check_sees_identity_and_time() {
    let world = World::new().await;
    let now = scaikey_auth::clock::Clock::now(&world.clock);
    let auth = world.auth().admission(Arc::new(ExpectTime(now))).build().unwrap();
    let (server, _) = server(&auth).await;
    assert_eq!(server.get_as("/", &token(&world).sign()).await.status, 200);
}

/// A check whose store never answers.
#[derive(Debug)]
struct Hangs;

#[async_trait]
impl AdmissionCheck for Hangs {
    async fn admit(&self, _: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn hanging_check_answers_503() {
    let world = World::new().await;
    let auth = world.auth().admission(Hangs).build().unwrap();
    let (server, spy) = server(&auth).await;
    let token = token(&world).sign();
    let answer = tokio::time::timeout(Duration::from_secs(30), server.get_as("/", &token)).await;
    let answer = answer.expect("the layer answers within its deadline");
    assert_eq!((answer.status, answer.header("retry-after"), spy.calls()), (503, "1", 0));
}
