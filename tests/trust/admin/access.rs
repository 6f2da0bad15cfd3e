//! Who may use the administration, and its paths and methods.

use axum::http::Method;
use scaikey_auth::endpoints::{Endpoint, TrustAdmin};
use scaikey_auth::guard::{GuardExt as _, GuardRequest, guard_fn};
use scaikey_auth::{AuthError, scope};

use super::fixture::{Store, World, assert_problem};
use crate::fixture::policy;
use crate::support::Server;

/// Each path with its methods.
const PATHS: [(&str, &str); 12] = [
    ("", "GET, HEAD, PUT"),
    ("/lint", "POST"),
    ("/explain", "POST"),
    ("/dry_run", "POST"),
    ("/rollback", "POST"),
    ("/decisions", "GET, HEAD"),
    ("/history", "GET, HEAD"),
    ("/history/1", "GET, HEAD"),
    ("/presets", "GET, HEAD"),
    ("/ui", "GET, HEAD"),
    ("/ui/app.js", "GET, HEAD"),
    ("/ui/style.css", "GET, HEAD"),
];

#[tokio::test]
async fn administration_is_off_by_default() {
    let world = World::new().await;
    let evaluator = world.evaluator().policy(policy(&[world.text()])).build().unwrap();
    let endpoints =
        world.auth().endpoints().workloads(world.workloads(&evaluator)).build().unwrap();
    assert!(!endpoints.enabled().contains(&Endpoint::Trusts));
    let server = Server::hyper(endpoints.service()).await;
    for (path, _) in PATHS {
        let answer = server.get_as(&format!("/v1/auth/trusts{path}"), &world.owner()).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, ""), "{path}");
    }
}

#[tokio::test]
async fn administration_without_policy_is_a_fault() {
    let world = World::new().await;
    let admin = TrustAdmin::new(scope("trust:admin"));
    let error = world.auth().endpoints().trust_admin(admin).build().unwrap_err();
    assert!(error.to_string().contains("`workloads`"), "{error}");
}

#[tokio::test]
async fn only_admitted_callers_get_in() {
    let world = World::new().await;
    let service = world.start_read_only().await;
    for (path, methods) in PATHS.into_iter().filter(|(path, _)| !path.starts_with("/ui")) {
        for method in methods.split(", ") {
            let without = service.send(method, path, "", &[], "").await;
            assert_eq!(without.status, 401, "{method} {path}");
            assert_eq!(without.error(), None);
            let other = service.send(method, path, &world.token("trust:read"), &[], "").await;
            assert_eq!(other.status, 403, "{method} {path}");
            assert_eq!(other.error().as_deref(), Some("insufficient_scope"));
            let expired = world.scaikey.token().audience("scaivault").expired().sign();
            assert_eq!(service.send(method, path, &expired, &[], "").await.status, 401);
        }
    }
}

#[tokio::test]
async fn wrong_methods_and_paths_are_refused() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    for (path, allow) in PATHS {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = service.send(method, path, &owner, &[], "").await;
            let is_allowed = allow.split(", ").any(|name| name == method);
            assert_eq!(answer.status == 405, !is_allowed, "{method} {path} {}", answer.status);
            if !is_allowed {
                assert_eq!(answer.header("allow"), allow, "{path}");
                // The answer to HEAD has no body.
                if method != "HEAD" {
                    assert_problem(&answer, 405, "method_not_allowed");
                }
            }
        }
    }
    let unknown = [
        "/",
        "/x",
        "/lint/",
        "/lint/x",
        "/ui/",
        "/ui/x.js",
        "/ui/../lint",
        "//lint",
        "/history/0",
        "/history/01",
        "/history/+1",
        "/history/x",
        "/history/99999999999999999999",
        "/LINT",
        "/ui/app.js/",
    ];
    for path in unknown {
        for token in ["", &owner] {
            let answer = service.get(path, token).await;
            assert_eq!(answer.status, 404, "{path}");
            assert_problem(&answer, 404, "not_found");
        }
    }
    // These are other paths, which belong to the service.
    for path in ["x", "/../x"] {
        let answer = service.get(path, &owner).await;
        assert_eq!(answer.status, 404);
    }
    let head = service.send("HEAD", "", &owner, &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn guard_sees_method_and_whole_path() {
    let world = World::new().await;
    let evaluator = world.evaluator().store(Store::default()).build().unwrap();
    let reads = guard_fn(|request: &GuardRequest<'_>| {
        assert!(request.head.uri.path().starts_with("/v1/auth/trusts"));
        match *request.head.method {
            Method::GET | Method::HEAD => Ok(()),
            _ => Err(AuthError::Forbidden { required: "method GET".into() }),
        }
    });
    let admin = TrustAdmin::new(scope("trust:admin").or(scope("trust:read").and(reads)));
    let endpoints =
        world.auth().endpoints().workloads(world.workloads(&evaluator)).trust_admin(admin);
    let server = Server::hyper(endpoints.build().unwrap().service()).await;
    let service = super::fixture::Service { server, evaluator };
    let auditor = world.token("trust:read");
    for (caller, is_writable) in [(&auditor, false), (&world.owner(), true)] {
        let shown = service.get("", caller).await;
        assert_eq!((shown.status, &shown.json()["writable"]), (200, &is_writable.into()));
    }
    let lint = service.post_toml("/lint", &auditor, "").await;
    // The refusal is that of the first guard.
    assert_eq!((lint.status, lint.error().as_deref()), (403, Some("insufficient_scope")));
    assert_eq!(service.post_toml("/lint", &world.owner(), "").await.status, 200);
}
