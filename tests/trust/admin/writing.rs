//! `PUT trusts`: conditions, faults, races and outages.

use std::time::Duration;

use scaikey_auth::trust::PolicyStore as _;
use serde_json::{Value, json};

use super::fixture::{Service, Store, World, assert_problem};
use crate::fixture::{grant, pod, trust};
use crate::support::{Log, MetricsRecorder};

/// A rule for another subject, so that the reporter is no longer granted.
fn other_rule() -> String {
    grant("billing", "subject = \"system:serviceaccount:billing:biller\"")
}

#[tokio::test]
async fn new_policy_decides_immediately() {
    let world = World::new().await;
    let (service, store) = world.start_with_policy().await;
    let second = world.start_with(&store).await;
    let pod = pod(&world.cluster).sign();
    for process in [&service, &second] {
        assert_eq!(process.exchange(&pod).await.status, 200);
    }
    let text = format!("{}\n{}", trust("k8s", &world.cluster, ""), other_rule());
    let answer = service.change(&world.owner(), &text).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(service.exchange(&pod).await.status, 400);
    // The other process decides by it at the latest after 5 s.
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(second.exchange(&pod).await.status, 400);
    assert_eq!(service.get("", &world.owner()).await.json()["text"], text.as_str());
}

#[tokio::test]
async fn version_has_author_and_note() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let admin = world.scaikey.token().scope("trust:admin").subject("ada").tenant("tnt_ops");
    let admin =
        admin.claim("preferred_username", "Ada\u{0}\n\u{202e}\u{200b} \u{2028}L\u{feff}.").sign();
    let tag = service.get("", &admin).await.header("etag").to_owned();
    let text = format!("{}\n# and more\n", world.text());
    let note = "?note=Ticket%2042:%20%3Cb%3Emore%3C/b%3E";
    let answer = service.put_at(note, &admin, &[("if-match", &tag)], &text).await;
    let version = answer.json()["version"].clone();
    let id = version["version"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("etag"), format!("\"{id}\""));
    assert!(id.starts_with("2-"), "{id}");
    let at = version["at"].as_str().unwrap();
    assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
    let expected = json!({
        "version": id,
        "number": 2,
        "at": at,
        "author": {
            "issuer": world.scaikey.issuer(),
            "subject": "ada",
            "tenant": "tnt_ops",
            "name": "Ada L.",
        },
        "note": "Ticket 42: <b>more</b>",
        "restores": null,
        "in_force": true,
        "damaged": false,
    });
    assert_eq!(version, expected);
    assert_eq!(service.get("", &admin).await.json()["version"], expected);
}

#[tokio::test]
async fn change_needs_exact_condition() {
    let world = World::new().await;
    let (service, store) = world.start_with_policy().await;
    let owner = world.owner();
    let tag = service.get("", &owner).await.header("etag").to_owned();
    let weak = format!("W/{tag}");
    let list = format!("{tag}, \"x\"");
    type Headers<'h> = &'h [(&'h str, &'h str)];
    let table: &[(Headers<'_>, u16, &str)] = &[
        (&[], 428, "precondition_required"),
        (&[("if-match", "*")], 400, "request_malformed"),
        (&[("if-match", &list)], 400, "request_malformed"),
        (&[("if-match", &tag), ("if-match", &tag)], 400, "request_malformed"),
        (&[("if-match", &tag), ("if-none-match", "*")], 400, "request_malformed"),
        (&[("if-match", tag.trim_matches('"'))], 400, "request_malformed"),
        (&[("if-match", &weak)], 412, "precondition_failed"),
        (&[("if-match", "\"1-0000000000000000\"")], 412, "precondition_failed"),
        (&[("if-match", "\"x\"")], 412, "precondition_failed"),
        (&[("if-none-match", "*")], 412, "precondition_failed"),
    ];
    for (condition, status, reason) in table {
        let answer = service.put(&owner, condition, "# nothing\n").await;
        assert_problem(&answer, *status, reason);
        let current = (*status == 412).then_some(tag.as_str());
        assert_eq!(answer.header_opt("etag"), current, "{condition:?}");
    }
    assert_eq!(store.versions.history(None, 10).await.unwrap().len(), 1);
    // A tag is good for one change only.
    assert_eq!(service.put(&owner, &[("if-match", &tag)], "# nothing\n").await.status, 200);
    let again = service.put(&owner, &[("if-match", &tag)], "# nothing\n").await;
    assert_problem(&again, 412, "precondition_failed");
}

#[tokio::test]
async fn refusals_say_what_to_correct() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let tag = service.get("", &owner).await.header("etag").to_owned();
    let too_long = "#".repeat((1 << 20) + 1);
    let number = json!({ "number": 1 }).to_string();
    let toml = ("content-type", "application/toml");
    let json = ("content-type", "application/json");
    let bare = ("if-match", tag.trim_matches('"'));
    for (method, path, headers, body, detail) in [
        ("PUT", "", &[toml, bare][..], "", "in quotation marks"),
        ("POST", "/lint", &[toml], &too_long, "1 MiB"),
        ("POST", "/rollback", &[json], &too_long, "64 KiB"),
        ("PUT", "", &[toml], "", "If-None-Match: *"),
        ("POST", "/rollback", &[json], &number, "needs If-Match with the ETag"),
        ("GET", "/decisions?after=x", &[], "", "The parameter after is not a number."),
        ("GET", "/history?before=x", &[], "", "The parameter before is not a number."),
        ("GET", "/history?limit=101", &[], "", "The parameter limit must be 1 to 100."),
        ("GET", "/decisions?outcome=foo", &[], "", "No decision has this outcome"),
        ("GET", "/decisions?outcom=granted", &[], "", "trust, outcome, after, limit"),
        ("GET", "/history?after=1", &[], "", "before, limit"),
        ("PUT", "?notes=x", &[toml], "", "note, accept_lockout"),
    ] {
        let answer = service.send(method, path, &owner, headers, body.to_owned()).await;
        assert!((400..430).contains(&answer.status), "{path}: {answer:?}");
        let found = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(found.contains(detail), "{path}: {found}");
        let is_rollback_without_condition = path == "/rollback" && body == number;
        assert!(!(is_rollback_without_condition && found.contains("If-None-Match")), "{found}");
    }
}

