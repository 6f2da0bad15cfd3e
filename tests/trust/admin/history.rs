//! `GET trusts/history` and `POST trusts/rollback`.

use scaikey_auth::trust::FilePolicies;
use serde_json::json;

use super::fixture::{World, assert_problem, members};
use crate::fixture::{pod, trust};
use crate::support::File;

#[tokio::test]
async fn history_lists_versions_latest_first() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    for n in 2..=5 {
        let answer = service.change(&owner, &format!("# version {n}\n")).await;
        assert_eq!(answer.status, 200);
    }
    let numbers = async |query: &str| -> Vec<u64> {
        let answer = service.get(&format!("/history{query}"), &owner).await.json();
        let versions = answer["versions"].as_array().unwrap();
        versions.iter().map(|version| version["number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers("").await, [5, 4, 3, 2, 1]);
    assert_eq!(numbers("?limit=2").await, [5, 4]);
    assert_eq!(numbers("?before=4&limit=2").await, [3, 2]);
    assert_eq!(numbers("?before=1").await, [0_u64; 0]);
    for query in
        ["?limit=0", "?limit=101", "?limit=x", "?before=-1", "?before=", "?limit=1&limit=1"]
    {
        // An empty value counts as absent.
        if query != "?before=" {
            let answer = service.get(&format!("/history{query}"), &owner).await;
            assert_problem(&answer, 400, "request_malformed");
        }
    }
    let history = service.get("/history", &owner).await.json();
    for version in history["versions"].as_array().unwrap() {
        let expected =
            ["at", "author", "damaged", "in_force", "note", "number", "restores", "version"];
        assert_eq!(members(version), expected);
        assert_eq!(version["in_force"], version["number"] == 5);
        assert_eq!(members(&version["author"]), ["issuer", "name", "subject", "tenant"]);
    }
}

#[tokio::test]
async fn damaged_version_is_shown_as_such() {
    let world = World::new().await;
    let file = File::new("trust.toml", &world.text());
    let store = FilePolicies::new(file.path());
    let service = world.start(world.evaluator().store(store), |endpoints| endpoints).await;
    let owner = world.owner();
    for n in 2..=4 {
        let answer = service.change(&owner, &format!("# version {n}\n")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let folder = file.path().with_file_name("trust.toml.history");
    let show = async || {
        let history = service.get("/history", &owner).await;
        assert_eq!(history.status, 200, "{history:?}");
        let versions = history.json()["versions"].clone();
        let damaged: Vec<_> =
            versions.as_array().unwrap().iter().map(|it| it["damaged"].clone()).collect();
        (versions, damaged)
    };
    for (entry, damage) in [("00000002.json", "{"), ("00000003.json", "\u{0}")] {
        std::fs::write(folder.join(entry), damage).unwrap();
    }
    let (versions, damaged) = show().await;
    assert_eq!(damaged, [false, true, true, false]);
    let expected = json!({
        "version": "3-0000000000000000", "number": 3, "at": null, "author": null, "note": null,
        "restores": null, "in_force": false, "damaged": true,
    });
    assert_eq!(versions[1], expected);
    // The damage of the latest version hides no other.
    std::fs::write(folder.join("00000004.json"), "[]").unwrap();
    assert_eq!(show().await.1, [true, true, true, false]);
}

#[tokio::test]
async fn version_is_shown_with_text() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    service.change(&owner, "# second\n").await;
    let first = service.get("/history/1", &owner).await.json();
    assert_eq!(members(&first), ["text", "version"]);
    assert_eq!(first["text"], world.text());
    assert_eq!(
        (&first["version"]["number"], &first["version"]["in_force"]),
        (&json!(1), &json!(false))
    );
    let second = service.get("/history/2", &owner).await.json();
    assert_eq!(
        (&second["text"], &second["version"]["in_force"]),
        (&json!("# second\n"), &json!(true))
    );
    let history = service.get("/history", &owner).await.json();
    assert_eq!(history["versions"][0], second["version"]);
    for path in ["/history/3", "/history/18446744073709551615"] {
        assert_problem(&service.get(path, &owner).await, 404, "not_found");
    }
}

#[tokio::test]
async fn rollback_restores_text_as_new_version() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let (owner, token) = (world.owner(), pod(&world.cluster).sign());
    let changed = service.change(&owner, "# nobody\n").await;
    assert_eq!(service.exchange(&token).await.status, 400);
    let tag = changed.header("etag");
    let answer = service.roll_back(&owner, tag, &json!({ "number": 1, "note": "oops" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let version = answer.json()["version"].clone();
    assert_eq!(version["number"], 3);
    assert_eq!((&version["restores"], &version["note"]), (&json!(1), &json!("oops")));
    assert_eq!(service.get("/history/3", &owner).await.json()["text"], world.text());
    assert_eq!(service.exchange(&token).await.status, 200);
    assert_eq!(service.get("/history/1", &owner).await.json()["version"]["number"], 1);
}

#[tokio::test]
async fn rollback_is_checked_like_a_change() {
    let world = World::new().await;
    let (service, store) = world.start_with_policy().await;
    let owner = world.owner();
    let tag = service.get("", &owner).await.header("etag").to_owned();
    let one = json!({ "number": 1 });
    let json = [("content-type", "application/json")];
    let answer = service.send("POST", "/rollback", &owner, &json, one.to_string()).await;
    assert_problem(&answer, 428, "precondition_required");
    let stale = service.roll_back(&owner, "\"9-0000000000000000\"", &one).await;
    assert_problem(&stale, 412, "precondition_failed");
    assert_eq!(stale.header("etag"), tag);
    // A version that does not exist is not found, whatever the condition says.
    for tag in [&*tag, "\"9-0000000000000000\""] {
        let unknown = service.roll_back(&owner, tag, &json!({ "number": 9 })).await;
        assert_problem(&unknown, 404, "not_found");
    }
    for body in [
        json!({}),
        json!({ "number": "1" }),
        json!({ "number": -1 }),
        json!({ "number": 1, "x": 1 }),
        json!({ "number": 1, "note": "a\nb" }),
        json!([1]),
    ] {
        let answer = service.roll_back(&owner, &tag, &body).await;
        assert_problem(&answer, 400, "request_malformed");
    }
    // A version of an earlier release may be refused by the checks of today.
    let faulty = trust("own", &world.scaikey, "");
    let id = tag.trim_matches('"').parse().unwrap();
    append(&store, &faulty, &id).await;
    let second = service.get("/history/2", &owner).await.json();
    let tag = format!("\"{}\"", second["version"]["version"].as_str().unwrap());
    let answer = service.roll_back(&owner, &tag, &json!({ "number": 2 })).await;
    assert_problem(&answer, 422, "policy_invalid");
    let shown = service.get("", &owner).await.json();
    assert_eq!(shown["store"]["rejected"], second["version"]["version"]);
    assert_eq!(shown["version"]["number"], 1);
    // The administrator gets out of it by a rollback.
    assert_eq!(service.roll_back(&owner, &tag, &one).await.status, 200);
    assert_eq!(service.get("", &owner).await.json()["version"]["number"], 3);
}

/// Appends a version behind the back of the checks.
async fn append(
    store: &super::fixture::Store,
    text: &str,
    expected: &scaikey_auth::trust::PolicyVersionId,
) {
    use scaikey_auth::trust::{Appended, NewPolicyVersion, PolicyStore as _};
    let version = NewPolicyVersion::new(text, std::time::SystemTime::now());
    let appended = store.versions.append(version, Some(expected)).await.unwrap();
    assert!(matches!(appended, Appended::Done(_)));
}
