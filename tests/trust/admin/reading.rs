//! `GET trusts` and the presets.

use std::time::Duration;

use scaikey_auth::trust::presets;
use serde_json::json;

use super::fixture::{World, members};
use crate::fixture::{reporter, trust};

#[tokio::test]
async fn policy_is_shown_with_its_state() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let answer = service.get("", &world.owner()).await;
    let body = answer.json();
    let version = &body["version"];
    assert_eq!(answer.header("etag"), format!("\"{}\"", version["version"].as_str().unwrap()));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    let expected = json!({
        "access": "owner",
        "tenant": null,
        "writable": true,
        "version": version,
        "text": world.text(),
        "policy": body["policy"],
        "warnings": [],
        "trusts": [{
            "id": "k8s",
            "issuer": world.cluster.issuer(),
            "trust_domain": null,
            "mode": "enforce",
            "named_only": false,
            "not_after": null,
            "ended": false,
            "expires_soon": false,
            "rules": 1,
            "keys": { "state": "unknown", "problem": null, "age_seconds": null },
            "last_used": null,
            "granted": 0,
            "denied": 0,
        }],
        "store": { "kind": "test", "state": "ok", "rejected": null },
    });
    assert_eq!(body, expected);
    assert_eq!(members(&body["policy"]), ["trust"]);
    assert_eq!(body["policy"]["trust"][0]["grant"][0]["name"], "reporting");
}

#[tokio::test]
async fn toml_is_sent_if_preferred() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    for (accept, is_toml) in [
        ("application/toml", true),
        ("application/toml, */*;q=0.1", true),
        ("application/json;q=0.5, application/toml", true),
        ("application/json", false),
        ("application/toml;q=0.5, application/json", false),
        ("application/toml;q=0", false),
        ("*/*", false),
        ("text/html", false),
    ] {
        let answer = service.send("GET", "", &owner, &[("accept", accept)], "").await;
        let media_type = if is_toml { "application/toml" } else { "application/json" };
        assert_eq!(answer.header("content-type"), media_type, "{accept}");
        assert_eq!(answer.header("vary"), "accept");
    }
    let toml = ("accept", "application/toml");
    let answer = service.send("GET", "", &owner, &[toml], "").await;
    assert_eq!(answer.body, world.text());
    let tag = answer.header("etag").to_owned();
    let known = service.send("GET", "", &owner, &[toml, ("if-none-match", &tag)], "").await;
    assert_eq!((known.status, known.body.as_str(), known.header("etag")), (304, "", &*tag));
    assert_eq!(known.header_opt("content-type"), None);
    // The JSON has more than the policy, so it is always sent.
    let json = service.send("GET", "", &owner, &[("if-none-match", &tag)], "").await;
    assert_eq!(json.status, 200);
}

#[tokio::test]
async fn overview_names_end_and_mode() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let now = humantime::format_rfc3339_seconds(
        scaikey_auth::clock::Clock::now(&world.clock) + Duration::from_secs(20 * 24 * 3600),
    );
    let soon = &now.to_string()[..10];
    let text = [
        trust("old", &world.cluster, "named_only = true\nnot_after = 2020-06-30\nmode = \"audit\""),
        reporter(),
        trust("soon", &world.cluster, &format!("named_only = true\nnot_after = {soon}")),
    ];
    assert_eq!(service.change(&owner, &text.join("\n")).await.status, 200);
    let trusts = service.get("", &owner).await.json()["trusts"].clone();
    let state = |n: usize| {
        let trust = &trusts[n];
        (trust["ended"].clone(), trust["expires_soon"].clone(), trust["mode"].clone())
    };
    assert_eq!(state(0), (json!(true), json!(false), json!("audit")));
    assert_eq!(state(1), (json!(false), json!(true), json!("enforce")));
    assert_eq!(trusts[0]["not_after"], "2020-06-30");
    assert_eq!(trusts[0]["named_only"], true);
}

#[tokio::test]
async fn presets_are_listed_with_texts() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    let answer = service.get("/presets", &owner).await.json();
    assert_eq!(answer["presets"].as_array().unwrap().len(), presets::ALL.len());
    let first = json!({ "name": "kubernetes", "text": presets::kubernetes() });
    assert_eq!(answer["presets"][0], first);
}
