//! A guard for each method or path; paths without a rule are refused.

use std::convert::Infallible;

use axum::Router;
use bytes::Bytes;
use http_body_util::Full;
use scaikey_auth::error::Grpc;
use scaikey_auth::guard::{GuardRequest, PathRules, authenticated, guard_fn};
use scaikey_auth::{Auth, AuthError, role, scope};
use tonic::Code;
use tonic::service::{LayerExt as _, Routes};
use tower::ServiceBuilder;

use super::{Client, Texts, health, serve};
use crate::support::{Log, Server, Spy, World, request};

const FORBIDDEN: &str = "The token does not grant access to this resource.";

fn rules(auth: &Auth) -> PathRules {
    auth.require_by_path()
        .path("/test.Texts/Say", scope("texts:read"))
        .path("/test.Texts/Count", scope("texts:read"))
        .path("/test.Texts/Collect", authenticated())
        .path("/test.Texts/Echo", role("editor"))
        .public("/test.Texts/Whisper")
}

/// Serves [`Texts`] with a rule for each method but one, beside a public health service.
async fn server(auth: &Auth) -> Server {
    let protected = ServiceBuilder::new()
        .layer(auth.layer().optional().respond_with(Grpc))
        .layer(rules(auth).build().unwrap().respond_with(Grpc))
        .named_layer(Texts);
    let mut services = Routes::builder();
    services.add_service(tonic_health::server::health_reporter().1).add_service(protected);
    serve(services.routes()).await
}

#[tokio::test]
async fn each_method_has_its_guard() {
    let world = World::new().await;
    let server = server(&world.auth().build().unwrap()).await;
    assert_eq!(health(&server).await, Ok(1));
    let token = || world.provider.token().subject("alice");
    let (plain, reader) = (token().sign(), token().scope("texts:read").sign());
    let editor = token().roles(["editor"]).sign();
    let (refused, forbidden) = (Err(Code::Unauthenticated), Err(Code::PermissionDenied));
    let table = [
        (None, [refused, refused, refused, refused, Ok("nobody: hush")]),
        (Some(plain), [forbidden, forbidden, Ok("alice: a b"), forbidden, Ok("alice: hush")]),
        (
            Some(reader),
            [Ok("alice: hi"), Ok("alice: 1"), Ok("alice: a b"), forbidden, Ok("alice: hush")],
        ),
        (Some(editor), [forbidden, forbidden, Ok("alice: a b"), Ok("alice: a"), Ok("alice: hush")]),
        (Some("bad".to_owned()), [refused; 5]),
    ];
    for (token, expected) in table {
        let mut client = Client::new(&server, token.clone()).await;
        let answers = [
            client.say("Say", "hi").await,
            client.count().await.map(|texts| texts[0].clone()),
            client.collect(&["a", "b"]).await,
            client.echo(&["a", "b"]).await.map(|texts| texts[0].clone()),
            client.say("Whisper", "hush").await,
        ];
        let codes = answers.each_ref().map(|it| it.as_deref().map_err(|status| status.code()));
        assert_eq!(codes, expected, "{token:?}");
    }
}

#[tokio::test]
async fn unlisted_method_is_refused_and_logged() {
    let world = World::new().await;
    let server = server(&world.auth().build().unwrap()).await;
    let log = Log::start();
    // Without a token, the caller does not learn which methods have rules.
    let refused = Client::new(&server, None).await.say("Delete", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(log.lines("WARN"), [""; 0]);
    let token = world.provider.token().scope("texts:read").roles(["editor"]).sign();
    let mut client = Client::new(&server, Some(token)).await;
    for _ in 0..2 {
        let refused = client.say("Delete", "").await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, FORBIDDEN));
    }
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["no rule", r#".path("/test.Texts/Delete", guard)"#, "require_by_path"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    assert!(log.text().contains(r#"reason="path_unlisted""#), "{}", log.text());
    // Clients choose paths, so the number of warnings is bounded.
    for number in 0..40 {
        let method = format!("Try{number}{}", "x".repeat(500));
        assert_eq!(client.say(&method, "").await.unwrap_err().code(), Code::PermissionDenied);
    }
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 16, "{warnings:?}");
    assert!(warnings.iter().all(|line| line.len() < 1000), "{warnings:?}");
}