#[tokio::test]
async fn faulty_policy_changes_nothing() {
    let world = World::new().await;
    let (service, store) = world.start_with_policy().await;
    let owner = world.owner();
    let before = service.get("", &owner).await;
    let tag = before.header("etag").to_owned();
    let own = trust("own", &world.scaikey, "");
    let missing = trust("file", &world.cluster, "jwks = { file = \"/nonexistent/keys.json\" }");
    for text in ["[[trust]\n", "[[trust]]\nid = \"x\"\n", "\u{0}", &own, &missing] {
        let answer = service.put(&owner, &[("if-match", &tag)], text).await;
        assert_problem(&answer, 422, "policy_invalid");
        assert!(!answer.json()["faults"].as_array().unwrap().is_empty(), "{answer:?}");
    }
    let json = [("content-type", "application/json"), ("if-match", &*tag)];
    let answer = service.send("PUT", "", &owner, &json, "{\"trust\": 7}").await;
    assert_problem(&answer, 422, "policy_invalid");
    let text = [("content-type", "text/plain"), ("if-match", &*tag)];
    let answer = service.send("PUT", "", &owner, &text, "").await;
    assert_problem(&answer, 415, "unsupported_media_type");
    assert_eq!(store.versions.history(None, 10).await.unwrap().len(), 1);
    let after = service.get("", &owner).await;
    assert_eq!(after.header("etag"), tag);
    for member in ["version", "text", "policy"] {
        assert_eq!(after.json()[member], before.json()[member]);
    }
    assert_eq!(service.exchange(&pod(&world.cluster).sign()).await.status, 200);
}

#[tokio::test]
async fn json_policy_is_stored_as_toml() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let before = service.get("", &owner).await;
    let json = [("content-type", "application/json"), ("if-match", before.header("etag"))];
    let body = before.json()["policy"].to_string();
    let answer = service.send("PUT", "", &owner, &json, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let after = service.get("", &owner).await.json();
    assert_eq!(after["policy"], before.json()["policy"]);
    assert!(after["text"].as_str().unwrap().contains("[[trust]]"), "{after}");
}

#[tokio::test]
async fn bad_notes_are_refused() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let tag = service.get("", &owner).await.header("etag").to_owned();
    let long = format!("?note={}", "%C3%A4".repeat(201));
    for query in [
        &long,
        "?note=a%0Ab",
        "?note=%00",
        "?note=a&note=b",
        "?note=%FF",
        // A character that turns the direction, one without width, and a line separator.
        "?note=a%E2%80%AEb",
        "?note=a%E2%80%8Bb",
        "?note=a%E2%80%A8b",
        "?accept_lockout=1",
        "?accept_lock_out=true",
    ] {
        let answer = service.put_at(query, &owner, &[("if-match", &tag)], "# x\n").await;
        assert_problem(&answer, 400, "request_malformed");
    }
    let longest = format!("?note={}", "%C3%A4".repeat(200));
    let answer = service.put_at(&longest, &owner, &[("if-match", &tag)], "# x\n").await;
    assert_eq!(answer.json()["version"]["note"], "ä".repeat(200));
}

