//! Guards of single routes.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{MatchedPath, OriginalUri};
use axum::http::{Method, Request};
use axum::routing::get;
use scaikey_auth::clock::Clock;
use scaikey_auth::guard::{
    Guard, GuardExt, GuardRequest, any_role, any_scope, group, guard_fn, kind, mfa_within,
    verified_token,
};
use scaikey_auth::identity::IdentityKind;
use scaikey_auth::testing::TokenBuilder;
use scaikey_auth::{Auth, AuthContext, AuthError, role, scope};

use crate::support::{Answer, Server, Spy, World, request};

async fn guarded(auth: &Auth, guard: impl Guard) -> (Server, Spy) {
    let spy = Spy::default();
    let app = spy.app().layer(auth.require(guard)).layer(auth.layer());
    (Server::axum(app).await, spy)
}

/// Sends each token, and returns the statuses. Checks that refused requests do not reach the
/// service.
async fn statuses(auth: &Auth, guard: impl Guard, tokens: Vec<TokenBuilder>) -> Vec<u16> {
    let (server, spy) = guarded(auth, guard).await;
    let mut statuses = Vec::new();
    for token in tokens {
        statuses.push(server.get_as("/", &token.sign()).await.status);
    }
    assert_eq!(spy.calls(), statuses.iter().filter(|status| **status == 200).count() as u64);
    statuses
}

#[tokio::test]
async fn scopes_must_match_exactly() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let tokens = || {
        ["a b", "b c a", "a", "b", "A B", "ab", "a:b", "", "a,b"]
            .map(|held| world.provider.token().scope(held))
            .to_vec()
    };
    assert_eq!(
        statuses(&auth, scope("a b"), tokens()).await,
        [200, 200, 403, 403, 403, 403, 403, 403, 403]
    );
    assert_eq!(
        statuses(&auth, any_scope("a b"), tokens()).await,
        [200, 200, 200, 200, 403, 403, 403, 403, 403]
    );
    for nothing in ["", " ", "a\"b", "é"] {
        assert_eq!(statuses(&auth, scope(nothing), tokens()).await, [403; 9], "{nothing:?}");
        assert_eq!(statuses(&auth, any_scope(nothing), tokens()).await, [403; 9], "{nothing:?}");
    }
}

#[tokio::test]
async fn refusal_names_all_required_scopes() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let token = world.provider.token().scope("docs:read").sign();
    let expect = |answer: Answer, scopes: &str| {
        assert_eq!(answer.status, 403);
        assert_eq!(answer.challenge().unwrap().param("scope"), Some(scopes));
        assert_eq!(answer.json()["required_scope"], scopes);
    };
    let (server, _) = guarded(&auth, scope("docs:read docs:write admin")).await;
    expect(server.get_as("/", &token).await, "docs:read docs:write admin");
    let (server, _) = guarded(&auth, any_scope("docs:write admin")).await;
    expect(server.get_as("/", &token).await, "docs:write admin");
}

#[tokio::test]
async fn roles_groups_and_kinds_must_match_exactly() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let tokens = || {
        vec![
            world.provider.token().roles(["boss"]).groups(["group-sre"]),
            world.provider.token().roles(["Boss"]).groups(["sre"]),
            world.provider.token().claim("role", "clerk"),
            world.provider.service_token("indexer"),
        ]
    };
    assert_eq!(statuses(&auth, role("boss"), tokens()).await, [200, 403, 403, 403]);
    assert_eq!(statuses(&auth, any_role(["boss", "clerk"]), tokens()).await, [200, 403, 200, 403]);
    assert_eq!(
        statuses(&auth, any_role([""; 0]), tokens()).await,
        [403; 4],
        "no roles are accepted"
    );
    assert_eq!(statuses(&auth, group("group-sre"), tokens()).await, [200, 403, 403, 403]);
    assert_eq!(statuses(&auth, kind(IdentityKind::User), tokens()).await, [200, 200, 200, 403]);
    let services = kind(IdentityKind::ServiceAccount);
    assert_eq!(statuses(&auth, services, tokens()).await, [403, 403, 403, 200]);
    assert_eq!(statuses(&auth, kind(IdentityKind::Workload), tokens()).await, [403; 4]);
    assert_eq!(statuses(&auth, verified_token(), tokens()).await, [200; 4]);
}