/// Plain hyper: the service itself compares paths exactly, and so do the rules.
#[tokio::test]
async fn http_paths_match_exactly() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let reads = guard_fn(|request: &GuardRequest<'_>| match request.head.method.as_str() {
        "GET" => Ok(()),
        _ => Err(AuthError::Forbidden { required: "GET".into() }),
    });
    let rules = auth.require_by_path().path("/docs", reads).path("/", authenticated());
    let rules = rules.path("/docs/", role("admin")).path("/caf%C3%A9", authenticated());
    let serve = |_| async { Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::from("in"))) };
    let stack =
        ServiceBuilder::new().layer(auth.layer()).layer(rules.build().unwrap()).service_fn(serve);
    let server = Server::hyper(stack).await;
    let authorization = format!("Bearer {}", world.provider.token().sign());
    let table = [
        ("GET", "/docs", 200),
        ("GET", "/docs?page=1", 200),
        ("GET", "/", 200),
        ("GET", "/caf%C3%A9", 200),
        ("POST", "/docs", 403),
        ("GET", "/docs/", 403),
        ("GET", "/Docs", 403),
        ("GET", "/%64ocs", 403),
        ("GET", "/docs/7", 403),
        ("GET", "//docs", 403),
        ("GET", "/./docs", 403),
        ("GET", "/docs;a", 403),
        ("GET", "/caf%c3%a9", 403),
        ("OPTIONS", "*", 403),
    ];
    for (method, path, status) in table {
        let answer = server.send(request(method, path, &[("authorization", &authorization)])).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(!answer.body.contains("rule"), "{answer:?}");
        let answer = server.send(request(method, path, &[])).await;
        assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
    }
    // Another token would not help, so an unlisted path has no challenge.
    let answer = server.send(request("GET", "/no", &[("authorization", &authorization)])).await;
    assert_eq!((answer.status, answer.header_opt("www-authenticate")), (403, None));
}

#[tokio::test]
async fn nested_router_sees_path_without_prefix() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let rules = |path: &str| auth.require_by_path().path(path, authenticated()).build().unwrap();
    let app = |path| Spy::default().app().layer(rules(path)).layer(auth.layer());
    let token = world.provider.token().sign();
    for (path, status) in [("/docs", 200), ("/v1/docs", 403)] {
        let server = Server::axum(Router::new().nest("/v1", app(path))).await;
        assert_eq!(server.get_as("/v1/docs", &token).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn missing_layer_is_500_for_each_path() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let log = Log::start();
    let server = Server::axum(Spy::default().app().layer(rules(&auth).build().unwrap())).await;
    for path in ["/test.Texts/Say", "/test.Texts/Whisper", "/other"] {
        let answer = server.get_as(path, &world.provider.token().sign()).await;
        assert_eq!(answer.status, 500, "{path}");
    }
    assert!(log.lines("ERROR")[0].contains("add `.layer(auth.layer())` outside the guard"));
}

#[tokio::test]
async fn preflights_pass_to_each_path() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let app = Spy::default().app().layer(rules(&auth).build().unwrap()).layer(auth.layer());
    let server = Server::axum(app).await;
    let headers = [("origin", "https://a.example"), ("access-control-request-method", "POST")];
    for path in ["/test.Texts/Say", "/other"] {
        assert_eq!(server.send(request("OPTIONS", path, &headers)).await.status, 200, "{path}");
    }
}

/// A path is public only for requests that the outer layer lets pass.
#[tokio::test]
async fn strict_layer_closes_public_paths() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let app = |layer| Spy::default().app().layer(rules(&auth).build().unwrap()).layer(layer);
    for (layer, status) in [(auth.layer(), 401), (auth.layer().optional(), 200)] {
        let server = Server::axum(app(layer)).await;
        assert_eq!(server.get("/test.Texts/Whisper", &[]).await.status, status);
        assert_eq!(server.get("/test.Texts/Say", &[]).await.status, 401);
    }
}

#[tokio::test]
async fn faulty_paths_are_listed_at_build() {
    let world = World::new().await;
    let auth = world.auth().build().unwrap();
    let table = [
        ("", "begin with `/`"),
        ("shop.Orders/Get", "`/package.Service/Method`"),
        ("https://h.example/a", "begin with `/`"),
        ("/a?b=c", "remove the query"),
        ("/a#b", "fragment"),
        ("/a b", "spaces"),
        ("/a\n", "control characters"),
        ("/café", "`%C3%A9`"),
        ("/docs/{id}", "is a pattern"),
        ("/docs/*", "is a pattern"),
        ("/a//b", "empty segments"),
        ("/a/../b", "dot segments"),
        ("/.", "dot segments"),
    ];
    let mut rules = auth.require_by_path();
    for (path, _) in table {
        rules = rules.path(path, authenticated());
    }
    let faults = rules.build().unwrap_err();
    assert_eq!(faults.faults().len(), table.len(), "{faults}");
    for (fault, (path, problem)) in faults.faults().iter().zip(table) {
        assert_eq!(fault.field, "require_by_path");
        assert!(fault.problem.starts_with(&format!("`{path}` ")), "{fault:?}");
        assert!(fault.problem.contains(problem), "{fault:?}");
    }
    let twice = auth.require_by_path().path("/a", scope("read")).public("/b").public("/a");
    let faults = twice.path("/c/", role("x")).path("/c", role("x")).build().unwrap_err();
    let [fault] = faults.faults() else { panic!("{faults}") };
    assert_eq!(fault.problem, "`/a` has two rules");
    // Without rules, every path is refused.
    let server = Server::axum(
        Spy::default().app().layer(auth.require_by_path().build().unwrap()).layer(auth.layer()),
    );
    let token = world.provider.token().sign();
    assert_eq!(server.await.get_as("/", &token).await.status, 403);
}