#[tokio::test]
async fn one_of_many_writers_wins() {
    let world = World::new().await;
    let (first, store) = world.start_with_policy().await;
    let second = world.start_with(&store).await;
    let owner = world.owner();
    let tag = first.get("", &owner).await.header("etag").to_owned();
    let writers = (0..32).map(|n| {
        let service = if n % 2 == 0 { &first } else { &second };
        let (owner, tag, text) = (&owner, &tag, format!("# writer {n}\n"));
        async move {
            let answer = service.put(owner, &[("if-match", tag)], &text).await;
            (n, answer)
        }
    });
    let answers = futures_util::future::join_all(writers).await;
    let winners: Vec<_> = answers.iter().filter(|(_, answer)| answer.status == 200).collect();
    assert_eq!(winners.len(), 1);
    let (winner, version) = (winners[0].0, winners[0].1.header("etag"));
    for (_, answer) in answers.iter().filter(|(n, _)| *n != winner) {
        assert_problem(answer, 412, "precondition_failed");
        assert_eq!(answer.header("etag"), version);
    }
    let versions = store.versions.history(None, 100).await.unwrap();
    assert_eq!(versions.len(), 2);
    let text = first.get("", &owner).await.json()["text"].clone();
    assert_eq!(text, format!("# writer {winner}\n"));
}

/// Adds a comment, as often as it takes.
async fn add_line(service: &Service, owner: &str, line: &str) {
    loop {
        let current = service.get("", owner).await;
        let text = format!("{}{line}\n", current.json()["text"].as_str().unwrap());
        let condition = [("if-match", current.header("etag"))];
        match service.put(owner, &condition, &text).await.status {
            200 => return,
            status => assert_eq!(status, 412),
        }
    }
}

#[tokio::test]
async fn no_change_of_another_writer_is_lost() {
    let world = World::new().await;
    let (first, store) = world.start_with_policy().await;
    let second = world.start_with(&store).await;
    let owner = world.owner();
    let lines: Vec<_> = (0..8).map(|n| format!("# line {n}")).collect();
    let writers = lines.iter().enumerate().map(|(n, line)| {
        let service = if n % 2 == 0 { &first } else { &second };
        add_line(service, &owner, line)
    });
    futures_util::future::join_all(writers).await;
    let text = second.get("", &owner).await.json()["text"].as_str().unwrap().to_owned();
    assert!(lines.iter().all(|line| text.contains(line.as_str())), "{text}");
    let history = first.get("/history", &owner).await.json();
    assert_eq!(history["versions"].as_array().unwrap().len(), 9);
}

#[tokio::test]
async fn first_version_needs_empty_store() {
    let world = World::new().await;
    let store = Store::default();
    let (service, owner) = (world.start_with(&store).await, world.owner());
    let empty = service.get("", &owner).await;
    assert_eq!((empty.status, empty.header_opt("etag")), (200, None));
    let body = empty.json();
    assert_eq!((&body["version"], &body["text"]), (&Value::Null, &json!("")));
    assert_eq!(body["writable"], true);
    let stale = service.put(&owner, &[("if-match", "\"1-0000000000000000\"")], "").await;
    assert_problem(&stale, 412, "precondition_failed");
    assert_eq!(stale.header_opt("etag"), None);
    let first = service.put(&owner, &[("if-none-match", "*")], &world.text()).await;
    assert_eq!((first.status, &first.json()["version"]["number"]), (200, &json!(1)));
    let again = service.put(&owner, &[("if-none-match", "*")], &world.text()).await;
    assert_problem(&again, 412, "precondition_failed");
}

#[tokio::test]
async fn outage_of_store_changes_nothing() {
    let world = World::new().await;
    let (service, store) = world.start_with_policy().await;
    let owner = world.owner();
    let tag = service.get("", &owner).await.header("etag").to_owned();
    store.set_away(true);
    let log = Log::start();
    let condition = [("if-match", tag.as_str())];
    let answer = service.put(&owner, &condition, "# nobody\n").await;
    assert_problem(&answer, 503, "unavailable");
    assert!(answer.body.contains("The service's log names the cause."), "{answer:?}");
    let warnings = log.lines("WARN");
    for message in ["the loaded policy stays in force", "failed for an administrator"] {
        let names_cause = |line: &String| line.contains(message) && line.contains("canary-host");
        assert!(warnings.iter().any(names_cause), "{message}: {warnings:#?}");
    }
    assert_eq!(answer.header("retry-after"), "1");
    assert!(!answer.body.contains("canary-host"), "{answer:?}");
    let body = json!({ "number": 1 });
    assert_problem(&service.roll_back(&owner, &tag, &body).await, 503, "unavailable");
    assert_problem(&service.get("/history", &owner).await, 503, "unavailable");
    // The loaded policy is shown, and decides.
    let shown = service.get("", &owner).await;
    assert_eq!((shown.status, &shown.json()["store"]["state"]), (200, &json!("away")));
    assert_eq!(shown.header("etag"), tag);
    assert!(!shown.body.contains("canary-host"), "{shown:?}");
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(service.exchange(&pod(&world.cluster).sign()).await.status, 200);
    store.set_away(false);
    assert_eq!(service.get("", &owner).await.json()["store"]["state"], "ok");
    assert_eq!(service.put(&owner, &condition, "# nobody\n").await.status, 200);
    assert_eq!(service.exchange(&pod(&world.cluster).sign()).await.status, 400);
}