#[tokio::test]
async fn guards_combine_with_and_or() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let tokens = || {
        vec![
            world.provider.token().scope("a b"),
            world.provider.token().scope("a").roles(["tenant_admin"]),
            world.provider.token().scope("c").subject("bob"),
        ]
    };
    assert_eq!(statuses(&auth, scope("a").and(scope("b")), tokens()).await, [200, 403, 403]);
    assert_eq!(statuses(&auth, scope("b").or(scope("c")), tokens()).await, [200, 403, 200]);
    let either = scope("a").and(scope("b").or(role("tenant_admin")));
    assert_eq!(statuses(&auth, either, tokens()).await, [200, 200, 403]);
    let is_bob = |context: &AuthContext| match context.identity().subject() {
        "bob" => Ok(()),
        _ => Err(AuthError::TenantSuspended),
    };
    assert_eq!(statuses(&auth, is_bob, tokens()).await, [403, 403, 200]);
    let (server, _) = guarded(&auth, scope("b").or(scope("c"))).await;
    let answer = server.get_as("/", &world.provider.token().scope("a").sign()).await;
    assert_eq!(
        answer.challenge().unwrap().param("scope"),
        Some("b"),
        "the first refusal is returned"
    );
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn mfa_is_recent_up_to_max_age() {
    let world = World::new().await;
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(unix(world.clock.now()));
    world.clock.set_wall(whole);
    let auth = world.auth().build().unwrap();
    let (server, _) = guarded(&auth, mfa_within(Duration::from_secs(300))).await;
    let now = unix(whole);
    let token = world.provider.token().claim("amr", vec!["pwd", "mfa"]).claim("auth_time", now);
    let token = token.sign();
    assert_eq!(server.get_as("/", &token).await.status, 200);
    world.clock.advance(Duration::from_secs(300));
    assert_eq!(server.get_as("/", &token).await.status, 200, "on the boundary");
    world.clock.advance(Duration::from_secs(1));
    let answer = server.get_as("/", &token).await;
    assert_eq!(answer.status, 401);
    let challenge = answer.challenge().unwrap();
    assert_eq!(challenge.param("error"), Some("insufficient_user_authentication"));
    assert_eq!(challenge.param("max_age"), Some("300"));
}

#[tokio::test]
async fn mfa_without_time_is_not_recent() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let now = unix(world.clock.now());
    let token = || world.provider.token();
    let tokens = vec![
        token(),
        token().claim("auth_time", now),
        token().claim("amr", vec!["mfa"]),
        token().claim("amr", vec!["pwd"]).claim("auth_time", now),
        token().claim("amr", vec!["MFA"]).claim("auth_time", now),
        token().claim("amr", "mfa").claim("auth_time", now),
        token().claim("acr", "mfa").claim("auth_time", now),
    ];
    assert_eq!(statuses(&auth, mfa_within(Duration::from_secs(300)), tokens).await, [401; 7]);
}

/// Otherwise an issuer that writes milliseconds would authenticate its users for ever.
#[tokio::test]
async fn mfa_in_the_future_is_not_recent() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let now = unix(world.clock.now());
    let token = |at: u64| world.provider.token().claim("amr", vec!["mfa"]).claim("auth_time", at);
    let tokens = vec![token(now + 30), token(now + 3600), token(now * 1000)];
    let guard = mfa_within(Duration::from_secs(300));
    assert_eq!(statuses(&auth, guard, tokens).await, [200, 401, 401]);
    let ever = mfa_within(Duration::MAX);
    assert_eq!(statuses(&auth, ever, vec![token(0), world.provider.token()]).await, [200, 401]);
}

#[tokio::test]
async fn invalid_token_is_refused_before_guards() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let (server, _) = guarded(&auth, mfa_within(Duration::from_secs(300))).await;
    let answer = server.get_as("/", &world.provider.token().expired().sign()).await;
    assert_eq!(
        answer.error().as_deref(),
        Some("invalid_token"),
        "the challenge does not reveal the guard"
    );
    assert_eq!(answer.challenge().unwrap().param("max_age"), None);
}

#[tokio::test]
async fn guard_applies_only_to_its_route() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let app = Router::new()
        .route("/open", get(|| async {}))
        .route("/admin", get(|| async {}).route_layer(auth.require(scope("admin"))))
        .layer(auth.layer());
    let server = Server::axum(app).await;
    let (plain, admin) =
        (world.provider.token().sign(), world.provider.token().scope("admin").sign());
    for (path, token, status) in [
        ("/open", Some(&plain), 200),
        ("/open", None, 401),
        ("/admin", Some(&plain), 403),
        ("/admin", Some(&admin), 200),
        ("/admin", None, 401),
    ] {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|b| ("authorization", b.as_str())).collect();
        assert_eq!(server.get(path, &headers).await.status, status, "{path} {token:?}");
    }
}

#[tokio::test]
async fn guard_without_layer_answers_500() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let spy = Spy::default();
    let always = |_: &AuthContext| Ok(());
    let server = Server::axum(spy.app().layer(auth.require(always))).await;
    for token in [world.provider.token().sign(), "x".to_owned()] {
        let answer = server.get_as("/", &token).await;
        assert_eq!((answer.status, answer.header_opt("www-authenticate")), (500, None));
    }
    assert_eq!(spy.calls(), 0);
}

