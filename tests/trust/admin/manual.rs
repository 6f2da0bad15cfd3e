//! The answers that the manual shows.

use std::collections::BTreeMap;

use scaikey_auth::trust::MemoryPolicies;
use serde_json::{Value, json};

use super::fixture::World;
use crate::fixture::bare;

const MANUAL: &str = include_str!("../../../src/manual/trust.md");

/// The policy of the example `trust_admin`.
const POLICY: &str = include_str!("../../../examples/trust_admin.toml");

const NIGHTLY: &str = r#"
[[trust.grant]]
name = "nightly"
subject = "repo:acme/shop:ref:refs/heads/nightly"
map = { identity = "sa:nightly", tenant = "acme", scopes = ["secrets:read"] }
"#;

/// Members whose values differ from run to run.
const VARIABLE: [&str; 7] =
    ["age_seconds", "at", "kind", "last_used", "number", "subject_sha256", "version"];

#[tokio::test]
async fn manual_shows_real_answers() {
    let answers = answers().await;
    let shown = shown_answers();
    assert_eq!(answers.keys().collect::<Vec<_>>(), shown.keys().collect::<Vec<_>>());
    for (request, shown) in &shown {
        compare(request, shown, &answers[request]);
    }
}

/// Does what the example `trust_admin` does.
async fn answers() -> BTreeMap<String, Value> {
    let world = World::new().await;
    let service = world.start(world.evaluator().store(MemoryPolicies::new()), |it| it).await;
    let owner = world.scaikey.token().scope("trust:admin").subject("alice-id").tenant("acme");
    let owner = owner.sign();
    let issuer = world.cluster.issuer();
    let first = POLICY.replace("CI\"", &format!("{issuer}\""));
    let next = format!("{first}{NIGHTLY}");
    let faulty = first.replace("\"1h\"", "\"1h\"\nmode = \"strict\"");
    let put = service.put(&owner, &[("if-none-match", "*")], &first).await;
    assert_eq!(put.status, 200, "{put:?}");
    let job = bare(&world.cluster).audience("vault");
    let job = job.subject("repo:acme/shop:ref:refs/heads/nightly").sign();
    assert_eq!(service.exchange(&job).await.status, 400);

    let mut answers = BTreeMap::new();
    let mut insert = |request: &str, answer: Value| {
        let text = answer.to_string().replace(&issuer, "https://ci.example");
        let text = text.replace(&world.scaikey.issuer(), "https://login.example");
        answers.insert(request.to_owned(), serde_json::from_str(&text).unwrap());
    };
    insert("POST trusts/lint", service.post_toml("/lint", &owner, &faulty).await.json());
    let explain = service.post_json("/explain", &owner, &json!({ "token": job })).await;
    insert("POST trusts/explain", explain.json());
    insert("POST trusts/dry_run", service.post_toml("/dry_run", &owner, &next).await.json());
    let condition = [("if-match", put.header("etag"))];
    let put = service.put_at("?note=nightly", &owner, &condition, &next).await;
    insert("PUT trusts", put.json());
    let condition = [("if-match", put.header("etag"))];
    insert("422", service.put(&owner, &condition, &faulty).await.json());
    assert_eq!(service.exchange(&job).await.status, 200);
    insert("GET trusts/decisions", service.get("/decisions", &owner).await.json());
    insert("GET trusts", service.get("", &owner).await.json());
    answers
}

/// Returns the JSON of the manual by the first words in code quotes before it, or the status of a problem.
fn shown_answers() -> BTreeMap<String, Value> {
    let blocks = MANUAL.split("\n```json\n").collect::<Vec<_>>();
    let shown = blocks.windows(2).map(|pair| {
        let sentence = pair[0].trim_end().rsplit("\n\n").next().unwrap();
        let request = match sentence.split_once("the 422") {
            Some(_) => "422",
            None => sentence.split('`').nth(1).unwrap(),
        };
        let (text, _) = pair[1].split_once("\n```").unwrap();
        (request.to_owned(), serde_json::from_str(text).unwrap())
    });
    shown.collect()
}

/// Checks that an answer has what is shown. Members and elements may be left out, and `…` stands for the rest of a text.
fn compare(place: &str, shown: &Value, answer: &Value) {
    match (shown, answer) {
        (Value::Object(shown), Value::Object(answer)) => {
            for (name, shown) in shown {
                let place = format!("{place}.{name}");
                let answer = answer.get(name).unwrap_or_else(|| panic!("{place} is missing"));
                match VARIABLE.contains(&name.as_str()) && !shown.is_object() {
                    true => assert_eq!(kind(shown), kind(answer), "{place}: {answer}"),
                    false => compare(&place, shown, answer),
                }
            }
        }
        (Value::Array(shown), Value::Array(answer)) if !shown.is_empty() => {
            assert!(shown.len() <= answer.len(), "{place}: {answer:?}");
            for (shown, answer) in shown.iter().zip(answer) {
                compare(place, shown, answer);
            }
        }
        (Value::String(shown), Value::String(answer)) if shown.ends_with('…') => {
            assert!(answer.starts_with(shown.trim_end_matches('…')), "{place}: {answer}");
        }
        _ => assert_eq!(shown, answer, "{place}"),
    }
}

/// Returns the type of a value.
fn kind(value: &Value) -> std::mem::Discriminant<Value> {
    std::mem::discriminant(value)
}
