//! The admission check: who may come in although the token holds.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use http::Request;
use scaikey_auth::admission::{Admission, AdmissionCheck, AdmissionRequest};
use scaikey_auth::error::{BoxError, InvalidToken};
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
    asked: Arc<AtomicU64>,
    is_away: Arc<AtomicBool>,
    /// Whether the answer must be waited for.
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
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
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
        assert_eq!(auth.verified_tokens().stats().hits, hits + 1, "known");
        assert_eq!((spy.calls(), list.asked.load(Ordering::SeqCst)), (2, 3), "once a request");
        // Others of the same user go on.
        let other = world.provider.token().claim("sid", "session-2").sign();
        assert_eq!(server.get_as("/", &other).await.status, 200);
    }
}

#[tokio::test]
async fn single_token_is_denied_by_its_name() {
    let world = World::new().await;
    let list = DenyList::default();
    list.deny("token-1");
    let auth = world.auth().admission(list).build().unwrap();
    let (server, _) = server(&auth).await;
    assert_eq!(server.get_as("/", &token(&world).sign()).await.status, 401);
    assert_eq!(server.get_as("/", &token(&world).claim("jti", "token-2").sign()).await.status, 200);
}

#[tokio::test]
async fn store_that_fails_is_answered_with_503() {
    let world = World::new().await;
    for list in DenyList::both() {
        let auth = world.auth().admission(list.clone()).build().unwrap();
        let (server, spy) = server(&auth).await;
        let token = token(&world).sign();
        assert_eq!(server.get_as("/", &token).await.status, 200);
        let log = Log::start();
        list.is_away.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let answer = server.get_as("/", &token).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
            assert_eq!(answer.error(), None);
            assert!(!answer.body.contains("secret cause"), "{}", answer.body);
        }
        list.is_away.store(false, Ordering::SeqCst);
        assert_eq!(server.get_as("/", &token).await.status, 200);
        let logged = log.text();
        assert_eq!(logged.matches("WARN").count(), 1, "{logged}");
        assert!(logged.contains("admission check failed why=secret cause"), "{logged}");
        assert!(logged.contains("admission check works again"), "{logged}");
        assert_eq!(spy.calls(), 2);
    }
}

/// The answer of the check is the answer of the service, with its challenge.
#[derive(Debug, Clone)]
struct Denies(AuthError);

#[async_trait]
impl AdmissionCheck for Denies {
    fn try_admit(&self, _: &AdmissionRequest<'_>) -> Option<Result<Admission, BoxError>> {
        Some(Ok(Admission::Deny(self.0.clone())))
    }

    async fn admit(&self, _: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        unreachable!("the answer is at hand")
    }
}

#[tokio::test]
async fn denial_is_answered_as_the_check_says() {
    let world = World::new().await;
    let day = std::time::Duration::from_secs(86_400);
    for (error, status, code) in [
        (InvalidToken::Revoked.into(), 401, Some("invalid_token")),
        (InvalidToken::Expired.into(), 401, Some("invalid_token")),
        (AuthError::StepUpRequired { max_age: day }, 401, Some("insufficient_user_authentication")),
        (AuthError::Forbidden { required: "a paid plan".into() }, 403, Some("insufficient_scope")),
        (AuthError::TooManyRequests { retry_after: day }, 429, None),
        // Nobody becomes anonymous by being denied.
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

/// Who is denied learns nothing of the tenant; what does not hold is not asked about.
#[tokio::test]
async fn check_is_asked_between_token_and_tenant() {
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
        let before = list.asked.load(Ordering::SeqCst);
        assert_eq!(server.get_as("/", &token.clone().expired().sign()).await.status, 401);
        assert_eq!(server.get("/", &[]).await.status, 401);
        assert_eq!(list.asked.load(Ordering::SeqCst), before);
    }
}

#[tokio::test]
async fn every_door_asks_the_check() {
    let world = World::new().await;
    for list in DenyList::both() {
        let auth = world.auth().admission(list.clone()).build().unwrap();
        let endpoints = auth.endpoints().introspection_requires(|_: &AuthContext| Ok(()));
        let server = Server::axum(Router::new().layer(endpoints.build().unwrap())).await;
        let (own, asked) =
            (world.provider.token().claim("jti", "own").sign(), token(&world).sign());
        let introspect = async || {
            let request = Request::post("/v1/auth/introspect");
            let request = request.header("authorization", format!("Bearer {own}"));
            let request = request.header("content-type", "application/json");
            server.send(request.body(json!({ "token": asked }).to_string()).unwrap()).await
        };
        assert!(auth.authenticate(&asked).await.is_ok());
        assert_eq!(server.get_as("/v1/auth/whoami", &asked).await.status, 200);
        assert_eq!(introspect().await.json()["active"], true);
        list.deny("session-1");
        let refused = auth.authenticate(&asked).await.unwrap_err();
        assert!(matches!(refused, AuthError::InvalidToken(InvalidToken::Revoked)));
        let whoami = server.get_as("/v1/auth/whoami", &asked).await;
        assert_eq!((whoami.status, whoami.error().as_deref()), (401, Some("invalid_token")));
        assert_eq!(introspect().await.json(), json!({ "active": false }));
        list.deny("own");
        assert_eq!(introspect().await.status, 401);
        list.is_away.store(true, Ordering::SeqCst);
        assert_eq!(introspect().await.status, 503);
    }
}

/// Sees the identity and the time.
#[derive(Debug)]
struct Sees(std::time::SystemTime);

#[async_trait]
impl AdmissionCheck for Sees {
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
    let auth = world.auth().admission(Arc::new(Sees(now))).build().unwrap();
    let (server, _) = server(&auth).await;
    assert_eq!(server.get_as("/", &token(&world).sign()).await.status, 200);
}

/// A check whose store gives no answer.
#[derive(Debug)]
struct Hangs;

#[async_trait]
impl AdmissionCheck for Hangs {
    async fn admit(&self, _: &AdmissionRequest<'_>) -> Result<Admission, BoxError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn check_that_hangs_is_answered_with_503() {
    let world = World::new().await;
    let auth = world.auth().admission(Hangs).build().unwrap();
    let (server, spy) = server(&auth).await;
    let token = token(&world).sign();
    let answer = tokio::time::timeout(Duration::from_secs(30), server.get_as("/", &token)).await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.header("retry-after"), spy.calls()), (503, "1", 0));
}