#[tokio::test]
async fn guard_behind_optional_layer_requires_token() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let spy = Spy::default();
    let always = |_: &AuthContext| Ok(());
    let app = spy.app().layer(auth.require(always)).layer(auth.layer().optional());
    let server = Server::axum(app).await;
    let answer = server.get("/", &[]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header_opt("www-authenticate"), Some(r#"Bearer realm="scaiwave""#));
    assert_eq!(spy.calls(), 0);
    assert_eq!(server.get_as("/", &world.provider.token().sign()).await.status, 200);
}

fn forbidden(required: impl Into<String>) -> AuthError {
    AuthError::Forbidden { required: required.into().into() }
}

/// Requires an editor for writing, and for everything below `/drafts`.
struct Editors;

impl Guard for Editors {
    fn check(&self, request: &GuardRequest<'_>) -> Result<(), AuthError> {
        let is_reading = request.head.method == Method::GET;
        if is_reading && !request.head.uri.path().starts_with("/drafts/") {
            return Ok(());
        }
        match request.context.identity().has_role("editor") {
            true => Ok(()),
            false => Err(forbidden("role editor")),
        }
    }
}

#[tokio::test]
async fn guard_decides_by_method_and_path() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let served = || get(|| async {}).post(|| async {});
    let app = Router::new()
        .route("/docs/{id}", served())
        .route("/drafts/{id}", served())
        .route_layer(auth.require(Editors))
        .route("/open", served())
        .layer(auth.layer());
    let server = Server::axum(app).await;
    let reader = world.provider.token().roles(["reader"]).sign();
    let editor = world.provider.token().roles(["editor"]).sign();
    for (method, path, reader_status) in [
        ("GET", "/docs/7", 200),
        ("POST", "/docs/7", 403),
        ("GET", "/drafts/7", 403),
        ("POST", "/drafts/7", 403),
        ("POST", "/open", 200),
    ] {
        for (token, status) in [(&reader, reader_status), (&editor, 200)] {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str())];
            let answer = server.send(request(method, path, &headers)).await;
            assert_eq!(answer.status, status, "{method} {path}");
        }
    }
}

/// Refuses every request. The refusal has the path that the guard sees, the original path, and the
/// route.
fn refuses_with_paths() -> impl Guard {
    guard_fn(|request| {
        let original = request.extensions.get::<OriginalUri>().map(|uri| uri.path());
        let route = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        let seen = request.head.uri.path();
        Err(AuthError::InsufficientScope {
            required: format!("{seen} {} {}", original.unwrap_or("-"), route.unwrap_or("-")).into(),
        })
    })
}

#[tokio::test]
async fn nested_guard_sees_path_without_prefix() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let docs = || Router::new().route("/docs/{id}", get(|| async {}));
    let guard = || auth.require(refuses_with_paths());
    let nested = |inner| Router::new().nest("/v1", inner);
    let token = world.provider.token().sign();
    for (name, app, seen) in [
        ("route_layer within", nested(docs().route_layer(guard())), "/docs/7"),
        ("layer within", nested(docs().layer(guard())), "/docs/7"),
        ("route_layer outside", nested(docs()).route_layer(guard()), "/v1/docs/7"),
        ("layer outside", nested(docs()).layer(guard()), "/v1/docs/7"),
    ] {
        let server = Server::axum(app.layer(auth.layer())).await;
        let answer = server.get_as("/v1/docs/7", &token).await;
        let paths = answer.json()["required_scope"].as_str().unwrap().to_owned();
        assert_eq!(paths, format!("{seen} /v1/docs/7 /v1/docs/{{id}}"), "{name}");
    }
}

#[tokio::test]
async fn guard_sees_time_of_auth_clock() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let opens_at = world.clock.now() + Duration::from_secs(60);
    let is_open = guard_fn(move |request| match request.now >= opens_at {
        true => Ok(()),
        false => Err(forbidden("a later hour")),
    });
    let (server, _) = guarded(&auth, is_open).await;
    let token = world.provider.token().sign();
    assert_eq!(server.get_as("/", &token).await.status, 403);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(server.get_as("/", &token).await.status, 200);
}

#[tokio::test]
async fn guard_can_be_called_without_layer() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let context = auth.authenticate(&world.provider.token().sign()).await.unwrap();
    let check = |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        Editors.check(&GuardRequest::new(&request, &context, world.clock.now()))
    };
    assert!(check(Method::GET, "/docs/7").is_ok());
    for (method, path) in [(Method::PUT, "/docs/7"), (Method::GET, "/drafts/7")] {
        assert!(matches!(check(method, path), Err(AuthError::Forbidden { .. })), "{path}");
    }
}
