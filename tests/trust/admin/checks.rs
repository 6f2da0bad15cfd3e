//! `lint` and `explain`, which change nothing.

use serde_json::json;

use super::fixture::{World, assert_problem};
use crate::fixture::pod;

#[tokio::test]
async fn lint_reports_faults_and_warnings() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    let good = service.post_toml("/lint", &owner, &world.text()).await;
    assert_eq!(good.status, 200, "{good:?}");
    assert_eq!(good.header("cache-control"), "no-store");
    assert_eq!(good.header("content-type"), "application/json");
    let body = good.json();
    assert_eq!((&body["faults"], &body["warnings"]), (&json!([]), &json!([])));
    assert_eq!(body["policy"]["trust"][0]["id"], "k8s");

    let bad = service.post_toml("/lint", &owner, "[[trust]]\nid = \"x\"\nid2 = 7\n").await;
    let body = bad.json();
    assert_eq!((bad.status, &body["policy"]), (200, &json!(null)));
    let faults = body["faults"].as_array().unwrap();
    assert!(faults.iter().any(|fault| fault["line"] == 3), "{bad:?}");
    for fault in faults {
        let mut names: Vec<_> = fault.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["column", "field", "line", "problem"]);
    }

    // JSON is a policy, too, and an issuer of this service is a fault.
    let json = json!({ "trust": [{ "id": "own", "issuer": world.scaikey.issuer(), "audiences": ["a"],
        "allow_loopback_http": true }] });
    let own = service.post_json("/lint", &owner, &json).await;
    assert!(
        own.json()["faults"][0]["problem"].as_str().unwrap().contains("issuer of this service")
    );
    // Nothing of it came into force.
    assert_eq!(service.evaluator.policy().trust_ids().collect::<Vec<_>>(), ["k8s"]);
}

#[tokio::test]
async fn bodies_of_other_types_are_refused() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"]
    {
        for path in ["/lint", "/explain"] {
            let headers = [("content-type", content_type)];
            let answer = service.send("POST", path, &owner, &headers, "{}").await;
            assert_problem(&answer, 415, "unsupported_media_type");
        }
    }
    let toml = [("content-type", "application/toml; charset=utf-8")];
    assert_eq!(service.send("POST", "/lint", &owner, &toml, "").await.status, 200);
    let answer = service.send("POST", "/lint", &owner, &toml, &b"\xff"[..]).await;
    assert_problem(&answer, 400, "request_malformed");
}

#[tokio::test]
async fn encoded_bodies_are_refused() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let toml = "application/toml";
    for (content_type, encoding, status) in [
        ("application/toml; charset=UTF-8", "identity", 200),
        ("application/toml; a=b ; Charset=\"utf-8\"", "", 200),
        ("application/toml; charset=utf-16", "identity", 415),
        ("application/toml; charset=utf-8; charset=latin1", "identity", 415),
        ("application/toml;charset=", "identity", 415),
        (toml, "gzip", 415),
        (toml, "identity, br", 415),
        (toml, "Identity", 200),
    ] {
        let headers = [("content-type", content_type), ("content-encoding", encoding)];
        let answer = service.send("POST", "/lint", &owner, &headers, "").await;
        match status {
            200 => assert_eq!(answer.status, 200, "{headers:?} {answer:?}"),
            status => assert_problem(&answer, status, "unsupported_media_type"),
        }
    }
    let gzip = [("content-type", toml), ("content-encoding", "gzip")];
    let answer = service.send("PUT", "", &owner, &gzip, "").await;
    assert_problem(&answer, 415, "unsupported_media_type");
    assert_eq!(answer.header("accept-encoding"), "identity");
    assert!(answer.body.contains("Content-Encoding"), "{answer:?}");
    let json = [("content-type", "application/json; charset=utf-16")];
    let answer = service.send("POST", "/rollback", &owner, &json, "{}").await;
    assert_problem(&answer, 415, "unsupported_media_type");
    assert!(answer.body.contains("UTF-8"), "{answer:?}");
}

#[tokio::test]
async fn explanation_names_rule_and_reason() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    let token = pod(&world.cluster).sign();
    let granted = service.post_json("/explain", &owner, &json!({ "token": token })).await;
    let body = granted.json();
    assert_eq!((granted.status, &body["outcome"]), (200, &json!("granted")), "{granted:?}");
    assert_eq!((&body["trust"], &body["rule"]), (&json!("k8s"), &json!("reporting")));
    assert!(!granted.body.contains(token.rsplit_once('.').unwrap().1));
    let html = pod(&world.cluster).subject("<img src=x onerror=alert(1)>").sign();
    let denied = service.post_json("/explain", &owner, &json!({ "token": html })).await;
    assert_eq!(denied.json()["outcome"], "grant_none", "{denied:?}");
    assert!(denied.body.contains("<img src=x onerror=alert(1)>"), "{denied:?}");
    assert_eq!(denied.header("content-type"), "application/json");
    assert_eq!(denied.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn malformed_explain_requests_are_refused() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    let json = [("content-type", "application/json")];
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"token":7}"#,
        r#"{"token":"a","token":"b"}"#,
        r#"{"x":1}"#,
        r#"{"token":"a","trust_id":7}"#,
        r#"{"token":"a"} x"#,
        r#"{"claims":[]}"#,
        r#"{"claims":"{}"}"#,
        r#"{"claims":7}"#,
        r#"{"claims":null}"#,
    ] {
        let answer = service.send("POST", "/explain", &owner, &json, body).await;
        assert_problem(&answer, 400, "request_malformed");
    }
}
