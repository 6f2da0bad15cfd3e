//! Large bodies, many rules, slow bodies and many requests.

use std::time::Duration;

use scaikey_auth::endpoints::TokenBuckets;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fixture::{Store, World, assert_problem};
use crate::fixture::trust;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn policy_of_one_mib_is_accepted() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let start = world.text();
    let largest = format!("{start}{}\n", "#".repeat(MIB - start.len() - 1));
    assert_eq!(largest.len(), MIB);
    assert_eq!(service.post_toml("/lint", &owner, &largest).await.json()["faults"], json!([]));
    assert_eq!(service.change(&owner, &largest).await.status, 200);
    assert_eq!(service.get("", &owner).await.json()["text"], largest.as_str());
    let tag = service.get("", &owner).await.header("etag").to_owned();
    let larger = format!("{largest}\n");
    for (method, path) in [("PUT", ""), ("POST", "/lint"), ("POST", "/dry_run")] {
        let headers = [("content-type", "application/toml"), ("if-match", &*tag)];
        let answer = service.send(method, path, &owner, &headers, larger.clone()).await;
        assert_problem(&answer, 413, "too_large");
        assert_eq!(answer.header("connection"), "close");
    }
    // A text in JSON is longer than in TOML.
    let token = json!({ "token": "x", "text": largest });
    assert_eq!(service.post_json("/explain", &owner, &token).await.status, 200);
    let headers = [("content-type", "application/json"), ("if-match", &*tag)];
    let padded = format!("{{\"number\":1{}}}", " ".repeat(64 * 1024));
    let answer = service.send("POST", "/rollback", &owner, &headers, padded).await;
    assert_problem(&answer, 413, "too_large");
}

#[tokio::test]
async fn ten_thousand_rules_are_administered() {
    let world = World::new().await;
    let store = Store::default();
    let (service, owner) = (world.start_with(&store).await, world.owner());
    let mut text = trust("k8s", &world.cluster, "");
    for n in 0..10_000 {
        text.push_str(&format!(
            "[[trust.grant]]\nname=\"{n}\"\nsubject=\"s:{n}\"\nmap={{identity=\"sa:{n}\",tenant=\"t\",scopes=[\"r\"]}}\n"
        ));
    }
    assert!(text.len() < MIB, "{}", text.len());
    let lint = service.post_toml("/lint", &owner, &text).await.json();
    assert_eq!(lint["faults"], json!([]));
    let answer = service.put(&owner, &[("if-none-match", "*")], &text).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(service.get("", &owner).await.json()["trusts"][0]["rules"], 10_000);
    text.push_str("[[trust.grant]]\nname=\"x\"\nsubject=\"s:x\"\nmap={identity=\"sa:x\",tenant=\"t\",scopes=[\"r\"]}\n");
    let answer = service.change(&owner, &text).await;
    assert_problem(&answer, 422, "policy_invalid");
}

#[tokio::test]
async fn body_that_does_not_come_is_408() {
    let world = World::new().await;
    let store = Store::default();
    let evaluator = world.evaluator().store(store);
    let service =
        world.start(evaluator, |endpoints| endpoints.body_timeout(Duration::from_millis(1))).await;
    let address = service.server.url().replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/auth/trusts/lint HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/toml\r\ncontent-length: 10\r\n\r\n",
        world.owner()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("urn:scaikey-auth:too_slow"), "{answer}");
}

#[tokio::test]
async fn costly_requests_are_throttled_per_caller() {
    let world = World::new().await;
    let buckets = TokenBuckets::new().administration(2, Duration::from_secs(60));
    let store = Store::default();
    let evaluator = world.evaluator().store(store);
    let service = world.start(evaluator, |endpoints| endpoints.throttle(buckets)).await;
    let owner = world.owner();
    let json = json!({ "token": "x" });
    assert_eq!(service.post_toml("/lint", &owner, "").await.status, 200);
    assert_eq!(service.post_json("/explain", &owner, &json).await.status, 200);
    for answer in [
        service.post_toml("/lint", &owner, "").await,
        service.post_json("/explain", &owner, &json).await,
        service.post_toml("/dry_run", &owner, "").await,
        service.put(&owner, &[("if-none-match", "*")], "").await,
        service.roll_back(&owner, "\"1-0000000000000000\"", &json!({ "number": 1 })).await,
    ] {
        assert_problem(&answer, 429, "too_many_requests");
        assert_eq!(answer.header("retry-after"), "60");
    }
    // Reading is not counted, and another caller has a limit of their own.
    assert_eq!(service.get("", &owner).await.status, 200);
    let other = world.scaikey.token().scope("trust:admin").subject("ada").sign();
    assert_eq!(service.post_toml("/lint", &other, "").await.status, 200);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(service.post_toml("/lint", &world.owner(), "").await.status, 200);
}

#[tokio::test]
async fn refused_callers_send_no_body() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let address = service.server.url().replace("http://", "");
    for (token, status) in [("x", "401"), (&*world.token("other"), "403")] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "PUT /v1/auth/trusts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: application/toml\r\ncontent-length: 1000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, format!("HTTP/1.1 {status}").as_bytes());
    }
}

#[tokio::test]
async fn strangers_are_throttled_by_address() {
    let world = World::new().await;
    let buckets = TokenBuckets::new().administration(2, Duration::from_secs(60));
    let evaluator = world.evaluator().store(Store::default());
    let peer = |_: &http::request::Parts| Some([192, 0, 2, 1].into());
    let service =
        world.start(evaluator, |endpoints| endpoints.throttle(buckets).peer_address(peer)).await;
    for status in [401, 401, 429] {
        assert_eq!(service.post_toml("/lint", "unknown", "").await.status, status);
    }
    // An administrator behind the same address waits, too.
    let answer = service.post_toml("/lint", &world.owner(), "").await;
    assert_problem(&answer, 429, "too_many_requests");
}
