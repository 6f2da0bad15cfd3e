//! `GET trusts/decisions` and `POST trusts/dry_run`.

use serde_json::{Value, json};

use super::fixture::{Service, World, assert_problem, members};
use crate::fixture::{grant, pod, trust};

/// Starts a service that has granted one token and denied two.
async fn with_decisions(world: &World) -> Service {
    let (service, _) = world.start_with_policy().await;
    assert_eq!(service.exchange(&pod(&world.cluster).sign()).await.status, 200);
    let other = pod(&world.cluster).subject("system:serviceaccount:billing:biller").sign();
    assert_eq!(service.exchange(&other).await.status, 400);
    assert_eq!(service.exchange("junk").await.status, 400);
    service
}

#[tokio::test]
async fn decisions_are_listed_latest_first() {
    let world = World::new().await;
    let service = with_decisions(&world).await;
    let answer = service.get("/decisions", &world.owner()).await.json();
    assert_eq!(members(&answer), ["capacity", "decisions"]);
    assert_eq!(answer["capacity"], 1000);
    let outcomes = |answer: &Value| -> Vec<String> {
        let decisions = answer["decisions"].as_array().unwrap().iter();
        decisions.map(|it| it["outcome"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(outcomes(&answer), ["token_malformed", "grant_none", "granted"]);
    let granted = &answer["decisions"][2];
    let expected = json!({
        "number": granted["number"],
        "at": granted["at"],
        "trust": "k8s",
        "rule": "reporting",
        "outcome": "granted",
        "tenant": "tnt_acme",
        "subject_sha256": granted["subject_sha256"],
        "scopes": ["secrets:read", "secrets:list"],
    });
    assert_eq!(*granted, expected);
    assert_eq!(granted["subject_sha256"].as_str().unwrap().len(), 64);
    let after = format!("/decisions?after={}", granted["number"]);
    for (path, expected) in [
        ("/decisions?outcome=granted", &["granted"][..]),
        ("/decisions?trust=k8s", &["grant_none", "granted"]),
        ("/decisions?trust=k8s&outcome=grant_none", &["grant_none"]),
        ("/decisions?trust=none", &[]),
        ("/decisions?limit=1", &["token_malformed"]),
        (&after, &["token_malformed", "grant_none"]),
    ] {
        let answer = service.get(path, &world.owner()).await.json();
        assert_eq!(outcomes(&answer), expected, "{path}");
    }
    for query in ["?limit=0", "?limit=99999", "?after=x", "?trust=a&trust=b"] {
        let answer = service.get(&format!("/decisions{query}"), &world.owner()).await;
        assert_problem(&answer, 400, "request_malformed");
    }
}

#[tokio::test]
async fn overview_counts_decisions() {
    let world = World::new().await;
    let service = with_decisions(&world).await;
    let trusts = service.get("", &world.owner()).await.json()["trusts"].clone();
    let k8s = &trusts[0];
    assert_eq!((&k8s["granted"], &k8s["denied"]), (&json!(1), &json!(1)), "{k8s}");
    let last_used = k8s["last_used"].as_str().unwrap();
    assert!(last_used.ends_with('Z') && last_used.len() == 20, "{last_used}");
    assert_eq!(k8s["keys"]["state"], "ok", "{k8s}");
}

#[tokio::test]
async fn dry_run_names_changed_decisions() {
    let world = World::new().await;
    let service = with_decisions(&world).await;
    let owner = world.owner();
    let same = service.post_toml("/dry_run", &owner, &world.text()).await;
    assert_eq!(same.status, 200, "{same:?}");
    assert_eq!(members(&same.json()), ["changes", "considered", "skipped", "unknown"]);
    assert_eq!(same.json()["changes"], json!([]));
    let rule = grant("billing", "subject = \"system:serviceaccount:billing:biller\"");
    let text = format!("{}\n{rule}", trust("k8s", &world.cluster, ""));
    let changes = service.post_toml("/dry_run", &owner, &text).await.json()["changes"].clone();
    assert_eq!(changes.as_array().unwrap().len(), 2, "{changes}");
    for change in changes.as_array().unwrap() {
        let expected =
            ["after", "at", "before", "differences", "number", "rule", "subject_sha256", "trust"];
        assert_eq!(members(change), expected);
        assert_ne!(change["before"], change["after"]);
    }
    for text in ["[[trust]]\n", &trust("own", &world.scaikey, "")] {
        let faulty = service.post_toml("/dry_run", &owner, text).await;
        assert_problem(&faulty, 422, "policy_invalid");
    }
    // Nothing of it came into force.
    assert_eq!(service.exchange(&pod(&world.cluster).sign()).await.status, 200);
}

#[tokio::test]
async fn explanation_of_claims_is_unverified() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let issuer = world.cluster.issuer();
    let claims = json!({ "iss": issuer, "aud": "scaivault",
        "sub": "system:serviceaccount:reports:reporter" });
    let answer = service.post_json("/explain", &owner, &json!({ "claims": claims })).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["verified"]), (200, &json!(false)), "{answer:?}");
    assert_eq!((&body["trust"], &body["rule"]), (&json!("k8s"), &json!("reporting")));
    let expected = [
        "identity", "lines", "outcome", "problem", "rule", "rules", "scopes", "tenant", "trust",
        "verified",
    ];
    assert_eq!(members(&body), expected);
    // The same under a policy that is not saved.
    let text = trust("k8s", &world.cluster, "");
    let request = json!({ "claims": claims, "text": text });
    let body = service.post_json("/explain", &owner, &request).await.json();
    assert_eq!((&body["rule"], &body["outcome"]), (&Value::Null, &json!("grant_none")), "{body}");
    let request = json!({ "token": pod(&world.cluster).sign(), "text": text });
    let body = service.post_json("/explain", &owner, &request).await.json();
    assert_eq!(
        (&body["verified"], &body["outcome"]),
        (&json!(true), &json!("grant_none")),
        "{body}"
    );
    let request = json!({ "claims": claims, "text": "[[trust]]" });
    let faulty = service.post_json("/explain", &owner, &request).await;
    assert_problem(&faulty, 422, "policy_invalid");
    for body in [json!({ "claims": claims, "token": "x" }), json!({ "text": text })] {
        let answer = service.post_json("/explain", &owner, &body).await;
        assert_problem(&answer, 400, "request_malformed");
    }
}