#[tokio::test]
async fn outage_at_start_is_503() {
    let world = World::new().await;
    let store = Store::default();
    store.set_away(true);
    let (log, service) = (Log::start(), world.start_with(&store).await);
    let owner = world.owner();
    for path in ["", "/history", "/history/1"] {
        assert_problem(&service.get(path, &owner).await, 503, "unavailable");
    }
    let first = service.put(&owner, &[("if-none-match", "*")], &world.text()).await;
    assert_problem(&first, 503, "unavailable");
    let warnings = log.lines("WARN");
    let message = "no policy is loaded, so every token is denied";
    assert!(warnings[0].contains(message) && warnings[0].contains("canary-host"), "{warnings:#?}");
    assert!(!log.text().contains("the loaded policy stays in force"), "{warnings:#?}");
    store.set_away(false);
    assert_eq!(service.get("", &owner).await.status, 200);
}

#[tokio::test]
async fn policy_without_store_is_read_only() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    let shown = service.get("", &owner).await.json();
    assert_eq!(shown["writable"], false);
    assert_eq!(shown["store"], json!({ "kind": null, "state": "none", "rejected": null }));
    assert!(shown["text"].as_str().unwrap().contains("id = \"k8s\""), "{shown}");
    for condition in [("if-none-match", "*"), ("if-match", "\"1-0000000000000000\"")] {
        let answer = service.put(&owner, &[condition], "").await;
        assert_problem(&answer, 403, "read_only");
    }
    let answer = service.roll_back(&owner, "\"1-0000000000000000\"", &json!({ "number": 1 })).await;
    assert_problem(&answer, 403, "read_only");
    assert_eq!(service.get("/history", &owner).await.json(), json!({ "versions": [] }));
    assert_problem(&service.get("/history/1", &owner).await, 404, "not_found");
}

#[tokio::test]
async fn workload_does_not_lock_itself_out() {
    let world = World::new().await;
    let map = "map = { identity = \"sa:{trust}:{sub}\", tenant = \"tnt_acme\", scopes = [\"trust:admin\"] }";
    let rule = format!(
        "[[trust.grant]]\nname = \"terraform\"\nsubject = \"system:serviceaccount:reports:reporter\"\n{map}\n"
    );
    let text = format!("{}\n{rule}", trust("k8s", &world.cluster, ""));
    let store = Store::default();
    let service = world.start_with(&store).await;
    service.put(&world.owner(), &[("if-none-match", "*")], "# nothing\n").await;
    service.change(&world.owner(), &text).await;
    let minted = service.exchange(&pod(&world.cluster).sign()).await.json();
    let terraform = minted["access_token"].as_str().unwrap();
    let tag = service.get("", terraform).await.header("etag").to_owned();
    let condition = [("if-match", tag.as_str())];
    let without = format!("{}\n{}", trust("k8s", &world.cluster, ""), other_rule());
    let answer = service.put(terraform, &condition, &without).await;
    assert_problem(&answer, 409, "locks_you_out");
    let back = service.roll_back(terraform, &tag, &json!({ "number": 1 })).await;
    assert_problem(&back, 409, "locks_you_out");
    let same = format!("{text}\n{}", other_rule());
    assert_eq!(service.put(terraform, &condition, &same).await.status, 200);
    // An owner who is no workload is not asked.
    let answer = service.change(&world.owner(), &text).await;
    assert_eq!(answer.status, 200);
    let condition = [("if-match", answer.header("etag"))];
    let insists = "?accept_lockout=true";
    let answer = service.put_at(insists, terraform, &condition, &without).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn answers_are_counted_in_metrics() {
    let world = World::new().await;
    let (service, _) = world.start_with_policy().await;
    let metrics = MetricsRecorder::default();
    let _guard = metrics::set_default_local_recorder(&metrics);
    service.get("", &world.owner()).await;
    service.get("/ui", "").await;
    service.get("", "").await;
    let count = |outcome: &str| {
        let parts = ["scaikey_auth_endpoint_answers_total", "trusts", outcome];
        metrics.sum_of(&parts)
    };
    assert_eq!((count("ok"), count("refused")), (2, 1), "{:?}", metrics.series());
}
